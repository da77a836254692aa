"""GET /view: results by their name alone, uploads by name and folder; with Range.

Of pictures one channel alone, or a preview: those are drawn by the media child. Videos are shown as they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from starlette.requests import Request
from starlette.responses import Response

from kinora.engine.filenames import annotated, parted
from kinora.gateway.comfyui.names import BadName, upload_path
from kinora.gateway.comfyui.pictures import Pictures, shown
from kinora.gateway.comfyui.uploads import KINDS, RESULTS, Result, Uploads
from kinora.gateway.errors import Forbidden, InvalidInput, NotFound
from kinora.gateway.files import Files, Upload
from kinora.gateway.tenants import Tenant
from kinora.media import child
from kinora.media.info import MediaError

_CHANNELS: Final = ("rgb", "a")
_PREVIEWS: Final = ("webp", "jpeg")
_QUALITY: Final = 90


class View:
    """Shows files to the tenant whose they are."""

    def __init__(self, files: Files, uploads: Uploads, pictures: Pictures) -> None:
        self._files, self._uploads, self._pictures = files, uploads, pictures

    async def response(self, request: Request, tenant: Tenant) -> Response:
        """The file that the query names. NotFound, InvalidInput, Forbidden, Unavailable."""
        query = request.query_params
        name, kind = annotated(query.get("filename", ""))
        kind, subfolder = kind or query.get("type") or RESULTS, query.get("subfolder", "")
        if not name:
            raise NotFound("filename is not given")
        if kind not in (RESULTS, *KINDS):
            raise InvalidInput("type", f"type is {kind[:40]}; allowed: {', '.join((RESULTS, *KINDS))}")
        if name.startswith("/") or ".." in name:
            raise InvalidInput("filename", "filename leads out of its folder")
        if subfolder.startswith("/") or ".." in subfolder.replace("\\", "/").split("/"):
            raise Forbidden("subfolder leads out of its folder")
        filename, wanted = parted(name)[1], wanted_of(query)
        if kind == RESULTS:
            return await self._result(request, tenant, filename, wanted)
        try:
            upload = await self._uploads.find(tenant, kind, upload_path(subfolder, filename))
        except BadName:
            raise NotFound("no such file") from None
        if wanted is not None and not upload.content_type.startswith("video/"):
            return await self._drawn(request, tenant, upload, upload.sha256, wanted)
        return await self._files.upload_response(request, tenant, upload.key, filename=filename)

    async def _result(self, request: Request, tenant: Tenant, filename: str, wanted: Wanted | None) -> Response:
        made = await self._uploads.result(tenant, filename)
        if wanted is not None and made.artifact.content_type.startswith("image/"):
            return await self._drawn(request, tenant, made, made.artifact.sha256, wanted)
        return await self._files.artifact_response(request, tenant, made.job, made.artifact.index, filename=filename)

    async def _drawn(
        self, request: Request, tenant: Tenant, file: Upload | Result, sha256: str, wanted: Wanted
    ) -> Response:
        """A picture as it was asked for. Its ETag is known without drawing it."""
        headers = {"ETag": f'"{sha256}-{wanted.mark}"', "Cache-Control": "private"}
        if headers["ETag"] in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        async with self._pictures.turn():
            with await self._uploads.picture(tenant, file) as picture:
                try:
                    made = await self._pictures.made(lambda out, limits: _work(wanted, picture, out, limits))
                except MediaError as error:
                    raise InvalidInput(wanted.field, f"the file has no {wanted.words}: {error}") from None
        return shown(made, {**headers, "Content-Type": wanted.content_type})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a picture is asked for: a channel as PNG, or, where `kind` is set, a preview."""

    channel: str = ""
    kind: str = ""
    quality: int = _QUALITY

    @property
    def field(self) -> str:
        """Of the query."""
        return "preview" if self.kind else "channel"

    @property
    def words(self) -> str:
        """What the picture is not good for, where it is not."""
        return f"preview as {self.kind}" if self.kind else f"channel {self.channel}"

    @property
    def mark(self) -> str:
        """Tells this picture from others of the same file."""
        return f"{self.channel}-{self.kind}-{self.quality}" if self.kind else self.channel

    @property
    def content_type(self) -> str:
        """What is answered."""
        return f"image/{self.kind}" if self.kind else "image/png"


def wanted_of(query: Mapping[str, str]) -> Wanted | None:
    """What `preview` and `channel` ask for, as ComfyUI reads them; None: the file as it is."""
    channel = query.get("channel", "")
    if "preview" in query:
        asked = query["preview"].split(";")
        kind, last = asked[0], asked[-1]
        if kind not in _PREVIEWS or "a" in channel:
            kind = _PREVIEWS[0]
        number = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else _QUALITY
        return Wanted("rgb" if channel == "rgb" else "", kind, min(max(number, 1), 100))
    return Wanted(channel) if channel in _CHANNELS else None


def _work(wanted: Wanted, picture: BinaryIO, out: BinaryIO, limits: child.Limits) -> Awaitable[None]:
    if not wanted.kind:
        return child.channel(picture, out, wanted.channel, limits)
    opaque = wanted.channel == "rgb"
    return child.preview(picture, out, wanted.kind, wanted.quality, opaque=opaque, limits=limits)
