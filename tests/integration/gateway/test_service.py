"""The service under all dialects, over the real API server: tenants, ids, idempotency, limits, reads."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from integration.conftest import free_port
from integration.gateway.house import House
from kinora.gateway.cache import Servers
from kinora.gateway.errors import InvalidInput, KeyReused, Limited, ModelNotFound, NotFound, Unauthorized
from kinora.gateway.jobs import State
from kinora.gateway.names import new_id
from kinora.gateway.service import Service, Submission
from kinora.gateway.tenants import Limits, Tenant
from kinora.kube.client import UnreachableError
from kinora.kube.resources import MODELSERVER, VIDEOJOB
from waiting import DEADLINE, until

pytestmark = pytest.mark.integration
SPEC = {
    "model": "wan2.1-vace-14b",
    "task": "TextToVideo",
    "prompt": "a lighthouse at dusk",
    "parameters": {"width": 832, "height": 480, "frames": 81},
}


def asked(**more: Any) -> Submission:
    return Submission(**{"dialect": "wavespeed", "spec": SPEC, "body": b"one", **more})


def service(house: House) -> Service:
    assert house.gateway is not None
    return house.gateway.service


def tenant(house: House, name: str = "a", **more: Any) -> Tenant:
    return Tenant(name, house.namespace, **more)


async def test_how_far_the_watch_is_behind_is_measured_at_each_write(house: House) -> None:
    def seen() -> float:
        assert house.gateway is not None
        registry, labels = house.gateway.metrics.registry, {"resource": "videojobs"}
        return registry.get_sample_value("kinora_watch_lag_seconds_count", labels) or 0.0

    job = await service(house).submit(tenant(house), asked())
    await until(lambda: seen() == 1)
    await service(house).cancel(tenant(house), job.id)
    await until(lambda: seen() == 2)


async def test_a_submit_is_one_videojob_with_the_tenants_queue_and_a_retention(house: House) -> None:
    job = await service(house).submit(tenant(house), asked(note={"size": "832*480"}))
    found = await house.job(job.id)
    assert found["spec"]["queue"] == "default"
    assert found["spec"]["ttlSecondsAfterFinished"] == 7 * 24 * 3600
    assert (job.state, job.model, job.note) == (State.QUEUED, "wan2.1-vace-14b", {"size": "832*480"})
    assert service(house).jobs(tenant(house)) == [job]


async def test_what_cannot_be_rendered_is_refused_before_anything_is_made(house: House) -> None:
    with pytest.raises(InvalidInput, match=r"spec\.parameters\.width"):
        await service(house).submit(tenant(house), asked(spec={**SPEC, "parameters": {"width": 831, "height": 480}}))
    with pytest.raises(ModelNotFound, match="does not exist"):
        await service(house).submit(tenant(house), asked(spec={**SPEC, "model": "sora"}))
    with pytest.raises(ModelNotFound, match="not served here"):
        await service(house).submit(tenant(house), asked(spec={**SPEC, "model": "wan2.1-vace-1.3b"}))
    assert await house.jobs() == []


async def test_an_alias_that_an_administrator_mapped_is_a_model(house: House) -> None:
    job = await service(house).submit(
        tenant(house),
        asked(
            spec={
                **SPEC,
                "model": "wan2.1-vace-plus",
                "task": "ReferenceToVideo",
                "inputs": {"references": [{"source": {"url": "https://example.com/a.png"}}]},
                "parameters": {},
            }
        ),
    )
    assert job.model == "wan2.1-vace-plus"


async def test_no_tenant_sees_anothers_job_even_with_its_id(house: House) -> None:
    job = await service(house).submit(tenant(house, "a"), asked())
    other = tenant(house, "b")
    with pytest.raises(NotFound):
        await service(house).job(other, job.id)
    with pytest.raises(NotFound):
        await service(house).cancel(other, job.id)
    with pytest.raises(NotFound):
        await service(house).delete(other, job.id)
    with pytest.raises(NotFound):
        await service(house).whole(other, job.id)
    assert service(house).jobs(other) == []


async def test_the_same_idempotency_key_makes_one_job_and_another_request_under_it_is_refused(house: House) -> None:
    ours = tenant(house)
    first, *others = await asyncio.gather(*(service(house).submit(ours, asked(idempotency_key="k")) for _ in range(5)))
    assert {job.id for job in others} == {first.id}
    assert len(await house.jobs()) == 1
    with pytest.raises(KeyReused):
        await service(house).submit(ours, asked(idempotency_key="k", body=b"two"))
    elsewhere = await service(house).submit(tenant(house, "b"), asked(idempotency_key="k", body=b"two"))
    assert elsewhere.id != first.id


async def test_a_repeat_whose_first_job_cannot_be_read_now_is_to_be_asked_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise UnreachableError("no answer")

    monkeypatch.setattr(service(house)._client, "find", away)
    asking = (service(house).submit(tenant(house), asked(idempotency_key="k")) for _ in range(3))
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert sorted(type(one).__name__ for one in told) == ["Job", "Unavailable", "Unavailable"]


async def test_a_clients_own_retry_finds_the_first_job_and_a_second_wish_for_the_same_is_another_job(
    house: House,
) -> None:
    ours = tenant(house)
    first = await service(house).submit(ours, asked())
    again = await service(house).submit(ours, asked(retried=True))
    wished = await service(house).submit(ours, asked())
    assert again.id == first.id != wished.id


async def test_a_job_that_the_cache_does_not_have_is_read_once(house: House) -> None:
    id_ = new_id()
    with pytest.raises(NotFound):
        await service(house).job(tenant(house), id_)
    made = await service(house).submit(tenant(house), asked(id=id_))
    assert (await service(house).job(tenant(house), id_)).uid == made.uid


async def test_a_job_is_followed_from_queued_to_succeeded(house: House) -> None:
    ours = tenant(house)
    job = await service(house).submit(ours, asked())
    async with service(house).changes(ours) as changes:
        await house.run(job.id, 40, step=8, steps=20)
        running = await service(house).job(ours, job.id)
        assert (running.state, running.percent, running.step) == (State.RUNNING, 40, 8)
        await house.succeed(job.id)
        done = await service(house).job(ours, job.id)
        assert (done.state, done.artifacts[0].frames) == (State.SUCCEEDED, 81)
        seen = [(await asyncio.wait_for(changes.get(), DEADLINE)) for _ in range(changes.qsize())]
    assert seen[-1] == done


async def test_cancel_asks_for_the_end_and_a_finished_job_stays_as_it_is(house: House) -> None:
    ours = tenant(house)
    job = await service(house).submit(ours, asked())
    assert (await service(house).cancel(ours, job.id)).cancel_asked
    assert (await house.job(job.id))["spec"]["cancel"] is True
    await house.cancelled(job.id)
    assert (await service(house).cancel(ours, job.id)).state == State.CANCELLED


async def test_a_deleted_job_is_gone_for_every_reader(house: House) -> None:
    ours = tenant(house)
    job = await service(house).submit(ours, asked())
    await service(house).delete(ours, job.id)
    assert service(house).jobs(ours) == []
    with pytest.raises(NotFound):
        await service(house).job(ours, job.id)


async def test_too_many_submits_and_too_many_unfinished_jobs_are_told_apart(house: House) -> None:
    slow = tenant(house, "slow", limits=Limits(submits_per_minute=1, burst=2))
    for _ in range(2):
        await service(house).submit(slow, asked())
    with pytest.raises(Limited) as rate:
        await service(house).submit(slow, asked())
    assert rate.value.rate
    assert 0 < (rate.value.retry_after or 0) <= 60
    few = tenant(house, "few", limits=Limits(concurrent=1))
    job = await service(house).submit(few, asked())
    with pytest.raises(Limited) as many:
        await service(house).submit(few, asked())
    assert not many.value.rate
    await house.succeed(job.id)
    await service(house).submit(few, asked())


async def test_a_key_opens_only_what_its_entry_says(house: House) -> None:
    key = await house.key("studio", dialects=["wavespeed"], queue="default")
    ring = house.gateway.authenticator if house.gateway else None
    assert ring is not None
    found = await ring.tenant(f"Bearer {key}", None, "wavespeed")
    assert (found.name, found.namespace) == ("studio", house.namespace)
    for header in (None, "Bearer ", "Bearer nobodys", f"Basic {key}", f"Bearer {key}x"):
        with pytest.raises(Unauthorized):
            await ring.tenant(header, None, None)
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    await house.write_entry("broken", '{"hashes": ["00"]}')
    gone = await house.key("old")
    await house.write_entry("old", _expired(house, "old", past))
    await until(lambda: ring.keys.ring.find(gone, datetime.now(UTC)) is None)
    assert ring.keys.faults
    assert (await ring.tenant(f"Bearer {key}", None, None)).name == "studio"


def _expired(house: House, name: str, when: str) -> str:
    return house.entry(name)[:-1] + f', "expires": "{when}"}}'


async def test_a_service_accounts_token_opens_its_own_namespace_where_it_may_create_videojobs(house: House) -> None:
    token, allow = await house.account("robot")
    authenticator = house.gateway.authenticator if house.gateway else None
    assert authenticator is not None
    from kinora.gateway.errors import Forbidden

    with pytest.raises(Forbidden, match="may not create VideoJobs"):
        await authenticator.tenant(f"Bearer {token}", None, None)
    await allow()
    authenticator.forget()
    found = await authenticator.tenant(f"Bearer {token}", None, "openai")
    assert found.namespace == house.namespace
    with pytest.raises(Forbidden):
        await authenticator.tenant(f"Bearer {token}", "kube-system", None)
    head, _, rest = token.partition(".")
    forged = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    with pytest.raises(Unauthorized):
        await authenticator.tenant(f"Bearer {forged}.{rest}", None, None)
    assert head


async def test_every_unknown_path_and_every_missing_key_is_told_in_json(house: House) -> None:
    async with house.client() as http:
        missing = await http.get("/nothing/here")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NotFound")
        assert missing.headers["x-request-id"]
        closed = await http.get("/openapi.json", headers={"x-request-id": "mine-1"})
        assert (closed.status_code, closed.headers["x-request-id"]) == (401, "mine-1")
        assert closed.headers["www-authenticate"] == "Bearer"
    key = await house.key()
    async with house.client(key) as http:
        assert (await http.get("/openapi.json")).json()["openapi"].startswith("3.")


async def test_a_gateway_that_is_killed_loses_nothing_another_answers_for_its_jobs(house: House) -> None:
    ours = tenant(house)
    job = await service(house).submit(ours, asked(idempotency_key="once"))
    await house.close()
    await house.open(free_port(), free_port())
    assert (await service(house).job(ours, job.id)).uid == job.uid
    assert (await service(house).submit(ours, asked(idempotency_key="once"))).uid == job.uid
    found, _ = await house.kube.list(VIDEOJOB, house.namespace)
    assert len(found) == 1


async def test_a_gateway_that_sees_nothing_any_more_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(Servers, "apply", broken)
    await house.kube.patch(MODELSERVER, house.namespace, "vace", {"metadata": {"labels": {"is": "changed"}}})
    with pytest.raises(RuntimeError, match="a fault of our own"):
        await house.ended()
    async with house.client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("/openapi.json")
