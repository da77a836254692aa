"""`kinora weights fetch`: what is asked for on the command line, a progress bar, the table or JSON at the end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from kinora.api.modelserver import ModelServerSpec, VerifyLevel, WeightSource
from kinora.catalogue.load import load_catalogue
from kinora.cli.manifests import UnreadableError, read
from kinora.cli.models import table
from kinora.weights.faults import FetchFault, Permanent, exit_code
from kinora.weights.fetch import FileReport, Progress, Request, fetch
from kinora.weights.plan import Rate, human
from kinora.weights.secrets import read_secrets
from kinora.weights.sources import Rules, SourceRefused, read_sources, secrets_of
from kinora.weights.transfer import Pace

_TICK = 0.25  # seconds between looks at the progress


class UsageError(Exception):
    """What was asked for cannot be; in one line."""


@dataclass(frozen=True)
class Asked:
    """The command's arguments."""

    model: str
    into: Path
    sources: tuple[str, ...] = ()
    manifest: str | None = None
    level: str | None = None
    quantize: bool = False
    hub: str | None = None
    allow_http: bool = False
    secrets: Path | None = None
    connections: int = 4
    as_json: bool = False


def run(asked: Asked, environment: Mapping[str, str]) -> int:
    """Fetch, showing how far it is on standard error. 0 done; 1 of no use to try again; 3 try again; 4 no space."""
    request = request_of(asked, environment)
    began = time.monotonic()
    progress = Progress()
    try:
        reports = asyncio.run(_shown(request, progress))
    except FetchFault as fault:
        if asked.as_json:
            click.echo(json.dumps({"error": str(fault), "permanent": isinstance(fault, Permanent)}))
        click.echo(f"kinora weights fetch: {fault}", err=True)
        return exit_code(fault)
    click.echo(_report(request, reports, time.monotonic() - began, as_json=asked.as_json))
    return 0


def request_of(asked: Asked, environment: Mapping[str, str]) -> Request:
    """The request that the arguments mean. Raises UsageError."""
    catalogue = load_catalogue()
    model = catalogue.get(asked.model)
    if model is None:
        raise UsageError(f"MODEL is {asked.model}; allowed: {', '.join(catalogue.names)}")
    spec = _spec(asked.manifest) if asked.manifest else None
    given = [*(spec.weights.sources if spec else ()), *map(_source, asked.sources)]
    if not given:
        raise UsageError("no source; give --source NAME=URL, or --modelserver FILE with spec.weights.sources")
    allow_http = asked.allow_http
    rules = Rules(allow_http=allow_http, local_files=True, **({"hub": asked.hub} if asked.hub else {}))
    try:
        sources = read_sources(given, model, rules)
    except SourceRefused as refused:
        raise UsageError(str(refused).replace("spec.weights.sources", "source")) from None
    claimed = next((source for source in sources if source.claim), None)
    if claimed is not None:
        raise UsageError(f"{claimed.shown} is read in the cluster only; use file:///PATH here")
    if not asked.into.is_dir():
        raise UsageError(f"--into is {asked.into}; allowed: a folder that exists")
    return Request(
        model=model,
        root=asked.into,
        sources=tuple(sources),
        level=VerifyLevel(asked.level) if asked.level else spec.weights.verify if spec else VerifyLevel.HEADER,
        quantize=asked.quantize or bool(spec and spec.weights.quantize),
        credentials=read_secrets(secrets_of(sources), asked.secrets, environment),
        allow_http=allow_http,
        pace=Pace(connections=asked.connections),
        workers=min(4, os.cpu_count() or 1),
    )


def _source(text: str) -> WeightSource:
    """NAME=URL, and #sha256=HEX behind it."""
    name, separator, url = text.partition("=")
    url, _, sha256 = url.partition("#sha256=")
    if not separator:
        raise UsageError(f"--source is {text}; allowed: NAME=URL or NAME=URL#sha256=HEX")
    try:
        return WeightSource(name=name, url=url, sha256=sha256 or None)
    except ValidationError as error:
        raise UsageError(f"--source is {name}=...: {error.errors()[0]['msg']}") from None


def _spec(file: str) -> ModelServerSpec:
    try:
        found: Sequence[Any] = [document for document in read(file) if document.kind == "ModelServer"]
    except UnreadableError as error:
        raise UsageError(str(error)) from None
    if len(found) != 1:
        raise UsageError(f"{file} has {len(found)} ModelServers; allowed: one")
    try:
        return ModelServerSpec.model_validate(found[0].data.get("spec"))
    except ValidationError as error:
        raise UsageError(f"{file}: {error.errors()[0]['msg']}; see kinora validate {file}") from None


async def _shown(request: Request, progress: Progress) -> list[FileReport]:
    """Fetch beside a bar that follows the progress."""
    work = asyncio.create_task(fetch(request, progress))
    rate = Rate()
    with click.progressbar(
        length=1, file=sys.stderr, label="weights", show_eta=True, item_show_func=lambda item: item, update_min_steps=1
    ) as bar:
        while True:
            done, _ = await asyncio.wait({work}, timeout=_TICK)
            rate.see(progress.bytes_done, time.monotonic())
            bar.length = max(1, progress.bytes_total)
            words = f"{human(progress.bytes_done)} of {human(progress.bytes_total)}, {human(rate.value)}/s"
            bar.update(progress.bytes_done - bar.pos, f"{words}  {progress.phase} {progress.file}")
            if done:
                break
    return work.result()


def _report(request: Request, reports: list[FileReport], seconds: float, *, as_json: bool) -> str:
    if as_json:
        files = [asdict(report) for report in reports]
        return json.dumps({"model": request.model.name, "seconds": round(seconds, 3), "files": files}, indent=2)
    rows = [[item.path, item.outcome, f"{item.bytes:,}".replace(",", " "), item.sha256] for item in reports]
    return table([["FILE", "OUTCOME", "BYTES", "SHA256"], *rows])
