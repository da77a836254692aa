"""Files pass through gateway and stager without lying in their memory: both processes of their own, 200 MB each way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from integration.conftest import free_port
from integration.stager.bench import StagerBench
from kinora.gateway import links
from kinora.gateway.links import Grant, Kind
from kinora.gateway.tenants import Tenant
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import SECRET
from kinora.kube.secret_keys import keys_in
from kinora_cluster import Cluster
from rawserver import listening
from waiting import wait_for

pytestmark = pytest.mark.integration
SIZE, BLOCK = 200_000_000, 100_000
MOST_GROWTH = 64 * 1024 * 1024  # bytes: a third of the file, and several times what was measured
PROGRAM = """
import asyncio, json, sys
from kinora.gateway.main import serve
from kinora.gateway.settings import GatewayValues, Settings
from kinora.kube.config import connect

told = json.loads(sys.argv[1])
settings = Settings(
    namespace=told["namespace"], namespaces=(told["namespace"],), host="127.0.0.1", port=told["port"],
    admin_port=told["adminPort"], values=GatewayValues(storeUrl=told["storeUrl"], drainSeconds=0),
)
asyncio.run(serve(settings, connect(told["kubeconfig"]), asyncio.Event()))
"""


def most_memory(pid: int) -> int:
    """The most that the process has had resident, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


async def film() -> AsyncIterator[bytes]:
    block = bytes(range(250)) * (BLOCK // 250)
    for number in range(SIZE // BLOCK):
        yield number.to_bytes(8, "big") + block[8:]


async def film_digest() -> str:
    digest = hashlib.sha256()
    async for chunk in film():
        digest.update(chunk)
    return digest.hexdigest()


async def form(fields: dict[str, str]) -> AsyncIterator[bytes]:
    """A form with the film as its file, as it comes."""
    for name, value in fields.items():
        yield f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="film"\r\n\r\n'
    async for chunk in film():
        yield chunk
    yield b"\r\n--b--\r\n"


@pytest.fixture
async def bench(kube: KubeClient, connection: Connection, namespace: str, tmp_path: Path) -> AsyncIterator[StagerBench]:
    async with listening() as web:
        made = StagerBench(kube, connection, namespace, web, tmp_path)
        await made.prepare()
        try:
            yield made
        finally:
            await made.close()


async def test_a_large_file_passes_through_both_without_lying_in_their_memory(
    bench: StagerBench, cluster: Cluster, kube: KubeClient, namespace: str
) -> None:
    stager, port = await bench.start(), free_port()
    told = {
        "namespace": namespace,
        "port": port,
        "adminPort": free_port(),
        "storeUrl": f"http://127.0.0.1:{bench.store_ports[0]}",
        "kubeconfig": cluster.kubeconfig,
    }
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, json.dumps(told, default=str), env=os.environ, stderr=asyncio.subprocess.DEVNULL
    )
    bench.processes.append(gateway)
    found = await wait_for(kube, SECRET, namespace, "kinora-gateway", lambda one: one is not None)
    key, tenant = keys_in(found)[0], Tenant("a", namespace)

    def token(kind: Kind, *what: str | int) -> str:
        return links.token(key, Grant(kind, tenant.name, namespace, what, int(time.time()) + 600))

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/files", timeout=120) as client:
        await _until_ready(client, token(Kind.UPLOAD, "nothing"))
        put = token(Kind.PUT, "t/warm", 1 << 30, 1 << 30)
        assert (await client.put("/uploads/warm", params={"token": put}, content=b"warm")).status_code == 200
        before = {process.pid: most_memory(process.pid) for process in (gateway, stager)}
        put = token(Kind.PUT, "t/film", 1 << 30, 1 << 30)
        assert (await client.put("/uploads/film", params={"token": put}, content=film())).status_code == 200
        policy, _, signature = token(Kind.FORM, "t", 1 << 30, 1 << 30).partition(".")
        fields = {"key": f"kinora/{tenant.digest}/t/film", "policy": policy, "Signature": signature}
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        assert (await client.post("/oss", content=form(fields), headers=kind)).status_code == 200, "the same content"
        digest, size = hashlib.sha256(), 0
        get = {"token": token(Kind.UPLOAD, "t/film")}
        async with client.stream("GET", "/uploads/film", params=get) as answer:
            async for chunk in answer.aiter_raw():
                digest.update(chunk)
                size += len(chunk)
        growth = {pid: most_memory(pid) - was for pid, was in before.items()}
    assert (size, digest.hexdigest()) == (SIZE, await film_digest())
    print(f"growth of gateway and stager: {[round(one / 1e6, 1) for one in growth.values()]} MB")
    assert all(one < MOST_GROWTH for one in growth.values()), growth


async def _until_ready(client: httpx.AsyncClient, token: str) -> None:
    """Wait for both: the gateway refuses connections, and then says 503 while the stager starts."""
    async with asyncio.timeout(60):
        while True:
            try:
                if (await client.get("/uploads/x", params={"token": token})).status_code == 404:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
