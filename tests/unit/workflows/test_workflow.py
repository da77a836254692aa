"""What a sound workflow becomes: parsed, bound, resolved, and the same for each attempt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kinora.recipes.resolve import seed_of
from kinora.workflows.parse import GraphError, parse
from kinora.workflows.resolved import ResolvedWorkflow, pinned
from kinora.workflows.workflow import class_names, filled, text_hash
from unit.workflows.made import MODEL, UID, faults, node, planned, sound


def claim(path: str) -> dict[str, Any]:
    return {"claim": {"name": "media", "path": path}}


# --- reading ----------------------------------------------------------------------------------------------------------


def test_what_editors_and_clients_put_around_a_graph_is_dropped() -> None:
    graph = sound()
    graph["15"]["_meta"] = {"title": "Prompt"}
    graph["15"]["is_changed"] = ["x"]
    graph["50"] = node("LoadImage", image="a.png", upload="image")
    body = {"prompt": graph, "client_id": "me", "extra_data": {"extra_pnginfo": {"workflow": {"nodes": [1]}}}}
    for text in (json.dumps(body), json.dumps({**graph, "extra_pnginfo": {"workflow": {}}})):
        found = parse(text)
        assert set(found) == set(graph)
        assert all(set(one) == {"class_type", "inputs"} for one in found.values())
        assert found["50"]["inputs"] == {"image": "a.png"}


def test_numbers_stay_what_they_are() -> None:
    found = parse(json.dumps(sound(n24={"seed": 2**64 - 1, "cfg": 3.25, "steps": 20.0})))
    assert found["24"]["inputs"]["seed"] == 2**64 - 1
    assert found["24"]["inputs"]["cfg"] == 3.25
    assert type(found["24"]["inputs"]["steps"]) is int  # the editor writes 20.0 for 20


def test_a_node_named_prompt_is_a_node() -> None:
    graph = sound()
    graph["prompt"] = graph.pop("15")
    graph["17"]["inputs"]["positive"] = ["prompt", 0]
    assert "prompt" in parse(json.dumps(graph))


def test_every_fault_of_the_shape_is_told() -> None:
    with pytest.raises(GraphError) as error:
        parse('{"1": 5, "2": {"class_type": 3}, "3": {"class_type": "A", "inputs": {"a": null, "b": {}}}}')
    assert len(error.value.faults) == 4


def test_class_names_of_anything() -> None:
    assert class_names(json.dumps(sound())) >= {"KSampler", "WanVaceToVideo"}
    assert class_names("no graph") == frozenset()


# --- binding ----------------------------------------------------------------------------------------------------------

ALL = {
    "prompt": "15.text", "negativePrompt": "16.text", "width": "17.width", "height": "17.height", "frames": "17.length",
    "fps": "32.frame_rate", "steps": "24.steps", "guidance": "24.cfg", "seed": "24.seed", "denoise": "24.denoise",
    "controlStrength": "17.strength",
}  # fmt: skip


def test_every_value_lands_where_it_is_bound() -> None:
    parameters = {"width": 480, "height": 320, "frames": 33, "fps": 24, "steps": 9, "guidance": 5.5, "seed": 2**53 - 1}
    parameters |= {"denoise": 0.75, "controlStrength": 1.5}
    made = planned(sound(), bindings=ALL, prompt="雪中的狐狸", negativePrompt="", parameters=parameters)
    inputs = {name: made.graph[target.split(".")[0]]["inputs"][target.split(".")[1]] for name, target in ALL.items()}
    assert inputs == {"prompt": "雪中的狐狸", "negativePrompt": "", **parameters}
    assert made.resolved.seed == 2**53 - 1
    assert (made.resolved.width, made.resolved.height, made.resolved.frames, made.resolved.steps) == (480, 320, 33, 9)


def test_what_the_job_does_not_give_stays_as_the_graph_has_it() -> None:
    made = planned(sound(), bindings=ALL)
    own = sound()
    own["24"]["inputs"]["seed"] = seed_of(UID)  # a missing seed is the job's, the same for each attempt
    own["32"]["inputs"]["filename_prefix"] = "job/job-32"
    assert made.graph == own
    assert made.resolved.seed == seed_of(UID)


def test_a_graph_without_bindings_keeps_its_own_seed() -> None:
    made = planned(sound())
    assert made.graph["24"]["inputs"]["seed"] == 7
    assert "seed" not in made.resolved.to_status()


def test_a_duration_is_frames() -> None:
    made = planned(sound(), bindings={"frames": "17.length"}, parameters={"durationSeconds": 2, "fps": 16})
    assert made.graph["17"]["inputs"]["length"] == 33


def test_one_value_for_several_places() -> None:
    graph = sound()
    graph["50"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    made = planned(graph, bindings={"width": "17.width, 50.width"}, parameters={"width": 640})
    assert [made.graph[name]["inputs"]["width"] for name in ("17", "50")] == [640, 640]


@pytest.mark.parametrize(
    ("bindings", "more", "words"),
    [
        ({"prompt": "99.text"}, {}, 'spec.workflow.bindings.prompt is "99.text"; allowed: node.input, with a node of'),
        ({"prompt": "15.txt"}, {}, "allowed: an input of CLIPTextEncode: clip, text"),
        ({"prompt": "24.seed"}, {"prompt": "x"}, "of type INT; allowed: an input that takes a text"),
        ({"seed": "15.text"}, {}, "of type STRING; allowed: an input that takes a number"),
        ({"prompt": "24.sampler_name"}, {"prompt": "x"}, "of type COMBO; allowed: an input that takes a text"),
        ({"prompt": "32.filename_prefix"}, {"prompt": "x"}, "an input that takes a text"),
        (
            {"prompt": "17.positive"},
            {"prompt": "x"},
            "allowed: an input that holds a value (it is linked: bind an input",
        ),
        ({"prompt": "50.image"}, {"prompt": "../../etc/passwd"}, "of type COMBO; allowed: an input that takes a text"),
        ({"image": "15.text"}, {"inputs": {"image": claim("a.png")}}, "allowed: an input that takes an image"),
        ({"video": "50.image"}, {"inputs": {"video": claim("a.mp4")}}, "LoadImage reads an image"),
        ({"image": "11.unet_name"}, {"inputs": {"image": claim("a.png")}}, "an input that takes an image"),
        (
            {"prompt": "15.text", "negativePrompt": "15.text"},
            {"prompt": "a", "negativePrompt": "b"},
            "no other binding",
        ),
        ({}, {"prompt": "x"}, 'spec.prompt is "x"; allowed: unset, or spec.workflow.bindings.prompt: node.input'),
        ({}, {"parameters": {"seed": 5}}, "spec.parameters.seed is 5; allowed: unset, or spec.workflow.bindings.seed"),
        ({}, {"parameters": {"durationSeconds": 2}}, "spec.parameters.durationSeconds is 33"),
        ({}, {"inputs": {"image": claim("a.png")}}, "spec.inputs.image is"),
        ({"frames": "17.length"}, {"parameters": {"frames": 85}}, "node 17 (WanVaceToVideo) length is 85"),
        ({"steps": "24.steps"}, {"parameters": {"steps": 150}}, "node 24 (KSampler) steps is 150"),
        (
            {},
            {"parameters": {"control": "Depth"}},
            "spec.parameters.control is set; allowed: unset: a workflow says it",
        ),
        ({}, {"parameters": {"expand": {"top": 2}}}, "spec.parameters.expand is set"),
        ({}, {"output": {"width": 640, "watermark": True, "audio": "Source"}}, "spec.output.watermark is true"),
        ({}, {"output": {"keyPrefix": "../x"}}, "spec.output.keyPrefix is ../x"),
        (
            {"mask": "50.image"},
            {"inputs": {"mask": {"source": claim("a.png"), "frame": 2}}},
            "spec.inputs.mask is with",
        ),
    ],
)
def test_a_binding_that_cannot_be(bindings: dict[str, str], more: dict[str, Any], words: str) -> None:
    graph = sound()
    graph["50"] = node("LoadImage", image="a.png")
    files = {} if "inputs" in more and bindings.get("image", bindings.get("mask")) == "50.image" else {"a.png": "a.png"}
    told = faults(graph, bindings=bindings, files=files, **more)
    assert any(words in one for one in told), told


def test_files_and_inputs_are_named_by_what_is_staged() -> None:
    graph = sound(n17={"reference_image": ["50", 0]})
    graph["50"] = node("LoadImage", image="pasted/圖 (1).png")
    graph["51"] = node("LoadImage", image="x.png")
    made = planned(
        graph, files={"pasted/圖 (1).png": "a.png"}, bindings={"image": "51.image"}, inputs={"image": claim("b.png")}
    )
    assert made.resolved.inputs == ("image", "files[0]")
    shown = filled(made, {"image": "image.png", "files[0]": "files-0.png"}, "steam")
    assert (shown["50"]["inputs"]["image"], shown["51"]["inputs"]["image"]) == ("files-0.png", "image.png")
    assert shown["32"]["inputs"]["filename_prefix"] == "steam/steam-32"


def test_a_declared_file_that_no_node_reads_is_a_mistake() -> None:
    [told] = faults(sound(), files={"a.png": "a.png"})
    assert told == 'spec.workflow.files[0].name is "a.png"; allowed: a name that a node of the graph reads'


def test_a_prompt_may_be_the_name_of_a_file() -> None:
    graph = sound(n15={"text": "a.png"})
    graph["50"] = node("LoadImage", image="a.png")
    made = planned(graph, files={"a.png": "b.png"})
    assert made.graph["15"]["inputs"]["text"] == "a.png"


# --- what is decided --------------------------------------------------------------------------------------------------


def test_resolved_tells_the_load_and_pins_text_and_graph() -> None:
    text = json.dumps(sound())
    made = planned(text).resolved
    assert (made.model, made.nodes, made.outputs) == (MODEL, 10, ("32",))
    assert (made.width, made.height, made.frames, made.steps, made.tokens) == (832, 480, 81, 20, 21 * 30 * 52)
    assert made.workflow_sha256 == text_hash(text)
    assert made == planned(text).resolved
    spaced = planned(json.dumps(sound(), indent=1)).resolved
    assert spaced.graph_hash == made.graph_hash
    assert spaced.workflow_sha256 != made.workflow_sha256
    assert planned(sound(n24={"seed": 8})).resolved.graph_hash != made.graph_hash


def test_resolved_goes_through_a_status_and_back() -> None:
    made = planned(sound(), bindings=ALL).resolved
    status = json.loads(json.dumps(made.to_status()))
    assert ResolvedWorkflow.from_status(status) == made
    assert pinned({"resolved": status}) == made.workflow_sha256
    assert ResolvedWorkflow.from_status({**status, "tokens": "many"}) is None
    assert ResolvedWorkflow.from_status({"model": "x"}) is None
    assert pinned({}) is None
    assert pinned({"resolved": {"workflowSha256": 5}}) is None


def test_two_stages_count_their_steps_together() -> None:
    graph = sound()
    graph["25"] = json.loads(json.dumps(graph["24"]))
    graph["25"]["inputs"]["latent_image"] = ["24", 0]
    graph["30"]["inputs"]["samples"] = ["25", 0]
    assert planned(graph).resolved.steps == 40
