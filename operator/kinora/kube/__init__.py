"""The one way to the API server: configuration, REST client, list and watch, events.

Knows Kubernetes, and of Kinora's own resources only that they exist.
"""
