"""Whole graphs through a running stand-in: the files that come out, and the routes around them."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image

from contract import graphs
from contract.harness import Standin, clip, photo
from kinora.engine.base import Failed, Interrupted, Succeeded
from kinora.engine.client import ComfyClient
from kinora.engine.standin import STANDIN_NAME
from kinora.engine.standin.encode import write_mp4

DEADLINE = 30.0


async def _rendered(client: ComfyClient, standin: Standin, graph: graphs.Graph) -> Path:
    prompt_id = str(uuid.uuid4())
    await client.submit(graph, prompt_id, "me")
    async with asyncio.timeout(DEADLINE):
        while not isinstance(outcome := await client.outcome(prompt_id), Succeeded | Failed | Interrupted):
            pass
    assert isinstance(outcome, Succeeded), outcome
    file = outcome.outputs[-1]
    return standin.output / file.subfolder / file.filename


def _pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _difference(left: Any, right: Any) -> float:
    return float(np.abs(np.asarray(left, int) - np.asarray(right, int)).mean())


async def test_the_file_is_h264_as_asked_and_says_whose_work_it_is(client: ComfyClient, standin: Standin) -> None:
    path = await _rendered(client, standin, graphs.vace(width=96, height=64, length=13, prefix="format/clip"))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (96, 64, 16)
        assert (stream.codec_context.colorspace, stream.codec_context.color_primaries) == (1, 1)  # BT.709
        assert container.metadata["comment"] == STANDIN_NAME
        assert container.metadata["description"] == STANDIN_NAME
        assert sum(1 for _ in container.decode(video=0)) == 13
    raw = path.read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")
    assert b"red fox" not in raw
    assert path.stat().st_mode & 0o060 == 0o060  # the agent is another user of the same group


async def test_the_prompt_is_in_the_file_only_when_asked(client: ComfyClient, standin: Standin) -> None:
    path = await _rendered(client, standin, graphs.vace(prefix="meta/clip", save_metadata=True))
    with av.open(str(path)) as container:
        comment = json.loads(container.metadata["comment"])
        assert comment["prompt"]["15"]["inputs"]["text"] == "a red fox runs through snow"
        assert container.metadata["description"] == STANDIN_NAME


async def test_image_to_video_begins_with_the_image(client: ComfyClient, standin: Standin) -> None:
    Image.fromarray(photo(128, 128)).save(standin.input / "photo.png")
    frames = _pictures(await _rendered(client, standin, graphs.i2v("photo.png", frames=17)))
    assert frames.shape == (17, 128, 128, 3)
    assert _difference(frames[0], photo(128, 128)) < 4
    assert _difference(frames[16], photo(128, 128)) > 8


async def test_inpainting_keeps_what_the_mask_keeps(client: ComfyClient, standin: Standin) -> None:
    write_mp4(standin.input / "source.mp4", clip(64, 64, 9), 16, crf=4, metadata={})
    wired = {"control_video": ["47", 0], "control_masks": ["49", 0]}
    graph = graphs.vace(prefix="inpaint/clip", **wired) | {
        "42": graphs.node("LoadVideo", file="source.mp4"),
        "43": graphs.node("GetVideoComponents", video=["42", 0]),
        "45": graphs.node("LoadImageMask", image="mask.png", channel="red"),
        "46": graphs.node("MaskToImage", mask=["45", 0]),
        "48": graphs.node("RepeatImageBatch", image=["46", 0], amount=9),
        "49": graphs.node("ImageToMask", image=["48", 0], channel="red"),
        "50": graphs.node("EmptyImage", width=64, height=64, batch_size=9, color=0x7F7F7F),
        "47": graphs.node(
            "ImageCompositeMasked", destination=["43", 0], source=["50", 0], x=0, y=0, resize_source=False,
            mask=["49", 0],
        ),
    }  # fmt: skip
    frames = _pictures(await _rendered(client, standin, graph))
    kept = np.ones((64, 64), bool)
    kept[12:52, 12:52] = False  # mask.png is white from 16 to 48; codecs bleed a little
    assert _difference(frames[:, kept], clip(64, 64, 9)[:, kept]) < 6
    assert _difference(frames[:, 20:44, 20:44], clip(64, 64, 9)[:, 20:44, 20:44]) > 25


async def test_a_reference_that_was_not_trimmed_away_comes_out_in_front(client: ComfyClient, standin: Standin) -> None:
    graph = graphs.vace(prefix="untrimmed/clip", reference_image=["41", 0])
    graph["41"] = graphs.node("LoadImage", image="ref.png")
    assert len(_pictures(await _rendered(client, standin, graph))) == 9
    graph["31"]["inputs"]["samples"] = ["24", 0]
    frames = _pictures(await _rendered(client, standin, graph))
    assert len(frames) == 13
    assert _difference(frames[0], photo(64, 64)) < 12


async def test_lists_run_a_node_for_each_member(client: ComfyClient, standin: Standin) -> None:
    graph = {
        "1": graphs.node("EmptyImage", width=32, height=32, batch_size=5, color=0xFF0000),
        "2": graphs.node("RebatchImages", images=["1", 0], batch_size=2),
        "3": graphs.node("SaveImage", images=["2", 0], filename_prefix="lists/x"),
    }
    await _rendered(client, standin, graph)
    assert sorted(path.name for path in (standin.output / "lists").iterdir()) == [f"x_{n:05}_.png" for n in range(1, 6)]


async def test_savevideo_names_and_counts(client: ComfyClient, standin: Standin) -> None:
    graph = graphs.still()
    del graph["2"]
    graph["3"] = graphs.node("CreateVideo", images=["1", 0], fps=24)
    graph["4"] = graphs.node("SaveVideo", video=["3", 0], filename_prefix="saved/x", format="mp4", codec="h264")
    assert (await _rendered(client, standin, graph)).name == "x_00001_.mp4"
    graph["3"]["inputs"]["fps"] = 25
    assert (await _rendered(client, standin, graph)).name == "x_00002_.mp4"


async def test_uploads_and_views(standin: Standin) -> None:
    async with httpx.AsyncClient(base_url=standin.url) as http:
        for name, content, stored in (
            ("a.bin", b"one", "a.bin"),
            ("a.bin", b"two", "a (1).bin"),
            ("a.bin", b"one", "a.bin"),
        ):
            answer = await http.post("/upload/image", files={"image": (name, content)}, data={"subfolder": "up"})
            assert answer.json() == {"name": stored, "subfolder": "up", "type": "input"}
        seen = await http.get("/api/view", params={"filename": "a (1).bin", "subfolder": "up", "type": "input"})
        assert seen.content == b"two"
        part = await http.get(
            "/view", params={"filename": "a.bin", "subfolder": "up", "type": "input"}, headers={"Range": "bytes=1-"}
        )
        assert (part.status_code, part.content) == (206, b"ne")
        assert (await http.get("/view", params={"filename": "none.bin"})).status_code == 404


@pytest.mark.parametrize(
    "params",
    [
        {"filename": "x", "subfolder": "../models"},
        {"filename": "x", "type": "models"},
        {"filename": "x", "subfolder": "/etc"},
    ],
)
async def test_no_view_leaves_its_folder(standin: Standin, params: dict) -> None:
    async with httpx.AsyncClient(base_url=standin.url) as http:
        assert (await http.get("/view", params=params)).status_code == 400


@pytest.mark.parametrize("name", ["../models/vae/wan21_vace_vae.safetensors", "/etc/hostname"])
async def test_no_loader_leaves_its_folder(standin: Standin, name: str) -> None:
    graph = graphs.still() | {"1": graphs.node("LoadImage", image=name)}
    async with httpx.AsyncClient(base_url=standin.url) as http:
        answer = await http.post("/prompt", json={"prompt": graph})
        assert answer.status_code == 400
        assert answer.json()["node_errors"]["1"]["errors"][0]["type"] == "custom_validation_failed"


async def test_no_output_leaves_its_folder(client: ComfyClient, standin: Standin) -> None:
    prompt_id = str(uuid.uuid4())
    await client.submit(graphs.still(prefix="../escaped"), prompt_id, "me")
    async with asyncio.timeout(DEADLINE):
        while not isinstance(outcome := await client.outcome(prompt_id), Succeeded | Failed):
            pass
    assert isinstance(outcome, Failed)
    assert not list(standin.root.glob("escaped*"))


async def test_every_class_is_described_as_comfyui_does(standin: Standin) -> None:
    async with httpx.AsyncClient(base_url=standin.url) as http:
        info = (await http.get("/api/object_info/KSampler")).json()
        assert list(info) == ["KSampler"]
        assert info["KSampler"]["input"]["required"]["steps"] == ["INT", {"default": 20, "min": 1, "max": 10000}]
        assert info["KSampler"]["input_order"]["required"][0] == "cfg"
        assert (await http.get("/object_info/NoSuchNode")).json() == {}
