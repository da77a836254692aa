"""Raw workflows in the stand-in, by the agent's own hands: text, files, graph, render, proof. The pixels show bindings.

The graphs that a real ComfyUI rendered (the recordings) run as they were sent to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from PIL import Image

from contract.graphs import node, vace
from contract.harness import Standin, clip, photo, running_standin
from kinora.agent.settings import Settings, settings_from
from kinora.agent.staging import MediaChild, Stager
from kinora.agent.verdict import Refusal
from kinora.agent.workflow import PreparedWorkflow, Workflows
from kinora.agent.workflow_outputs import WorkflowOutputs
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.engine.base import Failed, Interrupted, OutputFile, Succeeded
from kinora.engine.client import ComfyClient
from kinora.engine.standin.encode import write_mp4
from kinora.storage.pvc import PvcStore
from kinora.weights.tiny import write_demo_weights
from kinora.workflows.workflow import text_hash
from unit.agent.test_small import ENVIRONMENT

MODEL, SIZE, FRAMES, DEADLINE = "wan2.1-vace-1.3b", 64, 9, 30.0
Object = dict[str, Any]


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    root = tmp_path_factory.mktemp("workflows")
    for name in ("input", "output", "temp", "artifacts", "claims/films"):
        (root / name).mkdir(parents=True)
    model = load_catalogue().get(MODEL)
    assert model is not None
    write_demo_weights(model, root / "models")
    films = root / "claims/films"
    Image.fromarray(photo(SIZE, SIZE)).save(films / "ref.png")
    Image.new("RGB", (SIZE, SIZE), (20, 220, 40)).save(films / "green.png")
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(mask).convert("RGB").save(films / "mask.png")
    write_mp4(films / "clip.mp4", clip(SIZE, SIZE, FRAMES), 16, crf=10, metadata={})
    write_mp4(films / "small.mp4", clip(32, 32, FRAMES), 16, crf=10, metadata={})
    with running_standin(root) as running:
        yield running


class ConfigMaps:
    """The one question that staging and workflows ask of the API server: what is in this ConfigMap."""

    def __init__(self, **found: Object) -> None:
        self.found = found

    async def find(self, _resource: object, _namespace: str, name: str) -> Object | None:
        return self.found.get(name)


def settings(standin: Standin, classes: list[str] | None = None) -> Settings:
    found = settings_from(ENVIRONMENT)
    paths = replace(
        found.paths, input=standin.input, output=standin.output, claims=standin.root / "claims",
        artifacts=standin.root / "artifacts",
    )  # fmt: skip
    config = found.config.model_copy(update={"input_claims": ["films"], "allowed_node_classes": classes})
    return replace(found, paths=paths, config=config)


def film(path: str) -> Object:
    return {"claim": {"name": "films", "path": path}}


def job(workflow: Object, status: Object | None = None, **spec: Any) -> Object:
    metadata = {"name": "raw", "namespace": "media", "uid": str(uuid.uuid4())}
    return {"metadata": metadata, "spec": {"model": MODEL, "workflow": workflow, **spec}, "status": status or {}}


@dataclass
class Rendered:
    """A finished workflow: its graph as the engine had it, its artifacts, and the first one's pictures."""

    graph: Mapping[str, Any]
    artifacts: list[Object]
    frames: np.ndarray
    facts: tuple[Object, ...]


async def prepared(
    standin: Standin, one: Object, maps: ConfigMaps | None = None, classes: list[str] | None = None
) -> PreparedWorkflow:
    model = load_catalogue().get(MODEL)
    assert model is not None
    found, client = settings(standin, classes), cast(Any, maps or ConfigMaps())
    stager = Stager(found, client, cast(Any, None), MediaChild())
    spec = VideoJobSpec.model_validate(one["spec"])
    return await Workflows(found, client, stager, model).prepared(one, spec, f"{one['metadata']['uid']}-1")


async def rendered(standin: Standin, one: Object, maps: ConfigMaps | None = None) -> Rendered:
    ready = await prepared(standin, one, maps)
    outputs = await _outputs(standin, ready.graph)
    store = PvcStore(standin.root / "artifacts", "videos")
    publisher = WorkflowOutputs(settings(standin), store, MediaChild())
    artifacts = await publisher.publish(one, 1, outputs, f"{one['metadata']['uid']}-1")
    path = standin.root / "artifacts" / artifacts[0]["uri"].removeprefix("pvc://videos/")
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return Rendered(ready.graph, artifacts, frames, ready.facts)


async def _outputs(standin: Standin, graph: Mapping[str, Any]) -> tuple[OutputFile, ...]:
    prompt_id = str(uuid.uuid4())
    async with ComfyClient(standin.url) as client, asyncio.timeout(DEADLINE):
        await client.submit(graph, prompt_id, "test")
        while not isinstance(outcome := await client.outcome(prompt_id), Succeeded | Failed | Interrupted):
            pass
    assert isinstance(outcome, Succeeded), outcome
    return outcome.outputs


def inline(graph: Mapping[str, Any], **more: Any) -> Object:
    return {"inline": json.dumps(graph), **more}


def difference(one: Rendered, other: Rendered) -> float:
    return float(np.abs(one.frames.astype(int) - other.frames.astype(int)).mean())


# --- recorded graphs --------------------------------------------------------------------------------------------------

RECORDED = {
    "vace-text": {}, "vace-reference": {"ref.png": "ref.png"}, "vace-control-canny": {"clip.mp4": "clip.mp4"},
    "vace-inpaint": {"clip.mp4": "clip.mp4", "mask.png": "mask.png"}, "vace-outpaint": {"small.mp4": "small.mp4"},
    "vace-savevideo": {}, "success-video": {},
}  # fmt: skip


@pytest.mark.parametrize("trace", RECORDED)
async def test_what_a_real_comfyui_rendered_runs_as_a_workflow(standin: Standin, recordings: Path, trace: str) -> None:
    files = [{"name": name, "source": film(path)} for name, path in RECORDED[trace].items()]
    body = _request(recordings / "traces" / f"{trace}.jsonl")
    found = await rendered(standin, job({"inline": json.dumps(body), "files": files}))
    [artifact] = found.artifacts
    assert (artifact["type"], artifact["frames"]) == ("output", len(found.frames))
    assert artifact["list"] == ("images" if trace == "vace-savevideo" else "gifs")
    assert artifact["filename"].startswith(artifact["subfolder"] + "-" + artifact["node"])
    assert [entry["name"] for entry in found.facts] == [f"files[{index}]" for index in range(len(files))]
    for class_type, name in (("LoadImage", "image"), ("VHS_LoadVideo", "video")):
        read = [one["inputs"][name] for one in found.graph.values() if one["class_type"] == class_type]
        assert all(value.startswith(artifact["subfolder"] + "/files-") for value in read)


def _request(path: Path) -> Object:
    for line in path.read_text().splitlines():
        exchange = json.loads(line).get("http") or {}
        if exchange.get("path") == "/prompt":
            body: Object = exchange["request"]
            return body
    raise AssertionError(f"{path.name} has no prompt")


# --- bindings ---------------------------------------------------------------------------------------------------------

BINDINGS = {"prompt": "15.text", "negativePrompt": "16.text", "seed": "24.seed", "steps": "24.steps"}


async def test_the_bound_prompt_and_seed_are_what_is_painted(standin: Standin) -> None:
    text = json.dumps(vace())
    fox = await rendered(standin, job({"inline": text}))
    same = await rendered(
        standin,
        job({"inline": text, "bindings": BINDINGS}, prompt="a red fox runs through snow", parameters={"seed": 7}),
    )
    assert difference(fox, same) == 0
    ship = await rendered(
        standin, job({"inline": text, "bindings": BINDINGS}, prompt="a blue ship", parameters={"seed": 7})
    )
    other_seed = await rendered(
        standin,
        job({"inline": text, "bindings": BINDINGS}, prompt="a red fox runs through snow", parameters={"seed": 8}),
    )
    assert difference(fox, ship) > 5
    assert difference(fox, other_seed) > 5


async def test_a_seed_that_only_64_bits_hold_reaches_the_engine_whole(standin: Standin) -> None:
    graph = vace(seed=2**64 - 1)
    found = await rendered(standin, job(inline(graph)))
    assert found.graph["24"]["inputs"]["seed"] == 2**64 - 1
    near = await rendered(standin, job(inline(vace(seed=2**64 - 2))))
    assert difference(found, near) > 5


async def test_the_bound_image_is_the_reference(standin: Standin) -> None:
    graph = vace(reference_image=["50", 0])
    graph["50"] = node("LoadImage", image="ref.png", upload="image")
    workflow = inline(graph, files=[{"name": "ref.png", "source": film("ref.png")}])
    own = await rendered(standin, job(workflow))
    bound = inline(graph, bindings={"image": "50.image"})
    green = await rendered(standin, job(bound, inputs={"image": film("green.png")}))
    assert green.graph["50"]["inputs"]["image"].endswith("/image.png")
    red, lime, blue = green.frames.reshape(-1, 3).mean(axis=0)
    assert lime > red + 20
    assert lime > blue + 20
    assert difference(own, green) > 5


async def test_the_bound_video_is_the_control(standin: Standin) -> None:
    graph = vace(control_video=["60", 0], control_masks=["64", 0])
    graph["60"] = node(
        "VHS_LoadVideo", video="x.mp4", force_rate=16.0, custom_width=64, custom_height=64, frame_load_cap=9,
        skip_first_frames=0, select_every_nth=1,
    )  # fmt: skip
    graph["61"] = node("SolidMask", value=0.0, width=64, height=64)  # black is kept
    graph["62"] = node("MaskToImage", mask=["61", 0])
    graph["63"] = node("RepeatImageBatch", image=["62", 0], amount=FRAMES)
    graph["64"] = node("ImageToMask", image=["63", 0], channel="red")
    workflow = inline(graph, bindings={"video": "60.video"})
    found = await rendered(standin, job(workflow, inputs={"video": film("clip.mp4")}))
    wanted = clip(SIZE, SIZE, FRAMES)
    assert np.abs(found.frames.astype(int) - wanted.astype(int)).mean() < 12


async def test_size_and_frames_go_to_every_place_that_they_are_bound_to(standin: Standin) -> None:
    graph = vace(length=5)
    graph["21"] = node("INTConstant", value=5)
    graph["17"]["inputs"]["length"] = ["21", 0]
    workflow = inline(graph, bindings={"width": "17.width", "height": "17.height", "frames": "21.value"})
    found = await rendered(standin, job(workflow, parameters={"width": 96, "height": 64, "frames": 13}))
    assert found.frames.shape == (13, 64, 96, 3)
    assert (found.artifacts[0]["width"], found.artifacts[0]["height"], found.artifacts[0]["frames"]) == (96, 64, 13)


# --- outputs ----------------------------------------------------------------------------------------------------------


async def test_videos_and_pictures_are_published_each_with_its_proof(standin: Standin) -> None:
    graph = vace(length=5)
    graph["70"] = node("ImageFromBatch", image=["31", 0], batch_index=0, length=2)
    graph["71"] = node("SaveImage", images=["70", 0], filename_prefix="../../stills/%date%")
    graph["72"] = node("PreviewImage", images=["31", 0])
    one = job(inline(graph))
    found = await rendered(standin, one)
    kinds = [(a["contentType"], a["frames"], a["node"], a["list"]) for a in found.artifacts]
    assert sorted(kinds) == [
        ("image/png", 1, "71", "images"), ("image/png", 1, "71", "images"), ("video/mp4", 5, "32", "gifs"),
    ]  # fmt: skip
    for artifact in found.artifacts:
        path = standin.root / "artifacts" / artifact["uri"].removeprefix("pvc://videos/")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == artifact["sha256"]
        assert f"/{one['metadata']['uid']}/1/" in artifact["uri"]
        assert ("fps" in artifact) == (artifact["contentType"] == "video/mp4")
    assert len({artifact["uri"] for artifact in found.artifacts}) == 3


async def test_a_prompt_that_saves_nothing_is_a_failure(standin: Standin) -> None:
    publisher = WorkflowOutputs(settings(standin), PvcStore(standin.root / "artifacts", "videos"), MediaChild())
    with pytest.raises(Refusal) as refusal:
        await publisher.publish(job(inline(vace())), 1, (), "x-1")
    assert (refusal.value.verdict.kind, refusal.value.verdict.reason) == ("Failure", "NoOutput")


async def test_more_files_than_a_status_holds_are_refused_for_good(standin: Standin) -> None:
    files = tuple(OutputFile("9", "images", f"{index}.png", "x-1", "output") for index in range(9))
    publisher = WorkflowOutputs(settings(standin), PvcStore(standin.root / "artifacts", "videos"), MediaChild())
    with pytest.raises(Refusal) as refusal:
        await publisher.publish(job(inline(vace())), 1, files, "x-1")
    assert (refusal.value.verdict.kind, refusal.value.verdict.reason) == ("Permanent", "TooManyOutputs")


# --- ConfigMaps and files ---------------------------------------------------------------------------------------------

BY_NAME = {"configMapRef": {"name": "graphs", "key": "vace.json"}}


def _maps(text: str) -> ConfigMaps:
    return ConfigMaps(graphs={"data": {"vace.json": text}})


async def refused(standin: Standin, one: Object, maps: ConfigMaps | None = None) -> tuple[str, str]:
    with pytest.raises(Refusal) as refusal:
        await prepared(standin, one, maps)
    assert refusal.value.verdict.kind == "Permanent"
    return refusal.value.verdict.reason, refusal.value.verdict.message


async def test_a_config_map_s_graph_runs_when_it_is_the_one_that_was_queued(standin: Standin) -> None:
    text = json.dumps(vace())
    pinned = {"resolved": {"workflowSha256": text_hash(text)}}
    assert len((await rendered(standin, job(BY_NAME, pinned), _maps(text))).frames) == FRAMES
    reason, told = await refused(standin, job(BY_NAME, pinned), _maps(json.dumps(vace(seed=8))))
    assert reason == "WorkflowChanged"
    assert "key vace.json of ConfigMap graphs holds another text" in told
    assert (await refused(standin, job(BY_NAME, pinned), ConfigMaps()))[0] == "WorkflowChanged"


async def test_an_agent_that_restarts_needs_no_config_map(standin: Standin) -> None:
    one = job(BY_NAME)
    first = await prepared(standin, one, _maps(json.dumps(vace())))
    assert await prepared(standin, one, ConfigMaps()) == first


async def test_a_file_that_is_not_the_pinned_one_is_refused(standin: Standin) -> None:
    graph = vace(reference_image=["50", 0])
    graph["50"] = node("LoadImage", image="ref.png")
    given = hashlib.sha256((standin.root / "claims/films/ref.png").read_bytes()).hexdigest()
    good = inline(graph, files=[{"name": "ref.png", "source": film("ref.png"), "sha256": given}])
    assert (await prepared(standin, job(good))).facts[0]["sha256"] == given
    bad = inline(graph, files=[{"name": "ref.png", "source": film("ref.png"), "sha256": "0" * 64}])
    reason, told = await refused(standin, job(bad))
    assert reason == "InvalidInput"
    assert told == f"spec.workflow.files[0].sha256 is {'0' * 64}; allowed: {given}, which the file has"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("clip.mp4", "node 50 (LoadImage) image is a file that is a video; allowed: an image"),
        ("nothing.png", "spec.workflow.files[0].source.claim.path is"),
        ("../claims/films/ref.png", "spec.workflow.files[0].source.claim.path is"),
    ],
)
async def test_a_file_that_is_not_what_its_node_reads(standin: Standin, path: str, told: str) -> None:
    graph = vace(reference_image=["50", 0])
    graph["50"] = node("LoadImage", image="ref.png")
    reason, message = await refused(standin, job(inline(graph, files=[{"name": "ref.png", "source": film(path)}])))
    assert reason == "InvalidInput"
    assert told in message


async def test_a_size_that_a_file_decides_is_judged_when_the_file_is_there(standin: Standin) -> None:
    graph = vace()
    graph["50"] = node("LoadImage", image="huge.png")
    graph["51"] = node("GetImageSize", image=["50", 0])
    graph["17"]["inputs"]["width"] = ["51", 0]
    Image.new("RGB", (2000, 64)).save(standin.root / "claims/films/huge.png")
    one = job(inline(graph, files=[{"name": "huge.png", "source": film("huge.png")}]))
    reason, told = await refused(standin, one)
    assert reason == "InvalidInput"
    assert "node 17 (WanVaceToVideo) width is 2000" in told
