"""Models by ConfigMap on a real API server: they come and change while the operator runs; a bad one is an event."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kinora.kube.client import KubeClient
from kinora.kube.resources import CONFIGMAP, MODELSERVER, VIDEOJOB
from waiting import model_server, phase, video_job, wait_for, wait_for_pods

from .test_operator import wait_for_event

pytestmark = pytest.mark.integration
Object = dict[str, Any]
VACE = "wan2.1-vace-1.3b"


def config_map(**entries: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "models", "labels": {"kinora.dev/catalogue": "true"}},
        "data": {f"{name}.yaml": json.dumps(entry) for name, entry in entries.items()},
    }


def tune(steps: object) -> Object:
    return {"extends": VACE, "name": "tune", "defaults": {"steps": steps}}


@pytest.fixture
async def models_operator(
    start_operator: Callable[..., Awaitable[Callable[[], Awaitable[None]]]], namespace: str
) -> None:
    """An operator whose own namespace is the test's."""
    await start_operator(namespace=namespace)


def config_of(pod: Object) -> Object:
    [agent] = pod["spec"]["containers"]
    variables = {one["name"]: one.get("value") for one in agent["env"]}
    found: Object = json.loads(variables["KINORA_AGENT_CONFIG"])
    return found


def is_unknown(server: Object | None) -> bool:
    conditions = ((server or {}).get("status") or {}).get("conditions") or []
    return any(one["reason"] == "UnknownModel" for one in conditions)


@pytest.mark.usefixtures("models_operator", "claims")
async def test_a_model_comes_by_config_map_and_a_change_of_it_rolls_its_pods(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server(model="tune"))
    await wait_for(kube, MODELSERVER, namespace, "vace", is_unknown)
    await kube.create(CONFIGMAP, namespace, config_map(tune=tune(9)))
    [pod] = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    assert json.loads(config_of(pod)["modelEntry"]) == tune(9)
    await kube.create(VIDEOJOB, namespace, video_job("fox", model="tune", parameters={"frames": 9}))
    queued = await wait_for(kube, VIDEOJOB, namespace, "fox", phase("Queued"))
    assert queued["status"]["resolved"]["steps"] == 9
    await kube.patch(CONFIGMAP, namespace, "models", config_map(tune=tune(8)))
    [later] = await wait_for_pods(
        kube, namespace, lambda pods: len(pods) == 1 and pods[0]["metadata"]["uid"] != pod["metadata"]["uid"]
    )
    assert json.loads(config_of(later)["modelEntry"]) == tune(8)


@pytest.mark.usefixtures("models_operator", "claims")
async def test_a_bad_entry_is_an_event_and_its_jobs_wait(kube: KubeClient, namespace: str) -> None:
    await kube.create(CONFIGMAP, namespace, config_map(tune=tune("many")))
    event = await wait_for_event(kube, namespace, "BadModelEntry")
    assert event["regarding"]["name"] == "models"
    assert "defaults.steps" in event["note"]
    await kube.create(VIDEOJOB, namespace, video_job("fox", model="tune", parameters={"frames": 9}))
    waiting = await wait_for(kube, VIDEOJOB, namespace, "fox", phase("Queued"))
    assert "the catalogue entry of tune cannot be used" in waiting["status"]["message"]
    await kube.patch(CONFIGMAP, namespace, "models", config_map(tune=tune(9)))
    await wait_for(
        kube, VIDEOJOB, namespace, "fox",
        lambda obj: bool(obj) and "no ModelServer in the namespace serves tune" in obj["status"].get("message", ""),
    )  # fmt: skip
