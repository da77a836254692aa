"""A request of /v1/videos as it comes: JSON or a form, with one file at most, which is streamed into the store."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request

from kinora.gateway.bodies import incoming, json_of, read_bytes
from kinora.gateway.context import Gateway
from kinora.gateway.errors import InvalidInput
from kinora.gateway.files import Upload
from kinora.gateway.multipart import Part, parts
from kinora.gateway.tenants import Tenant
from kinora.storage import sniff

_NESTED = re.compile(r"(?P<outer>[^\[\]]+)\[(?P<inner>[^\[\]]+)\]")
_DATA = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w=.+-]+)*;base64,(?P<bytes>.*)", re.S)
_FORM: Final = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Form:
    """What was sent. `file`: what came as a file, in the store by now; `body`: what tells two requests apart."""

    fields: dict[str, Any]
    file: Upload | None
    body: bytes


async def read_form(gateway: Gateway, request: Request, tenant: Tenant, field: str, kind: str) -> Form:
    """The request's fields, and the file of `field` put into the store. `kind` of the file: image or video.

    Raises InvalidInput, TooLarge, and what the store raises.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != _FORM:
        fields = await _json(gateway, request)
        content = _data_of(fields, field)
        file = None if content is None else await _put(gateway, tenant, _once(content), field, kind)
        return Form(fields, file, canonical(fields, file))
    texts, file = list[tuple[str, str]](), None
    async for part in parts(content_type, incoming(request)):
        if part.filename is None:
            texts.append((part.name, await part.text()))
        elif part.name != field or file is not None:
            raise InvalidInput(part.name, f"{part.name[:64]} is a file; allowed: one file, in {field}")
        else:
            file = await _file(gateway, tenant, part, kind)
    fields = nested(texts)
    return Form(fields, file, canonical(fields, file))


def canonical(fields: Mapping[str, Any], file: Upload | None) -> bytes:
    """The request without what differs when it is sent again: a form's boundary, the order of its fields."""
    return json.dumps([fields, file.sha256 if file else None], sort_keys=True).encode()


def nested(texts: list[tuple[str, str]]) -> dict[str, Any]:
    """A form's fields, with `a[b]` as {"a": {"b": ...}}: how the package writes objects into forms."""
    fields: dict[str, Any] = {}
    for name, value in texts:
        found = _NESTED.fullmatch(name)
        if found is None:
            fields[name] = value
            continue
        inner = fields.setdefault(found["outer"], {})
        if isinstance(inner, dict):
            inner[found["inner"]] = value
    return fields


async def _json(gateway: Gateway, request: Request) -> dict[str, Any]:
    """The body as a JSON object, bounded here since the path takes large forms too."""
    data = json_of(await read_bytes(request, gateway.settings.values.max_body_bytes))
    if not isinstance(data, dict):
        raise InvalidInput("", f"the body is no JSON object; allowed: an object of fields, or {_FORM}")
    return data


async def _file(gateway: Gateway, tenant: Tenant, part: Part, kind: str) -> Upload | None:
    """The file of a part; None for an empty one without a name, as a form sends for a field that is left out."""
    chunks = part.chunks()
    first = await anext(chunks, b"")
    if not first and not part.filename:
        return None

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return await _put(gateway, tenant, whole(), part.name, kind)


async def _put(gateway: Gateway, tenant: Tenant, chunks: AsyncIterator[bytes], field: str, kind: str) -> Upload:
    made = await gateway.files.put(tenant, chunks)
    found = made.content_type.partition("/")[0]
    if not made.bytes:
        raise InvalidInput(field, f"{field} is an empty file; allowed: one {kind}")
    if made.content_type != sniff.UNKNOWN and found != kind:
        raise InvalidInput(field, f"{field} is a file of type {made.content_type}; allowed: one {kind}")
    return made


def _data_of(fields: dict[str, Any], field: str) -> bytes | None:
    """What a data URL in `field` holds; the field is then taken out of `fields`."""
    value = fields.get(field)
    text = value.get("image_url") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text.startswith("data:"):
        return None
    found = _DATA.fullmatch(text)
    try:
        content = base64.b64decode(found["bytes"], validate=True) if found else b""
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        raise InvalidInput(field, f"{field} is a data URL that holds nothing; allowed: one in base64")
    fields.pop(field)
    return content


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
