"""The scale harness: the real operator, the real agents with an engine in memory, a real API server without a kubelet.

`make bench-scale` runs it. __main__ reads the options, run.py puts a run together from phases.py, what is hollow lives
in hollow.py and node.py, the comparisons in bare.py and plain.py. Traffic goes to the API server on 127.0.0.1 alone.
"""
