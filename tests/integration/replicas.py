"""Operator replicas as processes of their own, and a door between one of them and the API server that can be shut."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from integration.conftest import free_port
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import LEASE
from kinora_cluster import ROOT
from waiting import DEADLINE, Object, wait_for

LEASE_NAME = "kinora-operator"
START = 60.0  # seconds for a process to come up: an interpreter with all its imports, on a machine that is busy


@dataclass
class Replica:
    """One operator process. Its name is its identity in the Lease."""

    name: str
    process: asyncio.subprocess.Process
    port: int
    log: Path

    @classmethod
    async def start(
        cls, name: str, folder: Path, kubeconfig: str, namespace: str, lease_namespace: str | None = None
    ) -> Self:
        """Start it, watching one namespace, which also has the Lease unless told otherwise; does not wait."""
        port, log = free_port(), folder / f"{name}.log"
        environment = {
            **os.environ,
            "KUBECONFIG": kubeconfig,
            "KINORA_IMAGE": "kinora:test",
            "KINORA_ENGINE_IMAGE": "standin:test",
            "KINORA_NAMESPACES": namespace,
            "KINORA_HTTP_PORT": str(port),
            "POD_NAME": name,
            "POD_NAMESPACE": lease_namespace or namespace,
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "kinora.cli", "operator", cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        return cls(name, process, port, log)

    async def ask(self, path: str) -> tuple[int, str]:
        """GET of its own port: status and text; 0 while nobody answers."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}{path}", timeout=aiohttp.ClientTimeout(total=5)) as response,
            ):
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def ready(self, role: str = "") -> None:
        """Wait until it is ready (and in that role: "leading", "standing by")."""
        text = "no answer yet"
        try:
            async with asyncio.timeout(START):
                while True:
                    status, text = await self.ask("/readyz")
                    if status == 200 and role in text:
                        return
                    await asyncio.sleep(0.02)  # its port is all that it shows
        except TimeoutError:
            raise AssertionError(f"{self.name} is not ready ({role}): {text}\n{self.told()}") from None

    async def metrics(self, family: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Samples of one metric by their labels (``family``: the sample's own name)."""
        _, text = await self.ask("/metrics")
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for found in text_string_to_metric_families(text)
            for sample in found.samples
            if sample.name == family
        }

    async def shows(self, family: str, labels: dict[str, str], value: float) -> None:
        """Wait for one sample of a metric: what it counts follows what it writes."""
        try:
            async with asyncio.timeout(DEADLINE):
                while True:
                    if (await self.metrics(family)).get(tuple(sorted(labels.items()))) == value:
                        return
                    await asyncio.sleep(0.02)  # its port is all that it shows
        except TimeoutError:
            raise AssertionError(f"{self.name}: {family} is {await self.metrics(family)}") from None

    async def writes(self) -> dict[str, int]:
        """Requests that change something, the Lease's left out, as it counts them itself: "verb resource status"."""
        found = await self.metrics("kinora_api_request_seconds_count")
        counted: dict[str, int] = {}
        for labels, count in found.items():
            names = dict(labels)
            if names["verb"] in {"create", "patch", "update", "delete"} and names["resource"] != "leases":
                counted[f"{names['verb']} {names['resource']} {names['status']}"] = int(count)
        return counted

    def send(self, number: signal.Signals) -> float:
        """Signal it; the moment."""
        self.process.send_signal(number)
        return time.monotonic()

    async def ended(self, deadline: float = DEADLINE) -> int:
        """Its exit code, once it has ended."""
        try:
            return await asyncio.wait_for(self.process.wait(), deadline)
        except TimeoutError:
            raise AssertionError(f"{self.name} runs on after {deadline} s:\n{self.told()}") from None

    async def stop(self) -> None:
        """End it whatever it does."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def told(self) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]


async def held_by(kube: KubeClient, namespace: str, other_than: str = "", deadline: float = DEADLINE) -> Object:
    """The Lease, once somebody (other than that one) holds it."""

    def holds(lease: Object | None) -> bool:
        holder = ((lease or {}).get("spec") or {}).get("holderIdentity")
        return bool(holder) and holder != other_than

    return await wait_for(kube, LEASE, namespace, LEASE_NAME, holds, deadline)


@dataclass
class Door:
    """A reverse proxy on loopback in front of the API server: sees who writes when, and can be shut for some requests.

    A request that is shut out hangs, as in a network that swallows packets; so do the watches that were open.
    """

    connection: Connection
    writes: list[tuple[float, str]] = field(default_factory=list)  # monotonic seconds of arrival, path
    shut_for: Callable[[str], bool] = lambda _path: False
    _answered: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def open(self, folder: Path) -> str:
        """Serve; the path of a kubeconfig that leads here."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.connection.tls or False, limit=0), auto_decompress=False
        )
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "door", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "door", "user": {}}],
            "contexts": [{"name": "door", "context": {"cluster": "door", "user": "door"}}],
            "current-context": "door",
        }
        path = folder / f"door-{port}.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return str(path)

    def shut(self, for_paths: Callable[[str], bool]) -> float:
        """From now on nothing passes for such paths; the moment."""
        self.shut_for = for_paths
        return time.monotonic()

    async def answers_a_renewal(self) -> None:
        """Wait until a write of the Lease has been answered: the next one is a second away."""
        async with asyncio.timeout(DEADLINE), self._answered:
            await self._answered.wait()

    async def close(self) -> None:
        """End everything."""
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if request.method != "GET":
            self.writes.append((time.monotonic(), request.path))
        await self._unless_shut(request.path)
        headers = {name: request.headers[name] for name in ("Accept", "Content-Type") if name in request.headers}
        authorization = self.connection.authorization()
        if authorization:
            headers["Authorization"] = authorization
        async with self._session.request(
            request.method,
            self.connection.host + request.path_qs,
            data=await request.read() or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            passed = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})
            await passed.prepare(request)
            async for chunk in answer.content.iter_any():
                await self._unless_shut(request.path)
                await passed.write(chunk)
            await passed.write_eof()
            if request.method != "GET" and "/leases" in request.path:
                async with self._answered:
                    self._answered.notify_all()
            return passed

    async def _unless_shut(self, path: str) -> None:
        if self.shut_for(path):
            await asyncio.Event().wait()  # until the client gives up


@dataclass
class History:
    """Every state of every object of one kind that a watch told, with the moment it was seen."""

    states: list[tuple[float, Object]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, stream: Any) -> None:
        """Keep what the watch tells until it is cancelled."""
        async for event in stream:
            if event["type"] != "BOOKMARK":
                self.add(event["object"])

    def add(self, obj: Object) -> None:
        """One more state, seen now."""
        self.states.append((time.monotonic(), obj))
        self._news.set()

    async def reaches(self, holds: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
        """Wait until it is as wanted."""
        try:
            async with asyncio.timeout(deadline):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {deadline} s: {what}") from None

    def of(self, name: str) -> list[Object]:
        """The states of one object."""
        return [obj for _, obj in self.states if obj["metadata"]["name"] == name]

    def in_phase(self, phase: str) -> list[tuple[float, str]]:
        """When each object was first seen in that phase."""
        first: dict[str, float] = {}
        for moment, obj in self.states:
            if (obj.get("status") or {}).get("phase") == phase:
                first.setdefault(obj["metadata"]["name"], moment)
        return [(moment, name) for name, moment in first.items()]
