"""prompt_extend: a real endpoint's answers, and everything that it can do wrong, none of which fails a submit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kinora.gateway.dashscope import words
from kinora.gateway.dashscope.extend import MAX_BYTES, Extended, Extender, rewritten
from kinora.gateway.settings import PromptExtend

Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


def _extender(answer: Answer, **more: Any) -> Extender:
    settings = PromptExtend.model_validate({"url": "http://llm.example/v1/", "model": "small", **more})
    return Extender(settings, httpx.MockTransport(answer))


def _completion(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def _says(text: Any) -> Answer:
    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=_completion(text))

    return answer


async def test_a_prompt_is_rewritten_with_model_and_key(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=_completion(' "A red fox runs through snow." '))

    key = tmp_path / "key"
    key.write_text("secret\n")
    found = await _extender(answer, keyFile=str(key)).extend("a fox")
    assert found == Extended("A red fox runs through snow.", words.DONE)
    [request] = seen
    body = json.loads(request.content)
    assert str(request.url) == "http://llm.example/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret"
    assert body["model"] == "small"
    assert body["messages"][1] == {"role": "user", "content": "a fox"}


async def test_without_an_endpoint_it_is_off() -> None:
    assert await Extender(PromptExtend()).extend("a fox") == Extended("a fox", words.OFF)


async def test_a_long_prompt_stays_as_it_is() -> None:
    prompt = "狐" * (MAX_BYTES // 3 + 1)
    assert await _extender(_says("short")).extend(prompt) == Extended(prompt, words.LONG)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(500),
        httpx.Response(302, headers={"location": "http://elsewhere.example"}),
        httpx.Response(200, content=b"no json"),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"choices": []}),
        httpx.Response(200, json={"choices": [None]}),
        httpx.Response(200, json=_completion(None)),
        httpx.Response(200, json=_completion(["a"])),
        httpx.Response(200, json=_completion("  ")),
        httpx.Response(200, json=_completion("x" * 300_000)),
    ],
)
async def test_an_endpoint_that_gives_no_prompt_changes_nothing(response: httpx.Response) -> None:
    async def answer(_request: httpx.Request) -> httpx.Response:
        return response

    assert await _extender(answer).extend("a fox") == Extended("a fox", words.FAILED)


async def test_an_endpoint_that_cannot_be_reached_changes_nothing() -> None:
    async def answer(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert await _extender(answer).extend("a fox") == Extended("a fox", words.FAILED)
    assert await _extender(_says("b"), keyFile="/nowhere").extend("a fox") == Extended("a fox", words.FAILED)
    assert await _extender(_says("b"), url="no url").extend("a fox") == Extended("a fox", words.FAILED)


async def test_an_endpoint_that_hangs_costs_the_timeout_and_no_more() -> None:
    async def answer(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    found = await _extender(answer, timeoutSeconds=0.05).extend("a fox")
    assert found == Extended("a fox", words.TIMEOUT)


async def test_no_more_than_sixteen_at_once() -> None:
    go, full, asked = asyncio.Event(), asyncio.Event(), 0

    async def answer(_request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked == 16:
            full.set()
        await go.wait()
        return httpx.Response(200, json=_completion("b"))

    extender = _extender(answer)
    waiting = [asyncio.create_task(extender.extend("a")) for _ in range(16)]
    await asyncio.wait_for(full.wait(), 10)
    assert await extender.extend("a") == Extended("a", words.BUSY)
    go.set()
    assert {one.how for one in await asyncio.gather(*waiting)} == {words.DONE}
    assert (await extender.extend("a")).how == words.DONE


def test_a_rewritten_prompt_fits_a_videojob() -> None:
    assert len(rewritten(_completion("x" * 6000))) == 5000
    assert rewritten(_completion("'it'")) == "it"
    assert rewritten(_completion("a\x00b")) == "ab"
