"""The routes under /files: links to artifacts and uploads, and places for files. A signed link opens them, and no key.

GET  /files/artifacts/{filename}?token=   a finished output
GET  /files/uploads/{filename}?token=     an uploaded file
PUT  /files/uploads/{filename}?token=     the file of a ticket
POST /files/oss                           the same as the form that Alibaba's OSS takes; the file comes last
"""

from __future__ import annotations

import hmac
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kinora.gateway.app import render
from kinora.gateway.bodies import incoming
from kinora.gateway.context import Dialect, Gateway
from kinora.gateway.errors import Forbidden, Gone, InvalidInput, TooLarge
from kinora.gateway.files import PATH, TICKETS, Files, tenant_of
from kinora.gateway.links import Grant, Kind, LinkExpired, LinkRefused
from kinora.gateway.multipart import Part, parts

_FORM: Final = ("key", "policy", "Signature", "file")
Token = Annotated[str, Query(max_length=2048, description="What the link was signed with.")]
_BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "All of it."},
    206: {"content": {"application/octet-stream": {}}, "description": "The range that was asked for."},
    302: {"description": "Where it is read directly."},
    403: {"description": "The link is not one of this gateway's."},
    410: {"description": "The link has expired."},
    416: {"description": "No byte of the range is there."},
}


def router(gateway: Gateway) -> APIRouter:
    """The routes."""
    api = APIRouter(prefix=PATH)
    files = gateway.files
    _reading(api, gateway, files)
    _writing(api, files)
    return api


def _reading(api: APIRouter, gateway: Gateway, files: Files) -> None:
    @api.head("/artifacts/{filename}", include_in_schema=False)
    @api.get("/artifacts/{filename}", responses=_BYTES, response_class=Response)
    async def artifact(request: Request, filename: str, token: Token = "") -> Response:
        """A finished output, whole or a range."""
        grant = await _opened(files, token, Kind.ARTIFACT)
        tenant = tenant_of(grant)
        request.state.tenant = tenant.name
        job = await gateway.service.job(tenant, str(grant.what[0]))
        return await files.artifact_response(request, tenant, job, int(grant.what[1]), filename=filename)

    @api.head("/uploads/{filename}", include_in_schema=False)
    @api.get("/uploads/{filename}", responses=_BYTES, response_class=Response)
    async def upload(request: Request, filename: str, token: Token = "") -> Response:
        """An uploaded file, whole or a range."""
        grant = await _opened(files, token, Kind.UPLOAD)
        tenant = tenant_of(grant)
        request.state.tenant = tenant.name
        found = await files.get_name(tenant, str(grant.what[0]), scope=TICKETS)
        return await files.upload_response(request, tenant, found.key, filename=filename)


def _writing(api: APIRouter, files: Files) -> None:
    body = {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
    fields = {name: {"type": "string"} for name in _FORM[:-1]} | {"file": {"type": "string", "format": "binary"}}
    form = {"schema": {"type": "object", "properties": fields, "required": list(_FORM)}}

    @api.put("/uploads/{filename}", openapi_extra={"requestBody": body})
    async def put(request: Request, filename: str, token: Token = "") -> Response:
        """The file of a ticket: its bytes are the body."""
        del filename
        grant = await _opened(files, token, Kind.PUT)
        request.state.tenant = grant.tenant
        _announced(request, int(grant.what[1]))
        made = await files.put_ticket(grant, str(grant.what[0]), incoming(request))
        return JSONResponse({"bytes": made.bytes, "sha256": made.sha256}, headers={"ETag": f'"{made.sha256}"'})

    @api.post("/oss", openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": form}}})
    async def oss(request: Request) -> Response:
        """The file of a ticket, as a form whose fields the ticket gave; answered 200 with an empty body."""
        told: dict[str, str] = {}
        async for part in parts(request.headers.get("content-type", ""), incoming(request)):
            if part.name != "file":
                told[part.name] = await part.text()
                continue
            return await _form(request, files, told, part)
        raise InvalidInput("file", "the form has no field file; allowed: the ticket's fields, and then file")


async def _form(request: Request, files: Files, told: dict[str, str], file: Part) -> Response:
    missing = [name for name in _FORM[:-1] if not told.get(name)]
    if missing:
        raise InvalidInput(missing[0], f"the form's field {missing[0]} is not set before file; the ticket gave it")
    grant = await _opened(files, f"{told['policy']}.{told['Signature']}", Kind.FORM)
    tenant = tenant_of(grant)
    request.state.tenant = tenant.name
    folder = f"kinora/{tenant.digest}/{grant.what[0]}/"
    name = told["key"][len(folder) :]
    if not hmac.compare_digest(told["key"][: len(folder)].encode(), folder.encode()) or not name or "/" in name:
        raise Forbidden("the form's key is not beneath the ticket's upload_dir; allowed: upload_dir/FILENAME")
    made = await files.put_ticket(grant, f"{grant.what[0]}/{name}", file.chunks())
    return Response(status_code=200, headers={"ETag": f'"{made.sha256}"'})


async def _opened(files: Files, token: str, kind: Kind) -> Grant:
    try:
        return await files.grant(token, kind)
    except LinkExpired as expired:
        raise Gone(str(expired)) from None
    except LinkRefused as refused:
        raise Forbidden(str(refused)) from None


def _announced(request: Request, most: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdigit() and len(length) < 20 and int(length) > most:
        raise TooLarge(f"the file has {length} bytes; allowed by its ticket: {most}")


FILES: Final = Dialect(name="files", prefixes=(PATH,), router=router, render=render, streamed=(PATH,))
