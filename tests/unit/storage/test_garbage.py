"""Which objects may go: never one that a status names, one of an unfinished job, one that is fresh, or a stranger's."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kinora.storage.garbage import SAFETY_SECONDS, Census, Garbage, Keep, Listed, Why, facts_of, garbage
from kinora.storage.keys import artifact_key, input_key

NOW = 1_800_000_000.0
DAY = 86_400.0
UIDS = [f"0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e{number:02x}" for number in range(4)]
SHAS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]
GATEWAYS = "gw-0123456789-5f9f4bb2-8f5c-4f0e-9d0c-3b1a3f6f2c11"
ALL = Keep(lost=0, gone=0, inputs=0)

Object = dict[str, Any]


def key(uid: str = UIDS[0], attempt: int = 1, job: str = "cup", namespace: str = "films", **more: Any) -> str:
    return artifact_key(namespace=namespace, name=job, uid=uid, attempt=attempt, filename="cup.mp4", **more)


def job(
    uid: str = UIDS[0], phase: str = "Succeeded", named: tuple[str, ...] = (), inputs: tuple[str, ...] = ()
) -> Object:
    status: Object = {"phase": phase, "artifacts": [{"uri": f"pvc://videos/{one}"} for one in named]}
    status["inputs"] = [{"name": "image", "sha256": sha256} for sha256 in inputs]
    return {"metadata": {"uid": uid, "name": "cup"}, "status": status}


def found(*listed: str, jobs: list[Object] | None = None, keep: Keep = ALL, age: float = DAY) -> list[tuple[str, Why]]:
    census = Census.of(facts_of(one) for one in jobs or [])
    objects = [Listed(one, 5, NOW - age) for one in listed]
    return [(one.key, one.why) for one in garbage(objects, census, keep, namespace="films", now=NOW)]


def test_a_lost_attempt_of_a_finished_job_goes_and_what_it_published_stays() -> None:
    lost, published = key(attempt=1), key(attempt=2)
    jobs = [job(named=(published,))]
    assert found(lost, published, jobs=jobs) == [(lost, Why.LOST_ATTEMPT)]
    assert found(lost, published, jobs=jobs, keep=Keep(gone=0, inputs=0)) == []


def test_nothing_of_an_unfinished_job_goes() -> None:
    for phase in ("Pending", "Queued", "Scheduled", "Running", "Finalizing", "OfANewerVersion"):
        jobs = [job(phase=phase, inputs=(SHAS[0],))]
        assert found(key(), key(attempt=3), input_key(SHAS[0]), jobs=jobs) == [], phase
    assert found(key(), jobs=[{"metadata": {"uid": UIDS[0]}}]) == [], "a job without a status"


def test_an_input_is_needed_by_unfinished_jobs_alone() -> None:
    one = input_key(SHAS[0])
    finished, waiting = job(inputs=(SHAS[0],)), job(UIDS[1], "Queued", inputs=(SHAS[0],))
    assert found(one, jobs=[finished]) == [(one, Why.INPUT_UNUSED)]
    assert found(one, jobs=[finished, waiting]) == []
    assert found(one, jobs=[finished], keep=Keep(lost=0, gone=0)) == []


def test_a_graph_in_the_store_stays_while_its_job_is_unfinished() -> None:
    graph = {"spec": {"workflow": {"upload": {"key": "graphs/vace.json", "sha256": SHAS[0]}}}}
    assert found(input_key(SHAS[0]), jobs=[job(phase="Queued") | graph]) == []
    assert found(input_key(SHAS[0]), jobs=[job() | graph]) == [(input_key(SHAS[0]), Why.INPUT_UNUSED)]


def test_a_job_that_is_gone_leaves_garbage_and_one_of_the_same_name_does_not_save_it() -> None:
    assert found(key(), jobs=[job(UIDS[1])]) == [(key(), Why.JOB_GONE)]
    prefixed = key(prefix="2026/may")
    assert found(prefixed) == [(prefixed, Why.JOB_GONE)]


def test_the_gateways_own_time_is_that_of_its_jobs_alone() -> None:
    keep = Keep(gone_gateway=7 * DAY)
    theirs, own = key(job=GATEWAYS), key(job="gw-cup")
    assert found(theirs, own, keep=keep, age=8 * DAY) == [(theirs, Why.JOB_GONE)]
    assert found(theirs, own, keep=keep, age=6 * DAY) == []
    assert found(theirs, jobs=[job(named=(theirs,))], keep=keep, age=800 * DAY) == []


def test_what_is_fresh_stays_whatever_is_asked_for() -> None:
    assert found(key(), input_key(SHAS[0]), age=SAFETY_SECONDS - 1) == []
    assert len(found(key(), input_key(SHAS[0]), age=SAFETY_SECONDS)) == 2
    assert found(key(), age=-5 * DAY) == [], "a clock that is ahead"


def test_what_an_agent_that_died_was_writing_goes_with_its_attempt() -> None:
    partial = f"{key().rpartition('/')[0]}/.0-cup.mp4.0123456789abcdef.partial"
    assert found(partial, jobs=[job(named=(key(),))]) == [(partial, Why.LOST_ATTEMPT)]
    assert found(partial, jobs=[job(phase="Running")]) == []


def test_what_no_key_of_ours_could_be_stays_where_somebody_has_put_it() -> None:
    uid = UIDS[3]
    for odd in (f"films/my cup/{uid}/1/0-cup.mp4", f"films/cup/{uid}/1/0-cup of tea.mp4", f"é/{key(uid)}"):
        assert found(odd) == [], odd


def test_strangers_stay() -> None:
    strange = [
        "README",
        "films/cup.mp4",
        f"films/cup/{UIDS[0]}/0-cup.mp4",
        f"films/cup/{UIDS[0]}/one/0-cup.mp4",
        f"films/cup/{UIDS[0]}/0/0-cup.mp4",
        "films/cup/not-a-uid/1/0-cup.mp4",
        f"films/cup/{UIDS[0]}/1/cup.mp4",
        key(namespace="other"),
        f"uploads/films/cup/{UIDS[0]}/1/0-cup.mp4",
        f"names/films/cup/{UIDS[0]}/1/0-cup.mp4",
        f"inputs/films/cup/{UIDS[0]}/1/0-cup.mp4",
        f"inputs/{SHAS[0]}.mp4",
        f"inputs/x/{SHAS[0]}",
        f"uploads/films/0123456789/{SHAS[0]}",
        f"intake/films/{UIDS[0]}/image.json",
    ]
    assert found(*strange) == []


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Listed], list[Object]]:
    """Objects of some jobs, and some jobs: gone, unfinished, finished, with artifacts under this or another root."""
    keys = draw(
        st.lists(
            st.builds(
                key,
                st.sampled_from(UIDS),
                st.integers(1, 3),
                st.sampled_from(["cup", GATEWAYS]),
                index=st.integers(0, 1),
                prefix=st.sampled_from([None, "a/b"]),
            )
            | st.builds(input_key, st.sampled_from(SHAS)),
            max_size=12,
            unique=True,
        )
    )
    listed = [Listed(one, 1, NOW - draw(st.floats(-DAY, 30 * DAY))) for one in keys]
    jobs = []
    for uid in draw(st.lists(st.sampled_from(UIDS), unique=True)):
        made = job(uid, draw(st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Cancelled"])))
        root = draw(st.sampled_from(["pvc://videos/", "s3://bucket/deep/prefix/", "s3://bucket/"]))
        named = draw(st.lists(st.sampled_from(keys), max_size=3)) if keys else []
        made["status"]["artifacts"] = [{"uri": f"{root}{one}"} for one in named]
        made["status"]["inputs"] = [{"sha256": one} for one in draw(st.lists(st.sampled_from(SHAS), max_size=2))]
        jobs.append(made)
    return listed, jobs


@given(worlds(), st.sampled_from([0.0, 2 * DAY]))
def test_never_a_key_that_any_status_names(world: tuple[list[Listed], list[Object]], older: float) -> None:
    listed, jobs = world
    census = Census.of(map(facts_of, jobs))
    going = garbage(listed, census, Keep(older, older, None, older), namespace="films", now=NOW)
    named = {one["uri"] for made in jobs for one in made["status"]["artifacts"]}
    unfinished = [made for made in jobs if made["status"]["phase"] in ("Pending", "Running")]
    needed = {one["sha256"] for made in unfinished for one in made["status"]["inputs"]}
    for one in going:
        assert not any(uri.endswith(f"/{one.key}") for uri in named)
        assert not any(made["metadata"]["uid"] in one.key for made in unfinished)
        assert one.key.removeprefix("inputs/") not in needed
        assert NOW - one.listed.used >= max(older, SAFETY_SECONDS)
        assert one.listed in listed


@given(worlds())
def test_a_job_more_saves_and_never_condemns_an_artifact(world: tuple[list[Listed], list[Object]]) -> None:
    """So what an older list of jobs would keep, a newer one with more of them keeps too."""
    listed, jobs = world

    def gone(known: list[Object]) -> set[str]:
        keys: list[Garbage] = garbage(listed, Census.of(map(facts_of, known)), ALL, namespace="films", now=NOW)
        return {one.key for one in keys}

    for one in jobs:
        assert gone(jobs) <= gone([other for other in jobs if other is not one])
