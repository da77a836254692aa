"""The two ComfyUI clients that the documents print, as printed, against the gateway with everything real behind it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import seeds
from integration.gateway.house import House
from integration.gateway.rendering import rendering
from kinora.media.child import prove
from kinora_cluster import ROOT

pytestmark = pytest.mark.integration
SECONDS = 400.0  # for a client from start to end, on a machine that does other things too
PHOTO = ROOT / "examples/inputs/coffee.jpg"


async def run(client: str, folder: Path, number: str) -> tuple[int, str]:
    """Run a client to its end in this folder: its exit code, and what it said."""
    path = folder / f"client-{number}.py"
    path.write_text(client, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *seeds.command(path), cwd=folder, env=seeds.environment(), stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, said.decode("utf-8", "replace")


@pytest.mark.usefixtures("claims")
@pytest.mark.parametrize(
    ("number", "model", "picture", "video", "size"),
    [
        ("000", "wan2.1-vace-1.3b", "example.png", "vace_output.mp4", (480, 480, 49)),
        # Its graph says adjust_resolution: 512 x 512 pixels in the picture's own proportions.
        ("001", "wan2.1-i2v-14b-480p", "girl.png", "i2v_output.mp4", (624, 416, 81)),
    ],
)
async def test_a_printed_client_saves_its_video(
    house: House,
    start_operator: Callable[..., Awaitable[Any]],
    tmp_path: Path,
    number: str,
    model: str,
    picture: str,
    video: str,
    size: tuple[int, int, int],
) -> None:
    client = seeds.client_of(number, house.url.removeprefix("http://"), await house.key("seed"))
    home = tmp_path / "home"
    home.mkdir()
    (home / picture).write_bytes(PHOTO.read_bytes())
    async with rendering(house, start_operator, model, tmp_path / "pod"):
        code, said = await run(client, home, number)
    assert code == 0, said
    assert f"Saved as: {video}" in said, said
    with (home / video).open("rb") as file:
        proof = await prove(file)
    assert (proof.width, proof.height, proof.frames) == size
    [job] = await house.jobs()
    [artifact] = job["status"]["artifacts"]
    assert artifact["sha256"] == hashlib.sha256((home / video).read_bytes()).hexdigest()
    assert job["status"]["phase"] == "Succeeded"
    assert job["spec"]["workflow"]["files"][0]["name"] == picture
