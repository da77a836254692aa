"""Files of tenants: what they upload, what was rendered for them, and the links to both. Dialects ask here.

Content is kept by its sha256; names that a dialect gives to files only point at it. Nothing is fetched here: a URL of
somebody else goes into the VideoJob as it is, and the stager's guarded fetcher takes it from there.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from kinora.gateway import links
from kinora.gateway.delivery import Place, Shown, delivered, safe_name
from kinora.gateway.errors import InvalidInput, NotFound, TooLarge, Unavailable
from kinora.gateway.jobs import Artifact, Job
from kinora.gateway.links import Grant, Kind
from kinora.gateway.service import Service
from kinora.gateway.settings import Retention
from kinora.gateway.stores import Stores, told
from kinora.gateway.tenants import Tenant
from kinora.kube.client import ApiError, UnreachableError
from kinora.kube.secret_keys import SecretKeyError, SecretKeys
from kinora.storage import sniff
from kinora.storage.keys import upload_key
from kinora.storage.service import model
from kinora.storage.service.client import StoreClient
from kinora.storage.service.model import Name, PreviewKind

PATH: Final = "/files"
INPUTS: Final = "inputs"  # the scope of names that dialects give to inputs
PREVIEWS: Final = "previews"  # the scope of names of what was drawn of a video: <kind>/<sha256 of the video>
TICKETS: Final = "tickets"  # the scope of names of files that come by ticket: <ticket>/<filename>
OSS: Final = "oss://"
_OSS_FOLDER: Final = "kinora"
_MAX_LINK: Final = 2048  # characters
_MAX_PREVIEW: Final = 16 * 1024**2  # bytes
_UNBOUNDED: Final = 1 << 48  # of a copy between a tenant's own stores: the first one has counted it


@dataclass(frozen=True, slots=True)
class Upload:
    """A tenant's file in the store. `key` is what `Source.upload` takes; `content_type` is what its first bytes say."""

    key: str
    sha256: str
    bytes: int
    content_type: str = sniff.UNKNOWN


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place for one file, sent without a key: by PUT to `put_url`, or as the form of Alibaba's OSS to `post_url`.

    `download_url` and, as `oss://` + `key`, the key are then taken as sources. The form's fields `policy` and
    `signature` are to be sent back as they are; its `key` begins with `upload_dir` and a slash.
    """

    put_url: str
    download_url: str
    post_url: str
    key: str
    upload_dir: str
    policy: str
    signature: str


class Files:
    """All files of all tenants. `base_url`: where links that are given out begin.

    `has_key`: whether a tenant (name, namespace) has an API key still.
    """

    def __init__(
        self,
        stores: Stores,
        service: Service,
        keys: SecretKeys,
        base_url: Callable[[HTTPConnection], str],
        retention: Retention,
        *,
        has_key: Callable[[str, str], bool],
    ) -> None:
        self._has_key = has_key
        self.stores, self._service, self._keys = stores, service, keys
        self._base_url, self._retention = base_url, retention

    async def read_key(self) -> None:
        """Read the key that links are signed with, or make it. SecretKeyError, ApiError, UnreachableError."""
        await self._keys.read()

    # --- links out ----------------------------------------------------------------------------------------------------

    def link(
        self, request: HTTPConnection, tenant: Tenant, job: Job, index: int, *, seconds: float | None = None
    ) -> str:
        """An absolute URL that opens an artifact without a key, for `seconds` (default: the setting). NotFound."""
        artifact = _artifact_of(job, index)
        lasts = self._retention.link_seconds if seconds is None else seconds
        token = self._token(Kind.ARTIFACT, tenant, (job.id, index), lasts)
        return f"{self._base_url(request)}{PATH}/artifacts/{quote(safe_name(artifact.filename))}?token={token}"

    async def ticket(
        self,
        request: HTTPConnection,
        tenant: Tenant,
        *,
        filename: str = "file",
        size: int | None = None,
        content_type: str | None = None,
        seconds: float | None = None,
    ) -> Ticket:
        """A place for a file. `size` as the client declares it bounds it; `content_type` is not believed. TooLarge."""
        del content_type
        most = tenant.limits.upload_bytes
        if size is not None and size > most:
            raise TooLarge(f"the file has {size} bytes; allowed: {most}")
        limit = most if size is None else max(size, 0)
        shown, ticket = safe_name(filename), secrets.token_hex(16)
        lasts = self._retention.upload_seconds if seconds is None else seconds
        quota, name = tenant.limits.upload_quota_bytes, f"{ticket}/{shown}"
        put = self._token(Kind.PUT, tenant, (name, limit, quota), lasts)
        download = self._token(Kind.UPLOAD, tenant, (name,), lasts)
        policy, _, signature = self._token(Kind.FORM, tenant, (ticket, limit, quota), lasts).partition(".")
        base, folder = f"{self._base_url(request)}{PATH}", f"{_OSS_FOLDER}/{tenant.digest}/{ticket}"
        return Ticket(
            put_url=f"{base}/uploads/{quote(shown)}?token={put}",
            download_url=f"{base}/uploads/{quote(shown)}?token={download}",
            post_url=f"{base}/oss",
            key=f"{folder}/{shown}",
            upload_dir=folder,
            policy=policy,
            signature=signature,
        )

    async def grant(self, token: str, kind: Kind) -> Grant:
        """What a link opens now; one of no key that is known has the keys read again. LinkRefused, LinkExpired.

        It closes with the last API key of the tenant that it was given to.
        """
        keys = self._keys.known
        if not links.is_ours(keys, token):
            with suppress(SecretKeyError, ApiError, UnreachableError):
                keys = await self._keys(anew=True)
        grant = links.read(keys, token, kind, time.time())
        if not grant.account and not self._has_key(grant.tenant, grant.namespace):
            raise links.LinkRefused("the key that the link was given to is no more; ask for a new link")
        return grant

    def _token(self, kind: Kind, tenant: Tenant, what: tuple[links.Part, ...], seconds: float) -> str:
        keys = self._keys.known
        if not keys:
            raise Unavailable("the gateway is starting: it has no key yet to sign links with")
        return links.token(
            keys[0], Grant(kind, tenant.name, tenant.namespace, what, int(time.time() + seconds), tenant.account)
        )

    # --- sources ------------------------------------------------------------------------------------------------------

    async def source(self, tenant: Tenant, text: str) -> dict[str, Any]:
        """What a user names as an input, as a Source of a VideoJob.

        A link or an oss:// key that this gateway gave to this tenant becomes what it stands for, and is never fetched;
        whatever else is taken for a URL. InvalidInput for another tenant's, and for what is not there any more.
        """
        if text[: len(OSS)].lower() == OSS:
            return await self._oss(tenant, text[len(OSS) :])
        found = self._own(text)
        if found is None:
            return {"url": text}
        if (found.tenant, found.namespace) != (tenant.name, tenant.namespace):
            raise InvalidInput("", "the link is not one of yours; allowed: links that were given to your own key")
        if found.kind is Kind.ARTIFACT:
            return await self._artifact(tenant, found)
        return await self._ticketed(tenant, str(found.what[0]))

    def _own(self, text: str) -> Grant | None:
        """The grant of a link of ours, on whatever host: the signature says whose it is. Expiry is for strangers."""
        if PATH not in text or len(text) > _MAX_LINK:
            return None
        try:
            parts = urlsplit(text)
            token = parse_qs(parts.query, max_num_fields=8).get("token", [""])[0]
        except ValueError:
            return None
        path = parts.path.rpartition("/")[0]
        kinds = {f"{PATH}/artifacts": Kind.ARTIFACT, f"{PATH}/uploads": Kind.UPLOAD}
        kind = next((kind for place, kind in kinds.items() if path.endswith(place)), None)
        if kind is None or not links.is_ours(self._keys.known, token):
            return None
        try:
            return links.read(self._keys.known, token, kind, time.time(), expired_too=True)
        except links.LinkRefused as refused:
            raise InvalidInput("", str(refused)) from None

    async def _artifact(self, tenant: Tenant, grant: Grant) -> dict[str, Any]:
        try:
            job = await self._service.job(tenant, str(grant.what[0]))
        except NotFound:
            raise InvalidInput("", "the link's job is not there any more; its video has to be sent anew") from None
        index = int(grant.what[1])
        if all(one.index != index for one in job.artifacts):
            raise InvalidInput("", "the link's video is not there any more")
        return {"artifact": {"videoJobName": job.name, "index": index}}

    async def _oss(self, tenant: Tenant, key: str) -> dict[str, Any]:
        folder, _, name = key.partition("/")
        digest, _, name = name.partition("/")
        if folder != _OSS_FOLDER or digest != tenant.digest or name.count("/") != 1:
            raise InvalidInput("", f"{OSS}{key[:80]} is no file of yours; allowed: keys that an upload here was given")
        return await self._ticketed(tenant, name)

    async def _ticketed(self, tenant: Tenant, name: str) -> dict[str, Any]:
        try:
            upload = await self.get_name(tenant, name, scope=TICKETS)
        except NotFound:
            raise InvalidInput("", "the file was not uploaded, or has expired; upload it again") from None
        return {"upload": upload.key}

    # --- uploads ------------------------------------------------------------------------------------------------------

    async def put(
        self, tenant: Tenant, chunks: AsyncIterator[bytes], *, max_bytes: int | None = None, name: str | None = None
    ) -> Upload:
        """Stream a file into the tenant's stores; with `name`, point that name at it. TooLarge, Unavailable.

        Whatever `chunks` raises comes through, and leaves nothing.
        """
        limits = tenant.limits
        most = min(limits.upload_bytes, max_bytes if max_bytes is not None else limits.upload_bytes)
        upload = await self._stored(tenant, chunks, most, limits.upload_quota_bytes)
        if len(self.stores.roots(tenant)) > 1:
            await self.renew(tenant, upload.key)
        if name is not None:
            await self.put_name(tenant, name, upload)
        return upload

    async def put_shown(
        self, request: HTTPConnection, tenant: Tenant, chunks: AsyncIterator[bytes], *, filename: str
    ) -> tuple[Upload, str]:
        """A file that comes with the request itself, and the URL by which it is taken as a source afterwards."""
        shown = safe_name(filename)
        name = f"{secrets.token_hex(16)}/{shown}"
        upload = await self.put(tenant, chunks)
        await self.put_name(tenant, name, upload, scope=TICKETS, overwrite=False)
        token = self._token(Kind.UPLOAD, tenant, (name,), self._retention.upload_seconds)
        return upload, f"{self._base_url(request)}{PATH}/uploads/{quote(shown)}?token={token}"

    async def put_ticket(self, grant: Grant, name: str, chunks: AsyncIterator[bytes]) -> Upload:
        """The file of a ticket. Conflict where another one came before it."""
        tenant = tenant_of(grant)
        upload = await self._stored(tenant, chunks, int(grant.what[1]), int(grant.what[2]))
        await self.put_name(tenant, name, upload, scope=TICKETS, overwrite=False)
        return upload

    async def _stored(self, tenant: Tenant, chunks: AsyncIterator[bytes], most: int, quota: int) -> Upload:
        head = bytearray()

        async def looked_at() -> AsyncIterator[bytes]:
            size = 0
            async for chunk in chunks:
                if len(head) < sniff.HEAD_BYTES:
                    head.extend(chunk[: sniff.HEAD_BYTES - len(head)])
                size += len(chunk)
                if size > most:
                    raise TooLarge(f"the file is over {most} bytes, which is what is allowed")
                yield chunk

        home = self.stores.roots(tenant)[0]
        made = await self.stores.upload(
            tenant.namespace,
            home,
            lambda store: store.upload(tenant.digest, looked_at(), max_bytes=most, quota=quota),
        )
        return Upload(made.key, made.sha256, made.bytes, sniff.content_type(bytes(head)))

    async def renew(self, tenant: Tenant, key: str) -> int:
        """Count an upload as used now, and have it in every store of the namespace; its bytes. NotFound, Unavailable.

        Which store a job's inputs come from follows from the job's UID, which is not known before it is made.
        """
        root, size = await self._find(tenant, key)
        for other in self.stores.roots(tenant):
            if other != root:
                await self._copied(tenant, key, root, other)
        return size

    async def _copied(self, tenant: Tenant, key: str, root: str, other: str) -> None:
        """Have an upload in another store of the same namespace too, unless it is there."""
        digest, _, sha256 = key.partition("/")
        with suppress(NotFound):
            await self.stores.ask(tenant.namespace, other, lambda store: store.renew(digest, sha256))
            return
        store = await self.stores.client(tenant.namespace, root)
        with told(tenant.namespace):
            async with store.read(upload_key(tenant.namespace, key)) as reading:
                chunks = reading.chunks
                await self.stores.upload(
                    tenant.namespace,
                    other,
                    lambda target: target.upload(digest, chunks, max_bytes=_UNBOUNDED, quota=_UNBOUNDED),
                )

    async def _find(self, tenant: Tenant, key: str) -> tuple[str, int]:
        """The store that has an upload of the tenant, counted as used now, and its bytes. NotFound."""
        digest, _, sha256 = key.partition("/")
        if digest != tenant.digest:
            raise NotFound("no such file")
        for root in self.stores.roots(tenant):
            with suppress(NotFound):
                return root, await self.stores.ask(tenant.namespace, root, lambda store: store.renew(digest, sha256))
        raise NotFound("no such file: it was removed, or has expired")

    async def remove(self, tenant: Tenant, key: str) -> None:
        """Remove an upload of the tenant; jobs that have taken it in keep their own copy."""
        digest, _, sha256 = key.partition("/")
        if digest != tenant.digest:
            raise NotFound("no such file")
        for root in self.stores.roots(tenant):
            await self.stores.ask(tenant.namespace, root, lambda store: store.remove(digest, sha256))

    # --- names --------------------------------------------------------------------------------------------------------

    async def put_name(
        self, tenant: Tenant, name: str, upload: Upload, *, scope: str = INPUTS, overwrite: bool = True
    ) -> None:
        """Point a name (1 to 1,024 characters) at an upload. Not `overwrite`: Conflict where it means other content."""
        value = {"sha256": upload.sha256, "bytes": upload.bytes, "contentType": upload.content_type}
        home, pointer = self.stores.roots(tenant)[0], Name(name, value)
        try:
            await self.stores.ask(
                tenant.namespace,
                home,
                lambda store: store.put_name(tenant.digest, scope, pointer, create=not overwrite),
            )
        except NotFound:  # as a store says that no name can be like that
            raise InvalidInput("", f"a name of {len(name)} characters; allowed: 1 to {model.MAX_NAME}") from None

    async def get_name(self, tenant: Tenant, name: str, *, scope: str = INPUTS) -> Upload:
        """What a name points at, counted as used now. NotFound."""
        home = self.stores.roots(tenant)[0]
        found = await self.stores.ask(tenant.namespace, home, lambda store: store.get_name(tenant.digest, scope, name))
        upload = _upload(tenant, found)
        await self.renew(tenant, upload.key)
        return upload

    async def names(self, tenant: Tenant, *, scope: str = INPUTS) -> dict[str, Upload]:
        """Every name of a scope and what it points at; an upload that has expired may still be among them."""
        home = self.stores.roots(tenant)[0]
        found = await self.stores.ask(tenant.namespace, home, lambda store: store.names(tenant.digest, scope))
        return {one.name: _upload(tenant, one) for one in found}

    async def remove_name(self, tenant: Tenant, name: str, *, scope: str = INPUTS) -> bool:
        """Whether there was such a name. Its content stays until it expires."""
        home = self.stores.roots(tenant)[0]
        return await self.stores.ask(
            tenant.namespace, home, lambda store: store.remove_name(tenant.digest, scope, name)
        )

    # --- reading ------------------------------------------------------------------------------------------------------

    async def read(self, tenant: Tenant, key: str, *, max_bytes: int) -> bytes:
        """An upload of the tenant, whole. NotFound, TooLarge, Unavailable."""
        root, size = await self._find(tenant, key)
        if size > max_bytes:
            raise TooLarge(f"the file has {size} bytes; allowed: {max_bytes}")
        return await self._whole(tenant, root, upload_key(tenant.namespace, key), max_bytes)

    async def read_artifact(self, tenant: Tenant, job: Job, index: int, *, max_bytes: int) -> bytes:
        """An artifact of a job of the tenant, whole. NotFound, TooLarge, Unavailable."""
        artifact = _artifact_of(job, index)
        if artifact.bytes > max_bytes:
            raise TooLarge(f"the file has {artifact.bytes} bytes; allowed: {max_bytes}")
        root, key = self.stores.place(tenant, artifact.uri)
        return await self._whole(tenant, root, key, max_bytes)

    async def _whole(self, tenant: Tenant, root: str, key: str, max_bytes: int) -> bytes:
        data = bytearray()

        async def taken(store: StoreClient) -> bytes:
            data.clear()
            async with store.read(key) as reading:
                async for chunk in reading.chunks:
                    data.extend(chunk)
                    if len(data) > max_bytes:
                        raise TooLarge(f"the file has more than {max_bytes} bytes, which is what is allowed")
            return bytes(data)

        return await self.stores.ask(tenant.namespace, root, taken)

    async def artifact_response(
        self, request: Request, tenant: Tenant, job: Job, index: int, *, filename: str | None = None
    ) -> Response:
        """An artifact of a job of the tenant: whole, a range, or a redirect to its store's own URL. NotFound."""
        artifact = _artifact_of(job, index)
        root, key = self.stores.place(tenant, artifact.uri)
        shown = Shown(filename or artifact.filename, artifact.content_type, artifact.sha256, redirect=True)
        return await delivered(self.stores, request, Place(tenant.namespace, root, key), shown)

    async def preview_response(
        self, request: Request, tenant: Tenant, job: Job, index: int, kind: PreviewKind
    ) -> Response:
        """A preview of an artifact: drawn by the store's stager for whoever asks first, and kept as an upload.

        NotFound, InvalidInput for one that cannot be drawn, TooLarge over the quota, Unavailable.
        """
        artifact = _artifact_of(job, index)
        root, key = self.stores.place(tenant, artifact.uri)
        name = f"{kind}/{artifact.sha256 or hashlib.sha256(artifact.uri.encode()).hexdigest()}"
        sha256 = await self._kept_preview(tenant, root, name)
        if sha256 is None:
            quota = tenant.limits.upload_quota_bytes
            made = await self.stores.ask(
                tenant.namespace,
                root,
                lambda store: store.preview(tenant.digest, kind, key, max_bytes=_MAX_PREVIEW, quota=quota),
            )
            sha256, pointer = made.sha256, Name(name, {"sha256": made.sha256, "bytes": made.bytes})
            await self.stores.ask(
                tenant.namespace, root, lambda store: store.put_name(tenant.digest, PREVIEWS, pointer)
            )
        suffix = "webp" if kind is PreviewKind.THUMBNAIL else "jpg"
        place = Place(tenant.namespace, root, upload_key(tenant.namespace, f"{tenant.digest}/{sha256}"))
        content_type = "image/webp" if kind is PreviewKind.THUMBNAIL else "image/jpeg"
        return await delivered(self.stores, request, place, Shown(f"{job.id}.{suffix}", content_type, sha256))

    async def _kept_preview(self, tenant: Tenant, root: str, name: str) -> str | None:
        """The content of one that was drawn before and is there still, counted as used now."""

        async def known(store: StoreClient) -> str:
            sha256 = str((await store.get_name(tenant.digest, PREVIEWS, name)).value.get("sha256"))
            await store.renew(tenant.digest, sha256)
            return sha256

        with suppress(NotFound):
            return await self.stores.ask(tenant.namespace, root, known)
        return None

    async def upload_response(self, request: Request, tenant: Tenant, key: str, *, filename: str) -> Response:
        """An upload of the tenant: whole or a range. NotFound."""
        root, _ = await self._find(tenant, key)
        shown = Shown(filename, "", key.partition("/")[2])
        place = Place(tenant.namespace, root, upload_key(tenant.namespace, key))
        return await delivered(self.stores, request, place, shown)


def tenant_of(grant: Grant) -> Tenant:
    """The tenant that a link was given to; of its limits, those that matter stand in the link."""
    return Tenant(grant.tenant, grant.namespace, account=grant.account)


def _artifact_of(job: Job, index: int) -> Artifact:
    found = next((one for one in job.artifacts if one.index == index), None)
    if found is None:
        raise NotFound(f"no artifact {index} of job {job.id}")
    return found


def _upload(tenant: Tenant, name: Name) -> Upload:
    value = name.value
    try:
        sha256, size = str(value["sha256"]), int(value["bytes"])
    except (KeyError, TypeError, ValueError):
        raise NotFound("no such file") from None
    return Upload(f"{tenant.digest}/{sha256}", sha256, size, str(value.get("contentType") or sniff.UNKNOWN))
