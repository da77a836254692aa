"""A ModelServer whose weight file is missing says which, and recovers by itself when the file comes."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from demo import manifests
from demo.install import DevCluster
from e2e.conftest import condition, is_ready
from e2e.test_disruptions import remove_server, slow_server
from kinora.kube.client import KubeClient
from kinora.kube.resources import MODELSERVER
from waiting import wait_for

pytestmark = pytest.mark.e2e


async def test_a_missing_weight_file_is_named_and_its_coming_is_seen(
    cluster: DevCluster, kube: KubeClient, namespace: str
) -> None:
    if not cluster.is_own:
        pytest.skip("the test puts files onto the node's volume, which only the project's own node lets it reach")
    folder = cluster.state / "volumes" / namespace / "lacking"
    models = cluster.state / "volumes" / namespace / "models"
    shutil.copytree(models, folder, dirs_exist_ok=True)
    missing = next(path for path in folder.rglob("*.safetensors") if "vace_1_3" in path.name)
    missing.unlink()
    volume = manifests.volume("lacking", folder, namespace)
    cluster.kube("apply", "-f", "-", stdin=json.dumps(volume))
    cluster.apply(manifests.claim("lacking", static=True, prefix=namespace))

    server = slow_server("lacking")
    server["spec"]["weights"] = {"claimName": "lacking"}
    await kube.create(MODELSERVER, namespace, server)

    def says_which(obj: dict[str, Any] | None) -> bool:
        ready = condition(obj, "Ready")
        return (
            ready.get("status") == "False"
            and ready.get("reason") == "WeightsMissing"
            and missing.name in ready.get("message", "")
        )

    await wait_for(kube, MODELSERVER, namespace, "lacking", says_which, deadline=60)
    shutil.copyfile(models / missing.relative_to(folder), missing)
    await wait_for(kube, MODELSERVER, namespace, "lacking", is_ready, deadline=60)
    await remove_server(kube, namespace, "lacking")
    cluster.kube("delete", "pvc", "lacking", "-n", namespace, "--wait")
    cluster.kube("delete", "pv", f"{namespace}-lacking", "--wait")
    shutil.rmtree(folder)
