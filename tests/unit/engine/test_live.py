"""What an agent tells of a prompt: the sum of events, what waits for a slow listener, and lines that others send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.engine.base import ExecutionInterrupted, ExecutionSuccess, NodeExecuted, NodesCached, NodeStarted, Progress
from kinora.engine.live import (
    BACKLOG,
    MAX_ID,
    MAX_NODES,
    Backlog,
    Cached,
    Caught,
    Course,
    Ended,
    Entered,
    Garbled,
    Left,
    LiveEvent,
    Stepped,
    line,
    live_event,
    parsed,
)
from kinora.engine.messages import event_of

NODES = st.text(min_size=1, max_size=8)
STEPS = st.integers(0, 1000)
EVENTS = st.one_of(
    st.lists(NODES, max_size=4).map(lambda nodes: Cached(tuple(nodes))),
    NODES.map(Entered),
    st.builds(Stepped, NODES, STEPS, STEPS),
)


def test_only_nodes_and_steps_are_told_of() -> None:
    assert live_event(NodesCached("p", ("1",))) == Cached(("1",))
    assert live_event(NodeStarted("p", "1")) == Entered("1")
    assert live_event(Progress("p", "1", 2, 3)) == Stepped("1", 2, 3)
    assert live_event(NodeExecuted("p", "1", {"gifs": [{"fullpath": "/secret"}]})) is None
    assert live_event(ExecutionSuccess("p")) == live_event(ExecutionInterrupted("p", "1")) == Ended()
    cached = event_of({"type": "execution_cached", "data": {"prompt_id": "p", "nodes": ["1", "2"], "timestamp": 1}})
    assert cached == NodesCached("p", ("1", "2"))


def test_a_node_runs_once_and_only_the_last_one_has_steps() -> None:
    course = Course()
    said: list[LiveEvent] = [Entered("1"), Stepped("1", 1, 2), Entered("2"), Stepped("1", 2, 2), Entered("1")]
    assert [course.note(event) for event in said] == [True, True, True, False, False]
    assert course.story() == [Entered("1"), Entered("2")]
    assert [course.note(Stepped("2", value, 3)) for value in (1, 1, 2)] == [True, False, True]
    assert course.story() == [Entered("1"), Entered("2"), Stepped("2", 2, 3)]
    assert course.present() == [Entered("2"), Stepped("2", 2, 3)]


def test_a_step_of_a_node_whose_begin_was_missed_is_its_begin() -> None:
    course = Course()
    assert course.note(Stepped("7", 4, 9))
    assert course.story() == [Entered("7"), Stepped("7", 4, 9)]


@given(st.lists(EVENTS, max_size=40))
def test_whoever_hears_the_story_knows_as_much_as_who_heard_it_all(events: list[LiveEvent]) -> None:
    course, later = Course(), Course()
    for event in events:
        course.note(event)
    for event in course.story():
        assert later.note(event)
    assert later.story() == course.story()


def test_a_course_is_bounded() -> None:
    course = Course()
    for index in range(MAX_NODES + 10):
        course.note(Entered(str(index)))
    assert len(course.story()) == MAX_NODES
    assert not course.note(Entered("x" * (MAX_ID + 1)))


def test_a_listener_that_is_behind_loses_steps_and_no_node() -> None:
    backlog = Backlog()
    kept = [backlog.put(Stepped("1", value, 10_000)) for value in range(10_000)]
    assert kept.count(True) == BACKLOG
    backlog.put(Entered("2"))
    for value in range(100):
        backlog.put(Stepped("2", value, 100))
    backlog.put(Ended())
    waiting = backlog.take()
    assert len(waiting) == BACKLOG + 3
    assert waiting[-4:] == [Stepped("1", 9999, 10_000), Entered("2"), Stepped("2", 99, 100), Ended()]
    assert backlog.take() == []


@given(EVENTS)
def test_what_is_written_is_what_is_read(event: LiveEvent) -> None:
    assert parsed(line(event)) == event
    assert line(event).count(b"\n") == 1


def test_the_other_lines() -> None:
    assert [parsed(line(one)) for one in (Caught(), Ended(), Left())] == [Caught(), Ended(), Left()]
    assert parsed(b"{}\n") is None
    assert parsed(b'{"of": "a later agent"}\n') is None


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff\xfe", b"[]", b"[" * 100_000, b"7", b'{"node": 7}', b'{"node": ""}', b'{"node": "1", "value": 1}',
        b'{"node": "1", "value": -1, "max": 1}', b'{"node": "1", "value": true, "max": 1}', b'{"cached": "1"}',
        b'{"node": "1", "value": 1e300, "max": 1}', b'{"node": "1", "value": 99999999999999999999, "max": 1}',
        b'{"cached": [1]}', b'{"node": "' + b"x" * (MAX_ID + 1) + b'"}',
    ],
)  # fmt: skip
def test_a_line_that_no_agent_writes_is_refused(text: bytes) -> None:
    with pytest.raises(Garbled):
        parsed(text)
