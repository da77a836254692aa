"""The one way to the API server: configuration, REST client, list and watch, events.

With it, what each process of ours in a cluster has: a work queue, and endpoints for probes and metrics. Knows
Kubernetes, and of Kinora's own resources only that they exist.
"""
