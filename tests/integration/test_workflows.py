"""Raw workflows on a real API server: what the CRD refuses, what the operator reads, pins and refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.test_operator import ready_pods
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import CONFIGMAP, MODELSERVER, VIDEOJOB
from kinora.workflows.workflow import text_hash
from unit.workflows.made import node, sound
from waiting import model_server, phase, video_job, wait_for

pytestmark = pytest.mark.integration
Object = dict[str, Any]
TEXT = json.dumps(sound())
REF = {"configMapRef": {"name": "graphs", "key": "vace.json"}}


def raw_job(name: str = "raw", workflow: Object | None = None, **spec: Any) -> Object:
    made = video_job(name, workflow=workflow or {"inline": TEXT}, **spec)
    for field in ("task", "parameters", "prompt"):
        if field not in spec:
            del made["spec"][field]
    return made


def config_map(text: str, name: str = "graphs") -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"vace.json": text}}


@pytest.mark.parametrize(
    ("workflow", "told"),
    [
        ({"inline": TEXT, **REF}, ["spec.workflow", "exactly one of configMapRef, inline, upload"]),
        (
            {"inline": TEXT, "upload": {"key": "a/b", "sha256": "1" * 64}},
            ["exactly one of configMapRef, inline, upload"],
        ),
        ({"upload": {"key": "a/b"}}, ["spec.workflow.upload.sha256"]),
        ({"upload": {"key": "../b", "sha256": "1" * 64}}, ["spec.workflow.upload.key", "no key of the store"]),
        ({"inline": "x" * 65537}, ["spec.workflow.inline", "65536"]),
        ({"inline": TEXT, "bindings": {"size": "1.x"}}, ["spec.workflow.bindings", "bindings are named prompt"]),
        ({"inline": TEXT, "bindings": {"prompt": "15"}}, ["spec.workflow.bindings.prompt", "15"]),
        ({"inline": TEXT, "files": [{"name": "a"}]}, ["spec.workflow.files[0].source"]),
        (
            {"inline": TEXT, "files": [{"name": "a", "source": {"upload": "k"}, "sha256": "abc"}]},
            ["spec.workflow.files[0].sha256"],
        ),
        (
            {"inline": TEXT, "files": [{"name": "a", "source": {"upload": "k"}}] * 17},
            ["spec.workflow.files", "16"],
        ),
    ],
)
async def test_a_wrong_workflow_is_refused_when_it_is_applied(
    kube: KubeClient, namespace: str, workflow: Object, told: list[str]
) -> None:
    with pytest.raises(ApiError) as caught:
        await kube.create(VIDEOJOB, namespace, raw_job(workflow=workflow))
    assert caught.value.status == 422
    for words in told:
        assert words in caught.value.message


async def test_a_text_of_64_kib_with_every_binding_is_taken(kube: KubeClient, namespace: str) -> None:
    from kinora.api.videojob import BINDING_NAMES

    bindings = dict.fromkeys(BINDING_NAMES, "12:3.an input, 14.other")
    workflow = {"inline": TEXT + " " * (65536 - len(TEXT)), "bindings": bindings}
    made = await kube.create(VIDEOJOB, namespace, raw_job(workflow=workflow))
    assert made["spec"]["workflow"]["bindings"] == bindings
    with pytest.raises(ApiError) as caught:
        await kube.patch(VIDEOJOB, namespace, "raw", {"spec": {"workflow": {"bindings": {"prompt": "1.a"}}}})
    assert caught.value.status == 422


@pytest.mark.usefixtures("operator", "claims")
async def test_a_workflow_from_a_config_map_is_read_pinned_and_bound(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    await kube.create(VIDEOJOB, namespace, raw_job(workflow=REF))
    waiting = await wait_for(kube, VIDEOJOB, namespace, "raw", phase("Queued"))
    assert waiting["status"]["reason"] == "WaitingForWorkflow"
    assert "no ConfigMap 'graphs' in the namespace yet" in waiting["status"]["message"]
    await kube.create(CONFIGMAP, namespace, config_map(TEXT))
    bound = await wait_for(kube, VIDEOJOB, namespace, "raw", phase("Scheduled"))
    assert bound["status"]["resolved"]["workflowSha256"] == text_hash(TEXT)
    assert bound["status"]["resolved"]["nodes"] == 10
    assert "fox" not in json.dumps(bound["status"])


@pytest.mark.usefixtures("claims")
async def test_a_config_map_that_changes_while_the_job_waits_ends_it(
    kube: KubeClient, namespace: str, start_operator: Any
) -> None:
    await kube.create(CONFIGMAP, namespace, config_map(TEXT))
    stop = await start_operator()
    await kube.create(VIDEOJOB, namespace, raw_job(workflow=REF))
    queued = await wait_for(kube, VIDEOJOB, namespace, "raw", phase("Queued"))
    assert queued["status"]["reason"] == "NoModelServer"
    assert queued["status"]["resolved"]["workflowSha256"] == text_hash(TEXT)
    await stop()
    await kube.patch(CONFIGMAP, namespace, "graphs", {"data": {"vace.json": TEXT + "\n"}})
    await start_operator()
    failed = await wait_for(kube, VIDEOJOB, namespace, "raw", phase("Failed"))
    assert failed["status"]["reason"] == "WorkflowChanged"


@pytest.mark.usefixtures("operator", "claims")
async def test_a_hostile_workflow_fails_with_node_and_input_and_takes_no_pod(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    graph = sound(n17={"length": 9001})
    graph["50"] = node("LoadImage", image="../../etc/passwd")
    graph["51"] = node("VHS_LoadVideoPath", video="/etc/passwd")
    await kube.create(VIDEOJOB, namespace, raw_job(workflow={"inline": json.dumps(graph)}))
    failed = await wait_for(kube, VIDEOJOB, namespace, "raw", phase("Failed"))
    assert failed["status"]["reason"] == "InvalidSpec"
    for words in ("node 50 (LoadImage) image", "node 51 class_type", "node 17 (WanVaceToVideo) length is 9001"):
        assert words in failed["status"]["message"]
    assert "assignment" not in failed["status"]
