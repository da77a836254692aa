"""Queue items, history entries and names of files, made of jobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.gateway.comfyui.answer import history_entry, in_history, in_queue, number_of, outputs_of, queue_item
from kinora.gateway.comfyui.names import BadName, result_name, result_of, upload_path
from unit.gateway.comfyui.made import CLIENT, ENDED, ENDED_MS, ID, STARTED, STARTED_MS, artifact, job
from unit.workflows.made import node, sound

TIMES = {"startTime": STARTED, "completionTime": ENDED}
STEPS = [
    ["execution_start", {"prompt_id": ID, "timestamp": STARTED_MS}],
    ["execution_cached", {"nodes": [], "prompt_id": ID, "timestamp": STARTED_MS}],
]


def test_a_job_that_waits() -> None:
    assert queue_item(job("Queued"), sound()) == [3, ID, sound(), {"client_id": CLIENT}, ["32"]]
    assert queue_item(job("Queued", note={"number": -4.5}), {}) == [-4.5, ID, {}, {}, []]


def test_a_success_lists_its_files_by_node_under_names_that_lead_back() -> None:
    done = job("Succeeded", artifacts=[artifact()], **TIMES)
    entry = history_entry(done, sound())
    assert entry["prompt"] == [3, ID, sound(), {"client_id": CLIENT}, ["32"]]
    name = f"out_{ID}_00001.mp4"
    assert entry["outputs"] == {
        "32": {
            "gifs": [
                {
                    "filename": name,
                    "subfolder": "video",
                    "type": "output",
                    "format": "video/h264-mp4",
                    "frame_rate": 16.0,
                }
            ]
        }
    }
    assert entry["status"] == {
        "status_str": "success",
        "completed": True,
        "messages": [*STEPS, ["execution_success", {"prompt_id": ID, "timestamp": ENDED_MS}]],
    }
    assert list(entry["meta"]) == ["32"]
    assert result_of(name) == (ID, 0)


def test_a_video_of_save_video_is_an_image_that_is_animated() -> None:
    graph = {"34": node("SaveVideo", video=["33", 0], filename_prefix="job/save")}
    saved = artifact("34", "images", filename="uid-1-34_00001_.mp4")
    assert outputs_of(job("Succeeded", artifacts=[saved]), graph) == {
        "34": {
            "images": [{"filename": f"save_{ID}_00001_.mp4", "subfolder": "job", "type": "output"}],
            "animated": [True],
        }
    }


def test_a_failure_is_an_error_without_outputs() -> None:
    failure = {"reason": "EngineError", "message": "out of memory", "node": "KSampler", "attempt": 1}
    failed = job("Failed", reason="EngineError", message="out of memory", lastFailure=failure, **TIMES)
    entry = history_entry(failed, sound())
    assert entry["outputs"] == entry["meta"] == {}
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
    [*begun, (kind, told)] = entry["status"]["messages"]
    assert begun == STEPS
    assert kind == "execution_error"
    assert (told["node_id"], told["node_type"]) == ("24", "KSampler")
    assert (told["exception_type"], told["exception_message"]) == ("EngineError", "out of memory")


def test_a_failure_before_the_start_says_nothing_of_a_start() -> None:
    entry = history_entry(job("Failed", reason="InvalidInput", message="x", completionTime=ENDED), sound())
    assert [kind for kind, _ in entry["status"]["messages"]] == ["execution_error"]


def test_a_cancelled_job_is_interrupted_and_one_that_never_ran_leaves_no_trace() -> None:
    stopped = job("Cancelled", reason="Cancelled", **TIMES)
    assert in_history(stopped)
    assert history_entry(stopped, sound())["status"]["messages"][-1][0] == "execution_interrupted"
    assert history_entry(stopped, sound())["status"]["status_str"] == "error"
    assert not in_history(job("Cancelled", completionTime=ENDED))


def test_what_is_cancelled_while_it_waits_is_out_of_the_queue_at_once() -> None:
    assert in_queue(job("Queued"))
    assert not in_queue(job("Queued", cancel=True))
    assert in_queue(job("Running", cancel=True))
    assert not in_queue(job("Succeeded"))


def test_a_job_of_another_dialect_has_an_empty_graph_and_its_files() -> None:
    other = job("Succeeded", note={}, artifacts=[artifact("9", "")], **TIMES)
    entry = history_entry(other, {})
    assert entry["prompt"][2:] == [{}, {}, ["9"]]
    [file] = entry["outputs"]["9"]["gifs"]
    assert file["filename"] == f"video_{ID}_00001.mp4"
    assert number_of(other) == STARTED_MS - 5000


@given(prefix=st.text(max_size=80), index=st.integers(0, 7), filename=st.text(max_size=40))
def test_every_name_leads_back_to_its_job_and_out_of_no_folder(prefix: str, index: int, filename: str) -> None:
    done = job("Succeeded", artifacts=[artifact(filename=filename)] * 8)
    subfolder, name = result_name(done, done.artifacts[index], prefix)
    assert result_of(name) == (ID, index)
    assert "/" not in name
    assert not {"..", "."} & set(subfolder.split("/"))


@pytest.mark.parametrize(
    "name",
    ["", "a.mp4", "../etc/passwd", f"{ID}.mp4", f"a_{ID}_00000.mp4", f"a_{ID}_1.mp4", f"a_{ID.upper()}_00001.mp4",
     f"a_{ID}_00001.mp4/..", f"a_{ID}_00001.mp4.x"],
)  # fmt: skip
def test_names_that_are_no_results(name: str) -> None:
    assert result_of(name) is None


@pytest.mark.parametrize(
    ("subfolder", "filename", "path"),
    [
        ("", "a.png", "a.png"),
        ("clipspace", "照片 (1).png", "clipspace/照片 (1).png"),
        ("a//b/.", "./c.png", "a/b/c.png"),
        ("a\\b", "c.png", "a/b/c.png"),
    ],
)
def test_paths_of_uploads(subfolder: str, filename: str, path: str) -> None:
    assert upload_path(subfolder, filename) == path


@pytest.mark.parametrize(
    ("subfolder", "filename"),
    [("..", "a.png"), ("/a", "a.png"), ("a/../..", "a.png"), ("", "../a.png"), ("", ""), ("", "/etc/passwd"),
     ("", "a\n.png"), ("", "C:a.png"), ("", "a/"), ("~", "a.png"), ("", "x" * 300), ("a", "."), ("a", "b/..")],
)  # fmt: skip
def test_paths_that_lead_elsewhere(subfolder: str, filename: str) -> None:
    with pytest.raises(BadName):
        upload_path(subfolder, filename)
