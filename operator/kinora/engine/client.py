"""The agent's way to a ComfyUI, or to the stand-in: HTTP by httpx, events by websockets.

The engine forgets everything when it restarts and repeats no event. So every question is asked anew, nothing is
remembered here, and whatever the engine fails to answer is EngineUnavailable. What the answers mean: messages.py.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from kinora.engine.base import (
    Connected,
    Disconnected,
    Engine,
    EngineEvent,
    EngineUnavailable,
    GraphRefused,
    Outcome,
    Pending,
    Running,
    Unknown,
)
from kinora.engine.messages import event_of, listed_ids, outcome_of, refusal_message

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 30.0  # an engine is deaf while a node keeps its CPU busy
RECONNECT_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)


class ComfyClient:
    """An Engine (see base.py) at `base_url`, such as "http://127.0.0.1:8188". Close it, or use it as a context."""

    def __init__(self, base_url: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self._base_url,
            timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS),
            trust_env=False,  # the engine is on this machine: no proxy
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Gives its connections back."""
        await self._http.aclose()

    async def object_info(self) -> dict[str, Any]:
        """See Engine."""
        return await self._json("GET", "/object_info")

    async def system_stats(self) -> dict[str, Any]:
        """See Engine."""
        return await self._json("GET", "/system_stats")

    async def submit(self, graph: Mapping[str, Any], prompt_id: str, client_id: str) -> None:
        """See Engine. A graph of which only some outputs are valid is refused, though ComfyUI would run the rest."""
        if not isinstance(await self.outcome(prompt_id), Unknown):
            log.info("prompt %s is known to the engine already", prompt_id)
            return
        body = {"prompt": dict(graph), "prompt_id": prompt_id, "client_id": client_id}
        response = await self._request("POST", "/prompt", body)
        answer = self._decoded(response)
        if response.status_code == httpx.codes.BAD_REQUEST:
            raise GraphRefused(refusal_message(answer), answer.get("node_errors") or {})
        self._check(response)
        if answer.get("prompt_id") != prompt_id:
            raise EngineUnavailable("the engine did not take our prompt id")
        if answer.get("node_errors"):
            await self.delete_pending(prompt_id)
            await self.interrupt(prompt_id)
            raise GraphRefused(refusal_message(answer), answer["node_errors"])

    async def outcome(self, prompt_id: str) -> Outcome:
        """See Engine. The queue is asked before the history: a prompt that ends in between is then found there."""
        queue = await self._json("GET", "/queue")
        if prompt_id in listed_ids(queue.get("queue_running", ())):
            return Running()
        if prompt_id in listed_ids(queue.get("queue_pending", ())):
            return Pending()
        history = await self._json("GET", f"/history/{prompt_id}")
        entry = history.get(prompt_id)
        return outcome_of(entry) if isinstance(entry, Mapping) else Unknown()

    async def interrupt(self, prompt_id: str) -> None:
        """See Engine."""
        await self._done("/interrupt", {"prompt_id": prompt_id})

    async def delete_pending(self, prompt_id: str) -> None:
        """See Engine."""
        await self._done("/queue", {"delete": [prompt_id]})

    async def forget(self, prompt_id: str) -> None:
        """See Engine."""
        await self._done("/history", {"delete": [prompt_id]})

    async def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """See Engine."""
        await self._done("/free", {"unload_models": unload_models, "free_memory": free_memory})

    async def events(self, client_id: str) -> AsyncIterator[EngineEvent]:
        """See Engine. Disconnected comes once for each loss, and once at the start if nobody answers."""
        url = f"ws{self._base_url.removeprefix('http')}/ws?clientId={client_id}"
        failures = 0
        while True:
            try:
                async with connect(
                    url, max_size=None, open_timeout=CONNECT_SECONDS, proxy=None, ping_interval=None
                ) as ws:
                    failures = 0
                    yield Connected()
                    async for message in ws:
                        event = _event(message)
                        if event is not None:
                            yield event
            except (OSError, TimeoutError, WebSocketException) as exc:
                log.debug("event stream: %s", type(exc).__name__)
            if failures == 0:
                yield Disconnected()
            await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1

    async def _done(self, path: str, body: Mapping[str, Any]) -> None:
        self._check(await self._request("POST", path, body))

    async def _json(self, method: str, path: str) -> dict[str, Any]:
        response = await self._request(method, path)
        self._check(response)
        return self._decoded(response)

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            return await self._http.request(method, path, json=body)
        except httpx.HTTPError as exc:
            raise EngineUnavailable(f"{method} {path}: {type(exc).__name__}") from exc

    @staticmethod
    def _check(response: httpx.Response) -> None:
        if response.status_code != httpx.codes.OK:
            raise EngineUnavailable(f"{response.request.url.path} answered {response.status_code}")

    @staticmethod
    def _decoded(response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError as exc:
            raise EngineUnavailable(f"{response.request.url.path} answered no JSON") from exc
        if not isinstance(answer, dict):
            raise EngineUnavailable(f"{response.request.url.path} answered no JSON object")
        return answer


def _event(message: str | bytes) -> EngineEvent | None:
    """A text message as an event; binary ones are preview pictures."""
    if isinstance(message, bytes):
        return None
    try:
        decoded = json.loads(message)
    except ValueError:
        return None
    return event_of(decoded) if isinstance(decoded, dict) else None


if TYPE_CHECKING:
    _: type[Engine] = ComfyClient  # it keeps the promise of the protocol
