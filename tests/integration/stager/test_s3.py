"""A stager whose store is a bucket: inputs become objects named by their content, notes go, faults are told."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Any

import pytest

from integration.stager.bench import PHOTO, StagerBench
from integration.stager.test_stager import PHOTO_SHA
from integration.test_operator import make_ready
from kinora.api.intake import inputs_condition
from kinora.kube.client import KubeClient
from kinora.kube.resources import MODELSERVER, VIDEOJOB
from kinora.workflows.workflow import text_hash
from rawserver import file_answer
from s3proxy import s3_proxy
from s3server import ACCESS_KEY, S3Server
from unit.workflows.made import sound
from waiting import model_server, phase, until, wait_for, wait_for_pods

pytestmark = pytest.mark.integration
Object = dict[str, Any]
KEY = f"department/inputs/{PHOTO_SHA}"


async def on_bucket(bench: StagerBench, server: S3Server, port: int | None = None) -> Object:
    """The namespace's one ModelServer has a bucket; its stager's Secret is in its folder."""
    endpoint = f"http://127.0.0.1:{port or server.port}"
    s3 = {"bucket": "films", "endpoint": endpoint, "prefix": "department", "secretName": "films-bucket"}
    await bench.kube.patch(
        MODELSERVER, bench.namespace, model_server()["metadata"]["name"],
        {"spec": {"artifacts": {"claimName": None, "s3": s3}}},
    )  # fmt: skip
    secret = bench.store() / "secret"
    secret.mkdir(exist_ok=True)
    (secret / "accessKeyID").write_text(ACCESS_KEY)
    (secret / "secretAccessKey").write_text(server.secret)
    return s3


@pytest.mark.usefixtures("operator", "claims")
async def test_a_url_is_stored_in_the_bucket_before_the_job_is_bound(
    bench: StagerBench, kube: KubeClient, namespace: str, server: S3Server
) -> None:
    s3 = await on_bucket(bench, server)
    pods = await wait_for_pods(
        kube, namespace, lambda pods: len(pods) == 1 and "store-token" in json.dumps(pods[0]["spec"]["volumes"])
    )
    await make_ready(kube, namespace, pods[0])
    bench.web.answers["/photo.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start(s3=s3)
    await bench.ask()
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"), deadline=60)
    assert inputs_condition(job)["reason"] == "InputsStored"
    assert job["status"]["inputStore"] == "s3://films/department/"
    assert job["status"]["inputs"][0]["sha256"] == PHOTO_SHA
    assert server.path(KEY).read_bytes() == PHOTO
    await until(lambda: server.objects() == [KEY])  # no note is left, and no draft was ever there
    assert "secret" not in json.dumps(job["status"])


async def test_an_upload_of_the_bucket_is_copied_and_the_same_content_is_one_object(
    bench: StagerBench, server: S3Server
) -> None:
    s3 = await on_bucket(bench, server)
    upload = f"department/uploads/{bench.namespace}/cups/cup.jpg"
    server.path(upload).parent.mkdir(parents=True)
    server.path(upload).write_bytes(PHOTO)
    await bench.start(s3=s3)
    for name in ("one", "two"):
        await bench.ask(name, inputs={"image": {"upload": "cups/cup.jpg"}})
    for name in ("one", "two"):
        job = await bench.told(name)
        assert job["status"]["inputs"][0]["sha256"] == PHOTO_SHA
    await bench.ask("three", inputs={"image": {"upload": "cups/none.jpg"}})
    refused = inputs_condition(await bench.told("three", "False"))
    assert "spec.inputs.image.upload is cups/none.jpg, which is not there" in refused["message"]
    await until(lambda: server.objects() == sorted([KEY, upload]))  # no note is left


async def test_a_bucket_that_is_away_delays_and_nothing_is_fetched_twice(bench: StagerBench, server: S3Server) -> None:
    async with s3_proxy(server.port) as proxy:
        s3 = await on_bucket(bench, server, proxy.port)
        bench.web.answers["/photo.jpg"] = file_answer(PHOTO, "image/jpeg")
        bench.web.answers["/second.jpg"] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        sources = [{"source": {"url": bench.url(path)}} for path in ("/photo.jpg", "/second.jpg")]
        proxy.fail(
            lambda it: it.method == "PUT" and "/inputs/" in it.path, "refuse", times=1, status=403, code="AccessDenied"
        )
        await bench.start(s3=s3)
        await bench.ask(task="ReferenceToVideo", inputs={"references": sources})
        delayed = inputs_condition(await bench.told("job", "Unknown"))
        assert "references" in delayed["message"]
        bench.web.answers["/second.jpg"] = file_answer(PHOTO, "image/jpeg")
        job = await bench.told("job")
        assert [entry["sha256"] for entry in job["status"]["inputs"]] == [PHOTO_SHA, PHOTO_SHA]
        await until(lambda: server.objects() == [KEY])


async def test_notes_of_jobs_that_are_gone_are_swept_at_the_start(bench: StagerBench, server: S3Server) -> None:
    s3 = await on_bucket(bench, server)
    left = server.path(f"department/intake/{bench.namespace}/0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55/image.json")
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    bench.web.answers["/photo.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start(s3=s3)
    await bench.ask()
    await bench.told()
    await until(lambda: server.objects() == [KEY])


async def test_a_bucket_that_lets_no_video_be_deleted_gives_up_its_unused_inputs_still(
    bench: StagerBench, server: S3Server
) -> None:
    uid, sha256 = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55", hashlib.sha256(b"film").hexdigest()
    video = f"department/{bench.namespace}/gw-0123456789-{uid}/{uid}/1/0-cup.mp4"
    unused = f"department/inputs/{sha256}"
    for key in (video, unused):
        server.path(key).parent.mkdir(parents=True, exist_ok=True)
        server.path(key).write_bytes(b"film")
        os.utime(server.path(key), (time.time() - 20 * 86_400,) * 2)
    async with s3_proxy(server.port) as proxy:
        s3 = await on_bucket(bench, server, proxy.port)
        refusal = {"status": 403, "code": "AccessDenied", "times": 1000}
        proxy.fail(lambda it: it.method == "DELETE" and "/gw-" in it.path, "refuse", **refusal)
        await bench.start(s3=s3)
        await until(lambda: server.objects() == [video], 60)
        proxy.faults.clear()
        await until(lambda: server.objects() == [])


async def test_a_graph_in_the_bucket_is_judged_and_kept_among_the_inputs(bench: StagerBench, server: S3Server) -> None:
    s3 = await on_bucket(bench, server)
    text = json.dumps(sound()) + " " * 100_000
    upload = f"department/uploads/{bench.namespace}/graphs/vace.json"
    server.path(upload).parent.mkdir(parents=True)
    server.path(upload).write_text(text)
    await bench.start(s3=s3)
    sha256 = text_hash(text)
    await bench.ask_raw("raw", {"upload": {"key": "graphs/vace.json", "sha256": sha256}})
    status = (await bench.told("raw"))["status"]
    assert (status["inputStore"], status["inputs"]) == ("s3://films/department/", [])
    assert status["resolved"]["workflowSha256"] == sha256
    assert server.path(f"department/inputs/{sha256}").read_text() == text
