"""The wrapper's graph with every option of the engine once and in all pairs, among them those of a job.

Options of the engine belong to the catalogue entry. Each combination passes the node contract; a covering choice is
rendered. That the stand-in does nothing with them shows only that they are accepted.
"""

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest

from contract.harness import Standin, photo
from contract.test_options import covering
from contract.test_recipes import I2V, PHOTO, SIZE, _difference, _rendered, standin
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model
from kinora.catalogue.options import BlockSwap, EngineOptions, TiledDecode, TorchCompile
from kinora.engine.contract import check_graph, node_specs
from kinora.recipes.build import build
from kinora.recipes.graph import StagedInput
from kinora.recipes.resolve import prompts_of, resolve

__all__ = ["standin"]

ENGINE: dict[str, tuple[Any, ...]] = {
    "attention_mode": get_args(EngineOptions.model_fields["attention_mode"].annotation),
    "base_precision": get_args(EngineOptions.model_fields["base_precision"].annotation),
    "load_device": ("offload_device", "main_device"),
    "block_swap": (
        {},
        None,
        {"blocks_to_swap": 40, "offload_img_emb": True, "offload_txt_emb": True},
        {"blocks_to_swap": 0, "use_non_blocking": False, "vace_blocks_to_swap": 15},
    ),
    "tiled_decode": ({}, None, {"tile_x": 40, "tile_y": 2048, "tile_stride_x": 32, "tile_stride_y": 2040}),
    "torch_compile": (
        None,
        {},
        {"backend": "cudagraphs", "fullgraph": True, "dynamic": True, "mode": "max-autotune"},
        {"mode": "max-autotune-no-cudagraphs", "dynamo_cache_size_limit": 0, "dynamo_recompile_limit": 1024},
        {"mode": "reduce-overhead", "compile_transformer_blocks_only": False},
    ),
}
JOB: dict[str, tuple[dict[str, Any], ...]] = {
    "size": ({"width": 64, "height": 64}, {"width": 96, "height": 64}),
    "frames": ({"frames": 5}, {"frames": 9}),
    "preset": ({}, {"preset": "Fast"}),
    "steps": ({"steps": 2}, {}),
    "guidance": ({}, {"guidance": 0}, {"guidance": 8}),
    "shift": ({}, {"shift": 100}),
    "denoise": ({}, {"denoise": 0.6}),
    "fps": ({}, {"fps": 24}),
}


def _model(**options: Any) -> Model:
    model = load_catalogue().get(I2V)
    assert model is not None
    return model.model_copy(update={"engine_options": EngineOptions.model_validate(options)})


def _combinations() -> Iterator[tuple[Model, VideoJobSpec]]:
    axes = {**ENGINE, **JOB}
    for chosen in covering(axes):
        parameters: dict[str, Any] = {}
        for axis in JOB:
            parameters |= axes[axis][chosen[axis]]
        spec = {"model": I2V, "task": "ImageToVideo", "prompt": "a cat", "inputs": {"image": PHOTO}}
        job = VideoJobSpec.model_validate({**spec, "parameters": parameters, "output": {"crf": 1}})
        yield _model(**{axis: axes[axis][chosen[axis]] for axis in ENGINE}), job


def test_all_pairs_are_accepted() -> None:
    count = 0
    for model, spec in _combinations():
        staged = {"image": StagedInput("job/photo.png", "Image")}
        files = {"input": ["job/photo.png"]}
        for weight in model.weights:
            files.setdefault(weight.folder, []).append(weight.name)
        files["text_encoders"] += files.pop("clip_vision", [])  # the loader lists that folder and this one
        graph = build(model, resolve(spec, model, "uid"), prompts_of(spec, model), staged, "job/out")
        assert check_graph(graph, files) is None
        count += 1
    assert count >= len(ENGINE["attention_mode"]) * len(ENGINE["torch_compile"])


async def test_all_pairs_render(standin: Standin) -> None:
    for model, spec in _combinations():
        found = await _rendered(standin, model, spec)
        resolved = found.resolved
        assert found.frames.shape == (resolved.frames, resolved.height, resolved.width, 3)
        if resolved.width == resolved.height:
            assert _difference(found.frames[0], photo(SIZE, SIZE)) < 6


async def test_the_lora_is_seen_and_the_options_of_the_hardware_are_not(standin: Standin) -> None:
    def job(**more: Any) -> VideoJobSpec:
        parameters = {"width": 64, "height": 64, "frames": 9, "steps": 4, "seed": 1, "guidance": 1, "shift": 5, **more}
        spec = {"model": I2V, "task": "ImageToVideo", "prompt": "a cat", "inputs": {"image": PHOTO}}
        return VideoJobSpec.model_validate({**spec, "parameters": parameters})

    plain = (await _rendered(standin, _model(), job())).frames
    fast = (await _rendered(standin, _model(), job(preset="Fast"))).frames
    other = (await _rendered(standin, _model(attention_mode="sdpa", torch_compile={}), job())).frames
    assert _difference(plain, fast) > 1
    assert np.array_equal(plain, other)


@pytest.mark.parametrize(
    ("part", "node"),
    [
        (BlockSwap, "WanVideoBlockSwap"),
        (TorchCompile, "WanVideoTorchCompileSettings"),
        (TiledDecode, "WanVideoDecode"),
        (EngineOptions, "WanVideoModelLoader"),
    ],
)
def test_words_and_ranges_are_the_nodes_own(part: Any, node: str) -> None:
    inputs = node_specs()[node].inputs
    for name, field in part.model_fields.items():
        if name not in inputs:
            assert part is EngineOptions, name
            continue
        values = get_args(field.annotation)
        if inputs[name].values is not None:
            assert values == inputs[name].values
        bounds = {type(rule).__name__: rule for rule in field.metadata}
        if inputs[name].max is not None:
            assert (bounds["Ge"].ge, bounds["Le"].le) == (inputs[name].min, inputs[name].max)
