"""The gateway's errors in OpenAI's shape: {"error": {message, type, param, code}}. Pure."""

from __future__ import annotations

from pydantic import BaseModel

from kinora.gateway.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    InvalidInput,
    KeyReused,
    Limited,
    ModelNotFound,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from kinora.gateway.mapping import renamed
from kinora.gateway.openai.request import NAMES

_KINDS: dict[type[GatewayError], tuple[str, str | None]] = {
    ModelNotFound: ("invalid_request_error", "model_not_found"),
    InvalidInput: ("invalid_request_error", "invalid_value"),
    Unauthorized: ("invalid_request_error", "invalid_api_key"),
    Forbidden: ("permission_error", "forbidden"),
    NotFound: ("invalid_request_error", "not_found"),
    Conflict: ("invalid_request_error", "conflict"),
    TooLarge: ("invalid_request_error", "request_too_large"),
    KeyReused: ("invalid_request_error", "idempotency_key_reused"),
    Limited: ("rate_limit_error", "rate_limit_exceeded"),
    Unavailable: ("server_error", "service_unavailable"),
}


class Detail(BaseModel):
    """What went wrong. `param`: the field of the request that it is about."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Fault(BaseModel):
    """The answer to a request that cannot be served."""

    error: Detail


def fault(error: GatewayError) -> Fault:
    """The body of the answer."""
    kind, code = next((_KINDS[cls] for cls in type(error).__mro__ if cls in _KINDS), ("server_error", None))
    if error.status < 500 and kind == "server_error":
        kind = "invalid_request_error"
    if not isinstance(error, InvalidInput):
        return Fault(error=Detail(message=error.message, type=kind, code=code))
    told = renamed(error, NAMES)
    return Fault(error=Detail(message=told.message, type=kind, param=told.field or None, code=code))
