"""How the hosted APIs' routes read bodies, submit and answer: what is the same in all of them, above mapping.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from kinora.gateway.context import Gateway
from kinora.gateway.errors import InvalidInput, TooLarge
from kinora.gateway.jobs import Job
from kinora.gateway.mapping import Body, Draft, SourceOf, settle
from kinora.gateway.service import Submission
from kinora.gateway.tenants import Tenant

RETRY_COUNT: Final = "x-stainless-retry-count"
IDEMPOTENCY_KEY: Final = "idempotency-key"
_IDLE_SECONDS: Final = 60.0


async def incoming(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes; InvalidInput when nothing comes any more."""
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise InvalidInput("", f"no byte of the body came for {_IDLE_SECONDS:g} s; send it again") from None
        if chunk:
            yield chunk


async def read_bytes(request: Request, most: int) -> bytes:
    """The whole body, of `most` bytes at most. Raises TooLarge, InvalidInput."""
    body = bytearray()
    async for chunk in incoming(request):
        body += chunk
        if len(body) > most:
            raise TooLarge(f"the body is over {most} bytes, which is what is allowed")
    return bytes(body)


def json_of(body: bytes) -> object:
    """A body as JSON. Raises InvalidInput."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("", "the body is no JSON; allowed: a JSON object of fields") from None


async def read_json(request: Request) -> object:
    """The body as JSON, on paths whose bodies the edge bounds. Raises InvalidInput."""
    return json_of(await request.body())


def documented(model: type[Body], *, form: bool = False) -> dict[str, Any]:
    """What an OpenAPI document says of a route that parses its body itself. `form`: it takes multipart too."""
    schema = model.model_json_schema(by_alias=True)
    kinds = ("application/json", "multipart/form-data") if form else ("application/json",)
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


def told(answer: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model as the answer, without what is not set."""
    content = answer.model_dump_json(exclude_none=True)
    return Response(content, status_code=status, headers=dict(headers or {}), media_type="application/json")


def retried(request: Request) -> bool:
    """Whether the client says that it asks again."""
    count = request.headers.get(RETRY_COUNT, "0")
    return count.isdigit() and int(count) > 0


async def submitted(
    gateway: Gateway,
    request: Request,
    tenant: Tenant,
    draft: Draft,
    *,
    dialect: str,
    note: Mapping[str, Any],
    body: bytes,
    source: SourceOf | None = None,
) -> Job:
    """Settle a draft's sources and make the job.

    `body`: the request, by which a repeat is known on this path. `source`: where texts that name files are not the
    gateway's files' affair alone.
    """

    async def ours(text: str) -> Mapping[str, Any]:
        return await gateway.files.source(tenant, text)

    return await gateway.service.submit(
        tenant,
        Submission(
            dialect=dialect,
            spec=await settle(draft.spec, source or ours),
            note=note,
            idempotency_key=request.headers.get(IDEMPOTENCY_KEY) or None,
            body=f"{request.url.path}?{request.url.query}\n".encode() + body,
            retried=retried(request),
        ),
    )


def links(gateway: Gateway, request: Request, tenant: Tenant, job: Job) -> list[str]:
    """A link to each of a job's outputs, in their order."""
    return [gateway.files.link(request, tenant, job, one.index) for one in job.artifacts]
