"""Demo weights are what the catalogue expects, and verify finds each way in which a file can be wrong."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kinora.api.modelserver import VerifyLevel
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model
from kinora.weights.header import read_header
from kinora.weights.tiny import main, write_demo_weights
from kinora.weights.verify import DEMO_KEY, State, verify

MODELS = list(load_catalogue())


def _vace() -> Model:
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    return model


def _states(model: Model, root: Path, level: VerifyLevel = VerifyLevel.HEADER) -> list[State]:
    return [found.state for found in verify(model, root, level)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_demo_weights_are_small_real_and_say_what_they_are(model: Model, tmp_path: Path) -> None:
    paths = write_demo_weights(model, tmp_path)
    assert paths == [weight.path for weight in model.weights]
    for found in verify(model, tmp_path, VerifyLevel.HEADER):
        assert found.ok, found
        assert found.demo
        assert 0 < found.size_bytes < 800_000
    header = read_header(tmp_path / paths[0])
    assert "demo" in header.metadata[DEMO_KEY]
    assert header.tensors["blocks.0.self_attn.q.weight"].dtype == "F8_E4M3"
    assert header.tensors["head.modulation"].dtype == "BF16"
    assert all(len(tensor.shape) == 2 for tensor in header.tensors.values() if tensor.dtype == "F8_E4M3")


def test_names_of_the_vace_files(tmp_path: Path) -> None:
    paths = write_demo_weights(_vace(), tmp_path)
    keys = set(read_header(tmp_path / paths[0]).tensors)
    assert {"vace_patch_embedding.weight", "vace_blocks.0.before_proj.weight", "blocks.29.ffn.2.weight"} <= keys
    assert read_header(tmp_path / paths[1]).tensors["spiece_model"].dtype == "U8"
    assert {tensor.dtype for tensor in read_header(tmp_path / paths[2]).tensors.values()} == {"BF16"}


def test_fp8_codes_are_finite_and_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    (path, *_) = write_demo_weights(_vace(), tmp_path)
    first = (tmp_path / path).read_bytes()
    write_demo_weights(_vace(), tmp_path)
    assert (tmp_path / path).read_bytes() == first
    tensor = read_header(tmp_path / path).tensors["blocks.0.self_attn.q.weight"]
    data = first[8 + int.from_bytes(first[:8], "little") :][tensor.start : tensor.end]
    assert {code & 0x7F for code in data} <= set(range(0x38))
    assert len(set(data)) > 20


def test_a_file_that_is_no_demo_file_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / _vace().weights[1].path
    target.parent.mkdir()
    for content in (b"real weights", (2).to_bytes(8, "little") + b"{}"):
        target.write_bytes(content)
        assert main(["--models", "wan2.1-vace-1.3b", "--root", str(tmp_path)]) == 1
        assert target.read_bytes() == content
        assert not (tmp_path / "diffusion_models").exists()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--models", *load_catalogue().names, "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("demo weights") == sum(len(model.weights) for model in load_catalogue())
    assert main(["--models", "wan9", "--root", str(tmp_path)]) == 2
    assert "wan2.1-vace-1.3b" in capsys.readouterr().err


def _rewrite(path: Path, change: Any) -> None:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + raw[8 + length :])


def _drop_key(header: dict[str, Any]) -> None:
    header["renamed"] = header.pop("vace_patch_embedding.weight")


def _turn_to_integers(header: dict[str, Any]) -> None:
    header["blocks.0.ffn.0.weight"]["dtype"] = "I8"


def _prefix(header: dict[str, Any]) -> None:
    for key in [key for key in header if key != "__metadata__"]:
        header[f"model.diffusion_model.{key}"] = header.pop(key)


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        (_drop_key, State.MISSING_KEYS, "1 of the expected keys are missing: vace_patch_embedding.weight"),
        (_turn_to_integers, State.WRONG_DTYPE, "blocks.0.ffn.0.weight is I8; expected F8_E4M3"),
        (_prefix, State.PRESENT, ""),
    ],
)
def test_headers_are_judged(tmp_path: Path, change: Any, state: State, words: str) -> None:
    path = write_demo_weights(_vace(), tmp_path)[0]
    _rewrite(tmp_path / path, change)
    found = verify(_vace(), tmp_path, VerifyLevel.HEADER)[0]
    assert found.state is state
    assert words in found.message
    assert state is State.PRESENT or found.message.startswith("diffusion_models/wan21_vace_1_3_b.safetensors: ")
    assert str(tmp_path) not in found.message


def test_missing_comes_and_goes(tmp_path: Path) -> None:
    assert _states(_vace(), tmp_path / "no such folder") == [State.MISSING] * 4
    assert _states(_vace(), tmp_path) == [State.MISSING] * 4
    paths = write_demo_weights(_vace(), tmp_path)
    assert _states(_vace(), tmp_path) == [State.PRESENT] * 4
    (tmp_path / paths[2]).unlink()
    assert _states(_vace(), tmp_path) == [State.PRESENT, State.PRESENT, State.MISSING, State.PRESENT]


def test_a_lora_is_known_by_the_endings_of_its_keys(tmp_path: Path) -> None:
    path = tmp_path / write_demo_weights(_vace(), tmp_path)[3]
    found = verify(_vace(), tmp_path, VerifyLevel.HEADER)[3]
    assert (found.state, found.preset) == (State.PRESENT, "Fast")

    def respell(header: dict[str, Any]) -> None:
        for key in [key for key in header if "lora_" in key]:
            header[key.replace("lora_down", "lora_A").replace("lora_up", "lora_B")] = header.pop(key)

    def spoil(header: dict[str, Any]) -> None:
        for key in [key for key in header if "lora_" in key]:
            header[key.replace("lora_", "lokr_")] = header.pop(key)

    _rewrite(path, respell)
    assert verify(_vace(), tmp_path, VerifyLevel.HEADER)[3].ok
    _rewrite(path, spoil)
    spoilt = verify(_vace(), tmp_path, VerifyLevel.HEADER)[3]
    assert spoilt.state is State.MISSING_KEYS
    assert "no key ends in .self_attn.q.lora_down.weight" in spoilt.message


def test_truncated_empty_linked_and_folder(tmp_path: Path) -> None:
    first, second, third, _lora = (tmp_path / path for path in write_demo_weights(_vace(), tmp_path))
    first.write_bytes(first.read_bytes()[:-1])
    second.write_bytes(b"")
    third.rename(tmp_path / "elsewhere")
    third.symlink_to(tmp_path / "elsewhere")
    assert _states(_vace(), tmp_path) == [State.UNREADABLE, State.WRONG_SIZE, State.UNREADABLE, State.PRESENT]
    assert _states(_vace(), tmp_path, VerifyLevel.SIZE)[0] is State.PRESENT
    third.unlink()
    third.mkdir()
    assert _states(_vace(), tmp_path)[2] is State.UNREADABLE


def _known(model: Model, **known: Any) -> Model:
    first = model.weights[0].model_copy(update=known)
    return model.model_copy(update={"weights": (first, *model.weights[1:])})


def test_known_size_and_hash(tmp_path: Path) -> None:
    path = write_demo_weights(_vace(), tmp_path)[0]
    _rewrite(tmp_path / path, lambda header: header.pop("__metadata__"))
    size = (tmp_path / path).stat().st_size
    assert _states(_known(_vace(), size_bytes=size), tmp_path, VerifyLevel.SIZE)[0] is State.PRESENT
    wrong = verify(_known(_vace(), size_bytes=size + 1), tmp_path, VerifyLevel.SIZE)[0]
    assert wrong.state is State.WRONG_SIZE
    assert f"{size} bytes, expected {size + 1}" in wrong.message
    hashed = _known(_vace(), sha256="0" * 64)
    assert _states(hashed, tmp_path, VerifyLevel.HEADER)[0] is State.PRESENT
    assert _states(hashed, tmp_path, VerifyLevel.HASH)[0] is State.WRONG_HASH


def test_demo_weights_are_no_match_for_a_known_size_only_where_hashes_are_asked_for(tmp_path: Path) -> None:
    write_demo_weights(_vace(), tmp_path)
    known = _known(_vace(), size_bytes=1_470_000_000, sha256="0" * 64)
    assert _states(known, tmp_path, VerifyLevel.SIZE)[0] is State.PRESENT
    assert _states(known, tmp_path, VerifyLevel.HEADER)[0] is State.PRESENT
    assert _states(known, tmp_path, VerifyLevel.HASH)[0] is State.WRONG_SIZE


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root reads every file: be somebody else for a moment. Who is not root stays who they are."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_unreadable() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        root = Path(folder)
        root.chmod(0o755)
        (root / write_demo_weights(_vace(), root)[0]).chmod(0)
        with as_nobody():
            states = _states(_vace(), root)
    assert states[0] is State.UNREADABLE
    assert set(states[1:]) == {State.PRESENT}
