"""The project's node contract says what a real ComfyUI's node declarations say."""

import json
from pathlib import Path
from typing import Any

import pytest

from kinora.engine import contract
from kinora.engine.standin import nodes
from kinora.engine.standin.registry import NODES

NOT_RECORDED = {"EmptyLatentImage"}  # met in a recorded prompt; its declaration is not among the recorded ones
FILES = "<files>"


def _declared(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: FILES if key == "files" else value for key, value in raw.items()}


@pytest.fixture
def recorded(recordings: Path) -> dict[str, Any]:
    return json.loads((recordings / "nodes.json").read_text())["nodes"]


@pytest.mark.parametrize("name", sorted(set(contract.node_specs()) - NOT_RECORDED))
def test_class_is_as_recorded(name: str, recorded: dict[str, Any]) -> None:
    spec, wanted = contract.node_specs()[name], recorded[name]
    for required, section in ((True, "required"), (False, "optional")):
        own = {key: spec.inputs[key].declared for key in spec.inputs if spec.inputs[key].required is required}
        levelled = {
            key: {("values" if k == "files" else k): v for k, v in _declared(dict(raw)).items()}
            for key, raw in own.items()
        }
        assert levelled == wanted[section]
    assert [name for name, _ in spec.outputs] == wanted["output_names"]
    assert [kind for _, kind in spec.outputs] == wanted["outputs"]
    assert (spec.is_output, spec.module) == (wanted["is_output"], wanted["module"])


def test_every_class_of_the_contract_is_executed_and_no_other() -> None:
    nodes.load()
    assert set(NODES) == set(contract.node_specs())


def test_every_class_used_by_the_seed_graphs_is_there() -> None:
    vace = "UNETLoader CLIPLoader VAELoader CLIPTextEncode WanVaceToVideo LoadImage INTConstant ImageResizeKJv2 "
    vace += "PreviewImage KSampler ModelSamplingSD3 TrimVideoLatent VAEDecode VHS_VideoCombine "
    i2v = (
        "WanVideoVAELoader LoadWanVideoClipTextEncoder LoadWanVideoT5TextEncoder WanVideoBlockSwap WanVideoModelLoader "
    )
    i2v += "WanVideoTorchCompileSettings WanVideoTextEncode WanVideoImageClipEncode WanVideoSampler WanVideoDecode"
    assert set((vace + i2v).split()) <= set(contract.node_specs())
