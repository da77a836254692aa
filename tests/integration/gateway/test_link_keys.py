"""Links end with the API key that they were given to, and the key that signs them is changed without a restart."""

from __future__ import annotations

import base64
import os
import time
from typing import Any

import httpx
import pytest

from integration.gateway.house import House
from integration.gateway.test_files import CLIP, files, request, ticket, video
from kinora.gateway.jobs import Job
from kinora.gateway.tenants import Tenant
from kinora.kube.resources import SECRET
from waiting import DEADLINE, until, wait_for

pytestmark = pytest.mark.integration
SIGNING, KEYS = "kinora-gateway", "kinora-gateway-keys"


async def status(url: str) -> int:
    async with httpx.AsyncClient(timeout=DEADLINE) as anybody:
        return (await anybody.get(url)).status_code


def link(house: House, job: Job, name: str, *, account: bool = False) -> str:
    return files(house).link(request(house), Tenant(name, house.namespace, account=account), job, 0)


def entries(house: House) -> dict[str, Any]:
    assert house.gateway is not None
    return dict(house.gateway.authenticator.keys.ring.entries.values())


async def remove_key(house: House, entry: str) -> None:
    await house.kube.patch(SECRET, house.namespace, KEYS, {"data": {entry: None}})
    await until(lambda: entry not in entries(house))


async def test_a_link_ends_with_the_last_key_of_its_tenant(house: House) -> None:
    await house.key("a")
    await house.key("second", tenant="a")
    await house.key("other")
    mine, theirs = await video(house, "a"), await video(house, "other")
    own, other = link(house, mine, "a"), link(house, theirs, "other")
    by_account = link(house, mine, "a", account=True)
    made = await files(house).ticket(request(house), Tenant("a", house.namespace))
    assert [await status(url) for url in (own, other, by_account)] == [200] * 3
    await remove_key(house, "a")
    assert await status(own) == 200, "another key of the tenant is there"
    await remove_key(house, "second")
    async with httpx.AsyncClient(timeout=DEADLINE) as anybody:
        refused = await anybody.get(own)
        put = await anybody.put(made.put_url, content=b"photo")
    assert (refused.status_code, put.status_code) == (403, 403)
    assert "the key that the link was given to is no more" in refused.json()["error"]["message"]
    assert house.store.uploads() == []
    assert [await status(url) for url in (other, by_account)] == [200] * 2
    await house.key("third", tenant="a")
    assert await status(own) == 200, "it is the tenant's link, not the key's"


async def test_a_link_ends_with_the_time_of_its_key_and_opens_in_its_namespace_alone(house: House) -> None:
    await house.key("a")
    url = link(house, await video(house, "a"), "a")
    assert await status(url) == 200
    over = house.entry("a").removesuffix("}") + ', "expires": "2020-01-31T00:00:00Z"}'
    await house.write_entry("a", over)
    await until(lambda: entries(house)["a"].expires is not None)
    assert await status(url) == 403
    await house.write_entry("a", over.replace("2020", "2120").replace(house.namespace, "elsewhere"))
    await until(lambda: entries(house)["a"].namespace == "elsewhere")
    assert await status(url) == 403


async def sign(house: House, **data: bytes | None) -> None:
    """Set the Secret's keys, and wait until the gateway signs with the one of them."""
    patch = {name: None if value is None else base64.b64encode(value).decode() for name, value in data.items()}
    await house.kube.patch(SECRET, house.namespace, SIGNING, {"data": patch})
    await until(lambda: files(house)._keys.known[0] == data["key"])


def a_minute_later(house: House) -> None:
    keys = files(house)._keys
    keys._former = dict.fromkeys(keys._former, time.monotonic() - 1)


async def test_the_key_for_links_is_changed_without_a_restart(house: House) -> None:
    await house.key("a")
    job = await video(house, "a")
    first = link(house, job, "a")
    old, new, newest = files(house)._keys.known[0], os.urandom(32), os.urandom(32)
    await sign(house, key=new, previous=old)
    second = link(house, job, "a")
    assert second.rpartition(".")[2] != first.rpartition(".")[2]
    assert [await status(url) for url in (first, second)] == [200, 200]
    a_minute_later(house)
    assert [await status(url) for url in (first, second)] == [200, 200], "the previous one stands in the Secret"
    await sign(house, key=newest, previous=None)
    third = link(house, job, "a")
    assert [await status(url) for url in (first, second, third)] == [200] * 3, "others may sign with them still"
    a_minute_later(house)
    assert [await status(url) for url in (first, second, third)] == [403, 403, 200]
    async with httpx.AsyncClient(timeout=DEADLINE) as anybody:
        assert (await anybody.get(third)).content == CLIP


async def test_a_secret_that_is_deleted_is_made_anew_and_one_that_is_wrong_changes_nothing(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    await house.key("a")
    job = await video(house, "a")
    url = link(house, job, "a")
    before = files(house)._keys.known[0]
    await house.kube.patch(SECRET, house.namespace, SIGNING, {"data": {"key": base64.b64encode(b"short").decode()}})
    await until(lambda: "the key for links" in caplog.text)
    assert await status(url) == 200
    assert files(house)._keys.known[0] == before
    await house.kube.delete(SECRET, house.namespace, SIGNING)
    await wait_for(house.kube, SECRET, house.namespace, SIGNING, lambda found: found is not None, 30)
    await until(lambda: files(house)._keys.known[0] != before)
    assert await status(link(house, job, "a")) == 200
    assert await status((await ticket(house)).download_url) == 404, "a ticket that nothing came for"
