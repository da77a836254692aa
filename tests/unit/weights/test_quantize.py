"""float8_e4m3fn bit by bit, and whole files through `quantize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kinora.weights import float8, quantize
from kinora.weights.header import Tensor, read_header
from kinora.weights.quantize import QuantizeError, is_quantized

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes, the reference, is not installed")
DTYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def reference(numbers: NDArray[np.float32], scale: float = 1.0) -> NDArray[np.uint8]:
    """What ml_dtypes makes of clamped numbers. (The sign of NaN is nobody's business.)"""
    with np.errstate(invalid="ignore", over="ignore"):
        clamped = np.clip(numbers / np.float32(scale), -448, 448)
    codes: NDArray[np.uint8] = clamped.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return np.where(np.isnan(numbers), codes & 0x7F, codes)


def same(codes: NDArray[np.uint8], expected: NDArray[np.uint8]) -> bool:
    nan = codes & 0x7F == float8.NAN
    return bool(np.array_equal(np.where(nan, codes & 0x7F, codes), expected))


def test_the_256_numbers() -> None:
    expected = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert np.array_equal(float8.values(), expected, equal_nan=True)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("scale", [1.0, 0.00021, 3.7, 1e-30])
def test_all_65536_codes(dtype: str, scale: float) -> None:
    codes = np.arange(1 << 16, dtype=np.uint16)
    numbers = codes.view(DTYPES[dtype]).astype(np.float32)
    assert np.array_equal(float8.half_values(dtype), numbers, equal_nan=True)
    assert same(float8.half_table(dtype, scale), reference(numbers, scale))


def _singles() -> NDArray[np.uint32]:
    """Every float32 near a code or a midpoint, every upper half with telling lower halves, and chance."""
    rng = np.random.default_rng(1)
    upper = np.arange(1 << 16, dtype=np.uint32)[:, None] << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return np.concatenate([(upper | lower).ravel(), rng.integers(0, 1 << 32, 1 << 20, np.uint32)])


def test_float32() -> None:
    bits = _singles()
    index = np.empty_like(bits)
    float8.single_index(bits, index)
    with np.errstate(invalid="ignore"):
        assert same(float8.single_table()[index], reference(bits.view(np.float32)))


def test_torch_rounds_alike() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for dtype, name in ((torch.bfloat16, "BF16"), (torch.float16, "F16")):
        codes = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16)
        made = codes.view(dtype).float().clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
        nan = made & 0x7F == float8.NAN
        assert same(float8.half_table(name)[codes.numpy().view(np.uint16)], np.where(nan, made & 0x7F, made))


def write(path: Path, tensors: dict[str, tuple[str, NDArray[Any]]], metadata: dict[str, str] | None = None) -> Path:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at, data = 0, b""
    for name, (dtype, array) in tensors.items():
        raw = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(raw)]}
        at, data = at + len(raw), data + raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def read(path: Path) -> dict[str, tuple[str, NDArray[np.uint8]]]:
    header = read_header(path)
    data = np.frombuffer(path.read_bytes()[-header.data_bytes :], np.uint8)
    return {name: (tensor.dtype, data[tensor.start : tensor.end]) for name, tensor in header.tensors.items()}


def model(dtype: str, rows: int = 48, columns: int = 64) -> dict[str, tuple[str, NDArray[Any]]]:
    rng = np.random.default_rng(2)

    def made(*shape: int) -> tuple[str, NDArray[Any]]:
        return dtype, (rng.standard_normal(shape) * 0.03).astype(DTYPES[dtype])

    return {
        "spiece_model": ("U8", np.arange(7, dtype=np.uint8)),  # the next tensor begins at an odd byte
        "blocks.0.self_attn.q.weight": made(rows, columns),
        "blocks.0.self_attn.q.bias": made(rows),
        "blocks.0.self_attn.norm_q.weight": made(columns),
        "blocks.0.ffn.0.weight": made(columns, rows),
        "blocks.0.modulation": made(1, 6, columns),
        "patch_embedding.weight": made(16, 16, 1, 2, 2),
        "time_projection.1.weight": made(rows, columns),
        "head.head.weight": made(rows, columns),
        "step": ("I64", np.array([3])),
    }


QUANTIZED = ("blocks.0.self_attn.q.weight", "blocks.0.ffn.0.weight")


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("chunk", [quantize.CHUNK, 1024])
def test_a_file(tmp_path: Path, dtype: str, scaled: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "CHUNK", chunk)
    tensors = model(dtype)
    source, target = write(tmp_path / "in.safetensors", tensors, {"format": "pt"}), tmp_path / "out.safetensors"
    steps: list[tuple[int, int]] = []
    report = quantize.quantize(source, target, scaled=scaled, progress=lambda done, total: steps.append((done, total)))
    made = read(target)
    assert (report.quantized, report.kept) == (2, 8)
    assert steps[-1][0] == steps[-1][1] == read_header(source).data_bytes
    for name, (kind, array) in tensors.items():
        if name not in QUANTIZED:
            assert made[name][0] == kind
            assert made[name][1].tobytes() == array.tobytes()
            continue
        scale = 1.0
        if scaled:
            scale = float(np.frombuffer(made[name.removesuffix("weight") + "scale_weight"][1].tobytes(), np.float32)[0])
            assert scale == np.float32(np.abs(array.astype(np.float64)).max() / 448)
        assert made[name][0] == "F8_E4M3"
        assert np.array_equal(made[name][1], reference(array.astype(np.float32).ravel(), scale))
    assert set(made) - set(tensors) == (
        {"scaled_fp8", "blocks.0.self_attn.q.scale_weight", "blocks.0.ffn.0.scale_weight"} if scaled else set()
    )
    assert read_header(target).metadata["format"] == "pt"
    assert set(report.classes) == {"self_attn", "ffn"}
    assert 0.02 < report.classes["ffn"].mean < (0.03 if scaled else 0.1)
    assert 0.02 < report.classes["ffn"].rms < 0.03
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.safetensors", "out.safetensors"]


def test_tensors_are_aligned_to_their_type(tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    quantize.quantize(write(tmp_path / "in.safetensors", model("BF16")), target, scaled=True)
    start = target.stat().st_size - read_header(target).data_bytes
    assert start % 8 == 0
    for tensor in read_header(target).tensors.values():
        assert tensor.start % {"I64": 8, "F32": 4, "BF16": 2}.get(tensor.dtype, 1) == 0


def test_workers_make_the_same_file(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", model("BF16", 640, 256))
    quantize.quantize(source, tmp_path / "one", workers=1)
    quantize.quantize(source, tmp_path / "two", workers=2)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_library_reads_it(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors", reason="safetensors, the format's own reader, is not installed")
    target = tmp_path / "out.safetensors"
    quantize.quantize(write(tmp_path / "in.safetensors", model("BF16")), target, scaled=True)
    entries = dict(safetensors.deserialize(target.read_bytes()))
    assert entries["blocks.0.ffn.0.weight"]["dtype"] == "F8_E4M3"


def test_what_saturates_and_what_is_no_number_is_counted(tmp_path: Path) -> None:
    numbers = np.array([[0, -0.0, 1e-6, 500, -70000, np.inf, np.nan, 448]], np.float32)
    source = write(tmp_path / "in", {"a.ffn.0.weight": ("F32", numbers)})
    errors = quantize.quantize(source, tmp_path / "out").classes["ffn"]
    assert (errors.elements, errors.nonzero, errors.vanished) == (8, 4, 1)
    assert (errors.saturated, errors.not_numbers) == (3, 1)
    assert read(tmp_path / "out")["a.ffn.0.weight"][1].tolist() == [0, 0x80, 0, 0x7E, 0xFE, 0x7E, 0x7F, 0x7E]


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "quantized"),
    [
        ("blocks.0.self_attn.q.weight", (8, 8), "BF16", True),
        ("model.diffusion_model.blocks.3.cross_attn.k_img.weight", (8, 8), "F16", True),
        ("vace_blocks.0.before_proj.weight", (8, 8), "BF16", True),
        ("encoder.block.0.layer.1.DenseReluDense.wi_1.weight", (8, 8), "F32", True),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (8, 8), "F32", False),
        ("shared.weight", (8, 8), "BF16", False),
        ("blocks.0.self_attn.norm_q.weight", (8,), "BF16", False),
        ("blocks.0.modulation", (1, 6, 8), "BF16", False),
        ("head.modulation", (1, 2, 8), "BF16", False),
        ("head.head.weight", (8, 8), "BF16", False),
        ("text_embedding.0.weight", (8, 8), "BF16", False),
        ("time_embedding.0.weight", (8, 8), "BF16", False),
        ("img_emb.proj.1.weight", (8, 8), "BF16", False),
        ("patch_embedding.weight", (8, 8, 1, 2, 2), "BF16", False),
        ("decoder.conv1.weight", (8, 8, 3, 3, 3), "F32", False),
        ("blocks.0.ffn.0.weight", (8, 8), "F8_E4M3", False),
        ("blocks.0.ffn.0.weight", (8, 8), "F64", False),
    ],
)
def test_which_tensors_become_fp8(name: str, shape: tuple[int, ...], dtype: str, quantized: bool) -> None:
    assert is_quantized(name, Tensor(dtype, shape, 0, 0)) is quantized


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    sound = write(tmp_path / "in", model("BF16"))
    (tmp_path / "bad").write_bytes(sound.read_bytes()[:-5])
    write(tmp_path / "vae", {"conv1.weight": ("F32", np.zeros((2, 2, 3), np.float32))})
    (tmp_path / "there").write_text("x")
    with pytest.raises(QuantizeError, match=r"bad: .*truncated"):
        quantize.quantize(tmp_path / "bad", tmp_path / "out")
    with pytest.raises(QuantizeError, match="not there"):
        quantize.quantize(tmp_path / "none", tmp_path / "out")
    with pytest.raises(QuantizeError, match="nothing to quantize"):
        quantize.quantize(tmp_path / "vae", tmp_path / "out")
    with pytest.raises(QuantizeError, match="is there already"):
        quantize.quantize(sound, tmp_path / "there")
    with pytest.raises(QuantizeError, match="nowhere"):
        quantize.quantize(sound, tmp_path / "nowhere" / "out")
    quantize.quantize(sound, tmp_path / "once", scaled=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "in", "once", "there", "vae"]
