"""``make docs-pictures``: the pictures of docs/tasks.md, drawn from the manifests that are printed there.

Each job goes the whole way on this machine, without a cluster: the agent's own stager prepares its inputs, the stand-in
renders, the agent's own publisher finishes and proves. The same inputs give the same pictures.

Usage: PYTHONPATH=hack:tests python hack/docs [--output FOLDER] [TASK...]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont

from contract.harness import Standin, running_standin
from kinora.agent.publish import Publisher
from kinora.agent.settings import Identity, Paths, Settings
from kinora.agent.staging import MediaChild, Staged, Stager
from kinora.api.agentconfig import AgentConfig
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model
from kinora.engine.base import Failed, Interrupted, Succeeded
from kinora.engine.client import ComfyClient
from kinora.media.frames import Frame, clip_frames, picture, write_lossless
from kinora.recipes.build import build
from kinora.recipes.needs import named_inputs
from kinora.recipes.resolve import prompts_of, resolve
from kinora.storage.pvc import PvcStore
from kinora.weights.tiny import write_demo_weights

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/tasks.md"
FRAMES, FPS, DEADLINE = 33, 16, 300.0
SHOWN = (0, 11, 22, 32)  # frames, from 0
SMALL = {"width": 416, "height": 240}
SECTIONS = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.M | re.S)
MANIFEST = re.compile(r"```yaml\n(.*?)```", re.S)
CELL, GAP, CAPTION = 182, 6, 22  # pixels
ENDED = (Succeeded, Failed, Interrupted)
PAPER, INK = (24, 26, 30), (236, 238, 240)


@dataclass(frozen=True)
class Row:
    """Pictures beside each other, each with its caption."""

    cells: list[tuple[str, Frame]]


class ConfigMaps:
    """The one ConfigMap that the manifests name, as the API server would give it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def find(self, _kind: object, _namespace: str, _name: str) -> dict[str, Any]:
        """Every file of the folder as a key."""
        files = {path.name: base64.b64encode(path.read_bytes()).decode() for path in self._folder.iterdir()}
        return {"binaryData": files}


def make_inputs(clips: Path, photographs: Path) -> None:
    """What the manifests name, made of examples/inputs."""
    clips.mkdir(parents=True)
    photographs.mkdir()
    examples = ROOT / "examples/inputs"
    (photographs / "coffee.jpg").write_bytes((examples / "coffee.jpg").read_bytes())
    (clips / "bunny.mp4").write_bytes((examples / "bunny.mp4").read_bytes())
    with (examples / "bunny.mp4").open("rb") as file:
        frames = list(clip_frames(file, 81, FPS))
    Image.fromarray(frames[0]).save(clips / "meadow.png")
    Image.fromarray(frames[80][20:340, 200:520]).save(clips / "rabbit.png")
    height, width = frames[0].shape[:2]
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).ellipse((150, 70, 310, 300), fill=255)
    mask.save(clips / "mask.png")
    for name, part in (("start.mp4", frames[:12]), ("long.mp4", frames[:60])):
        with (clips / name).open("w+b") as file:
            write_lossless(file, part, width, height, FPS)


class Studio:
    """Renders jobs on a stand-in, as an agent does."""

    def __init__(self, standin: Standin, root: Path) -> None:
        paths = Paths(input=standin.input, output=standin.output, models=standin.models, artifacts=root / "store")
        paths = replace(paths, claims=root / "claims")
        config = AgentConfig(model_server_name="docs", model="any", artifact_claim="store", input_claims=["clips"])
        self._settings = Settings(Identity("docs", "docs-0", "0"), config, paths)
        self._store = PvcStore(paths.artifacts, "store")
        maps = cast(Any, ConfigMaps(root / "photographs"))
        self._stager = Stager(self._settings, maps, self._store, MediaChild())
        self._publisher = Publisher(self._settings, self._store, MediaChild())
        self._standin = standin

    async def render(self, name: str, spec: VideoJobSpec, model: Model) -> tuple[Staged, list[Frame]]:
        """What was staged, and the frames that are delivered."""
        folder = f"docs-{name}"
        staged = await self._stager.stage(named_inputs(spec), resolve(spec, model, "docs"), model, folder)
        graph = build(model, staged.resolved, prompts_of(spec, model), staged.files, f"{folder}/out")
        async with ComfyClient(self._standin.url) as client, asyncio.timeout(DEADLINE):
            prompt = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
            await client.submit(graph, prompt, "docs")
            while not isinstance(outcome := await client.outcome(prompt), ENDED):  # noqa: ASYNC110 - asked over HTTP
                await asyncio.sleep(0.05)
        if not isinstance(outcome, Succeeded):
            raise SystemExit(f"{name}: {outcome}")
        job = {"metadata": {"namespace": "docs", "name": name, "uid": str(uuid.uuid4())}, "spec": {}}
        published = await self._publisher.publish(job, 1, staged, outcome.outputs, folder)
        key = published.artifacts[0]["uri"].removeprefix(self._store.uri("k")[:-1])
        with await self._store.open_read(key) as file:
            resolved = staged.resolved
            return staged, list(clip_frames(file, resolved.delivered_frames, resolved.delivered_fps))

    def rows(self, staged: Staged, result: list[Frame]) -> Iterator[Row]:
        """What the engine was given, and what came out."""
        references = [one for one in staged.files if one.startswith("references[")]
        if references:
            yield Row([(f"{one}{self._role(staged, one)}", self._picture(staged, one)) for one in references])
            yield Row([("the node's one reference", self._picture(staged, "reference"))])
        resolved = staged.resolved
        for prepared, title in (("control", "control"), ("mask.video", "mask")):
            if prepared in staged.files:
                with (self._standin.input / staged.files[prepared].file).open("rb") as file:
                    frames = list(clip_frames(file, resolved.frames, resolved.fps))
                yield Row([(f"{title}, frame {at + 1}", frames[at]) for at in SHOWN])
        last = len(result) - 1
        shown = [round(at * last / (FRAMES - 1)) for at in SHOWN]
        yield Row([(f"result, frame {at + 1}", result[at]) for at in shown])

    def _picture(self, staged: Staged, name: str) -> Frame:
        with (self._standin.input / staged.files[name].file).open("rb") as file:
            return picture(file)

    @staticmethod
    def _role(staged: Staged, name: str) -> str:
        return ", Background" if name in staged.resolved.backgrounds else ", Object"


def draw(rows: list[Row], path: Path) -> None:
    """One page of rows."""
    heights = [max(_height(frame) for _, frame in row.cells) for row in rows]
    columns = max(len(row.cells) for row in rows)
    size = (GAP + columns * (CELL + GAP) + 2, GAP + sum(height + CAPTION for height in heights))
    page = Image.new("RGB", size, PAPER)
    pen, top = ImageDraw.Draw(page), GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (caption, frame) in enumerate(row.cells):
            left = GAP + column * (CELL + GAP)
            shown = Image.fromarray(np.ascontiguousarray(frame)).resize(
                (CELL, _height(frame)), Image.Resampling.LANCZOS
            )
            page.paste(shown, (left, top))
            pen.text((left + 2, top + height + 2), caption, font=ImageFont.load_default(13), fill=INK)
        top += height + CAPTION
    page.save(path, quality=88, optimize=True)


def _height(frame: Frame) -> int:
    return round(CELL * frame.shape[0] / frame.shape[1])


def manifests() -> dict[str, dict[str, Any]]:
    """The first manifest of each section of docs/tasks.md, by its title."""
    found = {}
    for title, text in SECTIONS.findall(PAGE.read_text(encoding="utf-8")):
        printed = MANIFEST.search(text)
        if printed:
            found[title] = yaml.safe_load(printed.group(1))
    return found


def file_name(title: str) -> str:
    """`text-to-video` for TextToVideo."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", title).lower()


async def draw_all(output: Path, wanted: list[str]) -> None:
    """Every picture, or those of the tasks that are named."""
    with tempfile.TemporaryDirectory(prefix="kinora-docs-") as temporary:
        root = Path(temporary)
        for folder in ("input", "output", "temp", "store"):
            (root / folder).mkdir()
        make_inputs(root / "claims/clips", root / "photographs")
        catalogue = load_catalogue()
        for model in catalogue:
            write_demo_weights(model, root / "models")
        with running_standin(root) as standin:
            studio = Studio(standin, root)
            for title, manifest in manifests().items():
                if wanted and title not in wanted:
                    continue
                spec = smaller(manifest["spec"])
                found = catalogue.get(spec.model)
                assert found is not None
                staged, result = await studio.render(file_name(title), spec, found)
                draw(list(studio.rows(staged, result)), output / f"{file_name(title)}.jpg")
                print(f"{title}: {len(result)} frames", flush=True)


def smaller(printed: dict[str, Any]) -> VideoJobSpec:
    """The printed job in a size that the pictures need, and with a seed."""
    parameters = {**printed.get("parameters", {}), "frames": FRAMES, "seed": 7}
    if "width" in parameters:
        parameters |= SMALL
    output = {**printed.get("output", {})}
    if "width" in output:
        output |= {"width": 640, "height": 360}
        parameters |= SMALL
    return VideoJobSpec.model_validate({**printed, "parameters": parameters, "output": {**output, "crf": 10}})


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python hack/docs")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/images/tasks")
    parser.add_argument("tasks", nargs="*", metavar="TASK")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    asyncio.run(draw_all(options.output, options.tasks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
