"""The served OpenAPI documents: whatever they allow, and forbid, is sent, and nothing of it breaks the gateway."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from integration.gateway.house import House

pytestmark = pytest.mark.integration
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.mark.parametrize("dialect", ["wavespeed", "runcomfy", "openai"])
async def test_no_input_breaks_the_gateway(house: House, dialect: str, tmp_path: Path) -> None:
    key = await house.key(limits={"submitsPerMinute": 100000, "burst": 100000, "concurrent": 100000})
    process = await asyncio.create_subprocess_exec(
        SCHEMATHESIS,
        *("run", f"{house.url}/openapi/{dialect}.json", "--url", house.url),
        *("--header", f"Authorization: Bearer {key}", "--checks", "not_a_server_error"),
        *("--max-examples", "5", "--seed", "1", "--no-color"),
        *("--phases", "coverage,fuzzing", "--request-timeout", "30"),
        *("--suppress-health-check", "too_slow"),  # of making up requests, on a busy machine
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()[-4000:]
