"""The gateway in its pods, as the chart installs it: clients to the end, and a replica that dies on the way."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from demo.install import EXAMPLES, SYSTEM_NAMESPACE, DevCluster
from e2e import hooks, pixels
from e2e.test_disruptions import slow_server
from integration.gateway.receivers import KEY, WHSEC
from kinora.api.names import stager_name
from kinora.gateway.names import job_name
from kinora.gateway.tenants import Tenant
from kinora.kube.client import KubeClient
from kinora.kube.resources import POD, VIDEOJOB
from waiting import phase, video_job, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")]
Object = dict[str, Any]
SERVER, TENANT = "for-clients", "studio"
GATEWAYS = "app.kubernetes.io/component=gateway"
SMALL = {"num_frames": 9, "num_inference_steps": 4}
POLL_SECONDS = 0.3


@pytest.fixture(scope="module")
def key(cluster: DevCluster, namespace: str) -> Iterator[str]:
    """A key made as the documents say: by `kinora keys new` and the command that it prints."""
    command = [sys.executable, "-m", "kinora.cli", "keys", "new", TENANT, "-n", namespace]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    entry = json.loads(made.stderr.split(" -p ")[1].strip().strip("'"))["stringData"]
    name = re.search(r"create secret generic (\S+)", made.stderr)
    assert name
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name[1], "namespace": SYSTEM_NAMESPACE}}
    cluster.apply({**secret, "stringData": entry})
    yield made.stdout.strip()
    cluster.kube("delete", "secret", name[1], "-n", SYSTEM_NAMESPACE)


@asynccontextmanager
async def forwarded(cluster: DevCluster, pod: str) -> AsyncIterator[str]:
    """The address of one gateway pod on this machine, as `kubectl port-forward` gives it."""
    process = await asyncio.create_subprocess_exec(
        *(cluster.kubectl, "port-forward", "-n", SYSTEM_NAMESPACE, f"pod/{pod}", ":8000"),
        env=cluster.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        port = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert port, line
        yield f"http://127.0.0.1:{port[1]}"
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def gateways(kube: KubeClient) -> list[str]:
    """The names of the gateway's pods that are ready."""
    pods, _ = await kube.list(POD, SYSTEM_NAMESPACE, label_selector=GATEWAYS)
    return [
        pod["metadata"]["name"]
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and any(
            one["type"] == "Ready" and one["status"] == "True" for one in pod.get("status", {}).get("conditions", [])
        )
    ]


@pytest.fixture(scope="module")
def served(cluster: DevCluster, namespace: str) -> Iterator[None]:
    """A pool for the clients, and its stager."""
    server = slow_server(SERVER)
    cluster.apply({**server, "metadata": {**server["metadata"], "namespace": namespace}})
    cluster.kube("wait", "-n", namespace, "--for=condition=Ready", f"modelserver/{SERVER}", "--timeout=90s")
    cluster.kube("rollout", "status", "-n", namespace, f"deployment/{stager_name('videos')}", "--timeout=90s")
    yield
    cluster.kube("delete", "modelserver", SERVER, "-n", namespace)
    pods = f"kinora.dev/modelserver={SERVER}"
    cluster.kube("wait", "-n", namespace, "--for=delete", "pod", "-l", pods, "--timeout=120s")


@asynccontextmanager
async def client_of(url: str, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose key the gateway has seen."""
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:
        await answered(http, "/openapi.json", lambda answer: answer.status_code != 401)
        yield http


async def answered(http: httpx.AsyncClient, path: str, holds: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Ask until the answer is as wanted: as clients of these APIs do, which have no other way."""
    async with asyncio.timeout(30):
        while not holds(answer := await http.get(path)):  # noqa: ASYNC110 - another process, without events
            await asyncio.sleep(POLL_SECONDS)
    return answer


@pytest.mark.usefixtures("served")
async def test_a_video_through_openais_client_while_the_replica_that_took_it_dies(
    cluster: DevCluster, kube: KubeClient, key: str, tmp_path: Path
) -> None:
    first, *others = await gateways(kube)
    assert others, "the chart installs two replicas"
    async with forwarded(cluster, first) as url, client_of(url, key):
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key)
        steps = {**SMALL, "num_inference_steps": 12}
        made = await client.videos.create(
            model="wan2.1-vace-1.3b", prompt="a slow river", size="128x128", extra_body=steps
        )
        assert made.status == "queued"
        await kube.delete(POD, SYSTEM_NAMESPACE, first, grace_seconds=0)
    async with forwarded(cluster, others[0]) as url:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key)
        done = await client.videos.poll(made.id, poll_interval_ms=300)
        assert done.status == "completed", done
        content = await client.videos.download_content(made.id)
        target = tmp_path / "river.mp4"
        target.write_bytes(await content.aread())
    assert pixels.luma(target).shape == (9, 128, 128)


@pytest.mark.usefixtures("served")
async def test_a_photograph_uploaded_by_ticket_becomes_a_video_whose_link_needs_no_key(
    cluster: DevCluster, kube: KubeClient, namespace: str, key: str, tmp_path: Path
) -> None:
    pod = (await gateways(kube))[0]
    async with forwarded(cluster, pod) as url, client_of(url, key) as http:
        photo = (EXAMPLES / "inputs/coffee.jpg").read_bytes()
        ticket = (await http.post("/api/v3/media/uploads", json={"filename": "coffee.jpg", "size": len(photo)})).json()
        upload = ticket["data"]
        async with httpx.AsyncClient(timeout=30) as anybody:
            put = await anybody.put(upload["upload"]["url"], content=photo)
            assert put.is_success, put.text
        wanted = {"model": "wan2.1-vace-1.3b", "prompt": "coffee at sea", "size": "128x128", **SMALL}
        image = {"image_url": upload["download_url"]}
        made = (await http.post("/v1/videos", json={**wanted, "input_reference": image})).json()
        assert made.get("status") == "queued", made
        done = await ended(kube, namespace, made["id"])
        assert done["status"]["phase"] == "Succeeded", done["status"]
        assert done["status"]["inputs"][0]["width"] == 600, "the stager looked at the upload"
        await answered(http, f"/v1/videos/{made['id']}", lambda answer: answer.json()["status"] == "completed")
        task = (await http.get(f"/api/v1/tasks/{made['id']}")).json()
        assert task["output"]["task_status"] == "SUCCEEDED", "a job of one API is seen in all"
        async with httpx.AsyncClient(timeout=30) as anybody:
            video = await anybody.get(task["output"]["video_url"])
        assert video.headers["content-type"] == "video/mp4"
        target = tmp_path / "coffee.mp4"
        target.write_bytes(video.content)
    assert len(pixels.luma(target)) == 9


@pytest.mark.usefixtures("served")
async def test_a_graph_by_comfyuis_api_runs_and_its_file_is_fetched_by_its_name(
    cluster: DevCluster, kube: KubeClient, namespace: str, key: str, tmp_path: Path
) -> None:
    graph = rendered({"width": 128, "height": 128, "frames": 9, "steps": 3}, tmp_path / "job.json")
    pod = (await gateways(kube))[-1]
    async with forwarded(cluster, pod) as url, client_of(url, key) as http:
        made = await http.post("/prompt", json={"prompt": graph, "client_id": "e2e"})
        assert made.status_code == 200, made.text
        id_ = made.json()["prompt_id"]
        done = await ended(kube, namespace, id_)
        assert done["status"]["phase"] == "Succeeded", done["status"]
        history = (await answered(http, f"/history/{id_}", lambda answer: id_ in answer.json())).json()
        lists = [found for output in history[id_]["outputs"].values() for found in output.values()]
        name = next(file["filename"] for found in lists for file in found if isinstance(file, dict))
        video = await http.get("/view", params={"filename": name})
        target = tmp_path / "graph.mp4"
        target.write_bytes(video.content)
    assert pixels.luma(target).shape == (9, 128, 128)


@pytest.fixture
def receiver(cluster: DevCluster, namespace: str) -> Iterator[None]:
    """A receiver in a pod that refuses the first webhook; the Secret, and the right to read it, as the docs say."""
    hooks.start(cluster, namespace, refusals=1)
    cluster.kube("create", "secret", "generic", "hooks", "-n", namespace, f"--from-literal=key={WHSEC}")
    cluster.kube("label", "secret", "hooks", "-n", namespace, "kinora.dev/webhook-secret=true")
    role = ("--clusterrole=kinora-gateway-webhook-secrets", f"--serviceaccount={SYSTEM_NAMESPACE}:kinora-gateway")
    cluster.kube("create", "rolebinding", "kinora-webhook-secrets", "-n", namespace, *role)
    yield
    cluster.kube("delete", "rolebinding/kinora-webhook-secrets", "secret/hooks", "-n", namespace)
    hooks.stop(cluster, namespace)


@pytest.mark.usefixtures("served", "receiver")
async def test_webhooks_reach_a_receiver_in_the_cluster_signed_and_again_after_a_refusal(
    cluster: DevCluster, kube: KubeClient, namespace: str, key: str
) -> None:
    url = hooks.url(namespace)
    wanted = video_job("hooked", webhook={"url": url, "secretName": "hooks"})
    made = await kube.create(VIDEOJOB, namespace, wanted)
    told = (await delivered(kube, namespace, "hooked"))["status"]["webhook"]
    assert (told["state"], told["attempts"], told["responseCode"]) == ("Delivered", 2, 204), told
    first, second = hooks.came(cluster, namespace, 2)
    assert first.path == second.path == "/kinora"
    assert first.is_signed_with(KEY)
    assert second.is_signed_with(KEY)
    assert not second.is_signed_with(bytes(32))
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"msg_{made['metadata']['uid']}"
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) >= 4
    assert (second.told["type"], second.told["data"]["name"]) == ("video_job.succeeded", "hooked")
    assert second.told["data"]["artifacts"][0]["sha256"]
    pod = (await gateways(kube))[0]
    async with forwarded(cluster, pod) as address, client_of(address, key) as http:
        body = {"prompt": "a lighthouse", "size": "832*480", "num_inference_steps": 1, "duration": 5}
        route = "/api/v3/wavespeed-ai/wan-2.1-14b-vace"
        answer = (await http.post(route, params={"webhook": url}, json=body)).json()
        assert answer["code"] == 200, answer
    id_ = answer["data"]["id"]
    await delivered(kube, namespace, job_name(Tenant(TENANT, namespace), id_))
    third = hooks.came(cluster, namespace, 3)[2]
    assert third.told["data"]["id"] == id_
    assert "webhook-signature" not in third.headers, "WaveSpeed's parameter names no secret"


async def delivered(kube: KubeClient, namespace: str, name: str) -> Object:
    """The VideoJob once its webhook was taken or given up."""

    def holds(job: Object | None) -> bool:
        told = ((job or {}).get("status") or {}).get("webhook") or {}
        return told.get("state") in ("Delivered", "Failed")

    return await wait_for(kube, VIDEOJOB, namespace, name, holds, deadline=120)


async def ended(kube: KubeClient, namespace: str, id_: str) -> Object:
    """The VideoJob of an id once it has ended."""
    name = job_name(Tenant(TENANT, namespace), id_)
    return await wait_for(kube, VIDEOJOB, namespace, name, phase("Succeeded", "Failed", "Cancelled"), deadline=90)


def rendered(parameters: Object, manifest: Path) -> Object:
    """The graph of a text-to-video job, as `kinora render` prints it."""
    spec = {"model": "wan2.1-vace-1.3b", "task": "TextToVideo", "prompt": "a lighthouse", "parameters": parameters}
    job = {"apiVersion": "kinora.dev/v1alpha1", "kind": "VideoJob", "metadata": {"name": "graph"}, "spec": spec}
    manifest.write_text(json.dumps(job))
    command = [sys.executable, "-m", "kinora.cli", "render", str(manifest)]
    graph: Object = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return graph
