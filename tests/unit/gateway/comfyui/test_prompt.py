"""POST /prompt: what becomes a job, and what is refused before anything is made, in ComfyUI's words."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.api.findings import findings
from kinora.api.videojob import VideoJobSpec
from kinora.gateway.comfyui.errors import PromptRefused
from kinora.gateway.comfyui.judge import MAX_INLINE, judge
from kinora.gateway.comfyui.request import File, asked
from unit.gateway.comfyui.made import CLIENT, I2V, ID, OWNER, admitted, body, server, servers, submitted
from unit.workflows.made import node, sound
from unit.workflows.test_hostile import CASES

Graph = dict[str, Any]


def refused(graph: Any, *objects: Any, **more: Any) -> dict[str, Any]:
    with pytest.raises(PromptRefused) as caught:
        submitted(graph, *objects, **more)
    found = caught.value.body
    assert list(found) == ["error", "node_errors"]
    assert list(found["error"]) == ["type", "message", "details", "extra_info"]
    json.dumps(found)
    return found


def graph_of(made: Any) -> Graph:
    found: Graph = json.loads(made.spec["workflow"]["inline"])
    return found


# --- what becomes of it -----------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_job_on_the_server_whose_weights_it_names() -> None:
    graph = sound()
    made, number = submitted(graph, client_id=CLIENT, prompt_id=ID, now=1234)
    assert made.spec["modelServerName"] == "vace"
    assert graph_of(made) == graph
    assert (made.dialect, made.id, number) == ("comfyui", ID, 1234)
    assert made.note == {"number": 1234, "client": CLIENT}
    assert not findings(VideoJobSpec, made.spec, "spec")


def test_values_are_converted_as_comfyui_does() -> None:
    made, _ = submitted(sound(n24={"steps": "20", "cfg": 4}, n17={"width": 832.0}))
    assert graph_of(made)["24"]["inputs"]["steps"] == 20
    assert '"cfg":4.0' in made.spec["workflow"]["inline"]
    assert graph_of(made)["17"]["inputs"]["width"] == 832


def test_a_seed_of_64_bits_stays_what_it_is() -> None:
    made, _ = submitted(sound(n24={"seed": 2**64 - 1}))
    assert graph_of(made)["24"]["inputs"]["seed"] == 2**64 - 1


def test_what_no_output_needs_and_no_class_takes_is_left_out() -> None:
    graph = sound(n24={"control_after_generate": "randomize"})
    graph["90"] = node("KSampler", steps="none at all")
    graph["32"]["_meta"] = {"title": "Save"}
    made, _ = submitted(graph)
    assert "90" not in graph_of(made)
    assert "control_after_generate" not in graph_of(made)["24"]["inputs"]
    assert graph_of(made)["32"]["_meta"] == {"title": "Save"}


def test_one_good_output_runs_without_the_bad_one() -> None:
    graph = sound()
    graph["40"] = node("SaveVideo", video=["41", 0], filename_prefix="x", format="mp4", codec="magic")
    graph["41"] = node("CreateVideo", images=["31", 0], fps=16)
    judged = judge(asked(body(graph)).graph, servers(), ())
    assert judged.outputs == ("32",)
    assert set(graph) - set(judged.graph) == {"40", "41"}
    assert judged.node_errors["40"]["errors"][0]["type"] == "value_not_in_list"
    assert judged.node_errors["40"]["dependent_outputs"] == ["40"]


@pytest.mark.parametrize(
    ("asked_for", "number"),
    [({}, 1000), ({"front": True}, -1000), ({"front": False}, 1000), ({"number": 7}, 7), ({"number": "2.5"}, 2.5)],
)
def test_numbers(asked_for: dict[str, Any], number: float) -> None:
    made, found = submitted(sound(), now=1000, **asked_for)
    assert found == number == made.note["number"]
    assert made.order == (number if asked_for not in ({}, {"front": False}) else None)


def test_without_a_client_id() -> None:
    assert "client" not in submitted(sound())[0].note


# --- which server -----------------------------------------------------------------------------------------------------


def test_of_several_servers_the_ready_one_with_less_work_is_chosen() -> None:
    idle, busy = server("a"), server("b", readyReplicas=1, backlogSeconds=900)
    quick = server("c", readyReplicas=2, backlogSeconds=30)
    assert submitted(sound(), idle, busy, quick)[0].spec["modelServerName"] == "c"
    assert submitted(sound(), idle, busy)[0].spec["modelServerName"] == "b"
    assert submitted(sound(), server("other", I2V, readyReplicas=1), idle)[0].spec["modelServerName"] == "a"


def test_weights_that_no_server_has_are_told_with_those_that_there_are() -> None:
    found = refused(sound(n11={"unet_name": "sdxl.safetensors"}), server(), server("i2v", I2V))
    [error] = found["node_errors"]["11"]["errors"]
    assert error["type"] == "value_not_in_list"
    assert error["details"] == (
        "unet_name: 'sdxl.safetensors' not in "
        "['Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors', 'wan21_vace_1_3_b.safetensors']"
    )
    assert found["node_errors"]["11"]["dependent_outputs"] == ["32"]


def test_weights_of_two_servers_in_one_graph_are_told_with_those_of_the_one_that_fits_best() -> None:
    found = refused(sound(n14={"vae_name": "wan2.1/Wan2_1_VAE_bf16.safetensors"}), server(), server("i2v", I2V))
    [error] = found["node_errors"]["14"]["errors"]
    assert error["details"].endswith("not in ['wan21_vace_vae.safetensors']")


def test_where_nothing_renders() -> None:
    assert refused(sound(), server(model="no-such-model"))["error"]["type"] == "no_model_server"


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_type", "told"),
    [
        ("NoSuchNode", "Node ID '#9'"),
        ("ColorMatch2", "Node ID '#9'"),
        ("VHS_LoadVideoPath", "can be allowed nowhere"),
        ("LoadImageFromUrl", "can be allowed nowhere"),
        ("RebatchImages", "spec.allowedNodeClasses"),
    ],
)
def test_classes_that_are_not_allowed(class_type: str, told: str) -> None:
    found = refused({**sound(), "9": node(class_type)})
    assert found["error"]["type"] == "invalid_prompt"
    assert found["error"]["message"] == f"Cannot execute because node {class_type} does not exist."
    assert told in found["error"]["details"]


def test_a_class_that_an_administrator_allowed_and_no_contract_describes() -> None:
    graph = sound()
    graph["50"] = node("MyUpscaler", images=["31", 0], factor=2)
    graph["32"]["inputs"]["images"] = ["50", 0]
    made, _ = submitted(graph, server(), server("more", classes=["MyUpscaler"]))
    assert made.spec["modelServerName"] == "more"
    assert graph_of(made)["50"] == graph["50"]
    assert refused(graph, server())["error"]["type"] == "invalid_prompt"


# --- files ------------------------------------------------------------------------------------------------------------

PHOTO = File({"upload": "0123456789/aa"}, "a" * 64)


def with_photo(name: str) -> Graph:
    graph = sound(n17={"reference_image": ["50", 0]})
    graph["50"] = node("LoadImage", image=name, upload="image")
    return graph


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("photo.png", "photo.png"),
        ("photo.png [input]", "photo.png [input]"),
        ("some/where/照片 (1).png", "some/where/照片 (1).png"),
        ("./some//photo.png", "some/photo.png"),
        (f"clip_{ID}_00001.mp4 [output]", f"clip_{ID}_00001.mp4 [output]"),
    ],
)
def test_a_file_is_pinned_and_the_graph_can_be_sent_again(name: str, spelt: str) -> None:
    made, _ = submitted(with_photo(name), files={name: PHOTO})
    assert made.spec["workflow"]["files"] == [{"name": spelt, "source": PHOTO.source, "sha256": PHOTO.sha256}]
    assert graph_of(made)["50"]["inputs"] == {"image": spelt, "upload": "image"}
    again, _ = submitted(graph_of(made), files={spelt: PHOTO})
    assert again.spec == made.spec


def test_one_file_under_two_spellings_is_one_file() -> None:
    graph = with_photo("a/photo.png")
    graph["51"] = node("LoadImage", image="a//photo.png")
    graph["52"] = node("PreviewImage", images=["51", 0])
    made, _ = submitted(graph, files={"a/photo.png": PHOTO, "a//photo.png": PHOTO})
    assert [file["name"] for file in made.spec["workflow"]["files"]] == ["a/photo.png"]


def test_a_file_that_nobody_uploaded() -> None:
    [error] = refused(with_photo("photo.png"))["node_errors"]["50"]["errors"]
    assert (error["type"], error["details"]) == (
        "custom_validation_failed", "image - Invalid image file: photo.png",
    )  # fmt: skip


def test_more_files_than_a_job_may_have() -> None:
    graph = sound()
    for index in range(17):
        graph[f"a{index}"] = node("LoadImage", image=f"{index}.png")
        graph[f"b{index}"] = node("PreviewImage", images=[f"a{index}", 0])
    found = refused(graph, files={f"{index}.png": PHOTO for index in range(17)})
    assert found["error"]["type"] == "too_many_files"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"{}", "no_prompt"),
        (b'{"prompt": {}}', "prompt_no_outputs"),
        (b'{"prompt": null}', "invalid_prompt"),
        (body(sound(), prompt_id="1"), "invalid_prompt_id"),
        (body(sound(), prompt_id=ID.upper()), "invalid_prompt_id"),
        (body(sound(), prompt_id=5), "invalid_prompt_id"),
        (body(sound(), client_id="x" * 200), "invalid_client_id"),
        (body(sound(), client_id="a\nb"), "invalid_client_id"),
        (body(sound(), number="first"), "invalid_number"),
        (body(sound(), number=float("nan")), "invalid_number"),
    ],
)
def test_bodies_that_are_no_prompt(raw: bytes, kind: str) -> None:
    with pytest.raises(PromptRefused) as caught:
        asked(raw)
    assert caught.value.body["error"]["type"] == kind


@pytest.mark.parametrize(("graph", "told"), CASES.values(), ids=CASES)
def test_a_hostile_graph_becomes_no_job_or_loses_what_was_hostile(graph: Any, told: str) -> None:
    prompt = graph if isinstance(graph, str) else json.dumps(graph)
    answer = answered(b'{"prompt": ' + prompt.encode("utf-8", "surrogatepass") + b"}")
    assert sound_answer(answer), answer


def answered(raw: bytes) -> dict[str, Any]:
    """The body of a refusal, or the spec of the job, which was held to Kinora's own rules."""
    try:
        return dict(admitted(asked(raw))[0].spec)
    except PromptRefused as error:
        return error.body


def sound_answer(answer: dict[str, Any]) -> bool:
    if "workflow" in answer:
        return not findings(VideoJobSpec, answer, "spec")
    return bool(answer["error"]["type"]) and json.dumps(answer).isprintable()


def test_kinoras_own_limits_are_told_by_node_and_input() -> None:
    found = refused(sound(n17={"length": 80}, n24={"steps": 9999}))
    assert found["error"]["type"] == "prompt_outputs_failed_validation"
    assert set(found["node_errors"]) == {"17", "24"}
    [error] = found["node_errors"]["17"]["errors"]
    assert error["type"] == "custom_validation_failed"
    assert error["extra_info"] == {"input_name": "length"}
    assert error["details"].startswith("length is 80; allowed: 4n+1")
    assert found["node_errors"]["17"]["dependent_outputs"] == ["32"]


def test_a_graph_that_saves_nothing() -> None:
    found = refused(sound(n32={"save_output": False}))
    assert found["error"]["type"] == "prompt_no_outputs"
    assert "save_output" in found["error"]["details"]


def long(text: str, count: int) -> Graph:
    """A graph with so many texts of their own, each of which an output needs."""
    graph = sound()
    for index in range(count):
        graph[f"t{index}"] = node("CLIPTextEncode", text=f"{index} {text}", clip=["13", 0])
        graph[f"s{index}"] = {**sound()["24"], "inputs": {**sound()["24"]["inputs"], "negative": [f"t{index}", 0]}}
        graph[f"v{index}"] = node("VAEDecode", samples=[f"s{index}", 0], vae=["14", 0])
        graph[f"o{index}"] = node("PreviewImage", images=[f"v{index}", 0])
    return graph


def test_a_graph_that_is_too_long_for_the_job_lies_in_the_store_by_its_hash() -> None:
    graph = sound()
    for index in range(8):
        graph[f"t{index}"] = node("CLIPTextEncode", text="x" * 10_000, clip=["13", 0])
    graph["24"]["inputs"]["negative"] = ["t0", 0]
    made, _ = submitted(graph)  # seven of them are needed by nothing
    assert len(made.spec["workflow"]["inline"]) < MAX_INLINE
    assert (made.graph, made.store) == (None, None)
    made, _ = submitted(long("x" * 19_000, 4))
    assert made.graph is not None
    sha256 = hashlib.sha256(made.graph.encode()).hexdigest()
    assert made.spec["workflow"] == {"upload": {"key": f"{OWNER}/{sha256}", "sha256": sha256}}
    assert json.loads(made.graph)["t3"]["inputs"]["text"] == "3 " + "x" * 19_000


def test_titles_are_left_out_of_a_long_graph_and_what_is_over_1_mib_is_refused() -> None:
    graph = long("x" * 15_000, 4)
    for one in graph.values():
        one["_meta"] = {"title": "a" * 1000}
    made, _ = submitted(graph)
    assert "_meta" not in made.spec["workflow"]["inline"]
    error = refused(long("\u6f22" * 19_000, 19))["error"]  # three bytes each in UTF-8
    assert error["type"] == "prompt_too_large"
    assert "allowed: 1048576" in error["details"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@given(
    changes=st.dictionaries(
        st.sampled_from(["11", "17", "24", "31", "32"]),
        st.dictionaries(
            st.sampled_from(["images", "samples", "width", "seed", "unet_name", "format", "x", "filename_prefix"]),
            JSON | st.sampled_from([["17", 0], ["99", 0], ["24", 7], "photo.png", "../x", 2**70, -1, "nan"]),
            max_size=3,
        ),
        max_size=3,
    ),
    whole=st.none() | JSON,
)
@settings(max_examples=150, deadline=None)
def test_any_prompt_is_a_valid_job_or_a_refusal(changes: dict[str, Any], whole: Any) -> None:
    graph = sound(**{f"n{key}": value for key, value in changes.items()}) if whole is None else whole
    assert sound_answer(answered(body(graph)))
