"""The stand-in: an HTTP and websocket server that speaks ComfyUI's protocol and paints videos on the CPU.

It checks graphs as ComfyUI does, really reads their inputs and writes real H.264 files, but holds no model and says so
in its logs, at /system_stats and in every video. Nothing of the product may import from here: it is a program of its
own, which the agent meets only over HTTP.
"""

STANDIN_NAME = "Kinora stand-in engine, not a model"
