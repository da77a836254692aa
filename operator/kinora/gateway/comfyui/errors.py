"""ComfyUI's error bodies: {error: {type, message, details, extra_info}, node_errors}. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinora.engine.contract import PromptRefusal
from kinora.gateway.errors import GatewayError, InvalidInput

_TYPES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    422: "prompt_id_reused",
    429: "rate_limited",
    503: "unavailable",
}


class PromptRefused(InvalidInput):
    """A prompt that does not run; `body` is the whole answer."""

    def __init__(self, refusal: PromptRefusal) -> None:
        super().__init__("prompt", refusal.message)
        self.body = refusal.body()


def refused(
    kind: str, message: str, details: str = "", *, node_errors: Mapping[str, Any] | None = None, **extra: Any
) -> PromptRefused:
    """One refusal; `extra` goes to extra_info."""
    error = {"type": kind, "message": message, "details": details, "extra_info": extra}
    return PromptRefused(PromptRefusal(error, node_errors or {}))


def body_of(error: GatewayError) -> dict[str, Any]:
    """The answer to a request that failed, whatever it was."""
    if isinstance(error, PromptRefused):
        return error.body
    kind = _TYPES.get(error.status, "internal_error")
    field = error.field if isinstance(error, InvalidInput) else ""
    extra = {"input_name": field} if field else {}
    return {
        "error": {"type": kind, "message": error.message, "details": "", "extra_info": extra},
        "node_errors": {},
    }
