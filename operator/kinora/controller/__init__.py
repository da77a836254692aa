"""The operator: kopf edge, store, work queue, executor; decisions in videojob/, modelserver/ and scheduling/.

It decides; it never touches media and never talks to an engine.
"""
