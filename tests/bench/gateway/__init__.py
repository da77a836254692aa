"""How many requests one replica of the gateway answers: `make bench-gateway`."""
