"""The one way to the API server: configuration, REST client, list and watch, events. Knows Kubernetes, not Kinora's resources."""
