"""The house of the gateway's tests: the real gateway on a loopback port over the real API server.

The agent's writes are played by the test, as the very transitions that the agent would write.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from integration.gateway.storehouse import StoreHouse
from kinora.api import transitions
from kinora.api.names import LABEL_TENANT
from kinora.api.reasons import Phase
from kinora.gateway.context import Gateway
from kinora.gateway.main import serve
from kinora.gateway.settings import GatewayValues, Settings
from kinora.gateway.tenants import Entry, entry_text, hash_of
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import (
    ROLE_BINDING,
    SECRET,
    SERVICE_ACCOUNT,
    SUBJECT_ACCESS_REVIEW,
    VIDEOJOB,
    Resource,
)
from waiting import DEADLINE, job_status, until

Object = dict[str, Any]
ALIASES = {"wan2.1-vace-plus": "wan2.1-vace-14b", "wan2.7-videoedit": "wan2.1-vace-14b"}
POD_UID = "11111111-2222-4333-8444-555555555555"


@dataclass
class House:
    """One gateway, its namespace, and what a test does to its jobs. `id` is a job's id, as dialects show it."""

    kube: KubeClient
    connection: Connection
    namespace: str
    store: StoreHouse
    url: str = ""
    gateway: Gateway | None = None
    values: Object = field(default_factory=dict)
    _entries: dict[str, str] = field(default_factory=dict)
    _stop: asyncio.Event | None = None
    _serving: asyncio.Task[None] | None = None

    async def key(self, name: str = "tenant", **entry: Any) -> str:
        """A new key; the gateway knows it when this returns. `entry`: further fields of its entry."""
        key = f"kn-{secrets.token_urlsafe(24)}"
        made = Entry.model_validate({"hashes": [hash_of(key)], "namespace": self.namespace, **entry})
        self._entries[name] = entry_text(made)
        await self._write_keys()
        if self.gateway is not None:
            await until(lambda: self._knows(key))
        return key

    async def write_entry(self, name: str, text: str) -> None:
        """Any text as an entry of the Secret."""
        self._entries[name] = text
        await self._write_keys()

    def entry(self, name: str) -> str:
        """An entry's text as it was written."""
        return self._entries[name]

    async def account(self, name: str) -> tuple[str, Callable[[], Awaitable[None]]]:
        """A ServiceAccount's token for the audience `kinora`, and what lets the account create VideoJobs."""
        await self.kube.create(SERVICE_ACCOUNT, self.namespace, {"metadata": {"name": name}})
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": ["kinora"], "expirationSeconds": 600},
        }
        token = Resource("", "v1", f"serviceaccounts/{name}/token", "TokenRequest")
        made = await self.kube.create(token, self.namespace, body)

        async def allow() -> None:
            subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kinora-edit"}
            await self.kube.create(
                ROLE_BINDING, self.namespace, {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
            )
            await self._until_allowed(f"system:serviceaccount:{self.namespace}:{name}")

        return made["status"]["token"], allow

    async def _until_allowed(self, user: str) -> None:
        """A RoleBinding is known to the authoriser a moment after it was made."""
        attributes = {"group": VIDEOJOB.group, "resource": VIDEOJOB.plural, "verb": "create"}
        review = {"spec": {"user": user, "resourceAttributes": {**attributes, "namespace": self.namespace}}}
        async with asyncio.timeout(DEADLINE):
            while not (await self.kube.create(SUBJECT_ACCESS_REVIEW, None, review))["status"].get("allowed"):
                pass

    def headers(self, key: str) -> dict[str, str]:
        """The header that opens."""
        return {"Authorization": f"Bearer {key}"}

    def client(self, key: str | None = None, **more: Any) -> httpx.AsyncClient:
        """A plain HTTP client of this gateway."""
        headers = self.headers(key) if key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=DEADLINE, **more)

    # --- the gateway --------------------------------------------------------------------------------------------------

    async def open(self, port: int, admin_port: int) -> None:
        """Start the gateway; it takes requests when this returns."""
        stop, ready = asyncio.Event(), asyncio.Event()

        def started(gateway: Gateway) -> None:
            self.gateway = gateway
            ready.set()

        settings = Settings(
            namespace=self.namespace,
            namespaces=(self.namespace,),
            model_aliases=ALIASES,
            values=GatewayValues.model_validate({"drainSeconds": 0, "webhooks": {"enabled": False}, **self.values}),
            host="127.0.0.1",
            port=port,
            admin_port=admin_port,
        )
        self._stop, self.url = stop, f"http://127.0.0.1:{port}"
        self._serving = asyncio.create_task(serve(settings, self.connection, stop, started))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({self._serving, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE)
        waiting.cancel()
        if not ready.is_set():
            self._serving.cancel()
            with suppress(asyncio.CancelledError):
                await self._serving  # what it ended with by itself is raised
            raise AssertionError(f"the gateway does not serve after {DEADLINE} s")

    async def close(self) -> None:
        """Stop the gateway as SIGTERM does."""
        if self._stop is not None and self._serving is not None:
            self._stop.set()
            await self._serving
            self._serving = None

    async def ended(self) -> None:
        """Wait until the gateway ends by itself; what it ends with is raised."""
        serving, self._serving = self._serving, None
        assert serving is not None
        await asyncio.wait_for(serving, DEADLINE)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def jobs(self) -> list[Object]:
        """All VideoJobs that gateways made here, oldest first."""
        found, _ = await self.kube.list(VIDEOJOB, self.namespace, label_selector=LABEL_TENANT)
        return sorted(
            found, key=lambda job: (job["metadata"]["creationTimestamp"], int(job["metadata"]["resourceVersion"]))
        )

    async def job(self, id_: str) -> Object:
        """The VideoJob of that id, whoever's it is."""
        found = [job for job in await self.jobs() if job["metadata"]["name"].endswith(id_)]
        assert len(found) == 1, f"{len(found)} VideoJobs of id {id_}"
        return found[0]

    async def bind(self, id_: str) -> Object:
        """Pending -> Scheduled."""
        job = await self.job(id_)
        assignment = {"podName": "vace-0-00000000", "podUID": POD_UID, "boundTime": transitions.rfc3339(_now())}
        return await self._write(
            job, {**transitions.bound(job, assignment, _now()), "submitTime": job["metadata"]["creationTimestamp"]}
        )

    async def run(self, id_: str, percent: int = 0, **progress: Any) -> Object:
        """-> Running, with progress."""
        job = await self.job(id_)
        if not transitions.is_assigned(job.get("status") or {}):
            job = await self.bind(id_)
        if transitions.phase_of(job["status"]) != Phase.RUNNING:
            job = await self._write(job, transitions.running(job, _now()))
        patch = transitions.progressed(
            job,
            _now(),
            percent=percent,
            stage=progress.get("stage", "Sample"),
            step=progress.get("step"),
            steps=progress.get("steps"),
        )
        return await self._write(job, patch)

    async def succeed(self, id_: str, artifacts: list[Object] | None = None, **more: Any) -> Object:
        """-> Succeeded with these entries of status.artifacts (default: one video, whose bytes are nowhere)."""
        job = await self._running(id_)
        entries = artifacts if artifacts is not None else [artifact_of(job)]
        patch = transitions.ended_by_agent(
            job,
            Phase.SUCCEEDED,
            "Succeeded",
            "done",
            _now(),
            artifacts=entries,
            timings={"queuedSeconds": 1.0, "renderedSeconds": 2.5, "totalSeconds": 4.0},
            gpu_seconds=2.5,
            **more,
        )
        return await self._write(job, patch)

    async def fail(self, id_: str, reason: str = "EngineError", message: str = "node KSampler failed") -> Object:
        """-> Failed for good."""
        job = await self._running(id_)
        failure = {"reason": reason, "message": message, "node": "3"}
        return await self._write(
            job, transitions.ended_by_agent(job, Phase.FAILED, reason, message, _now(), failure=failure)
        )

    async def cancelled(self, id_: str) -> Object:
        """-> Cancelled, as the operator ends what was not bound."""
        job = await self.job(id_)
        return await self._write(
            job, transitions.ended_by_operator(job, Phase.CANCELLED, "Cancelled", "cancelled", _now())
        )

    async def stopped(self, id_: str) -> Object:
        """-> Cancelled, as the agent ends what was running."""
        job = await self._running(id_)
        return await self._write(
            job, transitions.ended_by_agent(job, Phase.CANCELLED, "Cancelled", "cancelled", _now())
        )

    async def _running(self, id_: str) -> Object:
        job = await self.job(id_)
        return job if transitions.phase_of(job.get("status") or {}) == Phase.RUNNING else await self.run(id_)

    async def _write(self, job: Object, status: Object) -> Object:
        """Patch the status, and wait until the gateway's cache has it: a test asks for it next."""
        made = await job_status(self.kube, self.namespace, job["metadata"]["name"], status)
        if self.gateway is not None:
            await until(lambda: self._seen(made))
        return made

    def _seen(self, obj: Object) -> bool:
        assert self.gateway is not None
        known = self.gateway.service.known(self.namespace, obj["metadata"]["name"])
        return known is not None and known.version >= int(obj["metadata"]["resourceVersion"])

    def _knows(self, key: str) -> bool:
        assert self.gateway is not None
        return self.gateway.authenticator.keys.ring.find(key, dt.datetime.now(dt.UTC)) is not None

    async def _write_keys(self) -> None:
        name = GatewayValues().keys_secret
        data = {entry: base64.b64encode(text.encode()).decode() for entry, text in self._entries.items()}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.namespace},
            "data": data,
        }
        if await self.kube.find(SECRET, self.namespace, name) is None:
            await self.kube.create(SECRET, self.namespace, body)
        else:
            await self.kube.patch(SECRET, self.namespace, name, {"data": data})


def artifact_of(job: Object, **more: Any) -> Object:
    """An entry of status.artifacts as an agent writes it; its key is where the job's first output lies."""
    metadata = job["metadata"]
    attempt = (job.get("status") or {}).get("attempt") or 1
    key = f"{metadata['namespace']}/{metadata['name']}/{metadata['uid']}/{attempt}/0-video.mp4"
    return {
        "uri": f"pvc://artifacts/{key}",
        "contentType": "video/mp4",
        "bytes": 1000,
        "sha256": "0" * 64,
        "width": 832,
        "height": 480,
        "frames": 81,
        "fps": 16,
        "durationSeconds": 5.0625,
        "node": "9",
        "list": "images",
        "filename": "video_00001_.mp4",
        "subfolder": "",
        "type": "output",
        **more,
    }


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
