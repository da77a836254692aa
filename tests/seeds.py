"""The clients that the documents print, taken out of them as they stand: server and token are all that is changed."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from kinora_cluster import ROOT

DOCUMENTS = ROOT.parent / "shared" / "seeds"
_CODE = re.compile(r"```python\n(?P<code>.*?)\n```", re.DOTALL)
_SERVER = re.compile(r"^COMFYUI_SERVER, COMFYUI_TOKEN = .*$", re.MULTILINE)
#: Runs a client whose pauses are short: it is the same program, on a clock that goes faster.
RUN = """
import runpy, sys, time
pause = time.sleep
time.sleep = lambda seconds: pause(seconds / 40)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def document(number: str) -> str:
    """The document whose file name begins so; the test is skipped where there is none."""
    found = sorted(DOCUMENTS.glob(f"{number}*")) if DOCUMENTS.is_dir() else []
    if not found:
        pytest.skip(f"no document {number} in {DOCUMENTS.name}/ beside the repository")
    return found[0].read_text(encoding="utf-8", errors="replace")


def client_of(number: str, server: str, token: str) -> str:
    """The client's source, with this server (host and port) and token."""
    found = _CODE.search(document(number))
    assert found is not None, "the document prints no client"
    code, count = _SERVER.subn(lambda _: f"COMFYUI_SERVER, COMFYUI_TOKEN = {server!r}, {token!r}", found["code"])
    assert count == 1
    return code


def command(client: Path) -> list[str]:
    """How to run it."""
    return [sys.executable, "-c", RUN, str(client)]


def environment() -> dict[str, str]:
    """Without a proxy on the way to the loopback."""
    return {**os.environ, "NO_PROXY": "*", "no_proxy": "*", "PYTHONIOENCODING": "utf-8"}
