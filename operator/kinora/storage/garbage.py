"""Which objects of an artifact store nobody will ask for any more. Pure: no I/O, clock or randomness.

List the objects first and the jobs after them: an object of a list belongs to a job that was there before it, so that a
job which is in no later list is gone, and not yet to come. Only keys of a shape that Kinora gives are ever judged;
whatever else lies in a store is not its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from kinora.api import transitions
from kinora.api.names import is_gateway_job
from kinora.recipes.delivery import is_plain_name

SAFETY_SECONDS: Final = 3600.0  # what is younger is never removed: somebody may be at it
INPUTS: Final = "inputs/"
#: What the store service and the stagers look after themselves.
_OTHERS: Final = ("uploads/", "names/", "intake/")
#: [prefix/]namespace/name/uid/attempt/index-filename; on a volume also what a killed agent was writing there.
_ARTIFACT = re.compile(
    r"(?:[^/]+/)*(?P<namespace>[^/]+)/(?P<job>[^/]+)/(?P<uid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"/(?P<attempt>[1-9][0-9]*)/(?:[0-9]+-[^/]+|\.[0-9]+-[^/]+\.partial)"
)
_INPUT = re.compile(r"inputs/(?P<sha256>[0-9a-f]{64})")

Tail = tuple[str, ...]
Object = Mapping[str, Any]


class Why(StrEnum):
    """Why nobody will ask for an object."""

    LOST_ATTEMPT = "lost attempt"
    JOB_GONE = "job gone"
    INPUT_UNUSED = "input unused"


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as the store lists it. `used`: seconds since the epoch, of the last write or use."""

    key: str
    bytes: int
    used: float


@dataclass(frozen=True, slots=True)
class Garbage:
    """An object that may go. `job`: whose it is or was; empty for an input."""

    listed: Listed
    why: Why
    job: str = ""

    @property
    def key(self) -> str:
        """Of the object."""
        return self.listed.key


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What of a VideoJob matters here. `named`: the artifacts that its status names, by the ends of their keys."""

    uid: str
    finished: bool
    named: frozenset[Tail] = frozenset()
    inputs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Keep:
    """How long what nobody will ask for stays, in seconds since it was last used. None: for ever."""

    lost: float | None = None
    gone: float | None = None
    gone_gateway: float | None = None  # of jobs that the gateway made; where None, `gone` holds
    inputs: float | None = None


@dataclass(frozen=True, slots=True)
class Census:
    """All jobs of a namespace."""

    jobs: Mapping[str, JobFacts] = field(default_factory=dict)
    named: frozenset[Tail] = frozenset()
    inputs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, jobs: Iterable[JobFacts]) -> Census:
        """What all of them need. Inputs are needed by unfinished jobs, artifacts by every job that names them."""
        found = {job.uid: job for job in jobs}
        named = frozenset(tail for job in found.values() for tail in job.named)
        inputs = frozenset(sha256 for job in found.values() if not job.finished for sha256 in job.inputs)
        return cls(found, named, inputs | {tail[-1] for tail in named})  # whatever lies where it is named, stays


def facts_of(job: Object) -> JobFacts:
    """Of a VideoJob as it is stored. One whose status cannot be read counts as unfinished."""
    status = job.get("status") or {}
    named = {tail_of(urlsplit(str(one.get("uri", ""))).path) for one in status.get("artifacts") or []}
    inputs = {str(one.get("sha256", "")) for one in status.get("inputs") or []}
    graph = ((job.get("spec") or {}).get("workflow") or {}).get("upload") or {}  # its copy lies among the inputs
    inputs.add(str(graph.get("sha256", "")))
    return JobFacts(str(job["metadata"]["uid"]), transitions.is_finished(status), frozenset(named), frozenset(inputs))


def tail_of(key: str) -> Tail:
    """The end of a key, by which it is known under whatever root: namespace, job, UID, attempt and file name."""
    return tuple(key.split("/")[-5:])


def garbage(listed: Iterable[Listed], census: Census, keep: Keep, *, namespace: str, now: float) -> list[Garbage]:
    """What of a namespace may go. Never what a status names, what an unfinished job may need, or what is fresh."""
    found = []
    for one in listed:
        judged = _judged(one, census, namespace)
        if judged is None:
            continue
        stays = _stays(judged, keep)
        if stays is not None and now - one.used >= max(stays, SAFETY_SECONDS):
            found.append(judged)
    return found


def _judged(one: Listed, census: Census, namespace: str) -> Garbage | None:
    match = _INPUT.fullmatch(one.key)
    if match is not None:
        return None if match["sha256"] in census.inputs else Garbage(one, Why.INPUT_UNUSED)
    match = _ARTIFACT.fullmatch(one.key)
    if match is None or match["namespace"] != namespace or one.key.startswith((INPUTS, *_OTHERS)):
        return None
    if not _is_plain(one.key):
        return None
    if tail_of(one.key) in census.named:
        return None
    job = census.jobs.get(match["uid"])
    if job is None:
        return Garbage(one, Why.JOB_GONE, match["job"])
    return Garbage(one, Why.LOST_ATTEMPT, match["job"]) if job.finished else None


def _is_plain(key: str) -> bool:
    """Whether Kinora gives such keys: of plain names; a file that is being written on a volume has a hidden one."""
    *folders, name = key.split("/")
    return all(map(is_plain_name, (*folders, name.removeprefix("."))))


def _stays(found: Garbage, keep: Keep) -> float | None:
    if found.why is Why.INPUT_UNUSED:
        return keep.inputs
    if found.why is Why.LOST_ATTEMPT:
        return keep.lost
    if keep.gone_gateway is not None and is_gateway_job(found.job):
        return keep.gone_gateway
    return keep.gone
