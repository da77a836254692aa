"""Stage, percent and silence of one prompt."""

import pytest

from kinora.agent.follow import Follow, View, silence_budget
from kinora.engine.stages import Stage, stage_of

GRAPH = {
    "1": {"class_type": "UNETLoader"},
    "2": {"class_type": "CLIPTextEncode"},
    "3": {"class_type": "WanVaceToVideo"},
    "4": {"class_type": "KSampler"},
    "5": {"class_type": "TrimVideoLatent"},
    "6": {"class_type": "VAEDecode"},
    "7": {"class_type": "VHS_VideoCombine"},
    "8": {"class_type": "VAELoader"},
}


def begun() -> Follow:
    follow = Follow(GRAPH, tokens=1000, submitted_at=100.0)
    follow.started(101.0)
    return follow


@pytest.mark.parametrize(
    ("class_type", "stage"),
    [
        ("UNETLoader", Stage.LOAD),
        ("CLIPVisionLoader", Stage.LOAD),
        ("WanVideoModelLoader", Stage.LOAD),
        ("LoadWanVideoT5TextEncoder", Stage.LOAD),
        ("ModelSamplingSD3", Stage.LOAD),
        ("LoadImage", Stage.ENCODE),
        ("VHS_LoadVideo", Stage.ENCODE),
        ("CLIPTextEncode", Stage.ENCODE),
        ("WanVideoTextEncode", Stage.ENCODE),
        ("WanVaceToVideo", Stage.ENCODE),
        ("KSampler", Stage.SAMPLE),
        ("WanVideoSampler", Stage.SAMPLE),
        ("VAEDecode", Stage.DECODE),
        ("WanVideoDecode", Stage.DECODE),
        ("VHS_VideoCombine", Stage.SAVE),
        ("SaveVideo", Stage.SAVE),
        ("CreateVideo", Stage.SAVE),
        ("", Stage.ENCODE),
    ],
)
def test_the_stage_of_a_node(class_type: str, stage: Stage) -> None:
    assert stage_of(class_type) is stage


def test_silence_counts_from_the_moment_that_the_engine_took_the_prompt() -> None:
    follow = Follow(GRAPH, tokens=1000, submitted_at=100.0)
    assert follow.silent_at() == 160.0
    follow.submitted(500.0)
    assert follow.silent_at() == 560.0


def test_a_render_from_its_start_to_its_end() -> None:
    follow = Follow(GRAPH, tokens=1000, submitted_at=100.0)
    seen = [follow.view()]
    follow.started(101.0)
    for name in ("1", "2", "3", "4"):
        follow.node_started(name, 102.0)
        seen.append(follow.view())
    follow.progressed("4", 5, 10, 103.0)
    seen.append(follow.view())
    for name in ("5", "6", "7"):
        follow.node_started(name, 104.0)
        seen.append(follow.view())
    follow.ended(110.0)
    assert seen == [
        View(0, "Wait"),
        View(0, "Load"),
        View(5, "Encode"),
        View(5, "Encode"),
        View(15, "Sample"),
        View(52, "Sample", 5, 10),
        View(90, "Sample"),
        View(90, "Decode"),
        View(97, "Save"),
    ]
    assert (follow.started_at, follow.sampling_at, follow.ended_at) == (101.0, 102.0, 110.0)


def test_the_stage_for_people_never_goes_back_and_the_budget_follows_the_node() -> None:
    follow = begun()
    follow.node_started("4", 102.0)
    follow.node_started("8", 103.0)
    assert follow.view().stage == "Sample"
    assert follow.budget() == silence_budget(Stage.LOAD, 1000)


def test_two_samplers_share_the_way() -> None:
    graph = {"a": {"class_type": "KSampler"}, "b": {"class_type": "KSampler"}}
    follow = Follow(graph, tokens=1, submitted_at=0)
    follow.progressed("a", 4, 4, 1)
    assert follow.view().percent == 52
    follow.progressed("b", 2, 4, 2)
    assert follow.view() == View(71, "Sample", 2, 4)


def test_only_news_is_a_sign_of_life() -> None:
    follow = begun()
    follow.node_started("3", 110.0)
    over = follow.silent_at()
    follow.node_started("3", 200.0)  # told again after a reconnect
    assert follow.silent_at() == over
    follow.node_started("4", 210.0)
    assert follow.silent_at() == 210.0 + silence_budget(Stage.SAMPLE, 1000)
    follow.progressed("4", 1, 10, 220.0)
    follow.progressed("4", 1, 10, 300.0)
    assert follow.silent_at() == 220.0 + silence_budget(Stage.SAMPLE, 1000)


def test_steps_that_were_seen_are_the_measure_of_the_next() -> None:
    follow = begun()
    follow.progressed("4", 1, 10, 200.0)
    follow.progressed("4", 2, 10, 250.0)
    assert follow.budget() == 500.0
    follow.progressed("4", 3, 10, 251.0)
    assert follow.budget() == 500.0
    follow.node_started("6", 260.0)
    assert follow.budget() == silence_budget(Stage.DECODE, 1000)


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_has_a_budget_that_grows_with_the_work(stage: Stage) -> None:
    assert 0 < silence_budget(stage, 1000) <= silence_budget(stage, 75600)
    assert silence_budget(Stage.SAMPLE, 75600, slowest_step=1.0) == 120.0


def test_one_nudge_at_half_of_the_budget() -> None:
    follow = begun()
    half = follow.budget() / 2
    assert follow.nudge_at() == 101.0 + half
    follow.nudged()
    assert follow.nudge_at() is None
    follow.node_started("1", 500.0)
    assert follow.nudge_at() == 500.0 + follow.budget() / 2


def test_a_resumed_render_began_before_and_is_not_silent_for_it() -> None:
    follow = Follow(GRAPH, tokens=1000, submitted_at=1000.0)
    follow.resumed(1000.0, 600.0)
    assert follow.started_at == 400.0
    assert follow.silent_at() == 1000.0 + silence_budget(Stage.LOAD, 1000)
    assert "900 s" in follow.silence()


def test_the_scale_shortens_every_budget() -> None:
    follow = Follow(GRAPH, tokens=0, submitted_at=0.0, scale=0.5)
    assert follow.budget() == 0.5 * silence_budget(Stage.WAIT, 0)
