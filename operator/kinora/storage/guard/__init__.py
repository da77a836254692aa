"""Fetching what users point to, and nothing else: address policy, URL policy (both pure), and the guarded fetcher."""
