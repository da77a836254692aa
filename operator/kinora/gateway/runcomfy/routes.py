"""The routes of RunComfy's dialect: /v1/models/MODEL and /v1/requests. Shapes are answer.py's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from kinora.gateway.bodies import documented, links, read_json, submitted, told
from kinora.gateway.context import Dialect, Gateway
from kinora.gateway.errors import GatewayError, ModelNotFound
from kinora.gateway.jobs import State
from kinora.gateway.mapping import local_model, parse, shown
from kinora.gateway.runcomfy import answer, errors, sample
from kinora.gateway.runcomfy.places import Places
from kinora.gateway.runcomfy.request import HOSTED, LOCAL, MODEL, Inference, draft

NAME: Final = "runcomfy"
MODELS: Final = "/v1/models/"
REQUESTS: Final = "/v1/requests"


def router(gateway: Gateway) -> APIRouter:
    """The routes over this gateway."""
    api = APIRouter()
    _submit(api, gateway)
    _requests(api, gateway)
    return api


def render(error: GatewayError, _request: Request) -> Response:
    """An error in the API's shape."""
    return told(errors.fault(error), error.status)


DIALECT: Final = Dialect(NAME, (MODELS, REQUESTS), router, render)


def _urls(gateway: Gateway, request: Request, id_: str) -> answer.Urls:
    base = f"{gateway.base_url(request)}{REQUESTS}/{id_}"
    return answer.Urls(
        request_id=id_, status_url=f"{base}/status", result_url=f"{base}/result", cancel_url=f"{base}/cancel"
    )


def _submit(api: APIRouter, gateway: Gateway) -> None:
    @api.post(MODELS + "{model_id:path}", openapi_extra=documented(Inference), response_model=answer.Submitted)
    async def submit(model_id: str, request: Request) -> Response:
        """Make a request; the answer tells where to ask for it."""
        tenant = await gateway.tenant(request, NAME)
        if model_id.rstrip("/") != MODEL:
            raise ModelNotFound("model_id", f"model_id is {shown(model_id)}; allowed: {MODEL}")
        asked = parse(Inference, await read_json(request))
        made = draft(asked, local_model(HOSTED, LOCAL, gateway.catalogue))

        async def source(text: str) -> Mapping[str, Any]:
            return await sample.source(gateway, tenant, text) or await gateway.files.source(tenant, text)

        note = {"notes": list(made.notes)} if made.notes else {}
        job = await submitted(
            gateway, request, tenant, made, dialect=NAME, note=note, body=await request.body(), source=source
        )
        urls = _urls(gateway, request, job.id)
        return told(answer.Submitted(**urls.model_dump(), notes=list(made.notes) or None))


def _requests(api: APIRouter, gateway: Gateway) -> None:
    places = Places(gateway.service.jobs, time.monotonic)

    @api.get(REQUESTS + "/{request_id}/status", response_model=answer.RequestStatus)
    async def status(request_id: str, request: Request) -> Response:
        """Where a request is."""
        tenant = await gateway.tenant(request, NAME)
        job = await gateway.service.job(tenant, request_id)
        return told(answer.status(job, _urls(gateway, request, job.id), places.before(tenant, job)))

    @api.get(REQUESTS + "/{request_id}/result", response_model=answer.Result)
    async def result(request_id: str, request: Request) -> Response:
        """What a request came to; before its end, where it is."""
        tenant = await gateway.tenant(request, NAME)
        job = await gateway.service.job(tenant, request_id)
        urls, found = _urls(gateway, request, job.id), links(gateway, request, tenant, job)
        return told(answer.result(job, urls, found, places.before(tenant, job)))

    @api.post(REQUESTS + "/{request_id}/cancel", response_model=answer.Cancelled)
    async def cancel(request_id: str, request: Request) -> Response:
        """Cancel a request that is in the queue; one that is past it stays as it is, and is answered 409."""
        tenant = await gateway.tenant(request, NAME)
        job, was_queued = await gateway.service.cancel_queued(tenant, request_id)
        if was_queued or job.state is State.CANCELLED:
            return told(answer.cancelled(job))
        return told(answer.not_cancellable(job), 409)
