"""Jobs with webhooks that have ended, what is said of them, and replicas with the gateway's real rights."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

from kinora.api.transitions import rfc3339
from kinora.gateway.webhooks.service import Webhooks
from kinora.kube.client import KubeClient
from kinora.kube.resources import EVENT, ROLE_BINDING, SECRET, VIDEOJOB
from waiting import DEADLINE, job_status, video_job, wait_for

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


async def told(
    kube: KubeClient, namespace: str, name: str = "job", *, deadline: float = DEADLINE, **wanted: Any
) -> Object:
    """Wait until status.webhook has these values; all of it."""
    job = await wait_for(
        kube, VIDEOJOB, namespace, name, lambda found: wanted.items() <= webhook_of(found).items(), deadline
    )
    return webhook_of(job)


async def delivered(kube: KubeClient, namespace: str, name: str = "job", *, deadline: float = DEADLINE) -> Object:
    return await told(kube, namespace, name, deadline=deadline, state="Delivered")


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
