"""What to do about one VideoJob besides binding it: refuse, queue, heal, give up, cancel. Pure.

While an assignment stands unreleased only the agent writes status, except for what stands in ``_assigned``: the pod is
lost, the attempt is taken back before it runs, or a verdict is overdue (api.md). Each branch yields a reason and a
message, which become the conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinora.api import reasons
from kinora.api.base import integral
from kinora.api.intake import (
    awaits_stager,
    fetched_fields,
    inputs_condition,
    is_judged_by_stager,
    is_resolved_by_stager,
    store_of,
)
from kinora.api.reasons import DISRUPTIONS, Phase
from kinora.api.transitions import (
    awaiting_inputs,
    ended_by_operator,
    is_assigned,
    is_finished,
    parse_time,
    phase_of,
    queued,
    requeued,
)
from kinora.controller.plan import NOTHING, Note, Plan
from kinora.controller.videojob.check import Accepted, Refused, Undecided
from kinora.controller.videojob.snapshot import JobSnapshot

QUEUE_AFTER = 2.0  # seconds unbound before Pending becomes Queued: a job that starts at once costs one write less
CANCEL_AFTER = 60.0  # seconds without the agent's verdict
DEADLINE_MARGIN = 60.0  # seconds behind the agent's own active deadline


def decide(snapshot: JobSnapshot) -> Plan:
    """The plan for one job."""
    if snapshot.job["metadata"].get("deletionTimestamp"):
        return NOTHING
    status = snapshot.job.get("status") or {}
    if is_finished(status):
        return NOTHING
    return _assigned(snapshot) if is_assigned(status) else _unassigned(snapshot)


def _unassigned(snapshot: JobSnapshot) -> Plan:
    spec = snapshot.job["spec"]
    if spec.get("cancel"):
        return _end(snapshot, Phase.CANCELLED, reasons.CANCELLED, "cancelled before it was bound")
    verdict = snapshot.verdict
    if isinstance(verdict, Refused):
        return _end(snapshot, Phase.FAILED, verdict.reason, verdict.message)
    inputs = inputs_condition(snapshot.job)
    if inputs.get("status") == "False":
        return _end(snapshot, Phase.FAILED, str(inputs.get("reason")), str(inputs.get("message")))
    deadline = spec.get("startDeadlineSeconds")
    left = None
    if deadline is not None and not spec.get("suspend") and not _has_run(snapshot):
        left = deadline - _waited(snapshot)
        if left <= 0:
            message = f"not started within spec.startDeadlineSeconds ({deadline}); raise it, or add server pods"
            return _end(snapshot, Phase.FAILED, reasons.START_DEADLINE_EXCEEDED, message)
    return _wait(snapshot, verdict, left)


def _wait(snapshot: JobSnapshot, verdict: Accepted | Undecided, deadline_left: float | None) -> Plan:
    """Keep the job in the queue, with the reason why it is not bound."""
    status = snapshot.job.get("status") or {}
    awaits, is_new = awaits_stager(snapshot.job), snapshot.seen_seconds < QUEUE_AFTER
    if phase_of(status) == Phase.PENDING and is_new and not (awaits and _is_told_to_stager(snapshot.job)):
        return Plan(requeue_after=QUEUE_AFTER - snapshot.seen_seconds)
    if awaits:
        return _await_inputs(snapshot, verdict, deadline_left)
    if snapshot.job["spec"].get("suspend"):
        reason, message = reasons.SUSPENDED, "spec.suspend is true; set it to false to go on"
    elif isinstance(verdict, Undecided):
        reason, message = verdict.reason, verdict.message
    elif not snapshot.has_server:
        reason, message = reasons.NO_MODEL_SERVER, f"no ModelServer in the namespace serves {verdict.model}"
    elif not snapshot.intake.store_served:
        store = store_of(snapshot.job)
        message = f"the job's inputs are in {store}, which no ModelServer that serves {verdict.model} uses"
        reason = reasons.NO_MODEL_SERVER
    elif snapshot.preset_lacks:
        reason = reasons.NO_PRESET_WEIGHTS
        message = f"no server pod has the files of preset {verdict.preset}: {snapshot.preset_lacks}"
    elif snapshot.only_spot:
        reason = reasons.ONLY_SPOT
        message = f"{snapshot.only_spot}; add a pool of capacity OnDemand or Reserved to a ModelServer that serves it"
    else:
        reason, message = reasons.WAITING_FOR_SERVER, "every server pod of the model is busy or not ready"
    if phase_of(status) == Phase.QUEUED and _same_wait(status.get("reason"), reason):
        return Plan(requeue_after=deadline_left)
    resolved = None
    if isinstance(verdict, Accepted) and _is_to_resolve(snapshot.job, verdict):
        resolved = verdict.resolved
    return Plan(
        status=queued(snapshot.job, reason, message, snapshot.now, resolved=resolved), requeue_after=deadline_left
    )


def _is_to_resolve(job: Mapping[str, Any], verdict: Accepted) -> bool:
    """Whether `status.resolved` is still the operator's to write: what a stager resolved rests on the inputs."""
    if is_resolved_by_stager(job):
        return False
    return bool((job.get("status") or {}).get("resolved") != integral(dict(verdict.resolved)))


def _await_inputs(snapshot: JobSnapshot, verdict: Accepted | Undecided, deadline_left: float | None) -> Plan:
    """Keep the job Pending: nothing is queued, counted or scaled for before its inputs are known.

    Of a raw workflow whose graph the operator reads, it is told here what was decided of it and which store it goes to.
    """
    status, intake = snapshot.job.get("status") or {}, snapshot.intake
    fields = ", ".join(fetched_fields(snapshot.job["spec"]))
    told: dict[str, Any] = {}
    if isinstance(verdict, Accepted) and _is_told_to_stager(snapshot.job) and intake.store:
        told = {"inputStore": intake.store, "resolved": integral(dict(verdict.resolved))}
    if isinstance(verdict, Undecided):
        reason, message = verdict.reason, verdict.message
    elif not intake.stager:
        message = f"no ModelServer in the namespace serves {verdict.model} and has a store to fetch {fields} into"
        reason = reasons.NO_MODEL_SERVER
    elif not intake.stager_ready:
        reason, message = reasons.STAGER_NOT_READY, f"no pod of Deployment {intake.stager} is ready to fetch {fields}"
    else:
        reason, message = reasons.FETCHING_INPUTS, f"{intake.stager} fetches and looks at {fields}"
    is_told = all(status.get(name) == value for name, value in told.items())
    if status.get("reason") == reason and phase_of(status) == Phase.PENDING and is_told:
        return Plan(requeue_after=deadline_left)
    patch = awaiting_inputs(snapshot.job, reason, message, snapshot.now)
    return Plan(status={**patch, **told}, requeue_after=deadline_left)


def _is_told_to_stager(job: Mapping[str, Any]) -> bool:
    """Whether a stager waits for what the operator decides: of a raw graph that no stager reads."""
    return bool(job["spec"].get("workflow")) and not is_judged_by_stager(job)


def _same_wait(old: str | None, new: str) -> bool:
    """A job that waits after a retry or a disruption keeps that reason: it is the more telling one."""
    if new == reasons.WAITING_FOR_SERVER:
        return old in {
            reasons.WAITING_FOR_SERVER,
            reasons.RETRY,
            reasons.DISRUPTED,
            reasons.TAKEN_BACK,
            reasons.PREEMPTED,
        }
    return old == new


def _assigned(snapshot: JobSnapshot) -> Plan:
    status = snapshot.job.get("status") or {}
    spec = snapshot.job["spec"]
    released = status.get("released") or {}
    if released and released.get("attempt") == status.get("attempt"):
        return _after_release(snapshot, str(released.get("reason", "")))
    lost = snapshot.pod.lost(snapshot.now)
    if lost:
        return _disrupted(snapshot, f"attempt {status.get('attempt')} on {status['assignment']['podName']}: {lost}")
    if spec.get("cancel"):
        left = CANCEL_AFTER - snapshot.cancel_seconds
        if left > 0:
            return _look_again(snapshot, left)
        message = f"cancelled; the agent of {status['assignment']['podName']} gave no verdict in {CANCEL_AFTER:.0f} s"
        return _end(snapshot, Phase.CANCELLED, reasons.CANCELLED, message)
    if phase_of(status) == Phase.SCHEDULED:
        if spec.get("suspend"):
            return _take_back(snapshot, "suspended before it ran")
        if snapshot.surplus:
            return _take_back(snapshot, "its pod holds two other jobs that go first")
        return _look_again(snapshot)
    deadline = float(spec.get("activeDeadlineSeconds", 7200)) + DEADLINE_MARGIN
    if snapshot.running_seconds < deadline:
        return _look_again(snapshot, deadline - snapshot.running_seconds)
    message = f"ran longer than spec.activeDeadlineSeconds ({spec.get('activeDeadlineSeconds', 7200)})"
    return _end(snapshot, Phase.FAILED, reasons.ACTIVE_DEADLINE_EXCEEDED, message)


def _look_again(snapshot: JobSnapshot, left: float | None = None) -> Plan:
    """Nothing now; look again when the time left is over, or when the pod will count as lost."""
    due = [seconds for seconds in (left, snapshot.pod.next_look(snapshot.now)) if seconds is not None]
    return Plan(requeue_after=min(due)) if due else NOTHING


def _after_release(snapshot: JobSnapshot, reason: str) -> Plan:
    status = snapshot.job.get("status") or {}
    if snapshot.job["spec"].get("cancel"):
        return _end(snapshot, Phase.CANCELLED, reasons.CANCELLED, "cancelled; its attempt had been given up")
    if reason == reasons.PREEMPTED:
        message = f"attempt {status.get('attempt')} was stopped for a job that goes first"
        patch = requeued(snapshot.job, reasons.PREEMPTED, message, snapshot.now, disruption=False)
        return Plan(status=patch, notes=(Note("Normal", reasons.PREEMPTED, message, "Requeue"),))
    if reason in DISRUPTIONS:
        return _disrupted(snapshot, f"attempt {status.get('attempt')} was given up: {reason}")
    failures = int(status.get("failures") or 0)
    limit = int(snapshot.job["spec"].get("backoffLimit", 2))
    last = status.get("lastFailure") or {}
    told = f"{last.get('reason', reason)}: {last.get('message', '')}".rstrip(": ")
    if failures > limit:
        message = f"{failures} attempts failed, allowed by spec.backoffLimit: {limit}; the last one: {told}"
        return _end(snapshot, Phase.FAILED, reasons.BACKOFF_LIMIT_EXCEEDED, message)
    message = f"attempt {status.get('attempt')} failed ({failures} of {limit} retries): {told}"
    return Plan(
        status=requeued(snapshot.job, reasons.RETRY, message, snapshot.now, disruption=False),
        notes=(Note("Warning", reasons.RETRY, message, "Requeue"),),
    )


def _disrupted(snapshot: JobSnapshot, message: str) -> Plan:
    """A lost attempt costs no retry; only one that ran counts against disruptionLimit."""
    status = snapshot.job.get("status") or {}
    ran = phase_of(status) in {Phase.RUNNING, Phase.FINALIZING}
    count = int(status.get("disruptions") or 0) + (1 if ran else 0)
    limit = int(snapshot.job["spec"].get("disruptionLimit", 6))
    if snapshot.job["spec"].get("cancel"):
        return _end(snapshot, Phase.CANCELLED, reasons.CANCELLED, f"cancelled; {message}")
    if count > limit:
        told = f"{count} attempts were lost, allowed by spec.disruptionLimit: {limit}; the last one: {message}"
        return _end(snapshot, Phase.FAILED, reasons.DISRUPTION_LIMIT_EXCEEDED, told)
    return Plan(
        status=requeued(snapshot.job, reasons.DISRUPTED, message, snapshot.now, disruption=ran),
        notes=(Note("Warning", reasons.DISRUPTED, message, "Requeue"),),
    )


def _take_back(snapshot: JobSnapshot, message: str) -> Plan:
    """Neither failure nor disruption; only from Scheduled, and the compare-and-set loses against a start."""
    return Plan(status=requeued(snapshot.job, reasons.TAKEN_BACK, message, snapshot.now, disruption=False))


def _end(snapshot: JobSnapshot, phase: Phase, reason: str, message: str) -> Plan:
    status = ended_by_operator(snapshot.job, phase, reason, message, snapshot.now)
    return Plan(status=status, notes=(end_note(status),))


def end_note(status: Mapping[str, Any]) -> Note:
    """The event of a job that did not succeed."""
    kind = "Normal" if phase_of(status) == Phase.CANCELLED else "Warning"
    return Note(kind, str(status.get("reason") or "Unknown"), str(status.get("message") or ""), "Finish")


def _has_run(snapshot: JobSnapshot) -> bool:
    status = snapshot.job.get("status") or {}
    return bool(status.get("startTime") or status.get("failures") or status.get("disruptions"))


def _waited(snapshot: JobSnapshot) -> float:
    created = parse_time(snapshot.job["metadata"]["creationTimestamp"])
    return (snapshot.now - created).total_seconds() - snapshot.suspended_seconds
