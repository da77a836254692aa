"""Webhooks on a real API server, with the gateway's own account, to real receivers on the loopback."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import free_port
from integration.gateway.receivers import KEY, WHSEC, Receiver, Request, hang, receiving
from integration.tokens import as_token, token, until_authorised
from kinora.api.transitions import parse_time, rfc3339
from kinora.api.webhooks import UNDELIVERED, WebhookValues
from kinora.gateway.webhooks import decide, secrets
from kinora.gateway.webhooks.backlog import shard_of
from kinora.gateway.webhooks.service import Webhooks, Wiring
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import EVENT, LEASE, ROLE_BINDING, SECRET, VIDEOJOB
from kinora_cluster import Cluster
from waiting import DEADLINE, job_status, video_job, wait_for

pytestmark = pytest.mark.integration
Object = dict[str, Any]
SYSTEM, ACCOUNT = "kinora-system", "kinora-gateway"
SHARDS = 8  # of the chart: the account may read no other Leases
Start = Callable[..., Awaitable["Replica"]]


class Replica:
    """One gateway process's webhooks, with the gateway's real rights."""

    def __init__(self, webhooks: Webhooks) -> None:
        self.webhooks = webhooks
        self.task = asyncio.create_task(webhooks.run())

    @property
    def held(self) -> list[int]:
        return self.webhooks.shards.held

    async def stop(self) -> None:
        """As SIGTERM does."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def gateway(kube: KubeClient, connection: Connection, namespace: str) -> AsyncIterator[KubeClient]:
    """A client that is the gateway."""
    async with KubeClient(as_token(connection, await token(kube, SYSTEM, ACCOUNT)), lean=True) as client:
        await until_authorised(client, namespace)
        yield client


@pytest.fixture
async def start(gateway: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """``replica = await start(ports, setting=...)``: destinations on the loopback, at these ports alone."""
    monkeypatch.setattr(decide, "PAUSES", (0.2,) * 4)
    monkeypatch.setattr(decide, "SECRET_SECONDS", 0.2)
    monkeypatch.setattr(secrets, "_SECONDS", 0.1)
    async with AsyncExitStack() as stack:

        async def resolve(host: str, _port: int) -> Sequence[str]:
            if not host.endswith(".test"):
                raise OSError("no such name")
            return ["127.0.0.1"]

        async def begin(
            *receivers: Receiver, name: str = "gateway-a", turn_seconds: float = 300, **values: Any
        ) -> Replica:
            ports = [receiver.port for receiver in receivers]
            allow = {"networks": ["127.0.0.1/32"], "ports": ports or [443], "http": True}
            wiring = Wiring(
                client=gateway,
                lease_client=gateway,
                namespace=SYSTEM,
                instance=name,
                namespaces=(namespace,),
                values=WebhookValues.model_validate({"shards": SHARDS, "timeoutSeconds": 2, "allow": allow, **values}),
                resolve=resolve,
                turn_seconds=turn_seconds,
            )
            replica = Replica(Webhooks(wiring))
            stack.push_async_callback(replica.stop)
            return replica

        yield begin


async def finished(kube: KubeClient, namespace: str, url: str, name: str = "job", **more: Any) -> Object:
    """A job with a webhook that has ended. `more`: secretName; further fields of its status."""
    webhook = {"url": url, **({"secretName": more.pop("secretName")} if "secretName" in more else {})}
    await kube.create(VIDEOJOB, namespace, video_job(name, webhook=webhook))
    return await end(kube, namespace, name, **more)


async def end(kube: KubeClient, namespace: str, name: str = "job", **status: Any) -> Object:
    told = {"phase": "Succeeded", "reason": "Completed", "completionTime": rfc3339(dt.datetime.now(dt.UTC)), **status}
    return await job_status(kube, namespace, name, told)


def webhook_of(job: Object | None) -> Object:
    found: Object = ((job or {}).get("status") or {}).get("webhook") or {}
    return found


async def told(kube: KubeClient, namespace: str, name: str = "job", **wanted: Any) -> Object:
    """Wait until status.webhook has these values; all of it."""
    job = await wait_for(
        kube, VIDEOJOB, namespace, name, lambda found: wanted.items() <= webhook_of(found).items(), DEADLINE
    )
    return webhook_of(job)


async def delivered(kube: KubeClient, namespace: str, name: str = "job") -> Object:
    return await told(kube, namespace, name, state="Delivered")


async def make_secret(kube: KubeClient, namespace: str, **entries: str) -> None:
    data = {name: base64.b64encode(value.encode()).decode() for name, value in entries.items()}
    labels = {"kinora.dev/webhook-secret": "true"}
    await kube.create(SECRET, namespace, {"metadata": {"name": "hooks", "labels": labels}, "data": data})


async def let_read_secrets(kube: KubeClient, namespace: str) -> None:
    """What the administrator of a namespace does (docs/webhooks.md)."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{ACCOUNT}-webhook-secrets"}
    subjects = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM}]
    body = {"metadata": {"name": "webhook-secrets"}, "roleRef": role, "subjects": subjects}
    await kube.create(ROLE_BINDING, namespace, body)


# --- the normal story


async def test_the_end_of_a_job_is_told_signed_and_said(kube: KubeClient, namespace: str, start: Start) -> None:
    await let_read_secrets(kube, namespace)
    await make_secret(kube, namespace, new=WHSEC, old="whsec_" + base64.b64encode(bytes(24)).decode())
    async with receiving() as receiver:
        replica = await start(receiver)
        await kube.create(VIDEOJOB, namespace, video_job(webhook={"url": receiver.url + "?a=b", "secretName": "hooks"}))
        artifact = {"uri": "pvc://a/0.mp4", "contentType": "video/mp4", "bytes": 1, "sha256": "0" * 64}
        job = await end(kube, namespace, artifacts=[artifact])
        [request] = await receiver.until(1)
        found = await delivered(kube, namespace)
    assert found == {"state": "Delivered", "attempts": 1, "responseCode": 204}
    assert request.path == "/hook?a=b"
    assert request.headers["webhook-id"] == f"msg_{job['metadata']['uid']}"
    assert request.headers["content-type"] == "application/json"
    assert request.is_signed_with(KEY)
    assert request.is_signed_with(bytes(24)), "every key of the Secret signs"
    assert not request.is_signed_with(b"another" * 4)
    assert request.told["type"] == "video_job.succeeded"
    assert request.told["data"]["name"] == "job"
    assert request.told["data"]["artifacts"][0]["sha256"] == "0" * 64
    assert b"lighthouse" not in request.body, "no prompt"
    sample = replica.webhooks._wiring.metrics.registry.get_sample_value
    assert sample("kinora_webhook_deliveries_total", {"outcome": "Delivered"}) == 1
    assert sample("kinora_webhook_answer_seconds_count") == 1


async def test_jobs_that_ended_while_nobody_delivered_are_told_later(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    async with receiving() as receiver:
        await finished(kube, namespace, receiver.url, "failed", phase="Failed", reason="NodeError", message="boom")
        await finished(kube, namespace, receiver.url, "cancelled", phase="Cancelled")
        await start(receiver)
        requests = await receiver.until(2)
        for name in ("failed", "cancelled"):
            await delivered(kube, namespace, name)
    assert {request.told["type"] for request in requests} == {"video_job.failed", "video_job.cancelled"}
    assert all("webhook-signature" not in request.headers for request in requests), "no Secret is named"


async def test_a_500_is_tried_again_with_the_same_id_and_body(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving(500, 503, 200) as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        requests = await receiver.until(3)
        assert await delivered(kube, namespace) == {"state": "Delivered", "attempts": 3, "responseCode": 200}
    assert len(receiver.ids()) == 1
    assert len({request.body for request in requests}) == 1


async def test_a_receiver_that_never_answers_well_is_given_up_with_an_event(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    async with receiving(500) as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        found = await told(kube, namespace, state="Failed")
    assert found == {
        "state": "Failed", "attempts": 5, "responseCode": 500, "reason": "AnsweredWithError",
        "message": "the receiver answered 500; allowed: 200 to 299",
    }  # fmt: skip
    assert len(receiver.requests) == 5
    event = await until_event(kube, namespace, "WebhookGivenUp")
    assert "given up after 5 attempts" in event["note"]


async def until_event(kube: KubeClient, namespace: str, reason: str) -> Object:
    events, version = await kube.list(EVENT, namespace)
    async with asyncio.timeout(DEADLINE):
        for event in events:
            if event["reason"] == reason:
                return event
        async for change in kube.stream(EVENT, namespace, resource_version=version):
            if change["object"].get("reason") == reason:
                return dict(change["object"])
    raise AssertionError(f"no event {reason}")


async def test_410_ends_it(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving(410) as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        found = await told(kube, namespace, state="Failed")
    assert (found["attempts"], found["responseCode"], found["reason"]) == (1, 410, "Gone")


async def test_retry_after_is_honoured(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving(b"HTTP/1.1 429 X\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n") as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        found = await told(kube, namespace, state="Pending", responseCode=429)
    waits = parse_time(found["nextAttemptTime"]) - dt.datetime.now(dt.UTC)
    assert 3500 < waits.total_seconds() <= 3600


# --- receivers that do harm


async def test_a_dead_host_does_not_hold_the_others(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving(hang) as dead, receiving() as good:
        await start(dead, good, parallel=4, perHost=2)
        for number in range(12):
            await finished(kube, namespace, f"http://dead.test:{dead.port}/{number}", f"dead-{number}")
        await dead.until(2)
        for number in range(12):
            await finished(kube, namespace, f"http://good.test:{good.port}/{number}", f"good-{number}")
        await good.until(12, deadline=5)
        for number in range(12):
            await delivered(kube, namespace, f"good-{number}")
        found = await told(kube, namespace, "dead-0", state="Pending", reason="NoAnswer")
    assert "no answer within 2 s" in found["message"]


async def test_a_redirect_to_the_metadata_service_goes_nowhere(kube: KubeClient, namespace: str, start: Start) -> None:
    answer = b"HTTP/1.1 302 X\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0\r\n\r\n"
    async with receiving(answer) as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        found = await told(kube, namespace, responseCode=302)
    assert found["reason"] == "AnsweredWithError"
    assert "redirects are not followed" in found["message"]


@pytest.mark.parametrize(
    ("url", "state", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data/", "Pending", "DestinationRefused"),
        ("https://10.96.0.1/", "Pending", "DestinationRefused"),
        ("http://inside.test:6443/", "Pending", "DestinationRefused"),
        ("https://2852039166/", "Failed", "InvalidURL"),
    ],
)
async def test_a_destination_that_is_shut_is_said(
    kube: KubeClient, namespace: str, start: Start, url: str, state: str, reason: str
) -> None:
    await start()
    await finished(kube, namespace, url)
    found = await told(kube, namespace, state=state, reason=reason)
    assert "allowed: " in found["message"]
    event = await until_event(kube, namespace, "WebhookGivenUp" if state == "Failed" else "WebhookBlocked")
    assert found["message"] in event["note"]


async def test_a_gigabyte_of_an_answer_and_one_that_is_cut_are_answers(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    async def gigabyte(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 30}\r\n\r\n".encode())
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()

    async with receiving(gigabyte, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncut") as receiver:
        await start(receiver)
        for name in ("first", "second"):
            await finished(kube, namespace, receiver.url, name)
            assert await delivered(kube, namespace, name) == {"state": "Delivered", "attempts": 1, "responseCode": 200}


# --- Secrets


async def test_a_secret_is_waited_for_until_it_may_be_used(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving() as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url, secretName="hooks")
        await told(kube, namespace, state="Pending", reason="SecretNotReadable", attempts=0)
        await let_read_secrets(kube, namespace)
        found = await told(kube, namespace, reason="SecretNotFound")
        assert found["message"] == f"no Secret hooks in namespace {namespace}"
        await make_secret(kube, namespace, key="hunter2")
        found = await told(kube, namespace, reason="SecretInvalid")
        assert "hunter2" not in str(found)
        good = base64.b64encode(WHSEC.encode()).decode()
        unlabelled = {"metadata": {"labels": {"kinora.dev/webhook-secret": None}}, "data": {"key": good}}
        await kube.patch(SECRET, namespace, "hooks", unlabelled)
        await told(kube, namespace, reason="SecretNotLabelled")
        assert receiver.requests == []
        await kube.patch(SECRET, namespace, "hooks", {"metadata": {"labels": {"kinora.dev/webhook-secret": "true"}}})
        assert await delivered(kube, namespace) == {"state": "Delivered", "attempts": 1, "responseCode": 204}
        assert receiver.requests[0].is_signed_with(KEY)
    assert (await until_event(kube, namespace, "WebhookBlocked"))["type"] == "Warning"


# --- replicas


async def test_two_replicas_deliver_each_webhook_once_and_what_one_leaves_the_other_takes(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    async with receiving() as receiver:
        replicas = [await start(receiver, name=name) for name in ("gateway-a", "gateway-b")]
        await asyncio.gather(*(finished(kube, namespace, receiver.url, f"a-{number}") for number in range(30)))
        await asyncio.gather(*(delivered(kube, namespace, f"a-{number}") for number in range(30)))
        assert sorted(replicas[0].held + replicas[1].held) == list(range(SHARDS))
        first = max(replicas, key=lambda replica: len(replica.held))
        (other,) = [replica for replica in replicas if replica is not first]
        more = [asyncio.create_task(finished(kube, namespace, receiver.url, f"b-{number}")) for number in range(30)]
        await first.stop()
        await asyncio.gather(*more)
        await asyncio.gather(*(delivered(kube, namespace, f"b-{number}") for number in range(30)))
        assert sorted(other.held) == list(range(SHARDS))
    assert len(receiver.ids()) == 60
    assert set(receiver.ids().values()) == {1}


async def test_shards_spread_to_a_replica_that_came_later(start: Start) -> None:
    first = await start(name="gateway-a", turn_seconds=0.1)
    async with asyncio.timeout(DEADLINE):
        while len(first.held) < SHARDS - 1:  # noqa: ASYNC110 - a condition in this process, with a deadline
            await asyncio.sleep(0.02)
        second = await start(name="gateway-b", turn_seconds=0.1)
        while len(second.held) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_replica_that_is_killed_after_sending_sends_again_with_the_same_id(
    kube: KubeClient, namespace: str, cluster: Cluster, tmp_path: Path
) -> None:
    """Killed by the kernel in the moment between the receiver's having it and the status' saying so."""
    processes: list[asyncio.subprocess.Process] = []

    async def kill(_request: Request, writer: asyncio.StreamWriter) -> None:
        os.kill(processes[0].pid, signal.SIGKILL)
        await processes[0].wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with receiving(kill, 200) as receiver:
        allow = {"networks": ["127.0.0.1/32"], "ports": [receiver.port], "http": True}
        environment = {
            **os.environ,
            "KUBECONFIG": str(cluster.kubeconfig),
            "POD_NAMESPACE": namespace,
            "POD_NAME": "gateway-0",
            "KINORA_NAMESPACES": namespace,
            "KINORA_GATEWAY": json.dumps(
                {"dialects": [], "drainSeconds": 0, "webhooks": {"shards": 2, "allow": allow}}
            ),
        }

        async def gateway() -> asyncio.subprocess.Process:
            ports = {"KINORA_GATEWAY_PORT": str(free_port()), "KINORA_HTTP_PORT": str(free_port())}
            log = (tmp_path / f"gateway-{len(processes)}.log").open("wb")
            command = (sys.executable, "-m", "kinora.cli", "gateway")
            made = await asyncio.create_subprocess_exec(*command, env={**environment, **ports}, stdout=log, stderr=log)
            processes.append(made)
            return made

        try:
            await gateway()
            job = await finished(kube, namespace, receiver.url)
            await receiver.until(1)
            await processes[0].wait()
            assert webhook_of(await kube.get(VIDEOJOB, namespace, "job")) == {}, "nothing was written of it"
            await gateway()
            assert await delivered(kube, namespace) == {"state": "Delivered", "attempts": 1, "responseCode": 200}
        finally:
            for process in processes:
                if process.returncode is None:
                    process.terminate()
                    await process.wait()
    assert receiver.ids() == {f"msg_{job['metadata']['uid']}": 2}
    assert len({request.body for request in receiver.requests}) == 1
    assert processes[1].returncode == 0
    lease = await kube.get(LEASE, namespace, f"kinora-gateway-webhooks-{shard_of(job['metadata']['uid'], 2)}")
    assert not lease["spec"].get("holderIdentity"), "it gave its shards back when it was told to end"


async def test_a_status_that_cannot_be_written_at_once_is_written_later_and_nothing_is_sent_twice(
    kube: KubeClient, namespace: str, gateway: KubeClient, start: Start
) -> None:
    refusals = 3
    patch = gateway.patch

    async def stubborn(*arguments: Any, **more: Any) -> Object:
        nonlocal refusals
        if arguments[0] is VIDEOJOB and refusals:
            refusals -= 1
            raise ApiError(500, "InternalError", "etcd is away")
        return await patch(*arguments, **more)

    gateway.patch = stubborn  # type: ignore[method-assign]
    async with receiving() as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        await delivered(kube, namespace)
    assert refusals == 0
    assert len(receiver.requests) == 1


async def test_a_job_that_goes_while_it_is_delivered_troubles_nobody(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    async def delete(_request: Request, writer: asyncio.StreamWriter) -> None:
        await kube.delete(VIDEOJOB, namespace, "gone")
        writer.write(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")

    async with receiving(delete, 200) as receiver:
        replica = await start(receiver)
        await finished(kube, namespace, receiver.url, "gone")
        await receiver.until(1)
        await finished(kube, namespace, receiver.url, "stays")
        await delivered(kube, namespace, "stays")
        assert len(receiver.requests) == 2
        assert replica.webhooks.dispatcher.backlog.get(f"{namespace}/gone") is None


# --- what the API server leaves out, and what the fence forbids


async def test_settled_and_unfinished_jobs_are_in_no_list_of_those_who_deliver(
    kube: KubeClient, namespace: str, gateway: KubeClient
) -> None:
    await kube.create(VIDEOJOB, namespace, video_job("plain"))
    await end(kube, namespace, "plain")
    await kube.create(VIDEOJOB, namespace, video_job("running", webhook={"url": "https://x.example/"}))
    for state in ("Delivered", "Failed"):
        await finished(kube, namespace, "https://x.example/", state.lower(), webhook={"state": state})
    await finished(kube, namespace, "https://x.example/", "pending", webhook={"state": "Pending"})
    await finished(kube, namespace, "https://x.example/", "new")
    found, version = await gateway.list(VIDEOJOB, namespace, field_selector=UNDELIVERED)
    assert {job["metadata"]["name"] for job in found} == {"pending", "new"}
    await job_status(kube, namespace, "new", {"webhook": {"state": "Delivered"}})
    await end(kube, namespace, "running")
    changes: dict[str, str] = {}
    async with asyncio.timeout(DEADLINE):
        async for event in gateway.stream(VIDEOJOB, namespace, resource_version=version, field_selector=UNDELIVERED):
            changes[event["object"]["metadata"]["name"]] = event["type"]
            if len(changes) == 2:
                break
    assert changes == {"new": "DELETED", "running": "ADDED"}


async def test_the_gateway_writes_status_webhook_of_finished_jobs_and_nothing_else(
    kube: KubeClient, namespace: str, gateway: KubeClient
) -> None:
    async def write(name: str, status: Object) -> Object:
        return await gateway.patch(VIDEOJOB, namespace, name, {"status": status}, subresource="status")

    async def forbidden(name: str, status: Object, words: str) -> None:
        with pytest.raises(ApiError) as refused:
            await write(name, status)
        assert refused.value.status == 403
        assert words in refused.value.message

    job = await finished(kube, namespace, "https://x.example/", "ended", attempt=1)
    assert webhook_of(await write("ended", {"webhook": {"state": "Pending", "attempts": 1}}))["attempts"] == 1
    assert webhook_of(await write("ended", {"webhook": {"state": "Delivered", "attempts": 2}}))["attempts"] == 2
    changes: dict[str, Any] = {
        "message": "x", "reason": "x", "attempt": 2, "completionTime": None, "artifacts": [], "gpuSeconds": 1,
        "resolved": {"seed": 1}, "conditions": [], "observedGeneration": 9, "inputStore": "pvc://other/",
        "assignment": {"podName": "p", "podUID": "u"},
    }  # fmt: skip
    for name, value in changes.items():
        await forbidden("ended", {name: value}, f"may not change status.{name}")
        await forbidden("ended", {name: value, "webhook": {"state": "Failed"}}, f"may not change status.{name}")
    await kube.create(VIDEOJOB, namespace, video_job("waiting", webhook={"url": "https://x.example/"}))
    await forbidden("waiting", {"webhook": {"state": "Delivered"}}, "jobs that have ended")
    await forbidden("waiting", {"phase": "Succeeded"}, "jobs that have ended")
    other = await kube.get(VIDEOJOB, namespace, "ended")
    assert other["status"]["conditions"] == job["status"]["conditions"]
    with pytest.raises(ApiError, match="403"):
        await gateway.list(SECRET, namespace)
    with pytest.raises(ApiError, match="403"):
        await gateway.get(SECRET, namespace, "hooks")


async def test_a_stale_write_is_a_conflict_and_not_a_refusal(
    kube: KubeClient, namespace: str, gateway: KubeClient
) -> None:
    job = await finished(kube, namespace, "https://x.example/")
    await job_status(kube, namespace, "job", {"message": "meanwhile"})
    body = {
        "metadata": {"resourceVersion": job["metadata"]["resourceVersion"]},
        "status": {"webhook": {"state": "Failed"}},
    }
    with pytest.raises(ApiError) as stale:
        await gateway.patch(VIDEOJOB, namespace, "job", body, subresource="status")
    assert stale.value.is_conflict
