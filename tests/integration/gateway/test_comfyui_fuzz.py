"""Whatever is sent to the ComfyUI dialect's documented routes, it never fails itself: no answer is a 5xx."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from integration.gateway.house import House

pytestmark = pytest.mark.integration
EXAMPLES = 12  # of each operation


async def test_no_input_makes_the_gateway_fail(house: House, user: httpx.AsyncClient) -> None:
    document = (await user.get("/openapi/comfyui.json")).json()
    operations = [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]
    assert {operation.path for operation in operations} >= {"/prompt", "/queue", "/history", "/view", "/upload/image"}
    failed = await asyncio.to_thread(_tried, operations, house.url, dict(user.headers))
    assert failed == []


def _tried(operations: list[Any], url: str, headers: dict[str, str]) -> list[str]:
    failed: list[str] = []
    known = {"authorization": headers["authorization"]}

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def one(data: Any) -> None:
        for operation in operations:
            case = data.draw(operation.as_strategy())
            response = case.call(base_url=url, headers=known)
            if response.status_code >= 500:
                failed.append(f"{operation.method} {operation.path}: {response.status_code} {response.text[:200]}")

    one()
    return failed
