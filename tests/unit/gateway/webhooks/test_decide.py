"""When a webhook is sent, and what is said of it: the rules, and what holds whatever is stored."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.api.transitions import parse_time, rfc3339
from kinora.gateway.webhooks.decide import (
    PAUSES,
    Answered,
    Deliver,
    Done,
    Outcome,
    Unanswered,
    Unsigned,
    Unusable,
    Wait,
    decide,
    judge,
    pause,
    webhook_id,
)
from unit.gateway.webhooks.builders import ENDED, NOW, UID, job

DAY = dt.timedelta(days=1)
SECRET_GONE = Unsigned("SecretNotFound", "no Secret hooks in namespace films")


def later(**kwargs: float) -> str:
    return rfc3339(NOW + dt.timedelta(**kwargs))


# --- when


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Cancelled"])
def test_the_end_of_a_job_is_told_at_once(phase: str) -> None:
    assert decide(job(phase), NOW) == Deliver(1)


@pytest.mark.parametrize("phase", ["Pending", "Queued", "Scheduled", "Running", "Finalizing", "Unheard"])
def test_nothing_is_told_of_a_job_that_goes_on(phase: str) -> None:
    assert decide(job(phase), NOW) == Done()


@pytest.mark.parametrize("state", ["Delivered", "Failed"])
def test_what_is_settled_stays_so(state: str) -> None:
    assert decide(job(webhook={"state": state, "attempts": 1}), NOW) == Done()


def test_a_job_without_a_webhook_has_nothing_to_tell() -> None:
    found = job()
    del found["spec"]["webhook"]
    assert decide(found, NOW) == Done()


def test_an_attempt_waits_for_its_time_and_comes_then() -> None:
    waiting = job(webhook={"state": "Pending", "attempts": 2, "nextAttemptTime": later(minutes=5)})
    assert decide(waiting, NOW) == Wait(NOW + dt.timedelta(minutes=5))
    assert decide(waiting, NOW + dt.timedelta(minutes=5)) == Deliver(3)


def test_a_time_from_a_clock_that_was_wrong_holds_nothing_for_more_than_a_day() -> None:
    assert decide(job(webhook={"state": "Pending", "nextAttemptTime": later(days=900)}), NOW) == Wait(NOW + DAY)


def test_an_end_that_nobody_told_of_for_a_week_is_told_still() -> None:
    assert decide(job(), NOW + 7 * DAY) == Deliver(1)


def test_the_id_is_the_jobs_and_the_same_for_whoever_asks() -> None:
    assert webhook_id(job()) == webhook_id(job(webhook={"state": "Pending", "attempts": 5})) == f"msg_{UID}"


# --- what then


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivery(code: int) -> None:
    before = job(webhook={"state": "Pending", "attempts": 1, "nextAttemptTime": ENDED, "reason": "NoAnswer"})
    verdict = judge(before, Answered(code), NOW)
    assert verdict.status == {
        "state": "Delivered", "attempts": 2, "nextAttemptTime": None, "responseCode": code, "reason": None,
        "message": None,
    }  # fmt: skip
    assert (verdict.event, verdict.again) == (None, None)


def test_410_ends_it() -> None:
    verdict = judge(job(), Answered(410), NOW)
    assert (verdict.status["state"], verdict.status["reason"]) == ("Failed", "Gone")
    assert (verdict.event, verdict.again) == ("WebhookGivenUp", None)


def test_a_url_that_can_never_be_sent_to_is_given_up_at_once() -> None:
    verdict = judge(job(), Unusable("spec.webhook.url: host is 127.1; allowed: four numbers"), NOW)
    assert (verdict.status["state"], verdict.status["reason"]) == ("Failed", "InvalidURL")
    assert "127.1" in verdict.status["message"]
    assert verdict.event == "WebhookGivenUp"


@pytest.mark.parametrize("code", [100, 301, 302, 308, 400, 401, 404, 429, 500, 503])
def test_every_other_answer_is_tried_again_and_said(code: int) -> None:
    verdict = judge(job(), Answered(code), NOW)
    assert verdict.status["state"] == "Pending"
    assert (verdict.status["attempts"], verdict.status["responseCode"]) == (1, code)
    assert f"answered {code}; allowed: 200 to 299" in verdict.status["message"]
    assert ("redirects are not followed" in verdict.status["message"]) == (300 <= code < 400)
    assert verdict.event is None, "a first failure is no news"
    assert verdict.again is not None
    assert verdict.status["nextAttemptTime"] == rfc3339(verdict.again)


def test_the_pauses_grow_over_a_day_and_then_it_is_given_up() -> None:
    found, now, codes = job(), NOW, 0
    while isinstance(decide(found, now), Deliver):
        verdict = judge(found, Answered(500), now)
        found["status"]["webhook"] = verdict.status
        codes += 1
        if verdict.again is None:
            break
        now = verdict.again + dt.timedelta(milliseconds=1)  # what is written has milliseconds
    assert codes == len(PAUSES) + 1 == 8
    assert found["status"]["webhook"]["state"] == "Failed"
    assert found["status"]["webhook"]["reason"] == "AnsweredWithError"
    assert 0.9 * DAY <= now - NOW <= 1.1 * DAY
    assert verdict.event == "WebhookGivenUp"


@pytest.mark.parametrize(
    ("code", "asked", "attempts", "waits"),
    [(429, 3600, 0, 3600), (503, 3600, 0, 3600), (500, 3600, 0, 5), (429, 0, 0, 5), (429, None, 0, 5),
     (429, 10, 1, 300), (503, 10**9, 0, 86400)],
)  # fmt: skip
def test_retry_after_is_honoured_where_it_asks_for_more(
    code: int, asked: float | None, attempts: int, waits: float
) -> None:
    verdict = judge(job(webhook={"state": "Pending", "attempts": attempts}), Answered(code, asked), NOW)
    assert verdict.again is not None
    assert (verdict.again - NOW).total_seconds() == pytest.approx(waits, rel=0.11)


def test_a_refused_destination_is_told_by_an_event_once_and_tried_again() -> None:
    refused = Unanswered("spec.webhook.url: host is 10.0.0.1 (private); allowed: public", "DestinationRefused")
    first = judge(job(), refused, NOW)
    assert first.event == "WebhookBlocked"
    assert first.status["reason"] == "DestinationRefused"
    assert judge(job(webhook=first.status), refused, NOW).event is None


# --- Secrets


def test_what_cannot_be_signed_is_no_attempt_is_said_once_and_looked_at_again_soon() -> None:
    first = judge(job(), SECRET_GONE, NOW)
    assert first.status["state"] == "Pending"
    assert (first.status["attempts"], first.status["reason"]) == (0, "SecretNotFound")
    assert first.event == "WebhookBlocked"
    assert first.again == NOW + dt.timedelta(seconds=30)
    stored = {name: value for name, value in first.status.items() if value is not None}
    second = judge(job(webhook=stored), SECRET_GONE, NOW)
    assert (second.status, second.event) == ({}, None), "nothing new is written"
    assert second.again == first.again
    assert decide(job(webhook=stored), NOW) == Deliver(1)


def test_another_trouble_with_the_secret_is_told_anew() -> None:
    stored = {"state": "Pending", "attempts": 3, "responseCode": 500, "reason": "SecretNotFound", "message": "x"}
    verdict = judge(job(webhook=stored), Unsigned("SecretNotLabelled", "y"), NOW)
    assert (verdict.status["attempts"], verdict.status["responseCode"]) == (3, 500)
    assert verdict.event == "WebhookBlocked"


def test_a_secret_that_stays_away_for_a_day_ends_it() -> None:
    verdict = judge(job(), SECRET_GONE, NOW + DAY)
    assert (verdict.status["state"], verdict.status["reason"]) == ("Failed", "SecretNotFound")
    assert verdict.event == "WebhookGivenUp"


# --- whatever is stored, whatever happens

TIMES = st.sampled_from([None, "", "soon", ENDED, "2026-05-01T12:00:00", later(hours=3), "0001-01-01T00:00:00Z"])
STORED = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["Pending", "Delivered", "Failed", "Paused", ""]),
        "attempts": st.sampled_from([None, -3, 0, 1, 5, 7, 8, 2**40, "2"]),
        "nextAttemptTime": TIMES,
        "responseCode": st.sampled_from([None, 500]),
        "reason": st.sampled_from([None, "SecretNotFound", "DestinationRefused"]),
    },
)
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Answered, st.integers(100, 999), st.none() | st.floats(0, 1e12)),
    st.builds(Unanswered, st.text(max_size=2000)),
    st.builds(Unusable, st.text(max_size=2000)),
    st.builds(Unsigned, st.just("SecretNotFound"), st.text(max_size=2000)),
)
NOWS = st.integers(0, 3 * 86400).map(lambda seconds: NOW + dt.timedelta(seconds=seconds))


@given(STORED, NOWS)
def test_a_decision_is_made_of_any_status_and_never_waits_over_a_day(stored: dict[str, Any], now: dt.datetime) -> None:
    decision = decide(job(webhook=stored), now)
    assert isinstance(decision, Done) == (stored.get("state") in ("Delivered", "Failed"))
    if isinstance(decision, Wait):
        assert now < decision.until <= now + DAY


@given(STORED, OUTCOMES, NOWS)
def test_a_verdict_ends_or_comes_again_and_what_is_written_reads_the_same(
    stored: dict[str, Any], outcome: Outcome, now: dt.datetime
) -> None:
    verdict = judge(job(webhook=stored), outcome, now)
    assert verdict.again is None or now < verdict.again <= now + DAY
    if not verdict.status:
        assert isinstance(outcome, Unsigned)
        assert verdict.again is not None
        return
    settled = verdict.status["state"] in ("Delivered", "Failed")
    assert settled == (verdict.again is None)
    assert (verdict.event == "WebhookGivenUp") == (verdict.status["state"] == "Failed")
    assert len((verdict.status["message"] or "").encode()) <= 256
    after = decide(job(webhook=verdict.status), now)
    if settled:
        assert after == Done()
    elif verdict.status["nextAttemptTime"]:
        assert after == Wait(parse_time(verdict.status["nextAttemptTime"]))
    else:
        assert isinstance(after, Deliver), "what was not sent for want of a key is due"


@given(st.uuids(), st.integers(1, 12))
def test_pauses_are_drawn_from_the_job_and_spread_by_a_tenth(uid: Any, attempts: int) -> None:
    found = pause(str(uid), attempts)
    assert found == pause(str(uid), attempts)
    if attempts > len(PAUSES):
        assert found is None
    else:
        assert found is not None
        assert 0.9 * PAUSES[attempts - 1] <= found <= 1.1 * PAUSES[attempts - 1]
