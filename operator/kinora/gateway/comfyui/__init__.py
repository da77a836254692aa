"""The ComfyUI dialect: ComfyUI's own routes and websocket, of which each prompt is a VideoJob."""
