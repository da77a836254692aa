"""The gateway's errors in WaveSpeed's shape: `code` is the HTTP status, `message` says why. Pure."""

from __future__ import annotations

from kinora.gateway.errors import GatewayError, InvalidInput
from kinora.gateway.mapping import renamed
from kinora.gateway.wavespeed.answer import Fault, without_http
from kinora.gateway.wavespeed.request import NAMES


def fault(error: GatewayError) -> Fault:
    """The body of the answer."""
    told = renamed(error, NAMES) if isinstance(error, InvalidInput) else error
    return Fault(code=error.status, message=without_http(told.message))
