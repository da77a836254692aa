"""The operator: kopf edge, store, work queue, executor; decisions in videojob/ and modelserver/. Never touches media or an engine."""
