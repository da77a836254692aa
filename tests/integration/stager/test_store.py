"""The stager's store service: its Secret, its Service, the end of unused uploads. Requests are the real client's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from integration.stager.bench import CLIP, PHOTO, StagerBench
from integration.tokens import as_token
from kinora.api.names import SIGNING_SECRET_TYPE, STORE_PORT, STORE_SECRET, stager_name
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import DEPLOYMENT, MODELSERVER, SECRET, SERVICE, Resource
from kinora.kube.secret_keys import keys_in, secret_body
from kinora.storage.service.client import StoreAway, StoreClient, StoreRefused
from kinora.storage.service.model import Name
from kinora.storage.store import NotStoredError
from waiting import Object, model_server, until, wait_for

pytestmark = pytest.mark.integration
TENANT = "0123456789"


async def sent(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def client_of(bench: StagerBench, session: aiohttp.ClientSession, index: int = 0) -> StoreClient:
    """The client of a stager's store, with the key that it has made; the store answers when this returns."""
    secret = await wait_for(bench.kube, SECRET, bench.namespace, STORE_SECRET, lambda found: found is not None, 60)
    url = f"http://127.0.0.1:{bench.store_ports[index]}"
    client = StoreClient(session, url, "pvc://artifacts/", keys_in(secret)[0])
    async with asyncio.timeout(60):
        while True:
            try:
                await client.usage(TENANT)
                return client
            except StoreAway:
                await asyncio.sleep(0.05)


async def test_two_stagers_that_start_at_once_make_one_key_and_both_know_it(
    bench: StagerBench, session: aiohttp.ClientSession
) -> None:
    await asyncio.gather(bench.start(), bench.start())
    first, second = await client_of(bench, session, 0), await client_of(bench, session, 1)
    made = await first.upload(TENANT, sent(PHOTO), max_bytes=1 << 30, quota=1 << 30)
    assert await second.renew(TENANT, made.sha256) == len(PHOTO)
    secret = await bench.kube.get(SECRET, bench.namespace, STORE_SECRET)
    assert secret["type"] == "kinora.dev/store-key"
    assert len(base64.b64decode(secret["data"]["key"])) == 32


async def test_a_key_that_is_replaced_is_read_again_and_the_one_before_is_good_while_it_stands_there(
    bench: StagerBench, session: aiohttp.ClientSession
) -> None:
    await bench.start()
    old = await client_of(bench, session)
    new_key = bytes(range(32))
    before = (await bench.kube.get(SECRET, bench.namespace, STORE_SECRET))["data"]["key"]
    data = {"key": base64.b64encode(new_key).decode(), "previous": before}
    await bench.kube.patch(SECRET, bench.namespace, STORE_SECRET, {"data": data})
    new = StoreClient(session, f"http://127.0.0.1:{bench.store_ports[0]}", "pvc://artifacts/", new_key)
    async with asyncio.timeout(60):
        while True:
            try:
                await new.usage(TENANT)
                break
            except StoreRefused:  # it reads the Secret again every few seconds at most
                await asyncio.sleep(0.2)
    await old.usage(TENANT)
    stranger = StoreClient(session, f"http://127.0.0.1:{bench.store_ports[0]}", "pvc://artifacts/", bytes(32))
    with pytest.raises(StoreRefused):
        await stranger.usage(TENANT)
    other_store = StoreClient(session, f"http://127.0.0.1:{bench.store_ports[0]}", "pvc://other/", new_key)
    with pytest.raises(StoreRefused):
        await other_store.usage(TENANT)


async def test_unused_uploads_end_with_their_names_and_those_of_unfinished_jobs_stay(
    bench: StagerBench, session: aiohttp.ClientSession
) -> None:
    bench.upload_seconds = 3600
    process = await bench.start()
    store = await client_of(bench, session)
    photo = await store.upload(TENANT, sent(PHOTO), max_bytes=1 << 30, quota=1 << 30)
    clip = await store.upload(TENANT, sent(CLIP), max_bytes=1 << 30, quota=1 << 30)
    fresh = await store.upload(TENANT, sent(b"fresh"), max_bytes=1 << 30, quota=1 << 30)
    for name, upload in (("photo", photo), ("clip", clip)):
        await store.put_name(TENANT, "inputs", Name(name, {"sha256": upload.sha256, "bytes": upload.bytes}))
    await bench.ask(inputs={"image": {"upload": photo.key}}, suspend=True)
    await bench.told()
    process.kill()  # what is looked at while it grows old could be judged by what was so before
    await process.wait()
    folder = bench.store() / "uploads" / bench.namespace / TENANT
    names = list((bench.store() / "names").rglob("*/inputs/*"))
    by_hand = bench.store() / "uploads" / bench.namespace / "photos"
    by_hand.mkdir()
    (by_hand / "cup.jpg").write_bytes(PHOTO)
    long_ago = time.time() - 7200
    for path in (*folder.iterdir(), by_hand / "cup.jpg", *names):
        if path.name != fresh.sha256:
            os.utime(path, (long_ago, long_ago))
    await bench.start()
    store = await client_of(bench, session, 1)
    await until(lambda: not (folder / clip.sha256).exists())
    assert (folder / photo.sha256).exists(), "an unfinished job names it"
    assert (folder / fresh.sha256).exists()
    assert (by_hand / "cup.jpg").exists(), "what nobody uploaded through the service is not its to remove"
    await until(lambda: len(list((bench.store() / "names").rglob("*/inputs/*"))) == 1)
    assert (await store.get_name(TENANT, "inputs", "photo")).value["sha256"] == photo.sha256
    with pytest.raises(NotStoredError):
        await store.renew(TENANT, hashlib.sha256(CLIP).hexdigest())


async def test_a_stager_makes_the_secret_of_its_key_and_no_other_one(bench: StagerBench) -> None:
    """A Secret of another type would be filled with the token of whatever account it names."""
    other_name = secret_body(bench.namespace, bytes(32), name="another")
    other_type = secret_body(bench.namespace, bytes(32), kind="kubernetes.io/service-account-token")
    other_type["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "kinora-agent"}
    async with KubeClient(as_token(bench.connection, bench.token)) as stager:
        for body in (other_name, other_type):
            with pytest.raises(ApiError, match="Secret of its own key") as refused:
                await stager.create(SECRET, bench.namespace, body)
            assert refused.value.status == 403
        await stager.create(SECRET, bench.namespace, secret_body(bench.namespace, bytes(32)))
        await stager.get(SECRET, bench.namespace, STORE_SECRET)
        await bench.kube.create(SECRET, bench.namespace, {**other_name, "type": "Opaque"})
        with pytest.raises(ApiError) as unseen:
            await stager.get(SECRET, bench.namespace, "another")
        assert unseen.value.status == 403


async def test_a_gateway_makes_the_secret_of_its_links_and_no_other_one(bench: StagerBench) -> None:
    namespace, name = "kinora-system", "kinora-gateway"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    tokens = Resource("", "v1", f"serviceaccounts/{name}/token", "TokenRequest")
    made = await bench.kube.create(tokens, namespace, asked)
    good = secret_body(namespace, bytes(32), name=name, kind=SIGNING_SECRET_TYPE)
    wrong = [
        secret_body(namespace, bytes(32), name="another", kind=SIGNING_SECRET_TYPE),
        secret_body(namespace, bytes(32), name=name, kind="Opaque"),
        secret_body(namespace, bytes(32)),
    ]
    async with KubeClient(as_token(bench.connection, made["status"]["token"])) as gateway:
        for body in wrong:
            with pytest.raises(ApiError, match="Secret of its own key"):
                await gateway.create(SECRET, namespace, body, dry_run=True)
        assert (await gateway.create(SECRET, namespace, good, dry_run=True))["type"] == SIGNING_SECRET_TYPE


@pytest.mark.usefixtures("operator", "claims")
async def test_the_operator_makes_a_service_for_each_store_and_removes_it_with_its_stager(
    bench: StagerBench, kube: KubeClient, namespace: str
) -> None:
    name = stager_name("artifacts")
    service = await wait_for(kube, SERVICE, namespace, name, lambda found: found is not None)
    assert [port["port"] for port in service["spec"]["ports"]] == [STORE_PORT]
    await wait_for(kube, DEPLOYMENT, namespace, name, lambda found: found is not None)
    await kube.create(MODELSERVER, namespace, model_server("second", artifacts={"claimName": "other"}))
    await wait_for(kube, SERVICE, namespace, stager_name("other"), lambda found: found is not None)

    def gone(found: Object | None) -> bool:
        return found is None

    await kube.delete(MODELSERVER, namespace, "second")
    await wait_for(kube, SERVICE, namespace, stager_name("other"), gone)
    assert await kube.get(SERVICE, namespace, name)
