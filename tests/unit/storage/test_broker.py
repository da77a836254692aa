"""What a broker grants: pure decisions over jobs and asks, held against every other job, attempt, pod and key."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kinora.api.intake import artifacts_named, fetched_names
from kinora.api.videojob import VideoJobSpec
from kinora.recipes.needs import named_inputs
from kinora.storage.broker.asks import MAX_PARTS, MAX_PIECE, Action, Ask, AskError, parsed, wanted, wire
from kinora.storage.broker.grant import Caller, Refused, caller_of, check, checked_job, is_own, source_name
from kinora.storage.keys import MAX_KEY_BYTES, KeyRefused, artifact_key, is_artifact_key

Object = dict[str, Any]
UID, OTHER_UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55", "1b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
ROOT, SHA, POD = "s3://films/a/", "ab" * 32, "pod-uid"
CALLER = Caller("films", "vace-0", POD)
MD5 = "1B2M2Y8AsgTpgAmY7PhCfg=="
EXTRA: Object = {
    Action.CREATE: {"bytes": 3, "md5": MD5, "sha256": SHA, "contentType": "video/mp4"},
    Action.BEGIN: {"sha256": SHA, "contentType": "video/mp4"},
    Action.PART: {"upload": "u-1", "part": 2, "bytes": 3, "md5": MD5},
    Action.COMPLETE: {"upload": "u-1", "bytes": 3},
    Action.ABORT: {"upload": "u-1"},
}
WRITES = sorted(set(Action) - {Action.LOOK, Action.READ})


def job_of(name: str = "cup", uid: str = UID, spec: Object | None = None, **status: Any) -> Object:
    told = {"phase": "Running", "attempt": 2, "assignment": {"podUID": POD}, **status}
    return {"metadata": {"namespace": "films", "name": name, "uid": uid}, "spec": spec or {}, "status": told}


def ask_of(job: Object, key: str, action: Action = Action.READ, attempt: int = 2) -> Ask:
    metadata = job["metadata"]
    claim = {"name": metadata["name"], "uid": metadata["uid"], "attempt": attempt}
    return Ask.model_validate({"job": claim, "action": action, "key": key, **EXTRA.get(action, {})})


def key_of(job: Object, attempt: int = 2, filename: str = "cup.mp4", index: int = 0) -> str:
    metadata, prefix = job["metadata"], (job["spec"].get("output") or {}).get("keyPrefix")
    return artifact_key(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"], attempt=attempt,
        filename=filename, index=index, prefix=prefix,
    )  # fmt: skip


def refusal(ask: Ask, job: Object | None, caller: Caller = CALLER, source: Object | None = None) -> str:
    """The code of the refusal; empty: granted."""
    try:
        check(ask, checked_job(ask, caller, job), ROOT, source)
    except Refused as refused:
        return refused.code
    return ""


# --- whose


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, ""),
        ({"phase": "Scheduled"}, ""),
        ({"phase": "Finalizing"}, ""),
        ({"released": {"attempt": 1}}, ""),
        ({"phase": "Succeeded"}, "Ended"),
        ({"phase": "Failed"}, "Ended"),
        ({"phase": "Cancelled"}, "Ended"),
        ({"assignment": {"podUID": "another"}}, "NotBoundHere"),
        ({"assignment": None}, "NotBoundHere"),
        ({"assignment": {}}, "NotBoundHere"),
        ({"attempt": 3}, "OtherAttempt"),
        ({"attempt": 1}, "OtherAttempt"),
        ({"attempt": None}, "OtherAttempt"),
        ({"released": {"attempt": 2}}, "GivenUp"),
    ],
)
def test_a_job_is_its_pods_for_one_attempt_while_it_lasts(change: Object, code: str) -> None:
    job = job_of(**change)
    for action in Action:
        assert refusal(ask_of(job, key_of(job), action), job) == code, action


def test_a_job_that_is_not_the_asked_one_is_none() -> None:
    job = job_of()
    ask = ask_of(job, key_of(job))
    assert refusal(ask, None) == "NoSuchJob"
    assert refusal(ask, job_of(uid=OTHER_UID)) == "NoSuchJob"
    elsewhere = copy.deepcopy(job)
    elsewhere["metadata"]["namespace"] = "other"
    assert refusal(ask, elsewhere) == "NoSuchJob"
    assert refusal(ask, {**job, "status": {}}) == "NotBoundHere"


def reviewed(**change: Any) -> Object:
    extra = {"authentication.kubernetes.io/pod-name": ["vace-0"], "authentication.kubernetes.io/pod-uid": [POD]}
    return {"username": "system:serviceaccount:films:kinora-agent", "extra": extra, **change}


def test_a_caller_is_an_agent_of_the_namespace_in_its_pod() -> None:
    assert caller_of(reviewed(), "films", "kinora-agent") == CALLER
    for name in (
        "system:serviceaccount:other:kinora-agent", "system:serviceaccount:films:kinora-stager",
        "system:serviceaccount:films:kinora-agent2", "kinora-agent", "", None,
        "system:serviceaccount:films:x:kinora-agent",
    ):  # fmt: skip
        with pytest.raises(Refused) as caught:
            caller_of(reviewed(username=name), "films", "kinora-agent")
        assert caught.value.code == "NotAnAgent"
    for extra in (
        None,
        {},
        {"authentication.kubernetes.io/pod-uid": []},
        {"authentication.kubernetes.io/pod-uid": [""]},
    ):
        with pytest.raises(Refused) as caught:
            caller_of(reviewed(extra=extra), "films", "kinora-agent")
        assert caught.value.code == "NotBound"


# --- which keys

NAMES = st.from_regex(r"[a-z0-9]{1,6}(-[a-z0-9]{1,6})?", fullmatch=True)
FILENAMES = st.text(max_size=120)
PREFIXES = st.none() | st.from_regex(r"[a-z0-9_]{1,5}(/[a-z0-9_]{1,5}){0,2}/?", fullmatch=True)


@given(NAMES, NAMES, st.integers(1, 50), FILENAMES, st.integers(0, 7), PREFIXES)
def test_every_key_of_an_attempt_is_its_own_and_of_no_other_job_or_attempt(
    name: str, other: str, attempt: int, filename: str, index: int, prefix: str | None
) -> None:
    job = job_of(name, spec={"output": {"keyPrefix": prefix}}, attempt=attempt)
    key = key_of(job, attempt, filename, index)
    assert is_own(key, job, attempt)
    assert not is_own(key, job, attempt + 1)
    assert not is_own(key, job_of(name, uid=OTHER_UID, spec=job["spec"]), attempt)
    if other != name:
        assert not is_own(key, job_of(other, spec=job["spec"]), attempt)
    assert not is_own(f"x/{key}", job, attempt)
    assert not is_own(f"{key}/x", job, attempt)
    for action in Action:
        assert refusal(ask_of(job, key, action, attempt), job) == ""


@given(st.text(max_size=200))
def test_a_key_that_is_an_attempts_own_is_what_the_function_of_keys_makes(text: str) -> None:
    """Whatever is asked for: what is granted has a canonical form, and lies in the attempt's folder."""
    place = f"films/cup/{UID}/2"
    for key in (text, f"{place}/{text}", f"{place}/0-{text}"):
        if is_artifact_key(key, namespace="films", name="cup", uid=UID, attempt=2):
            folder, _, last = key.rpartition("/")
            assert folder == place
            assert last[:2] in {f"{index}-" for index in range(8)}
            assert len(key) <= MAX_KEY_BYTES
            assert last.isascii()
            assert not set(last) & set(" \t\r\n%?#&\\")


def test_an_index_that_no_status_could_name_is_nobodys() -> None:
    job = job_of()
    assert refusal(ask_of(job, key_of(job, index=7)), job) == ""
    assert refusal(ask_of(job, key_of(job, index=8)), job) == "NotItsKey"
    assert refusal(ask_of(job, key_of(job).replace("/0-", "/00-")), job) == "NotItsKey"


def sourced(**source: Any) -> Object:
    return {"task": "ImageToVideo", "inputs": {"image": source}}


def test_an_input_is_read_where_a_stager_brought_it_for_this_job() -> None:
    told = {"inputStore": ROOT, "inputs": [{"name": "image", "sha256": SHA}]}
    fetched = job_of(spec=sourced(url="https://x.example/a.png"), **told)
    key = f"inputs/{SHA}"
    for action in (Action.LOOK, Action.READ):
        assert refusal(ask_of(fetched, key, action), fetched) == ""
        assert refusal(ask_of(fetched, f"inputs/{'cd' * 32}", action), fetched) == "NotItsKey"
    for action in WRITES:
        assert refusal(ask_of(fetched, key, action), fetched) == "NotItsKey"
    for other in (
        job_of(spec=sourced(configMap={"name": "a", "key": "b"}), **told),  # whose hash the agent itself has told
        job_of(spec=sourced(url="https://x.example/a.png"), **{**told, "inputStore": "s3://films/b/"}),
        job_of(spec=sourced(url="https://x.example/a.png"), **{**told, "inputStore": None}),
        job_of(spec=sourced(url="https://x.example/a.png"), **{**told, "inputs": [{"name": "video", "sha256": SHA}]}),
        job_of(spec=sourced(url="https://x.example/a.png"), **{**told, "inputs": [{"name": "image"}]}),
        job_of(spec=sourced(url="https://x.example/a.png"), **{**told, "inputs": None}),
    ):
        assert refusal(ask_of(other, key), other) == "NotItsKey"


def test_a_graph_that_the_spec_names_by_its_hash_is_read_from_the_jobs_own_store() -> None:
    spec = {"workflow": {"upload": {"key": "0123456789/x", "sha256": SHA}}}
    for root, expected in ((ROOT, ""), ("s3://films/b/", "NotItsKey"), (None, "NotItsKey")):
        job = job_of(spec=spec, inputStore=root)
        assert refusal(ask_of(job, f"inputs/{SHA}"), job) == expected
        assert refusal(ask_of(job, f"inputs/{'cd' * 32}"), job) == "NotItsKey"
        for action in WRITES:
            assert refusal(ask_of(job, f"inputs/{SHA}", action), job) == "NotItsKey"


def test_an_artifact_is_read_that_the_spec_names_and_its_own_job_made() -> None:
    done = job_of("done", OTHER_UID, phase="Succeeded", attempt=3)
    key = key_of(done, attempt=3)
    done["status"]["artifacts"] = [{"uri": f"{ROOT}{key}"}, {"uri": f"{ROOT}{key_of(done, 3, index=1)}"}]
    job = job_of(spec={"inputs": {"video": {"artifact": {"videoJobName": "done", "index": 0}}}})
    ask = ask_of(job, key)
    assert source_name(ask, job) == "done"
    assert refusal(ask, job, source=done) == ""
    assert refusal(ask, job) == "NotItsKey"
    assert refusal(ask_of(job, key_of(done, 3, index=1)), job, source=done) == "NotItsKey", "index 1 is not named"
    for action in WRITES:
        assert source_name(ask_of(job, key, action), job) is None
        assert refusal(ask_of(job, key, action), job, source=done) == "NotItsKey"
    running = {**done, "status": {**done["status"], "phase": "Running"}}
    assert refusal(ask, job, source=running) == "NotItsKey"
    victim = key_of(job_of("victim", "2b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"))
    forged = {**done, "status": {**done["status"], "artifacts": [{"uri": f"{ROOT}{victim}"}]}}
    assert refusal(ask_of(job, victim), job, source=forged) == "NotItsKey", "an agent writes the uri of its own job"
    assert source_name(ask_of(job, victim), job) is None
    elsewhere = {**done, "status": {**done["status"], "artifacts": [{"uri": f"s3://films/b/{key}"}]}}
    assert refusal(ask, job, source=elsewhere) == "NotItsKey"
    assert source_name(ask_of(job, "a/b"), job) is None


def test_what_a_spec_names_is_found_under_the_names_of_staging() -> None:
    url, upload, artifact = (
        {"url": "https://x.example/a"},
        {"upload": "a"},
        {"artifact": {"videoJobName": "d", "index": 2}},
    )
    spec = {
        "model": "wan2.1-vace-1.3b", "task": "Inpaint",
        "inputs": {
            "video": artifact, "mask": {"source": url},
            "references": [{"source": upload}, {"source": artifact}, {"source": url}],
        },
    }  # fmt: skip
    assert fetched_names(spec) == {"mask", "references[0]", "references[2]"}
    assert list(artifacts_named(spec)) == [("d", 2), ("d", 2)]
    graph = {"inline": "{}", "files": [{"name": "a.png", "source": artifact}, {"name": "b.png", "source": url}]}
    raw = {"model": "wan2.1-vace-1.3b", "workflow": graph}
    assert fetched_names(raw) == {"files[1]"}
    for told in (spec, raw):
        parsed_spec = VideoJobSpec.model_validate(told)
        named = {one.name for one in named_inputs(parsed_spec) if one.source.url or one.source.upload}
        assert fetched_names(told) == named


# --- asks


def test_an_ask_is_one_request_and_nothing_that_was_sent_stands_in_it_unlooked_at() -> None:
    job = job_of()
    made = {action: wanted(ask_of(job, "k", action), "a/") for action in Action}
    for action, request in made.items():
        assert parsed(
            Ask.model_dump_json(ask_of(job, "k", action), by_alias=True, exclude_none=True).encode()
        ) == ask_of(job, "k", action)
        assert wire(ask_of(job, "k", action))["action"] == action
        assert request.key == ("" if action is Action.UPLOADS else "a/k")
    assert made[Action.UPLOADS].query == {"prefix": "a/k", "uploads": ""}
    assert made[Action.PART].query == {"partNumber": "2", "uploadId": "u-1"}
    assert made[Action.CREATE].headers == {
        "content-length": "3", "content-md5": MD5, "content-type": "video/mp4", "if-none-match": "*",
        "x-amz-meta-sha256": SHA,
    }  # fmt: skip
    assert made[Action.COMPLETE].headers == {"content-length": "3", "if-none-match": "*"}
    assert not made[Action.READ].query
    assert {request.method for action, request in made.items() if action in WRITES} == {"PUT", "POST", "DELETE", "GET"}


@pytest.mark.parametrize(
    ("action", "change"),
    [
        (Action.CREATE, {"bytes": MAX_PIECE + 1}),
        (Action.CREATE, {"bytes": None}),
        (Action.CREATE, {"bytes": "3"}),
        (Action.CREATE, {"sha256": SHA.upper()}),
        (Action.CREATE, {"contentType": "text/html"}),
        (Action.CREATE, {"part": 1}),
        (Action.PART, {"part": MAX_PARTS + 1}),
        (Action.PART, {"upload": "a\nb"}),
        (Action.PART, {"anew": False}),
        (Action.READ, {"upload": "u"}),
        (Action.READ, {"key": ""}),
        (Action.READ, {"more": 1}),
        (Action.READ, {"job": {"name": "cup", "uid": UID, "attempt": 0}}),
        (Action.READ, {"job": {"name": "../cup", "uid": UID, "attempt": 1}}),
        (Action.READ, {"job": {"name": "cup", "uid": "a/b", "attempt": 1}}),
    ],
)
def test_what_is_no_ask_is_none(action: Action, change: Object) -> None:
    good = wire(ask_of(job_of(), "k", action))
    Ask.model_validate(good)
    with pytest.raises(ValidationError):
        Ask.model_validate({**good, **change})


@given(st.binary(max_size=200))
def test_bytes_that_are_no_ask_are_refused_in_words(text: bytes) -> None:
    with pytest.raises(AskError):
        parsed(text)


def test_a_key_with_odd_parts_is_refused_by_name() -> None:
    with pytest.raises(KeyRefused):
        key_of(job_of("..", UID))
