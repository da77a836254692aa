"""The HTTP dialects. Arrives with the issue on the gateway."""
