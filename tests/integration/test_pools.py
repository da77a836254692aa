"""Server pods of every provider on a real API server: taken as they are, gated, noticed, refused. No kubelet runs."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import yaml

from integration.test_operator import make_ready
from kinora.api.names import COMPONENT_SERVER, LABEL_COMPONENT
from kinora.kube.client import STRATEGIC, ApiError, KubeClient
from kinora.kube.resources import MODELSERVER, NAMESPACE, NODE, POD, SERVICE_ACCOUNT, VIDEOJOB, Resource
from kinora_cluster import ROOT, Cluster
from unit.controller.pool_cases import CASES, CPU_CASES, pod_of
from waiting import DEADLINE, job_status, model_server, phase, video_job, wait_for, wait_for_pods

pytestmark = pytest.mark.integration
Object = dict[str, Any]
EXAMPLES = sorted((ROOT / "examples/pools").glob("*.yaml"))
QUOTA = Resource("", "v1", "resourcequotas", "ResourceQuota")
PRIORITY = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)


@pytest.fixture
async def restricted(kube: KubeClient, namespace: str) -> str:
    """The namespace under the restricted standard, with what pods must find: their account."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await kube.patch(NAMESPACE, None, namespace, {"metadata": {"labels": labels}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "kinora-agent"}}
    await kube.create(SERVICE_ACCOUNT, namespace, account)
    return namespace


async def until_taken(kube: KubeClient, namespace: str, *, gpus: int = 0, refused: str = "", **spec: Any) -> None:
    """Wait until such a pod would be taken, or is refused in these words: admission goes by caches of its own."""
    harmless = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    security = {**harmless, "seccompProfile": {"type": "RuntimeDefault"}}
    resources = {"limits": {"nvidia.com/gpu": gpus}} if gpus else {}
    container = {"name": "a", "image": "b", "securityContext": security, "resources": resources}
    body = {"metadata": {"name": "probe"}, "spec": {"containers": [container], **spec}}
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                await kube.create(POD, namespace, body, dry_run=True)
            except ApiError as error:
                if refused and refused in error.message:
                    return
            else:
                if not refused:
                    return


@pytest.fixture
async def priority_class(kube: KubeClient, namespace: str) -> AsyncIterator[str]:
    name = f"renders-{namespace}"
    body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 7}
    await kube.create(PRIORITY, None, body)
    await until_taken(kube, namespace, priorityClassName=name)
    yield name
    await kube.delete(PRIORITY, None, name)


@pytest.mark.parametrize("case", CASES)
async def test_the_api_server_takes_the_pod_of_every_pool_as_it_is(
    cluster: Cluster, restricted: str, priority_class: str, case: str
) -> None:
    """Dry run on the server, unknown and doubled fields refused, under the restricted standard."""
    body = pod_of(case)
    body["metadata"]["namespace"] = restricted
    if "priorityClassName" in body["spec"]:
        body["spec"]["priorityClassName"] = priority_class
    words = ("create", "--dry-run=server", "--validate=strict", "-n", restricted, "-o", "yaml", "-f", "-")
    taken = yaml.safe_load(cluster.run(*words, stdin=yaml.safe_dump(body)))
    for name, quantities in {found["name"]: found["resources"] for found in taken["spec"]["containers"]}.items():
        asked = next(found["resources"] for found in body["spec"]["containers"] if found["name"] == name)
        assert set(quantities) == set(asked)
    assert taken["spec"].get("affinity") == body["spec"].get("affinity")
    assert taken["spec"].get("schedulingGates") == body["spec"].get("schedulingGates")
    if case.startswith("acs"):
        assert taken["status"]["qosClass"] == "Guaranteed"


@pytest.mark.parametrize("case", CPU_CASES)
async def test_the_api_server_takes_the_pods_beside_them_as_they_are(
    cluster: Cluster, restricted: str, case: str
) -> None:
    """The object, and the pod that its controller makes of it: under the restricted standard as well."""
    body = CPU_CASES[case]()
    body["metadata"]["namespace"] = restricted
    words = ("create", "--dry-run=server", "--validate=strict", "-n", restricted, "-o", "yaml", "-f", "-")
    cluster.run(*words, stdin=yaml.safe_dump(body))
    template = body["spec"]["template"]
    template["spec"]["serviceAccountName"] = "kinora-agent"  # the fixture's; the rest is as it is
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**template["metadata"], "name": "made", "namespace": restricted}
    taken = yaml.safe_load(cluster.run(*words, stdin=yaml.safe_dump(pod)))
    if case.startswith("acs"):
        assert taken["status"]["qosClass"] == "Guaranteed"


async def test_strict_means_that_a_field_that_does_not_exist_is_refused(cluster: Cluster, restricted: str) -> None:
    body = pod_of("generic-spot")
    body["metadata"]["namespace"] = restricted
    body["spec"]["tolerance"] = []
    words = ("create", "--dry-run=server", "--validate=strict", "-n", restricted, "-f", "-")
    told = cluster.run(*words, stdin=yaml.safe_dump(body), check=False)
    assert 'unknown field "spec.tolerance"' in told


def test_there_is_an_example_of_every_provider() -> None:
    assert {path.stem for path in EXAMPLES} >= {"acs", "ack", "gke", "eks", "aks", "generic"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_examples_are_taken_as_they_are(cluster: Cluster, namespace: str, path: Any) -> None:
    cluster.run("apply", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", str(path))


# --- a pool's pod, from the ModelServer on


def pooled(pool: Object | None = None, name: str = "vace", **spec: Any) -> Object:
    return model_server(name, gpu={"count": 1, "pools": [{"name": "a", **(pool or {})}]}, **spec)


def pool_message(words: str) -> Callable[[Object | None], bool]:
    """The first pool's status holds these words."""

    def holds(obj: Object | None) -> bool:
        pools = ((obj or {}).get("status") or {}).get("pools") or [{}]
        return words in pools[0].get("message", "")

    return holds


def ready_is(status: str, reason: str) -> Callable[[Object | None], bool]:
    def holds(obj: Object | None) -> bool:
        return any(
            (found["type"], found["status"], found["reason"]) == ("Ready", status, reason)
            for found in ((obj or {}).get("status") or {}).get("conditions") or []
        )

    return holds


async def tell(kube: KubeClient, namespace: str, pod: Object, status: Object) -> None:
    """What a kubelet, a scheduler or a provider writes of a pod."""
    name = pod["metadata"]["name"]
    await kube.patch(POD, namespace, name, {"status": status}, subresource="status", content_type=STRATEGIC)


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> Object:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}


@pytest.mark.usefixtures("operator", "claims")
async def test_a_spot_pool_of_acs_becomes_a_pod_with_its_labels(kube: KubeClient, namespace: str) -> None:
    pool = {"provider": "acs", "gpuModel": "H20", "capacity": "Spot", "pricePerHour": 1.75}
    await kube.create(MODELSERVER, namespace, pooled(pool))
    [pod] = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    labels = pod["metadata"]["labels"]
    assert labels["alibabacloud.com/compute-qos"] == "best-effort"
    assert labels["alibabacloud.com/gpu-model-series"] == "H20"
    assert labels["kinora.dev/pool"] == "a"
    server = await wait_for(kube, MODELSERVER, namespace, "vace", lambda obj: bool(obj) and "pools" in obj["status"])
    assert server["status"]["selector"] == "kinora.dev/modelserver=vace"
    assert server["spec"]["gpu"]["pools"][0]["pricePerHour"] == 1.75


@pytest.mark.usefixtures("operator", "claims")
async def test_what_the_scheduler_and_the_provider_say_is_in_the_pools_status(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, pooled({"provider": "acs", "gpuModel": "H20"}))
    [pod] = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    await tell(kube, namespace, pod, {"conditions": [condition("PodScheduled", "False", "Unschedulable", said)]})
    await wait_for(kube, MODELSERVER, namespace, "vace", pool_message(said))
    failed = {"phase": "Pending", "reason": "ProviderFailed", "message": "NoStock: H20 is sold out in this zone"}
    await tell(kube, namespace, pod, {"conditions": [condition("PodScheduled")], **failed})
    await wait_for(kube, MODELSERVER, namespace, "vace", pool_message("ProviderFailed: NoStock: H20 is sold out"))
    await make_ready(kube, namespace, pod)
    server = await wait_for(kube, MODELSERVER, namespace, "vace", ready_is("True", "AllReady"))
    assert "message" not in server["status"]["pools"][0]


@pytest.mark.usefixtures("operator", "claims")
async def test_a_pod_beyond_the_quota_is_told_and_made_once_there_is_room(kube: KubeClient, namespace: str) -> None:
    hard = {"requests.nvidia.com/gpu": "0"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus"}, "spec": {"hard": hard}}
    await kube.create(QUOTA, namespace, quota)
    await until_taken(kube, namespace, gpus=1, refused="exceeded quota: gpus")  # first its status is unknown
    await kube.create(MODELSERVER, namespace, pooled())
    server = await wait_for(kube, MODELSERVER, namespace, "vace", ready_is("False", "PodRefused"))
    assert "exceeded quota: gpus" in server["status"]["pools"][0]["message"]
    await kube.delete(QUOTA, namespace, "gpus")
    await until_taken(kube, namespace, gpus=1)
    # Another generation asks at once; the same one would ask again after half a minute.
    await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"update": {"maxUnavailable": 2}}})
    [pod] = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    await make_ready(kube, namespace, pod)
    server = await wait_for(kube, MODELSERVER, namespace, "vace", ready_is("True", "AllReady"))
    assert "message" not in server["status"]["pools"][0]


@pytest.mark.usefixtures("operator", "claims")
async def test_a_pod_that_the_api_server_calls_invalid_is_told_in_its_words(kube: KubeClient, namespace: str) -> None:
    template = {"spec": {"tolerations": [{"key": "x", "operator": "Sometimes"}]}}
    await kube.create(MODELSERVER, namespace, model_server(podTemplate=template))
    server = await wait_for(kube, MODELSERVER, namespace, "vace", ready_is("False", "PodRefused"))
    assert "spec.tolerations" in server["status"]["pools"][0]["message"]
    assert "Sometimes" in server["status"]["pools"][0]["message"]
    await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"podTemplate": None}})
    await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)


# --- notices


OWN_TAINT = {"key": "test", "effect": "NoSchedule"}


@pytest.fixture
async def node(kube: KubeClient, namespace: str) -> AsyncIterator[str]:
    """A node of nobody, Ready; its taint keeps everything else away."""
    name = f"node-{namespace}"
    await kube.create(NODE, None, {"metadata": {"name": name}})
    await kube.patch(NODE, None, name, {"status": {"conditions": [condition("Ready")]}}, subresource="status")
    # A new node is tainted not-ready by the API server, and no node controller runs here to take it off.
    await kube.patch(NODE, None, name, {"spec": {"taints": [OWN_TAINT]}})
    yield name
    await kube.delete(NODE, None, name)


async def on_node(kube: KubeClient, namespace: str, node: str) -> Object:
    """The server's only pod, on that node and ready."""
    [pod] = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    metadata = {"name": pod["metadata"]["name"]}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
    path = POD.path(namespace, pod["metadata"]["name"], "binding")
    await kube._call("POST", "create", POD, path, body=binding)
    await make_ready(kube, namespace, pod)
    return pod


@pytest.mark.usefixtures("operator", "claims")
async def test_a_cordoned_node_gets_no_job_and_keeps_its_pod(kube: KubeClient, namespace: str, node: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    pod = await on_node(kube, namespace, node)
    await kube.patch(NODE, None, node, {"spec": {"unschedulable": True}})
    await wait_for(kube, MODELSERVER, namespace, "vace", pool_message("cordoned"))
    await kube.create(VIDEOJOB, namespace, video_job())
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Queued"))
    assert (await kube.get(POD, namespace, pod["metadata"]["name"]))["metadata"]["uid"] == pod["metadata"]["uid"]
    await kube.patch(NODE, None, node, {"spec": {"unschedulable": None}})
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    assert job["status"]["assignment"]["podUID"] == pod["metadata"]["uid"]


@pytest.mark.usefixtures("operator", "claims")
async def test_a_spot_notice_lets_the_render_end_and_then_replaces_the_pod(
    kube: KubeClient, namespace: str, node: str
) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    pod = await on_node(kube, namespace, node)
    await kube.create(VIDEOJOB, namespace, video_job())
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    await job_status(kube, namespace, "job", {"phase": "Running"})
    taints = [OWN_TAINT, {"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}]
    await kube.patch(NODE, None, node, {"spec": {"taints": taints}})
    await wait_for(kube, MODELSERVER, namespace, "vace", pool_message("aws-node-termination-handler/spot-itn"))
    await kube.create(VIDEOJOB, namespace, video_job("next"))
    await wait_for(kube, VIDEOJOB, namespace, "next", phase("Queued"))
    found = await kube.get(POD, namespace, pod["metadata"]["name"])
    assert "deletionTimestamp" not in found["metadata"], "it renders"
    await job_status(kube, namespace, "job", {"phase": "Succeeded"})

    def replaced(pods: list[Object]) -> bool:
        going = {found["metadata"]["uid"] for found in pods if "deletionTimestamp" in found["metadata"]}
        return pod["metadata"]["uid"] in going or all(
            found["metadata"]["uid"] != pod["metadata"]["uid"] for found in pods
        )

    await wait_for_pods(kube, namespace, replaced)
    assert (await kube.get(VIDEOJOB, namespace, "next"))["status"]["phase"] == "Queued"
    await kube.delete(POD, namespace, pod["metadata"]["name"], grace_seconds=0)  # its kubelet is played
    await wait_for_pods(
        kube, namespace, lambda pods: len(pods) == 1 and pods[0]["metadata"]["uid"] != pod["metadata"]["uid"]
    )


# --- gates


KUEUE_GATE = "kueue.x-k8s.io/admission"


def gated(**labels: str) -> Object:
    """A ModelServer in a queue, its pods held by the gate that Kueue's webhook would add."""
    server = model_server(podTemplate={"spec": {"schedulingGates": [{"name": KUEUE_GATE}]}})
    server["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus", "team": "films", **labels}
    return server


async def open_gate(kube: KubeClient, namespace: str, pod: Object) -> None:
    """What Kueue does when it admits a pod."""
    await kube.patch(POD, namespace, pod["metadata"]["name"], {"spec": {"schedulingGates": []}})


@pytest.mark.usefixtures("operator", "claims")
async def test_a_gated_pod_waits_says_so_and_serves_once_the_gate_is_gone(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, gated())
    [pod] = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "team" not in pod["metadata"]["labels"]
    [scheduled] = [found for found in pod["status"]["conditions"] if found["type"] == "PodScheduled"]
    assert scheduled["reason"] == "SchedulingGated", "the API server says so itself"
    server = await wait_for(kube, MODELSERVER, namespace, "vace", ready_is("False", "SchedulingGated"))
    assert KUEUE_GATE in server["status"]["pools"][0]["message"]
    assert server["status"]["replicas"] == 1
    await kube.create(VIDEOJOB, namespace, video_job())
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Queued"))
    # Looked at again for another reason, it is left as it is.
    await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"replicas": 2}})
    pods = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 2)
    assert pod["metadata"]["uid"] in {found["metadata"]["uid"] for found in pods}
    await open_gate(kube, namespace, pod)
    await make_ready(kube, namespace, pod)
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    assert job["status"]["assignment"]["podUID"] == pod["metadata"]["uid"]
    server = await wait_for(kube, MODELSERVER, namespace, "vace", ready_is("True", "AllReady"))
    assert KUEUE_GATE in server["status"]["pools"][0]["message"], "the other one waits still"


@pytest.mark.usefixtures("operator", "claims")
async def test_a_pod_that_a_queue_preempts_is_made_again_and_gated_again(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, gated())
    [pod] = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    await open_gate(kube, namespace, pod)
    await make_ready(kube, namespace, pod)
    await wait_for(kube, MODELSERVER, namespace, "vace", ready_is("True", "AllReady"))
    await kube.delete(POD, namespace, pod["metadata"]["name"], grace_seconds=0)
    [again] = await wait_for_pods(
        kube, namespace, lambda pods: len(pods) == 1 and pods[0]["metadata"]["uid"] != pod["metadata"]["uid"]
    )
    assert again["spec"]["schedulingGates"] == [{"name": KUEUE_GATE}]
    await wait_for(kube, MODELSERVER, namespace, "vace", ready_is("False", "SchedulingGated"))


# --- refusals


@pytest.mark.usefixtures("operator", "claims")
@pytest.mark.parametrize(
    ("server", "reason", "words"),
    [
        (pooled({"provider": "generic", "gpuModel": "T4"}), "InvalidSpec", ["gpuModel is T4", "L20", "pool a"]),
        (pooled({"provider": "acs"}), "InvalidSpec", ["gpuModel is not set", "H20"]),
        (pooled(podTemplate={"spec": {"hostPID": True}}), "NotAllowed", ["spec.podTemplate.spec.hostPID is true"]),
        (
            pooled(podTemplate={"spec": {"containers": [{"name": "agent", "image": "x"}]}}),
            "NotAllowed",
            ["spec.podTemplate.spec.containers[0].name is agent"],
        ),
    ],
)
async def test_a_pool_or_template_that_cannot_be_is_refused_with_the_field(
    kube: KubeClient, namespace: str, server: Object, reason: str, words: list[str]
) -> None:
    await kube.create(MODELSERVER, namespace, server)
    found = await wait_for(kube, MODELSERVER, namespace, "vace", ready_is("False", reason))
    for word in words:
        assert word in str(found["status"]["conditions"])
    assert (await kube.list(POD, namespace, label_selector=f"{LABEL_COMPONENT}={COMPONENT_SERVER}"))[0] == []
