"""One POST to a receiver, through the guard, and what came of it. Decides nothing, and keeps nothing of the answer."""

from __future__ import annotations

import asyncio
import email.utils
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import aiohttp

from kinora.api.webhooks import DELIVERY_SECONDS, DESTINATION_REFUSED, Destinations
from kinora.gateway.webhooks.decide import Answered, Unanswered, Unusable
from kinora.storage.guard.connect import GuardedClient, NotReached, Patience
from kinora.storage.guard.policy import Policy
from kinora.storage.guard.urls import UrlRefused, parse_url

FIELD: Final = "spec.webhook.url"
_READ: Final = 16 * 1024  # bytes of an answer that are read, and dropped, so that a decent receiver can end it
_READ_SECONDS: Final = 1.0
_DIGITS = re.compile(r"[0-9]{1,9}")


def policy_of(allow: Destinations) -> Policy:
    """Where webhooks may go. ValueError names the entry that cannot be read."""
    return Policy.of(allow.hosts, allow.networks, allow.ports, "gateway.webhooks.allow.", http=allow.http)


class Sender:
    """Sends webhooks. `timeout_seconds` is of one attempt, to the head of its answer."""

    def __init__(self, client: GuardedClient, timeout_seconds: float) -> None:
        self._client, self._timeout = client, timeout_seconds

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answered | Unanswered | Unusable:
        """POST the body once. The status alone decides: the head of the answer is waited for, its body is not."""
        try:
            target = parse_url(url, FIELD)
        except UrlRefused as refused:
            return Unusable(str(refused))
        patience = Patience(idle_seconds=self._timeout, connect_seconds=min(self._timeout, 10.0))
        typed = {"Content-Type": "application/json", **headers}
        try:
            async with (
                asyncio.timeout(self._timeout) as limit,
                self._client.request("POST", target, FIELD, patience, headers=typed, body=body) as response,
            ):
                answered = Answered(
                    response.status, retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
                )
                limit.reschedule(None)
                await _drop(response.content)
                return answered
        except UrlRefused as refused:
            return Unanswered(str(refused), DESTINATION_REFUSED)
        except NotReached as error:
            return Unanswered(str(error))
        except TimeoutError:
            return Unanswered(f"{FIELD}: no answer within {self._timeout:g} s")
        except (aiohttp.ClientError, ValueError, OSError) as error:  # ValueError: what came is no HTTP
            return Unanswered(f"{FIELD}: {type(error).__name__} while sending")


async def _drop(content: aiohttp.StreamReader) -> None:
    """Read a little of the body, for a little while; whatever happens to it changes nothing."""
    with suppress(TimeoutError, aiohttp.ClientError, ValueError, OSError):
        async with asyncio.timeout(_READ_SECONDS):
            size = 0
            while size < _READ and (chunk := await content.read(_READ)):
                size += len(chunk)


def retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110: a number, or a date); None: it cannot be read."""
    if not text:
        return None
    if _DIGITS.fullmatch(text.strip()):
        return min(float(text), float(DELIVERY_SECONDS))
    try:
        moment = email.utils.parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(max(0.0, (moment - now).total_seconds()), float(DELIVERY_SECONDS))
    except (ValueError, OverflowError):
        return None
