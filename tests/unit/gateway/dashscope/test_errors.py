"""The gateway's errors and failed jobs in DashScope's codes."""

from __future__ import annotations

import pytest

from kinora.api import reasons
from kinora.gateway.dashscope.errors import NotPending, Synchronous, failure, problem
from kinora.gateway.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    InvalidInput,
    KeyReused,
    Limited,
    ModelNotFound,
    NotAllowed,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidInput("input.prompt", "no"), 400, "InvalidParameter"),
        (ModelNotFound("model", "no"), 404, "Model.NotExist"),
        (Unauthorized("no"), 401, "InvalidApiKey"),
        (Forbidden("no"), 403, "AccessDenied"),
        (Synchronous(), 403, "AccessDenied"),
        (NotPending(), 400, "UnsupportedOperation"),
        (NotFound("no"), 404, "NotFound"),
        (NotAllowed("no"), 405, "InvalidParameter"),
        (Conflict("no"), 409, "InvalidParameter"),
        (TooLarge("no"), 413, "RequestTooLarge"),
        (KeyReused("no"), 422, "InvalidParameter"),
        (Limited("60 a minute", 1.0), 429, "Throttling.RateQuota"),
        (Limited("10 jobs", 1.0, rate=False), 429, "Throttling.AllocationQuota"),
        (Unavailable("no"), 503, "ServiceUnavailable"),
        (GatewayError("no"), 500, "InternalError"),
    ],
)
def test_every_error_has_its_status_and_code(error: GatewayError, status: int, code: str) -> None:
    found = problem(error)
    assert (found.status, found.code) == (status, code)
    assert found.message


def test_fixed_messages_are_those_of_the_service() -> None:
    assert problem(Synchronous()).message == "current user api does not support synchronous calls."
    cancel = "Failed to cancel the task, please confirm if the task is in PENDING status."
    assert problem(NotPending()).message == cancel
    rate = problem(Limited("more than 60 submits a minute", 1.0)).message
    assert rate == "Requests rate limit exceeded, please try again later. (more than 60 submits a minute)"
    quota = problem(Limited("10 jobs are unfinished", 1.0, rate=False)).message
    assert quota.startswith("Allocated quota exceeded, please increase your quota limit.")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (reasons.INVALID_INPUT, "InvalidParameter"),
        (reasons.INPUT_REFUSED, "InvalidParameter"),
        (reasons.INPUT_FETCH_FAILED, "InvalidParameter"),
        (reasons.START_DEADLINE_EXCEEDED, "InternalError.Timeout"),
        (reasons.ACTIVE_DEADLINE_EXCEEDED, "InternalError.Timeout"),
        (reasons.NODE_ERROR, "InternalError"),
        (reasons.OUT_OF_MEMORY, "InternalError"),
        (reasons.BACKOFF_LIMIT_EXCEEDED, "InternalError"),
        ("SomethingNew", "InternalError"),
        ("", "InternalError"),
    ],
)
def test_a_failure_is_the_caller_s_or_ours(reason: str, code: str) -> None:
    assert failure(reason, "words") == (code, "words")
    assert failure(reason, "")[1].startswith("the task failed")
