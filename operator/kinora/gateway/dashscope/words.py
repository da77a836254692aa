"""How it went with a prompt that was to be rewritten: words in a job's note, and what a task's answer says of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

DONE: Final = "done"
OFF: Final = "off"
LONG: Final = "long"
BUSY: Final = "busy"
TIMEOUT: Final = "timeout"
FAILED: Final = "failed"

WORDS: Mapping[str, str] = MappingProxyType(
    {
        DONE: "the prompt was rewritten",
        OFF: "off: this gateway has no model that rewrites prompts; actual_prompt is orig_prompt",
        LONG: "not done: the prompt is long enough; actual_prompt is orig_prompt",
        BUSY: "not done: too many prompts were being rewritten; actual_prompt is orig_prompt",
        TIMEOUT: "failed: the model that rewrites prompts took too long; actual_prompt is orig_prompt",
        FAILED: "failed: the model that rewrites prompts gave no prompt; actual_prompt is orig_prompt",
    }
)
