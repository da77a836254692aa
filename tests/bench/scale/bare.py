"""The bare-write limit: the status writes of a job's life, done by a client that does nothing else.

Same API server, same CRDs, policies and identities (the operator's account; each pod's bound token), same watches, same
sizes: the bodies are those that the product's own transitions make for a job of the load.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.scale.load import job_body
from kinora.api import transitions
from kinora.api.names import prompt_id
from kinora.api.reasons import COMPLETED, WAITING_FOR_SERVER, Phase
from kinora.kube.config import Connection
from kinora.kube.resources import VIDEOJOB

Object = dict[str, Any]
_VERSION = re.compile(rb'"resourceVersion":"(\d+)"')
_UID = re.compile(rb'"uid":"([0-9a-f-]{36})"')


@dataclass(frozen=True)
class Rate:
    """What a number of bare lives came to."""

    jobs: int
    writes: int  # creates among them
    seconds: float
    width: int  # lives side by side

    @property
    def jobs_per_second(self) -> float:
        """Lives ended a second."""
        return self.jobs / self.seconds

    def to_dict(self) -> Object:
        """For the report."""
        return {
            "jobs": self.jobs,
            "sideBySide": self.width,
            "jobsPerSecond": round(self.jobs_per_second, 1),
            "writesPerSecond": round(self.writes / self.seconds, 1),
        }


@dataclass(frozen=True)
class Pod:
    """A server pod that a bare life is bound to."""

    name: str
    uid: str
    node: str
    secret: str  # its Authorization header


class Bare:
    """Lives jobs out by bare writes."""

    def __init__(
        self, user: Connection, operator: Connection, namespace: str, pods: list[Pod], sample: Object, writes: float
    ) -> None:
        """``sample``: a job that succeeded in the load; ``writes``: status writes a job there, on the mean."""
        self._url = user.host + VIDEOJOB.path(namespace)
        self._user_tls = user.tls
        self._bearer_tls = operator.tls
        self._operator = operator.authorization() or ""
        self._pods = pods
        self._sample = sample
        self._writes = writes
        self._serial = 0
        self.done = 0

    async def best(self, widths: tuple[int, ...], probe: int, jobs: int, deadline: float) -> tuple[Rate, list[Rate]]:
        """Try each width with a few jobs, then live out all of them at the best; that one, and the trials."""
        trials = [await self.live(probe, width, deadline) for width in widths]
        width = max(trials, key=lambda one: one.jobs_per_second).width
        return await self.live(jobs, width, deadline), trials

    async def live(self, jobs: int, width: int, deadline: float) -> Rate:
        """So many jobs, ``width`` side by side; fewer when the deadline (monotonic) comes first."""
        began, done, written = time.monotonic(), 0, 0
        numbers = iter(range(self._serial, self._serial + jobs))
        self._serial += jobs
        async with _session(self._user_tls) as user, _session(self._bearer_tls) as session:

            async def worker() -> None:
                nonlocal done, written
                for number in numbers:
                    if time.monotonic() > deadline:
                        return
                    count = await self._one(user, session, number)
                    written += count  # not before the await: others add to it meanwhile
                    done += 1
                    self.done += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(width):
                    group.create_task(worker())
        return Rate(done, written, time.monotonic() - began, width)

    async def _one(self, user: aiohttp.ClientSession, session: aiohttp.ClientSession, number: int) -> int:
        name = f"bare-{number:06}"
        pod = self._pods[number % len(self._pods)]
        body = json.dumps(job_body(name), separators=(",", ":")).encode()
        answer = await self._send(user, "POST", self._url, body, "application/json", None)
        uid, version, count = _first(_UID, answer), _first(_VERSION, answer), 1
        for status, secret in self._life(number, name, uid, pod):
            patch = {"metadata": {"resourceVersion": version, "uid": uid}, "status": status}
            data = json.dumps(patch, separators=(",", ":")).encode()
            url = f"{self._url}/{name}/status"
            answer = await self._send(session, "PATCH", url, data, "application/merge-patch+json", secret)
            version = _first(_VERSION, answer)
            count += 1
        return count

    def _life(self, number: int, name: str, uid: str, pod: Pod) -> Iterator[tuple[Object, str]]:
        """The status patches of one job; the share that has a Queued one makes the mean what it was in the load."""
        now = dt.datetime.now(dt.UTC)
        done, total = self._sample["status"], int((number + 1) * self._writes) - int(number * self._writes)
        job: Object = {
            "metadata": {"name": name, "uid": uid, "generation": 1, "creationTimestamp": transitions.rfc3339(now)},
            "spec": self._sample["spec"],
            "status": {},
        }
        resolved: Object | None = done["resolved"]
        if total > 3:
            message = "every server pod of the model is busy or not ready"
            yield transitions.queued(job, WAITING_FOR_SERVER, message, now, resolved=resolved), self._operator
            resolved = None
        assignment = {
            "podName": pod.name,
            "podUID": pod.uid,
            "nodeName": pod.node,
            "pool": "",
            "promptID": prompt_id(uid, 1),
        }
        yield transitions.bound(job, assignment, now, resolved=resolved), self._operator
        yield transitions.running(job, now), pod.secret
        for _ in range(total - 4):
            yield transitions.progressed(job, now, percent=50, stage="Sample", step=1, steps=2), pod.secret
        yield (
            transitions.ended_by_agent(
                job,
                Phase.SUCCEEDED,
                COMPLETED,
                done["message"],
                now,
                artifacts=done["artifacts"],
                timings=done["timings"],
                gpu_seconds=done.get("gpuSeconds"),
            ),
            pod.secret,
        )

    async def _send(
        self, session: aiohttp.ClientSession, method: str, url: str, data: bytes, kind: str, secret: str | None
    ) -> bytes:
        headers = {"Content-Type": kind, "Accept": "application/json"}
        if secret is not None:
            headers["Authorization"] = secret
        while True:
            async with session.request(method, url, data=data, headers=headers) as response:
                answer = await response.read()
                if response.status < 300:
                    return answer
                if response.status != 429:  # a flow's queue is full: wait as every client of Kubernetes does
                    raise RuntimeError(f"{method} {url}: {response.status} {answer[:500]!r}")
                pause = float(response.headers.get("Retry-After", 1))
            await asyncio.sleep(pause)


def _session(tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls or False, limit=0))


def _first(pattern: re.Pattern[bytes], text: bytes) -> str:
    found = pattern.search(text)
    if found is None:
        raise RuntimeError(f"no {pattern.pattern!r} in {text[:200]!r}")
    return found[1].decode()
