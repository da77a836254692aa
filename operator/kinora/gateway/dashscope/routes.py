"""The routes of the DashScope dialect, and its errors. What is decided is decided in request, spec, answer and errors.

Every route stands with and without a slash at its end: one of the official clients asks so, and follows no redirect of
a POST with its body.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kinora.api.videojob import Task
from kinora.catalogue.model import Model
from kinora.gateway.context import Dialect, Gateway
from kinora.gateway.dashscope import answer, models
from kinora.gateway.dashscope.answer import NAME, Whole
from kinora.gateway.dashscope.errors import NotPending, Synchronous, problem
from kinora.gateway.dashscope.extend import Extender
from kinora.gateway.dashscope.inline import decoded, is_inline
from kinora.gateway.dashscope.request import Function, VideoSynthesis, check, function_of, ignored
from kinora.gateway.dashscope.spec import draft, retold, settled
from kinora.gateway.dashscope.words import DONE
from kinora.gateway.errors import GatewayError, InvalidInput, ModelNotFound, NotFound, Unavailable
from kinora.gateway.jobs import Job, State
from kinora.gateway.service import Submission
from kinora.gateway.tenants import Tenant

log = logging.getLogger(__name__)
PREFIX: Final = "/api/v1"
_SYNTHESIS: Final = "/services/aigc/video-generation/video-synthesis"
_IMAGE2VIDEO: Final = "/services/aigc/image2video/video-synthesis"
_MEGABYTE: Final = 1024**2
_KEPT: Final = 256  # finished tasks whose prompts are remembered, of those asked for last
_FAULTS: Final = 5  # told at once
_SHOWN: Final = 80  # characters of a value


class Routes:
    """The handlers, over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._extender = Extender(gateway.settings.values.prompt_extend)
        self._wholes: OrderedDict[str, Whole] = OrderedDict()

    async def admit(self, request: Request) -> None:
        """Who asks, before anything else of the request is looked at."""
        request.state.caller = await self._gateway.tenant(request, NAME)

    async def submit(self, request: Request) -> Response:
        """Make a task. Header `X-DashScope-Async: enable`; answered at once, with the task's id."""
        asked = await _asked(request)
        model = self._model(asked)
        function = function_of(asked, edits_only=model.tasks == (Task.EDIT,))
        check(asked, function)
        _tell_ignored(request, asked, function)
        job = await self._made(request, asked, function)
        return _answered(request, answer.submitted(job))

    async def submit_elsewhere(self, request: Request) -> Response:
        """Where the clients send models of first and last frames (kf2v): none of them is served at this address."""
        asked = await _asked(request)
        self._model(asked)
        raise InvalidInput("model", f"url error, please check url! {asked.model} is served at {PREFIX}{_SYNTHESIS}")

    async def task(self, request: Request, task_id: str) -> Response:
        """A task's status and, at its end, its result. A task that the caller has not is UNKNOWN."""
        tenant = _caller(request)
        try:
            job = await self._gateway.service.job(tenant, task_id)
        except NotFound:
            return _answered(request, answer.unknown(task_id))
        if job.state is not State.SUCCEEDED:
            return _answered(request, answer.task(job))
        video = answer.video_of(job)
        url = None if video is None else self._gateway.files.link(request, tenant, job, video.index)
        return _answered(request, answer.task(job, video_url=url, whole=await self._whole(tenant, job)))

    async def cancel(self, request: Request, task_id: str) -> Response:
        """Cancel a task that is PENDING."""
        tenant, service = _caller(request), self._gateway.service
        _, was_queued = await service.cancel_queued(tenant, task_id)
        if not was_queued:
            raise NotPending
        return _answered(request, {})

    async def tasks(
        self,
        request: Request,
        *,
        page_no: int = Query(1, ge=1, le=1_000_000),
        page_size: int = Query(10, ge=1, le=100),
        task_id: str = Query(""),
        start_time: str = Query("", description="YYYYMMDDhhmmss, UTC+8; without: 24 hours before end_time"),
        end_time: str = Query("", description="YYYYMMDDhhmmss, UTC+8; without: 24 hours after start_time, or now"),
        model_name: str = Query(""),
        status: str = Query("", description="PENDING, RUNNING, SUCCEEDED, FAILED, CANCELED or UNKNOWN"),
        api_key_id: str = Query("", description="the tenant's name"),
    ) -> Response:
        """The caller's tasks, newest first, whatever API they came by."""
        tenant = _caller(request)
        query = answer.Query(
            task_id=task_id,
            start_time=start_time,
            end_time=end_time,
            model_name=model_name,
            status=status,
            api_key_id=api_key_id,
            page_no=page_no,
            page_size=page_size,
        )
        jobs = self._gateway.service.jobs(tenant)
        return _answered(request, answer.listed(jobs, query, tenant.name, datetime.now(UTC)))

    async def policy(self, request: Request, action: str = Query(""), model: str = Query("")) -> Response:
        """A place for local files (`action=getPolicy`): a form to post to `upload_host`, without a key."""
        del model  # files are not bound to one
        if action != "getPolicy":
            raise InvalidInput("action", f"action is {action[:80]!r}; allowed: getPolicy")
        tenant = _caller(request)
        ticket = await self._gateway.files.ticket(request, tenant)
        data = {
            "policy": ticket.policy,
            "signature": ticket.signature,
            "upload_dir": ticket.upload_dir,
            "upload_host": ticket.post_url,
            "expire_in_seconds": self._gateway.settings.values.retention.upload_seconds,
            "max_file_size_mb": max(1, tenant.limits.upload_bytes // _MEGABYTE),
            "capacity_limit_mb": max(1, tenant.limits.upload_quota_bytes // _MEGABYTE),
            "oss_access_key_id": "kinora",
            "x_oss_object_acl": "private",
            "x_oss_forbid_overwrite": "true",
        }
        return _answered(request, {"data": data})

    # --- parts --------------------------------------------------------------------------------------------------------

    def _model(self, asked: VideoSynthesis) -> Model:
        """Raises ModelNotFound: above all for a hosted name that no administrator has mapped."""
        catalogue = self._gateway.catalogue
        model = catalogue.get(asked.model)
        if model is None:
            more = catalogue.unknown(asked.model)
            raise ModelNotFound("model", f"Model not exist: {asked.model}" + (f" ({more})" if more else ""))
        return model

    async def _made(self, request: Request, asked: VideoSynthesis, function: Function) -> Job:
        tenant, made = _caller(request), draft(asked, function)
        spec = await settled(made, lambda text: self._source(tenant, text))
        submission = Submission(
            dialect=NAME,
            spec=spec,
            note={**made.note, "request": request.state.request_id},
            idempotency_key=request.headers.get("idempotency-key") or None,
            body=await request.body(),
            retried=_retried(request),
            rewrite=None if asked.asked.prompt_extend is False else self._rewritten,
        )
        try:
            return await self._gateway.service.submit(tenant, submission)
        except InvalidInput as error:
            raise _renamed(error, made.fields) from None

    async def _rewritten(self, prompt: str) -> tuple[str, dict[str, str]]:
        extended = await self._extender.extend(prompt)
        self._gateway.metrics.prompts.labels(extended.how).inc()
        note = {"extend": extended.how}
        return extended.prompt, {**note, "prompt": prompt} if extended.how == DONE else note

    async def _source(self, tenant: Tenant, text: str) -> Mapping[str, Any]:
        if not is_inline(text):
            return await self._gateway.files.source(tenant, text)
        upload = await self._gateway.files.put(tenant, _once(decoded(text)))
        return {"upload": upload.key}

    async def _whole(self, tenant: Tenant, job: Job) -> Whole | None:
        """Prompt and source of a finished task; None where they cannot be read now."""
        known = self._wholes.get(job.uid)
        if known is not None:
            self._wholes.move_to_end(job.uid)
            return known
        try:
            found = Whole.of(await self._gateway.service.whole(tenant, job.id))
        except (NotFound, Unavailable):
            return None
        self._wholes[job.uid] = found
        while len(self._wholes) > _KEPT:
            self._wholes.popitem(last=False)
        return found


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _asked(request: Request) -> VideoSynthesis:
    if request.headers.get("x-dashscope-async", "").strip().lower() != "enable":
        raise Synchronous
    try:
        return VideoSynthesis.model_validate_json(await request.body())
    except ValidationError as error:
        faults = [_fault(one) for one in error.errors(include_url=False, include_context=False)[:_FAULTS]]
        raise InvalidInput(faults[0][0], "; ".join(text for _, text in faults)) from None


def _fault(found: Any) -> tuple[str, str]:
    """The field and the sentence of one of pydantic's findings."""
    place, message = ".".join(str(step) for step in found["loc"]), str(found["msg"])
    if found["type"] == "missing":
        return place, f"{place} is not set; it is required"
    if not place or isinstance(found["input"], (dict, list)):
        return place, f"{place}: {message}" if place else message
    value = ascii(found["input"])
    return place, f"{place} is {value if len(value) <= _SHOWN else value[:_SHOWN] + '...'}: {message}"


def _tell_ignored(request: Request, asked: VideoSynthesis, function: Function) -> None:
    names = ignored(asked, function)
    if names:
        log.info("request %s: ignored: %s", request.state.request_id, ascii(", ".join(names)))


def _renamed(error: InvalidInput, fields: Mapping[str, str]) -> InvalidInput:
    """The same verdict on a VideoJob, in the fields of the request."""
    field = fields.get(error.field, error.field.removeprefix("spec."))
    return type(error)(field, retold(error.message, fields), attempted=error.attempted)


def _retried(request: Request) -> bool:
    count = request.headers.get("x-stainless-retry-count", "")
    return count.isascii() and count.isdigit() and int(count[:9]) > 0


def _caller(request: Request) -> Tenant:
    tenant: Tenant = request.state.caller
    return tenant


def _answered(request: Request, content: Mapping[str, Any]) -> Response:
    return JSONResponse({"request_id": request.state.request_id, **content})


def render(error: GatewayError, request: Request) -> Response:
    """An error in the service's shape."""
    found = problem(error)
    content = {"request_id": request.state.request_id, "code": found.code, "message": found.message}
    return JSONResponse(content, status_code=found.status)


_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": models.ErrorAnswer, "description": words}
    for status, words in {
        400: "InvalidParameter, UnsupportedOperation",
        401: "InvalidApiKey",
        403: "AccessDenied",
        404: "NotFound, Model.NotExist",
        413: "RequestTooLarge",
        422: "InvalidParameter: an Idempotency-Key that came with another request before",
        429: "Throttling.RateQuota, Throttling.AllocationQuota",
        500: "InternalError",
        503: "ServiceUnavailable",
    }.items()
}
_ASYNC: Final = {
    "name": "X-DashScope-Async",
    "in": "header",
    "required": True,
    "schema": {"type": "string", "enum": ["enable"]},
}


def router(gateway: Gateway) -> APIRouter:
    """All routes of the dialect."""
    routes = Routes(gateway)
    made = APIRouter(prefix=PREFIX, dependencies=[Depends(routes.admit)], responses=_ERRORS)
    body = {"required": True, "content": {"application/json": {"schema": models.inline_schema(VideoSynthesis)}}}

    def add(method: str, path: str, handler: Callable[..., Any], model: Any, **more: Any) -> None:
        made.add_api_route(path, handler, methods=[method], response_model=model, **more)
        made.add_api_route(f"{path}/", handler, methods=[method], response_model=model, include_in_schema=False)

    submitting = {"openapi_extra": {"requestBody": body, "parameters": [_ASYNC]}}
    add("POST", _SYNTHESIS, routes.submit, models.SubmitAnswer, **submitting)
    add("POST", _IMAGE2VIDEO, routes.submit_elsewhere, models.SubmitAnswer, **submitting)
    add("GET", "/tasks/{task_id}", routes.task, models.TaskAnswer)
    add("POST", "/tasks/{task_id}/cancel", routes.cancel, models.CancelAnswer)
    add("GET", "/tasks", routes.tasks, models.ListAnswer)
    add("GET", "/uploads", routes.policy, models.PolicyAnswer)
    return made


DIALECT: Final = Dialect(NAME, (f"{PREFIX}/",), router, render)
