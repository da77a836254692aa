"""What a queue has used: fading, of the last day, and the same after a restart."""

from __future__ import annotations

import pytest

from kinora.controller.scheduling.ledger import HALF_LIFE, HOUR, Ledger

NOON = 500_000 * HOUR


def test_gpu_seconds_fade_by_half_in_six_hours() -> None:
    ledger = Ledger()
    ledger.charge("a", NOON, gpu_seconds=100)
    assert ledger.usage("a", NOON).gpu_seconds == pytest.approx(100)
    assert ledger.usage("a", NOON + HALF_LIFE).gpu_seconds == pytest.approx(50)


def test_video_counts_for_a_day() -> None:
    ledger = Ledger()
    ledger.charge("a", NOON, video_seconds=30)
    assert ledger.usage("a", NOON + 23 * HOUR).video_seconds == 30
    assert ledger.usage("a", NOON + 24 * HOUR).video_seconds == 0


def test_an_estimate_that_was_too_high_is_given_back() -> None:
    ledger = Ledger()
    ledger.charge("a", NOON, gpu_seconds=100)
    ledger.charge("a", NOON, gpu_seconds=-40)
    assert ledger.usage("a", NOON, running=2).gpu_seconds == pytest.approx(60)
    ledger.charge("a", NOON, gpu_seconds=-400)
    assert ledger.usage("a", NOON).gpu_seconds == 0


def test_it_reads_what_it_wrote_and_nothing_else() -> None:
    ledger = Ledger()
    ledger.charge("a", NOON, gpu_seconds=100, video_seconds=5)
    ledger.charge("b", NOON + HOUR, gpu_seconds=7)
    again = Ledger.from_text(ledger.to_text())
    assert again.hours == ledger.hours
    assert not again.changed
    for text in ("", "[]", '{"a": 1}', '{"a": {"x": [1, 2]}}', '{"a": {"1": [1]}}'):
        with pytest.raises(ValueError, match="ledger"):
            Ledger.from_text(text)


def test_old_hours_are_dropped() -> None:
    ledger = Ledger()
    ledger.charge("a", NOON, gpu_seconds=1)
    ledger.prune(NOON + 47 * HOUR)
    assert ledger.hours
    ledger.prune(NOON + 48 * HOUR)
    assert not ledger.hours
