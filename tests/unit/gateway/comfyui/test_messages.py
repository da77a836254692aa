"""What a websocket hears of jobs as they change."""

from __future__ import annotations

from typing import Any

from kinora.gateway.comfyui.messages import MAX_ENDED, Follow
from kinora.gateway.jobs import Job
from unit.gateway.comfyui.made import CLIENT, ENDED, ENDED_MS, ID, STARTED, STARTED_MS, artifact, job
from unit.workflows.made import sound

OTHER = "6f2b4c1e-0000-4000-8000-000000000002"


def heard(follow: Follow, *jobs: Job) -> list[tuple[str, Any]]:
    return [message for one in jobs for message in follow.changed(one, sound() if follow.needs_graph(one) else {})]


def kinds(messages: list[tuple[str, Any]]) -> list[str]:
    return [kind for kind, _ in messages]


def running(**progress: Any) -> Job:
    return job("Running", startTime=STARTED, progress={"percent": 20, **progress})


def succeeded() -> Job:
    return job("Succeeded", startTime=STARTED, completionTime=ENDED, artifacts=[artifact()])


def test_the_whole_story() -> None:
    follow = Follow(CLIENT, [])
    assert follow.greeting({}) == [("status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": CLIENT})]
    assert heard(follow, job("Pending")) == [("status", {"status": {"exec_info": {"queue_remaining": 1}}})]
    assert heard(follow, job("Queued")) == []
    begun = heard(follow, running(stage="Load"))
    assert kinds(begun) == ["status", "execution_start", "execution_cached", "progress_state", "executing"]
    assert begun[1][1] == {"prompt_id": ID, "timestamp": STARTED_MS}
    assert begun[4][1] == {"node": "11", "display_node": "11", "prompt_id": ID}
    sampling = heard(follow, running(stage="Sample", step=5, steps=20))
    assert kinds(sampling) == ["progress_state", "progress_state", "executing", "progress_state", "progress"]
    assert sampling[-1][1] == {"value": 5, "max": 20, "prompt_id": ID, "node": "24"}
    assert [node["state"] for node in sampling[3][1]["nodes"].values()] == ["finished", "running"]
    ended = heard(follow, succeeded())
    assert kinds(ended) == [
        *("progress_state", "progress_state", "executing", "executed", "progress_state"),
        *("execution_success", "status", "executing"),
    ]
    assert ended[3][1]["output"]["gifs"][0]["filename"] == f"out_{ID}_00001.mp4"
    assert ended[5][1] == {"prompt_id": ID, "timestamp": ENDED_MS}
    assert ended[6][1] == {"status": {"exec_info": {"queue_remaining": 0}}}
    assert ended[7][1] == {"node": None, "prompt_id": ID}
    assert heard(follow, succeeded()) == []


def test_the_same_progress_is_told_once() -> None:
    follow = Follow(CLIENT, [])
    heard(follow, running(stage="Sample", step=5, steps=20))
    assert heard(follow, running(stage="Sample", step=5, steps=20)) == []
    assert kinds(heard(follow, running(stage="Sample", step=6, steps=20))) == ["progress_state", "progress"]


def test_changes_that_nobody_saw_leave_no_gap_in_the_story() -> None:
    told = kinds(heard(Follow(CLIENT, []), succeeded()))
    assert told[:2] == ["execution_start", "execution_cached"]
    assert told[-3:] == ["execution_success", "status", "executing"]


def test_a_failure() -> None:
    follow = Follow(CLIENT, [job("Queued")])
    failure = {"reason": "EngineError", "message": "no", "node": "KSampler"}
    failed = job("Failed", startTime=STARTED, completionTime=ENDED, reason="EngineError", lastFailure=failure)
    told = heard(follow, running(stage="Sample"), failed)
    assert kinds(told)[-3:] == ["execution_error", "status", "executing"]
    assert told[-3][1]["node_id"] == "24"
    assert "executed" not in kinds(told)


def test_a_failure_before_the_start_ends_the_story_too() -> None:
    told = heard(Follow(CLIENT, [job("Queued")]), job("Failed", completionTime=ENDED, reason="InvalidInput"))
    assert kinds(told) == ["execution_error", "status", "executing"]


def test_an_interrupt() -> None:
    told = heard(Follow(CLIENT, []), running(stage="Load"), job("Cancelled", startTime=STARTED, completionTime=ENDED))
    assert kinds(told)[-3:] == ["execution_interrupted", "status", "executing"]


def test_a_prompt_deleted_while_it_waits_is_only_counted() -> None:
    follow = Follow(CLIENT, [job("Queued")])
    assert heard(follow, job("Queued", cancel=True)) == [("status", {"status": {"exec_info": {"queue_remaining": 0}}})]
    assert kinds(heard(follow, job("Cancelled", completionTime=ENDED))) == ["status"]


def test_other_clients_and_other_dialects_are_only_counted() -> None:
    follow = Follow("somebody-else", [])
    told = heard(follow, job("Queued"), running(stage="Sample", step=1, steps=2), succeeded())
    assert told == [("status", {"status": {"exec_info": {"queue_remaining": n}}}) for n in (1, 1, 0)]
    assert heard(Follow(CLIENT, []), job("Succeeded", note={}, id_=OTHER)) == []


def test_a_retry_does_not_start_the_story_anew() -> None:
    follow = Follow(CLIENT, [])
    told = heard(follow, running(stage="Load"), job("Queued", startTime=STARTED), running(stage="Load"), succeeded())
    assert kinds(told).count("execution_start") == 1


def test_a_client_that_comes_back_is_told_what_runs_and_then_the_rest() -> None:
    now = running(stage="Sample", step=3, steps=20)
    follow = Follow(CLIENT, [now])
    greeting = follow.greeting({ID: (now, sound())})
    assert [kind for kind, _ in greeting] == ["status", "executing"]
    assert greeting[0][1]["status"]["exec_info"]["queue_remaining"] == 1
    assert greeting[1][1] == {"node": "24"}
    told = kinds(heard(follow, running(stage="Sample", step=4, steps=20), succeeded()))
    assert "execution_start" not in told
    assert told[:2] == ["progress_state", "progress"]
    assert told[-1] == "executing"


def test_what_ended_before_is_not_told() -> None:
    assert heard(Follow(CLIENT, [succeeded()]), succeeded()) == []


def test_a_record_that_is_removed_is_counted_out() -> None:
    follow = Follow(CLIENT, [job("Queued")])
    assert follow.only({ID}) == []
    assert kinds(follow.only(())) == ["status"]
    assert follow.only(()) == []


def test_ends_of_long_ago_are_no_news_though_there_are_more_than_are_remembered() -> None:
    def ended(index: int, **more: Any) -> Job:
        time = f"2026-11-21T{10 + index // 3600:02}:{index // 60 % 60:02}:{index % 60:02}Z"
        return job(
            "Succeeded", id_=f"6f2b4c1e-0000-4000-8000-{index:012}", startTime=STARTED, completionTime=time, **more
        )

    follow = Follow(CLIENT, [ended(index) for index in range(MAX_ENDED + 100)])
    assert heard(follow, ended(5), ended(MAX_ENDED + 50)) == []
    assert kinds(heard(follow, ended(MAX_ENDED + 200)))[-1] == "executing"
    assert kinds(follow.greeting({})) == ["status"]
