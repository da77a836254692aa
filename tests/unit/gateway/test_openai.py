"""OpenAI's /v1/videos: what each request comes to, how long an extension is, the video object, pages and errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import openai.types as official
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kinora.api import reasons
from kinora.catalogue.load import load_catalogue
from kinora.gateway.errors import (
    Conflict,
    GatewayError,
    InvalidInput,
    KeyReused,
    Limited,
    ModelNotFound,
    NotAllowed,
    NotFound,
    Unauthorized,
    Unavailable,
)
from kinora.gateway.jobs import Job, State
from kinora.gateway.mapping import parse
from kinora.gateway.openai import answer
from kinora.gateway.openai.errors import fault
from kinora.gateway.openai.request import (
    CreateVideo,
    EditVideo,
    ExtendVideo,
    create_draft,
    default_model,
    edit_draft,
    extend_draft,
    extension_frames,
    reference_url,
    remix_spec,
    served_models,
)
from kinora.recipes.joining import generated_frames, joins

from .hosted import ID, artifact, job, validated

MODEL = "wan2.1-vace-14b"
LINK = "https://media.example.com/a.png"
PICTURE = {"url": LINK}
UPLOAD = {"upload": "uploads/a.mp4"}


def made(picture: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    return create_draft(parse(CreateVideo, {"prompt": "a fox runs", **given}), MODEL, picture).spec


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_prompt_alone_is_four_seconds_of_720x1280_as_the_api_has_it() -> None:
    spec = made()
    assert spec == {
        "model": MODEL,
        "task": "TextToVideo",
        "prompt": "a fox runs",
        "parameters": {"durationSeconds": 4},
        "output": {"width": 720, "height": 1280},
    }
    assert validated(spec).frames == 65


def test_a_form_sends_text_and_json_may_send_numbers() -> None:
    text = made(seconds="8", num_inference_steps="20", guidance_scale="4.5", seed="7", fps="16", flow_shift="3")
    assert text == made(seconds=8, num_inference_steps=20, guidance_scale=4.5, seed=7, fps=16, flow_shift=3)
    assert text["parameters"] == {"durationSeconds": 8, "steps": 20, "guidance": 4.5, "seed": 7, "fps": 16, "shift": 3}


def test_a_number_of_frames_goes_before_seconds_and_a_width_before_the_size() -> None:
    spec = made(seconds="8", num_frames=81, size="1280x720", width=832, height=480)
    assert spec["parameters"] == {"frames": 81}
    assert spec["output"] == {"width": 832, "height": 480}


def test_sizes_of_the_api_that_the_model_does_not_render_are_delivered_all_the_same() -> None:
    for size in ("720x1280", "1280x720", "1024x1792", "1792x1024"):
        resolved = validated(made(size=size))
        assert f"{resolved.output_width}x{resolved.output_height}" == size
        assert resolved.width * resolved.height <= 921_600


def test_an_input_reference_is_the_first_frame() -> None:
    spec = made(PICTURE)
    assert (spec["task"], spec["inputs"]) == ("ImageToVideo", {"image": {"url": LINK}})
    validated(spec)


def test_an_input_reference_as_json_is_a_url_and_no_file_id() -> None:
    assert reference_url(None) is None
    assert reference_url(LINK) == reference_url({"image_url": LINK}) == LINK
    for value in ({"file_id": "file-1"}, {}, 7, "", {"image_url": 7}):
        with pytest.raises(InvalidInput) as caught:
            reference_url(value)
        assert caught.value.field == "input_reference"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"prompt": " "}, "prompt"),
        ({"seconds": "soon"}, "seconds"),
        ({"seconds": "0"}, "seconds"),
        ({"size": "720*1280"}, "size"),
        ({"width": 832}, "height"),
        ({"height": 480}, "width"),
        ({"seed": -1}, "seed"),
        ({"fps": 0}, "fps"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        made(**given)
    assert caught.value.field == field
    assert "; allowed: " in caught.value.message


def test_an_edit_is_as_long_and_as_large_as_its_source() -> None:
    spec = edit_draft(parse(EditVideo, {"prompt": "in winter", "video": "x"}), MODEL, UPLOAD).spec
    assert spec == {"model": MODEL, "task": "Edit", "prompt": "in winter", "inputs": {"video": UPLOAD}}
    resolved = validated(spec)
    assert resolved.frames_from_input
    assert resolved.size_from_input


def test_an_extension_goes_on_from_a_clip() -> None:
    asked = parse(ExtendVideo, {"prompt": "it goes on", "video": "x", "seconds": "4", "seed": "3"})
    spec = extend_draft(asked, MODEL, UPLOAD, 81).spec
    assert (spec["task"], spec["inputs"], spec["parameters"]) == (
        "Extend",
        {"firstClip": UPLOAD},
        {"frames": 81, "seed": 3},
    )
    validated(spec)


@dataclass(frozen=True)
class Clip:
    frames: int
    fps: float = 16
    kind: str = "Video"
    width: int = 832
    height: int = 480


@settings(deadline=None)
@given(st.sampled_from([1, 2, 3, 4, 5, 8]), st.integers(1, 400), st.sampled_from([8, 12, 16, 24]))
def test_an_extension_adds_the_seconds_that_are_asked_for_or_says_what_is_possible(
    seconds: int, clip: int, fps: int
) -> None:
    most = 161
    if max(generated_frames(frames, clip) for frames in range(5, most + 1, 4)) < seconds * fps:
        with pytest.raises(InvalidInput, match=r"^seconds is .*; allowed: at most"):
            extension_frames(seconds, fps, clip, most)
        return
    frames = extension_frames(seconds, fps, clip, most)
    assert frames <= most
    assert frames % 4 == 1
    asked = parse(ExtendVideo, {"prompt": "on", "video": "x", "seconds": seconds, "fps": fps})
    resolved = validated(extend_draft(asked, MODEL, UPLOAD, frames).spec)
    joined = joins(resolved, {"firstClip": Clip(clip, fps)})
    generated = frames - (joined[0].overlap if joined else clip)
    assert abs(generated - seconds * fps) <= 4


def test_a_clip_of_unknown_length_is_taken_to_be_longer_than_what_is_added() -> None:
    assert extension_frames(4, 16, None, 161) == 17 + 64
    with pytest.raises(InvalidInput, match=r"^seconds is 12; allowed: at most 9 for this model and video$"):
        extension_frames(12, 16, None, 161)


def test_a_remix_is_the_stored_request_with_another_prompt_and_the_seed_that_was_rendered() -> None:
    stored = {**made(PICTURE, num_inference_steps=20), "queue": "q", "ttlSecondsAfterFinished": 60, "cancel": False}
    spec = remix_spec(stored, "a wolf runs", 42)
    assert spec == {
        **made(PICTURE, num_inference_steps=20),
        "prompt": "a wolf runs",
        "parameters": {"durationSeconds": 4, "steps": 20, "seed": 42},
    }
    assert remix_spec({**stored, "parameters": {"seed": 7}}, "x", 42)["parameters"] == {"seed": 7}
    assert stored["prompt"] == "a fox runs"


def test_a_raw_graph_has_no_prompt_to_replace() -> None:
    with pytest.raises(InvalidInput, match="raw graph"):
        remix_spec({"model": MODEL, "workflow": {"inline": "{}"}}, "x", None)


def server(name: str, model: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"model": model}}


def test_no_model_means_what_an_administrator_mapped_or_the_first_that_is_served_and_can_do_it() -> None:
    catalogue = load_catalogue()
    served = [server("a", "wan2.1-i2v-14b-480p"), server("b", MODEL)]
    assert default_model("TextToVideo", served, catalogue) == MODEL
    assert default_model("ImageToVideo", served, catalogue) == "wan2.1-i2v-14b-480p"
    mapped = catalogue.with_aliases({"sora-2": "wan2.1-vace-1.3b"})
    assert default_model("TextToVideo", served, mapped) == "sora-2"
    with pytest.raises(ModelNotFound, match="model is not set"):
        default_model("Edit", [server("a", "wan2.1-i2v-14b-480p"), server("c", "unknown")], catalogue)


def test_the_models_are_those_that_are_served_and_their_aliases() -> None:
    mapped = load_catalogue().with_aliases({"sora-2": MODEL, "other": "wan2.1-vace-1.3b"})
    assert served_models([server("b", MODEL), server("c", "unknown")], mapped) == [MODEL, "sora-2"]


_valid = st.fixed_dictionaries(
    {"prompt": st.text(min_size=1, max_size=60).filter(str.strip)},
    optional={
        "seconds": st.integers(1, 10).map(str),
        "size": st.tuples(st.integers(32, 640), st.integers(32, 640)).map(lambda pair: f"{pair[0] * 2}x{pair[1] * 2}"),
        "num_frames": st.integers(2, 40).map(lambda n: 4 * n + 1),
        "fps": st.sampled_from([8, 12, 16]),
        "num_inference_steps": st.integers(1, 40),
        "guidance_scale": st.floats(0, 20),
        "flow_shift": st.floats(0, 30),
        "seed": st.integers(0, 2**53 - 1),
        "negative_prompt": st.text(max_size=60),
    },
)


@settings(deadline=None)
@given(_valid, st.sampled_from([None, PICTURE]))
def test_every_valid_request_is_a_valid_videojob_from_which_it_can_be_read_back(
    given_: dict[str, Any], picture: dict[str, Any] | None
) -> None:
    assume(max(int(side) for side in given_.get("size", "2x2").split("x")) <= 1280)
    spec = made(picture, **given_)
    resolved = validated(spec)
    parameters = spec["parameters"]
    assert spec["prompt"] == given_["prompt"]
    assert spec.get("negativePrompt") == given_.get("negative_prompt")
    assert f"{resolved.output_width}x{resolved.output_height}" == given_.get("size", "720x1280")
    if "num_frames" in given_:
        assert parameters["frames"] == given_["num_frames"]
    else:
        assert parameters["durationSeconds"] == float(given_.get("seconds", 4))
    names = {"fps": "fps", "num_inference_steps": "steps", "guidance_scale": "guidance", "flow_shift": "shift"}
    for name, field in {**names, "seed": "seed"}.items():
        assert parameters.get(field) == given_.get(name)
    assert spec.get("inputs", {}) == ({} if picture is None else {"image": picture})


# --- answers ----------------------------------------------------------------------------------------------------------


def told(state: State, **more: Any) -> official.Video:
    """The answer as the official package reads it."""
    body = answer.video(job(state, **more), retention_seconds=3600).model_dump(mode="json", exclude_none=True)
    return official.Video.construct(**body)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.QUEUED, "queued"),
        (State.RUNNING, "in_progress"),
        (State.SUCCEEDED, "completed"),
        (State.FAILED, "failed"),
        (State.CANCELLED, "failed"),
    ],
)
def test_a_video_is_read_by_the_official_package(state: State, status: str) -> None:
    found = told(state, percent=40, note={"seconds": "4", "size": "832x480"})
    assert (found.id, found.object, found.status, found.model) == (ID, "video", status, MODEL)
    assert (found.created_at, found.seconds, found.size) == (1795264215, "4", "832x480")
    assert found.progress == (100 if status == "completed" else 40)
    assert found.completed_at == (1795264280 if status == "completed" else None)
    assert found.expires_at == (1795264280 + 3600 if state.finished else None)
    assert (found.error is not None) is (status == "failed")


def test_a_cancelled_video_failed_with_code_cancelled_and_another_one_with_its_reason() -> None:
    cancelled, failed = told(State.CANCELLED).error, told(State.FAILED, reason=reasons.INPUT_FETCH_FAILED).error
    assert cancelled is not None
    assert failed is not None
    assert (cancelled.code, failed.code) == ("cancelled", "input_fetch_failed")


def test_length_and_size_are_as_asked_then_as_resolved_then_unknown() -> None:
    assert (told(State.QUEUED).seconds, told(State.QUEUED).size) == ("auto", "auto")
    resolved = {"frames": 65, "fps": 16, "outputWidth": 720, "outputHeight": 1280}
    found = told(State.RUNNING, resolved=resolved)
    assert (found.seconds, found.size) == ("4.0625", "720x1280")
    done = told(State.SUCCEEDED, artifacts=(artifact(width=640, height=360, duration_seconds=7.25),))
    assert (done.seconds, done.size) == ("7.25", "640x360")


def test_progress_is_never_complete_before_the_end() -> None:
    assert told(State.RUNNING, percent=100).progress == 99


def test_what_is_told_later_is_kept_beside_the_job() -> None:
    spec = made(seconds="8", size="1280x720")
    assert answer.note_of(spec, ("x was ignored",), remixedFrom="v", model=None) == {
        "notes": ["x was ignored"],
        "seconds": "8",
        "size": "1280x720",
        "remixedFrom": "v",
    }
    assert answer.note_of(made(num_frames=81, fps=12), (), fps=16)["seconds"] == "6.75"
    assert answer.note_of(made(num_frames=81), (), fps=16)["seconds"] == "5.0625"
    assert answer.note_of({"model": MODEL, "task": "Edit"}, ()) == {}


def jobs(count: int) -> list[Job]:
    return [job(id=f"id-{index}") for index in range(count)]


def test_pages_follow_each_other_without_a_gap_in_both_orders() -> None:
    for ascending in (False, True):
        seen: list[str] = []
        after, more = None, True
        while more:
            found, more = answer.page(jobs(7), after=after, limit=3, ascending=ascending)
            seen += [one.id for one in found]
            after = seen[-1]
        names = [f"id-{index}" for index in range(7)]
        assert seen == (names[::-1] if ascending else names)


def test_a_page_after_a_video_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="after is 'gone'"):
        answer.page(jobs(2), after="gone", limit=3, ascending=False)


def test_an_empty_page_ends_a_list() -> None:
    assert answer.listed([], False).model_dump() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (InvalidInput("spec.parameters.steps", "spec.parameters.steps is 99"), "invalid_request_error", "invalid_value",
         "num_inference_steps"),
        (ModelNotFound("model", "no"), "invalid_request_error", "model_not_found", "model"),
        (Unauthorized("no key"), "invalid_request_error", "invalid_api_key", None),
        (NotFound("no job"), "invalid_request_error", "not_found", None),
        (NotAllowed("no"), "invalid_request_error", None, None),
        (Conflict("no"), "invalid_request_error", "conflict", None),
        (KeyReused("again"), "invalid_request_error", "idempotency_key_reused", None),
        (Limited("slow", 3), "rate_limit_error", "rate_limit_exceeded", None),
        (Unavailable("away"), "server_error", "service_unavailable", None),
        (GatewayError("broken"), "server_error", None, None),
    ],
)  # fmt: skip
def test_an_error_has_the_apis_shape(error: GatewayError, kind: str, code: str | None, param: str | None) -> None:
    found = fault(error).model_dump()["error"]
    assert (found["type"], found["code"], found["param"]) == (kind, code, param)
    assert found["message"]
    if param == "num_inference_steps":
        assert found["message"] == "num_inference_steps is 99"
