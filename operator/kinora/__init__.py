"""Kinora: a Kubernetes operator that makes a GPU cluster render videos the way Kubernetes runs pods."""

__version__ = "0.1.0"
