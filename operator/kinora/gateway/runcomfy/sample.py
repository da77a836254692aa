"""The sample picture that the document's call names: one of our own, put into the tenant's store when asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from kinora.gateway.context import Gateway
from kinora.gateway.runcomfy.request import SAMPLE
from kinora.gateway.tenants import Tenant

_MOST: Final = 1024 * 1024  # bytes


@cache
def picture() -> bytes:
    """The picture as PNG: a figure before ruins at sunset, drawn by hack/sample_picture.py, CC0."""
    return files("kinora.gateway.runcomfy").joinpath("samples", SAMPLE).read_bytes()


async def source(gateway: Gateway, tenant: Tenant, text: str) -> Mapping[str, Any] | None:
    """The Source of the sample's name; None for any other text."""
    if text != SAMPLE:
        return None

    async def chunks() -> AsyncIterator[bytes]:
        yield picture()

    put = await gateway.files.put(tenant, chunks(), max_bytes=_MOST)
    return {"upload": put.key}
