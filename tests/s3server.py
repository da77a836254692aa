"""A real S3 server that verifies signatures (versitygw, built by hack/s3-server.sh), on a folder of the test's own."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from kinora.s3.address import Bucket
from kinora.s3.credentials import Credentials
from kinora_cluster import ROOT
from ports import free_port
from waiting import DEADLINE

ACCESS_KEY = "AKIAKINORA"
BUCKET = "films"


@dataclass(frozen=True)
class S3Server:
    """The server, its one key, and the folder whose folders are its buckets."""

    port: int
    secret: str
    folder: Path

    @property
    def endpoint(self) -> str:
        """Scheme, address and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> Credentials:
        """What it takes."""
        return Credentials(ACCESS_KEY, self.secret)

    def bucket(self, *, port: int | None = None, prefix: str = "", public: str = "") -> Bucket:
        """Its bucket in path style. `port`: of a proxy before it."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        return Bucket(BUCKET, endpoint, "us-east-1", False, public or endpoint, prefix)

    def objects(self) -> list[str]:
        """The keys in the bucket, sorted."""
        root, found = self.folder / BUCKET, []
        for folder, _, names in os.walk(root):  # which minds no folder that the server removes meanwhile
            inner = Path(folder).relative_to(root)
            found += [str(inner / name) for name in names if ".sgwtmp" not in inner.parts]
        return sorted(found)

    def path(self, key: str) -> Path:
        """The file that is the object."""
        return self.folder / BUCKET / key


def program() -> Path:
    """The server's program; skips the test where it was not built."""
    version = re.search(r"^version=(\S+)", (ROOT / "hack/s3-server.sh").read_text(), re.MULTILINE)
    assert version is not None
    cache = os.environ.get("KINORA_CACHE", str(Path.home() / ".cache/kinora"))
    found = Path(cache, "bin", f"versitygw-{version[1]}", "versitygw")
    if not found.exists():
        pytest.skip(f"no S3 server here; {ROOT}/hack/s3-server.sh builds one")
    return found


@contextmanager
def s3_server(folder: Path, *, domain: str = "", tls: Path | None = None) -> Iterator[S3Server]:
    """A server on `folder`, with a bucket `films`. `domain`: buckets are named in the host beneath it.

    `tls`: a folder with `crt` and `key`; it serves https alone then.
    """
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    port = free_port()
    secret = secrets.token_hex(20)
    environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": secret}
    if domain:
        environment["VGW_VIRTUAL_DOMAIN"] = f"{domain}:{port}"
    command = [str(program()), "--port", f"127.0.0.1:{port}", "posix", str(folder)]
    if tls is not None:
        environment |= {"VGW_CERT": str(tls / "crt"), "VGW_KEY": str(tls / "key")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    # It tells of every request; a pipe that nobody reads fills up, and the server stands still.
    said: deque[str] = deque(maxlen=20)
    threading.Thread(target=said.extend, args=(process.stdout,), daemon=True).start()
    try:
        _wait_until_it_listens(process, port, said)
        yield S3Server(port, secret, folder)
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_listens(process: subprocess.Popen[str], port: int, said: deque[str]) -> None:
    """It says where it listens before it does."""
    deadline = time.monotonic() + DEADLINE
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=DEADLINE):
            return
        assert process.poll() is None, "".join(said)
        assert time.monotonic() < deadline, f"the S3 server does not listen after {DEADLINE} s: {''.join(said)}"
        time.sleep(0.01)
