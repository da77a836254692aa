"""The alpha of pictures: put on, and looked at alone."""

import io
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kinora.media import child
from kinora.media.alpha import channel, put_alpha
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
