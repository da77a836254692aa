"""When a webhook is sent, and what is said of it afterwards. Pure: no I/O, clock or randomness.

All that is remembered from one attempt to the next is `status.webhook` of the job, so that any replica goes on where
another stopped. The pauses are those of the Standard Webhooks specification, cut at a day.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kinora.api import webhooks
from kinora.api.transitions import clip, parse_time, rfc3339
from kinora.api.webhooks import DELIVERY_SECONDS, WebhookState, is_undelivered

Object = Mapping[str, Any]

#: Seconds after the first, second, ... attempt. The last one fills the day.
PAUSES: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 23095.0)
JITTER: Final = 0.1  # a pause is this part shorter or longer at most
SECRET_SECONDS: Final = 30.0  # between two looks at a Secret that cannot be used
_MESSAGE_LIMIT: Final = 256  # bytes of status.webhook.message
_DAY: Final = dt.timedelta(seconds=DELIVERY_SECONDS)


@dataclass(frozen=True)
class Deliver:
    """Send it now; `attempt` counts from 1."""

    attempt: int


@dataclass(frozen=True)
class Wait:
    """Not before then."""

    until: dt.datetime


@dataclass(frozen=True)
class Done:
    """Nothing is to be sent, now or later."""


Decision = Deliver | Wait | Done


@dataclass(frozen=True)
class Answered:
    """The receiver answered with this status; `retry_after`: seconds that it asked for."""

    code: int
    retry_after: float | None = None


@dataclass(frozen=True)
class Unanswered:
    """It was sent, or tried to be, and no answer came; or the guard did not let it go (`reason`)."""

    message: str
    reason: str = webhooks.NO_ANSWER


@dataclass(frozen=True)
class Unusable:
    """The URL can never be sent to."""

    message: str


@dataclass(frozen=True)
class Unsigned:
    """It cannot be signed (yet), and was not sent: this is no attempt."""

    reason: str
    message: str


Outcome = Answered | Unanswered | Unusable | Unsigned


@dataclass(frozen=True)
class Verdict:
    """What is to be written of an outcome: `status` is a merge patch of status.webhook, empty where nothing changed.

    `event` is the reason of an event that goes with it; None: none. `again` is when to look again; None: never.
    """

    status: dict[str, Any]
    event: str | None
    again: dt.datetime | None


def webhook_id(job: Object) -> str:
    """The id by which a receiver knows what it has seen already: the same in every attempt, of every replica."""
    return f"msg_{job['metadata']['uid']}"


def decide(job: Object, now: dt.datetime) -> Decision:
    """What to do about the job's webhook now."""
    if not is_undelivered(job):
        return Done()
    until = not_before(due_time(job), now)
    return Deliver(_attempts(_told(job)) + 1) if until is None else Wait(until)


def due_time(job: Object) -> dt.datetime | None:
    """When the next attempt of an undelivered webhook is due, as it is written; None: at once."""
    after = _told(job).get("nextAttemptTime")
    return _moment(after) if after else None


def not_before(due: dt.datetime | None, now: dt.datetime) -> dt.datetime | None:
    """Until when to wait for it; None: it is due. Whatever a clock that was wrong has written: no longer than a day."""
    return None if due is None or due <= now else min(due, now + _DAY)


@dataclass(frozen=True)
class _Miss:
    """An attempt that reached nobody who took it; `wait`: seconds that were asked for."""

    reason: str
    message: str
    code: int | None = None
    wait: float = 0.0


def judge(job: Object, outcome: Outcome, now: dt.datetime) -> Verdict:
    """What becomes of the webhook of an undelivered job after this."""
    told = _told(job)
    if isinstance(outcome, Unsigned):
        return _unsigned(job, told, outcome, now)
    attempts = _attempts(told) + 1
    if isinstance(outcome, Unusable):
        return _failed(attempts, _Miss(webhooks.INVALID_URL, outcome.message))
    if isinstance(outcome, Unanswered):
        return _missed(job, attempts, _Miss(outcome.reason, outcome.message), now)
    code = outcome.code
    if 200 <= code < 300:
        return Verdict(_status(WebhookState.DELIVERED, attempts, code), None, None)
    if code == 410:
        return _failed(attempts, _Miss(webhooks.GONE, "the receiver answered 410: it wants no more of them", code))
    message = f"the receiver answered {code}; allowed: 200 to 299"
    if 300 <= code < 400:
        message += "; redirects are not followed"
    wait = outcome.retry_after or 0.0 if code in (429, 503) else 0.0
    return _missed(job, attempts, _Miss(webhooks.ANSWERED_WITH_ERROR, message, code, wait), now)


def pause(uid: str, attempts: int) -> float | None:
    """Seconds between that attempt of that job and the next; None: there is no next.

    What spreads the attempts of many jobs is drawn from the job's uid, so that it is the same for whoever asks.
    """
    if attempts > len(PAUSES):
        return None
    drawn = hashlib.sha256(f"{uid}/{attempts}".encode()).digest()
    part = int.from_bytes(drawn[:4]) / 2**32  # 0 to 1
    return PAUSES[attempts - 1] * (1 - JITTER + 2 * JITTER * part)


def _unsigned(job: Object, told: Object, outcome: Unsigned, now: dt.datetime) -> Verdict:
    ended = (job.get("status") or {}).get("completionTime")
    attempts, code = _attempts(told), told.get("responseCode")
    end = _moment(ended) if ended else None
    if end is not None and now - end >= _DAY:
        return _failed(attempts, _Miss(outcome.reason, outcome.message, code))
    status = _status(WebhookState.PENDING, attempts, code, outcome.reason, outcome.message)
    again = now + dt.timedelta(seconds=SECRET_SECONDS)
    if all(told.get(name) == value for name, value in status.items()):
        return Verdict({}, None, again)
    new = told.get("reason") != outcome.reason
    return Verdict(status, webhooks.EVENT_BLOCKED if new else None, again)


def _missed(job: Object, attempts: int, miss: _Miss, now: dt.datetime) -> Verdict:
    seconds = pause(job["metadata"]["uid"], attempts)
    if seconds is None:
        return _failed(attempts, miss)
    again = now + dt.timedelta(seconds=min(max(seconds, miss.wait), DELIVERY_SECONDS))
    status = _status(WebhookState.PENDING, attempts, miss.code, miss.reason, miss.message)
    status["nextAttemptTime"] = rfc3339(again)
    blocked = miss.reason == webhooks.DESTINATION_REFUSED and _told(job).get("reason") != miss.reason
    return Verdict(status, webhooks.EVENT_BLOCKED if blocked else None, again)


def _failed(attempts: int, miss: _Miss) -> Verdict:
    status = _status(WebhookState.FAILED, attempts, miss.code, miss.reason, miss.message)
    return Verdict(status, webhooks.EVENT_GIVEN_UP, None)


def _status(
    state: WebhookState, attempts: int, code: int | None, reason: str | None = None, message: str | None = None
) -> dict[str, Any]:
    """Every field of status.webhook, so that nothing of an attempt before stays; None removes."""
    return {
        "state": str(state),
        "attempts": attempts,
        "nextAttemptTime": None,
        "responseCode": code,
        "reason": reason,
        "message": None if message is None else clip(message, _MESSAGE_LIMIT),
    }


def _told(job: Object) -> Object:
    told: Object = (job.get("status") or {}).get("webhook") or {}
    return told


def _attempts(told: Object) -> int:
    attempts = told.get("attempts")
    return attempts if isinstance(attempts, int) and attempts > 0 else 0


def _moment(text: object) -> dt.datetime | None:
    """A stored time; None: it cannot be read."""
    try:
        found = parse_time(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
