"""The graphs: accepted by the node contract, wired as they must be, and equal to the documents where they should be."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.api.videojob import Preset, VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model, Role, Windows
from kinora.catalogue.options import EngineOptions
from kinora.engine.contract import check_graph
from kinora.recipes.build import RECIPES, build, graph_inputs, planned_hash
from kinora.recipes.graph import Graph, Prompts, StagedInput, graph_hash
from kinora.recipes.needs import NEEDS, MediaKind
from kinora.recipes.resolve import prompts_of, resolve
from kinora.recipes.windows import spans

RECORDED = Path(__file__).parents[4] / "shared" / "comfyui" / "nodes.json"
CLAIM = {"claim": {"name": "footage", "path": "a"}}
VACE, I2V, FUN = "wan2.1-vace-1.3b", "wan2.1-i2v-14b-480p", "wan2.2-vace-fun-a14b"
STAGED = {
    name: StagedInput(f"jobs/u-1/{name}", kind)
    for name, kind in (
        ("image", MediaKind.IMAGE),
        ("control", MediaKind.VIDEO),
        ("mask.video", MediaKind.VIDEO),
        ("reference", MediaKind.IMAGE),
    )
}
REFERENCES = [{"source": CLAIM}, {"source": CLAIM, "role": "Background"}]
INPUTS: dict[str, dict[str, Any]] = {
    "TextToVideo": {},
    "ImageToVideo": {"image": CLAIM},
    "ReferenceToVideo": {"references": REFERENCES},
    "VideoToVideo": {"video": CLAIM},
    "VideoToVideo+reference": {"video": CLAIM, "references": [{"source": CLAIM}]},
    "Inpaint": {"video": CLAIM, "mask": {"source": CLAIM, "expandRatio": 0.1}},
    "Inpaint+reference": {"video": CLAIM, "mask": {"source": CLAIM}, "references": [{"source": CLAIM}]},
    "Outpaint": {"video": CLAIM},
    "Extend": {"firstClip": CLAIM},
    "Extend+last": {"lastClip": CLAIM, "firstFrame": CLAIM, "references": [{"source": CLAIM}]},
    "FirstLastFrame": {"firstFrame": CLAIM, "lastFrame": CLAIM},
    "Edit": {"video": CLAIM, "references": REFERENCES},
    "VideoToVideo/Pose": {"video": CLAIM},
    "VideoToVideo/PoseFace": {"video": CLAIM},
    "VideoToVideo/Canny": {"video": CLAIM},
}
VACE_MODELS = [model.name for model in load_catalogue() if model.name != I2V]
CASES = [(name, case) for name in VACE_MODELS for case in INPUTS] + [(I2V, "ImageToVideo")]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"parameters": {"width": 832, "height": 480, "frames": 81, "fps": 12.5, "steps": 30, "guidance": 6.5, "shift": 3}},
    {"parameters": {"seed": 2**53 - 1, "durationSeconds": 2}, "output": {"crf": 0, "width": 470, "height": 462}},
    {"parameters": {"frames": 5, "width": 64, "height": 64, "steps": 1, "shift": 0, "guidance": 0}},
    {"parameters": {"preset": "Fast", "frames": 81}},
]


def _model(name: str) -> Model:
    model = load_catalogue().get(name)
    assert model is not None
    return model


def _spec(name: str, case: str, **more: Any) -> VideoJobSpec:
    task, _, control = case.split("+", maxsplit=1)[0].partition("/")
    parameters = {"expand": {"left": 1.5}} if task == "Outpaint" else {}
    parameters |= {"control": control} if control else {}
    parameters |= more.get("parameters", {})
    if name == FUN and "shift" in parameters:  # two experts need two steps, and its shift begins at 1
        parameters |= {"steps": max(parameters.get("steps", 2), 2), "shift": max(parameters["shift"], 1)}
    asked = {**more, "parameters": parameters}
    given = {"model": name, "task": task, "prompt": "a cat", "inputs": INPUTS[case]}
    return VideoJobSpec.model_validate({**given, **asked})


def _graph(name: str, case: str, **more: Any) -> Graph:
    model, spec = _model(name), _spec(name, case, **more)
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


@pytest.mark.parametrize("name", [*VACE_MODELS, I2V])
def test_required_node_classes_are_what_the_recipes_use(name: str) -> None:
    graphs = [_graph(name, case, **more) for model, case in CASES if model == name for more in OPTIONS]
    if name == I2V:
        graphs.append(_with_options(torch_compile={}))
    used = {item["class_type"] for graph in graphs for item in graph.values()}
    assert sorted(used) == sorted(_model(name).node_classes)
    plain = {item["class_type"] for more in OPTIONS[:4] for item in _graph(name, "ImageToVideo", **more).values()}
    assert plain <= set(_model(name).required_node_classes)


def _with_options(**options: Any) -> Graph:
    """The wrapper's graph with these options of the engine, the others as they are in the entry."""
    model = _model(I2V)
    assert model.engine_options is not None
    known = model.engine_options.model_dump() | options
    entry = model.model_copy(update={"engine_options": EngineOptions.model_validate(known)})
    spec = _spec(I2V, "ImageToVideo")
    return build(entry, resolve(spec, entry, "uid"), prompts_of(spec, entry), STAGED, "kinora/u-1")


def test_every_task_of_the_table_has_a_recipe_and_every_family_too() -> None:
    assert {case.split("+")[0].split("/")[0] for case in INPUTS} == {str(task) for task in NEEDS}
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


def test_prepared_files_are_loaded_as_they_are() -> None:
    graph = _graph(VACE, "Inpaint", parameters={"frames": 33, "fps": 12})
    video = _source(graph, "17", "control_video")["inputs"]
    assert (video["force_rate"], video["custom_width"], video["custom_height"]) == (0, 0, 0)
    assert (video["frame_load_cap"], video["skip_first_frames"]) == (33, 0)
    mask = graph[_source(graph, "17", "control_masks")["inputs"]["image"][0]]["inputs"]
    assert mask["video"] == STAGED["mask.video"].file
    assert video["video"] == STAGED["control"].file


@pytest.mark.parametrize("case", ["ImageToVideo", "Inpaint", "Outpaint", "Extend", "FirstLastFrame"])
def test_what_the_mask_keeps_is_laid_back_over_what_was_decoded(case: str) -> None:
    graph = _graph(VACE, case)
    composite = _source(graph, "32", "images")["inputs"]
    assert composite == {
        "destination": ["60", 0], "source": ["31", 0], "mask": ["63", 0], "x": 0, "y": 0, "resize_source": False,
    }  # fmt: skip


@pytest.mark.parametrize("case", ["TextToVideo", "ReferenceToVideo", "VideoToVideo", "Edit"])
def test_without_a_mask_everything_is_generated(case: str) -> None:
    graph = _graph(VACE, case, parameters={"frames": 81})
    assert "control_masks" not in graph["17"]["inputs"]
    assert _source(graph, "32", "images")["class_type"] == "VAEDecode"


@pytest.mark.parametrize(("name", "loaders"), [(VACE, ["19"]), ("wan2.1-vace-14b", ["19"]), (FUN, ["19", "29"])])
def test_fast_lays_each_expert_s_lora_on_it(name: str, loaders: list[str]) -> None:
    graph, model = _graph(name, "TextToVideo", parameters={"preset": "Fast"}), _model(name)
    assert [key for key, item in graph.items() if item["class_type"] == "LoraLoaderModelOnly"] == loaders
    for loader, shift, expert, lora in zip(
        loaders, ("27", "28"), ("11", "12"), model.preset_weights("Fast"), strict=False
    ):
        assert graph[loader]["inputs"] == {"model": [expert, 0], "lora_name": lora.name, "strength_model": 1}
        assert graph[shift]["inputs"]["model"] == [loader, 0]
    if name == FUN:
        assert ["high" in graph[loader]["inputs"]["lora_name"] for loader in loaders] == [True, False]
    sampler = graph["24"]["inputs"]
    assert (sampler["steps"], sampler["cfg"]) == (4, 1)
    assert "LoraLoaderModelOnly" not in {item["class_type"] for item in _graph(name, "TextToVideo").values()}


def test_fast_on_the_wrapper() -> None:
    graph = _graph(I2V, "ImageToVideo", parameters={"preset": "Fast", "steps": 6})
    assert graph["48"]["inputs"]["lora"] == ["51", 0]
    assert graph["51"]["inputs"]["lora"] == _model(I2V).preset_weights("Fast")[0].name
    assert (graph["52"]["inputs"]["steps"], graph["52"]["inputs"]["cfg"]) == (6, 1)
    assert graph["52"]["inputs"]["scheduler"] == "lcm"


def test_a_preset_s_strength_is_the_entry_s() -> None:
    model = _model(VACE)
    values = model.presets[Preset.FAST].model_copy(update={"strengths": {Role.FAST_LORA: 0.3}})
    entry = model.model_copy(update={"presets": {Preset.FAST: values}})
    spec = _spec(VACE, "TextToVideo", parameters={"preset": "Fast"})
    graph = build(entry, resolve(spec, entry, "uid"), prompts_of(spec, entry), STAGED, "kinora/u-1")
    assert graph["19"]["inputs"]["strength_model"] == 0.3


def test_options_of_the_wrapper_are_wired() -> None:
    plain = _with_options(block_swap=None, tiled_decode=None, attention_mode="sdpa")
    assert not {"46", "47"} & set(plain)
    assert not {"block_swap_args", "compile_args"} & set(plain["48"]["inputs"])
    assert plain["53"]["inputs"]["enable_vae_tiling"] is False
    assert plain["48"]["inputs"]["attention_mode"] == "sdpa"
    full = _with_options(
        block_swap={"blocks_to_swap": 30}, torch_compile={"mode": "max-autotune"}, tiled_decode={"tile_x": 128}
    )
    assert full["46"]["inputs"]["blocks_to_swap"] == 30
    assert (full["47"]["inputs"]["mode"], full["47"]["inputs"]["backend"]) == ("max-autotune", "inductor")
    assert full["48"]["inputs"]["compile_args"] == ["47", 0]
    assert (full["53"]["inputs"]["enable_vae_tiling"], full["53"]["inputs"]["tile_x"]) == (True, 128)


def test_a_long_edit_is_rendered_in_windows() -> None:
    graph = _graph("wan2.1-vace-14b", "Edit", parameters={"frames": 161})
    assert [graph[name]["inputs"]["value"] for name in ("21", "121", "221")] == [81, 81, 33]
    # What each window is steered by: its own frames of the one control video, behind the 17 that it keeps.
    parts = [graph[name]["inputs"] for name in ("80", "180", "280")]
    assert [(part["batch_index"], part["length"]) for part in parts] == [(0, 81), (81, 64), (145, 16)]
    assert {tuple(part["image"]) for part in parts} == {("61", 0)}
    tails = [graph[name]["inputs"] for name in ("181", "281")]
    assert [(tail["image"], tail["batch_index"], tail["length"]) for tail in tails] == [
        (["31", 0], 64, 17), (["141", 0], 64, 17),
    ]  # fmt: skip
    assert [graph[name]["inputs"]["amount"] for name in ("185", "188", "285", "288")] == [17, 64, 17, 16]
    assert (graph["183"]["inputs"]["value"], graph["186"]["inputs"]["value"]) == (0, 1)
    fresh = [graph[name]["inputs"] for name in ("142", "242")]
    assert [(part["image"], part["batch_index"], part["length"]) for part in fresh] == [
        (["141", 0], 17, 64), (["241", 0], 17, 16),
    ]  # fmt: skip
    assert graph["141"]["inputs"]["image_target"] == ["131", 0]
    assert graph["243"]["inputs"] == {"image1": ["143", 0], "image2": ["242", 0]}
    assert _source(graph, "32", "images") is graph["243"]
    assert "control_masks" not in graph["17"]["inputs"]


@given(st.integers(1, 300), st.sampled_from([(81, 17), (9, 5), (49, 9), (5, 1)]))
def test_every_frame_is_fresh_in_one_window(n: int, shape: tuple[int, int]) -> None:
    frames, (size, overlap) = 4 * n + 1, shape
    found = spans(frames, Windows(frames=size, overlap=overlap, maximum=1000))
    covered = [at for window in found for at in range(window.start + window.kept, window.start + window.frames)]
    assert covered == list(range(frames))
    assert all(window.frames % 4 == 1 and window.frames <= size for window in found)
    assert all(window.frames == size for window in found[:-1])
    assert all(window.kept == overlap for window in found[1:])


def test_two_experts_share_the_steps() -> None:
    graph = _graph(FUN, "TextToVideo", parameters={"steps": 13, "seed": 7})
    first, second = graph["23"]["inputs"], graph["24"]["inputs"]
    assert (first["start_at_step"], first["end_at_step"], second["start_at_step"], second["end_at_step"]) == (
        0,
        6,
        6,
        13,
    )
    assert (first["add_noise"], first["return_with_leftover_noise"]) == ("enable", "enable")
    assert (second["add_noise"], second["return_with_leftover_noise"]) == ("disable", "disable")
    assert second["latent_image"] == ["23", 0]
    loaded = [graph[graph[stage["model"][0]]["inputs"]["model"][0]]["inputs"]["unet_name"] for stage in (first, second)]
    assert ["high" in name for name in loaded] == [True, False]
    assert {first["noise_seed"], second["noise_seed"]} == {7}


def test_reference_is_wired_and_trimmed() -> None:
    graph = _graph(VACE, "ReferenceToVideo", parameters={"controlStrength": 1.5})
    assert _source(graph, "17", "reference_image")["inputs"] == {"image": STAGED["reference"].file}
    assert graph["30"]["inputs"] == {"samples": ["24", 0], "trim_amount": ["17", 3]}
    assert graph["17"]["inputs"]["strength"] == 1.5
    assert "control_video" not in graph["17"]["inputs"]


def test_depth_and_pose_are_drawn_by_nodes_in_the_render_size() -> None:
    size = {"width": 640, "height": 352, "frames": 81}
    drawn = _source(_graph(VACE, "Edit", parameters=size), "17", "control_video")
    assert (drawn["class_type"], drawn["inputs"]["resolution"]) == ("DepthAnythingV2Preprocessor", 352)
    for control, face in (("Pose", "disable"), ("PoseFace", "enable")):
        drawn = _source(_graph(VACE, f"VideoToVideo/{control}", parameters=size), "17", "control_video")
        assert (drawn["class_type"], drawn["inputs"]["detect_face"]) == ("DWPreprocessor", face)


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
    for name, wanted, kind in ((VACE, "control", "Video"), (I2V, "image", "Image")):
        asked = {"model": name, "task": "ImageToVideo", "prompt": "a", "inputs": {"image": CLAIM}}
        spec = VideoJobSpec.model_validate(asked)
        resolved = resolve(spec, _model(name), "uid")
        assert wanted in graph_inputs(_model(name), resolved)
        with pytest.raises(ValueError, match=f"{wanted} is not staged as {kind}"):
            build(_model(name), resolved, Prompts("", ""), {}, "x")
        wrong = {item: StagedInput("a", "Text") for item in graph_inputs(_model(name), resolved)}
        with pytest.raises(ValueError, match=f"{wanted} is not staged as {kind}"):
            build(_model(name), resolved, Prompts("", ""), wrong, "x")


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
    spec = _spec(case[0], case[1], parameters=parameters)
    graph = build(model, resolve(spec, model, "u"), Prompts(prompt, ""), STAGED, prefix)
    for item in graph.values():
        for value in item["inputs"].values():
            assert not isinstance(value, list) or value[0] in graph
    assert graph_hash(graph) == graph_hash(json.loads(json.dumps(graph)))
