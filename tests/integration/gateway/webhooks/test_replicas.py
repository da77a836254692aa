"""Several replicas, killed ones, writes that fail: a webhook comes once on the whole, and again after a death."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import free_port
from integration.gateway.receivers import Request, receiving
from integration.gateway.webhooks.jobs import (
    SHARDS,
    Object,
    Start,
    delivered,
    finished,
    webhook_of,
)
from kinora.gateway.webhooks.backlog import shard_of
from kinora.gateway.webhooks.shards import TERMS, lease_name
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import LEASE, VIDEOJOB
from kinora_cluster import Cluster
from waiting import DEADLINE, until, wait_for

pytestmark = pytest.mark.integration
PROCESS = 120.0  # seconds for what a process does that has to start first


# --- replicas


async def test_two_replicas_deliver_each_webhook_once_and_what_one_leaves_the_other_takes(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    async with receiving() as receiver:
        replicas = [await start(receiver, name=name) for name in ("gateway-a", "gateway-b")]
        await asyncio.gather(*(finished(kube, namespace, receiver.url, f"a-{number}") for number in range(30)))
        await asyncio.gather(*(delivered(kube, namespace, f"a-{number}") for number in range(30)))
        await until(lambda: sorted(replicas[0].held + replicas[1].held) == list(range(SHARDS)))
        first = max(replicas, key=lambda replica: len(replica.held))
        (other,) = [replica for replica in replicas if replica is not first]
        more = [asyncio.create_task(finished(kube, namespace, receiver.url, f"b-{number}")) for number in range(30)]
        await first.stop()
        await asyncio.gather(*more)
        # Where a shard could not be given back in time the other replica waits for the end of its Lease.
        lapse = DEADLINE + TERMS.duration
        await asyncio.gather(*(delivered(kube, namespace, f"b-{number}", deadline=lapse) for number in range(30)))
        await until(lambda: sorted(other.held) == list(range(SHARDS)))
    assert len(receiver.ids()) == 60
    assert set(receiver.ids().values()) == {1}


async def test_shards_spread_to_a_replica_that_came_later(kube: KubeClient, leases: str, start: Start) -> None:
    await start(name="gateway-a", turn_seconds=0.3)
    for shard in range(SHARDS):  # it has had them all
        await wait_for(kube, LEASE, leases, lease_name(shard), lambda lease: lease is not None)
    second = await start(name="gateway-b", turn_seconds=0.3)
    await until(lambda: len(second.held) >= 3)


async def test_shards_are_given_back_over_an_api_server_that_is_slow(
    kube: KubeClient, leases: str, gateway: KubeClient, start: Start
) -> None:
    patch = gateway.patch

    async def slow(*arguments: Any, **more: Any) -> Object:
        if arguments[0] is LEASE and arguments[3]["spec"]["holderIdentity"] == "":
            await asyncio.sleep(1.5)
        return await patch(*arguments, **more)

    gateway.patch = slow  # type: ignore[method-assign]
    replica = await start()
    await until(lambda: len(replica.held) == SHARDS)
    await replica.stop()
    found, _ = await kube.list(LEASE, leases)
    assert [lease["spec"].get("holderIdentity") or "" for lease in found] == [""] * SHARDS


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
            await receiver.until(1, PROCESS)
            await processes[0].wait()
            assert webhook_of(await kube.get(VIDEOJOB, namespace, "job")) == {}, "nothing was written of it"
            await gateway()
            found = await delivered(kube, namespace, deadline=PROCESS)
            assert found == {"state": "Delivered", "attempts": 1, "responseCode": 200}
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
        await until(lambda: replica.webhooks.dispatcher.backlog.get(f"{namespace}/gone") is None)
