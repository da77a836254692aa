"""Lists and uploads of WaveSpeed, forms of OpenAI, the sample picture of RunComfy."""

from __future__ import annotations

import io
from datetime import timedelta

from PIL import Image

from kinora.gateway.files import Upload
from kinora.gateway.jobs import State
from kinora.gateway.mapping import parse
from kinora.gateway.openai.forms import canonical, nested
from kinora.gateway.runcomfy.sample import picture
from kinora.gateway.wavespeed.listing import Query, select
from kinora.gateway.wavespeed.uploads import ticketed

from .hosted import SUBMITTED, job


def test_a_forms_bracketed_names_are_objects() -> None:
    assert nested([("prompt", "a"), ("video[id]", "x"), ("v[a][b]", "c")]) == {
        "prompt": "a",
        "video": {"id": "x"},
        "v[a][b]": "c",
    }
    assert nested([("video", "x"), ("video[id]", "y")]) == {"video": "x"}


def test_two_requests_are_the_same_by_their_fields_and_file() -> None:
    first, second = Upload("t/1", "1", 5), Upload("t/2", "2", 5)
    assert canonical({"a": 1, "b": 2}, first) == canonical({"b": 2, "a": 1}, first)
    assert len({canonical({"a": 1}, first), canonical({"a": 1}, second), canonical({"a": 1}, None)}) == 3


def test_the_sample_picture_is_a_small_picture_of_our_own() -> None:
    with Image.open(io.BytesIO(picture())) as found:
        assert (found.format, found.size) == ("PNG", (480, 640))
    assert len(picture()) < 64 * 1024


def test_a_page_of_predictions_is_what_matches_in_the_order_given() -> None:
    jobs = [job(id="a"), job(State.SUCCEEDED, id="b", note={"model": "x/y"}), job(State.CANCELLED, id="c")]

    def ids(**asked: object) -> list[str]:
        return [one.id for one in select(jobs, parse(Query, asked)).jobs]

    assert ids() == ["a", "b", "c"]
    assert ids(page=2, page_size=2) == ["c"]
    assert ids(status="failed") == ["c"]
    assert ids(model="x/y") == ["b"]
    assert ids(model="wan2.1-vace-14b") == ["a", "b", "c"]
    later = (SUBMITTED + timedelta(seconds=1)).isoformat()
    assert (ids(created_after=later), ids(created_before=later)) == ([], ["a", "b", "c"])
    naive = SUBMITTED.replace(tzinfo=None).isoformat()
    assert ids(created_after=naive) == ["a", "b", "c"]
    assert select(jobs, parse(Query, {"page": 9})).total == 3


def test_a_ticket_says_how_the_file_is_put_and_what_it_is_called_afterwards() -> None:
    data = ticketed("https://h/put", "https://h/get").model_dump()["data"]
    assert data == {
        "upload": {"method": "PUT", "url": "https://h/put", "headers": {}},
        "download_url": "https://h/get",
    }
