"""ComfyUI's validation of graphs: what is accepted, and the exact bodies of what is refused."""

from typing import Any

import pytest

from contract import graphs
from kinora.engine.contract import check_graph, validate

FILES = {
    "diffusion_models": ["wan21_vace_1_3_b.safetensors"],
    "text_encoders": ["umt5_xxl_fp8_e4m3fn.safetensors"],
    "vae": ["wan21_vace_vae.safetensors"],
    "input": ["a.png", "job/b.mp4"],
}


def _with(node_id: str, **inputs: Any) -> graphs.Graph:
    graph = graphs.vace()
    graph[node_id]["inputs"].update(inputs)
    return graph


def _only_error(graph: graphs.Graph) -> tuple[str, dict[str, Any]]:
    refusal = check_graph(graph, FILES)
    assert refusal is not None
    assert refusal.error["type"] == "prompt_outputs_failed_validation"
    [(node_id, entry)] = refusal.node_errors.items()
    assert entry["dependent_outputs"] == ["32"]
    [error] = entry["errors"]
    assert refusal.error["details"] in ("", f"{error['message']}: {error['details']}")
    return node_id, error


def test_a_good_graph_is_accepted_and_its_values_are_converted() -> None:
    graph = _with("32", frame_rate=16)
    found = validate(graph, FILES)
    assert (found.refusal, found.outputs, found.node_errors) == (None, ["32"], {})
    assert repr(found.graph["32"]["inputs"]["frame_rate"]) == "16.0"
    assert repr(graph["32"]["inputs"]["frame_rate"]) == "16"


def test_steps_of_the_user_interface_are_not_checked() -> None:
    assert check_graph(_with("17", width=72, length=80), FILES) is None


@pytest.mark.parametrize(
    ("node_id", "inputs", "kind", "message", "details"),
    [
        ("17", {"width": 8}, "value_smaller_than_min", "Value 8 smaller than min of 16", "width"),
        ("24", {"steps": 20_000}, "value_bigger_than_max", "Value 20000 bigger than max of 10000", "steps"),
        ("24", {"denoise": 1.5}, "value_bigger_than_max", "Value 1.5 bigger than max of 1.0", "denoise"),
        ("24", {"scheduler": "x"}, "value_not_in_list", "Value not in list", "scheduler: 'x' not in ['simple', "),
        ("24", {"sampler_name": "x"}, "value_not_in_list", "Value not in list", "not in (list of length 42)"),
        ("14", {"vae_name": "x"}, "value_not_in_list", "Value not in list", "'x' not in ['wan21_vace_vae."),
        ("24", {"seed": "one"}, "invalid_input_type", "Failed to convert an input value to a INT value", "seed, one, "),
        ("31", {"vae": ["13", 0]}, "return_type_mismatch", "Return type mismatch between linked nodes",
         "vae, received_type(CLIP) mismatch input_type(VAE)"),
        ("31", {"vae": ["13"]}, "bad_linked_input",
         "Bad linked input, must be a length-2 list of [node_id, slot_index]", "vae"),
        ("31", {"vae": ["99", 0]}, "exception_during_inner_validation", "Exception when validating inner node", "'99'"),
        ("31", {"vae": ["13", 5]}, "exception_during_inner_validation", "Exception when validating inner node",
         "tuple index out of range"),
    ],
)  # fmt: skip
def test_refusals(node_id: str, inputs: dict[str, Any], kind: str, message: str, details: str) -> None:
    found, error = _only_error(_with(node_id, **inputs))
    assert (found, error["type"], error["message"]) == (node_id, kind, message)
    assert details in error["details"]
    assert error["extra_info"].get("received_value", inputs) in (inputs, *inputs.values())


def test_a_missing_upload_is_refused_in_the_words_of_its_loader() -> None:
    graph = graphs.vace(reference_image=["41", 0]) | {"41": graphs.node("LoadImage", image="c.png")}
    node_id, error = _only_error(graph)
    assert (node_id, error["type"]) == ("41", "custom_validation_failed")
    assert error["details"] == "image - Invalid image file: c.png"
    graph["41"]["inputs"]["image"] = "a.png"
    assert check_graph(graph, FILES) is None


def test_a_folder_that_is_not_given_is_not_checked() -> None:
    assert check_graph(_with("14", vae_name="x"), {}) is None


def test_one_valid_output_runs_and_the_other_is_reported() -> None:
    graph = graphs.vace() | {"40": graphs.node("PreviewImage"), "41": graphs.node("PreviewImage", images=["31", 0])}
    found = validate(graph, FILES)
    assert found.refusal is None
    assert found.outputs == ["32", "41"]
    assert found.node_errors["40"]["errors"][0]["type"] == "required_input_missing"


def test_an_error_upstream_is_told_once_with_all_outputs_that_need_it() -> None:
    graph = _with("24", steps=0) | {"41": graphs.node("PreviewImage", images=["31", 0])}
    refusal = check_graph(graph, FILES)
    assert refusal is not None
    assert {key: entry["dependent_outputs"] for key, entry in refusal.node_errors.items()} == {"24": ["32", "41"]}


def test_a_cycle_is_refused() -> None:
    graph = _with("27", model=["27", 0])
    refusal = check_graph(graph, FILES)
    assert refusal is not None
    assert refusal.node_errors["27"]["errors"][0]["type"] == "dependency_cycle"


def test_graphs_without_class_or_output() -> None:
    refusal = check_graph({"1": {"inputs": {}}}, FILES)
    assert refusal is not None
    assert refusal.body() == {
        "error": {
            "type": "invalid_prompt",
            "message": "Cannot execute because a node is missing the class_type property.",
            "details": "Node ID '#1'",
            "extra_info": {},
        },
        "node_errors": {},
    }
    empty = check_graph({}, FILES)
    assert empty is not None
    assert empty.error["type"] == "prompt_no_outputs"
