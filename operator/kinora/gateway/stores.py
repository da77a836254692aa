"""The stores of tenants, as the gateway reaches them: each served by the stager that mounts it, in its own namespace.

Which stores there are is said by the ModelServers of the namespace (`spec.artifacts`) and by the URIs of artifacts.
The key that requests are signed with is read from the namespace's Secret and kept; a store that refuses it has it read
again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import aiohttp

from kinora.api import names
from kinora.api.intake import Store, artifact_store, choose_store
from kinora.gateway.errors import Conflict, InvalidInput, NotFound, TooLarge, Unavailable
from kinora.gateway.tenants import Tenant
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.secret_keys import SecretKeyError, SecretKeys
from kinora.storage.keys import KeyRefused
from kinora.storage.service.client import StoreAway, StoreClient, StoreRefused
from kinora.storage.service.model import Busy, NameTaken, NotDrawable, OverLimit
from kinora.storage.store import NotStoredError, StoreError

log = logging.getLogger(__name__)
T = TypeVar("T")
_CONNECTIONS: Final = 512  # to all stores together: one a file that is coming or going
_RETRY: Final = 5.0


class Stores:
    """The store services of all namespaces. `template`: where a stager's Service answers."""

    def __init__(
        self, client: KubeClient, servers: Callable[[Tenant], Iterable[Mapping[str, Any]]], template: str
    ) -> None:
        self._client, self._servers, self._template = client, servers, template
        self._keys: dict[str, SecretKeys] = {}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def roots(self, tenant: Tenant) -> list[str]:
        """The stores of the tenant's namespace; first the one that takes the tenant's uploads. Unavailable."""
        stores = self._known(tenant)
        home = choose_store(tenant.digest, stores)
        if home is None:
            raise Unavailable("no ModelServer of your namespace has a store (spec.artifacts): nothing can be kept")
        return [home.root, *sorted(store.root for store in stores - {home})]

    def place(self, tenant: Tenant, uri: str) -> tuple[str, str]:
        """An artifact's URI as its store's root and its key there. NotFound."""
        roots = sorted((store.root for store in self._known(tenant)), key=len, reverse=True)
        known = next((root for root in roots if uri.startswith(root)), None)
        return split(uri) if known is None else (known, uri.removeprefix(known))

    def _known(self, tenant: Tenant) -> set[Store]:
        return {store for server in self._servers(tenant) if (store := artifact_store(server)) is not None}

    async def ask(self, namespace: str, root: str, question: Callable[[StoreClient], Awaitable[T]]) -> T:
        """Ask a store; once more, with the key read again, when it refuses the signature. GatewayError."""
        with told(namespace):
            try:
                return await question(await self.client(namespace, root))
            except StoreRefused:
                return await question(await self.client(namespace, root, anew=True))

    async def upload(self, namespace: str, root: str, question: Callable[[StoreClient], Awaitable[T]]) -> T:
        """Ask a store for what can be asked but once, since it streams. GatewayError."""
        with told(namespace):
            try:
                return await question(await self.client(namespace, root))
            except StoreRefused:
                await self.client(namespace, root, anew=True)
                raise StoreAway("the store's key has changed; send the file again") from None

    async def client(self, namespace: str, root: str, *, anew: bool = False) -> StoreClient:
        """The client of one store. Unavailable."""
        keys = self._keys.get(namespace)
        if keys is None:
            keys = self._keys[namespace] = SecretKeys(self._client, namespace)
        try:
            key = (await keys(anew))[0]
        except (SecretKeyError, ApiError, UnreachableError) as error:
            log.warning("the key of the stores of namespace %s: %s", namespace, error)
            raise Unavailable("the store of your namespace is not ready: its stager has not started", _RETRY) from None
        service = names.stager_name(Store(root).name)
        url = self._template.format(service=service, namespace=namespace, port=names.STORE_PORT)
        return StoreClient(self._opened(), url, root, key)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=30)
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False)
        return self._session


def split(uri: str) -> tuple[str, str]:
    """An artifact's URI as the root of its claim or bucket and the key there, where no ModelServer tells. NotFound."""
    scheme, separator, rest = uri.partition("://")
    place, slash, key = rest.partition("/")
    if not (scheme and separator and place and slash and key):
        raise NotFound("the file lies in a store that this gateway does not know")
    return f"{scheme}://{place}/", key


@contextmanager
def told(namespace: str) -> Iterator[None]:
    """What a store says, as the gateway's own errors."""
    try:
        yield
    except NotStoredError:
        raise NotFound("no such file in the store: it was removed, or has expired") from None
    except OverLimit as over:
        raise TooLarge(str(over)) from None
    except NameTaken:
        raise Conflict("a file of this name is there already, with other content") from None
    except KeyRefused:
        raise NotFound("no such file in the store") from None
    except NotDrawable as fault:
        raise InvalidInput("variant", str(fault)) from None
    except Busy:
        raise Unavailable("too many previews are being drawn; ask again", _RETRY) from None
    except StoreAway as error:
        log.warning("the store of namespace %s: %s", namespace, error)
        raise Unavailable("the store of your namespace does not answer: its stager may be starting", _RETRY) from None
    except StoreError as error:
        log.warning("the store of namespace %s: %s", namespace, error)
        raise Unavailable(f"the store of your namespace failed: {error}", _RETRY) from None


async def watched(namespace: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The bytes of an answer, with what goes wrong on the way told as the gateway's own errors."""
    with told(namespace):
        async for chunk in chunks:
            yield chunk
