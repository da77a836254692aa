"""Files that come in: pictures, videos and masks under names of the tenant's own, and what such a name leads to.

Content is kept by its hash in the store; a name ("input/sub/photo.png") only points at it. A taken name is handled as
ComfyUI does: the same content keeps it, other content is stored as "photo (1).png", unless it is to be overwritten.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Final

from starlette.requests import Request

from kinora.engine.filenames import annotated, numbered, parted
from kinora.gateway.comfyui.names import BadName, result_of, upload_path
from kinora.gateway.comfyui.pictures import MAX_PICTURE, Pictures, chunks, opened
from kinora.gateway.comfyui.request import File, place_of
from kinora.gateway.errors import Conflict, InvalidInput, NotFound
from kinora.gateway.files import Files, Upload
from kinora.gateway.jobs import Artifact, Job
from kinora.gateway.multipart import parts
from kinora.gateway.service import Service
from kinora.gateway.tenants import Tenant
from kinora.media import child
from kinora.media.info import InputError, MediaError

SCOPE: Final = "comfyui"
KINDS: Final = ("input", "temp")  # where uploads may go; results come from jobs alone
RESULTS: Final = "output"
_MOST_NAMES: Final = 100  # tried for one upload
_AT_ONCE: Final = 8
_MOST_LOOKED_UP: Final = 64  # names of one graph


@dataclass(frozen=True, slots=True)
class Result:
    """A file that a job has made."""

    job: Job
    artifact: Artifact


class Uploads:
    """The uploads of all tenants, by name."""

    def __init__(self, files: Files, service: Service, pictures: Pictures) -> None:
        self._files, self._service, self._pictures = files, service, pictures

    async def image(self, request: Request, tenant: Tenant) -> dict[str, str]:
        """POST /upload/image: the name, as the client is to use it. InvalidInput, TooLarge, Conflict, Unavailable."""
        upload, filename, fields = await self._received(request, tenant)
        return await self._stored(tenant, upload, filename, fields)

    async def mask(self, request: Request, tenant: Tenant) -> dict[str, str]:
        """POST /upload/mask: `original_ref`'s picture with the alpha of the picture that comes, as PNG."""
        upload, filename, fields = await self._received(request, tenant)
        original = await self._original(tenant, fields.get("original_ref"))
        return await self._stored(tenant, await self._with_alpha(tenant, original, upload), filename, fields)

    async def find(self, tenant: Tenant, kind: str, path: str) -> Upload:
        """What a name leads to. NotFound."""
        return await self._files.get_name(tenant, f"{kind}/{path}", scope=SCOPE)

    async def names(self, tenant: Tenant) -> list[str]:
        """The tenant's uploads of type input, as loader nodes name them."""
        known = await self._files.names(tenant, scope=SCOPE)
        return sorted(name.removeprefix("input/") for name in known if name.startswith("input/"))

    async def resolve(self, tenant: Tenant, names: Iterable[str]) -> dict[str, File]:
        """What names in a graph lead to; those that lead nowhere are left out."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> tuple[str, File | None]:
            async with turns:
                return name, await self._resolved(tenant, name)

        found = await asyncio.gather(*(one(name) for name in islice(sorted(names), _MOST_LOOKED_UP)))
        return {name: file for name, file in found if file is not None}

    async def _resolved(self, tenant: Tenant, name: str) -> File | None:
        place = place_of(name)
        if place is None:
            return None
        kind, path = place
        try:
            if kind in KINDS:
                upload = await self.find(tenant, kind, path)
                return File({"upload": upload.key}, upload.sha256)
            made = await self.result(tenant, parted(path)[1])
        except NotFound:
            return None
        source = {"artifact": {"videoJobName": made.job.name, "index": made.artifact.index}}
        return File(source, made.artifact.sha256)

    # --- what comes in ------------------------------------------------------------------------------------------------

    async def _received(self, request: Request, tenant: Tenant) -> tuple[Upload, str, dict[str, str]]:
        """The file, which is in the store when this returns, its name, and the other fields."""
        fields: dict[str, str] = {}
        upload, filename = None, ""
        async for part in parts(request.headers.get("content-type", ""), request.stream()):
            if part.filename is None:
                fields[part.name] = await part.text()
            elif part.name == "image" and upload is None and part.filename:
                filename = part.filename
                _path("", filename)
                upload = await self._files.put(tenant, part.chunks())
        if upload is None:
            raise InvalidInput("image", "the form has no file in its field image")
        return upload, filename, fields

    async def _stored(self, tenant: Tenant, upload: Upload, filename: str, fields: dict[str, str]) -> dict[str, str]:
        kind = fields.get("type") or KINDS[0]
        if kind not in KINDS:
            raise InvalidInput("type", f"type is {kind[:40]}; allowed: {', '.join(KINDS)}")
        subfolder, name = parted(_path(fields.get("subfolder", ""), filename))
        names: Iterable[str] = islice(numbered(name), _MOST_NAMES)
        overwrite = fields.get("overwrite", "") in ("true", "1")
        for candidate in names:
            path = _path(subfolder, candidate)
            try:
                await self._files.put_name(tenant, f"{kind}/{path}", upload, scope=SCOPE, overwrite=overwrite)
            except Conflict:
                continue
            return {"name": candidate, "subfolder": subfolder, "type": kind}
        raise Conflict(f"{name[:80]} and {_MOST_NAMES - 1} numbered names after it are taken; give another name")

    # --- masks --------------------------------------------------------------------------------------------------------

    async def _original(self, tenant: Tenant, text: str | None) -> Upload | Result:
        """What `original_ref` names: an upload, or a picture that a job has made."""
        allowed = '{"filename": ..., "subfolder": ..., "type": ...}, of an upload or a result'
        try:
            ref = json.loads(text or "")
            name, kind = annotated(str(ref["filename"]))
            path = upload_path(str(ref.get("subfolder") or ""), name)
            kind = kind or str(ref.get("type") or RESULTS)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise InvalidInput("original_ref", f"original_ref cannot be read; allowed: {allowed}") from None
        if kind not in (RESULTS, *KINDS):
            told = ", ".join((RESULTS, *KINDS))
            raise InvalidInput("original_ref", f"original_ref is of type {kind[:40]}; allowed: {told}")
        try:
            return await (self.result(tenant, parted(path)[1]) if kind == RESULTS else self.find(tenant, kind, path))
        except NotFound:
            missing = "which was not uploaded" if kind in KINDS else "which is no result of yours"
            raise InvalidInput("original_ref", f"original_ref is {path[:80]}, {missing}") from None

    async def result(self, tenant: Tenant, filename: str) -> Result:
        """The file of a job that a name stands for. NotFound."""
        made = result_of(filename)
        if made is None:
            raise NotFound("no such file")
        job = await self._service.job(tenant, made[0])
        artifact = next((one for one in job.artifacts if one.index == made[1]), None)
        if artifact is None:
            raise NotFound(f"no artifact {made[1]} of job {job.id}")
        return Result(job, artifact)

    async def _with_alpha(self, tenant: Tenant, original: Upload | Result, mask: Upload) -> Upload:
        async with self._pictures.turn():
            image, alpha = await self.picture(tenant, original), await self.picture(tenant, mask)
            with image, alpha:
                try:
                    made = await self._pictures.made(lambda out, limits: child.put_alpha(image, alpha, out, limits))
                except InputError as error:
                    field = "original_ref" if error.name == "image" else "image"
                    raise InvalidInput(field, f"{field} is a file that cannot be used: {error}") from None
                except MediaError as error:
                    raise InvalidInput("", f"the pictures cannot be used: {error}") from None
        with made:
            return await self._files.put(tenant, chunks(made))

    async def picture(self, tenant: Tenant, file: Upload | Result) -> BinaryIO:
        """A file as an open one without a name, for the media child. TooLarge."""
        if isinstance(file, Upload):
            return await opened(await self._files.read(tenant, file.key, max_bytes=MAX_PICTURE))
        index = file.artifact.index
        return await opened(await self._files.read_artifact(tenant, file.job, index, max_bytes=MAX_PICTURE))


def _path(subfolder: str, filename: str) -> str:
    try:
        return upload_path(subfolder, filename)
    except BadName as error:
        raise InvalidInput(
            "subfolder" if subfolder else "image", f"{subfolder}/{filename}"[:80] + f": {error}"
        ) from None


def document() -> dict[str, Any]:
    """What OpenAPI says of the form."""
    text = {"type": "string"}
    properties = {"image": {"type": "string", "format": "binary"}, "type": {**text, "enum": list(KINDS)}}
    properties |= {"subfolder": text, "overwrite": text, "original_ref": text}
    schema = {"type": "object", "required": ["image"], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
