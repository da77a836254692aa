"""The providers of GPU capacity as data, and what a pool of theirs asks of a pod. No I/O but reading that data."""
