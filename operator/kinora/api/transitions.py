"""The life of a VideoJob as pure functions: (status, facts, now) -> the status patch of one transition.

Operator and agent both write a job's status (api.md says who writes which transition); the shape of each write, its
conditions and its counters stand here once. A patch is a merge patch of ``status``: None removes a field. The writer
adds ``metadata.resourceVersion``, so that a stale one is refused.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from kinora.api import reasons, spending
from kinora.api.base import MESSAGE_LIMIT, integral
from kinora.api.intake import CONDITION_INPUTS_READY, inputs_condition
from kinora.api.reasons import ASSIGNED, TERMINAL, Phase

Status = Mapping[str, Any]  # a VideoJob.status as stored
Job = Mapping[str, Any]  # a whole VideoJob as stored
Patch = dict[str, Any]

CONDITION_MESSAGE_LIMIT: Final = 192  # bytes
_TRUE, _FALSE, _UNKNOWN = "True", "False", "Unknown"
_UNFINISHED: Final = {
    "Ready": _FALSE,
    "Reconciling": _TRUE,
    "Stalled": _FALSE,
    "Succeeded": _UNKNOWN,
    "Failed": _FALSE,
    "Finished": _FALSE,
}
_FINISHED: Final[Mapping[Phase, Mapping[str, str]]] = {
    Phase.SUCCEEDED: {"Ready": _TRUE, "Stalled": _FALSE, "Succeeded": _TRUE, "Failed": _FALSE},
    Phase.FAILED: {"Ready": _FALSE, "Stalled": _TRUE, "Succeeded": _FALSE, "Failed": _TRUE},
    Phase.CANCELLED: {"Ready": _TRUE, "Stalled": _FALSE, "Succeeded": _FALSE, "Failed": _FALSE},
}


def rfc3339(moment: dt.datetime) -> str:
    """UTC with a Z and milliseconds, as every time in a status is written."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def parse_time(text: str) -> dt.datetime:
    """The moment that an RFC 3339 string names."""
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


def phase_of(status: Status) -> Phase:
    """The phase; a status without one, or with one of a newer version, reads as Pending."""
    try:
        return Phase(status.get("phase", Phase.PENDING))
    except ValueError:
        return Phase.PENDING


def is_finished(status: Status) -> bool:
    """Whether the phase is terminal."""
    return phase_of(status) in TERMINAL


def is_assigned(status: Status) -> bool:
    """Whether an assignment stands (whatever became of its pod)."""
    return phase_of(status) in ASSIGNED and bool(status.get("assignment"))


def clip(message: str, limit: int = MESSAGE_LIMIT) -> str:
    """A message within the limit (of bytes, as a status is measured), its cut shown."""
    encoded = message.encode(errors="replace")
    if len(encoded) <= limit:
        return message
    return encoded[: limit - 3].decode(errors="ignore") + "..."


def conditions(
    phase: Phase, reason: str, message: str, *, previous: Status, generation: int, now: dt.datetime
) -> list[dict[str, Any]]:
    """All six conditions of a phase; the transition time of one whose status did not change stays.

    The stager's InputsReady stays as it is. The whole message stands once, in ``status.message``: six copies of it
    would outgrow the status (8 KiB).
    """
    wanted = _UNFINISHED if phase not in TERMINAL else {**_FINISHED[phase], "Reconciling": _FALSE, "Finished": _TRUE}
    known = {condition.get("type"): condition for condition in previous.get("conditions") or []}
    kept = [dict(condition) for name, condition in known.items() if name == CONDITION_INPUTS_READY]
    return kept + [
        _condition(
            name,
            status,
            reason,
            clip(message, CONDITION_MESSAGE_LIMIT),
            old=known.get(name, {}),
            generation=generation,
            now=now,
        )
        for name, status in wanted.items()
    ]


def _condition(
    name: str, status: str, reason: str, message: str, *, old: Mapping[str, Any], generation: int, now: dt.datetime
) -> dict[str, Any]:
    same = old.get("status") == status and old.get("lastTransitionTime")
    return {
        "type": name,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if same else rfc3339(now),
    }


def _generation(job: Job) -> int:
    return int(job["metadata"].get("generation", 1))


def _enter(phase: Phase, reason: str, message: str, job: Job, now: dt.datetime) -> Patch:
    generation = _generation(job)
    previous = job.get("status") or {}
    return {
        "phase": str(phase),
        "reason": reason,
        "message": clip(message),
        "observedGeneration": generation,
        "conditions": conditions(phase, reason, message, previous=previous, generation=generation, now=now),
    }


# --- the stager's transitions: the phase stays Pending ----------------------------------------------------------------


def inputs_stored(
    job: Job, store: str, inputs: list[dict[str, Any]], resolved: Mapping[str, Any] | None, now: dt.datetime
) -> Patch:
    """InputsReady=True: every input that had to be fetched is in the store (its root) and was looked at.

    `resolved`: None where what was resolved does not rest on the inputs, and stays as it is.
    """
    count = f"{len(inputs)} input{'s' if len(inputs) > 1 else ''}" if inputs else "the workflow's graph"
    patch = _told(job, _TRUE, reasons.INPUTS_STORED, f"{count} fetched, looked at and stored", now)
    patch |= {"inputStore": store, "inputs": integral(inputs)}
    return patch if resolved is None else {**patch, "resolved": integral(dict(resolved))}


def inputs_refused(job: Job, reason: str, message: str, now: dt.datetime) -> Patch:
    """InputsReady=False: they will never do. The operator makes it Failed, with this reason and message."""
    return _told(job, _FALSE, reason, message, now)


def inputs_delayed(job: Job, message: str, now: dt.datetime) -> Patch:
    """InputsReady=Unknown: a fetch failed and is tried again. Its transition time is that of the first failure."""
    return _told(job, _UNKNOWN, reasons.FETCH_RETRIED, message, now)


def _told(job: Job, status: str, reason: str, message: str, now: dt.datetime) -> Patch:
    """One condition changed, the others as they are."""
    before = (job.get("status") or {}).get("conditions") or []
    old = inputs_condition(job)
    told = _condition(
        CONDITION_INPUTS_READY, status, reason, clip(message), old=old, generation=_generation(job), now=now
    )
    others = [dict(condition) for condition in before if condition.get("type") != CONDITION_INPUTS_READY]
    return {"observedGeneration": _generation(job), "conditions": [told, *others]}


# --- the operator's transitions ---------------------------------------------------------------------------------------


def awaiting_inputs(job: Job, reason: str, message: str, now: dt.datetime) -> Patch:
    """Pending stays Pending, and says what it waits for before it can be queued."""
    return _enter(Phase.PENDING, reason, message, job, now)


def queued(job: Job, reason: str, message: str, now: dt.datetime, resolved: Mapping[str, Any] | None = None) -> Patch:
    """Pending -> Queued, or another reason to wait."""
    patch = _enter(Phase.QUEUED, reason, message, job, now)
    patch["submitTime"] = job["metadata"]["creationTimestamp"]
    if resolved is not None:
        patch["resolved"] = integral(dict(resolved))
    return patch


def bound(
    job: Job, assignment: Mapping[str, Any], now: dt.datetime, resolved: Mapping[str, Any] | None = None
) -> Patch:
    """Pending or Queued -> Scheduled: this pod, the next attempt."""
    patch = _enter(Phase.SCHEDULED, reasons.BOUND, f"bound to {assignment['podName']}", job, now)
    status = job.get("status") or {}
    patch["attempt"] = int(status.get("attempt") or 0) + 1
    patch["assignment"] = {**assignment, "boundTime": rfc3339(now)}
    patch["released"] = None
    patch["progress"] = None
    patch["queue"] = None
    patch["submitTime"] = job["metadata"]["creationTimestamp"]
    if resolved is not None:
        patch["resolved"] = integral(dict(resolved))
    return patch


def requeued(job: Job, reason: str, message: str, now: dt.datetime, *, disruption: bool) -> Patch:
    """A lost, released or taken-back attempt -> Queued, its assignment removed."""
    patch = _enter(Phase.QUEUED, reason, message, job, now)
    patch.update({"assignment": None, "released": None, "progress": None, "startTime": None})
    status = job.get("status") or {}
    patch.update(spending.lost(status, spending.known_of_present(status)))
    if disruption:
        patch["disruptions"] = int(status.get("disruptions") or 0) + 1
    return patch


def preempted(job: Job, now: dt.datetime) -> Patch:
    """The agent is asked to stop a running attempt and release it; the phase stays until it has."""
    assignment = (job.get("status") or {}).get("assignment") or {}
    return {"assignment": {**assignment, "preemptTime": rfc3339(now)}}


def ended_by_operator(job: Job, phase: Phase, reason: str, message: str, now: dt.datetime) -> Patch:
    """Unassigned -> Failed or Cancelled; or an assigned one whose agent gave no verdict in time."""
    patch = _enter(phase, reason, message, job, now)
    patch["completionTime"] = rfc3339(now)
    patch["submitTime"] = job["metadata"]["creationTimestamp"]
    status = job.get("status") or {}
    if is_assigned(status):
        patch.update(spending.ended(status, spending.known_of_present(status)))
    return patch


# --- the agent's transitions ------------------------------------------------------------------------------------------


def running(
    job: Job,
    now: dt.datetime,
    inputs: list[dict[str, Any]] | None = None,
    resolved: Mapping[str, Any] | None = None,
) -> Patch:
    """Scheduled -> Running, at the engine's execution_start. `resolved` is written where the inputs changed it."""
    patch = _enter(Phase.RUNNING, reasons.RENDERING, "the engine renders", job, now)
    patch["startTime"] = rfc3339(now)
    patch["progress"] = {"percent": 0, "stage": "Load", "lastUpdateTime": rfc3339(now)}
    if inputs:
        patch["inputs"] = integral(inputs)
    if resolved and resolved != (job.get("status") or {}).get("resolved"):
        patch["resolved"] = integral(dict(resolved))
    return patch


def progressed(job: Job, now: dt.datetime, *, percent: int, stage: str, step: int | None, steps: int | None) -> Patch:
    """Progress inside Running; percent never falls within an attempt."""
    before = (job.get("status") or {}).get("progress") or {}
    return {
        "progress": {
            "percent": max(int(before.get("percent") or 0), min(percent, 100)),
            "stage": stage,
            "step": step,
            "steps": steps,
            "lastUpdateTime": rfc3339(now),
        }
    }


def finalizing(job: Job, now: dt.datetime, delay: str | None = None) -> Patch:
    """Running -> Finalizing, inside a progress write: the engine is done and the output is being published.

    `delay`: why that waits.
    """
    message = "the output is being published and proven"
    if delay:
        message = f"the output is kept in the pod and waits to be published: {delay}"
    patch = _enter(Phase.FINALIZING, reasons.PUBLISHING, message, job, now)
    patch["progress"] = {"percent": 100, "stage": "Publish", "lastUpdateTime": rfc3339(now)}
    return patch


def ended_by_agent(
    job: Job,
    phase: Phase,
    reason: str,
    message: str,
    now: dt.datetime,
    *,
    artifacts: list[dict[str, Any]] | None = None,
    timings: Mapping[str, float] | None = None,
    gpu_seconds: float | None = None,
    failure: Mapping[str, Any] | None = None,
) -> Patch:
    """-> Succeeded with proof, -> Failed for good, or -> Cancelled."""
    patch = _enter(phase, reason, message, job, now)
    patch["completionTime"] = rfc3339(now)
    if phase == Phase.SUCCEEDED:
        patch["progress"] = {"percent": 100, "stage": "Done", "lastUpdateTime": rfc3339(now)}
        patch["artifacts"] = integral(artifacts or [])
    if timings is not None:
        patch["timings"] = integral({name: round(seconds, 3) for name, seconds in timings.items()})
    if gpu_seconds is not None:
        patch.update(spending.ended(job.get("status") or {}, gpu_seconds))
    if failure is not None:
        patch["lastFailure"] = _failure(failure, job, now)
        patch["failures"] = int((job.get("status") or {}).get("failures") or 0) + 1
    return patch


def released(
    job: Job,
    reason: str,
    now: dt.datetime,
    failure: Mapping[str, Any] | None = None,
    *,
    counts: bool = True,
    gpu_seconds: float | None = None,
) -> Patch:
    """The agent gives the attempt up; with ``failure`` it was an error and counts against backoffLimit.

    With ``counts`` off the failure is only remembered (a first silence is a disruption, a second one is not).
    ``gpu_seconds`` are added to the job's by whoever ends the attempt for good.
    """
    status = job.get("status") or {}
    patch: Patch = {"released": {"attempt": status.get("attempt") or 0, "reason": reason, "time": rfc3339(now)}}
    if gpu_seconds:
        patch["released"]["gpuSeconds"] = integral(round(gpu_seconds, 3))
    if failure is not None:
        patch["lastFailure"] = _failure(failure, job, now)
    if failure is not None and counts:
        patch["failures"] = int(status.get("failures") or 0) + 1
    return patch


def _failure(failure: Mapping[str, Any], job: Job, now: dt.datetime) -> dict[str, Any]:
    attempt = (job.get("status") or {}).get("attempt") or 0
    return {
        **failure,
        "message": clip(str(failure.get("message", ""))),
        "attempt": attempt,
        "time": rfc3339(now),
    }
