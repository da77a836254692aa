"""Webhooks on a real API server, with the gateway's own account, to real receivers on the loopback."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt

import pytest

from integration.gateway.receivers import KEY, WHSEC, Request, hang, receiving
from integration.gateway.webhooks.jobs import (
    Start,
    delivered,
    end,
    finished,
    let_read_secrets,
    make_secret,
    told,
    until_event,
)
from kinora.api.transitions import parse_time
from kinora.kube.client import KubeClient
from kinora.kube.resources import SECRET, VIDEOJOB
from waiting import until, video_job

pytestmark = pytest.mark.integration


# --- the normal story


async def test_the_end_of_a_job_is_told_signed_and_said(kube: KubeClient, namespace: str, start: Start) -> None:
    await let_read_secrets(kube, namespace)
    await make_secret(kube, namespace, new=WHSEC, old="whsec_" + base64.b64encode(bytes(24)).decode())
    async with receiving() as receiver:
        replica = await start(receiver)
        await kube.create(VIDEOJOB, namespace, video_job(webhook={"url": receiver.url + "?a=b", "secretName": "hooks"}))
        artifact = {"uri": "pvc://a/0.mp4", "contentType": "video/mp4", "bytes": 1, "sha256": "0" * 64}
        job = await end(kube, namespace, artifacts=[artifact])
        [request] = await receiver.until(1)
        found = await delivered(kube, namespace)
    assert found == {"state": "Delivered", "attempts": 1, "responseCode": 204}
    assert request.path == "/hook?a=b"
    assert request.headers["webhook-id"] == f"msg_{job['metadata']['uid']}"
    assert request.headers["content-type"] == "application/json"
    assert request.is_signed_with(KEY)
    assert request.is_signed_with(bytes(24)), "every key of the Secret signs"
    assert not request.is_signed_with(b"another" * 4)
    assert request.told["type"] == "video_job.succeeded"
    assert request.told["data"]["name"] == "job"
    assert request.told["data"]["artifacts"][0]["sha256"] == "0" * 64
    assert b"lighthouse" not in request.body, "no prompt"
    sample = replica.webhooks._wiring.metrics.registry.get_sample_value
    await until(lambda: sample("kinora_webhook_deliveries_total", {"outcome": "Delivered"}) == 1)  # after the status
    assert sample("kinora_webhook_answer_seconds_count") == 1


async def test_jobs_that_ended_while_nobody_delivered_are_told_later(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    async with receiving() as receiver:
        await finished(kube, namespace, receiver.url, "failed", phase="Failed", reason="NodeError", message="boom")
        await finished(kube, namespace, receiver.url, "cancelled", phase="Cancelled")
        await start(receiver)
        requests = await receiver.until(2)
        for name in ("failed", "cancelled"):
            await delivered(kube, namespace, name)
    assert {request.told["type"] for request in requests} == {"video_job.failed", "video_job.cancelled"}
    assert all("webhook-signature" not in request.headers for request in requests), "no Secret is named"


async def test_a_500_is_tried_again_with_the_same_id_and_body(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving(500, 503, 200) as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        requests = await receiver.until(3)
        assert await delivered(kube, namespace) == {"state": "Delivered", "attempts": 3, "responseCode": 200}
    assert len(receiver.ids()) == 1
    assert len({request.body for request in requests}) == 1


async def test_a_receiver_that_never_answers_well_is_given_up_with_an_event(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    async with receiving(500) as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        found = await told(kube, namespace, state="Failed")
    assert found == {
        "state": "Failed", "attempts": 5, "responseCode": 500, "reason": "AnsweredWithError",
        "message": "the receiver answered 500; allowed: 200 to 299",
    }  # fmt: skip
    assert len(receiver.requests) == 5
    event = await until_event(kube, namespace, "WebhookGivenUp")
    assert "given up after 5 attempts" in event["note"]


async def test_410_ends_it(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving(410) as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        found = await told(kube, namespace, state="Failed")
    assert (found["attempts"], found["responseCode"], found["reason"]) == (1, 410, "Gone")


async def test_retry_after_is_honoured(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving(b"HTTP/1.1 429 X\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n") as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        found = await told(kube, namespace, state="Pending", responseCode=429)
    waits = parse_time(found["nextAttemptTime"]) - dt.datetime.now(dt.UTC)
    assert 3500 < waits.total_seconds() <= 3600


# --- receivers that do harm


async def test_a_dead_host_does_not_hold_the_others(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving(hang) as dead, receiving() as good:
        await start(dead, good, parallel=4, perHost=2, timeoutSeconds=60)
        for number in range(12):
            await finished(kube, namespace, f"http://dead.test:{dead.port}/{number}", f"dead-{number}")
        await dead.until(2)
        for number in range(12):
            await finished(kube, namespace, f"http://good.test:{good.port}/{number}", f"good-{number}")
        await good.until(12)
        for number in range(12):
            await delivered(kube, namespace, f"good-{number}")
        assert len(dead.requests) == 2, "as many as one host may have, which hold their places still"


async def test_a_receiver_that_says_nothing_is_not_waited_for(
    kube: KubeClient, namespace: str, start: Start, patience: None
) -> None:
    async with receiving(hang) as receiver:
        await start(receiver, timeoutSeconds=0.5)
        await finished(kube, namespace, receiver.url)
        found = await told(kube, namespace, state="Pending", reason="NoAnswer")
    assert "no answer within 0.5 s" in found["message"]


async def test_a_redirect_to_the_metadata_service_goes_nowhere(
    kube: KubeClient, namespace: str, start: Start, patience: None
) -> None:
    answer = b"HTTP/1.1 302 X\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0\r\n\r\n"
    async with receiving(answer) as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url)
        found = await told(kube, namespace, state="Pending", responseCode=302)
    assert found["reason"] == "AnsweredWithError"
    assert "redirects are not followed" in found["message"]


@pytest.mark.parametrize(
    ("url", "state", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data/", "Pending", "DestinationRefused"),
        ("https://10.96.0.1/", "Pending", "DestinationRefused"),
        ("http://inside.test:6443/", "Pending", "DestinationRefused"),
        ("https://2852039166/", "Failed", "InvalidURL"),
    ],
)
async def test_a_destination_that_is_shut_is_said(
    kube: KubeClient, namespace: str, start: Start, patience: None, url: str, state: str, reason: str
) -> None:
    await start()
    await finished(kube, namespace, url)
    found = await told(kube, namespace, state=state, reason=reason)
    assert "allowed: " in found["message"]
    event = await until_event(kube, namespace, "WebhookGivenUp" if state == "Failed" else "WebhookBlocked")
    assert found["message"] in event["note"]


async def test_a_gigabyte_of_an_answer_and_one_that_is_cut_are_answers(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    async def gigabyte(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 30}\r\n\r\n".encode())
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()

    async with receiving(gigabyte, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncut") as receiver:
        await start(receiver)
        for name in ("first", "second"):
            await finished(kube, namespace, receiver.url, name)
            assert await delivered(kube, namespace, name) == {"state": "Delivered", "attempts": 1, "responseCode": 200}


# --- Secrets


async def test_a_secret_is_waited_for_until_it_may_be_used(kube: KubeClient, namespace: str, start: Start) -> None:
    async with receiving() as receiver:
        await start(receiver)
        await finished(kube, namespace, receiver.url, secretName="hooks")
        await told(kube, namespace, state="Pending", reason="SecretNotReadable", attempts=0)
        await let_read_secrets(kube, namespace)
        found = await told(kube, namespace, reason="SecretNotFound")
        assert found["message"] == f"no Secret hooks in namespace {namespace}"
        await make_secret(kube, namespace, key="hunter2")
        found = await told(kube, namespace, reason="SecretInvalid")
        assert "hunter2" not in str(found)
        good = base64.b64encode(WHSEC.encode()).decode()
        unlabelled = {"metadata": {"labels": {"kinora.dev/webhook-secret": None}}, "data": {"key": good}}
        await kube.patch(SECRET, namespace, "hooks", unlabelled)
        await told(kube, namespace, reason="SecretNotLabelled")
        assert receiver.requests == []
        await kube.patch(SECRET, namespace, "hooks", {"metadata": {"labels": {"kinora.dev/webhook-secret": "true"}}})
        assert await delivered(kube, namespace) == {"state": "Delivered", "attempts": 1, "responseCode": 204}
        assert receiver.requests[0].is_signed_with(KEY)
    assert (await until_event(kube, namespace, "WebhookBlocked"))["type"] == "Warning"
