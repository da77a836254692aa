"""The graphs: accepted by the node contract, wired as they must be, and equal to the documents where they should be."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model
from kinora.engine.contract import check_graph
from kinora.recipes.build import RECIPES, build, planned_hash
from kinora.recipes.graph import Graph, Prompts, StagedInput, graph_hash
from kinora.recipes.needs import NEEDS, kind_of
from kinora.recipes.resolve import prompts_of, resolve
from kinora.recipes.vace import GUIDANCE

RECORDED = Path(__file__).parents[4] / "shared" / "comfyui" / "nodes.json"
CLAIM = {"claim": {"name": "footage", "path": "a"}}
VACE, I2V = "wan2.1-vace-1.3b", "wan2.1-i2v-14b-480p"
STAGED = {name: StagedInput(f"jobs/u-1/{name.strip(']').replace('[', '-')}", kind_of(name))
          for name in ("image", "video", "references[0]")}  # fmt: skip
INPUTS: dict[str, dict[str, Any]] = {
    "TextToVideo": {},
    "ImageToVideo": {"image": CLAIM},
    "ReferenceToVideo": {"references": [{"source": CLAIM}]},
    "VideoToVideo": {"video": CLAIM},
    "VideoToVideo+reference": {"video": CLAIM, "references": [{"source": CLAIM}]},
}
CASES = [(VACE, case) for case in INPUTS] + [(I2V, "ImageToVideo")]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"parameters": {"width": 832, "height": 480, "frames": 81, "fps": 12.5, "steps": 30, "guidance": 6.5, "shift": 3}},
    {"parameters": {"seed": 2**53 - 1, "durationSeconds": 2}, "output": {"crf": 0, "width": 470, "height": 462}},
    {"parameters": {"frames": 5, "width": 64, "height": 64, "steps": 1, "shift": 0, "guidance": 0}},
]


def _model(name: str) -> Model:
    model = load_catalogue().get(name)
    assert model is not None
    return model


def _graph(name: str, case: str, **more: Any) -> Graph:
    spec = VideoJobSpec.model_validate(
        {"model": name, "task": case.split("+", maxsplit=1)[0], "prompt": "a cat", "inputs": INPUTS[case], **more}
    )
    model = _model(name)
    return build(model, resolve(spec, model, "uid"), prompts_of(spec, model), STAGED, "kinora/u-1")


def _files(model: Model) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {"input": [staged.file for staged in STAGED.values()]}
    for weight in model.weights:
        folders.setdefault(weight.folder, []).append(weight.name)
    return folders


@pytest.mark.parametrize("more", OPTIONS)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_project_s_contract_accepts_every_graph(name: str, case: str, more: dict[str, Any]) -> None:
    assert check_graph(_graph(name, case, **more), _files(_model(name))) is None


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded node contract is not beside this checkout")
@pytest.mark.parametrize("more", OPTIONS)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_recorded_contract_accepts_every_graph(name: str, case: str, more: dict[str, Any]) -> None:
    nodes = json.loads(RECORDED.read_text(encoding="utf-8"))["nodes"]
    graph = _graph(name, case, **more)
    for item in graph.values():
        declared = nodes[item["class_type"]]
        assert set(declared["required"]) <= set(item["inputs"]), item
        for key, value in item["inputs"].items():
            wanted = {**declared["required"], **declared["optional"]}.get(key)
            if wanted is not None:
                _check_value(wanted, value, graph, nodes)


def _check_value(wanted: dict[str, Any], value: Any, graph: Graph, nodes: dict[str, Any]) -> None:
    if isinstance(value, list):
        assert nodes[graph[value[0]]["class_type"]]["outputs"][value[1]] == wanted["type"]
    elif wanted["type"] == "COMBO":
        assert wanted["values"] == "<files>" or value in wanted["values"]
    elif wanted["type"] in ("INT", "FLOAT"):
        assert not isinstance(value, (bool, str))
        assert wanted.get("min", value) <= value <= wanted.get("max", value)


@pytest.mark.parametrize("name", [VACE, I2V])
def test_required_node_classes_are_what_the_recipes_use(name: str) -> None:
    graphs = [_graph(name, case, **more) for model, case in CASES if model == name for more in OPTIONS]
    used = {item["class_type"] for graph in graphs for item in graph.values()}
    assert sorted(used) == list(_model(name).required_node_classes)


def test_every_task_of_the_table_has_a_recipe_and_every_family_too() -> None:
    assert set(GUIDANCE) == set(NEEDS)
    assert {model.family for model in load_catalogue()} == set(RECIPES)


def _reached(graph: Graph, start: str) -> set[str]:
    found, todo = set(), [start]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo += [value[0] for value in graph[current]["inputs"].values() if isinstance(value, list)]
    return found


@pytest.mark.parametrize("more", OPTIONS)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_node_reaches_the_video(name: str, case: str, more: dict[str, Any]) -> None:
    """The defect of the first document: its picture reached only a preview."""
    graph = _graph(name, case, **more)
    combine = next(key for key, item in graph.items() if item["class_type"] == "VHS_VideoCombine")
    assert _reached(graph, combine) == set(graph)


def _source(graph: Graph, node_id: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = graph[graph[node_id]["inputs"][name][0]]
    return found


def test_image_is_frame_one_and_the_rest_is_generated() -> None:
    graph = _graph(VACE, "ImageToVideo")
    batch = _source(graph, "17", "control_video")["inputs"]
    resized, grey = graph[batch["image1"][0]], graph[batch["image2"][0]]["inputs"]
    assert resized["class_type"] == "ImageResizeKJv2"
    assert resized["inputs"]["keep_proportion"] == "crop"
    assert graph[resized["inputs"]["image"][0]]["inputs"] == {"image": STAGED["image"].file}
    assert grey == {"width": 480, "height": 480, "batch_size": 48, "color": 0x7F7F7F}
    masks = graph[_source(graph, "17", "control_masks")["inputs"]["image"][0]]["inputs"]
    first, rest = graph[masks["image1"][0]]["inputs"], graph[masks["image2"][0]]["inputs"]
    assert (first["color"], first["batch_size"]) == (0, 1)
    assert (rest["color"], rest["batch_size"]) == (0xFFFFFF, 48)


def test_reference_is_letterboxed_on_white_and_trimmed() -> None:
    graph = _graph(VACE, "ReferenceToVideo", parameters={"controlStrength": 1.5})
    reference = _source(graph, "17", "reference_image")["inputs"]
    assert (reference["keep_proportion"], reference["pad_color"]) == ("pad", "255, 255, 255")
    assert graph["30"]["inputs"] == {"samples": ["24", 0], "trim_amount": ["17", 3]}
    assert graph["17"]["inputs"]["strength"] == 1.5
    assert "control_video" not in graph["17"]["inputs"]


def test_video_is_read_at_the_rate_size_and_length_of_the_job() -> None:
    graph = _graph(VACE, "VideoToVideo+reference", parameters={"frames": 33, "fps": 12})
    video = _source(graph, "17", "control_video")["inputs"]
    assert (video["force_rate"], video["frame_load_cap"]) == (12, 33)
    assert (video["custom_width"], video["custom_height"]) == (480, 480)
    assert "reference_image" in graph["17"]["inputs"]


def test_i2v_keeps_the_size_that_was_asked_for() -> None:
    encode = _graph(I2V, "ImageToVideo")["50"]["inputs"]
    assert encode["adjust_resolution"] is False
    assert (encode["generation_width"], encode["generation_height"], encode["num_frames"]) == (512, 512, 81)


# The printed graphs of the documents, without what is meant to differ (see the recipes' first lines).
PRINTED_VACE: Graph = {
    "11": {
        "class_type": "UNETLoader",
        "inputs": {"unet_name": "wan21_vace_1_3_b.safetensors", "weight_dtype": "fp8_e4m3fn_fast"},
    },
    "13": {
        "class_type": "CLIPLoader",
        "inputs": {"clip_name": "umt5_xxl_fp8_e4m3fn.safetensors", "type": "wan", "device": "default"},
    },
    "14": {"class_type": "VAELoader", "inputs": {"vae_name": "wan21_vace_vae.safetensors"}},
    "21": {"class_type": "INTConstant", "inputs": {"value": 49}},
    "27": {"class_type": "ModelSamplingSD3", "inputs": {"shift": 8, "model": ["11", 0]}},
    "30": {"class_type": "TrimVideoLatent", "inputs": {"trim_amount": ["17", 3], "samples": ["24", 0]}},
    "31": {"class_type": "VAEDecode", "inputs": {"samples": ["30", 0], "vae": ["14", 0]}},
}
PRINTED_I2V: Graph = {
    "43": {
        "class_type": "WanVideoVAELoader",
        "inputs": {"model_name": "wan2.1/Wan2_1_VAE_bf16.safetensors", "precision": "bf16"},
    },
    "46": {
        "class_type": "WanVideoBlockSwap",
        "inputs": {
            "blocks_to_swap": 10,
            "offload_img_emb": False,
            "offload_txt_emb": False,
            "use_non_blocking": True,
            "vace_blocks_to_swap": 0,
        },
    },
    "48": {
        "class_type": "WanVideoModelLoader",
        "inputs": {
            "model": "Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors",
            "base_precision": "bf16",
            "quantization": "fp8_e4m3fn",
            "load_device": "offload_device",
            "attention_mode": "sageattn",
            "block_swap_args": ["46", 0],
        },
    },
    "53": {
        "class_type": "WanVideoDecode",
        "inputs": {
            "enable_vae_tiling": True,
            "tile_x": 272,
            "tile_y": 272,
            "tile_stride_x": 144,
            "tile_stride_y": 128,
            "vae": ["43", 0],
            "samples": ["52", 0],
        },
    },
}


@pytest.mark.parametrize(
    ("name", "case", "printed"), [(VACE, "ImageToVideo", PRINTED_VACE), (I2V, "ImageToVideo", PRINTED_I2V)]
)
def test_the_documents_nodes_are_kept(name: str, case: str, printed: Graph) -> None:
    graph = _graph(name, case)
    assert {key: graph[key] for key in printed} == printed


def test_the_documents_samplers_are_kept() -> None:
    sampler = _graph(VACE, "TextToVideo")["24"]["inputs"]
    expected = {"steps": 20, "cfg": 4, "sampler_name": "uni_pc", "scheduler": "simple", "denoise": 1}
    assert expected.items() <= sampler.items()
    wrapper = _graph(I2V, "ImageToVideo")["52"]["inputs"]
    assert {"steps": 10, "cfg": 6, "shift": 5, "scheduler": "dpm++", "riflex_freq_index": 0}.items() <= wrapper.items()
    combine = _graph(I2V, "ImageToVideo")["54"]["inputs"]
    assert (combine["frame_rate"], combine["crf"], combine["format"]) == (16, 19, "video/h264-mp4")


def test_a_delivered_size_is_a_centred_crop() -> None:
    graph = _graph(VACE, "TextToVideo", output={"width": 470, "height": 480})
    crop = _source(graph, "32", "images")
    assert crop["class_type"] == "ImageCrop"
    assert {"x": 5, "y": 0, "width": 470, "height": 480}.items() <= crop["inputs"].items()


def test_a_missing_or_wrong_staged_input_is_refused() -> None:
    model = _model(VACE)
    spec = VideoJobSpec.model_validate({"model": VACE, "task": "ImageToVideo", "inputs": {"image": CLAIM}})
    resolved = resolve(spec, model, "uid")
    with pytest.raises(ValueError, match="image is not staged as Image"):
        build(model, resolved, Prompts("", ""), {}, "x")
    with pytest.raises(ValueError, match="image is not staged as Image"):
        build(model, resolved, Prompts("", ""), {"image": StagedInput("a.mp4", "Video")}, "x")


def test_hash_is_of_the_meaning_and_not_of_the_spelling() -> None:
    graph = _graph(VACE, "TextToVideo")
    turned = json.loads(json.dumps({key: graph[key] for key in reversed(graph)}))
    turned["24"]["inputs"]["cfg"] = 4.0
    assert graph_hash(turned) == graph_hash(graph)
    turned["24"]["inputs"]["cfg"] = 4.5
    assert graph_hash(turned) != graph_hash(graph)
    assert len(graph_hash(graph)) == 64


def test_planned_hash_depends_on_what_is_rendered_only() -> None:
    model = _model(VACE)
    spec = VideoJobSpec.model_validate({"model": VACE, "task": "TextToVideo", "prompt": "a"})
    resolved, prompts = resolve(spec, model, "uid"), prompts_of(spec, model)
    assert planned_hash(model, resolved, prompts) == planned_hash(model, resolved, prompts)
    assert planned_hash(model, resolved, Prompts("b", "")) != planned_hash(model, resolved, prompts)


@settings(deadline=None)
@given(
    st.sampled_from(CASES), st.text(max_size=50), st.text(max_size=50), st.integers(1, 20), st.integers(0, 2**53 - 1)
)
def test_any_prompt_and_size_gives_a_valid_graph(
    case: tuple[str, str], prompt: str, prefix: str, n: int, seed: int
) -> None:
    model = _model(case[0])
    parameters = {"frames": 4 * n + 1, "seed": seed}
    spec = VideoJobSpec.model_validate(
        {
            "model": "m",
            "task": case[1].split("+")[0],
            "prompt": "x",
            "inputs": INPUTS[case[1]],
            "parameters": parameters,
        }
    )
    graph = build(model, resolve(spec, model, "u"), Prompts(prompt, ""), STAGED, prefix)
    for item in graph.values():
        for value in item["inputs"].values():
            assert not isinstance(value, list) or value[0] in graph
    assert graph_hash(graph) == graph_hash(json.loads(json.dumps(graph)))
