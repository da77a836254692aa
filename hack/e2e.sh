#!/usr/bin/env bash
# `make e2e`: a cluster of its own, images, the tests; the cluster goes again unless it was up before.
# Usage: hack/e2e.sh CLUSTER
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1

was_up=no
python3 hack/cluster status --name "$name" >/dev/null 2>&1 && was_up=yes
finish() {
  [ "$was_up" = yes ] || python3 hack/cluster down --name "$name"
}
trap finish EXIT

python3 hack/cluster up --name "$name"
python3 hack/cluster images --name "$name"
KINORA_E2E_CLUSTER=$name .venv/bin/pytest tests/e2e
