"""`kinora weights inspect|verify|quantize` as a user types them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from kinora.catalogue.load import load_catalogue
from kinora.cli.main import main
from kinora.weights.header import read_header
from kinora.weights.tiny import write_demo_weights


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["weights", *map(str, arguments)])


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """One F16 matrix of 4 x 4 and one bias."""
    head = (
        b'{"a.ffn.0.weight":{"dtype":"F16","shape":[4,4],"data_offsets":[0,32]},'
        b'"a.ffn.0.bias":{"dtype":"F16","shape":[4],"data_offsets":[32,40]},"__metadata__":{"format":"pt"}}'
    )
    path = tmp_path / "half.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + np.linspace(-1, 1, 20, dtype=np.float16).tobytes())
    return path


def test_inspect(half: Path) -> None:
    lines = run("inspect", half).stdout.splitlines()
    assert lines[0].split() == ["DTYPE", "TENSORS", "ELEMENTS", "BYTES", "SHARE"]
    assert lines[1].split() == ["F16", "2", "20", "40", "100.0", "%"]
    assert lines[2].split() == ["total", "2", "20", "40", "100", "%"]
    assert lines[-1] == "format: pt"
    each = run("inspect", "--tensors", half).stdout
    assert "a.ffn.0.weight   F16     4x4     32" in each


def test_inspect_what_is_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no")
    for name in ("x", "none"):
        result = run("inspect", tmp_path / name)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"kinora weights inspect: {tmp_path / name}: ")


def test_verify(tmp_path: Path) -> None:
    name = load_catalogue().names[-1]
    model = load_catalogue().get(name)
    assert model is not None
    missing = run("verify", "--model", name, "--root", tmp_path)
    assert missing.exit_code == 1
    assert missing.stdout.count("Missing") == len(model.weights)
    write_demo_weights(model, tmp_path)
    sound = run("verify", "--model", name, "--root", tmp_path, "--level", "Header")
    assert sound.exit_code == 0
    assert sound.stdout.count("Present") == len(model.weights)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "wan9", "--root", "."], "--model is wan9; allowed: "),
        (["--model", "wan2.1-vace-1.3b", "--root", "/none"], "--root"),
    ],
)
def test_verify_refuses(arguments: list[str], told: str) -> None:
    result = run("verify", *arguments)
    assert result.exit_code == 1
    assert told in result.stderr


@pytest.mark.parametrize("flags", [[], ["--scaled"]])
def test_quantize(half: Path, flags: list[str]) -> None:
    target = half.with_name("fp8.safetensors")
    result = run("quantize", half, target, "--workers", "1", *flags)
    assert result.exit_code == 0, result.stderr
    assert "1 tensors quantized, 1 kept" in result.stdout
    assert result.stdout.splitlines()[1].split()[:2] == ["ffn", "16"]
    assert read_header(target).tensors["a.ffn.0.weight"].dtype == "F8_E4M3"
    again = run("quantize", half, target)
    assert again.exit_code == 1
    assert "is there already" in again.stderr
