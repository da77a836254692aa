"""Graphs made to do harm, or out of carelessness: each is refused for good, and the message says where and what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kinora.recipes.faults import InvalidSpec
from unit.workflows.made import Graph, faults, node, planned, sound

PATHS = [
    "../../etc/passwd", "/etc/passwd", "..\\..\\windows\\system32", "C:\\secret.png", "~/secret.png", "a/../../b.png",
    "photo.png [output]", "photo.png [temp]", "file:///etc/passwd", "http://169.254.169.254/latest", "\\\\host\\share",
    "photo.png\n", "ph\u202eoto.png", "．．/photo.png", "PHOTO.PNG", " photo.png", "photo.png ", "<image>",
    "<files[0]>", "%2e%2e/photo.png", "other-job-1/photo.png",
]  # fmt: skip
READERS = [
    ("LoadImage", "image", {}),
    ("LoadImageMask", "image", {"channel": "red"}),
    ("LoadVideo", "file", {}),
    (
        "VHS_LoadVideo", "video",
        {"force_rate": 0, "custom_width": 0, "custom_height": 0, "frame_load_cap": 9, "skip_first_frames": 0,
         "select_every_nth": 1},
    ),
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("class_type", "name", "more"), READERS, ids=[reader[0] for reader in READERS])
def test_a_file_that_the_job_does_not_declare(class_type: str, name: str, more: dict[str, Any], path: str) -> None:
    graph = sound()
    graph["50"] = node(class_type, **{name: path}, **more)
    graph["51"] = node("LoadImage", image="photo.png")
    told = faults(graph, files={"photo.png": "photo.png"})
    assert len(told) == 1
    assert told[0].startswith(f"spec.workflow node 50 ({class_type}) {name} is ")
    assert "allowed: a name in spec.workflow.files" in told[0]
    assert told[0].isprintable()


@pytest.mark.parametrize(
    "path", ["../x.png", "/x.png", "a//b.png", "..", ".", "a\\b", "C:x", "~/x", "x\n.png", "x\x00"]
)
def test_a_declared_name_that_is_a_path_elsewhere(path: str) -> None:
    graph = sound()
    graph["50"] = node("LoadImage", image=path.replace("\x00", ""))
    told = faults(graph, files={path: "photo.png"})
    assert any(one.startswith("spec.workflow.files[0].name is ") for one in told)


CLASSES = [
    "VHS_LoadVideoPath", "VHS_LoadImagesPath", "VHS_LoadVideoFFmpegPath", "VHS_LoadAudio", "VHS_LoadAudioUpload",
    "VHS_PruneOutputs", "VHS_BatchManager", "VHS_LoadImages", "LoadImageFromUrl", "DownloadModel", "PythonExec",
    "EvalNode", "ShellCommand", "RunScript",
]  # fmt: skip


@pytest.mark.parametrize("class_type", CLASSES)
def test_a_class_that_no_model_server_can_allow(class_type: str) -> None:
    graph = sound()
    graph["50"] = node(class_type, video="/etc/passwd")
    told = faults(graph, classes=tuple(CLASSES))
    assert told == [
        f'spec.workflow node 50 class_type is "{class_type}"; allowed: no class that reads paths of the server, '
        "fetches or runs code; no ModelServer can allow one (give files in spec.workflow.files)"
    ]


@pytest.mark.parametrize(
    "class_type", ["ControlNetLoader", "DWPreprocessor2", "KSampler ", "ksampler", "LoadImаge", "x" * 128]
)
def test_a_class_that_is_not_on_the_list(class_type: str) -> None:
    graph = sound()
    graph["50"] = node(class_type)
    [told] = faults(graph)
    assert "allowed: the classes listed in docs/workflows.md (an administrator can add" in told


def changed(**changes: dict[str, Any]) -> Graph:
    return sound(**changes)


def without(node_id: str, name: str) -> Graph:
    graph = sound()
    del graph[node_id]["inputs"][name]
    return graph


def added(**nodes: dict[str, Any]) -> Graph:
    return sound() | {name.removeprefix("n"): one for name, one in nodes.items()}


def chain(count: int, class_type: str, **inputs: Any) -> Graph:
    """Each node gets the pictures of the one before, under every name in `inputs` that is None."""
    graph = sound()
    before = ["31", 0]
    for index in range(count):
        graph[f"b{index}"] = node(class_type, **{name: before if one is None else one for name, one in inputs.items()})
        before = [f"b{index}", 0]
    return graph


CASES: dict[str, tuple[Any, str]] = {
    # weights
    "weights of another model": (changed(n11={"unet_name": "other.safetensors"}), "node 11 (UNETLoader) unet_name is"),
    "weights by a path": (changed(n14={"vae_name": "../../vae.safetensors"}), "allowed: wan21_vace_vae.safetensors"),
    "weights in another folder": (changed(n13={"clip_name": "wan21_vace_vae.safetensors"}), "node 13 (CLIPLoader)"),
    "a lora that the model has not": (
        added(n9=node("LoraLoaderModelOnly", model=["11", 0], lora_name="x.safetensors", strength_model=1.0)),
        "node 9 (LoraLoaderModelOnly) lora_name",
    ),
    "weights through a link": (changed(n11={"unet_name": ["15", 0]}), "names of files cannot come through a link"),
    # links
    "a link to nowhere": (changed(n31={"samples": ["99", 0]}), "allowed: a link to a node of this graph"),
    "a link to an output that is not there": (changed(n31={"samples": ["30", 7]}), "an output of TrimVideoLatent: 0"),
    "a link of another type": (changed(n31={"samples": ["14", 0]}), "of type VAE; allowed: a value or a link"),
    "a link to itself": (changed(n30={"samples": ["30", 0]}), "spec.workflow is a graph with the cycle 30 -> 30"),
    "a cycle": (changed(n17={"positive": ["24", 0]}), "with the cycle"),
    "a link with a number for the node": (changed(n31={"samples": [30, 0]}), 'a link such as ["12", 0]'),
    "a link with a negative output": (changed(n31={"samples": ["30", -1]}), 'a link such as ["12", 0]'),
    "a link with a fraction": (changed(n31={"samples": ["30", 0.5]}), 'a link such as ["12", 0]'),
    "a list as a value": (changed(n24={"seed": [1, 2, 3]}), "node 24 (KSampler) seed is [1, 2, 3]"),
    "an empty list": (changed(n24={"seed": []}), "node 24 (KSampler) seed is []"),
    "a value that is an object": (changed(n24={"seed": {"__value__": 5}}), "seed is an object of 1 entries"),
    "a value instead of a link": (changed(n31={"samples": "latent"}), "allowed: a link of type LATENT"),
    # values
    "a fraction for a whole number": (changed(n24={"steps": 7.5}), "steps is 7.5; allowed: a whole number"),
    "a text for a number": (changed(n24={"steps": "20"}), 'steps is "20"; allowed: a whole number'),
    "true for a number": (changed(n24={"steps": True}), "steps is true; allowed: a whole number"),
    "a number for a text": (changed(n15={"text": 5}), "text is 5; allowed: a text"),
    "null": (changed(n24={"seed": None}), "seed is null"),
    "a word that the class has not": (changed(n24={"sampler_name": "magic"}), 'sampler_name is "magic"'),
    "a seed below zero": (changed(n24={"seed": -1}), "seed is -1; allowed: 0 to 18446744073709551615"),
    "an input that is missing": (without("24", "seed"), "node 24 (KSampler) seed is not set"),
    "an input that the class has not": (changed(n24={"vae": ["14", 0]}), "node 24 (KSampler) vae is set"),
    "a hidden input": (changed(n32={"unique_id": "1"}), "node 32 (VHS_VideoCombine) unique_id is set"),
    "a hidden prompt": (changed(n32={"prompt": "x"}), "node 32 (VHS_VideoCombine) prompt is set"),
    "hidden metadata": (changed(n32={"extra_pnginfo": "x"}), "node 32 (VHS_VideoCombine) extra_pnginfo is set"),
    "a format of many files": (changed(n32={"format": "video/16bit-png"}), 'format is "video/16bit-png"'),
    "a format by a path": (changed(n32={"format": "video/../../x"}), "format is"),
    "a widget with options": (changed(n32={"pix_fmt": "yuv420p -vf x"}), "allowed: one word"),
    "a widget with a path": (changed(n32={"pix_fmt": "/etc/passwd"}), 'pix_fmt is "/etc/passwd"; allowed: one word'),
    "a prefix where none belongs": (changed(n24={"filename_prefix": "x"}), "node 24 (KSampler) filename_prefix is set"),
    "an embedding": (changed(n15={"text": "a fox, embedding:../x"}), "a text without 'embedding:'"),
    "a prefix through a link": (changed(n32={"filename_prefix": ["15", 0]}), "filename_prefix is"),
    "a prefix that is a number": (changed(n32={"filename_prefix": 5}), "filename_prefix is 5"),
    "a cache of embeddings on disk": (
        added(n9=node("WanVideoTextEncode", positive_prompt="a", negative_prompt="b", use_disk_cache=True)),
        "use_disk_cache is true; allowed: False",
    ),
    # sizes
    "a width above the model's": (changed(n17={"width": 4096}), "(WanVaceToVideo) width is 4096; allowed: 64 to 1024"),
    "an area above the model's": (changed(n17={"width": 1024, "height": 1024}), "1024x1024; allowed: at most 399360"),
    "a width off the grid": (changed(n17={"width": 72}), "width is 72; allowed: multiples of 16"),
    "frames off the grid": (changed(n17={"length": 80}), "length is 80; allowed: 4n+1: 77 and 81 are nearest"),
    "frames above the model's": (changed(n17={"length": 16001}), "length is 16001; allowed: 1 to 81"),
    "a batch": (changed(n17={"batch_size": 64}), "batch_size is 64; allowed: 1: one video a job"),
    "steps above the model's": (changed(n24={"steps": 9999}), "steps is 9999; allowed: 1 to 100"),
    "frames through a link": (
        added(n21=node("INTConstant", value=8001)) | {"17": changed(n17={"length": ["21", 0]})["17"]},
        "node 17 (WanVaceToVideo) length is 8001",
    ),
    "steps through a link": (
        added(n21=node("INTConstant", value=5000)) | {"24": changed(n24={"steps": ["21", 0]})["24"]},
        "node 24 (KSampler) steps is 5000",
    ),
    "a width that no one can tell": (
        changed(n17={"width": ["24", 0]}), "of type LATENT; allowed: a value or a link of type INT",
    ),
    "a width through pictures": (
        added(
            n20=node("EmptyImage", width=8192, height=64, batch_size=1, color=0),
            n21=node("GetImageSize", image=["20", 0]),
        ) | {"17": changed(n17={"width": ["21", 0]})["17"]},
        "node 17 (WanVaceToVideo) width is 8192",
    ),
    "a picture of many pictures": (added(n9=node("EmptyImage", width=4096, height=4096, batch_size=600, color=0)),
                                   "node 9 (EmptyImage) is 600 pictures of 4096x4096"),
    "a picture too wide": (added(n9=node("EmptyImage", width=16384, height=16, batch_size=1, color=0)), "at most 4096"),
    "repeats of repeats": (chain(8, "RepeatImageBatch", image=None, amount=64), "of 832x480; allowed: at most"),
    "doubling": (chain(40, "ImageBatch", image1=None, image2=None), "pictures of 832x480; allowed: at most"),
    "growing": (chain(30, "ImagePadForOutpaint", image=None, left=4000, right=0, top=4000, bottom=0, feathering=0),
                "allowed: at most"),
    "many large pictures": (chain(60, "ImageInvert", image=None), "a graph that holds"),
    "many pictures as files": (added(n9=node("SaveImage", images=["31", 0], filename_prefix="x")), "is 81 pictures"),
    "many samplers": (
        sound() | {f"s{index}": sound()["24"] for index in range(9)}, "a graph with 10 samplers; allowed: at most 8",
    ),
    "many outputs": (sound() | {f"o{index}": sound()["32"] for index in range(9)}, "10 nodes that save"),
    "no output": ({name: one for name, one in sound().items() if name != "32"}, "a graph that saves nothing"),
    "an output that is thrown away": (changed(n32={"save_output": False}), "a graph that saves nothing"),
    "many nodes": (sound() | {f"n{index}": sound()["15"] for index in range(300)}, "310 nodes; allowed: at most 256"),
    # shape
    "no nodes": ({}, "a graph without nodes"),
    "the editor's format": ({"nodes": [], "links": [], "version": 0.4}, "in ComfyUI: Workflow, Export (API)"),
    "a list": ("[1]", "spec.workflow is a list"),
    "a number": ("5", "JSON of type int"),
    "no JSON": ("{'a': 1}", "text that is no JSON"),
    "half of a JSON": ('{"1": {', "text that is no JSON"),
    "not a number": ('{"1": {"class_type": "KSampler", "inputs": {"cfg": NaN}}}', "a text with NaN"),
    "infinity": ('{"1": {"class_type": "KSampler", "inputs": {"cfg": -Infinity}}}', "a text with -Infinity"),
    "a number that overflows": ('{"1": {"class_type": "KSampler", "inputs": {"cfg": 1e999}}}', "with the number 1e999"),
    "a number beyond 2^64": (json.dumps(changed(n24={"seed": 2**64})), "with the number 18446744073709551616"),
    "a number of a million digits": ('{"1": ' + "9" * 1_000_000 + "}", "a text with the number 99999"),
    "a key twice": ('{"1": {}, "1": {}}', 'the key "1" twice'),
    "an input twice": ('{"1": {"class_type": "A", "inputs": {"a": 1, "a": 2}}}', 'the key "a" twice'),
    "deep nesting": ("[" * 100_000 + "]" * 100_000, "nested deeper than 32"),
    "deep nesting of objects": ('{"a":' * 5_000 + "1" + "}" * 5_000, "nested deeper than 32"),
    "10 MB": (json.dumps({"1": node("CLIPTextEncode", text="x" * 10_000_000)}), "bytes of text; allowed: at most"),
    "a text that is too long": (changed(n15={"text": "x" * 30_000}), "30000 characters; allowed: at most 20000"),
    "a NUL": (changed(n15={"text": "a\x00b"}), "without control characters"),
    "half a character": (changed(n15={"text": "\ud83d"}), "without control characters and lone surrogates"),
    "a node that is no object": ({"1": "KSampler"}, "node 1 is a JSON value of type str; allowed: an object"),
    "a node without a class": ({"1": {"inputs": {}}}, "node 1 class_type is null"),
    "a class that is no text": ({"1": {"class_type": ["KSampler"], "inputs": {}}}, "node 1 class_type is"),
    "a class with a control": ({"1": {"class_type": "K\x1b[31m", "inputs": {}}}, "node 1 class_type is"),
    "inputs that are no object": ({"1": {"class_type": "KSampler", "inputs": [1]}}, "node 1 (KSampler) inputs is [1]"),
    "many inputs": ({"1": node("KSampler", **{f"i{index}": 1 for index in range(99)})}, "inputs is 99 of them"),
    "a node id with a path": ({"../1": node("KSampler")}, 'the node id "../1"'),
    "a node id with a control": ({"1\u202e": node("KSampler")}, 'the node id "1\\u202e"'),
    "more in a node": ({"1": {"class_type": "KSampler", "inputs": {}, "exec": "rm"}}, '(KSampler) "exec" is set'),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_graph_that_is_refused(name: str) -> None:
    graph, words = CASES[name]
    told = faults(graph)
    assert told
    assert any(words in one for one in told), told
    assert all(one.isprintable() and len(one) < 900 for one in told)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) + len(CLASSES) + len(PATHS) * len(READERS) > 150


@pytest.mark.parametrize(
    "prefix", ["../../etc/cron.d/x", "/etc/ssh/authorized_keys", "a\\b", "%date:yyyy%/x", "video/%KSampler.seed%", ""]
)
def test_a_prefix_never_leaves_the_job_s_folder(prefix: str) -> None:
    graph = planned(sound(n32={"filename_prefix": prefix})).graph
    assert graph["32"]["inputs"]["filename_prefix"] == "job/job-32"


def test_every_fault_is_told_at_once() -> None:
    graph = sound(n17={"width": 72, "length": 80}, n24={"steps": "20"}, n11={"unet_name": "x.safetensors"})
    told = faults(graph, parameters={"seed": 5, "preset": "Fast"})
    for words in ("width is 72", "length is 80", 'steps is "20"', "unet_name", "parameters.seed", "preset"):
        assert any(words in one for one in told), (words, told)


def test_a_number_that_only_the_render_knows_is_refused_with_node_and_input() -> None:
    graph = sound(n17={"length": ["50", 0]})
    graph["50"] = node("MysteryLength", seed=5)
    [told] = faults(graph, classes=("MysteryLength",))
    assert told.startswith(
        "spec.workflow node 17 (WanVaceToVideo) length is linked to a value that is known only in the"
    )


def test_a_class_that_only_its_inputs_tell_to_be_a_generator_keeps_to_the_model_s_limits() -> None:
    graph = sound()
    graph["50"] = node("WanFunToVideo", width=2048, height=480, length=80, batch_size=4)
    told = faults(graph, classes=("WanFunToVideo",))
    for words in ("width is 2048; allowed: 64 to 1024", "length is 80; allowed: 4n+1", "batch_size is 4; allowed: 1"):
        assert any(words in one for one in told), told


@pytest.mark.parametrize(
    "value",
    ["../x", "/x", "x.safetensors", "secret.txt", "http://a", "a\\b", "~root", "x" * 65, "a;b", "$HOME", "a\nb"],
)
def test_a_class_that_no_contract_describes_gets_no_text_that_could_be_a_file(value: str) -> None:
    graph = sound()
    graph["50"] = node("Mystery", mode=value)
    assert any("node 50 (Mystery) mode is" in one for one in faults(graph, classes=("Mystery",)))


def test_a_class_that_an_administrator_allows_runs_with_plain_words_and_files_of_the_job() -> None:
    graph = sound()
    graph["50"] = node("Mystery", mode="euler a", strength=0.5, on=True, image="photo.png")
    made = planned(graph, classes=("Mystery",), files={"photo.png": "photo.png"})
    assert made.graph["50"]["inputs"]["image"] == "<files[0]>"
    assert made.places == {("50", "image"): "files[0]"}
    with pytest.raises(InvalidSpec):
        planned(graph, files={"photo.png": "photo.png"})


def test_what_another_config_map_holds_is_not_repeated() -> None:
    told = " ".join(faults(json.dumps({"password": "hunter2", "user": {"name": "hunter2"}, "list": ["hunter2"]})))
    assert "node password is a JSON value of type str" in told
    assert "hunter2" not in told
    assert "hunter2" not in " ".join(faults("password=hunter2"))
