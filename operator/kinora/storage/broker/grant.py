"""Whether an agent may have what it asks for: its pod's own job, that attempt, while it lasts, and what the job names.

Pure. What an agent itself can write (the status of its own job) is believed of its own job alone; that an agent cannot
change which inputs a stager has brought is the admission fence's (charts/kinora/templates/policies.yaml).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kinora.api import transitions
from kinora.api.intake import artifacts_named, fetched_names
from kinora.api.reasons import TERMINAL, Phase
from kinora.storage.broker.asks import READS, Ask
from kinora.storage.keys import KeyRefused, input_key, is_artifact_key

MAX_ARTIFACTS: Final = 8  # of a job, as its status can name them

Object = Mapping[str, Any]


class Refused(Exception):  # noqa: N818 - a verdict
    """It may not. `code` is for programs, the message for people; neither tells what the asker may not read."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the API server says of its token."""

    namespace: str
    pod_name: str
    pod_uid: str


def caller_of(user: Object, namespace: str, account: str) -> Caller:
    """The agent of a reviewed token. Raises Refused: another account, another namespace, a token of no pod."""
    if user.get("username") != f"system:serviceaccount:{namespace}:{account}":
        raise Refused("NotAnAgent", f"this is the store of the agents of namespace {namespace}, account {account}")
    extra = user.get("extra") or {}
    pod = [(extra.get(f"authentication.kubernetes.io/pod-{what}") or [""])[0] for what in ("name", "uid")]
    if not all(pod):
        raise Refused("NotBound", "the token is not bound to a pod; agents need a projected token of their own pod")
    return Caller(namespace, *pod)


def checked_job(ask: Ask, caller: Caller, job: Object | None) -> Object:
    """The job, if it is the caller's now. `job`: what has the asked name in the caller's namespace. Raises Refused."""
    if job is None or job["metadata"]["namespace"] != caller.namespace or job["metadata"]["uid"] != ask.job.uid:
        raise Refused("NoSuchJob", f"there is no VideoJob {ask.job.name} with this UID in namespace {caller.namespace}")
    status = job.get("status") or {}
    if (status.get("assignment") or {}).get("podUID") != caller.pod_uid:
        raise Refused("NotBoundHere", f"VideoJob {ask.job.name} is not bound to the pod of this token")
    attempt = int(status.get("attempt") or 0)
    if attempt != ask.job.attempt:
        raise Refused("OtherAttempt", f"VideoJob {ask.job.name} is at attempt {attempt}, not {ask.job.attempt}")
    if (status.get("released") or {}).get("attempt") == attempt:
        raise Refused("GivenUp", f"attempt {attempt} of VideoJob {ask.job.name} was given up")
    phase = transitions.phase_of(status)
    if phase in TERMINAL:
        raise Refused("Ended", f"VideoJob {ask.job.name} has ended: {phase}")
    return job


def source_name(ask: Ask, job: Object) -> str | None:
    """The VideoJob that must be read to judge the ask: one whose artifact this job names; None: none need be."""
    parts = ask.key.split("/")
    if ask.action not in READS or len(parts) < 5:
        return None
    return parts[-4] if any(name == parts[-4] for name, _ in artifacts_named(job.get("spec") or {})) else None


def check(ask: Ask, job: Object, root: str, source: Object | None = None) -> None:
    """Raises Refused unless the job (`checked_job`) may have this of the store `root`.

    `source`: the VideoJob that has the name `source_name`.
    """
    if is_own(ask.key, job, ask.job.attempt):
        return
    if ask.action in READS and (_is_input(ask.key, job, root) or _is_source(ask.key, job, root, source)):
        return
    what = "an output of this attempt, an input of the job, or an artifact that it names"
    raise Refused("NotItsKey", f"{ask.action} of {ask.key[:200]!r}; allowed: {what} (which is read, not written)")


def is_own(key: str, job: Object, attempt: int) -> bool:
    """Whether the key is that of an output of this attempt."""
    metadata, prefix = job["metadata"], ((job.get("spec") or {}).get("output") or {}).get("keyPrefix")
    return is_artifact_key(
        key,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=attempt,
        prefix=prefix,
        most=MAX_ARTIFACTS,
    )


def _is_input(key: str, job: Object, root: str) -> bool:
    """Whether a stager has brought it into this store for the job."""
    status, names = job.get("status") or {}, fetched_names(job.get("spec") or {})
    if status.get("inputStore") != root:
        return False
    graph = ((job.get("spec") or {}).get("workflow") or {}).get("upload") or {}
    if graph.get("sha256") and key == f"inputs/{graph['sha256']}":  # the spec names a graph in the store by its hash
        return True
    for entry in status.get("inputs") or []:
        try:
            if entry.get("name") in names and input_key(str(entry.get("sha256"))) == key:
                return True
        except KeyRefused:
            continue
    return False


def _is_source(key: str, job: Object, root: str, source: Object | None) -> bool:
    """Whether it is an artifact that the job names, and one of the very job that it says: an agent writes the uri."""
    if source is None or source["metadata"]["namespace"] != job["metadata"]["namespace"]:
        return False
    status, attempt = source.get("status") or {}, key.split("/")[-2:-1]
    if transitions.phase_of(status) is not Phase.SUCCEEDED or not attempt or not attempt[0].isdecimal():
        return False
    indices = {index for name, index in artifacts_named(job["spec"]) if name == source["metadata"]["name"]}
    uris = {str(one.get("uri")) for at, one in enumerate(status.get("artifacts") or []) if at in indices}
    return f"{root}{key}" in uris and is_own(key, source, int(attempt[0][:9]))
