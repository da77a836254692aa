"""How fast `kinora weights fetch` is beside curl: a 2 GB file from a server on 127.0.0.1 that is not the limit.

Usage: python tests/bench/fetch.py [--mb 2000] [--runs 5] [--folder /dev/shm] [--connections 4]
Runs of both alternate, each a whole process. fetch hashes (sha256), checks the header, syncs and renames; curl only
writes. Where the folder is on a disk, curl is measured a second time with the sync that fetch does as well. The server
is nginx (the machine's, or Debian's package, unpacked beside the files), else one made of sendfile. The target is 80 %.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kinora.catalogue.load import load_catalogue
from kinora.weights.tiny import demo_file, write_demo_weights

MODEL = "wan2.1-vace-1.3b"
TARGET = 0.8
CONFIGURATION = """
{user}daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; sendfile_max_chunk 1m; tcp_nopush on;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def write_source(path: Path, megabytes: int) -> int:
    """A file that the catalogue takes for the model's, with one tensor of random bytes more. Its size."""
    model = load_catalogue().get(MODEL)
    assert model is not None
    demo = demo_file(model, model.weights[0])
    length = int.from_bytes(demo[:8], "little")
    header, data = json.loads(demo[8 : 8 + length]), demo[8 + length :]
    filler = megabytes * 1_000_000 - len(demo)
    header["filler"] = {"dtype": "U8", "shape": [filler], "data_offsets": [len(data), len(data) + filler]}
    text = json.dumps(header).encode()
    block = os.urandom(64 << 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)
        for at in range(0, filler, len(block)):
            file.write(block[: min(len(block), filler - at)])
    return path.stat().st_size


@contextlib.contextmanager
def served(root: Path, scratch: Path) -> Iterator[tuple[str, str]]:
    """Serve the folder; its address, and by what."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nginx = shutil.which("nginx") or unpacked_nginx(scratch)
    if nginx:
        configuration = scratch / "nginx.conf"
        user = "user root; " if os.geteuid() == 0 else ""  # its worker would be nobody, who may not read here
        configuration.write_text(CONFIGURATION.format(user=user, folder=scratch, port=port, root=root))
        command = [nginx, "-e", str(scratch / "errors"), "-c", str(configuration)]
    else:
        command = [sys.executable, __file__, "--serve", str(root), str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while subprocess.run(["curl", "-s", f"http://127.0.0.1:{port}/"], capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server does not start")
        yield f"http://127.0.0.1:{port}", "nginx" if nginx else "sendfile"
    finally:
        process.terminate()
        process.wait()


def unpacked_nginx(scratch: Path) -> str | None:
    """Debian's nginx, fetched and unpacked without installing it; None where that cannot be."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return None
    fetched = subprocess.run(["apt-get", "download", "nginx"], cwd=scratch, capture_output=True, check=False)
    packages = list(scratch.glob("nginx_*.deb"))
    if fetched.returncode or not packages:
        return None
    subprocess.run(["dpkg", "-x", str(packages[0]), str(scratch / "nginx")], check=True)
    program = scratch / "nginx/usr/sbin/nginx"
    works = subprocess.run([str(program), "-v"], capture_output=True, check=False).returncode == 0
    return str(program) if works else None


async def serve(root: Path, port: int) -> None:
    """GET and Range by sendfile."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                file = root / head.split(" ", 2)[1].lstrip("/")
                if not file.is_file():
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                size = file.stat().st_size
                wanted = re.search(r"(?im)^range: bytes=(\d+)-(\d*)", head)
                start = int(wanted[1]) if wanted else 0
                end = int(wanted[2]) + 1 if wanted and wanted[2] else size
                told = f"206 Partial Content\r\nContent-Range: bytes {start}-{end - 1}/{size}" if wanted else "200 OK"
                writer.write(f'HTTP/1.1 {told}\r\nETag: "one"\r\nContent-Length: {end - start}\r\n\r\n'.encode())
                with file.open("rb") as opened:
                    await asyncio.get_running_loop().sendfile(writer.transport, opened, start, end - start)

    async with await asyncio.start_server(answer, "127.0.0.1", port) as server:
        await server.serve_forever()


def fetched(url: str, into: Path, connections: int) -> float:
    """Seconds of `kinora weights fetch`, as a whole process."""
    command = [sys.executable, "-m", "kinora.cli", "weights", "fetch", MODEL, "--into", str(into), "--allow-http"]
    command += ["--source", f"diffusion={url}", "--connections", str(connections)]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def curled(url: str, target: Path, *, sync: bool) -> float:
    """Seconds of `curl -o`."""
    began = time.perf_counter()
    subprocess.run(["curl", "-sf", "-o", str(target), url], check=True)
    if sync:
        subprocess.run(["sync", str(target)], check=True)
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    model = load_catalogue().get(MODEL)
    assert model is not None
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root, scratch, into = (Path(name) / part for part in ("root", "scratch", "into"))
        scratch.mkdir()
        write_demo_weights(model, into)
        (into / model.weights[0].path).unlink()
        size = write_source(root / "file.safetensors", options.mb)
        with served(root, scratch) as (address, by):
            url, target = f"{address}/file.safetensors", Path(name) / "curled"
            rates: dict[str, list[float]] = {"fetch": [], "curl": [], "curl + sync": []}
            for run in range(options.runs + 1):  # the first fills caches
                took = {
                    "fetch": fetched(url, into, options.connections),
                    "curl": curled(url, target, sync=False),
                    "curl + sync": curled(url, target, sync=True),
                }
                (into / model.weights[0].path).unlink()
                if run:
                    for what, seconds in took.items():
                        rates[what].append(size / seconds / 1e6)
                    print("  ".join(f"{what} {size / seconds / 1e6:5.0f} MB/s" for what, seconds in took.items()))
        mine = statistics.median(rates["fetch"])
        for what in ("curl", "curl + sync"):
            ratio = mine / statistics.median(rates[what])
            print(
                f"{size / 1e9:.1f} GB from {by}, medians of {options.runs}: fetch {mine:.0f} MB/s, {what}"
                f" {statistics.median(rates[what]):.0f} MB/s, ratio {ratio:.2f} ({ratio / TARGET:.2f} of the target)"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
