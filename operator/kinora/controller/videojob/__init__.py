"""Decisions about VideoJobs: snapshot -> check, heal, finish. No I/O, clock or randomness."""
