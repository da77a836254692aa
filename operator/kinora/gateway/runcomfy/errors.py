"""The gateway's errors in RunComfy's dialect: `error` says why, `field` which key of the request it is about. Pure."""

from __future__ import annotations

from pydantic import BaseModel, Field

from kinora.gateway.errors import GatewayError, InvalidInput
from kinora.gateway.mapping import renamed
from kinora.gateway.runcomfy.request import NAMES


class Fault(BaseModel):
    """The answer to a request that cannot be served."""

    error: str
    field: str | None = Field(None, description="The key of the request that it is about")


def fault(error: GatewayError) -> Fault:
    """The body of the answer."""
    if isinstance(error, InvalidInput):
        told = renamed(error, NAMES)
        return Fault(error=told.message, field=told.field or None)
    return Fault(error=error.message)
