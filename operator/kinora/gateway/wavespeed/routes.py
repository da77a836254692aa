"""The routes of WaveSpeed's dialect, below /api/v3: submit, predictions, uploads. Shapes are answer.py's."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from kinora.gateway.bodies import documented, incoming, links, read_json, submitted, told
from kinora.gateway.context import Dialect, Gateway
from kinora.gateway.errors import GatewayError, InvalidInput, ModelNotFound, NotFound
from kinora.gateway.jobs import Job
from kinora.gateway.mapping import parse, shown
from kinora.gateway.multipart import parts
from kinora.gateway.tenants import Tenant
from kinora.gateway.wavespeed import answer, errors, listing, uploads
from kinora.gateway.wavespeed.request import MODEL, Prediction, draft, model_of

NAME: Final = "wavespeed"
PREFIX: Final = "/api/v3"
BINARY: Final = "/media/upload/binary"
_FILE: Final = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]}
_FORM: Final = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FILE}}}}
#: How long a request in sync mode is kept open; then it is answered 5004, and the job goes on.
SYNC_SECONDS = 300.0
_LOOK: Final = 0.25  # seconds between two looks of a request that is kept open


def router(gateway: Gateway) -> APIRouter:
    """The routes over this gateway."""
    api = APIRouter(prefix=PREFIX)
    shell = _Shell(gateway)
    _predictions(api, shell)
    _lists(api, shell)
    _uploads(api, gateway)
    _submit(api, shell)  # last: its path takes any
    return api


def render(error: GatewayError, _request: Request) -> Response:
    """An error in the API's shape; its HTTP status is its code."""
    return told(errors.fault(error), error.status)


DIALECT: Final = Dialect(NAME, (PREFIX,), router, render, streamed=(PREFIX + BINARY,))


class _Shell:
    """What the routes do with jobs."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def result_url(self, request: Request, job: Job) -> str:
        return f"{self.gateway.base_url(request)}{PREFIX}/predictions/{job.id}/result"

    def prediction(self, request: Request, tenant: Tenant, job: Job) -> answer.Prediction:
        found = links(self.gateway, request, tenant, job)
        return answer.prediction(job, url=self.result_url(request, job), links=found)

    async def ended(self, request: Request, tenant: Tenant, job: Job) -> Job:
        """The job when it has ended, when the bound is reached, or when the client or this process goes.

        The cache is looked at: a queue of changes for each request that is kept open would cost more than it saves.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SYNC_SECONDS
        while not job.state.finished and loop.time() < deadline:
            if self.gateway.draining.is_set() or await request.is_disconnected():
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(self.gateway.draining.wait(), min(_LOOK, deadline - loop.time()))
            job = await self.gateway.service.job(tenant, job.id)
        return job


def _submit(api: APIRouter, shell: _Shell) -> None:
    gateway = shell.gateway

    @api.post("/{model:path}", openapi_extra=documented(Prediction), response_model=answer.Envelope)
    async def submit(model: str, request: Request, webhook: Annotated[str, Query(max_length=2048)] = "") -> Response:
        """Make a prediction. With enable_sync_mode the answer waits for its end, up to a bound.

        `webhook`: whom to tell at the end.
        """
        tenant = await gateway.tenant(request, NAME)
        model = model.rstrip("/")
        local = model_of(model, gateway.catalogue)
        if local is None:
            raise ModelNotFound("model", f"model is {shown(model)}; allowed: {MODEL}")
        asked = parse(Prediction, await read_json(request))
        made = draft(asked, local, webhook, entry=gateway.catalogue.get(local))
        note: dict[str, Any] = {"model": model, **({"notes": list(made.notes)} if made.notes else {})}
        job = await submitted(gateway, request, tenant, made, dialect=NAME, note=note, body=await request.body())
        if not asked.enable_sync_mode:
            return told(answer.Envelope(data=shell.prediction(request, tenant, job)))
        job = await shell.ended(request, tenant, job)
        if job.state.finished:
            return told(answer.Envelope(data=shell.prediction(request, tenant, job)))
        return told(answer.Envelope(data=answer.timed_out(job, url=shell.result_url(request, job))))


def _predictions(api: APIRouter, shell: _Shell) -> None:
    gateway = shell.gateway

    @api.get("/predictions/{prediction_id}/result", response_model=answer.Envelope)
    @api.get("/predictions/{prediction_id}", response_model=answer.Envelope)
    async def result(prediction_id: str, request: Request) -> Response:
        """A prediction as it is."""
        tenant = await gateway.tenant(request, NAME)
        job = await gateway.service.job(tenant, prediction_id)
        return told(answer.Envelope(data=shell.prediction(request, tenant, job)))

    @api.delete("/predictions/{prediction_id}", response_model=listing.Deleted)
    async def delete(prediction_id: str, request: Request) -> Response:
        """Cancel a prediction that has not ended, remove the record of one that has."""
        tenant = await gateway.tenant(request, NAME)
        await _end(tenant, prediction_id)
        return told(listing.Deleted(data=listing.DeletedPrediction(id=prediction_id)))

    @api.post("/predictions/delete", openapi_extra=documented(listing.Deletion), response_model=listing.DeletedMany)
    async def delete_many(request: Request) -> Response:
        """The same for several; ids that lead nowhere are passed over."""
        tenant = await gateway.tenant(request, NAME)
        asked = parse(listing.Deletion, await read_json(request))
        count = 0
        for one in dict.fromkeys(asked.ids):
            try:
                await _end(tenant, one)
            except NotFound:
                continue
            count += 1
        return told(listing.DeletedMany(data=listing.DeletedCount(deleted_count=count)))

    async def _end(tenant: Tenant, prediction_id: str) -> None:
        job = await gateway.service.job(tenant, prediction_id)
        if job.state.finished:
            await gateway.service.delete(tenant, job.id)
        else:
            await gateway.service.cancel(tenant, job.id)


def _lists(api: APIRouter, shell: _Shell) -> None:
    gateway = shell.gateway

    @api.post("/predictions", openapi_extra=documented(listing.Query), response_model=listing.Listed)
    @api.get("/predictions", response_model=listing.Listed)
    async def listed(request: Request) -> Response:
        """The predictions, newest first, by pages; what is asked for is in the body, or in the query."""
        tenant = await gateway.tenant(request, NAME)
        asked = parse(listing.Query, await read_json(request) if await request.body() else dict(request.query_params))
        found = listing.select(gateway.service.jobs(tenant), asked)
        items = [shell.prediction(request, tenant, job) for job in found.jobs]
        return told(listing.Listed(data=listing.Page(page=asked.page, total=found.total, items=items)))


def _uploads(api: APIRouter, gateway: Gateway) -> None:
    @api.post("/media/uploads", openapi_extra=documented(uploads.Request), response_model=uploads.Ticketed)
    async def ticket(request: Request) -> Response:
        """A place for one file: where it is put without a key, and the URL by which predictions take it."""
        tenant = await gateway.tenant(request, NAME)
        asked = parse(uploads.Request, await read_json(request))
        made = await gateway.files.ticket(
            request, tenant, filename=asked.filename, size=asked.size, content_type=asked.content_type
        )
        return told(uploads.ticketed(made.put_url, made.download_url))

    @api.post(BINARY, openapi_extra=_FORM, response_model=uploads.Uploaded)
    async def binary(request: Request) -> Response:
        """One file as a form, as older releases of the package send it."""
        tenant = await gateway.tenant(request, NAME)
        async for part in parts(request.headers.get("content-type", ""), incoming(request)):
            if part.name == "file" and part.filename is not None:
                name = part.filename or "file"
                made, url = await gateway.files.put_shown(request, tenant, part.chunks(), filename=name)
                return told(uploads.uploaded(made.content_type, url, name, made.bytes))
        raise InvalidInput("file", "file is not set; allowed: one file, as multipart/form-data")
