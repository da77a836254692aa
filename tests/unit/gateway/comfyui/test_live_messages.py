"""What a websocket hears when the engine itself tells of a render, when it stops, and when it comes back."""

from __future__ import annotations

from typing import Any

from kinora.engine.live import Cached, Caught, Entered, LiveEvent, Stepped
from kinora.gateway.comfyui.messages import Follow
from kinora.gateway.jobs import Job
from unit.gateway.comfyui.made import CLIENT, ENDED, ID, STARTED, artifact, job
from unit.workflows.made import sound

Message = tuple[str, Any]
GRAPH = sound()


def running(attempt: int = 1, **progress: Any) -> Job:
    return job("Running", startTime=STARTED, attempt=attempt, progress={"percent": 20, **progress})


def succeeded(**more: Any) -> Job:
    done: dict[str, Any] = {"attempt": 1, "startTime": STARTED, "completionTime": ENDED, **more}
    return job("Succeeded", artifacts=[artifact()], **done)


def words(messages: list[Message]) -> list[str]:
    """The messages in short, without the sums that go with each."""
    short = {
        "executing": lambda data: f"> {data['node']}",
        "progress": lambda data: f"{data['node']}: {data['value']}/{data['max']}",
        "executed": lambda data: f"executed {data['node']}",
    }
    told = [one for one in messages if one[0] not in ("status", "progress_state")]
    return [short[kind](data) if kind in short else kind for kind, data in told]


def states(messages: list[Message]) -> dict[str, str]:
    """The last sum."""
    last = [data for kind, data in messages if kind == "progress_state"][-1]
    return {node: entry["state"] for node, entry in last["nodes"].items()}


def test_the_status_is_quiet_while_the_engine_speaks_and_tells_the_end() -> None:
    follow = Follow(CLIENT, [])
    told = follow.changed(running(stage="Load"), GRAPH, quiet=True)
    assert words(told) == ["execution_start"]
    said: list[LiveEvent] = [Cached(("11", "99")), Entered("17"), Entered("24"), Stepped("24", 1, 2), Caught()]
    told += follow.heard(running(), said)
    told += follow.changed(running(stage="Encode"), GRAPH, quiet=True)
    told += follow.heard(running(), [Stepped("24", 2, 2), Entered("32"), Stepped("32", 1, 9)])
    told += follow.changed(running(stage="Save", step=1, steps=9), GRAPH, quiet=True)
    told += follow.changed(succeeded(), GRAPH)
    assert words(told) == [
        "execution_start", "execution_cached", "> 17", "> 24", "24: 1/2", "24: 2/2", "> 32", "32: 1/9", "executed 32",
        "execution_success", "> None",
    ]  # fmt: skip
    [cached] = [data for kind, data in told if kind == "execution_cached"]
    assert cached["nodes"] == ["11"], "a node that is not the client's is not told of"
    assert {data.get("prompt_id", ID) for _, data in told} == {ID}
    assert states(told) == dict.fromkeys(("11", "17", "24", "32"), "finished")


def test_where_there_is_no_stream_the_status_says_what_it_had_kept() -> None:
    follow = Follow(CLIENT, [])
    assert words(follow.changed(running(stage="Sample", step=3, steps=9), GRAPH, quiet=True)) == ["execution_start"]
    told = words(follow.changed(running(stage="Sample", step=3, steps=9), GRAPH))
    assert told == ["execution_cached", "> 24", "24: 3/9"]


def test_an_end_that_comes_while_the_stream_is_being_opened_is_told_whole() -> None:
    follow = Follow(CLIENT, [])
    told = words(follow.changed(running(stage="Load"), GRAPH, quiet=True) + follow.changed(succeeded(), GRAPH))
    assert told == ["execution_start", "execution_cached", "> 32", "executed 32", "execution_success", "> None"]


def test_a_status_that_is_behind_the_engine_takes_nobody_back() -> None:
    follow = Follow(CLIENT, [])
    follow.changed(running(), GRAPH, quiet=True)
    said: list[LiveEvent] = [Cached(("11",)), Entered("15"), Entered("17"), Entered("24"), Stepped("24", 7, 9)]
    follow.heard(running(), [*said, Caught()])
    for late in (running(stage="Load"), running(stage="Encode"), running(stage="Sample", step=5, steps=9)):
        assert words(follow.changed(late, GRAPH)) == [], late.stage
    assert words(follow.changed(running(stage="Sample", step=8, steps=9), GRAPH)) == ["24: 8/9"]
    told = words(follow.changed(succeeded(), GRAPH))
    assert told == ["> 32", "executed 32", "execution_success", "> None"]


def test_a_stream_that_comes_back_goes_on_from_where_the_engine_is() -> None:
    follow = Follow(CLIENT, [])
    follow.changed(running(), GRAPH, quiet=True)
    follow.heard(running(), [Entered("17"), Caught()])
    assert words(follow.changed(running(stage="Sample", step=2, steps=9), GRAPH)) == ["> 24", "24: 2/9"]
    back: list[LiveEvent] = [Entered("16"), Entered("24"), Stepped("24", 6, 9), Caught(), Stepped("24", 7, 9)]
    told = follow.heard(running(), back)
    assert words(told) == ["24: 6/9", "24: 7/9"], "a node before the present one is no news"
    assert states(told)["16"] == "finished"


def test_a_guess_of_the_status_that_was_wrong_does_not_hide_the_node_later() -> None:
    follow = Follow(CLIENT, [])
    assert words(follow.changed(running(stage="Sample"), GRAPH))[-1] == "> 24"
    told = words(follow.heard(running(), [Entered("17"), Caught(), Entered("24"), Stepped("24", 1, 2)]))
    assert told == ["> 17", "> 24", "24: 1/2"]


def test_a_client_that_comes_late_hears_where_the_engine_is_and_all_that_follows() -> None:
    now = running(stage="Load")
    follow = Follow(CLIENT, [now])
    assert words(follow.greeting({ID: (now, GRAPH)})) == ["> 11"]
    story: list[LiveEvent] = [Cached(()), Entered("11"), Entered("17"), Entered("24"), Stepped("24", 3, 9), Caught()]
    assert words(follow.heard(now, story)) == ["> 24", "24: 3/9"]
    assert words(follow.heard(now, [Stepped("24", 4, 9)])) == ["24: 4/9"]


def test_another_attempt_tells_its_nodes_anew_and_the_beginning_once() -> None:
    follow = Follow(CLIENT, [])
    told = follow.changed(running(), GRAPH, quiet=True)
    told += follow.heard(running(), [Cached(()), Entered("11"), Entered("24"), Stepped("24", 8, 9), Caught()])
    told += follow.changed(job("Queued", attempt=1, startTime=STARTED), GRAPH)
    assert follow.heard(running(attempt=2), [Entered("11")]) == [], "before its status says so"
    told += follow.changed(running(attempt=2), GRAPH, quiet=True)
    assert follow.heard(running(), [Stepped("24", 9, 9)]) == [], "of the attempt that was lost"
    again = follow.heard(running(attempt=2), [Cached(()), Entered("11"), Entered("24"), Stepped("24", 1, 9), Caught()])
    assert states(again) == {"11": "finished", "24": "running"}
    told += again + follow.changed(succeeded(attempt=2), GRAPH)
    assert words(told) == [
        "execution_start", "execution_cached", "> 11", "> 24", "24: 8/9",
        "> 11", "> 24", "24: 1/9", "> 32", "executed 32", "execution_success", "> None",
    ]  # fmt: skip


def test_what_an_engine_says_after_the_end_or_of_another_is_not_told() -> None:
    follow = Follow(CLIENT, [])
    follow.changed(running(), GRAPH, quiet=True)
    follow.changed(succeeded(), GRAPH)
    assert follow.heard(running(), [Entered("24")]) == []
    assert Follow("somebody-else", []).heard(running(), [Entered("24")]) == []


def test_nodes_that_are_not_of_the_graph_and_steps_that_are_not_of_the_present_node_are_dropped() -> None:
    follow = Follow(CLIENT, [])
    follow.changed(running(), GRAPH, quiet=True)
    said: list[LiveEvent] = [Caught(), Entered("<script>"), Stepped("<script>", 1, 2), Stepped("24", 1, 2)]
    assert words(follow.heard(running(), said)) == ["execution_cached"]
