"""WaveSpeed's dialect: its document's request, every parameter, what combinations mean, and the answers' fields."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.api import reasons
from kinora.catalogue.load import load_catalogue
from kinora.gateway.errors import InvalidInput, Limited, NotFound, Unavailable
from kinora.gateway.jobs import State
from kinora.gateway.mapping import Draft, parse
from kinora.gateway.wavespeed.answer import inference_milliseconds, prediction, timed_out
from kinora.gateway.wavespeed.errors import fault
from kinora.gateway.wavespeed.request import LOCAL, Prediction, draft

from .hosted import ID, artifact, document, job, printed_bodies, validated

LORA = "lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16.safetensors"
LINK = "https://media.example.com/a.png"
URL = f"https://gateway.example.com/api/v3/predictions/{ID}/result"


def made(**given: Any) -> Draft:
    return draft(parse(Prediction, {"prompt": "a fox runs", **given}), LOCAL, entry=load_catalogue().get(LOCAL))


def refused(**given: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        made(**given)
    return caught.value


# --- the document -----------------------------------------------------------------------------------------------------


def test_the_printed_call_lacks_its_required_prompt_which_is_said() -> None:
    (body,) = printed_bodies("003")
    with pytest.raises(InvalidInput, match=r"^prompt is not set; allowed: text of 1 to 5000 characters$"):
        draft(parse(Prediction, body), LOCAL)


def test_the_printed_call_with_a_prompt_is_text_to_video_and_says_so() -> None:
    (body,) = printed_bodies("003")
    found = made(**body)
    assert found.spec["task"] == "TextToVideo"
    assert found.notes == ("task depth has no video to work on: rendered as text-to-video",)
    resolved = validated(found.spec)
    assert (resolved.width, resolved.height, resolved.frames, resolved.steps) == (832, 480, 81, 30)
    assert (resolved.guidance, resolved.shift) == (5, 16)


def test_every_parameter_has_the_documents_default_and_range() -> None:
    section = document("003").split("#### Request Parameters")[1].split("#### Response Parameters")[0]
    cells = [cell.replace("\\", "") for cell in re.split(r"\n\n", section)]
    properties = Prediction.model_json_schema()["properties"]
    names = [cell for cell in cells if cell in properties]
    assert names == [name for name in properties if name not in ("loras", "enable_sync_mode")]
    for name in names:
        row = cells[cells.index(name) + 1 :][:4]  # type, required, default, range
        schema = properties[name]
        spoken = f"{schema.get('minimum', '')} ~ {schema.get('maximum', '')}"
        if " ~ " in row[3]:
            assert [float(part) for part in row[3].split(" ~ ")] == [float(part) for part in spoken.split(" ~ ")], name
            assert float(row[2]) == schema["default"], name
        elif ", " in row[3]:
            assert row[3].split(", ") == schema["enum"], name
            assert row[2] == schema["default"], name


def test_every_documented_field_of_the_answer_is_there() -> None:
    section = document("003").split("#### Response Parameters")[1].split("#### Result Request")[0]
    names = [name.replace("\\", "") for name in re.findall(r"^(data\.[\w.\\]+)$", section, re.M)]
    assert len(names) == 11
    answer = prediction(job(State.SUCCEEDED), url=URL, links=[LINK]).model_dump()
    for name in names:
        value: Any = {"data": answer}
        for step in name.split("."):
            value = value[step]


# --- what a request comes to ------------------------------------------------------------------------------------------


def test_a_seed_of_minus_one_is_left_to_the_job_and_a_flow_shift_of_zero_is_rendered_as_one() -> None:
    assert "seed" not in made().spec["parameters"]
    assert made(seed=0).spec["parameters"]["seed"] == 0
    resolved = validated(made(flow_shift=0).spec)
    assert resolved.shift == 1
    assert resolved.notes == ("shift 0 is rendered as 1",)


@pytest.mark.parametrize(
    ("task", "control"), [("depth", "Depth"), ("pose", "Pose"), ("face", "PoseFace"), ("none", "None")]
)
def test_a_video_is_controlled_by_what_the_task_takes_from_it(task: str, control: str) -> None:
    spec = made(video=LINK, task=task, context_scale=0.5, images=[LINK]).spec
    assert (spec["task"], spec["parameters"]["control"], spec["parameters"]["controlStrength"]) == (
        "VideoToVideo",
        control,
        0.5,
    )
    assert [one["source"] for one in spec["inputs"]["references"]] == [{"url": LINK}]
    validated(spec)


def test_a_video_alone_is_steered_by_its_depth_the_documents_default() -> None:
    assert made(video=LINK).spec["parameters"]["control"] == "Depth"


@pytest.mark.parametrize("mask", ["mask_image", "mask_video"])
@pytest.mark.parametrize("task", [{}, {"task": "inpainting"}, {"task": "none"}])
def test_a_video_with_a_mask_is_inpainted(mask: str, task: dict[str, str]) -> None:
    spec = made(video=LINK, **{mask: LINK}, **task).spec
    assert (spec["task"], spec["inputs"]["mask"]) == ("Inpaint", {"source": {"url": LINK}, "mode": "Fixed"})
    validated(spec)


@pytest.mark.parametrize(
    ("given", "task", "inputs"),
    [
        ({}, "TextToVideo", set()),
        ({"images": [LINK] * 5}, "ReferenceToVideo", {"references"}),
        ({"first_image": LINK}, "ImageToVideo", {"image"}),
        ({"last_image": LINK}, "Extend", {"lastFrame"}),
        ({"first_image": LINK, "last_image": LINK}, "FirstLastFrame", {"firstFrame", "lastFrame"}),
        ({"first_image": LINK, "images": [LINK]}, "ImageToVideo", {"image", "references"}),
        ({"video": "", "images": [""], "first_image": ""}, "TextToVideo", set()),
    ],
)
def test_without_a_video_the_pictures_say_what_is_made(given: dict[str, Any], task: str, inputs: set[str]) -> None:
    spec = made(**given).spec
    assert (spec["task"], set(spec.get("inputs", {}))) == (task, inputs)
    validated(spec)


def test_a_control_task_without_a_video_says_what_is_made_instead() -> None:
    assert made(task="pose", images=[LINK]).notes == (
        "task pose has no video to work on: rendered as reference-to-video",
    )
    assert made(task="none").notes == ()


def test_a_context_scale_without_anything_to_scale_says_so() -> None:
    assert made(context_scale=0.3).notes == (
        "context_scale has nothing to scale in a text-to-video prediction and was ignored",
    )
    assert "controlStrength" not in made(context_scale=0.3).spec["parameters"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"task": "inpainting"}, "video"),
        ({"task": "inpainting", "video": LINK}, "mask_image"),
        ({"mask_image": LINK}, "video"),
        ({"mask_image": LINK, "mask_video": LINK, "video": LINK}, "mask_image"),
        ({"mask_image": LINK, "video": LINK, "task": "depth"}, "task"),
        ({"first_image": LINK, "video": LINK}, "first_image"),
        ({"last_image": LINK, "video": LINK}, "last_image"),
        ({"images": [LINK] * 6}, "images"),
        ({"loras": [{"path": LINK, "scale": 1}]}, "loras[0].path"),
        ({"loras": [{"path": "my-style.safetensors"}]}, "loras[0].path"),
        ({"loras": [{"path": f"../{LORA}"}]}, "loras[0].path"),
        ({"loras": [{"path": LORA, "scale": 0.7}]}, "loras[0].scale"),
        ({"loras": [{"path": LORA, "scale": "1"}]}, "loras[0].scale"),
        ({"loras": [{"scale": 1}]}, "loras[0]"),
        ({"loras": [LORA]}, "loras[0]"),
        ({"loras": [{"path": LORA}] * 9}, "loras"),
        ({"prompt": "   "}, "prompt"),
        ({"duration": 4}, "duration"),
        ({"duration": 11}, "duration"),
        ({"duration": 5.5}, "duration"),
        ({"size": "832x480"}, "size"),
        ({"num_inference_steps": 41}, "num_inference_steps"),
        ({"guidance_scale": 20.5}, "guidance_scale"),
        ({"flow_shift": -1}, "flow_shift"),
        ({"context_scale": 2.1}, "context_scale"),
        ({"seed": 2147483648}, "seed"),
        ({"task": "canny"}, "task"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(given: dict[str, Any], field: str) -> None:
    found = refused(**given)
    assert found.field == field
    assert found.message.startswith(field)
    assert "; allowed: " in found.message


def test_a_key_that_the_model_has_not_is_ignored_and_told() -> None:
    assert made(enable_safety_checker=True).notes == (
        "enable_safety_checker is no parameter of this model and was ignored",
    )


def test_whom_to_tell_of_the_end_is_the_videojobs_webhook() -> None:
    spec = draft(parse(Prediction, {"prompt": "a"}), LOCAL, "https://receiver.example/hook").spec
    assert spec["webhook"] == {"url": "https://receiver.example/hook"}
    validated(spec)


def test_an_empty_list_of_loras_is_none() -> None:
    assert made(loras=[]).notes == ()


@pytest.mark.parametrize("path", [LORA, f"loras/{LORA}", LORA.removesuffix(".safetensors")])
def test_the_lora_of_a_preset_is_that_preset_and_what_the_preset_says_is_not_said_over(path: str) -> None:
    spec = made(loras=[{"path": path, "scale": 1}]).spec
    assert spec["parameters"] == {"durationSeconds": 5, "preset": "Fast"}
    told = made(loras=[{"path": path}], num_inference_steps=6, guidance_scale=1).spec["parameters"]
    assert (told["preset"], told["steps"], told["guidance"], "shift" in told) == ("Fast", 6, 1, False)
    validated(spec)


def test_a_lora_that_is_a_url_is_refused_without_repeating_it() -> None:
    found = refused(loras=[{"path": "https://x.example/a.safetensors?Signature=secret"}])
    assert found.message.startswith(f"loras[0].path is a URL; allowed: {LORA} (no LoRA is fetched")
    assert "secret" not in found.message


def test_of_two_experts_both_loras_are_needed() -> None:
    entry = load_catalogue().get("wan2.2-vace-fun-a14b")
    assert entry is not None
    names = [one.name for one in entry.preset_weights("Fast")]

    def asked(*paths: str) -> Draft:
        body = {"prompt": "a", "loras": [{"path": path} for path in paths]}
        return draft(parse(Prediction, body), entry.name if entry else "", entry=entry)

    assert asked(*names).spec["parameters"]["preset"] == "Fast"
    with pytest.raises(InvalidInput, match=r"allowed: all of one: wan2\.2"):
        asked(names[0])
    with pytest.raises(InvalidInput, match="allowed: none, the model has no LoRA"):
        draft(parse(Prediction, {"prompt": "a", "loras": [{"path": names[0]}]}), "own")


_links = st.sampled_from(["", LINK])
_valid = st.fixed_dictionaries(
    {"prompt": st.text(min_size=1, max_size=60).filter(str.strip)},
    optional={
        "negative_prompt": st.text(max_size=60),
        "images": st.lists(_links, max_size=5),
        "duration": st.integers(5, 10),
        "size": st.sampled_from(["832*480", "480*832", "1280*720", "720*1280"]),
        "num_inference_steps": st.integers(1, 40),
        "guidance_scale": st.floats(0, 20),
        "flow_shift": st.floats(0, 30),
        "context_scale": st.floats(0, 2),
        "seed": st.integers(-1, 2147483647),
    },
)
_combinations = st.sampled_from(
    [
        {},
        *({"task": task} for task in ("depth", "pose", "face", "none")),
        *({"video": LINK, "task": task} for task in ("depth", "pose", "face", "none")),
        *({"video": LINK, "task": "inpainting", mask: LINK} for mask in ("mask_image", "mask_video")),
        {"first_image": LINK},
        {"last_image": LINK},
        {"first_image": LINK, "last_image": LINK},
    ]
)


@settings(deadline=None)
@given(_valid, _combinations)
def test_every_valid_request_is_a_valid_videojob_from_which_it_can_be_read_back(
    given_: dict[str, Any], combination: dict[str, Any]
) -> None:
    asked = parse(Prediction, {**given_, **combination})
    spec = draft(asked, LOCAL).spec
    resolved = validated(spec)
    parameters, output, inputs = spec["parameters"], spec["output"], spec.get("inputs", {})
    assert spec["prompt"] == asked.prompt
    assert spec.get("negativePrompt") == asked.negative_prompt
    assert f"{output['width']}*{output['height']}" == asked.size == f"{resolved.output_width}*{resolved.output_height}"
    assert (parameters["durationSeconds"], parameters["steps"]) == (asked.duration, asked.num_inference_steps)
    assert resolved.frames == 16 * asked.duration + 1
    assert (parameters["guidance"], parameters["shift"]) == (asked.guidance_scale, asked.flow_shift)
    assert parameters.get("seed", -1) == asked.seed
    assert [one["source"]["url"] for one in inputs.get("references", [])] == [link for link in asked.images if link]
    if spec["task"] != "TextToVideo":
        assert parameters["controlStrength"] == asked.context_scale
    said = {"video": asked.video, "image": asked.first_image, "lastFrame": asked.last_image}
    for name, link in said.items():
        if name in inputs:
            assert inputs[name] == {"url": link}


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.QUEUED, "created"),
        (State.RUNNING, "processing"),
        (State.SUCCEEDED, "completed"),
        (State.FAILED, "failed"),
        (State.CANCELLED, "failed"),
    ],
)
def test_a_state_is_one_of_the_four_documented_words(state: State, status: str) -> None:
    answer = prediction(job(state), url=URL, links=[LINK])
    assert answer.status == status
    assert answer.urls.get == URL
    assert answer.created_at == "2026-11-21T12:30:15.123Z"
    assert answer.outputs == ([LINK] if status == "completed" else [])
    assert answer.has_nsfw_contents == ([False] if status == "completed" else [])
    assert bool(answer.error) is (status == "failed")


def test_a_finished_prediction_tells_how_long_it_was_rendered_in_milliseconds() -> None:
    done = job(State.SUCCEEDED, artifacts=(artifact(0), artifact(1)))
    answer = prediction(done, url=URL, links=[LINK, LINK])
    assert (answer.timings.inference, inference_milliseconds(job())) == (42062, 0)
    assert len(answer.outputs) == len(answer.has_nsfw_contents) == 2


def test_what_was_made_otherwise_than_asked_is_told_with_every_answer() -> None:
    told = dataclasses.replace(job(), note={"notes": ["x was ignored"], "model": "wavespeed-ai/wan-2.1-14b-vace"})
    answer = prediction(told, url=URL, links=[])
    assert (answer.notes, answer.model) == (["x was ignored"], "wavespeed-ai/wan-2.1-14b-vace")


@pytest.mark.parametrize(
    "message",
    ["the server answered HTTP 503", "HTTP/1.1 500 Internal", "HTTP 429 Too Many", "http://x HTTP  502 and HTTP 5"],
)
def test_an_error_never_makes_the_package_submit_again(message: str) -> None:
    failed = job(State.FAILED, reason=reasons.INPUT_FETCH_FAILED, message=message)
    answer = prediction(failed, url=URL, links=[])
    assert "HTTP 5" not in answer.error
    assert "HTTP 4" not in answer.error
    assert answer.code == 1402
    assert "HTTP 5" not in fault(InvalidInput("video", message)).message


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (reasons.INVALID_INPUT, 1401),
        (reasons.INPUT_REFUSED, 1402),
        (reasons.NODE_ERROR, 1405),
        (reasons.STORE_FAILED, 5000),
        (reasons.ACTIVE_DEADLINE_EXCEEDED, 5004),
    ],
)
def test_a_failure_has_the_apis_own_number(reason: str, code: int) -> None:
    assert prediction(job(State.FAILED, reason=reason, message="m"), url=URL, links=[]).code == code


def test_a_failure_speaks_of_the_requests_fields() -> None:
    failed = job(State.FAILED, reason="InvalidInput", message="spec.inputs.video is a file of kind Image")
    assert prediction(failed, url=URL, links=[]).error == "video is a file of kind Image"


def test_a_request_that_was_kept_open_for_too_long_says_where_to_go_on() -> None:
    answer = timed_out(job(), url=URL)
    assert (answer.code, answer.status) == (5004, "processing")
    assert "Sync mode timed out" in answer.error
    assert URL in answer.error


def test_errors_have_the_status_as_their_code() -> None:
    assert fault(NotFound("no job x")).model_dump() == {"code": 404, "message": "no job x"}
    assert fault(Limited("slow", 3)).code == 429
    assert fault(Unavailable("away")).code == 503
    assert fault(InvalidInput("spec.parameters.steps", "spec.parameters.steps is 99")).message == (
        "num_inference_steps is 99"
    )
