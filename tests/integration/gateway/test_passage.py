"""Files pass through gateway and stager, processes of their own: 200 MB each way, and one of the two is killed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
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
from waiting import until, wait_for

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


@dataclass
class Passage:
    """A gateway and a stager as processes of their own, and a client of the routes under /files."""

    gateway: asyncio.subprocess.Process
    stager: asyncio.subprocess.Process
    client: httpx.AsyncClient
    key: bytes
    tenant: Tenant

    def token(self, kind: Kind, *what: str | int) -> str:
        """A link as the gateway signs it."""
        tenant, until = self.tenant, int(time.time()) + 600  # an account's: no key of the Secret is asked for
        return links.token(self.key, Grant(kind, tenant.name, tenant.namespace, what, until, account=True))

    async def put(self, name: str, content: AsyncIterator[bytes] | bytes) -> httpx.Response:
        """The file of a ticket."""
        token = self.token(Kind.PUT, f"t/{name}", 1 << 30, 1 << 30)
        return await self.client.put(f"/uploads/{name}", params={"token": token}, content=content)


async def start_gateway(bench: StagerBench, cluster: Cluster, port: int) -> asyncio.subprocess.Process:
    told = {
        "namespace": bench.namespace,
        "port": port,
        "adminPort": free_port(),
        "storeUrl": f"http://127.0.0.1:{bench.store_ports[0]}",
        "kubeconfig": cluster.kubeconfig,
    }
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, json.dumps(told, default=str), env=os.environ, stderr=asyncio.subprocess.DEVNULL
    )
    bench.processes.append(gateway)
    return gateway


@pytest.fixture
async def passage(bench: StagerBench, cluster: Cluster) -> AsyncIterator[Passage]:
    stager, port = await bench.start(), free_port()
    gateway = await start_gateway(bench, cluster, port)
    found = await wait_for(bench.kube, SECRET, bench.namespace, "kinora-gateway", lambda one: one is not None, 60)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/files", timeout=120) as client:
        made = Passage(gateway, stager, client, keys_in(found)[0], Tenant("a", bench.namespace))
        await _until_ready(client, made.token(Kind.UPLOAD, "nothing"))
        yield made


async def test_a_large_file_passes_through_both_without_lying_in_their_memory(passage: Passage) -> None:
    assert (await passage.put("warm", b"warm")).status_code == 200
    before = {process.pid: most_memory(process.pid) for process in (passage.gateway, passage.stager)}
    assert (await passage.put("film", film())).status_code == 200
    policy, _, signature = passage.token(Kind.FORM, "t", 1 << 30, 1 << 30).partition(".")
    fields = {"key": f"kinora/{passage.tenant.digest}/t/film", "policy": policy, "Signature": signature}
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    posted = await passage.client.post("/oss", content=form(fields), headers=kind)
    assert posted.status_code == 200, "the same content"
    digest, size = hashlib.sha256(), 0
    get = {"token": passage.token(Kind.UPLOAD, "t/film")}
    async with passage.client.stream("GET", "/uploads/film", params=get) as answer:
        async for chunk in answer.aiter_raw():
            digest.update(chunk)
            size += len(chunk)
    growth = {pid: most_memory(pid) - was for pid, was in before.items()}
    assert (size, digest.hexdigest()) == (SIZE, await film_digest())
    print(f"growth of gateway and stager: {[round(one / 1e6, 1) for one in growth.values()]} MB")
    assert all(one < MOST_GROWTH for one in growth.values()), growth


@pytest.mark.parametrize("whose", ["gateway", "stager"])
async def test_a_process_killed_in_mid_upload_leaves_nothing_and_its_next_one_takes_the_file(
    passage: Passage, bench: StagerBench, cluster: Cluster, whose: str
) -> None:
    half, rest = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        block = bytes(1 << 20)
        for _ in range(3):
            yield block
        half.set()
        await rest.wait()
        yield block

    sending = asyncio.create_task(passage.put("film", slowly()))
    await asyncio.wait_for(half.wait(), 60)
    folder = bench.store() / "uploads"
    await until(lambda: any(path.stat().st_size for path in folder.rglob(".*.draft")), 60)
    victim: asyncio.subprocess.Process = getattr(passage, whose)
    victim.kill()
    await victim.wait()
    rest.set()
    outcome = (await asyncio.gather(sending, return_exceptions=True))[0]
    assert isinstance(outcome, httpx.TransportError) or (
        isinstance(outcome, httpx.Response) and outcome.status_code == 503
    )
    assert [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")] == []
    if whose == "gateway":
        await start_gateway(bench, cluster, int(passage.client.base_url.port or 0))
    else:
        await bench.start(store_port=bench.store_ports[0])
    await _until_ready(passage.client, passage.token(Kind.UPLOAD, "nothing"))
    assert (await passage.put("film", bytes(4 << 20))).status_code == 200
    await until(lambda: not list(folder.rglob(".*.draft")), 60)  # a stager that starts sweeps


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
