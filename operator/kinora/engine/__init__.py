"""The engine side: ComfyUI client, the stand-in engine that speaks its protocol, the supervisor, the node contract."""
