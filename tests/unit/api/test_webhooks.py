"""What is undelivered, for the API server's selector and for ours, and how long it keeps its job."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest

from kinora.api.reasons import TERMINAL, Phase
from kinora.api.webhooks import UNDELIVERED, WebhookState, is_undelivered, keeps_job
from unit.gateway.webhooks.builders import ENDED, job

END = dt.datetime.fromisoformat(ENDED)


def selected(found: dict[str, Any]) -> bool:
    """What the API server does with the selector: a path that is not there is empty text."""
    webhook = found["spec"].get("webhook") or {}
    values = {
        "spec.webhook.url": webhook.get("url", ""),
        "status.webhook.state": (found["status"].get("webhook") or {}).get("state", ""),
        "status.phase": found["status"]["phase"],
    }
    terms = [term.partition("!=") for term in UNDELIVERED.split(",")]
    return all(values[path] != value for path, _, value in terms)


@pytest.mark.parametrize(
    ("phase", "state", "has_webhook"), list(itertools.product(Phase, [None, *WebhookState], [True, False]))
)
def test_the_selector_says_what_the_function_says(phase: Phase, state: str | None, has_webhook: bool) -> None:
    found = job(phase, webhook=None if state is None else {"state": str(state)})
    if not has_webhook:
        del found["spec"]["webhook"]
    wanted = has_webhook and phase in TERMINAL and state in (None, "Pending")
    assert is_undelivered(found) is wanted
    assert selected(found) is wanted


def test_an_undelivered_webhook_keeps_its_job_for_a_day_and_some() -> None:
    assert keeps_job(job(), END + dt.timedelta(hours=1))
    assert keeps_job(job(webhook={"state": "Pending"}), END + dt.timedelta(hours=26))
    assert not keeps_job(job(), END + dt.timedelta(hours=31)), "nobody delivers"
    assert not keeps_job(job(webhook={"state": "Delivered"}), END)
    assert not keeps_job(job(webhook={"state": "Failed"}), END)
    assert not keeps_job(job("Running"), END)
