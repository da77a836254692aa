"""The two resources: pydantic models, defaults, CEL, CRD generation, names and reasons. Knows nobody; no I/O."""
