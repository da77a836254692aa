"""The routes of OpenAI's dialect, below /v1/videos. Shapes are answer.py's, bodies are read by forms.py."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from kinora.gateway.bodies import documented, json_of, read_bytes, submitted, told
from kinora.gateway.context import Dialect, Gateway
from kinora.gateway.errors import GatewayError, InvalidInput, ModelNotFound
from kinora.gateway.jobs import Job, State
from kinora.gateway.mapping import Draft, Source, of_kind, parse, shown, url
from kinora.gateway.openai import answer, errors
from kinora.gateway.openai.forms import Form, read_form
from kinora.gateway.openai.request import (
    CreateVideo,
    EditVideo,
    ExtendVideo,
    RemixVideo,
    Rendering,
    create_draft,
    default_model,
    edit_draft,
    extend_draft,
    extension_frames,
    reference_url,
    remix_spec,
    served_models,
)
from kinora.gateway.tenants import Tenant
from kinora.recipes.joining import generated_frames
from kinora.recipes.needs import frames_at_rate
from kinora.storage.service.model import PreviewKind

NAME: Final = "openai"
PREFIX: Final = "/v1/videos"
MODELS: Final = "/v1/models"
_VARIANTS: Final = ("video", *PreviewKind)
POLL_AFTER: Final = {"openai-poll-after-ms": str(answer.POLL_AFTER_MILLISECONDS)}


def router(gateway: Gateway) -> APIRouter:
    """The routes over this gateway."""
    videos, api = APIRouter(prefix=PREFIX), APIRouter()
    shell = _Shell(gateway)
    _creates(videos, shell)
    _extends(videos, shell)
    _reads(videos, shell)
    _content(videos, shell)
    api.include_router(videos)
    _models(api, gateway)
    return api


def render(error: GatewayError, _request: Request) -> Response:
    """An error in the API's shape."""
    return told(errors.fault(error), error.status)


DIALECT: Final = Dialect(NAME, (PREFIX, MODELS), router, render, streamed=(PREFIX,))


class _Shell:
    """What the routes do with jobs and videos."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.retention = gateway.settings.values.retention.job_seconds

    def model(self, asked: Rendering, tenant: Tenant, task: str) -> str:
        """The model that is asked for, or the one that is meant."""
        return asked.model or default_model(task, self.gateway.service.servers(tenant), self.gateway.catalogue)

    async def make(self, request: Request, tenant: Tenant, made: Draft, body: bytes, **note: Any) -> Response:
        """The job of a draft, and the answer to the request that made it."""
        model = self.gateway.catalogue.get(made.spec.get("model"))
        fps = model.defaults.fps if model is not None else None
        kept = answer.note_of(made.spec, made.notes, fps=fps, **note)
        job = await submitted(self.gateway, request, tenant, made, dialect=NAME, note=kept, body=body)
        video = answer.video(job, retention_seconds=self.retention, prompt=str(made.spec["prompt"]))
        return told(video, headers=POLL_AFTER)

    async def source(self, tenant: Tenant, form: Form, value: object) -> tuple[Source, Job | None]:
        """The video that an edit or an extension starts from, and its job where it is one of the tenant's own."""
        if form.file is not None:
            return {"upload": form.file.key}, None
        if isinstance(value, str) and value:
            return url(value), None
        id_ = value.get("id") if isinstance(value, dict) else None
        if not isinstance(id_, str):
            raise InvalidInput("video", f"video is {shown(value)}; allowed: a file, a URL, or the id of a video")
        job = await self.completed(tenant, id_, "video")
        return {"artifact": {"videoJobName": job.name, "index": of_kind(job, "video")[0].index}}, job

    async def completed(self, tenant: Tenant, id_: str, field: str) -> Job:
        """A job whose video is there. Raises NotFound, InvalidInput."""
        job = await self.gateway.service.job(tenant, id_)
        if job.state is not State.SUCCEEDED or not of_kind(job, "video"):
            status = answer.video(job).status
            raise InvalidInput(field, f"video {job.id} is {status}; allowed: one that is completed")
        return job


def _creates(api: APIRouter, shell: _Shell) -> None:
    gateway = shell.gateway

    @api.post("", openapi_extra=documented(CreateVideo, form=True), response_model=answer.Video)
    async def create(request: Request) -> Response:
        """Make a video from a prompt and, if there is one, its first frame."""
        tenant = await gateway.tenant(request, NAME)
        form = await read_form(gateway, request, tenant, "input_reference", "image")
        asked = parse(CreateVideo, form.fields)
        text = reference_url(asked.input_reference)
        picture = {"upload": form.file.key} if form.file else url(text) if text else None
        task = "ImageToVideo" if picture else "TextToVideo"
        made = create_draft(asked, shell.model(asked, tenant, task), picture)
        return await shell.make(request, tenant, made, form.body)

    @api.post("/edits", openapi_extra=documented(EditVideo, form=True), response_model=answer.Video)
    async def edit(request: Request) -> Response:
        """Make a video from another one and a prompt that says what to change."""
        tenant = await gateway.tenant(request, NAME)
        form = await read_form(gateway, request, tenant, "video", "video")
        asked = parse(EditVideo, _with_file(form))
        source, _ = await shell.source(tenant, form, asked.video)
        made = edit_draft(asked, shell.model(asked, tenant, "Edit"), source)
        return await shell.make(request, tenant, made, form.body)

    @api.post("/{video_id}/remix", openapi_extra=documented(RemixVideo), response_model=answer.Video)
    async def remix(video_id: str, request: Request) -> Response:
        """Make the same video again with another prompt."""
        tenant = await gateway.tenant(request, NAME)
        body = await read_bytes(request, gateway.settings.values.max_body_bytes)
        asked = parse(RemixVideo, json_of(body))
        job = await shell.completed(tenant, video_id, "video_id")
        stored = (await gateway.service.whole(tenant, video_id))["spec"]
        made = Draft(remix_spec(stored, asked.prompt, job.resolved.get("seed")))
        return await shell.make(request, tenant, made, body, remixedFrom=video_id)


def _extends(api: APIRouter, shell: _Shell) -> None:
    gateway = shell.gateway

    @api.post("/extensions", openapi_extra=documented(ExtendVideo, form=True), response_model=answer.Video)
    async def extend(request: Request) -> Response:
        """Make a longer video: another one whole, and what follows it."""
        tenant = await gateway.tenant(request, NAME)
        form = await read_form(gateway, request, tenant, "video", "video")
        asked = parse(ExtendVideo, _with_file(form))
        source, job = await shell.source(tenant, form, asked.video)
        name = shell.model(asked, tenant, "Extend")
        model = gateway.catalogue.get(name)
        if model is None:
            raise ModelNotFound("model", f"model is {shown(name)}; allowed: {', '.join(gateway.catalogue.names)}")
        fps = asked.fps or model.defaults.fps
        clip = _clip_frames(job, fps)
        frames = extension_frames(asked.seconds, fps, clip, model.frames_of("Extend").maximum)
        whole = None if clip is None else f"{(clip + generated_frames(frames, clip)) / fps:g}"
        return await shell.make(request, tenant, extend_draft(asked, name, source, frames), form.body, seconds=whole)


def _with_file(form: Form) -> dict[str, Any]:
    """The fields, with something in the place of the file that is in the store by now."""
    return {**form.fields, "video": "file"} if form.file else form.fields


def _clip_frames(job: Job | None, fps: float) -> int | None:
    """Frames at that rate of a job's video; None where they are not known here."""
    video = next(iter(of_kind(job, "video")), None) if job is not None else None
    return frames_at_rate(video.frames, video.fps, fps) if video and video.frames and video.fps else None


def _reads(api: APIRouter, shell: _Shell) -> None:
    gateway = shell.gateway

    @api.get("", response_model=answer.VideoList)
    async def listed(
        request: Request,
        after: str | None = None,
        limit: Annotated[int, Query(ge=0, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        """The videos, by pages; `after`: the last id of the page before."""
        tenant = await gateway.tenant(request, NAME)
        jobs, more = answer.page(gateway.service.jobs(tenant), after=after, limit=limit, ascending=order == "asc")
        return told(answer.listed(jobs, more, retention_seconds=shell.retention))

    @api.get("/{video_id}", response_model=answer.Video)
    async def retrieve(video_id: str, request: Request) -> Response:
        """A video as it is."""
        tenant = await gateway.tenant(request, NAME)
        job = await gateway.service.job(tenant, video_id)
        return told(answer.video(job, retention_seconds=shell.retention), headers=POLL_AFTER)

    @api.delete("/{video_id}", response_model=answer.VideoDeleted)
    async def delete(video_id: str, request: Request) -> Response:
        """Remove the record of a video; an unfinished one ends with it."""
        tenant = await gateway.tenant(request, NAME)
        await gateway.service.delete(tenant, video_id)
        return told(answer.VideoDeleted(id=video_id))


def _content(api: APIRouter, shell: _Shell) -> None:
    gateway = shell.gateway

    @api.head("/{video_id}/content", include_in_schema=False)
    @api.get("/{video_id}/content", response_class=Response)
    async def content(video_id: str, request: Request, variant: str = "video") -> Response:
        """The finished video's bytes, with Range; or a picture that stands for it: thumbnail, spritesheet."""
        tenant = await gateway.tenant(request, NAME)
        if variant not in _VARIANTS:
            raise InvalidInput("variant", f"variant is {shown(variant)}; allowed: {', '.join(_VARIANTS)}")
        job = await shell.completed(tenant, video_id, "video_id")
        index = of_kind(job, "video")[0].index
        if variant != _VARIANTS[0]:
            return await gateway.files.preview_response(request, tenant, job, index, PreviewKind(variant))
        return await gateway.files.artifact_response(request, tenant, job, index)


def _models(api: APIRouter, gateway: Gateway) -> None:
    @api.get(MODELS, response_model=answer.ModelList)
    async def models(request: Request) -> Response:
        """The names that `model` may have: what is served in the namespace, and the aliases that lead there."""
        tenant = await gateway.tenant(request, NAME)
        names = served_models(gateway.service.servers(tenant), gateway.catalogue)
        return told(answer.ModelList(data=[answer.Model(id=name) for name in names]))
