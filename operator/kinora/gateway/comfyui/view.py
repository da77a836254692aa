"""GET /view: results by their name alone, uploads by name and folder; with Range; of pictures one channel alone."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from kinora.engine.filenames import annotated, parted
from kinora.gateway.comfyui.names import BadName, result_of, upload_path
from kinora.gateway.comfyui.uploads import KINDS, Uploads
from kinora.gateway.errors import Forbidden, InvalidInput, NotFound
from kinora.gateway.files import Files, Upload
from kinora.gateway.service import Service
from kinora.gateway.tenants import Tenant
from kinora.media import child
from kinora.media.info import MediaError

_RESULTS: Final = "output"
_CHANNELS: Final = ("rgb", "a")


class View:
    """Shows files to the tenant whose they are."""

    def __init__(self, files: Files, service: Service, uploads: Uploads) -> None:
        self._files, self._service, self._uploads = files, service, uploads

    async def response(self, request: Request, tenant: Tenant) -> Response:
        """The file that the query names. NotFound, InvalidInput, Forbidden, Unavailable."""
        query = request.query_params
        name, kind = annotated(query.get("filename", ""))
        kind, subfolder = kind or query.get("type") or _RESULTS, query.get("subfolder", "")
        if not name:
            raise NotFound("filename is not given")
        if kind not in (_RESULTS, *KINDS):
            raise InvalidInput("type", f"type is {kind[:40]}; allowed: {', '.join((_RESULTS, *KINDS))}")
        if name.startswith("/") or ".." in name:
            raise InvalidInput("filename", "filename leads out of its folder")
        if subfolder.startswith("/") or ".." in subfolder.replace("\\", "/").split("/"):
            raise Forbidden("subfolder leads out of its folder")
        filename = parted(name)[1]
        if kind == _RESULTS:
            return await self._result(request, tenant, filename)
        try:
            upload = await self._uploads.find(tenant, kind, upload_path(subfolder, filename))
        except BadName:
            raise NotFound("no such file") from None
        if query.get("channel") in _CHANNELS:
            return await self._channel(tenant, upload, query["channel"])
        return await self._files.upload_response(request, tenant, upload.key, filename=filename)

    async def _result(self, request: Request, tenant: Tenant, filename: str) -> Response:
        made = result_of(filename)
        if made is None:
            raise NotFound("no such file")
        job = await self._service.job(tenant, made[0])
        return await self._files.artifact_response(request, tenant, job, made[1], filename=filename)

    async def _channel(self, tenant: Tenant, upload: Upload, channel: str) -> Response:
        with await self._uploads.picture(tenant, upload) as picture, tempfile.TemporaryFile() as output:
            try:
                await child.channel(picture, output, channel)
            except MediaError as error:
                raise InvalidInput("channel", f"the file has no channel {channel}: {error}") from None
            output.seek(0)
            content = await asyncio.to_thread(output.read)
        return Response(content, media_type="image/png", headers={"X-Content-Type-Options": "nosniff"})
