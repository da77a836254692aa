"""Task -> ComfyUI graph, and the resolution of parameters before it. Pure functions; knows api and catalogue."""
