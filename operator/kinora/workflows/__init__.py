"""Raw workflows: a user's ComfyUI graph, read, bound to the job's values, judged, and made ready to run. Pure.

Here live the allow-list of (class, input) pairs and the limits of what a graph may ask for. Operator, agent and CLI
judge by the same functions. Nothing here opens a file, asks a cluster or an engine, or knows a task's recipe.
"""
