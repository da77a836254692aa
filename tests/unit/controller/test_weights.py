"""Weights with sources: when a Job is made and made again, when pods may be, and what status says."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from kinora.api.weightsjob import WeightsConfig, WeightsProgress
from kinora.controller.executor import differs
from kinora.controller.modelserver.snapshot import ServerPod, ServerSnapshot, WeightsRun, weights_run
from kinora.controller.modelserver.weights import sources_hash
from kinora.controller.plan import Plan
from kinora.weights.sources import credentials_from
from unit.controller.builders import NOW, ago, server, server_plan, server_pod

Object = dict[str, Any]
SOURCES = [
    {"name": "diffusion", "url": "https://files.example/d.safetensors", "secretName": "hub-token"},
    {"name": "textEncoder", "url": "hub://org/repo/text.safetensors"},
    {"name": "vae", "url": "pvc://archive/vae.safetensors"},
]
WEIGHTS = {"claimName": "weights", "sources": SOURCES}
CLAIMS = frozenset({"weights", "videos", "archive"})


def plan(obj: Object, *pods: ServerPod, runs: tuple[WeightsRun, ...] = (), now: dt.datetime = NOW) -> Plan:
    snapshot = ServerSnapshot(server=obj, pods=pods, claims=CLAIMS, backlog=0, now=now, runs=runs)
    return server_plan(snapshot)


def made(found: Plan, kind: str) -> list[Object]:
    return [create.body for create in found.create if create.body["kind"] == kind]


def condition(found: Plan, kind: str = "WeightsReady") -> tuple[str, str, str]:
    assert found.status is not None
    one = next(entry for entry in found.status["conditions"] if entry["type"] == kind)
    return one["status"], one["reason"], one["message"]


def the_hash(obj: Object) -> str:
    (job,) = made(plan(obj), "Job")
    return str(job["metadata"]["annotations"]["kinora.dev/sources-hash"])


def run_of(obj: Object, **facts: Any) -> WeightsRun:
    (job,) = made(plan(obj), "Job")
    return WeightsRun(**{"name": job["metadata"]["name"], "uid": "run-1", "sources_hash": the_hash(obj), **facts})


def told(reason: str, **progress: Any) -> dict[str, str]:
    return {"reason": reason, "message": WeightsProgress(**progress).to_message()}


# --- the Job


def test_a_job_is_made_before_any_pod() -> None:
    found = plan(server(weights=WEIGHTS))
    (job,) = made(found, "Job")
    assert made(found, "Pod") == []
    assert condition(found)[:2] == ("False", "WeightsPending")
    assert condition(found, "Ready")[:2] == ("False", "WeightsPending")
    assert job["metadata"]["name"] in condition(found)[2]
    assert job["metadata"]["ownerReferences"][0]["kind"] == "ModelServer"
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert job["spec"]["backoffLimit"] == 6


def test_the_job_mounts_the_claim_to_write_and_what_it_reads_to_read() -> None:
    (job,) = made(plan(server(weights=WEIGHTS)), "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounts["/models"] is False
    assert mounts["/kinora/sources/archive"] is True
    assert mounts["/kinora/secrets/hub-token"] is True
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    by_path = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert by_path["/models"]["persistentVolumeClaim"] == {"claimName": "weights"}
    assert by_path["/kinora/sources/archive"]["persistentVolumeClaim"] == {"claimName": "archive", "readOnly": True}
    assert by_path["/kinora/secrets/hub-token"]["secret"]["secretName"] == "hub-token"
    assert pod["serviceAccountName"] == "kinora-weights"
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_source_on_the_weights_volume_itself_is_read_through_its_one_mount() -> None:
    sources = [{"name": "vae", "url": "pvc://weights/old/vae.safetensors"}]
    (job,) = made(plan(server(weights={"claimName": "weights", "sources": sources})), "Job")
    pod = job["spec"]["template"]["spec"]
    assert sum("persistentVolumeClaim" in volume for volume in pod["volumes"]) == 1
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} >= {"/kinora/sources/weights"}


def test_the_job_is_told_everything_and_no_secret() -> None:
    (job,) = made(plan(server(weights={**WEIGHTS, "verify": "Hash", "quantize": True})), "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    text = next(entry["value"] for entry in container["env"] if entry["name"] == "KINORA_WEIGHTS_CONFIG")
    config = WeightsConfig.model_validate_json(text)
    assert [source.name for source in config.sources] == ["diffusion", "textEncoder", "vae"]
    assert (config.claim, config.verify, config.quantize) == ("weights", "Hash", True)
    assert config.entry["name"] == "wan2.1-vace-1.3b"


@pytest.mark.parametrize(
    "change",
    [
        {"sources": SOURCES[:2]},
        {"sources": [{**SOURCES[0], "sha256": "0" * 64}, *SOURCES[1:]]},
        {"verify": "Hash"},
        {"quantize": True},
        {"claimName": "archive"},
    ],
)
def test_what_changes_the_work_changes_the_jobs_name_and_the_old_job_goes(change: Object) -> None:
    before, after = server(weights=WEIGHTS), server(weights={**WEIGHTS, **change})
    old = run_of(before)
    found = plan(after, runs=(old,))
    (job,) = made(found, "Job")
    assert job["metadata"]["name"] != old.name
    assert [(delete.name, delete.uid) for delete in found.delete] == [(old.name, old.uid)]


def test_what_does_not_change_the_work_leaves_the_job() -> None:
    assert the_hash(server(weights=WEIGHTS)) == the_hash(server(weights=WEIGHTS, replicas=7, drainSeconds=5))


def test_no_job_without_its_claims() -> None:
    obj = server(weights=WEIGHTS)
    snapshot = ServerSnapshot(server=obj, pods=(), claims=frozenset({"weights", "videos"}), backlog=0, now=NOW)
    found = server_plan(snapshot)
    assert made(found, "Job") == []
    assert condition(found)[1] == "ClaimMissing"
    assert "archive" in condition(found)[2]


def test_account_and_binding_are_made_where_there_are_sources() -> None:
    def accounts(obj: Object) -> set[str]:
        snapshot = ServerSnapshot(server=obj, pods=(), claims=CLAIMS, backlog=0, now=NOW)
        found = server_plan(snapshot, made=False)
        return {body["metadata"]["name"] for kind in ("ServiceAccount", "RoleBinding") for body in made(found, kind)}

    assert accounts(server(weights=WEIGHTS)) == {"kinora-agent", "kinora-weights"}
    assert accounts(server()) == {"kinora-agent"}


# --- what it tells


def test_progress_stands_in_the_condition_and_in_status() -> None:
    obj = server(weights=WEIGHTS)
    files = [{"name": "vae/a.safetensors", "state": "Fetching"}]
    facts = told("Fetching", bytes_done=5 * 10**9, bytes_total=2 * 10**10, rate=81_200_000, file="vae/a", files=files)
    found = plan(obj, runs=(run_of(obj, **facts),))
    assert condition(found) == ("False", "Fetching", "5.0 GB of 20.0 GB, 81.2 MB/s, vae/a")
    assert found.status is not None
    weights = found.status["weights"]
    assert weights == {
        "sourcesHash": None,
        "bytesDone": 5 * 10**9,
        "bytesTotal": 2 * 10**10,
        "files": files,
    }
    assert made(found, "Pod") == []


@pytest.mark.parametrize(
    ("facts", "reason", "words"),
    [
        ({}, "WeightsPending", "its pod has not told anything yet"),
        ({"waiting_message": "0/3 nodes are available"}, "WeightsPending", "0/3 nodes"),
        (told("WaitingForVolume", message="other-1 writes the volume"), "WaitingForVolume", "other-1 writes"),
        ({"reason": "Fetching", "message": "not JSON"}, "Fetching", "not JSON"),
        (
            {"failed": True, "failure": "pod failed", **told("FetchFailed", message="the server answers 404")},
            "FetchFailed",
            "the server answers 404",
        ),
        ({"failed": True, "failure": "backoff limit"}, "FetchFailed", "backoff limit"),
    ],
)
def test_why_the_weights_are_not_there(facts: Object, reason: str, words: str) -> None:
    obj = server(weights=WEIGHTS)
    found = plan(obj, runs=(run_of(obj, **facts),))
    assert condition(found)[:2] == ("False", reason)
    assert condition(found, "Ready")[:2] == ("False", reason)
    assert words in condition(found)[2]
    assert made(found, "Job") == made(found, "Pod") == []


def complete(obj: Object, end: str = ago(5)) -> WeightsRun:
    when = dt.datetime.fromisoformat(end.replace("Z", "+00:00"))
    return run_of(obj, complete=True, end_time=when, **told("WeightsPresent", bytes_done=9, bytes_total=9))


def test_pods_are_made_when_the_job_is_complete() -> None:
    obj = server(weights=WEIGHTS, replicas=2)
    found = plan(obj, runs=(complete(obj),))
    assert len(made(found, "Pod")) == 2
    assert condition(found)[:2] == ("True", "WeightsPresent")
    assert found.status is not None
    weights = found.status["weights"]
    assert weights["sourcesHash"] == the_hash(obj)
    assert weights["verifiedTime"].startswith(ago(5)[:-1])
    assert (weights["bytesDone"], weights["bytesTotal"]) == (9, 9)


def test_the_verdict_outlives_the_job() -> None:
    obj = server({"weights": {"sourcesHash": the_hash(server(weights=WEIGHTS))}}, weights=WEIGHTS)
    found = plan(obj)
    assert len(made(found, "Pod")) == 1
    assert made(found, "Job") == []
    assert condition(found)[0] == "True"


def test_at_zero_replicas_verified_weights_are_ready() -> None:
    obj = server(weights=WEIGHTS, replicas=0)
    assert condition(plan(obj, runs=(complete(obj),)), "Ready")[:2] == ("True", "ScaledToZero")
    assert condition(plan(obj), "Ready")[:2] == ("False", "WeightsPending")


def without_nulls(value: Any) -> Any:
    """As the API server stores it."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return value


def test_what_is_written_once_is_not_written_again() -> None:
    obj = server(weights=WEIGHTS)
    for runs in ((), (run_of(obj, **told("Fetching", bytes_done=1, bytes_total=2)),), (complete(obj),)):
        first = plan(obj, runs=runs).status
        assert first is not None
        kept = without_nulls(first)
        again = plan(server(kept, weights=WEIGHTS), runs=runs).status
        assert not differs(kept, again)


# --- when they change


def jobs_deleted(found: Plan) -> list[str]:
    return [delete.name for delete in found.delete if delete.resource.kind == "Job"]


def bad(obj: Object, *, since: float, reason: str = "WeightsChanged") -> ServerPod:
    when = NOW - dt.timedelta(seconds=since)
    return server_pod(engine_ready=False, engine_reason=reason, engine_message="vae/a: 0 bytes", engine_since=when)


@pytest.mark.parametrize("reason", ["WeightsChanged", "WeightsMissing"])
def test_a_file_that_an_agent_finds_bad_has_the_job_run_again(reason: str) -> None:
    obj = server(weights=WEIGHTS)
    run = complete(obj, ago(100))
    found = plan(obj, bad(obj, since=20, reason=reason), runs=(run,))
    assert jobs_deleted(found) == [run.name]
    assert made(found, "Job") == [], "the old one goes first: it has the same name"
    assert condition(found)[:2] == ("False", "WeightsPending")
    assert "vae/a: 0 bytes" in condition(found)[2]
    assert found.status is not None
    assert found.status["weights"]["sourcesHash"] is None
    assert len(made(plan(obj, bad(obj, since=20)), "Job")) == 1


def test_an_agent_is_given_time_to_look_again_after_the_job() -> None:
    obj = server(weights=WEIGHTS)
    run = complete(obj, ago(10))
    found = plan(obj, bad(obj, since=500), runs=(run,))
    assert jobs_deleted(found) == []
    assert found.requeue_after is None, "it found that before the Job mended it"
    found = plan(obj, bad(obj, since=5), runs=(run,))
    assert jobs_deleted(found) == []
    assert found.requeue_after == 50


def test_looking_again_is_no_complaint() -> None:
    obj = server(weights=WEIGHTS)
    found = plan(obj, bad(obj, since=20, reason="WeightsVerifying"), runs=(complete(obj, ago(100)),))
    assert jobs_deleted(found) == []
    assert condition(found)[:2] == ("False", "WeightsVerifying")


def test_pods_go_on_serving_while_other_weights_are_on_their_way() -> None:
    old = server_pod(template_hash="of the old sources")
    obj = server(weights=WEIGHTS)
    for runs in ((), (run_of(obj),), (run_of(obj, failed=True),)):
        found = plan(obj, old, runs=runs)
        assert [delete for delete in found.delete if delete.resource.kind == "Pod"] == []
    found = plan(obj, old, runs=(complete(obj),))
    assert [delete.uid for delete in found.delete] == [old.uid], "now it is replaced"


def test_without_sources_a_former_job_goes_and_agents_alone_decide() -> None:
    obj = server({"weights": {"sourcesHash": "x", "bytesDone": 1}})
    run = WeightsRun(name="vace-weights-1", uid="r", sources_hash="x", complete=True)
    found = plan(obj, server_pod(), runs=(run,))
    assert "vace-weights-1" in [delete.name for delete in found.delete]
    assert found.status is not None
    assert found.status["weights"] is None
    assert made(plan(server()), "Job") == []


# --- facts of objects


def test_a_run_from_its_job_and_its_newest_pod() -> None:
    def pod(name: str, created: str, reason: str) -> Object:
        return {
            "metadata": {"name": name, "creationTimestamp": created},
            "status": {"conditions": [{"type": "kinora.dev/WeightsReady", "reason": reason, "message": "{}"}]},
        }

    job = {
        "metadata": {"name": "j", "uid": "u", "annotations": {"kinora.dev/sources-hash": "h"}},
        "status": {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": ago(3)}]},
    }
    found = weights_run(job, [pod("b", ago(9), "Old"), pod("a", ago(5), "WeightsPresent")])
    assert (found.complete, found.failed, found.reason) == (True, False, "WeightsPresent")
    assert found.end_time == NOW - dt.timedelta(seconds=3)
    assert weights_run({"metadata": {"name": "j", "uid": "u"}}, []).reason == ""


def test_a_message_too_long_for_a_condition_loses_its_list() -> None:
    files = [{"name": f"folder/{index}" + "x" * 60, "state": "Present"} for index in range(20)]
    text = WeightsProgress(bytes_done=1, message="y" * 2000, files=files).to_message()  # type: ignore[arg-type]
    assert len(text) < 1024
    assert json.loads(text)["bytesDone"] == 1


def test_credentials_show_nothing() -> None:
    assert "hush" not in repr(credentials_from({"token": "hush", "AWS_SECRET_ACCESS_KEY": "hush"}))


def test_a_better_word_about_the_model_fetches_nothing_anew_and_another_file_does() -> None:
    entry = {"name": "m", "family": "WanVACE", "weights": [{"role": "vae", "name": "a"}], "description": "one"}
    config = WeightsConfig.model_validate({"claim": "c", "entry": entry, "sources": SOURCES})
    before = sources_hash(config)
    assert sources_hash(config.model_copy(update={"entry": {**entry, "description": "two", "prior": 3}})) == before
    other = {**entry, "weights": [{"role": "vae", "name": "b"}]}
    assert sources_hash(config.model_copy(update={"entry": other})) != before
