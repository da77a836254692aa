"""The memory of a process that stores a large file, with keys and without."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from integration.storage.signing import MiB, signing
from s3server import S3Server

pytestmark = pytest.mark.integration


PROGRAM = """
import asyncio, io, sys
from contextlib import nullcontext
from pathlib import Path
from kinora.s3.address import Bucket
from kinora.s3.client import S3Client
from kinora.s3.credentials import Credentials
from kinora.storage.broker.signer import BrokerSigner, working_on
from kinora.storage.s3 import S3Store

def peak():  # not ru_maxrss, which begins with the peak of the process that this one was forked from
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))

async def main(endpoint, secret, path, broker, token):
    bucket = Bucket("films", endpoint, "us-east-1", False, endpoint)
    keys = lambda: Credentials("AKIAKINORA", secret if not broker else "none")
    asked = BrokerSigner(broker, bucket, Path(token)) if broker else nullcontext()
    async with asked as signer, S3Client(bucket, keys, signer=signer) as client:
        (work := working_on("cup", "uid", 1)).__enter__()
        store = S3Store(client)
        await store.put("small.mp4", io.BytesIO(b"all that is loaded once is loaded"))
        before = peak()
        with open(path, "rb") as file:
            stored = await store.put("large.mp4", file)
        back = await store.read_back("large.mp4")
        assert (back.bytes, back.sha256) == (stored.bytes, stored.sha256)
        print(stored.bytes, peak() - before)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("brokered", [False, True], ids=["keys", "broker"])
async def test_memory_does_not_grow_with_the_file(server: S3Server, tmp_path: Path, brokered: bool) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(MiB))
    async with signing(server, server.bucket()) as (url, token):
        who = [url if brokered else "", str(token)]
        command = [sys.executable, "-c", PROGRAM, server.endpoint, server.secret, str(path), *who]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    size, grown_kib = map(int, done.stdout.split())
    assert size == 300 * MiB
    print(f"{grown_kib} KiB more")
    assert grown_kib < 32 * 1024, f"{grown_kib} KiB more at the peak than before the upload"
