"""The dialects that this gateway speaks, one line each. A path belongs to the dialect with the longest prefix of it."""

from __future__ import annotations

from typing import Final

from kinora.gateway.comfyui import routes as comfyui
from kinora.gateway.context import Dialect
from kinora.gateway.dashscope import routes as dashscope
from kinora.gateway.openai import routes as openai
from kinora.gateway.runcomfy import routes as runcomfy
from kinora.gateway.wavespeed import routes as wavespeed

ALL: Final[tuple[Dialect, ...]] = (
    comfyui.DIALECT,
    dashscope.DIALECT,
    wavespeed.DIALECT,
    runcomfy.DIALECT,
    openai.DIALECT,
)
