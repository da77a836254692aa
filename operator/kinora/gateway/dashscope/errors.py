"""Errors in DashScope's words: the gateway's errors -> HTTP status, code, message; a failed job -> output.code. Pure.

Codes and fixed messages are those of the service's error table, since clients compare them. Content is never inspected
here, so that DataInspectionFailed is never answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kinora.api import reasons
from kinora.gateway.errors import (
    Forbidden,
    GatewayError,
    InvalidInput,
    KeyReused,
    Limited,
    ModelNotFound,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)

INVALID_PARAMETER: Final = "InvalidParameter"
INTERNAL_ERROR: Final = "InternalError"
_TIMEOUT: Final = "InternalError.Timeout"

SYNCHRONOUS: Final = "current user api does not support synchronous calls."
NOT_PENDING: Final = "Failed to cancel the task, please confirm if the task is in PENDING status."


class Synchronous(Forbidden):
    """A submit without `X-DashScope-Async: enable`."""

    def __init__(self) -> None:
        super().__init__(SYNCHRONOUS)


class NotPending(GatewayError):  # noqa: N818 - a verdict, named as callers know it
    """A task that is to be cancelled and has begun, or ended."""

    status = 400

    def __init__(self) -> None:
        super().__init__(NOT_PENDING)


@dataclass(frozen=True, slots=True)
class Problem:
    """One error as it is answered."""

    status: int
    code: str
    message: str


def problem(error: GatewayError) -> Problem:
    """The HTTP status, `code` and `message` of a refused request."""
    status = 404 if isinstance(error, ModelNotFound) else error.status
    return Problem(status, _code(error), _message(error))


def _code(error: GatewayError) -> str:
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, Limited):
        return "Throttling.RateQuota" if error.rate else "Throttling.AllocationQuota"
    return INVALID_PARAMETER if error.status < 500 else INTERNAL_ERROR


def _message(error: GatewayError) -> str:
    if not isinstance(error, Limited):
        return error.message
    fixed = (
        "Requests rate limit exceeded, please try again later."
        if error.rate
        else "Allocated quota exceeded, please increase your quota limit."
    )
    return f"{fixed} ({error.message})"


_CODES: Final[tuple[tuple[type[GatewayError], str], ...]] = (
    (NotPending, "UnsupportedOperation"),
    (ModelNotFound, "Model.NotExist"),
    (InvalidInput, INVALID_PARAMETER),
    (Unauthorized, "InvalidApiKey"),
    (Forbidden, "AccessDenied"),
    (NotFound, "NotFound"),
    (TooLarge, "RequestTooLarge"),
    (KeyReused, INVALID_PARAMETER),
    (Unavailable, "ServiceUnavailable"),
)

#: Reasons of a failed job that are the caller's to mend.
_CALLERS: Final = frozenset(
    {
        reasons.INVALID_SPEC,
        reasons.NOT_IMPLEMENTED,
        reasons.INVALID_INPUT,
        reasons.INPUT_REFUSED,
        reasons.INPUT_FETCH_FAILED,
        reasons.GRAPH_REFUSED,
    }
)
_LATE: Final = frozenset({reasons.START_DEADLINE_EXCEEDED, reasons.ACTIVE_DEADLINE_EXCEEDED, reasons.ENGINE_SILENT})


def failure(reason: str, message: str) -> tuple[str, str]:
    """`output.code` and `output.message` of a failed task, from `status.reason` and `status.message`."""
    code = INVALID_PARAMETER if reason in _CALLERS else _TIMEOUT if reason in _LATE else INTERNAL_ERROR
    return code, message or f"the task failed: {reason or 'no reason is known'}"
