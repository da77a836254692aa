"""A store as a ModelServer's spec and what is mounted open it."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from integration.storage.signing import PACE
from kinora.api.s3store import S3Store as S3Spec
from kinora.storage.opened import Mounts, opened_bucket
from kinora.storage.store import StoreError
from s3server import ACCESS_KEY, s3_server

pytestmark = pytest.mark.integration


def certificate(folder: Path) -> None:
    """A certificate of 127.0.0.1 that nobody but its own file vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes this test's certificate, and is not here")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=s3.test"
        f" -addext subjectAltName=IP:127.0.0.1 -keyout {folder}/key -out {folder}/crt"
    )
    subprocess.run(command.split(), check=True, capture_output=True)


async def test_a_store_is_opened_as_its_spec_says_with_what_is_mounted(tmp_path: Path) -> None:
    certificate(tmp_path)
    with s3_server(tmp_path / "s3", tls=tmp_path) as server:
        told = {"bucket": "films", "endpoint": f"https://127.0.0.1:{server.port}", "secretName": "s", "prefix": "p"}
        trusting = S3Spec.model_validate({**told, "caConfigMap": {"name": "trust", "key": "crt"}})
        (tmp_path / "accessKeyID").write_text(ACCESS_KEY)
        (tmp_path / "secretAccessKey").write_text(server.secret)
        mounts = Mounts(secret=tmp_path, ca=tmp_path, scratch=tmp_path)
        async with opened_bucket(trusting, mounts) as store:
            assert (await store.put("a.mp4", io.BytesIO(b"x"))).uri == "s3://films/p/a.mp4"
        async with opened_bucket(S3Spec.model_validate(told), mounts, pace=PACE) as store:
            with pytest.raises(StoreError, match=r"certificate is not trusted; set artifacts\.s3\.caConfigMap"):
                await store.size("a.mp4")
        async with opened_bucket(trusting, replace(mounts, secret=tmp_path / "none")) as store:
            with pytest.raises(StoreError, match="no accessKeyID and secretAccessKey"):
                await store.put("b.mp4", io.BytesIO(b"x"))
