"""The gateway's pure parts: names, keys, limits, jobs, the cache; and what stands around every request."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kinora.api.names import LABEL_TENANT
from kinora.api.reasons import Phase
from kinora.catalogue.load import load_catalogue
from kinora.gateway.admit import admit
from kinora.gateway.app import application, dialect_of
from kinora.gateway.cache import Jobs, Servers
from kinora.gateway.context import Dialect, Gateway
from kinora.gateway.dialects import ALL
from kinora.gateway.errors import GatewayError, InvalidInput, ModelNotFound, Unavailable
from kinora.gateway.file_routes import FILES
from kinora.gateway.jobs import State, job_of
from kinora.gateway.limits import Rates
from kinora.gateway.metrics import Metrics
from kinora.gateway.models import catalogue_of
from kinora.gateway.names import id_of, id_of_key, is_id, job_name
from kinora.gateway.service import Service
from kinora.gateway.settings import GatewayValues, Settings, SettingsError, settings_from
from kinora.gateway.tenants import EntryError, KeyRing, Limits, Tenant, entry_text, hash_of, parse_entry

Object = dict[str, Any]
NOW = datetime(2030, 1, 1, tzinfo=UTC)
OURS = Tenant("studio", "films")


def video_job(id_: str, version: int = 1, phase: str = "Queued", tenant: Tenant = OURS, **status: Any) -> Object:
    return {
        "metadata": {
            "name": job_name(tenant, id_),
            "namespace": tenant.namespace,
            "uid": f"uid-of-{id_}",
            "resourceVersion": str(version),
            "creationTimestamp": "2029-12-31T23:00:00Z",
            "labels": {LABEL_TENANT: tenant.digest, "kinora.dev/dialect": "openai"},
            "annotations": {"kinora.dev/gateway": json.dumps({"note": {"a": 1}, "request": "r", "model": "m"})},
        },
        "spec": {"model": "m", "task": "TextToVideo", "prompt": "secret"},
        "status": {"phase": phase, **status},
    }


# --- names


@given(st.text(min_size=1), st.text(min_size=1), st.uuids())
def test_the_name_of_an_object_says_its_id_and_differs_by_tenant(one: str, other: str, id_: uuid.UUID) -> None:
    first, second = Tenant(one, "films"), Tenant(other, "films")
    name = job_name(first, str(id_))
    assert id_of(name) == str(id_)
    assert len(name) <= 63
    assert (name == job_name(second, str(id_))) == (one == other)


@given(st.text())
def test_only_a_uuid_in_its_canonical_form_is_an_id(text: str) -> None:
    assert not is_id(text) or str(uuid.UUID(text)) == text
    assert not is_id(text.upper()) or text.upper() == text.lower()


def test_an_idempotency_key_is_of_its_tenant() -> None:
    assert id_of_key(OURS, "k") == id_of_key(OURS, "k") != id_of_key(Tenant("other", "films"), "k")


# --- keys


def entry(**more: Any) -> str:
    return json.dumps({"hashes": [hash_of("the key")], "namespace": "films", **more})


def test_a_key_leads_to_its_tenant_and_nothing_else_does() -> None:
    ring = KeyRing.of([("studio", parse_entry("studio", entry(queue="batch", dialects=["openai"])))])
    found = ring.find("the key", NOW)
    assert found is not None
    assert (found.name, found.namespace, found.queue, found.dialects) == ("studio", "films", "batch", {"openai"})
    assert ring.find("the  key", NOW) is None
    assert ring.find(hash_of("the key"), NOW) is None, "the hash that the Secret holds is no key"


def test_an_expired_key_is_nobodys() -> None:
    ring = KeyRing.of([("studio", parse_entry("studio", entry(expires="2030-01-01T00:00:00Z")))])
    assert ring.find("the key", NOW) is None
    assert ring.find("the key", datetime(2029, 12, 31, tzinfo=UTC)) is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "the entry"),
        ('{"namespace": "films"}', "hashes"),
        (entry(hashes=["not a hash"]), "hashes.0"),
        (entry(namespace="Films"), "namespace"),
        (entry(dialect=["openai"]), "dialect"),
        (entry(dialects=["smtp"]), "smtp; allowed: comfyui"),
        (entry(limits={"concurrent": 0}), "limits.concurrent"),
        (entry(expires="2030-01-01T00:00:00"), "expires"),
    ],
)
def test_a_wrong_entry_is_told_by_its_field(text: str, told: str) -> None:
    with pytest.raises(EntryError, match="key entry studio") as error:
        parse_entry("studio", text)
    assert told in str(error.value)


def test_an_entry_is_written_as_it_is_read() -> None:
    made = parse_entry("studio", entry(limits={"concurrent": 3}, dialects=["comfyui"]))
    assert parse_entry("studio", entry_text(made)) == made


# --- limits


def test_a_tenant_has_its_burst_and_then_its_rate() -> None:
    now = [0.0]
    rates, slow = Rates(lambda: now[0]), Tenant("a", "films", limits=Limits(submits_per_minute=60, burst=3))
    assert [rates.take(slow) for _ in range(3)] == [0, 0, 0]
    assert rates.take(slow) == pytest.approx(1)
    assert rates.take(Tenant("b", "films")) == 0, "another's bucket is another's"
    now[0] = 1.0
    assert rates.take(slow) == 0
    now[0] = 1000.0
    assert [rates.take(slow) for _ in range(4)].count(0) == 3, "waiting longer than the burst buys no more"


# --- jobs and the cache


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_a_state(phase: Phase) -> None:
    job = job_of(video_job(str(uuid.uuid4()), phase=phase))
    assert job is not None
    assert job.state.finished == (phase in ("Succeeded", "Failed", "Cancelled"))


def test_no_prompt_is_kept_and_what_others_wrote_into_the_note_breaks_nothing() -> None:
    obj = video_job(str(uuid.uuid4()))
    assert "secret" not in repr(job_of(obj))
    for text in ("{", "[]", '{"note": 3}', "null"):
        obj["metadata"]["annotations"]["kinora.dev/gateway"] = text
        found = job_of(obj)
        assert found is not None
        assert found.note == {}


def test_an_object_that_only_bears_the_label_is_no_job_of_the_tenant() -> None:
    obj = video_job(str(uuid.uuid4()))
    assert job_of({**obj, "metadata": {**obj["metadata"], "name": "mine"}}) is None
    obj["metadata"]["labels"][LABEL_TENANT] = Tenant("other", "films").digest
    assert job_of(obj) is None, "name and label must agree"


async def test_the_cache_knows_the_newest_state_and_counts_what_is_unfinished() -> None:
    jobs, ids = Jobs(), [str(uuid.uuid4()) for _ in range(3)]
    jobs.replace([video_job(id_, version=5) for id_ in ids], None, 5)
    assert jobs.unfinished("films", OURS.digest) == 3
    jobs.apply(video_job(ids[0], version=7, phase="Succeeded"))
    jobs.apply(video_job(ids[0], version=6, phase="Running"))  # a late echo
    found = jobs.get("films", job_name(OURS, ids[0]))
    assert found is not None
    assert found.state == State.SUCCEEDED
    assert jobs.unfinished("films", OURS.digest) == 2
    jobs.remove(video_job(ids[1], version=8))
    jobs.apply(video_job(ids[1], version=8))  # and another, of what is gone
    assert jobs.get("films", job_name(OURS, ids[1])) is None
    fresh = video_job(str(uuid.uuid4()), version=12)
    jobs.apply(fresh)
    jobs.replace([], None, 10)
    assert [job.version for job in jobs.of("films", OURS.digest)] == [12], "a list does not undo what came after it"
    assert jobs.of("films", Tenant("other", "films").digest) == []


async def test_a_job_that_was_deleted_here_is_not_revived_by_a_change_that_is_told_late() -> None:
    jobs, id_ = Jobs(), str(uuid.uuid4())
    made = jobs.apply(video_job(id_, version=5))
    assert made is not None
    jobs.forget(made)
    jobs.apply(video_job(id_, version=6, phase="Running"))  # written after what we knew, and before it was deleted
    jobs.replace([video_job(id_, version=6, phase="Running")], None, 6)
    assert jobs.of("films", OURS.digest) == []
    assert jobs.apply({**video_job(id_, version=9), "metadata": video_job(id_, version=9)["metadata"] | {"uid": "new"}})


async def test_a_listener_hears_of_its_tenant_alone_and_a_slow_one_is_told_to_look_anew() -> None:
    jobs, id_ = Jobs(), str(uuid.uuid4())
    async with jobs.changes("films", OURS.digest) as heard:
        jobs.apply(video_job(str(uuid.uuid4()), tenant=Tenant("other", "films")))
        assert heard.empty()
        for version in range(1, 1100):
            jobs.apply(video_job(id_, version=version))
        seen = [heard.get_nowait() for _ in range(heard.qsize())]
        assert seen[-1] is None
        assert len(seen) == 1001
    jobs.apply(video_job(id_, version=2000))
    assert heard.empty()


# --- admission


def servers(*models: str) -> list[Object]:
    return [{"metadata": {"name": f"s-{name}"}, "spec": {"model": name}} for name in models]


SPEC: Object = {"model": "wan2.1-vace-14b", "task": "TextToVideo", "prompt": "a lighthouse"}


def test_a_job_is_admitted_for_the_model_that_renders_it() -> None:
    catalogue = catalogue_of(load_catalogue(), {"wan2.1-vace-plus": "wan2.1-vace-14b", "bad": "nothing"}, [])
    assert admit(SPEC, catalogue, servers("wan2.1-vace-14b")).name == "wan2.1-vace-14b"
    by_name = {**SPEC, "modelServerName": "s-wan2.1-vace-14b"}
    del by_name["model"]
    assert admit(by_name, catalogue, servers("wan2.1-vace-14b")).name == "wan2.1-vace-14b"
    with pytest.raises(ModelNotFound, match="bad does not exist"):
        admit({**SPEC, "model": "bad"}, catalogue, servers("wan2.1-vace-14b"))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"parameters": {"width": "wide"}}, "spec.parameters.width"),
        ({"parameters": {"width": 100, "height": 100}}, "spec.parameters.width"),
        ({"task": "Inpaint"}, "spec.inputs"),
        (
            {"inputs": {"references": [{"source": {"url": "file:///etc/passwd"}}]}, "task": "ReferenceToVideo"},
            "spec.inputs",
        ),
        ({"colour": "blue"}, "spec.colour"),
    ],
)
def test_what_cannot_be_rendered_is_told_by_its_field(more: Object, field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        admit({**SPEC, **more}, load_catalogue(), servers("wan2.1-vace-14b"))
    assert error.value.field.startswith(field)


# --- settings


def test_a_wrong_setting_is_told_by_its_place() -> None:
    assert settings_from({"POD_NAMESPACE": "k"}).values == GatewayValues()
    for environment, told in [
        ({}, "POD_NAMESPACE"),
        ({"POD_NAMESPACE": "k", "KINORA_GATEWAY": '{"dialects": ["smtp"]}'}, "smtp"),
        ({"POD_NAMESPACE": "k", "KINORA_GATEWAY": '{"publicUrl": "ftp://x"}'}, "publicUrl"),
    ]:
        with pytest.raises(SettingsError, match=told):
            settings_from(environment)


# --- around every request


class Body(BaseModel):
    n: int


def shown(error: GatewayError, _request: Request) -> Response:
    field = error.field if isinstance(error, InvalidInput) else None
    return JSONResponse({"told": error.message, "field": field}, status_code=error.status)


def routes(_gateway: Gateway) -> APIRouter:
    router = APIRouter()

    @router.post("/toy/echo")
    async def echo(body: Body) -> Body:
        return body

    @router.post("/toy/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    @router.post("/toy/files")
    async def files(request: Request) -> int:
        return len(await request.body())

    @router.get("/toy/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    @router.get("/toy/away")
    async def away() -> None:
        raise Unavailable("later", 1.2, attempted=True)

    return router


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings("k", values=GatewayValues(max_body_bytes=1024))
    gateway = Gateway(settings, None, None, Metrics(), None, None)  # type: ignore[arg-type]
    toy = Dialect("toy", ("/toy",), routes, shown, streamed=("/toy/files",))
    transport = httpx.ASGITransport(application(gateway, [toy]))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        client.headers["x-test"] = "1"
        client.metrics = gateway.metrics  # type: ignore[attr-defined]
        yield client


async def test_every_error_has_the_dialects_shape_and_a_request_id(http: httpx.AsyncClient) -> None:
    wrong = await http.post("/toy/echo", json={"n": "many"})
    assert (wrong.status_code, wrong.json()["field"]) == (400, "n")
    assert (await http.post("/toy/echo", content=b"{")).status_code == 400
    assert (await http.get("/toy/nothing")).json()["told"] == "Not Found"
    assert (await http.get("/toy/echo")).status_code == 405
    broken = await http.get("/toy/broken")
    assert (broken.status_code, "secret" in broken.text) == (500, False)
    away = await http.get("/toy/away", headers={"x-request-id": "a b"})
    assert (away.status_code, away.headers["retry-after"], away.headers["x-should-retry"]) == (503, "2", "false")
    assert uuid.UUID(away.headers["x-request-id"]), "an id that is not safe to log is not taken over"


async def test_a_body_over_the_limit_ends_while_it_streams_in(http: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 20:
            sent += 512
            yield b"x" * 512

    for path in ("/toy/raw", "/toy/echo"):
        sent = 0
        assert (await http.post(path, content=endless())).status_code == 413
        assert sent <= 4096, "the rest was not read"
        assert (await http.post(path, content=b"x" * 1025)).status_code == 413
    assert (await http.post("/toy/raw", content=b"x" * 1024)).json() == 1024
    assert (await http.post("/toy/files", content=b"x" * 4096)).json() == 4096, "routes of uploads bound their own"


async def test_requests_are_counted_by_route_and_never_by_path(http: httpx.AsyncClient) -> None:
    for n in range(3):
        await http.get(f"/toy/{n}/nothing")
    await http.post("/toy/echo", json={"n": 1})
    text = generate_latest(http.metrics.registry).decode()  # type: ignore[attr-defined]
    assert 'code="200",dialect="toy",method="POST",route="/toy/echo"} 1.0' in text
    assert 'code="404",dialect="toy",method="GET",route="other"} 3.0' in text


def test_every_route_lies_where_its_dialect_is_looked_for() -> None:
    service = Service(None, Jobs(), Servers(), Rates(lambda: 0.0), retention_seconds=None)  # type: ignore[arg-type]
    gateway = Gateway(Settings("k"), service, None, Metrics(), None, None)  # type: ignore[arg-type]
    everyone, routes = [FILES, *ALL], 0
    for dialect in everyone:
        app = FastAPI(openapi_url=None)
        app.include_router(dialect.router(gateway))
        paths = get_openapi(title="", version="1", routes=app.routes)["paths"]
        assert paths, dialect.name
        for path in paths:
            routes += 1
            assert dialect_of(path, everyone) is dialect, path
    assert routes > 40


async def test_a_path_of_no_dialect_is_not_found(http: httpx.AsyncClient) -> None:
    nowhere = await http.get("/elsewhere")
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "NotFound")
    assert (await http.post("/toyota", json={})).status_code == 404
