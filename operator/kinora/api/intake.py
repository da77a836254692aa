"""Which VideoJobs a stager must look at before they are queued, and whose store their inputs go to. Pure.

Operator and stager decide these alike, each for itself, so they stand here once. Objects are raw dicts as stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

CONDITION_INPUTS_READY: Final = "InputsReady"
FETCHED: Final = ("url", "upload")

Object = Mapping[str, Any]


def fetched_fields(spec: Object) -> tuple[str, ...]:
    """The fields of the sources that a stager brings into the store: `spec.inputs.image.url`."""
    found = []
    for place, source in _sources(spec.get("inputs") or {}):
        found += [f"{place}.{kind}" for kind in FETCHED if source.get(kind) is not None]
    return tuple(found)


def needs_stager(job: Object) -> bool:
    """Whether the job waits for a stager at all; one without a url or upload never does."""
    return bool(fetched_fields(job.get("spec") or {}))


def _sources(inputs: Object) -> Iterator[tuple[str, Object]]:
    for field, value in inputs.items():
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


def store_of(job: Object) -> str | None:
    """The root of the store that holds the job's inputs, such as `pvc://videos/`; None where no stager put any."""
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
    """The artifact claims of the ModelServers that can render a job of this model; `named`: spec.modelServerName."""
    return frozenset(
        artifact_claim(server)
        for server in servers
        if artifact_claim(server)
        and not server["metadata"].get("deletionTimestamp")
        and (server["metadata"]["name"] == named if named else server["spec"].get("model") == model)
    )
