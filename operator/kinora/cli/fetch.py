"""`kinora fetch`: a finished job's video to a file here: of a PVC store through a short-lived reader pod, of a bucket
with the user's own credentials (fetch_s3.py).

The reader mounts the claim read-only and serves one file; the API server proxies to it, so that nothing has to be
reachable from outside. The bytes are checked against the sha256 in the job's status before the file appears.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from kubernetes.config import ConfigException

from kinora.api import names
from kinora.cli import fetch_s3
from kinora.cli.pods import PodError, agent_image, claim_pod, proxied, running
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.config import connect
from kinora.kube.resources import VIDEOJOB
from kinora.media.files import open_beneath

_CHUNK = 1024 * 1024


class FetchError(Exception):
    """Why the video could not be brought, and what to do."""


@dataclass(frozen=True)
class Request:
    """What to fetch."""

    name: str
    output: Path
    namespace: str | None = None
    context: str | None = None
    index: int = 0
    image: str | None = None
    endpoint: str | None = None
    timeout_seconds: float = 120.0


@dataclass(frozen=True)
class Written:
    """What was fetched."""

    path: Path
    bytes: int
    sha256: str


def run(request: Request) -> Written:
    """Fetch, synchronously. Raises FetchError."""
    try:
        return asyncio.run(fetch(request))
    except ConfigException as error:
        raise FetchError(f"no cluster: {error}") from error
    except (ApiError, UnreachableError, aiohttp.ClientError) as error:
        raise FetchError(str(error)) from error


async def fetch(request: Request) -> Written:
    """Fetch one artifact. Raises FetchError, ApiError."""
    async with KubeClient(connect(context=request.context), user_agent="kinora-cli") as client:
        namespace = request.namespace or client.namespace
        artifact = await _artifact(client, namespace, request)
        uri = urlsplit(artifact["uri"])
        if uri.scheme == "s3":
            return await _from_bucket(client, namespace, artifact, request)
        if uri.scheme != "pvc":
            raise FetchError(f"{artifact['uri']} is neither on a claim nor in a bucket; use the tools of its store")
        command = ["kinora", "serve-file", names.ARTIFACTS_DIR, uri.path.lstrip("/")]
        try:
            image = request.image or await agent_image(client, namespace)
            pod = claim_pod(namespace, uri.netloc, command, image=image)
            async with running(client, pod, request.timeout_seconds) as name:
                return await _download(client, namespace, name, artifact, request.output)
        except PodError as error:
            raise FetchError(str(error)) from None


async def _from_bucket(client: KubeClient, namespace: str, artifact: dict[str, Any], request: Request) -> Written:
    try:
        async with fetch_s3.opened(client, namespace, artifact["uri"], os.environ, request.endpoint) as bring:
            return await _landed(artifact, request.output, bring)
    except fetch_s3.BucketError as error:
        raise FetchError(str(error)) from None


async def _artifact(client: KubeClient, namespace: str, request: Request) -> dict[str, Any]:
    job = await client.find(VIDEOJOB, namespace, request.name)
    if job is None:
        raise FetchError(f"no VideoJob {request.name!r} in namespace {namespace!r}")
    status = job.get("status") or {}
    artifacts = status.get("artifacts") or []
    if status.get("phase") != "Succeeded":
        raise FetchError(
            f"{request.name} is {status.get('phase')} ({status.get('reason', '')}); only a Succeeded job has a video"
        )
    if not 0 <= request.index < len(artifacts):
        raise FetchError(f"--index is {request.index}; allowed: 0 to {len(artifacts) - 1}")
    found: dict[str, Any] = artifacts[request.index]
    return found


async def _download(client: KubeClient, namespace: str, pod: str, artifact: dict[str, Any], output: Path) -> Written:
    path = proxied(namespace, pod, "file")

    async def bring(write: Callable[[bytes], None]) -> None:
        async for chunk in client.download(path):
            write(chunk)

    return await _landed(artifact, output, bring)


async def _landed(
    artifact: dict[str, Any], output: Path, bring: Callable[[Callable[[bytes], None]], Awaitable[None]]
) -> Written:
    """Stream to a temporary file beside the target; only proven bytes get the target's name."""
    digest = hashlib.sha256()
    output.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(handle, "wb") as file:

            def write(chunk: bytes) -> None:
                digest.update(chunk)
                file.write(chunk)

            await bring(write)
            size = file.tell()
        if digest.hexdigest() != artifact["sha256"]:
            raise FetchError(
                f"{artifact['uri']}: sha256 is {digest.hexdigest()} ({size} bytes),"
                f" the job's status says {artifact['sha256']} ({artifact['bytes']} bytes)"
            )
        os.replace(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise
    return Written(output, size, digest.hexdigest())


def serve(root: Path, name: str, port: int) -> None:
    """The reader pod's process: one file, opened beneath its root, at /file; anything else is 404."""
    opened = open_beneath(root, name)  # held open for as long as the process serves
    file = opened.fileno()

    async def content(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = os.fstat(file).st_size
        await response.prepare(request)
        offset = 0
        while chunk := os.pread(file, _CHUNK, offset):
            await response.write(chunk)
            offset += len(chunk)
        await response.write_eof()
        return response

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/file", content), web.get("/", alive)])
    with opened:
        web.run_app(app, port=port, print=None)
