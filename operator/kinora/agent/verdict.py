"""What an attempt that did not succeed amounts to (failure, disruption, permanent, cancelled), and the write of it.

Pure (api.md, "Failure ... Disruption ... Permanent"): evidence goes in, one status patch comes out.
"""

from __future__ import annotations

import datetime as dt
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kinora.agent.stop import Stop
from kinora.api import reasons, transitions
from kinora.api.reasons import Phase
from kinora.engine.base import EngineError
from kinora.engine.supervisor_client import EngineExit

Job = Mapping[str, Any]


class Kind(StrEnum):
    """What it costs the job."""

    FAILURE = "Failure"  # counts against backoffLimit
    DISRUPTION = "Disruption"  # costs no retry
    PERMANENT = "Permanent"  # Failed at once
    CANCELLED = "Cancelled"


@dataclass(frozen=True)
class Verdict:
    """Why the attempt ends without a video. `remember` keeps a disruption's reason in lastFailure."""

    kind: Kind
    reason: str
    message: str
    node: str = ""
    exit_code: int | None = None
    remember: bool = False

    @property
    def failure(self) -> dict[str, Any]:
        """As lastFailure has it."""
        entry: dict[str, Any] = {"reason": self.reason, "message": self.message, "node": self.node[:128]}
        if self.exit_code is not None:
            entry["exitCode"] = self.exit_code
        return entry


class Refusal(Exception):  # noqa: N818 - it carries a verdict to where it is written
    """The attempt ends with this verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


def permanent(reason: str, message: str) -> Refusal:
    """No attempt will ever do better."""
    return Refusal(Verdict(Kind.PERMANENT, reason, message))


def failure(reason: str, message: str) -> Refusal:
    """This attempt failed; the next one may not."""
    return Refusal(Verdict(Kind.FAILURE, reason, message))


CANCELLED = Verdict(Kind.CANCELLED, reasons.CANCELLED, "cancelled as spec.cancel asks")
HANDED_BACK = Verdict(Kind.DISRUPTION, reasons.RELEASED_DRAIN, "handed back by a pod that is being drained")
PREEMPTED = Verdict(Kind.DISRUPTION, reasons.PREEMPTED, "stopped for a job that goes first")
INTERRUPTED = Verdict(
    Kind.DISRUPTION, reasons.RELEASED_ENGINE_KILLED, "the prompt was interrupted, and not by its agent"
)


def of_stop(why: Stop) -> Verdict:
    """What an attempt amounts to that was stopped from outside."""
    return {Stop.CANCEL: CANCELLED, Stop.PREEMPT: PREEMPTED}.get(why, HANDED_BACK)


def of_deadline(seconds: float) -> Verdict:
    """The attempt ran longer than activeDeadlineSeconds."""
    message = f"the attempt ran longer than spec.activeDeadlineSeconds ({seconds:g})"
    return Verdict(Kind.PERMANENT, reasons.ACTIVE_DEADLINE_EXCEEDED, message)


def of_engine_error(error: EngineError) -> Verdict:
    """A node of the graph failed."""
    reason = reasons.NODE_ERROR
    if error.is_oom:
        reason = reasons.OUT_OF_MEMORY
    elif error.is_cuda_fault:
        reason = reasons.CUDA_ERROR
    where = f"node {error.node_id} ({error.class_type})" if error.node_id else "the engine"
    message = f"{where}: {error.exception_type + ': ' if error.exception_type else ''}{error.message}"
    return Verdict(Kind.FAILURE, reason, message, node=error.class_type)


_KILLED = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_KILLED_CODES = frozenset(128 + number for number in _KILLED)  # engines that end in order when told to, and shells


def of_exit(ended: EngineExit | None, *, container_oom: bool = False) -> Verdict:
    """The engine ended under the attempt. None: its whole container did, and nobody saw how."""
    if container_oom or (ended is not None and ended.signal == signal.SIGKILL and ended.oom_kills > 0):
        message = "the kernel killed the engine: its container is out of memory"
        return Verdict(Kind.FAILURE, reasons.OUT_OF_MEMORY, message, exit_code=137)
    if ended is None:
        message = "the engine's container was killed"
        return Verdict(Kind.DISRUPTION, reasons.RELEASED_ENGINE_KILLED, message)
    if ended.requested or ended.signal in _KILLED or ended.exit_code in _KILLED_CODES:
        message = f"the engine was killed (signal {ended.signal or (ended.exit_code or 128) - 128})"
        return Verdict(Kind.DISRUPTION, reasons.RELEASED_ENGINE_KILLED, message)
    code = ended.exit_code if ended.exit_code is not None else 128 + (ended.signal or 0)
    how = f"exit code {ended.exit_code}" if ended.exit_code is not None else f"signal {ended.signal}"
    message = f"the engine ended while it rendered: {how}"
    return Verdict(Kind.FAILURE, reasons.ENGINE_EXITED, message, exit_code=code)


def of_silence(silence: str, job: Job) -> Verdict:
    """The engine gave no sign of life; the first time it is a disruption, the second time a failure."""
    last = (job.get("status") or {}).get("lastFailure") or {}
    if last.get("reason") == reasons.ENGINE_SILENT:
        return Verdict(Kind.FAILURE, reasons.ENGINE_SILENT, f"{silence}, for the second time")
    return Verdict(Kind.DISRUPTION, reasons.ENGINE_SILENT, silence, remember=True)


def patch(job: Job, verdict: Verdict, now: dt.datetime, gpu_seconds: float | None = None) -> dict[str, Any]:
    """The status write of the verdict: terminal, or released for the operator to queue again."""
    if verdict.kind is Kind.CANCELLED or (job.get("spec") or {}).get("cancel"):
        return transitions.ended_by_agent(
            job, Phase.CANCELLED, reasons.CANCELLED, CANCELLED.message, now, gpu_seconds=gpu_seconds
        )
    if verdict.kind is Kind.PERMANENT:
        return transitions.ended_by_agent(
            job, Phase.FAILED, verdict.reason, verdict.message, now, gpu_seconds=gpu_seconds, failure=verdict.failure
        )
    if verdict.kind is Kind.DISRUPTION:
        remembered = verdict.failure if verdict.remember else None
        reason = reasons.RELEASED_FIRST_SILENCE if verdict.reason == reasons.ENGINE_SILENT else verdict.reason
        return transitions.released(job, reason, now, remembered, counts=False, gpu_seconds=gpu_seconds)
    failures = int((job.get("status") or {}).get("failures") or 0) + 1
    limit = int((job.get("spec") or {}).get("backoffLimit", 2))
    if failures <= limit:
        return transitions.released(job, verdict.reason, now, verdict.failure, gpu_seconds=gpu_seconds)
    message = f"{verdict.reason}: {verdict.message} (failure {failures}, spec.backoffLimit {limit})"
    return transitions.ended_by_agent(
        job,
        Phase.FAILED,
        reasons.BACKOFF_LIMIT_EXCEEDED,
        message,
        now,
        gpu_seconds=gpu_seconds,
        failure=verdict.failure,
    )
