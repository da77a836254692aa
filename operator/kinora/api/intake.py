"""Which VideoJobs a stager must look at before they are queued, and whose store their inputs go to. Pure.

Operator and stager decide these alike, each for itself, so they stand here once. Objects are raw dicts as stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kinora.api.s3store import S3Store, s3_root

CONDITION_INPUTS_READY: Final = "InputsReady"
FETCHED: Final = ("url", "upload")

Object = Mapping[str, Any]


def fetched_fields(spec: Object) -> tuple[str, ...]:
    """The fields of the sources that a stager brings into the store: `spec.inputs.image.url`."""
    found = ["spec.workflow.upload"] if _graph_upload(spec) else []
    for place, source in _sources(spec):
        found += [f"{place}.{kind}" for kind in FETCHED if source.get(kind) is not None]
    return tuple(found)


def needs_stager(job: Object) -> bool:
    """Whether the job waits for a stager at all; one without a url or upload never does."""
    return bool(fetched_fields(job.get("spec") or {}))


def uploads_of(spec: Object) -> Iterator[str]:
    """The uploads that a job names, as `Source.upload` says them; its graph may be one."""
    if _graph_upload(spec).get("key") is not None:
        yield str(_graph_upload(spec)["key"])
    for _, source in _sources(spec):
        if source.get("upload") is not None:
            yield str(source["upload"])


def fetched_names(spec: Object) -> frozenset[str]:
    """The names, as `status.inputs` has them, of what a stager brings: `image`, `references[0]`, `files[1]`."""
    return frozenset(
        place.removeprefix("spec.inputs.").removeprefix("spec.workflow.").removesuffix(".source")
        for place, source in _sources(spec)
        if any(source.get(kind) is not None for kind in FETCHED)
    )


def artifacts_named(spec: Object) -> Iterator[tuple[str, int]]:
    """The artifacts of other VideoJobs that a job works on: whose, and which of them."""
    for _, source in _sources(spec):
        named = source.get("artifact")
        if named:
            yield str(named.get("videoJobName")), int(named.get("index") or 0)


def _graph_upload(spec: Object) -> Object:
    found: Object = (spec.get("workflow") or {}).get("upload") or {}
    return found


def is_judged_by_stager(job: Object) -> bool:
    """Whether the job's raw graph lies in the store, where the operator does not read: a stager judges it."""
    return bool(_graph_upload(job.get("spec") or {}))


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
    """Whether `status.resolved` rests on what a stager has looked at: a task's inputs, or a graph in the store."""
    spec, status = job.get("spec") or {}, job.get("status") or {}
    resolves = not spec.get("workflow") or is_judged_by_stager(job)
    return needs_stager(job) and not awaits_stager(job) and resolves and bool(status.get("resolved"))


def store_of(job: Object) -> str | None:
    """The root of the store that holds the job's inputs, such as `pvc://videos/`; None where no stager puts any.

    Of a raw workflow whose graph the operator reads, the operator tells it before they are there.
    """
    return (job.get("status") or {}).get("inputStore") or None


_CLAIM: Final = "pvc://"


@dataclass(frozen=True, slots=True)
class Store:
    """An artifact store. `root` begins the uri of all that is in it: `pvc://claim/`, `s3://bucket/prefix/`.

    The endpoint of a bucket is how it is reached, not which one it is. Two buckets of one name: docs/limits.md.
    """

    root: str

    @property
    def is_claim(self) -> bool:
        """Whether it is on a claim; else in a bucket."""
        return self.root.startswith(_CLAIM)

    @property
    def name(self) -> str:
        """What its stager is named by, and chosen by: the claim's name, or the bucket's root."""
        return self.root.removeprefix(_CLAIM).removesuffix("/") if self.is_claim else self.root


def claim_store(claim_name: str) -> Store:
    """The store on a claim."""
    return Store(f"{_CLAIM}{claim_name}/")


def bucket_store(s3: S3Store | Object) -> Store:
    """The store in a bucket, as `spec.artifacts.s3` has it, read or raw."""
    told = s3.model_dump(by_alias=True) if isinstance(s3, S3Store) else s3
    return Store(s3_root(str(told.get("bucket") or ""), told.get("prefix")))


def artifact_store(server: Object) -> Store | None:
    """The store of a ModelServer's artifacts; None where it names none."""
    told = (server.get("spec") or {}).get("artifacts") or {}
    if told.get("claimName"):
        return claim_store(str(told["claimName"]))
    return bucket_store(told["s3"]) if told.get("s3") else None


def choose_store(uid: str, stores: Collection[Store]) -> Store | None:
    """The store whose stager takes the job with this metadata.uid: the same one for whoever asks.

    The highest of hashes, so that another store that comes or goes moves few jobs.
    """
    return max(stores, key=lambda store: hashlib.sha256(f"{uid}/{store.name}".encode()).digest(), default=None)


def stores_for(model: str, named: str | None, servers: Iterable[Object]) -> frozenset[Store]:
    """The artifact stores of the ModelServers that can render a job of this model; `named`: spec.modelServerName.

    Those that have pods, or may get some, go before those that were set to none.
    """
    able = [
        server
        for server in servers
        if (server["metadata"]["name"] == named if named else server["spec"].get("model") == model)
    ]
    offers = [store_offer(server) for server in able]
    ready = frozenset(offer.store for offer in offers if offer.store and offer.has_pods)
    return ready or frozenset(offer.store for offer in offers if offer.store)


@dataclass(frozen=True)
class Offer:
    """What of a ModelServer the choice of a store rests on."""

    model: str
    store: Store | None
    has_pods: bool


def store_offer(server: Object) -> Offer:
    """The offer of a ModelServer; one that is going, or whose spec was refused, offers no store."""
    spec = server.get("spec") or {}
    conditions = (server.get("status") or {}).get("conditions") or []
    stalled = any(entry.get("type") == "Stalled" and entry.get("status") == "True" for entry in conditions)
    store = None if stalled or server["metadata"].get("deletionTimestamp") else artifact_store(server)
    return Offer(str(spec.get("model") or ""), store, bool(spec.get("replicas", 1)) or bool(spec.get("autoscaling")))
