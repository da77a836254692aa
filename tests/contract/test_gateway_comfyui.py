"""The gateway's ComfyUI dialect against the recordings: each answer and message has ComfyUI's keys, types and order.

What differs on purpose: files have no `workflow` and `fullpath` (they would name files of a server), a job's own limits
refuse what ComfyUI would render wrongly (RENDERED_WRONGLY), and a status tells fewer steps than an engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from contract import traces
from kinora.engine.live import Course, line, live_event, parsed
from kinora.engine.messages import event_of
from kinora.gateway.comfyui.answer import history_entry, queue_item
from kinora.gateway.comfyui.errors import PromptRefused, body_of
from kinora.gateway.comfyui.install import system_stats
from kinora.gateway.comfyui.judge import judge
from kinora.gateway.comfyui.messages import Follow
from kinora.gateway.comfyui.request import File, asked, file_names
from kinora.gateway.jobs import Job
from unit.gateway.comfyui.made import ENDED, I2V, STARTED, admitted, artifact, job, server, servers

Object = dict[str, Any]
SERVERS = (server(), server("i2v", I2V))
#: Refused here with node and input; ComfyUI takes them, and drops frames, fails later, or works for hours.
RENDERED_WRONGLY = {
    "vace-length-80": "length", "vace-width-70": "width", "vace-width-72": "width", "vace-interrupt-sampling": "steps",
    "interrupt-running": "batch_size",
}  # fmt: skip
LISTS_ARE_EMPTY = ("execution_error", "execution_interrupted", "execution_cached")
NAMES_OF_THE_SERVER = {"workflow", "fullpath"}


def recorded(folder: Path) -> Iterator[tuple[str, list[Object]]]:
    for path in sorted((folder / "traces").glob("*.jsonl")):
        yield path.stem, traces.load(path)


def prompts(items: list[Object]) -> list[Object]:
    exchanges = [item["http"] for item in items if "http" in item]
    return [one for one in exchanges if (one["method"], one["path"]) == ("POST", "/prompt")]


def answer(request: Object) -> Object:
    """What the gateway answers to a POST /prompt."""
    try:
        one = asked(json.dumps(request).encode())
        names = file_names(one.graph)
        files = {name: File({"upload": f"0123456789/a{index}"}) for index, name in enumerate(names)}
        judged = judge(one.graph, servers(*SERVERS), names)
        _, number = admitted(one, *SERVERS, files=files)
    except PromptRefused as error:
        return {"status": 400, "response": body_of(error)}
    return {
        "status": 200,
        "response": {"prompt_id": request["prompt_id"], "number": number, "node_errors": judged.node_errors},
    }


def shape(value: Any) -> Any:
    """Keys in order, and types; a list's first entry stands for all."""
    if isinstance(value, dict):
        if value and all(key.isdigit() for key in value):
            return {"node id": shape(next(iter(value.values())))}  # by node: one stands for all
        return [(key, shape(entry)) for key, entry in value.items() if key not in NAMES_OF_THE_SERVER]
    if isinstance(value, list):
        return [shape(entry) for entry in value[:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_every_recorded_prompt_is_answered_as_comfyui_answered_it(recordings: Path) -> None:
    for name, items in recorded(recordings):
        for exchange in prompts(items):
            got = traces.level(answer(exchange["request"]), Path("/output"))
            wanted = traces.level({key: exchange[key] for key in ("status", "response")}, Path("/output"))
            if (
                name in RENDERED_WRONGLY
                and exchange["request"]["prompt_id"] == prompts(items)[0]["request"]["prompt_id"]
            ):
                assert got["status"] == 400
                [errors] = [entry["errors"] for entry in got["response"]["node_errors"].values()]
                assert errors[0]["extra_info"] == {"input_name": RENDERED_WRONGLY[name]}
            else:
                assert got == wanted, name


# --- jobs that did what the recorded prompts did ----------------------------------------------------------------------


def ended_as(entry: Object) -> Job:
    """A job that ended as a recorded prompt did."""
    prompt_id, extra = entry["prompt"][1], entry["prompt"][3]
    note = {"number": 2, "client": extra["client_id"]}
    kind = entry["status"]["messages"][-1][0]
    status: Object = {"startTime": STARTED, "completionTime": ENDED}
    if kind == "execution_success":
        status["artifacts"] = [
            artifact(node, name, filename=file["filename"])
            for node, lists in entry["outputs"].items()
            for name, files in lists.items()
            if name != "animated"
            for file in files
        ]
        return job("Succeeded", id_=prompt_id, note=note, **status)
    if kind == "execution_interrupted":
        return job("Cancelled", id_=prompt_id, note=note, reason="Cancelled", **status)
    failed = {"reason": "EngineError", "message": "no", "node": entry["status"]["messages"][-1][1]["node_type"]}
    return job("Failed", id_=prompt_id, note=note, reason="EngineError", message="no", lastFailure=failed, **status)


def entries(items: list[Object]) -> list[Object]:
    """The history entries of a trace, without those of earlier ones."""
    found = [item["http"] for item in items if "http" in item and item["http"]["path"].startswith("/history/")]
    return [entry for exchange in found for entry in exchange["response"].values()]


def test_history_entries_have_the_shape_of_the_recorded_ones(recordings: Path) -> None:
    count = 0
    for name, items in recorded(recordings):
        for entry in entries(items):
            ended = ended_as(entry)
            got, graph = history_entry(ended, entry["prompt"][2]), entry["prompt"][2]
            assert [(key, shape(got[key])) for key in ("outputs", "meta")] == [
                (key, shape(entry[key])) for key in ("outputs", "meta")
            ], name
            assert list(got) == list(entry)
            assert got["prompt"][1:] == [entry["prompt"][1], graph, entry["prompt"][3], entry["prompt"][4]], name
            assert list(got["status"]) == list(entry["status"])
            for key in ("status_str", "completed"):
                assert got["status"][key] == entry["status"][key], name
            assert [kind for kind, _ in got["status"]["messages"]] == [kind for kind, _ in entry["status"]["messages"]]
            for (_, mine), (_, theirs) in zip(got["status"]["messages"], entry["status"]["messages"], strict=True):
                assert list(mine) == list(theirs), name
            count += 1
    assert count >= 15


def test_queue_items_are_the_recorded_ones(recordings: Path) -> None:
    for _, items in recorded(recordings):
        for exchange in (item["http"] for item in items if "http" in item and item["http"]["path"] == "/queue"):
            for item in (exchange["response"] or {}).get("queue_running", []):
                _, prompt_id, graph, extra, _ = item
                note = {"number": item[0], "client": extra["client_id"]}
                assert queue_item(job("Running", id_=prompt_id, note=note), graph) == item


@pytest.mark.parametrize("seen", [True, False], ids=["every change seen", "only the end seen"])
def test_the_messages_of_a_job_come_in_the_recorded_order_and_shape(recordings: Path, seen: bool) -> None:
    examples: dict[str, list[Any]] = {}
    for _, items in recorded(recordings):
        for message in (item["ws"] for item in items if "ws" in item):
            examples.setdefault(message["type"], []).append(shape(message["data"]))
    for name, items in recorded(recordings):
        if name in ("queue-delete-pending", "success-cached"):
            continue  # two prompts in one: the next test; and no job of ours is ever served from a cache
        theirs = [item["ws"]["type"] for item in items if "ws" in item]
        for entry in entries(items):
            ended, graph = ended_as(entry), entry["prompt"][2]
            got = told(ended, graph, seen)
            assert is_within([kind for kind, _ in got], theirs), (name, [kind for kind, _ in got], theirs)
            for kind, data in got:
                if kind in LISTS_ARE_EMPTY:
                    assert list(data) == [key for key, _ in examples[kind][0]], (name, kind)
                else:
                    assert shape(data) in examples[kind], (name, kind, data)


def told(ended: Job, graph: Object, seen: bool) -> list[tuple[str, Any]]:
    """All that the client of a job hears."""
    note, id_ = ended.note, ended.id
    follow = Follow(str(note["client"]), [])
    steps = [job("Queued", id_=id_, note=note)]
    if seen:
        sampling = {"percent": 20, "stage": "Sample", "step": 1, "steps": 3}
        steps += [
            job("Running", id_=id_, note=note, startTime=STARTED, progress=progress)
            for progress in ({"stage": "Load"}, sampling, {"stage": "Save"})
        ]
    messages = follow.greeting({})
    for one in (*steps, ended):
        messages += follow.changed(one, graph if follow.needs_graph(one) else {})
    return messages


def is_within(some: list[str], all_: list[str]) -> bool:
    """Whether `some` come in this order in `all_`, which has more of the messages about nodes, and those elsewhere."""
    rest = iter(all_)
    nodes = ("progress_state", "executing", "progress")
    return all(any(kind == other for other in rest) for kind in some if kind not in nodes)


def test_a_pending_prompt_that_is_deleted_is_counted_and_leaves_no_trace(recordings: Path) -> None:
    items = traces.load(recordings / "traces" / "queue-delete-pending.jsonl")
    counts = [
        item["ws"]["data"]["status"]["exec_info"]["queue_remaining"]
        for item in items
        if "ws" in item and item["ws"]["type"] == "status"
    ]
    first, second = (exchange["request"] for exchange in prompts(items))
    note = {"client": first["client_id"]}
    running = job("Running", id_=first["prompt_id"], note=note, startTime=STARTED)
    follow = Follow(str(note["client"]), [])
    heard = follow.greeting({})
    for one in (
        job("Queued", id_=first["prompt_id"], note=note),
        running,
        job("Queued", id_=second["prompt_id"], note={"client": second["client_id"]}),
        job("Queued", id_=second["prompt_id"], note={"client": second["client_id"]}, cancel=True),
        job("Cancelled", id_=second["prompt_id"], note={"client": second["client_id"]}, completionTime=ENDED),
        job("Succeeded", id_=first["prompt_id"], note=note, startTime=STARTED, completionTime=ENDED),
    ):
        heard += follow.changed(one, {})
    mine = [data["status"]["exec_info"]["queue_remaining"] for kind, data in heard if kind == "status"]
    assert mine == [0, 1, 1, 2, 1, 0]
    assert [count for count, _ in groupby(mine)] == [count for count, _ in groupby(counts)]


def test_system_stats_have_every_field(recordings: Path) -> None:
    items = traces.load(recordings / "traces" / "queue-delete-pending.jsonl")
    [wanted] = [item["http"]["response"] for item in items if item.get("http", {}).get("path") == "/system_stats"]
    got = system_stats(servers(*SERVERS))
    assert list(got["system"]) == list(wanted["system"])
    assert list(got["devices"][0]) == list(wanted["devices"][0])


# --- renders that the engine itself tells of --------------------------------------------------------------------------

BY_THE_ENGINE = ("execution_start", "execution_cached", "progress_state", "executing", "progress")


def of_prompt(items: list[Object], prompt_id: str) -> list[Object]:
    """The messages about one prompt."""
    messages = [item["ws"] for item in items if "ws" in item]
    return [one for one in messages if one["data"].get("prompt_id") == prompt_id]


def told_by_the_engine(ended: Job, graph: Object, messages: list[Object]) -> list[tuple[str, Any]]:
    """All that the client hears when the agent passes on what the engine says, over the wire and back."""
    running = job("Running", id_=ended.id, note=ended.note, startTime=STARTED, progress={"stage": "Load"}, attempt=1)
    follow, course = Follow(str(ended.note["client"]), []), Course()
    heard = follow.changed(running, graph, quiet=True)
    for message in messages:
        event = event_of(message)
        said = None if event is None else live_event(event)
        if said is not None and course.note(said):
            assert parsed(line(said)) == said
            heard += follow.heard(running, [said])
    return heard + follow.changed(ended, graph)


def test_what_engines_say_reaches_the_client_as_a_comfyui_would_have_said_it(recordings: Path) -> None:
    count = 0
    for name, items in recorded(recordings):
        for entry in entries(items):
            ended, graph = ended_as(entry), entry["prompt"][2]
            theirs = _pairs(of_prompt(items, ended.id))
            got = [one for one in told_by_the_engine(ended, graph, of_prompt(items, ended.id)) if one[0] != "status"]
            if any(data["nodes"] for kind, data in theirs if kind == "execution_cached"):
                # A cached node's own progress_state is left out: the next sum has it.
                got, theirs = ([one for one in told if one[0] != "progress_state"] for told in (got, theirs))
            assert [kind for kind, _ in got] == [kind for kind, _ in theirs], name
            for (kind, mine), (_, wanted) in zip(got, theirs, strict=True):
                if kind in BY_THE_ENGINE and not traces.is_middle({"type": kind, "data": wanted}):  # it was cut there
                    assert timeless(mine) == timeless(wanted), name
                    assert list(mine) == list(wanted), name
            count += 1
    assert count >= 15


def timeless(data: Object) -> Object:
    """Without the time, and what is a set as one."""
    kept = {key: value for key, value in data.items() if key != "timestamp"}
    return {**kept, "nodes": sorted(kept["nodes"])} if isinstance(kept.get("nodes"), list) else kept


def test_nodes_that_the_engine_has_cached_are_told_as_it_tells_them(recordings: Path) -> None:
    items = traces.load(recordings / "traces" / "success-cached.jsonl")
    ended, graph = next(
        (ended_as(entry), entry["prompt"][2])
        for entry in entries(items)
        if any(message[1].get("nodes") for message in entry["status"]["messages"])
    )
    theirs = of_prompt(items, ended.id)
    got = told_by_the_engine(ended, graph, theirs)
    [mine], [wanted] = ([one for one in told if one[0] == "execution_cached"] for told in (got, _pairs(theirs)))
    assert set(mine[1]["nodes"]) == set(wanted[1]["nodes"])
    kinds = [kind for kind, _ in got]
    assert kinds[:3] == ["status", "execution_start", "execution_cached"]
    assert "executing" not in kinds[:-1]
    assert kinds[-4:] == ["executed", "execution_success", "status", "executing"]


def _pairs(messages: list[Object]) -> list[tuple[str, Any]]:
    return [(one["type"], one["data"]) for one in messages]
