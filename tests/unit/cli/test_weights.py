"""`kinora weights fetch|inspect|verify|quantize` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from kinora.catalogue.load import load_catalogue
from kinora.cli.main import main
from kinora.weights.header import read_header
from kinora.weights.lock import hold
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


def test_fetch_as_a_user_types_it(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    here.mkdir()
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    write_demo_weights(model, there)
    sources = [word for item in model.weights for word in ("--source", f"{item.role}=file://{there}/{item.path}")]
    result = run("fetch", model.name, "--into", here, *sources)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("Fetched") == len(model.weights)
    again = run("fetch", model.name, "--into", here, *sources, "-o", "json")
    files = json.loads(again.stdout)["files"]
    assert [file["outcome"] for file in files] == ["Kept"] * len(model.weights)
    assert all(len(file["sha256"]) == 64 for file in files)


def test_fetch_takes_the_sources_of_a_manifest(tmp_path: Path) -> None:
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    write_demo_weights(model, tmp_path / "there")
    (tmp_path / "here").mkdir()
    sources = [{"name": str(item.role), "url": f"file://{tmp_path}/there/{item.path}"} for item in model.weights]
    server = {"model": model.name, "weights": {"claimName": "w", "sources": sources}, "artifacts": {"claimName": "v"}}
    manifest = {"apiVersion": "kinora.dev/v1alpha1", "kind": "ModelServer", "metadata": {"name": "a"}, "spec": server}
    (tmp_path / "server.yaml").write_text(json.dumps(manifest))
    result = run("fetch", model.name, "--into", tmp_path / "here", "--modelserver", tmp_path / "server.yaml")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["wan9", "--source", "vae=https://x/a"], 2, "MODEL is wan9; allowed: "),
        (["wan2.1-vace-1.3b"], 2, "no source"),
        (["wan2.1-vace-1.3b", "--source", "vae"], 2, "NAME=URL"),
        (["wan2.1-vace-1.3b", "--source", "nothing=https://x/a"], 2, "source[0].name is nothing; allowed: "),
        (["wan2.1-vace-1.3b", "--source", "vae=http://x/a"], 2, "source[0].url is http://x/a"),
        (["wan2.1-vace-1.3b", "--source", "vae=https://x/a#sha256=12"], 2, "--source is vae="),
        (["wan2.1-vace-1.3b", "--source", "vae=pvc://claim/a"], 2, "file:///PATH"),
        (["wan2.1-vace-1.3b", "--source", "vae=file:///nowhere/a"], 1, "no source: add one"),
    ],
)
def test_fetch_says_what_is_wrong(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    result = run("fetch", *arguments, "--into", tmp_path)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_fetch_tells_a_fault_as_json_too(tmp_path: Path) -> None:
    result = run("fetch", "wan2.1-vace-1.3b", "--into", tmp_path, "--source", "vae=file:///nowhere/a", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["permanent"] is True


def test_fetch_that_is_locked_out_may_be_tried_again(tmp_path: Path) -> None:
    with hold(tmp_path):
        result = run("fetch", "wan2.1-vace-1.3b", "--into", tmp_path, "--source", "vae=file:///nowhere/a")
    assert result.exit_code == 3
    assert "another process" in result.stderr
