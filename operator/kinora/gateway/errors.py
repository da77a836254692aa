"""What can go wrong with a request, whatever its dialect: each dialect renders these in its own shape. No HTTP here."""

from __future__ import annotations

from collections.abc import Sequence

from kinora.recipes.faults import Fault


class GatewayError(Exception):
    """The base. `message` is for the caller: field, value, what is allowed, the mend; no path, secret or traceback.

    `attempted`: the creation of a job was attempted before this happened, so that a client must not try again by itself
    (the answer then carries `x-should-retry: false`).
    """

    status = 500
    retry_after: float | None = None

    def __init__(self, message: str, *, attempted: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.attempted = attempted


class InvalidInput(GatewayError):  # noqa: N818 - verdicts, named as callers know them
    """The request asks for something that cannot be. `field` is the request's own name for it; empty: the whole.

    `faults`: all that is wrong with the job, one by one, where it was the job that was judged.
    """

    status = 400

    def __init__(self, field: str, message: str, *, attempted: bool = False, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message, attempted=attempted)
        self.field, self.faults = field, tuple(faults)


class ModelNotFound(InvalidInput):
    """No such model, or none that a ModelServer of the tenant serves."""


class Unauthorized(GatewayError):  # noqa: N818
    """No key, or one that is not known."""

    status = 401


class Forbidden(GatewayError):  # noqa: N818
    """The key is known and may not do this."""

    status = 403


class NotFound(GatewayError):  # noqa: N818
    """No such job, file or route: for this tenant."""

    status = 404


class NotAllowed(GatewayError):  # noqa: N818
    """The route exists with other methods."""

    status = 405


class Conflict(GatewayError):  # noqa: N818
    """What is there stands in the way: other content under a key, a state that does not allow it."""

    status = 409


class Gone(GatewayError):  # noqa: N818
    """It was there, and its time is over: a link that has expired."""

    status = 410


class TooLarge(GatewayError):  # noqa: N818
    """More bytes than are allowed."""

    status = 413


class KeyReused(GatewayError):  # noqa: N818
    """An idempotency key came with another request than the first time."""

    status = 422


class Limited(GatewayError):  # noqa: N818
    """Too many submits, or too many unfinished jobs. `retry_after` in seconds. `rate`: it is the former."""

    status = 429

    def __init__(self, message: str, retry_after: float, *, rate: bool = True) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.rate = rate


class Unavailable(GatewayError):  # noqa: N818
    """The cluster or a store does not answer. `retry_after` in seconds."""

    status = 503

    def __init__(self, message: str, retry_after: float = 2.0, *, attempted: bool = False) -> None:
        super().__init__(message, attempted=attempted)
        self.retry_after = retry_after
