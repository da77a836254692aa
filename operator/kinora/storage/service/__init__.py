"""The store service: how a gateway reads and writes a store that only a stager mounts.

Values, errors and the protocol of what is behind it (`model.py`), signatures (`signing.py`), ranges (`ranges.py`), and
the client (`client.py`). The serving side is the stager's.
"""
