"""What a stager does about a job, and what it concludes: tables on plain objects."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kinora.api.intake import choose_store, claim_store
from kinora.catalogue.load import load_catalogue
from kinora.media.info import MediaInfo
from kinora.recipes.faults import InvalidSpec
from kinora.stager.decide import Concluded, Found, Work, conclude, decide, judged
from kinora.stager.verdict import Refusal
from unit.controller.builders import VACE, job, server
from unit.workflows.made import node, sound

Object = dict[str, Any]
URL = {"url": "https://x.example/a?Signature=secret"}
CLAIM = {"claim": {"name": "films", "path": "a.mp4"}}
IMAGE = MediaInfo("Image", 600, 400, 1, 0.0, 0.0, "JPEG")
VIDEO = MediaInfo("Video", 640, 360, 40, 16.0, 2.5, "h264")
SERVERS = [server()]  # its claim is videos


def asked(**spec: Any) -> Object:
    return job(**{"task": "ImageToVideo", "inputs": {"image": URL}, **spec})


def work_on(made: Object, servers: list[Object] | None = None, claim: str = "videos") -> Work | None:
    return decide(made, SERVERS if servers is None else servers, load_catalogue(), claim_store(claim))


def found(info: MediaInfo) -> Found:
    return Found("0" * 64, 1234, info)


# --- whose job


def test_a_pending_job_with_a_url_is_work() -> None:
    work = work_on(asked())
    assert work is not None
    assert [one.name for one in work.inputs] == ["image"]
    assert work.resolved is not None
    assert (work.model.name, work.resolved.inputs) == (VACE, ("image",))


def _condition(status: str) -> Object:
    return {"phase": "Pending", "conditions": [{"type": "InputsReady", "status": status}]}


@pytest.mark.parametrize(
    "made",
    [
        asked(cancel=True),
        {**asked(), "status": {"phase": "Queued"}},
        {**asked(), "status": {"phase": "Failed"}},
        {**asked(), "status": _condition("True")},
        {**asked(), "status": _condition("False")},
        {**asked(), "metadata": {**asked()["metadata"], "deletionTimestamp": "2026-05-01T12:00:00Z"}},
        asked(inputs={"image": CLAIM}),
        asked(task="TextToVideo", inputs={}),
        asked(model="wan9"),
        asked(model=None, modelServerName="none"),
        asked(parameters={"frames": 9999}),
        asked(parameters={"width": 100}),
        asked(parameters={"frames": "many"}),
        asked(inputs={"image": URL, "video": URL}),
    ],
    ids=["cancelled", "queued", "ended", "done", "refused", "deleted", "claim", "text", "model", "server", "frames",
         "size", "type", "useless"],
)  # fmt: skip
def test_a_job_that_is_no_work(made: Object) -> None:
    assert work_on(made) is None


def test_a_job_that_is_tried_again_or_suspended_is_work() -> None:
    assert work_on({**asked(), "status": _condition("Unknown")}) is not None
    assert work_on(asked(suspend=True)) is not None


def test_only_the_chosen_store_s_stager_takes_it() -> None:
    servers = [server(name="a", artifacts={"claimName": "one"}), server(name="b", artifacts={"claimName": "two"})]
    made = asked()
    chosen = choose_store(made["metadata"]["uid"], {claim_store("one"), claim_store("two")})
    assert chosen is not None
    assert [claim for claim in ("one", "two", "videos") if work_on(made, servers, claim)] == [chosen.name]
    named = asked(model=None, modelServerName="b")
    assert [claim for claim in ("one", "two") if work_on(named, servers, claim)] == ["two"]
    assert work_on(made, []) is None


def test_an_alias_is_the_model_that_it_stands_for() -> None:
    catalogue = load_catalogue().with_aliases({"hosted": VACE})
    assert decide(asked(model="hosted"), SERVERS, catalogue, claim_store("videos")) is not None


# --- conclusions


def concluded(made: Object, **infos: MediaInfo) -> Concluded | Refusal:
    work = work_on(made)
    assert work is not None
    return conclude(work, {name.replace("_0", "[0]"): found(info) for name, info in infos.items()})


def test_what_was_found_stands_in_status() -> None:
    outcome = concluded(asked(), image=IMAGE)
    assert isinstance(outcome, Concluded)
    entry = {"name": "image", "sha256": "0" * 64, "bytes": 1234}
    assert outcome.inputs == [{**entry, "width": 600, "height": 400}]
    assert outcome.resolved is not None
    assert outcome.resolved["inputs"] == ["image"]
    assert len(outcome.resolved["graphHash"]) == 64


def test_a_video_has_frames_a_rate_and_a_length() -> None:
    outcome = concluded(asked(task="VideoToVideo", inputs={"video": URL}, parameters={"frames": 9}), video=VIDEO)
    assert isinstance(outcome, Concluded)
    assert {name: outcome.inputs[0][name] for name in ("frames", "fps", "durationSeconds")} == {
        "frames": 40,
        "fps": 16.0,
        "durationSeconds": 2.5,
    }


@pytest.mark.parametrize(
    ("made", "infos", "words"),
    [
        (asked(), {"image": VIDEO}, "spec.inputs.image is a file of kind Video; allowed: one image"),
        (asked(task="VideoToVideo", inputs={"video": URL}), {"video": VIDEO}, "allowed: at least 49 frames"),
        (asked(task="VideoToVideo", inputs={"video": URL}), {"video": IMAGE}, "allowed: one video"),
        (
            asked(task="VideoToVideo", inputs={"video": URL}, parameters={"frames": 49}),
            {"video": VIDEO},
            "spec.inputs.video is a video of 40 frames at 16 fps",
        ),
        (
            asked(task="Extend", inputs={"firstClip": URL, "lastClip": URL}, parameters={"frames": 5}),
            {"firstClip": VIDEO, "lastClip": VIDEO},
            "spec.parameters.frames is 5; allowed: at least 9 frames",
        ),
    ],
)
def test_what_is_not_what_the_task_needs_is_refused(made: Object, infos: dict[str, MediaInfo], words: str) -> None:
    outcome = concluded(made, **infos)
    assert isinstance(outcome, Refusal)
    assert outcome.reason == "InvalidInput"
    assert words in outcome.message


def test_the_size_comes_from_the_source_when_it_is_known() -> None:
    spec = {"task": "FirstLastFrame", "parameters": {"frames": 9}}
    known = concluded(asked(**spec, inputs={"firstFrame": URL, "lastFrame": CLAIM}), firstFrame=IMAGE)
    assert isinstance(known, Concluded)
    assert known.resolved is not None
    assert (known.resolved["outputWidth"], known.resolved["outputHeight"]) == (600, 400)
    later = concluded(asked(**spec, inputs={"firstFrame": CLAIM, "lastFrame": URL}), lastFrame=IMAGE)
    assert isinstance(later, Concluded)
    assert later.resolved is not None
    assert later.resolved["sizeFromInput"] is True
    assert [entry["name"] for entry in later.inputs] == ["lastFrame"]


def test_what_the_agent_sees_is_not_missed_here() -> None:
    made = asked(task="Inpaint", inputs={"video": CLAIM, "mask": {"source": URL}}, parameters={"frames": 9})
    outcome = concluded(made, mask=replace(IMAGE, width=64))
    assert isinstance(outcome, Concluded)
    assert outcome.resolved is not None
    assert outcome.resolved["inputs"] == ["video", "mask"]


# --- raw workflows: the operator judges them, and says whose they are


def raw(sources: list[Object], store: str | None = "pvc://videos/", **spec: Any) -> Object:
    files = [{"name": f"{index}.bin", "source": source} for index, source in enumerate(sources)]
    workflow = {"configMapRef": {"name": "graphs", "key": "a.json"}, "files": files, **spec.pop("workflow", {})}
    made = job({"phase": "Pending", **({"inputStore": store} if store else {})}, task=None, workflow=workflow, **spec)
    made["spec"] = {name: value for name, value in made["spec"].items() if value is not None}
    return made


def test_a_workflow_is_taken_by_the_stager_that_the_operator_chose() -> None:
    work = work_on(raw([CLAIM, URL], inputs={"image": {"upload": "a.png"}}))
    assert work is not None
    assert [one.name for one in work.inputs] == ["image", "files[1]"]
    assert work.resolved is None
    assert work_on(raw([URL], store=None)) is None, "the operator has not judged it yet"
    assert work_on(raw([URL], store="pvc://other/")) is None
    assert work_on(raw([CLAIM])) is None


def test_a_file_of_a_workflow_may_be_either_and_nothing_is_resolved() -> None:
    outcome = concluded(raw([URL, URL]), **{"files[0]": IMAGE, "files[1]": VIDEO})
    assert isinstance(outcome, Concluded)
    assert outcome.resolved is None
    assert [(entry["name"], entry["width"]) for entry in outcome.inputs] == [("files[0]", 600), ("files[1]", 640)]


def test_of_many_files_status_has_name_and_hash() -> None:
    outcome = concluded(raw([URL, *[CLAIM] * 6]), **{"files[0]": IMAGE})
    assert isinstance(outcome, Concluded)
    assert outcome.inputs == [{"name": "files[0]", "sha256": "0" * 64}]


def test_a_file_that_is_not_the_pinned_one_is_refused_before_the_queue() -> None:
    pinned = {"files": [{"name": "a", "source": CLAIM}, {"name": "b", "source": URL, "sha256": "1" * 64}]}
    outcome = concluded(raw([], workflow=pinned), **{"files[1]": IMAGE})
    assert isinstance(outcome, Refusal)
    assert outcome.reason == "InvalidInput"
    assert outcome.message.startswith(f"spec.workflow.files[1].sha256 is {'1' * 64}; allowed: {'0' * 64}")


def test_an_input_of_a_workflow_must_be_of_its_kind() -> None:
    outcome = concluded(raw([], inputs={"image": URL}), image=VIDEO)
    assert isinstance(outcome, Refusal)
    assert outcome.message == "spec.inputs.image is a file of kind Video; allowed: one image"


# --- a graph that lies in the store: judged here

STORED = {"key": "0123456789/" + "a" * 64, "sha256": "a" * 64}


def stored(**spec: Any) -> Object:
    made = job({"phase": "Pending"}, task=None, workflow={"upload": STORED, **spec.pop("workflow", {})}, **spec)
    del made["spec"]["task"]
    made["spec"].pop("prompt", None)
    made["spec"].pop("parameters", None)
    return made


def work_of(*servers: Object, **spec: Any) -> Work:
    work = decide(stored(**spec), list(servers), load_catalogue(), claim_store("videos"))
    assert work is not None
    return work


def test_a_graph_in_the_store_is_taken_without_the_operator_s_word_by_one_stager() -> None:
    work = work_on(stored())
    assert work is not None
    assert work.graph is not None
    assert (work.inputs, work.graph.sha256, work.lists) == ((), "a" * 64, (frozenset(),))
    assert work_on(stored(), claim="other") is None
    assert work_on({**stored(), "status": _condition("True")}) is None


def test_what_is_decided_of_a_graph_in_the_store_is_told_with_the_classes_that_need_a_server() -> None:
    work, graph = work_of(server(allowedNodeClasses=["Glow", "Shine"])), {**sound(), "x": node("Glow")}
    resolved = judged(work, "uid", json.dumps(graph))
    outcome = conclude(work, {}, resolved)
    assert isinstance(outcome, Concluded)
    assert outcome.inputs == []
    assert outcome.resolved is not None
    assert (outcome.resolved["classes"], outcome.resolved["frames"]) == (["Glow"], 81)
    assert "classes" not in judged(work, "uid", json.dumps(sound())).to_status()


def test_a_graph_in_the_store_is_refused_where_no_server_of_this_store_allows_all_of_it() -> None:
    lists = [server(name="a", allowedNodeClasses=["Glow"]), server(name="b", allowedNodeClasses=["Shine"])]
    graph = {**sound(), "x": node("Glow"), "y": node("Shine")}
    with pytest.raises(InvalidSpec, match="Glow, Shine; allowed: those of one ModelServer together"):
        judged(work_of(*lists), "uid", json.dumps(graph))
    elsewhere = server(name="c", allowedNodeClasses=["Glow", "Shine"], artifacts={"claimName": "other"})
    with pytest.raises(InvalidSpec):
        judged(work_of(*lists, elsewhere, modelServerName="a", model=None), "uid", json.dumps(graph))


def test_more_classes_than_a_status_has_room_for_are_refused() -> None:
    names = [f"{'Node' * 20}{index}" for index in range(8)]
    graph = {**sound(), **{f"x{index}": node(name) for index, name in enumerate(names)}}
    with pytest.raises(InvalidSpec, match="names of at most 600 characters"):
        judged(work_of(server(allowedNodeClasses=names)), "uid", json.dumps(graph))
