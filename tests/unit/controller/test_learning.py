"""What ended jobs teach; what queues are charged; what a waiting job is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import Catalogue
from kinora.controller.forecaster import worth_telling
from kinora.controller.learning import COLD_START, PRIOR, Learning, video_seconds_of, work_of
from kinora.controller.queues import QueuesError, queue_faults, read_queues
from kinora.controller.scheduling.facts import Rate
from kinora.controller.scheduling.forecast import Forecast
from kinora.controller.scheduling.ledger import Ledger
from kinora.controller.usage import UsageKeeper
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from unit.controller.builders import NOW, VACE, ago, assigned, catalogue, job, server

LARGE = {"width": 832, "height": 480, "frames": 81, "steps": 30}
THEN = NOW.timestamp()


def ended(rendered: float, **status: Any) -> dict[str, Any]:
    timings = {"loadedSeconds": 10, "renderedSeconds": rendered, "stagedSeconds": 3}
    done = assigned("Succeeded", timings=timings, resolved=LARGE, gpuSeconds=rendered + 10, **status)
    done["assignment"]["pool"] = "main"
    return job(done)


def test_the_work_of_a_job_is_tokens_times_steps() -> None:
    assert work_of(job({"resolved": LARGE})) == 21 * 30 * 52 * 30
    assert work_of(job(parameters={**LARGE, "steps": 10})) == 21 * 30 * 52 * 10
    assert work_of(job({"resolved": {"frames": "many"}})) == 0


def test_the_video_of_a_job_is_its_frames_over_its_rate() -> None:
    assert video_seconds_of(job({"resolved": {"frames": 80, "fps": 16}})) == 5
    assert video_seconds_of(job({"resolved": {"frames": 80, "fps": 0}})) == 80 / 16


def test_three_jobs_are_enough_to_know_a_server_and_status_carries_it_over_a_restart() -> None:
    learning = Learning(catalogue())
    for _ in range(4):
        learning.ended(server(), ended(990))
    work = work_of(ended(990))
    assert learning.speed(server(), "main").rate.seconds(work) == pytest.approx(1000)
    elsewhere = {"metadata": {**server()["metadata"], "namespace": "elsewhere"}}
    assert learning.speed({**server(), **elsewhere}, "main").rate == published(VACE, "RTX4090")
    assert learning.staging("films/vace") == 3
    told = learning.performance(server())
    assert told["main"]["samples"] == 4
    again = Learning(catalogue()).speed(server({"performance": told}), "main")
    assert again.rate.seconds(work) == pytest.approx(1000, rel=0.01)


def published(model: str, card: str) -> Rate:
    found = catalogue().get(model)
    assert found is not None
    assert found.cost is not None
    speed = found.cost.cards[card]
    return Rate(speed.overhead_seconds, speed.seconds_per_million_token_steps / 1e6)


def on(card: str | None, model: str = VACE) -> dict[str, Any]:
    """A ModelServer with one pool, called main, of that card."""
    return server(model=model, gpu={"count": 1, "pools": [{"name": "main", "gpuModel": card}]})


@pytest.mark.parametrize(
    ("model", "card", "row"),
    [
        ("wan2.1-i2v-14b-480p", "H200", "H200"),
        ("wan2.1-i2v-14b-480p", None, "H100"),
        ("wan2.1-i2v-14b-480p", "PPU810E", "H100"),
        (VACE, "H100", "H100"),
        (VACE, "T4", "RTX4090"),
    ],
)
def test_estimates_begin_with_what_is_published_of_the_model_on_the_pools_card(model: str, card: str, row: str) -> None:
    assert Learning(catalogue()).speed(on(card, model), "main").rate == published(model, row)


def test_a_model_that_tells_no_cost_begins_with_the_common_prior() -> None:
    packaged = catalogue().get(VACE)
    assert packaged is not None
    own = packaged.model_copy(update={"name": "tuned", "cost": None})
    learning = Learning(Catalogue([own]))
    assert learning.speed(on("H100", "tuned"), "main").rate == PRIOR
    assert learning.speed(on("H100", "unknown"), "main").rate == PRIOR
    learning.use(Catalogue([own.model_copy(update={"cost": packaged.cost})]))
    assert learning.speed(on("H100", "tuned"), "main").rate == published(VACE, "H100"), "its entry was changed"


def test_what_one_card_takes_corrects_what_another_is_expected_to_take() -> None:
    pools = [{"name": "main", "gpuModel": "H100"}, {"name": "other", "gpuModel": "RTX4090"}]
    both = server(gpu={"count": 1, "pools": pools})
    learning, work = Learning(catalogue()), work_of(ended(0))
    before = learning.speed(both, "other").rate.seconds(work)
    half = published(VACE, "H100").seconds(work) / 2
    for _ in range(3):
        learning.ended(both, ended(half - 10))  # loading took ten
    assert learning.speed(both, "main").rate.seconds(work) == pytest.approx(half)
    assert learning.speed(both, "other").rate.seconds(work) == pytest.approx(before / 2)


def test_a_cold_start_is_the_median_of_those_seen() -> None:
    learning = Learning(catalogue())
    assert learning.cold_start(server()) == COLD_START
    assert learning.cold_start(server({"coldStart": {"seconds": 90}})) == 90
    for seconds in (100, 5000, 120):
        learning.started("films/vace", seconds)
    assert learning.cold_start(server()) == 120


# --- usage


def keeper() -> UsageKeeper:
    return UsageKeeper(KubeClient(Connection("http://127.0.0.1:1", None, lambda: None, "films")), Ledger(), "")


async def test_the_estimate_is_charged_at_the_bind_and_the_truth_at_the_end() -> None:
    usage = keeper()
    usage.bound(job(parameters=LARGE), 300.0, THEN)
    assert usage._ledger.usage("default", THEN).gpu_seconds == pytest.approx(300, rel=0.2)
    usage.ended(ended(100), THEN)
    (bucket,) = usage._ledger.hours["default"].values()
    assert (bucket.gpu_seconds, bucket.video_seconds) == (110, pytest.approx(81 / 16))


async def test_a_video_that_was_not_delivered_is_not_charged() -> None:
    usage = keeper()
    usage.bound(job(), 300.0, THEN)
    usage.bound(job(), 300.0, THEN)  # the first attempt was lost
    (bucket,) = usage._ledger.hours["default"].values()
    assert bucket.video_seconds == pytest.approx(81 / 16)
    usage.ended(job({"phase": "Failed", "gpuSeconds": 5}), THEN)
    assert (bucket.gpu_seconds, bucket.video_seconds) == (5, 0)


async def test_a_job_bound_by_another_operator_keeps_its_estimate() -> None:
    usage = keeper()
    usage.ended(ended(100), THEN)
    assert usage._ledger.hours == {}


# --- queues


def faults(queues: list[dict[str, Any]], **spec: Any) -> str:
    asked = VideoJobSpec.model_validate({"model": "m", "task": "TextToVideo", "prompt": "x", **spec})
    return "; ".join(map(str, queue_faults(asked, "films", read_queues(json.dumps(queues)))))


def test_a_queue_must_be_declared_open_and_allow_the_priority() -> None:
    assert faults([]) == ""
    assert faults([{"name": "a"}], queue="b") == "spec.queue is b; allowed: a, default in namespace films"
    assert "allowed: default" in faults([{"name": "a", "namespaces": ["other"]}], queue="a")
    assert faults([{"name": "a", "namespaces": ["films"], "maxPriority": 3}], queue="a", priority=3) == ""
    told = faults([{"name": "a", "maxPriority": 3}], queue="a", priority=4)
    assert told == "spec.priority is 4; allowed: at most 3 in queue a"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "queues"),
        ('[{"name": "A"}]', "name"),
        ('[{"name": "a", "weight": 0}]', "weight"),
        ('[{"name": "a", "wait": 1}]', "wait"),
        ('[{"name": "a"}, {"name": "a"}]', "a is declared twice"),
    ],
)
def test_queues_that_cannot_be_used_are_refused_with_the_field(text: str, told: str) -> None:
    with pytest.raises(QueuesError, match=told):
        read_queues(text)


# --- forecasts


@pytest.mark.parametrize(
    ("told", "position", "wait", "worth"),
    [
        (None, 1, 2, False),  # it is about to start: the bind will say so
        (None, 1, 60, True),
        (None, 9, None, True),
        ({"position": 10, "estimatedStartTime": ago(-600)}, 9, 590, False),
        ({"position": 10, "estimatedStartTime": ago(-600)}, 7, 600, True),
        ({"position": 10, "estimatedStartTime": ago(-600)}, 10, 800, True),
        ({"position": 10, "estimatedStartTime": ago(-600)}, 10, None, True),
        ({"position": 1, "estimatedStartTime": ago(-20)}, 1, 28, False),
    ],
)
def test_only_a_forecast_that_changed_by_a_fifth_is_written(
    told: dict[str, Any] | None, position: int, wait: float | None, worth: bool
) -> None:
    start = None if wait is None else THEN + wait
    assert worth_telling(told, Forecast(position, start), THEN) is worth
