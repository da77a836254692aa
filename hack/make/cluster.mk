# The dev cluster and the images. Everything is `python3 hack/cluster COMMAND`:
# see docs/dev-cluster.md.

KINORA_CLUSTER_NAME ?= kinora
KINORA_IT_NAME ?= $(or $(KINORA_IT_CLUSTER),kinora-it)
CLUSTER := python3 hack/cluster

.PHONY: cluster-up cluster-down images integration-up integration-down

cluster-up: ## Start the dev cluster (API server, kubelet, 4 GPUs that are only counted)
	@$(CLUSTER) up --name $(KINORA_CLUSTER_NAME)

cluster-down: ## Stop the dev cluster and remove what it made; caches stay
	@$(CLUSTER) down --name $(KINORA_CLUSTER_NAME)

images: ## Build the images and load those that changed into the dev cluster
	@$(CLUSTER) images --name $(KINORA_CLUSTER_NAME)

# Never a cluster of somebody's: these tests write whatever they like to it.
integration-up: ## Start a control plane without a node, for the integration tests
	@env -u KINORA_CLUSTER -u KINORA_REGISTRY $(CLUSTER) up --name $(KINORA_IT_NAME) --control-plane-only

integration-down: ## Stop the control plane of the integration tests
	@env -u KINORA_CLUSTER -u KINORA_REGISTRY $(CLUSTER) down --name $(KINORA_IT_NAME)
