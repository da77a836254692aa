"""From a request's Authorization header to a tenant: a key of the Secret, or a ServiceAccount's token."""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from kinora.gateway.errors import Forbidden, Unauthorized, Unavailable
from kinora.gateway.tenants import EntryError, KeyRing, Limits, Tenant, parse_entry
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import SUBJECT_ACCESS_REVIEW, TOKEN_REVIEW

log = logging.getLogger(__name__)

AUDIENCE: Final = "kinora"
NAMESPACE_HEADER: Final = "x-kinora-namespace"
_YES_SECONDS: Final = 60.0  # how long an answer of the API server is believed (decision 28)
_NO_SECONDS: Final = 5.0
_MOST: Final = 4096  # answers remembered
_MAX_TOKEN: Final = 16 * 1024  # characters
_ACCOUNT: Final = "system:serviceaccount:"


@dataclass
class Keys:
    """The keys of the moment, and what is wrong with the Secret."""

    ring: KeyRing = field(default_factory=KeyRing)
    faults: tuple[str, ...] = ()

    def take(self, secret: Mapping[str, Any] | None) -> None:
        """The Secret as it is now; None: there is none. A bad entry takes nothing else with it."""
        entries, faults = [], []
        for name, text in sorted(((secret or {}).get("data") or {}).items()):
            try:
                entries.append((name, parse_entry(name, base64.b64decode(text or "").decode())))
            except EntryError as error:
                faults.append(str(error))
            except ValueError:
                faults.append(f"key entry {name}: not base64 of UTF-8 text")
        for fault in faults:
            if fault not in self.faults:
                log.warning("%s", fault)
        self.ring, self.faults = KeyRing.of(entries), tuple(faults)


@dataclass(slots=True)
class _Answer:
    tenant: Tenant | None
    message: str
    until: float


class Authenticator:
    """Says who asks. `namespaces`: those that are watched; empty: all."""

    def __init__(
        self,
        client: KubeClient,
        keys: Keys,
        *,
        namespaces: tuple[str, ...] = (),
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self.keys, self._namespaces = client, keys, namespaces
        self._limits = limits or Limits()
        self._clock = clock
        self._answers: dict[bytes, _Answer] = {}

    async def tenant(self, authorization: str | None, namespace: str | None, dialect: str | None) -> Tenant:
        """The tenant of a request. `namespace`: which one a ServiceAccount asks for, if not its own.

        Raises Unauthorized, Forbidden (another namespace, or a dialect that the key does not open), Unavailable.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("no key: send it as Authorization: Bearer KEY")
        if len(token) > _MAX_TOKEN:
            raise Unauthorized("the key is not known")
        tenant = self.keys.ring.find(token, datetime.now(UTC))
        if tenant is None:
            if token.count(".") != 2:  # not a JSON Web Token: nobody's
                raise Unauthorized("the key is not known")
            tenant = await self._reviewed(token, namespace)
        if self._namespaces and tenant.namespace not in self._namespaces:
            raise Forbidden(f"this gateway does not serve namespace {tenant.namespace}")
        if dialect is not None and tenant.dialects is not None and dialect not in tenant.dialects:
            raise Forbidden(f"this key does not open the {dialect} API")
        return tenant

    def forget(self) -> None:
        """Believe no earlier answer about tokens."""
        self._answers.clear()

    async def _reviewed(self, token: str, namespace: str | None) -> Tenant:
        """A ServiceAccount's token, by the API server; its answers are believed for a while."""
        key = hashlib.sha256(f"{namespace or ''}\n{token}".encode("utf-8", "surrogatepass")).digest()
        now = self._clock()
        known = self._answers.pop(key, None)
        if known is None or known.until <= now:
            known = await self._review(token, namespace, now)
        self._answers[key] = known
        while len(self._answers) > _MOST:
            del self._answers[next(iter(self._answers))]
        if known.tenant is None:
            raise Unauthorized(known.message) if known.message == _UNKNOWN else Forbidden(known.message)
        return known.tenant

    async def _review(self, token: str, namespace: str | None, now: float) -> _Answer:
        try:
            user = await self._user(token)
            if user is None:
                return _Answer(None, _UNKNOWN, now + _NO_SECONDS)
            name = str(user.get("username", ""))
            wanted = namespace or _own_namespace(name)
            if not wanted:
                return _Answer(None, f"say which namespace: send {NAMESPACE_HEADER}", now + _NO_SECONDS)
            if not await self._may_create(user, wanted):
                return _Answer(None, f"this account may not create VideoJobs in {wanted}", now + _NO_SECONDS)
        except (ApiError, UnreachableError) as error:
            log.warning("reviewing a token: %s", error)
            raise Unavailable("the cluster does not answer now; ask again") from None
        return _Answer(Tenant(name, wanted, limits=self._limits, account=True), "", now + _YES_SECONDS)

    async def _user(self, token: str) -> Mapping[str, Any] | None:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        status = (await self._client.create(TOKEN_REVIEW, None, body)).get("status") or {}
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
            return None
        user: Mapping[str, Any] = status.get("user") or {}
        return user

    async def _may_create(self, user: Mapping[str, Any], namespace: str) -> bool:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.get("username"),
                "uid": user.get("uid"),
                "groups": user.get("groups"),
                "extra": user.get("extra"),
                "resourceAttributes": {
                    "group": "kinora.dev",
                    "resource": "videojobs",
                    "verb": "create",
                    "namespace": namespace,
                },
            },
        }
        status = (await self._client.create(SUBJECT_ACCESS_REVIEW, None, body)).get("status") or {}
        return bool(status.get("allowed"))


_UNKNOWN: Final = "the key is not known"


def _own_namespace(username: str) -> str:
    """The namespace of a ServiceAccount; empty for other users."""
    return username.removeprefix(_ACCOUNT).partition(":")[0] if username.startswith(_ACCOUNT) else ""
