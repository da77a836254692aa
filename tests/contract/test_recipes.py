"""Every recipe's graph renders in the stand-in, with the demo's weight files, and shows the inputs that it got."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from contract.harness import Standin, clip, photo, running_standin
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.engine.base import Failed, Interrupted, Succeeded
from kinora.engine.client import ComfyClient
from kinora.engine.standin.encode import write_mp4
from kinora.recipes.build import build
from kinora.recipes.graph import Prompts, StagedInput
from kinora.recipes.needs import kind_of
from kinora.recipes.resolve import prompts_of, resolve
from kinora.weights.tiny import write_demo_weights

CLAIM = {"claim": {"name": "footage", "path": "a"}}
STAGED = {name: StagedInput(f"job/{name[:5]}", kind_of(name)) for name in ("image", "video", "references[0]")}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "TextToVideo": ("wan2.1-vace-1.3b", {}),
    "ImageToVideo": ("wan2.1-vace-1.3b", {"image": CLAIM}),
    "ReferenceToVideo": ("wan2.1-vace-1.3b", {"references": [{"source": CLAIM}]}),
    "VideoToVideo": ("wan2.1-vace-1.3b", {"video": CLAIM}),
    "ImageToVideo ": ("wan2.1-i2v-14b-480p", {"image": CLAIM}),
}
SIZE, FRAMES, DEADLINE = 64, 9, 30.0


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    root = tmp_path_factory.mktemp("recipes")
    for name in ("input/job", "output", "temp"):
        (root / name).mkdir(parents=True)
    for model in load_catalogue():
        write_demo_weights(model, root / "models")
    for name in ("image", "refer"):
        Image.fromarray(photo(SIZE, SIZE)).save(root / "input/job" / name, format="PNG")
    write_mp4(root / "input/job/video.mp4", clip(SIZE, SIZE, FRAMES), 16, crf=4, metadata={})
    (root / "input/job/video.mp4").rename(root / "input/job/video")
    with running_standin(root) as running:
        yield running


async def _pictures(standin: Standin, case: str, prompt: str) -> np.ndarray:
    name, inputs = CASES[case]
    model = load_catalogue().get(name)
    assert model is not None
    parameters = {"width": SIZE, "height": SIZE, "frames": FRAMES, "steps": 3}
    spec = VideoJobSpec.model_validate(
        {"model": name, "task": case.strip(), "prompt": prompt, "inputs": inputs, "parameters": parameters}
    )
    prompts: Prompts = prompts_of(spec, model)
    graph = build(model, resolve(spec, model, "uid"), prompts, STAGED, f"job/{uuid.uuid4()}")
    async with ComfyClient(standin.url) as client, asyncio.timeout(DEADLINE):
        prompt_id = str(uuid.uuid4())
        await client.submit(graph, prompt_id, "me")
        while not isinstance(outcome := await client.outcome(prompt_id), Succeeded | Failed | Interrupted):
            pass
    assert isinstance(outcome, Succeeded), outcome
    [file] = outcome.outputs
    return _decoded(standin.output / file.subfolder / file.filename)


def _decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _difference(left: Any, right: Any) -> float:
    return float(np.abs(np.asarray(left, int) - np.asarray(right, int)).mean())


def _likeness(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.corrcoef(left.mean(axis=-1).ravel(), right.mean(axis=-1).ravel())[0, 1])


@pytest.mark.parametrize("case", CASES)
async def test_it_renders_as_asked_and_the_prompt_is_seen(standin: Standin, case: str) -> None:
    fox, wave = await _pictures(standin, case, "a red fox in snow"), await _pictures(standin, case, "a wave at night")
    assert fox.shape == wave.shape == (FRAMES, SIZE, SIZE, 3)
    assert _difference(fox[-1], wave[-1]) > 2
    assert _difference(fox[0], fox[-1]) > 1


async def test_the_input_is_seen(standin: Standin) -> None:
    """That its image was wired to nothing is the defect of the first seed document's script."""
    for case in ("ImageToVideo", "ImageToVideo "):
        assert _difference((await _pictures(standin, case, "a cat"))[0], photo(SIZE, SIZE)) < 10
    assert _likeness(await _pictures(standin, "VideoToVideo", "a cat"), clip(SIZE, SIZE, FRAMES)) > 0.6
    reference, plain = [await _pictures(standin, case, "a cat") for case in ("ReferenceToVideo", "TextToVideo")]
    assert _difference(reference, plain) > 15
    middle = reference[0, 20:44, 20:44].reshape(-1, 3).astype(int)
    assert np.abs(middle - (200, 40, 30)).sum(axis=1).min() < 70  # the red house
