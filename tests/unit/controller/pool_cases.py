"""One ModelServer for every provider and capacity, and the pod that it wants: the source of the golden manifests.

``PYTHONPATH=tests python -m unit.controller.pool_cases`` writes them anew beneath ``golden/``; read the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from kinora.api.intake import claim_store
from kinora.api.modelserver import Capacity, ModelServerSpec, Provider
from kinora.controller.modelserver.pod import desired_pod, pools_of
from kinora.controller.modelserver.snapshot import ServerSnapshot
from kinora.controller.stager.desired import deployment
from unit.controller.builders import NOW, SETTINGS, server, server_plan

Object = dict[str, Any]
GOLDEN = Path(__file__).parent / "golden"

# A card of each provider that can run the model: with one label value, where there is one.
CARDS = {"acs": "H20", "ack": "L20", "gke": "L4", "eks": "L40S", "aks": "H100-NVL", "generic": "H20"}


def spec_of(provider: str, capacity: str) -> Object:
    """The fields of a ModelServer with one pool."""
    pool = {"name": f"{provider}-{capacity.lower()}", "provider": provider, "gpuModel": CARDS[provider]}
    return {"gpu": {"count": 1, "pools": [{**pool, "capacity": capacity}]}, "drainSeconds": 600}


CASES: dict[str, Object] = {
    f"{provider}-{capacity.lower()}": spec_of(provider, capacity) for provider in Provider for capacity in Capacity
}
CASES |= {
    "acs-ppu": {
        "gpu": {"count": 1, "pools": [{"name": "ppu", "provider": "acs", "gpuModel": "PPU810E"}]},
        "resources": {"requests": {"cpu": "16"}, "limits": {"memory": "96Gi"}},
    },
    "generic-bucket": {
        "artifacts": {"s3": {"bucket": "films", "endpoint": "http://minio.storage:9000", "secretName": "films-bucket"}},
    },
    "acs-without-gpu": {"gpu": {"count": 0, "pools": [{"name": "cpu", "provider": "acs"}]}},
    "generic-mig": {"gpu": {"count": 1, "pools": [{"name": "mig", "resourceName": "nvidia.com/mig-3g.20gb"}]}},
    "ack-shared": {
        "gpu": {
            "count": 1,
            "pools": [
                {
                    "name": "shared",
                    "provider": "ack",
                    "gpuModel": "L20",
                    "resourceName": "aliyun.com/gpu-mem",
                    "resources": {"limits": {"aliyun.com/gpu-mem": "24", "memory": "48Gi"}},
                }
            ],
        }
    },
    "generic-claim": {
        "gpu": {"count": 0, "pools": [{"name": "claimed", "gpuModel": "H20"}]},
        "podTemplate": {
            "spec": {
                "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
                "containers": [{"name": "engine", "resources": {"claims": [{"name": "gpu"}]}}],
            }
        },
    },
    "acs-template": {
        **spec_of("acs", "Spot"),
        "podTemplate": {
            "metadata": {
                "labels": {"team": "films", "kueue.x-k8s.io/queue-name": "gpus"},
                "annotations": {"image.alibabacloud.com/enable-image-cache": "true"},
            },
            "spec": {
                "priorityClassName": "renders",
                "schedulingGates": [{"name": "example.com/quota"}],
                "tolerations": [{"key": "films", "operator": "Exists"}],
                "imagePullSecrets": [{"name": "registry"}],
                "volumes": [
                    {"name": "temp", "emptyDir": {"sizeLimit": "100Gi"}},
                    {"name": "nodes", "persistentVolumeClaim": {"claimName": "custom-nodes", "readOnly": True}},
                ],
                "initContainers": [{"name": "warm", "image": "warm:1", "command": ["true"]}],
                "containers": [
                    {
                        "name": "engine",
                        "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
                        "volumeMounts": [{"name": "nodes", "mountPath": "/nodes", "readOnly": True}],
                        "resources": {"limits": {"cpu": "12", "memory": "96Gi"}},
                    },
                    {"name": "exporter", "image": "exporter:1", "ports": [{"containerPort": 9400}]},
                ],
            },
        },
    },
}


def pod_of(name: str) -> Object:
    """The pod of slot 0 of a case."""
    obj = server(**CASES[name])
    spec = ModelServerSpec.model_validate(obj["spec"])
    return desired_pod(obj, spec, SETTINGS, pool=pools_of(spec)[0], slot=0, incarnation=0)


def weights_job(provider: str) -> Object:
    """The weights Job of a ModelServer in that provider's cluster."""
    sources = [{"name": "diffusion", "url": "https://files.example/d.safetensors"}]
    obj = server(weights={"claimName": "weights", "sources": sources}, **spec_of(provider, "Spot"))
    snapshot = ServerSnapshot(obj, pods=(), claims=frozenset({"weights", "videos"}), backlog=0, now=NOW)
    (body,) = (create.body for create in server_plan(snapshot).create if create.body["kind"] == "Job")
    return body


def stager(provider: str) -> Object:
    """The stager of an artifact claim there."""
    return deployment("films", claim_store("videos"), [server(**spec_of(provider, "Spot"))], SETTINGS)


#: Pods beside server pods: what a provider asks of every pod they have, and of a GPU nothing.
CPU_CASES: dict[str, Callable[[], Object]] = {
    f"{provider}-{name}": partial(make, provider)
    for provider in Provider
    for name, make in (("weights", weights_job), ("stager", stager))
}


def render(name: str) -> str:
    """The golden file of a case."""
    body = CPU_CASES[name]() if name in CPU_CASES else pod_of(name)
    return yaml.safe_dump(body, sort_keys=True, width=120)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for stale in GOLDEN.glob("*.yaml"):
        stale.unlink()
    for case in (*CASES, *CPU_CASES):
        (GOLDEN / f"{case}.yaml").write_text(render(case), encoding="utf-8")
