"""The S3 protocol as Kinora speaks it: addresses, signatures, requests that are tried again, uploads in parts.

It knows buckets and keys, nothing of jobs, artifacts or weights: what is stored where is storage/'s and weights/'s.
"""
