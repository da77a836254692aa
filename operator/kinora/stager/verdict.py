"""What a failed intake amounts to: refused for good, or tried again; with its reason and its message. Pure.

Messages go into status: no query of a URL (it may hold a signature), no credentials, no path of this pod.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kinora.api import reasons, transitions
from kinora.api.intake import inputs_condition
from kinora.recipes.faults import Fault

Job = Mapping[str, Any]

#: What a fault of a URL is about when the administrator's policy decides, not the file.
_POLICY = (": host", ": port", ": scheme")


class Rejected(Exception):  # noqa: N818 - a verdict
    """An input that will never do as it is."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Delayed(Exception):  # noqa: N818 - a verdict
    """An input that could not be fetched now, and may be later."""


@dataclass(frozen=True)
class Refusal:
    """InputsReady=False: the job cannot be rendered."""

    reason: str
    message: str


@dataclass(frozen=True)
class Retry:
    """Try again. `told`: the status write that says so, where it does not say so already."""

    told: dict[str, Any] | None


def of_url(fault: Fault) -> Rejected:
    """The guarded fetcher's refusal."""
    reason = reasons.INPUT_REFUSED if fault.field.endswith(_POLICY) else reasons.INVALID_INPUT
    return Rejected(reason, str(fault))


def of_faults(faults: Iterable[Fault]) -> Refusal:
    """What was found is not what the task needs."""
    return Refusal(reasons.INVALID_INPUT, "; ".join(str(fault) for fault in faults))


def of_errors(errors: Iterable[BaseException]) -> Refusal | str:
    """Of every input of a job that failed: a refusal if one is refused, else why it is tried again.

    Raises the first error that is no verdict.
    """
    found = list(errors)
    for error in found:
        if not isinstance(error, (Rejected, Delayed)):
            raise error
    rejected = [error for error in found if isinstance(error, Rejected)]
    if rejected:
        return Refusal(rejected[0].reason, "; ".join(map(str, rejected)))
    return "; ".join(map(str, found))


def retried(job: Job, message: str, now: dt.datetime, give_up_seconds: float) -> Retry | Refusal:
    """Try again, until it has failed for `give_up_seconds`; the condition remembers since when."""
    before = inputs_condition(job)
    since = before.get("lastTransitionTime") if before.get("status") == "Unknown" else None
    failing = (now - transitions.parse_time(since)).total_seconds() if since else 0.0
    if failing >= give_up_seconds:
        tried = f"tried for {failing:.0f} s, allowed are {give_up_seconds:.0f}" if since else "not tried again"
        return Refusal(reasons.INPUT_FETCH_FAILED, f"{message} ({tried})")
    patch = transitions.inputs_delayed(job, message, now)
    words = inputs_condition({"status": patch}).get("message")
    return Retry(None if since and before.get("message") == words else patch)


def pause(failures: int, first: float, longest: float) -> float:
    """Seconds before the next try, after so many that failed."""
    return float(min(first * 2 ** min(max(failures - 1, 0), 16), longest))
