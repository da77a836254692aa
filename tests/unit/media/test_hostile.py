"""Each hostile or odd file is a MediaError in words, or looked at and prepared right: never a crash, no guess."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinora.media.frames import clip_frames, picture
from kinora.media.images import normalise_image
from kinora.media.info import MediaError
from kinora.media.inspect import probe
from kinora.media.prepare import prepare

from .hostile import CASES, Case

EITHER = "either"  # damaged somewhere: it may decode, it must not crash
SEGMENT = {"frames": 5, "input": "it", "anchor": "Begin"}
PLAN: dict[str, Any] = {
    "width": 32, "height": 32, "frames": 5, "fps": 8.0, "segments": [SEGMENT], "signal": "Canny", "rect": None,
    "mask": None, "references": [],
}  # fmt: skip


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def _prepared(file: io.BufferedReader, tmp_path: Path) -> tuple[str, tuple[int, int], list[Any]]:
    """Kind, size and the frames that the engine would get."""
    info = probe(file)
    if info.kind == "Image":
        with (tmp_path / "normal.png").open("w+b") as output:
            normalise_image(file, output)
            return info.kind, (info.width, info.height), [picture(output)]
    with (tmp_path / "control.mkv").open("w+b") as output:
        prepare({"it": file}, {"control": output}, PLAN)
        return info.kind, (info.width, info.height), list(clip_frames(output, 5, 8.0))


def _outcome(path: Path, tmp_path: Path) -> tuple[str, tuple[int, int], list[Any]] | MediaError:
    with path.open("rb") as file:
        try:
            return _prepared(file, tmp_path)
        except MediaError as error:
            return error


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_in_words_or_handled_right(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "secret-name.mp4"
    path.write_bytes(case.make(tmp_path))
    found = _outcome(path, tmp_path)
    if isinstance(found, MediaError):
        message = str(found)
        assert case.refused is not None, f"refused: {message}"
        assert case.refused in (EITHER, "") or case.refused in message
        assert 5 < len(message) < 300
        assert "secret-name" not in message
        assert "Traceback" not in message
        return
    assert case.refused in (None, EITHER), "it was believed"
    kind, size, frames = found
    if case.refused is None:
        assert size == case.size
        assert len(frames) == (1 if kind == "Image" else 5)
        assert all(frame.dtype == np.uint8 and frame.shape[2] == 3 for frame in frames)
