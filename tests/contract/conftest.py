"""Where the recordings lie, and one prepared folder a test."""

from pathlib import Path

import pytest

from contract.harness import prepare

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "comfyui"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of a real ComfyUI's recordings; it lies beside the repository, not in it."""
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings of a real ComfyUI at {RECORDINGS.name}/ beside the repository")
    return RECORDINGS


@pytest.fixture
def engine_root(tmp_path: Path) -> Path:
    """Folders, weights and inputs for a stand-in."""
    prepare(tmp_path)
    return tmp_path
