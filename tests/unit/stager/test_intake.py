"""Bringing inputs into a store: what fails, how it is told, what is not done twice. Web server and store are real."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from PIL import Image

from kinora.api.stagerconfig import Limits
from kinora.api.videojob import Source
from kinora.media.child import IsolationError
from kinora.media.info import MediaError, MediaInfo
from kinora.recipes.needs import MediaKind, NamedInput
from kinora.stager.decide import Found
from kinora.stager.intake import Intake, probe_in_child
from kinora.stager.metrics import Metrics
from kinora.stager.verdict import Delayed, Rejected
from kinora.storage.drafts import Draft
from kinora.storage.guard.fetch import GuardedFetcher
from kinora.storage.guard.policy import Policy
from kinora.storage.inputs import PvcInputs
from rawserver import Server, file_answer, listening

UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
INFO = MediaInfo("Image", 2, 2, 1, 0.0, 0.0, "PNG")


def png(colour: str) -> bytes:
    content = BytesIO()
    Image.new("RGB", (64, 48), colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
async def web() -> AsyncIterator[Server]:
    async with listening() as server:
        server.answers["/red"] = file_answer(png("red"), "image/png")
        yield server


async def looked(file: BinaryIO) -> MediaInfo:
    assert file.read(4) == b"\x89PNG"
    return INFO


def intake(root: Path, web: Server, probe: Any = looked, **limits: Any) -> Intake:
    policy = Policy.of(networks=["127.0.0.1/32"], ports=[web.port])
    store = PvcInputs(root, "videos", "films")
    return Intake(store, GuardedFetcher(policy), limits=Limits(**limits), parallel=2, metrics=Metrics(), probe=probe)


def wanted(web: Server, path: str = "/red", name: str = "image") -> NamedInput:
    url = f"http://127.0.0.1:{web.port}{path}?Signature=secret"
    return NamedInput(name, MediaKind.IMAGE, Source(url=url))


def notes(root: Path) -> str:
    """What the stager has noted, as text."""
    return "".join(path.read_text() for path in root.rglob("*.json"))


async def test_an_image_is_stored_under_its_hash_and_known_the_next_time(tmp_path: Path, web: Server) -> None:
    sha256 = hashlib.sha256(png("red")).hexdigest()
    for _ in range(2):  # the second one is another stager: it has only the store
        found, errors = await intake(tmp_path, web, probe_in_child).bring(UID, [wanted(web)])
        assert errors == []
        assert found["image"].sha256 == sha256
        assert (found["image"].info.width, found["image"].info.codec) == (64, "PNG")
    assert len(web.requests) == 1
    assert "secret" not in notes(tmp_path)


async def test_another_url_under_the_same_name_is_fetched(tmp_path: Path, web: Server) -> None:
    web.answers["/blue"] = file_answer(png("blue"), "image/png")
    await intake(tmp_path, web).bring(UID, [wanted(web)])
    found, _ = await intake(tmp_path, web).bring(UID, [wanted(web, "/blue")])
    assert found["image"].sha256 == hashlib.sha256(png("blue")).hexdigest()


async def test_an_object_that_is_gone_is_fetched_again(tmp_path: Path, web: Server) -> None:
    first, _ = await intake(tmp_path, web).bring(UID, [wanted(web)])
    (tmp_path / "inputs" / first["image"].sha256).unlink()
    again, errors = await intake(tmp_path, web).bring(UID, [wanted(web)])
    assert (again, errors, len(web.requests)) == (first, [], 2)


async def test_one_bad_input_does_not_keep_the_others_from_the_store(tmp_path: Path, web: Server) -> None:
    web.answers["/gone"] = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
    web.answers["/busy"] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    names = ["/red", "/gone", "/busy"]
    inputs = [wanted(web, path, f"references[{index}]") for index, path in enumerate(names)]
    found, errors = await intake(tmp_path, web).bring(UID, inputs)
    assert list(found) == ["references[0]"]
    assert [type(error) for error in errors] == [Rejected, Delayed]
    assert str(errors[0]).startswith("spec.inputs.references[1].url is a URL that the server answers with 410")
    assert str(errors[1]) == "spec.inputs.references[2].url: the server answered 503"


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (
            MediaError("no decoder"),
            Rejected,
            "spec.inputs.image.url is a file of 207 bytes: no decoder; allowed: one image",
        ),
        (
            IsolationError("the media child did not start"),
            Delayed,
            "cannot be stored now: the media child did not start",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/kinora/artifacts/x"), Delayed, "No space left on device"),
        (ZeroDivisionError("/kinora/secret"), Delayed, "the stager failed: ZeroDivisionError"),
    ],
)
async def test_what_goes_wrong_is_a_verdict_without_a_path(
    tmp_path: Path, web: Server, raised: Exception, kind: type[Exception], words: str
) -> None:
    async def fails(file: BinaryIO) -> MediaInfo:
        raise raised

    web.answers["/red"] = file_answer(b"x" * 207, "image/png")
    found, [error] = await intake(tmp_path, web, fails).bring(UID, [wanted(web)])
    assert (found, type(error)) == ({}, kind)
    assert words in str(error)
    assert "spec.inputs.image.url" in str(error)
    assert "/kinora" not in str(error)
    assert list((tmp_path / "inputs").iterdir()) == []


async def test_a_store_that_fails_delays(tmp_path: Path, web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Draft, sha256: str) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Draft, "_keep", full)
    _, [error] = await intake(tmp_path, web).bring(UID, [wanted(web)])
    assert str(error) == "spec.inputs.image.url cannot be stored now: No space left on device"


async def test_an_upload_is_copied_whole_and_no_larger_than_allowed(tmp_path: Path, web: Server) -> None:
    folder = tmp_path / "uploads/films"
    folder.mkdir(parents=True)
    (folder / "red.png").write_bytes(png("red"))
    one = NamedInput("image", MediaKind.IMAGE, Source(upload="red.png"))
    found, errors = await intake(tmp_path, web).bring(UID, [one])
    assert errors == []
    assert found["image"] == Found(hashlib.sha256(png("red")).hexdigest(), len(png("red")), INFO)
    _, [error] = await intake(tmp_path, web, max_bytes=10).bring("another", [one])
    assert isinstance(error, Rejected)
    assert str(error) == "spec.inputs.image.upload is more than 10 bytes; allowed: at most 10 bytes"
