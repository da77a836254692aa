"""Weights from a real S3 server, which verifies every signature."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kinora.api.modelserver import WeightSource
from kinora.catalogue.load import load_catalogue
from kinora.weights.faults import Permanent
from kinora.weights.fetch import Request, fetch
from kinora.weights.sources import Credentials, Rules, read_sources
from kinora.weights.tiny import write_demo_weights
from kinora.weights.transfer import Pace
from s3server import ACCESS_KEY, S3Server, s3_server

pytestmark = pytest.mark.integration
WHOLE = load_catalogue().get("wan2.1-vace-1.3b")
assert WHOLE is not None
MODEL = WHOLE.model_copy(update={"weights": tuple(weight for weight in WHOLE.weights if weight.preset is None)})
PACE = Pace(tries=2, first_pause=0.01)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[S3Server]:
    """A bucket `films` with the model's demo files under a key that needs encoding."""
    write_demo_weights(MODEL, tmp_path / "s3/films/wan (2.1)+é")
    with s3_server(tmp_path / "s3") as server:
        yield server


def request(bucket: S3Server, root: Path, credentials: Credentials, **s3: Any) -> Request:
    root.mkdir(exist_ok=True)
    given = [
        WeightSource.model_validate(
            {
                "name": weight.path,
                "url": f"s3://films/wan (2.1)+é/{weight.path}",
                "secretName": "bucket",
                "s3": {"endpoint": bucket.endpoint, **s3},
            }
        )
        for weight in MODEL.weights
    ]
    sources = read_sources(given, MODEL, Rules(allow_http=True))
    return Request(MODEL, root, tuple(sources), credentials={"bucket": credentials}, allow_http=True, pace=PACE)


async def test_signed_requests_bring_every_file(bucket: S3Server, tmp_path: Path) -> None:
    credentials = Credentials(access_key=ACCESS_KEY, secret_key=bucket.secret)
    reports = await fetch(request(bucket, tmp_path / "here", credentials))
    assert [report.outcome for report in reports] == ["Fetched"] * 3
    assert [report.outcome for report in await fetch(request(bucket, tmp_path / "here", credentials))] == ["Kept"] * 3


@pytest.mark.parametrize(
    ("credentials", "more"),
    [
        (Credentials(access_key=ACCESS_KEY, secret_key="wrong"), {}),
        (Credentials(access_key="nobody", secret_key="x"), {}),
        (Credentials(), {}),
        (None, {"region": "eu-north-7"}),
    ],
)
async def test_a_wrong_signature_is_refused_by_the_server_and_told(
    bucket: S3Server, tmp_path: Path, credentials: Credentials | None, more: dict[str, str]
) -> None:
    credentials = credentials or Credentials(access_key=ACCESS_KEY, secret_key=bucket.secret)
    with pytest.raises(Permanent, match=r"s3://films/wan .*: the server answers 40[034]"):
        await fetch(request(bucket, tmp_path / "here", credentials, **more))
    assert bucket.secret not in str(credentials)
