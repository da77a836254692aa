"""Guarded intake of inputs and resolution of parameters. Arrives with the issue on tasks."""
