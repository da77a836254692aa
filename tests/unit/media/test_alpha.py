"""The alpha of pictures: put on, and looked at alone."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kinora.gateway.comfyui.pictures import LIMITS
from kinora.media import child
from kinora.media.alpha import channel, preview, put_alpha
from kinora.media.info import InputError, MediaError


def _png(image: Image.Image, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format="PNG", **options)  # type: ignore[arg-type]
    file.seek(0)
    return file


def _painted(width: int = 8, height: int = 4) -> Image.Image:
    """Transparent on the left, opaque on the right, in colours that are not to be taken."""
    image = Image.new("RGBA", (width, height), (1, 2, 3, 0))
    image.paste((4, 5, 6, 255), (width // 2, 0, width, height))
    return image


def _put(image: Image.Image, mask: Image.Image, **options: object) -> Image.Image:
    output = io.BytesIO()
    put_alpha({"image": _png(image, **options), "mask": _png(mask)}, {"image": output})
    return Image.open(output)


def test_the_masks_alpha_and_the_pictures_colours_and_notes() -> None:
    notes = PngInfo()
    notes.add_text("workflow", '{"nodes": []}')
    made = _put(Image.new("RGB", (8, 4), "red"), _painted(), pnginfo=notes)
    assert (made.format, made.mode) == ("PNG", "RGBA")
    assert (made.getpixel((0, 0)), made.getpixel((7, 3))) == ((255, 0, 0, 0), (255, 0, 0, 255))
    assert made.text == {"workflow": '{"nodes": []}'}  # type: ignore[attr-defined]


def test_an_alpha_that_is_there_is_replaced_and_a_mask_without_one_is_opaque() -> None:
    assert _put(_painted(), Image.new("RGB", (8, 4))).getchannel("A").getextrema() == (255, 255)


def test_notes_beyond_a_million_characters_are_left_out() -> None:
    notes = PngInfo()
    for index in range(3):
        notes.add_text(f"a{index}", "x" * 500_000)
    made = _put(Image.new("RGB", (8, 4), "red"), _painted(), pnginfo=notes)
    assert set(made.text) == {"a0", "a1"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["image", "mask"])
def test_a_file_that_is_no_picture_is_named(name: str) -> None:
    files = {"image": _png(_painted()), "mask": _png(_painted()), name: io.BytesIO(b"no picture")}
    with pytest.raises(InputError) as caught:
        put_alpha(files, {"image": io.BytesIO()})
    assert caught.value.name == name


def test_a_mask_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(InputError, match="it is 4x4, and the picture 8x4") as caught:
        _put(_painted(), Image.new("RGB", (4, 4)))
    assert caught.value.name == "mask"


def test_one_channel_alone() -> None:
    colours, alpha = io.BytesIO(), io.BytesIO()
    channel(_png(_painted()), colours, "rgb")
    channel(_png(_painted()), alpha, "a")
    assert (Image.open(colours).mode, Image.open(colours).getpixel((0, 0))) == ("RGB", (1, 2, 3))
    assert [Image.open(alpha).getpixel((x, 0)) for x in (0, 7)] == [(0, 0, 0, 0), (0, 0, 0, 255)]
    opaque = io.BytesIO()
    channel(_png(Image.new("L", (2, 2))), opaque, "a")
    assert Image.open(opaque).getchannel("A").getextrema() == (255, 255)


async def test_in_the_child(tmp_path: Path) -> None:
    for name, image in (("image", Image.new("RGB", (8, 4), "red")), ("mask", _painted())):
        (tmp_path / name).write_bytes(_png(image).getvalue())
    with (
        (tmp_path / "image").open("rb") as image_file,
        (tmp_path / "mask").open("rb") as mask,
        (tmp_path / "made").open("w+b") as output,
    ):
        await child.put_alpha(image_file, mask, output)
        assert Image.open(output).getpixel((0, 0)) == (255, 0, 0, 0)
        with (tmp_path / "alone").open("w+b") as alone:
            await child.channel(output, alone, "a")
            assert Image.open(alone).getpixel((0, 0)) == (0, 0, 0, 0)
    (tmp_path / "mask").write_bytes(b"no picture")
    with (
        (tmp_path / "image").open("rb") as image_file,
        (tmp_path / "mask").open("rb") as mask,
        (tmp_path / "made").open("w+b") as output,
        pytest.raises(MediaError),
    ):
        await child.put_alpha(image_file, mask, output)


# --- previews


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "opaque", "made"),
    [
        ("RGB", "red", "webp", False, "RGB"),
        ("RGBA", (255, 0, 0, 0), "webp", False, "RGBA"),
        ("RGBA", (255, 0, 0, 0), "webp", True, "RGB"),
        ("RGBA", (255, 0, 0, 0), "jpeg", False, "RGB"),
        ("P", 0, "webp", False, "RGB"),
        ("L", 200, "jpeg", False, "RGB"),
        ("I;16", 40000, "webp", False, "RGB"),
        ("CMYK", (0, 255, 255, 0), "jpeg", False, "RGB"),
    ],
)
def test_a_preview_of_any_picture(mode: str, colour: object, kind: str, opaque: bool, made: str) -> None:
    file, output = io.BytesIO(), io.BytesIO()
    Image.new(mode, (8, 4), colour).save(file, format="TIFF" if mode == "CMYK" else "PNG")  # type: ignore[arg-type]
    preview(file, output, kind, 90, opaque)
    found = Image.open(output)
    assert (found.format, found.mode, found.size) == (kind.upper(), made, (8, 4))
    if mode == "I;16":
        assert abs(found.getpixel((0, 0))[0] - 40000 / 257) < 3  # type: ignore[index]


def test_a_preview_of_lower_quality_is_smaller() -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    sizes = []
    for quality in (5, 90):
        output = io.BytesIO()
        preview(_png(noise), output, "webp", quality, False)
        sizes.append(len(output.getvalue()))
    assert sizes[0] < sizes[1]


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(MediaError, match="4097x4096"):
        preview(_png(Image.new("1", (4097, 4096))), io.BytesIO(), "webp", 90, False)


async def test_the_largest_picture_fits_into_what_a_gateway_gives_its_child(tmp_path: Path) -> None:
    path, out = tmp_path / "large.png", tmp_path / "out"
    Image.new("RGBA", (4096, 4096), (9, 8, 7, 6)).save(path, compress_level=1)
    with path.open("rb") as file, path.open("rb") as mask, out.open("w+b") as output:
        await child.put_alpha(file, mask, output, LIMITS)
        await child.preview(file, output, "webp", 90, opaque=True, limits=LIMITS)
        await child.channel(file, output, "a", LIMITS)
    tight = replace(LIMITS, data_bytes=128 * 1024**2)
    with path.open("rb") as file, out.open("w+b") as output, pytest.raises(MediaError):
        await child.preview(file, output, "webp", 90, opaque=False, limits=tight)
