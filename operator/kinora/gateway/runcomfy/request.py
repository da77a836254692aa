"""The input of RunComfy's community/wan-2-2/vace-fun -> VideoJob.spec. Pure. Keys, choices, defaults: its document."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from kinora.gateway.mapping import MAX_PROMPT, MAX_SEED, Body, Draft, compact, references, size_of, unknown_notes

#: The model's id in the path, the name by which an administrator may map it, and the model that is meant otherwise.
MODEL: Final = "community/wan-2-2/vace-fun"
HOSTED: Final = "wan-2-2-vace-fun"
LOCAL: Final = "wan2.2-vace-fun-a14b"
#: The picture that the document's own call names.
SAMPLE: Final = "Runcomfy_Example_1290_1.png"

#: Fields of the VideoJob -> keys of the request, for messages.
NAMES: Final = {
    "spec.model": "model_id",
    "spec.task": "model_id",
    "spec.prompt": "56_text",
    "spec.inputs.references[0]": "118_image",
    "spec.inputs.references": "118_image",
    "spec.output.width": "4_valuex3_value",
    "spec.output.height": "4_valuex3_value",
    "spec.output": "4_valuex3_value",
    "spec.parameters.frames": "25_value",
    "spec.parameters.fps": "38_value",
    "spec.parameters.seed": "98_seed",
    "spec.parameters.steps": "47_value",
    "spec.parameters.guidance": "108_cfg",
    "spec.parameters.shift": "41_value",
}

_Resolution = Literal[
    "480x480 (1:1)", "720x720 (1:1)",
    "480x720 (2:3)", "720x480 (3:2)",
    "540x960 (9:16)", "576x1024 (9:16)", "720x1280 (9:16)",
    "960x540 (16:9)", "1024x576 (16:9)", "1280x720 (16:9)",
]  # fmt: skip


class Inference(Body):
    """The input of vace-fun, by its numbered keys."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROMPT, pattern=r"\S")] = Field(
        alias="56_text", title="Prompt"
    )
    image: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = Field(
        alias="118_image", title="Image", description="An https URL, or the name of the sample picture"
    )
    resolution: _Resolution = Field("1024x576 (16:9)", alias="4_valuex3_value", title="Resolution (W:H)")
    frames: Literal[81, 141] = Field(81, alias="25_value", title="Number of Frames")
    fps: int = Field(16, ge=12, le=24, alias="38_value", title="Frames Per Second")
    seed: int = Field(96860978, ge=0, le=MAX_SEED, alias="98_seed", title="Seed")
    steps: int = Field(12, ge=2, le=40, alias="47_value", title="Steps")
    guidance: float = Field(3.5, ge=0, le=10, alias="108_cfg", title="Guidance Scale")
    shift: float = Field(8, ge=1, le=30, alias="41_value", title="Shift")


def draft(asked: Inference, model: str) -> Draft:
    """The VideoJob's spec for the local model `model`: every parameter as the document has it, none left open."""
    width, height = size_of(asked.resolution)
    spec = {
        "model": model,
        "task": "ReferenceToVideo",
        "prompt": asked.text,
        "inputs": {"references": references([asked.image])},
        "parameters": {
            "frames": asked.frames,
            "fps": asked.fps,
            "steps": asked.steps,
            "guidance": asked.guidance,
            "shift": asked.shift,
            "seed": asked.seed,
        },
        "output": {"width": width, "height": height},
    }
    return Draft(compact(spec), unknown_notes(asked))
