"""Decisions about stagers: a namespace's ModelServers, Deployments -> what runs there. No I/O, clock or randomness."""
