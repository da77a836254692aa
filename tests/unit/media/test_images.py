"""normalise_image: upright, opaque, eight bits."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinora.media import child
from kinora.media.images import normalise_image
from kinora.media.info import MediaError, Normalised


def _normalised(image: Image.Image, kind: str = "PNG", **options: object) -> tuple[Normalised, Image.Image]:
    source, output = io.BytesIO(), io.BytesIO()
    image.save(source, format=kind, **options)  # type: ignore[arg-type]
    return normalise_image(source, output), Image.open(output)


def _halves() -> Image.Image:
    """Red left, blue right."""
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    return image


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "1", "P"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    found, image = _normalised(_halves().convert(mode), kind)
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (40, 20))
    assert found == Normalised(40, 20)


def test_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    found, image = _normalised(_halves(), exif=exif)
    assert image.size == (20, 40)
    assert image.getpixel((10, 5)) == (255, 0, 0)
    assert image.getpixel((10, 35)) == (0, 0, 255)
    assert found.actions == ("turned upright (EXIF)",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_flattened_on_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    found, flat = _normalised(image)
    assert flat.getpixel((1, 1)) == (255, 255, 255)
    assert found.actions == ("flattened on white",)


def test_sixteen_bits_are_scaled() -> None:
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    found, image = _normalised(Image.fromarray(values))
    assert image.getpixel((0, 0)) == (0, 0, 0)
    assert image.getpixel((15, 15)) == (255, 255, 255)
    assert abs(image.getpixel((0, 8))[0] - 128) <= 1  # type: ignore[index, operator]
    assert found.actions == ("reduced to 8 bits",)


def test_animations_and_bombs_are_refused() -> None:
    source = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(source, "GIF", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    with pytest.raises(MediaError, match="animated GIF"):
        normalise_image(source, io.BytesIO())
    picture = io.BytesIO()
    _halves().save(picture, "PNG")
    with pytest.raises(MediaError, match="800 pixels, at most 700"):
        normalise_image(picture, io.BytesIO(), max_pixels=700)
    with pytest.raises(MediaError):
        normalise_image(io.BytesIO(b"no picture"), io.BytesIO())


async def test_in_the_child(tmp_path: Path) -> None:
    _halves().save(tmp_path / "in.jpg", quality=95)
    with (tmp_path / "in.jpg").open("rb") as file, (tmp_path / "out.png").open("xb") as output:
        assert await child.normalise_image(file, output) == Normalised(40, 20)
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (40, 20)
