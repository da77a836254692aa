"""What is learnt of how long jobs take: quickly, and not from outliers."""

from __future__ import annotations

import random

import pytest

from kinora.controller.scheduling.cost import KEEP, Learnt, Sample, fit, remaining
from kinora.controller.scheduling.facts import Rate

PRIOR = Rate(10.0, 1e-4)
TRUE = Rate(20.0, 3e-4)
WORKS = (200_000.0, 650_000.0, 1_000_000.0)


def samples(count: int, seed: int = 1, outliers: int = 0) -> list[Sample]:
    chance = random.Random(seed)
    out = [Sample(work := chance.choice(WORKS), TRUE.seconds(work) * chance.uniform(0.95, 1.05)) for _ in range(count)]
    for index in range(outliers):
        out[index * 5] = Sample(out[index * 5].work, out[index * 5].seconds * 8)
    return out


def test_without_samples_the_prior_is_all_there_is() -> None:
    assert fit([], PRIOR) == PRIOR


def test_a_few_samples_scale_the_prior() -> None:
    rate = fit([Sample(650_000.0, 2 * PRIOR.seconds(650_000.0))] * 3, PRIOR)
    assert rate.seconds(1_000_000.0) == pytest.approx(2 * PRIOR.seconds(1_000_000.0))


def test_one_odd_sample_changes_nothing_yet() -> None:
    assert fit([Sample(650_000.0, 100 * PRIOR.seconds(650_000.0))], PRIOR) == PRIOR


@pytest.mark.parametrize("outliers", [0, 4])
def test_many_samples_give_the_truth_even_with_outliers(outliers: int) -> None:
    rate = fit(samples(24, outliers=outliers), PRIOR)
    for work in WORKS:
        assert rate.seconds(work) == pytest.approx(TRUE.seconds(work), rel=0.1)


def test_jobs_of_one_size_do_not_pretend_to_know_the_slope() -> None:
    rate = fit([Sample(650_000.0, 300.0)] * 20, PRIOR)
    assert rate.seconds(650_000.0) == pytest.approx(300.0)
    assert 0 < rate.seconds(0) < 300.0


def test_what_is_learnt_survives_a_restart_by_way_of_status() -> None:
    learnt = Learnt(PRIOR)
    for sample in samples(60):
        learnt = learnt.with_sample(sample)
    assert len(learnt.samples) == KEEP
    again = Learnt.from_status(learnt.to_status(), PRIOR)
    assert again.rate.seconds(650_000.0) == pytest.approx(learnt.rate.seconds(650_000.0), rel=0.01)
    assert learnt.error is not None
    assert learnt.error < 0.1


@pytest.mark.parametrize(
    "told", [{}, {"overheadSeconds": "x"}, {"overheadSeconds": -1, "secondsPerMillionTokenSteps": 2}]
)
def test_a_status_that_says_nothing_leaves_the_prior(told: dict[str, object]) -> None:
    assert Learnt.from_status(told, PRIOR).rate == PRIOR


def test_a_render_that_took_no_time_teaches_nothing() -> None:
    assert Learnt(PRIOR).with_sample(Sample(0.0, 5.0)).samples == ()


def test_a_running_job_is_judged_by_its_progress_once_that_says_something() -> None:
    assert remaining(100, 30, None) == 70
    assert remaining(100, 30, 5) == 70
    assert remaining(100, 30, 60) == pytest.approx(20)
    assert remaining(100, 150, None) == pytest.approx(15)
