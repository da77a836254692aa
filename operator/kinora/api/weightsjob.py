"""What the operator tells a weights Job, and how the Job's pod tells how far it is: two JSON documents.

The first stands in the container's environment, the second is the message of the pod's condition (names.py).
"""

from __future__ import annotations

import json
from typing import Final

from pydantic import Field, ValidationError

from kinora.api.base import ApiModel, FreeForm
from kinora.api.modelserver import VerifyLevel, WeightFileStatus, WeightSource
from kinora.api.transitions import clip

CONFIG_VARIABLE: Final = "KINORA_WEIGHTS_CONFIG"
_FILES_LIMIT: Final = 640  # bytes of the message that the files may take


class WeightsConfig(ApiModel):
    """What to fetch. `entry` is the catalogue's entry of the model: the Job's image may be another version's."""

    claim: str
    entry: FreeForm
    sources: list[WeightSource] = Field(default_factory=list)
    verify: VerifyLevel = VerifyLevel.HEADER
    quantize: bool = False
    allow_http: bool = False
    hub: str = ""


class WeightsProgress(ApiModel):
    """How far a weights Job is. Bytes of all files; `rate` in bytes a second; `message` where it failed or waits."""

    bytes_done: int = 0
    bytes_total: int = 0
    rate: int = 0
    file: str = ""
    message: str = ""
    files: list[WeightFileStatus] = Field(default_factory=list)

    def to_message(self) -> str:
        """As a condition's message; the files are left out where they are too many."""
        shown = self.model_copy(update={"message": clip(self.message, 256)})
        if len(json.dumps([file.model_dump() for file in self.files])) > _FILES_LIMIT:
            shown = shown.model_copy(update={"files": []})
        return shown.model_dump_json(by_alias=True, exclude_defaults=True)

    @classmethod
    def from_message(cls, message: str) -> WeightsProgress:
        """What a condition's message tells; one of another version, or of nobody's, tells itself."""
        try:
            return cls.model_validate_json(message or "{}")
        except ValidationError:
            return cls(message=clip(message, 256))
