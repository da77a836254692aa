"""Agents without keys: what a stager signs for the token of a server pod, and what it refuses, on a real API server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from integration.stager.bench import StagerBench
from integration.stager.test_s3 import on_bucket
from integration.tokens import token
from kinora.api.names import STORE_AUDIENCE
from kinora.api.s3store import S3Store as S3Spec
from kinora.controller.modelserver.desired import service_account
from kinora.kube.client import KubeClient
from kinora.kube.resources import NAMESPACE, POD, SERVICE_ACCOUNT, TOKEN_REVIEW, VIDEOJOB
from kinora.s3.address import Bucket
from kinora.s3.client import Call, Pace
from kinora.s3.faults import S3Error
from kinora.storage.broker.asks import MAX_PARTS, MAX_PIECE, PATH
from kinora.storage.broker.signer import BrokerSigner, Patience, working_on
from kinora.storage.keys import artifact_key
from kinora.storage.opened import Mounts, opened_bucket
from kinora.storage.s3 import S3Store
from kinora.storage.store import NotStoredError, StoreError
from kinora_cluster import Cluster
from ports import free_port
from s3proxy import S3Proxy
from s3server import S3Server
from waiting import job_status, video_job

pytestmark = pytest.mark.integration
Object = dict[str, Any]
MiB = 1 << 20
PACE = Pace(first_pause=0.01, longest_pause=0.05)
PATIENCE = Patience(away=60, first_pause=0.02, longest_pause=0.2, answer=5, unknown=1)
SHA = "ab" * 32
STORE = "s3://films/department/"


@dataclass
class House:
    """A stager of a bucket, and two server pods with jobs."""

    bench: StagerBench
    server: S3Server
    spec: Object
    port: int
    pods: list[Object]
    token: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """A stager; it answers when this returns."""
        await self.bench.start(s3=self.spec, store_port=self.port)
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.post(f"{self.url}{PATH}"):
                        return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    def log(self) -> str:
        """What its stagers have logged."""
        return "".join(path.read_text() for path in self.bench.root.glob("stager-*.log"))

    async def stop(self) -> None:
        process = self.bench.processes[-1]
        process.kill()
        await process.wait()

    async def bound(self, name: str = "cup", pod: int = 0, status: Object | None = None, **spec: Any) -> Object:
        """A job that is Running in one of the pods."""
        await self.bench.kube.create(VIDEOJOB, self.bench.namespace, video_job(name, **spec))
        metadata = self.pods[pod]["metadata"]
        assignment = {"podName": metadata["name"], "podUID": metadata["uid"]}
        told = {"phase": "Running", "attempt": 1, "assignment": assignment, **(status or {})}
        return await job_status(self.bench.kube, self.bench.namespace, name, told)

    async def ask(self, job: Object, key: str, *, shown: str | None = None, **more: Any) -> tuple[int, Object]:
        """One ask, over HTTP; what is answered."""
        metadata = job["metadata"]
        claim = {"name": metadata["name"], "uid": metadata["uid"], "attempt": more.pop("attempt", 1)}
        body = {"job": claim, "action": "Look", "key": key, **more}
        headers = {"Authorization": f"Bearer {self.token if shown is None else shown}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}{PATH}", json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json()


@pytest.fixture
async def house(bench: StagerBench, server: S3Server, proxy: S3Proxy, tmp_path: Path) -> House:
    spec = await on_bucket(bench, server, proxy.port)
    account = await bench.kube.create(SERVICE_ACCOUNT, bench.namespace, service_account(bench.namespace))
    pods = []
    for name in ("vace-0", "vace-1"):
        containers = [{"name": "agent", "image": "kinora:test"}]
        body = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "serviceAccountName": account["metadata"]["name"], "containers": containers,
                "automountServiceAccountToken": False,
            },
        }  # fmt: skip
        pods.append(await bench.kube.create(POD, bench.namespace, body))
    made = House(bench, server, spec, free_port(), pods)
    made.token = await token(bench.kube, bench.namespace, "kinora-agent", pods[0], audience=STORE_AUDIENCE)
    await made.start()
    return made


def key_of(job: Object, filename: str = "cup.mp4", attempt: int = 1, index: int = 0) -> str:
    metadata = job["metadata"]
    return artifact_key(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"], attempt=attempt,
        filename=filename, index=index,
    )  # fmt: skip


@dataclass
class Working:
    """An agent's store, for one attempt, and what it was told of delays."""

    store: S3Store
    told: list[str | None]
    waits: asyncio.Event


@pytest.fixture
def agent(house: House, tmp_path: Path) -> Any:
    """The store of an agent as it opens it: no keys are mounted."""

    @asynccontextmanager
    async def opened(job: Object, pace: Pace = PACE, **more: Any) -> AsyncIterator[Working]:
        spec = S3Spec.model_validate(more.pop("spec", house.spec))
        (tmp_path / "token").write_text(more.pop("token", house.token))
        mounts = Mounts(secret=tmp_path / "nothing", token=tmp_path / "token", scratch=tmp_path)
        patience, told, waits = more.pop("patience", PATIENCE), [], asyncio.Event()

        def tell(words: str | None) -> None:
            told.append(words)
            waits.set()

        async with (
            BrokerSigner(house.url, Bucket.of(spec), mounts.token, patience) as signer,
            opened_bucket(spec, mounts, pace=pace, signer=signer) as store,
        ):
            with working_on(job["metadata"]["name"], job["metadata"]["uid"], 1, tell):
                yield Working(store, told, waits)

    return opened


# --- what works -------------------------------------------------------------------------------------------------------


async def test_a_video_in_parts_is_published_and_proven_without_keys(
    house: House, agent: Any, server: S3Server, proxy: S3Proxy, tmp_path: Path
) -> None:
    job, content = await house.bound(), os.urandom(36 * MiB + 5)
    key = key_of(job)
    (tmp_path / "video").write_bytes(content)
    async with agent(job) as working:
        with (tmp_path / "video").open("rb") as file:
            stored = await working.store.put(key, file)
            assert (stored.uri, stored.bytes, stored.created) == (f"{STORE}{key}", len(content), True)
            again = await working.store.put(key, file)
        assert (again.created, again.sha256) == (False, hashlib.sha256(content).hexdigest())
        with await working.store.open_read(key) as back:
            assert back.read() == content
    assert server.objects() == [f"department/{key}"]
    assert proxy.count("partNumber=") == 3
    assert not working.told
    asked = [URL(line.partition(" ")[2], encoded=True) for line in proxy.asked]
    agents = [url for url in asked if url.path.endswith("cup.mp4")]
    assert len(agents) > 8
    assert all("X-Amz-Signature" in url.query and url.query["X-Amz-Expires"] == "900" for url in agents)
    log = house.log()
    assert "X-Amz" not in log
    assert house.token not in log
    assert server.secret not in log


async def test_a_url_that_ended_on_its_way_is_asked_for_anew(house: House, agent: Any, proxy: S3Proxy) -> None:
    house.bench.url_seconds = 4  # the second one must do on a slow machine too; its time is cut to whole seconds
    await house.stop()
    await house.start()
    proxy.fail(lambda request: request.method == "PUT", "late")
    job = await house.bound()
    async with agent(job) as working:
        stored = await working.store.put(key_of(job), _file(b"x" * 1000))
    assert stored.created
    assert proxy.count("PUT ") == 2


def _file(content: bytes) -> io.BytesIO:
    return io.BytesIO(content)


async def test_inputs_and_artifacts_that_the_job_names_are_read(house: House, agent: Any, server: S3Server) -> None:
    done = await house.bound("done", pod=1, status={"phase": "Succeeded"})
    source = key_of(done)
    entry = {"uri": f"{STORE}{source}", "contentType": "video/mp4", "bytes": 3, "sha256": SHA}
    await job_status(house.bench.kube, house.bench.namespace, "done", {"artifacts": [entry]})
    for key in (f"inputs/{SHA}", source):
        path = server.path(f"department/{key}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"abc")
    inputs = {"image": {"url": "https://x.example/a.png"}}
    told = {"inputStore": STORE, "inputs": [{"name": "image", "sha256": SHA}]}
    pictured = await house.bound("pictured", task="ImageToVideo", inputs=inputs, status=told)
    edited = await house.bound("edited", task="VideoToVideo", inputs={"video": {"artifact": {"videoJobName": "done"}}})
    for job, key, other in ((pictured, f"inputs/{SHA}", source), (edited, source, f"inputs/{SHA}")):
        async with agent(job) as working:
            with await working.store.open_read(key) as file:
                assert file.read() == b"abc"
            with pytest.raises(StoreError, match="allowed: an output of this attempt, an input of the job"):
                await working.store.open_read(other)
            with pytest.raises(StoreError, match="allowed: an output of this attempt"):
                await working.store.create(key, _file(b"mine"))
            with pytest.raises(NotStoredError):
                await working.store.open_read(key_of(job))


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_only_the_pods_own_attempt_while_it_lasts(house: House) -> None:
    own, other = await house.bound("own"), await house.bound("other", pod=1)
    key = key_of(own)
    assert (await house.ask(own, key))[0] == 200
    ended = await house.bound("ended", status={"phase": "Failed"})
    given_up = await house.bound("given-up", status={"released": {"attempt": 1, "reason": "x", "time": _now()}})
    unknown = {"metadata": {**own["metadata"], "name": "nowhere"}}
    reborn = {"metadata": {**own["metadata"], "uid": "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"}}
    for job, code, more in (
        (other, "NotBoundHere", {}),
        (ended, "Ended", {}),
        (given_up, "GivenUp", {}),
        (unknown, "NoSuchJob", {}),
        (reborn, "NoSuchJob", {}),
        (own, "OtherAttempt", {"attempt": 2}),
    ):
        status, told = await house.ask(job, key_of(job), **more)
        assert (status, told["code"]) == (403, code), told
        assert "url" not in told
    for wrong in (
        key_of(other),
        key_of(own, attempt=2),
        key_of(own, index=8),
        f"inputs/{SHA}",
        f"uploads/{house.bench.namespace}/0123456789/{SHA}",
        f"intake/{house.bench.namespace}/x",
        f"{key}/more",
        key.replace("0-cup", "00-cup"),
        "kinora",
    ):
        for action in ("Look", "Read", "Uploads"):
            status, told = await house.ask(own, wrong, action=action)
            assert (status, told["code"]) == (403, "NotItsKey"), (wrong, told)
    for wrong in ("../x", "/x", "a//b", key.replace("/", "\\"), ".hidden"):
        assert (await house.ask(own, wrong))[0] == 400
    await job_status(house.bench.kube, house.bench.namespace, "own", {"phase": "Succeeded"})
    assert (await house.ask(own, key))[1]["code"] == "Ended", "no watch has to tell it first"


def _now() -> str:
    return "2026-05-01T12:00:00Z"


async def test_what_is_no_ask_is_refused_and_so_are_writes_that_are_not_create_only(house: House) -> None:
    job = await house.bound()
    key, md5 = key_of(job), base64.b64encode(bytes(16)).decode()
    create = {"action": "Create", "bytes": 3, "md5": md5, "sha256": SHA, "contentType": "video/mp4"}
    part = {"action": "Part", "upload": "u", "part": 1, "bytes": 3, "md5": md5}
    status, told = await house.ask(job, key, **create)
    assert status == 200
    signed = URL(told["url"], encoded=True).query["X-Amz-SignedHeaders"]
    assert signed == "content-length;content-md5;content-type;host;if-none-match;x-amz-meta-sha256"
    for wrong in (
        {**create, "bytes": MAX_PIECE + 1},
        {**create, "bytes": -1},
        {**create, "contentType": "text/html"},
        {**create, "contentType": "video/mp4\r\nx: y"},
        {**create, "md5": "x"},
        {**create, "upload": "u"},
        {name: value for name, value in create.items() if name != "md5"},
        {**part, "part": MAX_PARTS + 1},
        {**part, "part": 0},
        {**part, "bytes": MAX_PIECE + 1},
        {**part, "upload": "a b"},
        {**part, "anew": False},
        {"action": "Delete"},
        {"action": "Look", "query": {"versionId": "1"}},
        {"action": "Abort"},
    ):
        status, told = await house.ask(job, key, **wrong)
        assert (status, told["code"]) == (400, "Malformed"), (wrong, told)
    status, told = await house.ask(job, key, **create, anew=False)
    assert (status, told["code"]) == (403, "CreateOnly"), told
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {house.token}"}
        for body in (b"{", b"[]", b"x" * 20_000):
            async with session.post(f"{house.url}{PATH}", data=body, headers=headers) as answer:
                assert answer.status == 400
        async with session.get(f"{house.url}/v1/objects/{key}", headers=headers) as answer:
            assert answer.status == 401, "an agent's token opens nothing else of the service"


async def test_only_tokens_of_the_pods_own_account_and_for_this_are_known(house: House, kube: KubeClient) -> None:
    job, namespace = await house.bound(), house.bench.namespace
    key, pod = key_of(job), house.pods[0]

    async def answered(shown: str) -> tuple[int, str]:
        status, told = await house.ask(job, key, shown=shown)
        assert "url" not in told
        assert not shown or shown not in json.dumps(told)
        return status, told["code"]

    for shown in ("", "x", "a.b.c", f"{house.token}x", house.token[:-4] + "AAAA", "x" * 5_000 + ".a.b"):
        assert await answered(shown) == (401, "Unauthorized"), shown[:20]
    assert await answered(await token(kube, namespace, "kinora-agent", pod)) == (401, "Unauthorized"), "the server's"
    gateways = await token(kube, namespace, "kinora-agent", pod, audience="kinora")
    assert await answered(gateways) == (401, "Unauthorized")
    unbound = await token(kube, namespace, "kinora-agent", audience=STORE_AUDIENCE)
    assert await answered(unbound) == (403, "NotBound")
    stagers = await kube.get(POD, namespace, "stager")
    assert await answered(await token(kube, namespace, "kinora-stager", stagers, audience=STORE_AUDIENCE)) == (
        403, "NotAnAgent",
    )  # fmt: skip
    second = await token(kube, namespace, "kinora-agent", house.pods[1], audience=STORE_AUDIENCE)
    assert await answered(second) == (403, "NotBoundHere")
    other = f"{namespace}-b"
    await kube.create(NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    try:
        await kube.create(SERVICE_ACCOUNT, other, service_account(other))
        foreign = await kube.create(POD, other, {**_bare(pod), "metadata": {"name": "vace-0"}})
        shown = await token(kube, other, "kinora-agent", foreign, audience=STORE_AUDIENCE)
        assert await answered(shown) == (403, "NotAnAgent")
    finally:
        await kube.delete(NAMESPACE, None, other)


def _bare(pod: Object) -> Object:
    spec = {name: pod["spec"][name] for name in ("serviceAccountName", "automountServiceAccountToken")}
    return {"apiVersion": "v1", "kind": "Pod", "spec": {**spec, "containers": [{"name": "a", "image": "kinora:test"}]}}


async def test_a_token_that_has_expired_or_whose_pod_is_gone_is_nobodys(
    house: House, kube: KubeClient, cluster: Cluster
) -> None:
    job, namespace = await house.bound(), house.bench.namespace
    gone = await kube.create(POD, namespace, {**_bare(house.pods[0]), "metadata": {"name": "gone"}})
    dead = await token(kube, namespace, "kinora-agent", gone, audience=STORE_AUDIENCE)
    await kube.delete(POD, namespace, "gone", grace_seconds=0)
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": dead, "audiences": [STORE_AUDIENCE]},
    }
    async with asyncio.timeout(60):  # the API server's own caches; a stager believes what it says for a minute
        while (await kube.create(TOKEN_REVIEW, None, review))["status"].get("authenticated"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert (await house.ask(job, key_of(job), shown=dead))[0] == 401
    expired = _expired(house.token, cluster)
    status, told = await house.ask(job, key_of(job), shown=expired)
    assert (status, told["code"]) == (401, "Unauthorized")
    assert "expired" in told["message"]


def _expired(text: str, cluster: Cluster) -> str:
    """The same token, an hour older, signed with the cluster's own key."""
    keys = sorted((Path(cluster.kubeconfig).parent / "pki").glob("sa.key"))
    if not keys:
        pytest.skip("the key that this cluster signs tokens with is not at hand")
    header, payload, _ = text.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    past = int(time.time()) - 3600
    claims |= {"exp": past + 600, "iat": past, "nbf": past}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    command = ["openssl", "dgst", "-sha256", "-sign", str(keys[0])]
    signature = subprocess.run(command, input=f"{header}.{body}".encode(), check=True, capture_output=True).stdout
    return f"{header}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


# --- what breaks ------------------------------------------------------------------------------------------------------


async def test_a_stager_that_is_away_in_the_middle_costs_time_and_nothing_else(
    house: House, agent: Any, server: S3Server, proxy: S3Proxy
) -> None:
    job, content = await house.bound(), os.urandom(20 * MiB)
    key = key_of(job)
    stopped = asyncio.Event()

    def second_part(request: web.Request) -> bool:
        if request.query.get("partNumber") == "2" and not stopped.is_set():
            stopped.set()
            house.bench.processes[-1].kill()
        return False

    proxy.fail(second_part, "refuse")
    async with agent(job, replace(PACE, connections=1)) as working:
        putting = asyncio.ensure_future(working.store.put(key, _file(content)))
        async with asyncio.timeout(60):
            await working.waits.wait()
        assert not putting.done()
        assert working.told[0] is not None
        assert "the store's stager does not answer" in working.told[0]
        assert "http" not in working.told[0]
        await house.start()
        stored = await putting
        assert (stored.created, stored.sha256) == (True, hashlib.sha256(content).hexdigest())
        assert working.told[-1] is None
    assert server.objects() == [f"department/{key}"]


async def test_patience_ends(house: House, agent: Any) -> None:
    job = await house.bound()
    async with agent(job, patience=replace(PATIENCE, away=0.3, unknown=0.3), token="a.b.c") as working:
        with pytest.raises(StoreError, match=r"the token is not known.*; tried for [0-9]+ s"):
            await working.store.put(key_of(job), _file(b"x"))
        await house.stop()
        with pytest.raises(StoreError, match=r"the store's stager does not answer .*; tried for [0-9]+ s"):
            await working.store.put(key_of(job), _file(b"x"))


async def test_a_stager_without_keys_signs_nothing_and_is_waited_for(house: House, agent: Any) -> None:
    """As one of an earlier version, which an upgrade replaces."""
    await house.stop()
    keys = house.spec.pop("secretName")
    await house.start()
    job = await house.bound()
    status, told = await house.ask(job, key_of(job))
    assert (status, told["code"]) == (401, "BadSignature")
    async with agent(job) as working:
        putting = asyncio.ensure_future(working.store.put(key_of(job), _file(b"x")))
        async with asyncio.timeout(60):
            await working.waits.wait()
        assert working.told[0] == "the store's stager does not sign for agents yet"
        await house.stop()
        house.spec["secretName"] = keys
        await house.start()
        assert (await putting).created


async def test_a_url_that_leads_elsewhere_is_not_used(house: House, agent: Any) -> None:
    job = await house.bound()
    async with agent(job, spec={**house.spec, "endpoint": "http://127.0.0.1:1"}) as working:
        with pytest.raises(StoreError, match=r"must agree in artifacts\.s3\.endpoint and addressing"):
            await working.store.put(key_of(job), _file(b"x"))


async def test_what_a_broker_does_not_sign_is_told_before_it_is_asked(house: House, agent: Any) -> None:
    job = await house.bound()
    async with agent(job) as working:
        for call in (Call("DELETE", "department/x"), Call("GET", query=(("prefix", "x"), ("list-type", "2")))):
            with pytest.raises(S3Error, match="no broker signs"):
                await working.store.client.ask(call)
