"""The HTTP gateway: one VideoJob a request, in five dialects. Stateless: all is known in the cluster and the store."""
