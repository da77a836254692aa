"""Which jobs wait for a stager, and whose: decided alike by operator and stager."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.api import intake
from kinora.api.s3store import S3Store

Object = dict[str, Any]
CLAIM = {"claim": {"name": "films", "path": "a.mp4"}}
URL = {"url": "https://x.example/a"}
UPLOAD = {"upload": "a/b"}


@pytest.mark.parametrize(
    ("inputs", "fields"),
    [
        (None, ()),
        ({}, ()),
        ({"image": CLAIM}, ()),
        ({"image": URL}, ("spec.inputs.image.url",)),
        ({"video": UPLOAD}, ("spec.inputs.video.upload",)),
        ({"mask": {"source": URL}, "video": CLAIM}, ("spec.inputs.mask.url",)),
        ({"references": [{"source": CLAIM}, {"source": URL}]}, ("spec.inputs.references[1].url",)),
        ({"references": None, "mask": None, "image": None}, ()),
        ({"image": URL, "video": UPLOAD}, ("spec.inputs.image.url", "spec.inputs.video.upload")),
    ],
)
def test_the_fields_that_a_stager_fetches(inputs: Object | None, fields: tuple[str, ...]) -> None:
    spec = {} if inputs is None else {"inputs": inputs}
    assert intake.fetched_fields(spec) == fields
    assert intake.needs_stager({"spec": spec}) is bool(fields)
    file = {"name": "a", "source": CLAIM}
    assert intake.fetched_fields({**spec, "workflow": {"inline": "{}", "files": [file]}}) == fields


def test_files_of_a_workflow_are_fetched_too() -> None:
    files = [{"name": "a", "source": CLAIM}, {"name": "b", "source": URL}, {"name": "c", "source": UPLOAD}]
    found = intake.fetched_fields({"workflow": {"inline": "{}", "files": files}})
    assert found == ("spec.workflow.files[1].source.url", "spec.workflow.files[2].source.upload")
    assert intake.fetched_fields({"workflow": {"inline": "{}", "files": None}}) == ()


def test_what_a_workflow_resolved_is_the_operator_s() -> None:
    ready = {"conditions": [{"type": "InputsReady", "status": "True"}], "resolved": {"width": 640}}
    task = {"inputs": {"image": URL}}
    assert intake.is_resolved_by_stager({"spec": task, "status": ready})
    assert not intake.is_resolved_by_stager({"spec": {**task, "workflow": {"inline": "{}"}}, "status": ready})
    assert not intake.is_resolved_by_stager({"spec": task, "status": {"resolved": {"width": 640}}})
    assert not intake.is_resolved_by_stager({"spec": {"inputs": {"image": CLAIM}}, "status": ready})


@pytest.mark.parametrize(("status", "awaits"), [(None, True), ("Unknown", True), ("False", True), ("True", False)])
def test_a_job_awaits_its_stager_until_its_inputs_are_ready(status: str | None, awaits: bool) -> None:
    conditions = [{"type": "Ready", "status": "True"}]
    if status is not None:
        conditions.append({"type": "InputsReady", "status": status})
    job = {"spec": {"inputs": {"image": URL}}, "status": {"conditions": conditions}}
    assert intake.awaits_stager(job) is awaits
    assert not intake.awaits_stager({**job, "spec": {"inputs": {"image": CLAIM}}})


def test_the_store_is_the_one_that_status_names() -> None:
    assert intake.store_of({"status": {"inputStore": "pvc://videos/"}}) == intake.claim_store("videos").root
    assert intake.store_of({"status": {"inputs": []}}) is None
    assert intake.store_of({}) is None


def server(name: str, claim: str | None, model: str = "m", **metadata: Any) -> Object:
    artifacts = {} if claim is None else {"claimName": claim}
    return {"metadata": {"name": name, **metadata}, "spec": {"model": model, "artifacts": artifacts}}


def stores(*claims: str) -> set[intake.Store]:
    return {intake.claim_store(claim) for claim in claims}


def test_the_stores_are_those_of_the_servers_that_can_render_the_job() -> None:
    servers = [
        server("a", "one"),
        server("b", "two"),
        server("c", "three", model="other"),
        server("d", None),
        server("e", "four", deletionTimestamp="2026-05-01T12:00:00Z"),
    ]
    assert intake.stores_for("m", None, servers) == stores("one", "two")
    assert intake.stores_for("m", "c", servers) == stores("three")
    assert intake.stores_for("m", "none", servers) == frozenset()


def test_a_store_whose_server_has_no_pods_or_was_refused_is_the_last_choice_or_none() -> None:
    asleep, stalled = server("a", "one"), server("b", "two")
    asleep["spec"]["replicas"] = 0
    stalled["status"] = {"conditions": [{"type": "Stalled", "status": "True"}]}
    assert intake.stores_for("m", None, [asleep, stalled, server("c", "three")]) == stores("three")
    assert intake.stores_for("m", None, [asleep, stalled]) == stores("one")
    asleep["spec"]["autoscaling"] = {"maxReplicas": 2}
    assert intake.stores_for("m", None, [asleep, server("c", "three")]) == stores("one", "three")


@given(st.uuids(), st.sets(st.text("abc-", min_size=1, max_size=6), max_size=5), st.text("xyz", min_size=1, max_size=3))
def test_one_store_is_chosen_and_another_that_comes_moves_a_job_only_to_itself(
    uid: Any, claims: set[str], new: str
) -> None:
    known, one = stores(*claims), intake.claim_store(new)
    chosen = intake.choose_store(str(uid), known)
    assert (chosen in known) if known else chosen is None
    assert intake.choose_store(str(uid), sorted(known, key=lambda store: store.name)) == chosen
    assert intake.choose_store(str(uid), {*known, one}) in {chosen, one}


def test_a_bucket_is_a_store_by_its_name_and_prefix() -> None:
    def of(**s3: str) -> intake.Store | None:
        return intake.artifact_store({"spec": {"artifacts": {"s3": {"bucket": "films", **s3}}}})

    plain = of()
    assert plain is not None
    assert plain.root == "s3://films/"
    deeper = of(prefix="a/b", endpoint="http://minio:9000")
    assert deeper == of(prefix="a/b/", endpoint="https://minio.example", secretName="s", region="eu")
    assert deeper is not None
    assert deeper.root == "s3://films/a/b/"
    assert len({of(), deeper, of(prefix="a"), intake.claim_store("films")}) == 4
    assert (deeper.name, intake.claim_store("films").name) == ("s3://films/a/b/", "films")
    spec = S3Store.model_validate({"bucket": "films", "prefix": "a/b/", "endpoint": "http://minio:9000"})
    assert intake.bucket_store(spec) == deeper
