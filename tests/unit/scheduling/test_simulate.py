"""A trace played on made-up clusters: every job ends, the same seed tells the same story, policies do what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from kinora.catalogue.load import load_catalogue
from kinora.cli.main import main
from kinora.controller.simulate.cluster import (
    SimulatedAutoscaling,
    SimulatedCluster,
    SimulatedPool,
    SimulatedQueue,
    SimulatedServer,
    with_speeds,
)
from kinora.controller.simulate.play import Played, Simulation
from kinora.controller.simulate.report import summarise
from kinora.controller.simulate.trace import Arrival, TraceError, bursty_day, read, write

ROOT = Path(__file__).resolve().parents[3]
POOL = SimulatedPool(name="main", price_per_hour=2, seconds_per_million_token_steps=150)
DAY = bursty_day("wan", 150)


def play(arrivals: tuple[Arrival, ...] = DAY, *, queues: tuple[SimulatedQueue, ...] = (), aging: float = 3600.0,
         pools: tuple[SimulatedPool, ...] = (POOL,), replicas: int = 2, autoscaling: SimulatedAutoscaling | None = None,
         ) -> Played:  # fmt: skip
    server = SimulatedServer(name="wan", pools=pools, replicas=replicas, autoscaling=autoscaling)
    cluster = SimulatedCluster(name="test", servers=(server,), queues=queues, aging_seconds=aging)
    return Simulation(cluster, arrivals).play()


def test_every_job_ends_and_the_same_seed_tells_the_same_story() -> None:
    first, second = play(), play()
    assert all(outcome.end is not None for outcome in first.outcomes)
    assert first == second


def test_every_gpu_second_that_is_paid_for_is_counted_once() -> None:
    played = play()
    assert 0 < played.busy_seconds < played.pod_seconds
    assert played.cost == pytest.approx(played.pod_seconds / 3600 * POOL.price_per_hour)


def test_scaling_to_zero_costs_less_than_a_fixed_pool_and_loses_nothing() -> None:
    fixed = summarise(play(replicas=4))
    scaled = summarise(play(autoscaling=SimulatedAutoscaling(max_replicas=4)))
    assert scaled.cost < fixed.cost / 2
    assert scaled.waits[0].unfinished == 0


def test_spot_pods_are_lost_and_their_jobs_end_all_the_same() -> None:
    spot = SimulatedPool(name="spot", price_per_hour=1, mean_life_seconds=600, seconds_per_million_token_steps=150)
    played = play(pools=(spot, POOL), autoscaling=SimulatedAutoscaling(max_replicas=4))
    assert played.lost > 0
    assert all(outcome.end is not None for outcome in played.outcomes)


def test_with_aging_nobody_starves_behind_a_stream_of_urgent_jobs() -> None:
    """One pod, urgent jobs as fast as it renders them: without aging the patient one waits for their last."""
    urgent = [Arrival(150.0 * n, "wan", "default", 2, 1e6) for n in range(150)]
    trace = (Arrival(1.0, "wan", "default", 0, 1e6), *urgent)
    aged, never = (play(trace, replicas=1, aging=aging).outcomes[0] for aging in (3600.0, 0.0))
    assert aged.start is not None
    assert never.start is not None
    assert aged.start < 3.2 * 3600 < never.start


def test_a_heavy_queue_gets_its_share_and_no_more() -> None:
    flood = [Arrival(0.0, "wan", "flood", 0, 1e6) for _ in range(80)]
    trickle = [Arrival(600.0 + 300 * n, "wan", "trickle", 0, 1e6) for n in range(10)]
    fair = play((*flood, *trickle), queues=(SimulatedQueue(name="flood"), SimulatedQueue(name="trickle")))
    waits = {one.queue: one for one in summarise(fair).waits}
    assert waits["trickle"].p95 < 400
    assert waits["flood"].p95 > 3000


def test_a_trace_survives_being_written_and_read() -> None:
    assert [one.server for one in read(write(DAY))] == [one.server for one in DAY]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: columns are none"),
        ("arrival,server\n1,a\n", "allowed: arrival, server, queue"),
        ("arrival,server,work,colour\n", "colour"),
        ("arrival,server,work\n", "no rows"),
        ("arrival,server,work\nsoon,a,1\n", "line 2: arrival is 'soon'"),
        ("arrival,server,work\n1,a,-5\n", "line 2: work is '-5'"),
        ("arrival,server,work\n1,,5\n", "line 2: server is empty"),
        ("arrival,server,work\n1,a,nan\n", "line 2: work is 'nan'"),
    ],
)
def test_a_trace_that_cannot_be_read_says_where(text: str, told: str) -> None:
    with pytest.raises(TraceError, match=told.replace("(", r"\(")):
        read(text)


def test_the_command_prints_a_table_that_fits_and_draws_a_picture(tmp_path: Path) -> None:
    trace, picture = tmp_path / "day.csv", tmp_path / "day.png"
    runner = CliRunner()
    made = runner.invoke(main, ["simulate", "--make-trace", "60"])
    trace.write_text(made.output)
    policies = str(ROOT / "examples/simulate/policies.yaml")
    result = runner.invoke(main, ["simulate", str(trace), "--cluster", policies, "--plot", str(picture)])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 120
    assert result.output.count("interactive") == 5
    with Image.open(picture) as image:
        assert image.width > 1000
        assert len(set(image.convert("RGB").resize((64, 64)).tobytes())) > 20
    told = json.loads(runner.invoke(main, ["simulate", str(trace), "--cluster", policies, "-o", "json"]).output)
    assert [one["cluster"] for one in told] == ["fixed-4", "fixed-8", "autoscaled", "spot-first", "mixed"]


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ("name: x\nservers: []\n", "servers"),
        ("name: x\nservers: [{name: wan, pools: [{name: p, prise: 1}]}]\n", "servers.0.pools.0.prise"),
        ("name: x\nservers: [{name: other, pools: [{name: p}]}]\n", "the trace names server wan"),
        ("{", "policies.yaml"),
    ],
)
def test_a_cluster_that_cannot_be_used_says_which_field(tmp_path: Path, cluster: str, told: str) -> None:
    (tmp_path / "day.csv").write_text(write(DAY[:3]))
    (tmp_path / "policies.yaml").write_text(cluster)
    result = CliRunner().invoke(
        main, ["simulate", str(tmp_path / "day.csv"), "--cluster", str(tmp_path / "policies.yaml")]
    )
    assert result.exit_code == 1
    assert told in result.output


def test_a_cluster_may_leave_speeds_to_the_catalogue() -> None:
    pools = (
        SimulatedPool(name="large", gpu_model="H100"),
        SimulatedPool(name="small", gpu_model="RTX4090"),
        SimulatedPool(name="own", gpu_model="H100", seconds_per_million_token_steps=7),
    )
    server = SimulatedServer(name="wan", model="wan2.1-vace-14b", pools=pools)
    made = with_speeds(SimulatedCluster(name="test", servers=(server,)), load_catalogue()).servers[0]
    model = load_catalogue().get("wan2.1-vace-14b")
    assert model is not None
    assert model.cost is not None
    known = model.cost.cards
    assert [pool.seconds_per_million_token_steps for pool in made.pools] == [
        known["H100"].seconds_per_million_token_steps,
        known["RTX4090"].seconds_per_million_token_steps,
        7,
    ]
    assert made.overhead_seconds == known["H100"].overhead_seconds


def test_a_model_without_a_published_speed_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    policy = tmp_path / "cluster.yaml"
    policy.write_text("name: a\nservers: [{name: wan, model: sora, pools: [{name: main}]}]\n", encoding="utf-8")
    trace = tmp_path / "day.csv"
    trace.write_text(CliRunner().invoke(main, ["simulate", "--make-trace", "3"]).output, encoding="utf-8")
    result = CliRunner().invoke(main, ["simulate", str(trace), "--cluster", str(policy)])
    assert result.exit_code == 1
    assert "document 1: servers: wan: model is sora; allowed: wan2.1-i2v-14b-480p" in result.output
