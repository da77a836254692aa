"""Which VideoJobs a stager must look at before they are queued, and whose store their inputs go to. Pure.

Operator and stager decide these alike, each for itself, so they stand here once. Objects are raw dicts as stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

CONDITION_INPUTS_READY: Final = "InputsReady"
FETCHED: Final = ("url", "upload")

Object = Mapping[str, Any]


def fetched_fields(spec: Object) -> tuple[str, ...]:
    """The fields of the sources that a stager brings into the store: `spec.inputs.image.url`."""
    found: list[str] = []
    for place, source in _sources(spec):
        found += [f"{place}.{kind}" for kind in FETCHED if source.get(kind) is not None]
    return tuple(found)


def needs_stager(job: Object) -> bool:
    """Whether the job waits for a stager at all; one without a url or upload never does."""
    return bool(fetched_fields(job.get("spec") or {}))


def uploads_of(spec: Object) -> Iterator[str]:
    """The uploads that a job names, as `Source.upload` says them."""
    for _, source in _sources(spec):
        if source.get("upload") is not None:
            yield str(source["upload"])


def _sources(spec: Object) -> Iterator[tuple[str, Object]]:
    for index, file in enumerate((spec.get("workflow") or {}).get("files") or []):
        yield f"spec.workflow.files[{index}].source", (file or {}).get("source") or {}
    for field, value in (spec.get("inputs") or {}).items():
        if field == "references":
            for index, item in enumerate(value or []):
                yield f"spec.inputs.references[{index}]", (item or {}).get("source") or {}
        elif field == "mask":
            yield "spec.inputs.mask", (value or {}).get("source") or {}
        else:
            yield f"spec.inputs.{field}", value or {}


def inputs_condition(job: Object) -> Object:
    """The condition InputsReady, or nothing. True: staged; False: refused for good; Unknown: tried again."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("type") == CONDITION_INPUTS_READY:
            found: Object = condition
            return found
    return {}


def awaits_stager(job: Object) -> bool:
    """Whether a stager has still to say that the job's inputs are in a store."""
    return needs_stager(job) and inputs_condition(job).get("status") != "True"


def is_resolved_by_stager(job: Object) -> bool:
    """Whether `status.resolved` rests on inputs that a stager has looked at. That of a raw workflow never does."""
    spec, status = job.get("spec") or {}, job.get("status") or {}
    return needs_stager(job) and not awaits_stager(job) and not spec.get("workflow") and bool(status.get("resolved"))


def store_of(job: Object) -> str | None:
    """The root of the store that holds the job's inputs, such as `pvc://videos/`; None where no stager puts any.

    Of a raw workflow the operator, which alone reads its graph, tells it before they are there.
    """
    return (job.get("status") or {}).get("inputStore") or None


def claim_root(claim_name: str) -> str:
    """The root of the store on a claim, as it begins the uri of everything in it."""
    return f"pvc://{claim_name}/"


def artifact_claim(server: Object) -> str:
    """The claim with the artifacts of a ModelServer; empty where it names none."""
    return str(((server.get("spec") or {}).get("artifacts") or {}).get("claimName") or "")


def choose_claim(uid: str, claims: Collection[str]) -> str | None:
    """The claim whose stager takes the job with this metadata.uid: the same one for whoever asks.

    The highest of hashes, so that another claim that comes or goes moves few jobs.
    """
    return max(claims, key=lambda claim: hashlib.sha256(f"{uid}/{claim}".encode()).digest(), default=None)


def claims_for(model: str, named: str | None, servers: Iterable[Object]) -> frozenset[str]:
    """The artifact claims of the ModelServers that can render a job of this model; `named`: spec.modelServerName.

    Those that have pods, or may get some, go before those that were set to none.
    """
    able = [
        server
        for server in servers
        if (server["metadata"]["name"] == named if named else server["spec"].get("model") == model)
    ]
    offered = [offer for server in able if (offer := store_offer(server)).claim]
    return frozenset(offer.claim for offer in offered if offer.has_pods) or frozenset(offer.claim for offer in offered)


@dataclass(frozen=True)
class Offer:
    """What of a ModelServer the choice of a store rests on; `claim` is empty where it offers none."""

    model: str
    claim: str
    has_pods: bool


def store_offer(server: Object) -> Offer:
    """The offer of a ModelServer; one that is going, or whose spec was refused, offers no store."""
    spec = server.get("spec") or {}
    conditions = (server.get("status") or {}).get("conditions") or []
    stalled = any(entry.get("type") == "Stalled" and entry.get("status") == "True" for entry in conditions)
    claim = "" if stalled or server["metadata"].get("deletionTimestamp") else artifact_claim(server)
    return Offer(str(spec.get("model") or ""), claim, bool(spec.get("replicas", 1)) or bool(spec.get("autoscaling")))
