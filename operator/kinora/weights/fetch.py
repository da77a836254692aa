"""`kinora weights fetch`: every weight file that has a source, onto a volume, verified; what is right is left alone.

The order: take the volume; look at what is there; ask every source; see that there is room for all; then file by file
fetch, check, quantize where asked, rename; the manifest after each. Decisions are plan.py's, bytes are transfer.py's.
"""

from __future__ import annotations

import asyncio
import ctypes
import datetime as dt
import logging
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from kinora.api.modelserver import VerifyLevel
from kinora.api.transitions import rfc3339
from kinora.catalogue.model import Dtype, Model, Weight
from kinora.media.files import FileRefused, open_beneath
from kinora.weights import copy
from kinora.weights.faults import NoSpace, Permanent, SourceChanged
from kinora.weights.lock import hold
from kinora.weights.manifest import Record, read_manifest, sync_folder, write_manifest
from kinora.weights.origin import Origin, Remote
from kinora.weights.partial import Partial, discard
from kinora.weights.plan import Choice, Found, Step, bytes_needed, choose, human
from kinora.weights.sources import Credentials, Kind, Source, wants_quantizing, wants_scales
from kinora.weights.transfer import Pace, Transfer
from kinora.weights.verify import FileState, State, check_file, verify_weight

log = logging.getLogger(__name__)
_WIDE = (Dtype.BF16, Dtype.F16, Dtype.F32)
_TRIES = 2  # a file that is wrong when it is whole is fetched once more, and then never


@dataclass(frozen=True)
class Request:
    """What is wanted. `credentials`: by the name of a source's Secret; `claims`: where `pvc://` claims are mounted."""

    model: Model
    root: Path
    sources: tuple[Source, ...]
    level: VerifyLevel = VerifyLevel.HEADER
    quantize: bool = False
    credentials: Mapping[str | None, Credentials] = field(default_factory=dict)
    allow_http: bool = False
    claims: Path = Path("/")
    pace: Pace = field(default_factory=Pace)
    workers: int = 1


class Phase:
    """What is being done; words of a status."""

    LOOKING = "Looking"
    FETCHING = "Fetching"
    QUANTIZING = "Quantizing"
    VERIFIED = "Verified"


@dataclass
class Progress:
    """How far it is, for whoever shows it. Bytes are the sources', and those that are read again to be quantized."""

    phase: str = Phase.LOOKING
    file: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    files: dict[str, str] = field(default_factory=dict)
    "Path -> Missing, Fetching, Quantizing, Present."


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file at the end. `outcome`: Kept, Fetched or Quantized; Present for one without a source."""

    path: str
    outcome: str
    bytes: int
    sha256: str


@dataclass(slots=True)
class _Item:
    """One file on its way through."""

    source: Source
    choice: Choice
    remote: Remote | None = None
    origin: Origin | None = None
    found: Found | None = None


async def fetch(request: Request, progress: Progress | None = None) -> list[FileReport]:
    """Fetch what is not right yet. Raises a FetchFault; then what has landed is kept for the next time."""
    _keep_memory()
    try:
        with hold(request.root):
            return await _Run(request, progress or Progress()).run()
    except OSError as error:
        where = error.filename or request.root
        raise Permanent(f"{where}: {error.strerror or 'cannot be written'}") from None


class _Run:
    def __init__(self, request: Request, progress: Progress) -> None:
        self._request = request
        self._progress = progress
        self._records = read_manifest(request.root)
        self._reports: dict[str, FileReport] = {}

    async def run(self) -> list[FileReport]:
        request = self._request
        items = [await asyncio.to_thread(self._look, source) for source in request.sources]
        rest = await asyncio.to_thread(self._others)
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(_session())
            await asyncio.gather(*(self._ask(session, item) for item in items))
            self._count(items)
            await asyncio.to_thread(self._check_space, items)
            for item in items:
                if item.choice.step is Step.FETCH:
                    log.info("%s: fetching from %s (%s)", item.source.weight.path, item.source.shown, item.choice.why)
                    await self._bring(item)
                else:
                    await asyncio.to_thread(self._keep, item)
        self._progress.phase, self._progress.file = Phase.VERIFIED, ""
        self._reports |= {state.path: FileReport(state.path, "Present", state.size_bytes, "") for state in rest}
        return [self._reports[one.path] for one in request.model.weights if one.path in self._reports]

    # --- looking ------------------------------------------------------------------------------------------------------

    def _look(self, source: Source) -> _Item:
        """What is on the volume, verified at the level asked for; every byte of it where it has changed."""
        weight, record = source.weight, self._records.get(source.weight.path)
        known = weight.sha256 or (record.sha256 if record else None)
        try:
            with open_beneath(self._request.root, weight.path) as file:
                fresh = record is None or not record.matches(os.fstat(file.fileno()))
                level = VerifyLevel.HASH if fresh else self._request.level
                level = VerifyLevel.HEADER if level is VerifyLevel.SIZE else level
                must_hash = fresh and (record is not None or bool(source.expected))
                state = check_file(weight, file, level, known, must_hash=must_hash)
        except FileRefused:
            state = verify_weight(weight, self._request.root, VerifyLevel.SIZE)
        found = Found(state, record)
        self._progress.files[weight.path] = str(state.state)
        return _Item(source, choose(source, found), found=found)

    def _others(self) -> list[FileState]:
        """The files without a source, which must be right by themselves (those of a preset only if it is to be had)."""
        sourced = {source.weight.path for source in self._request.sources}
        required = {weight.path for weight in self._request.model.weights if weight.preset is None}
        states = [
            verify_weight(weight, self._request.root, self._request.level, self._records.get(weight.path))
            for weight in self._request.model.weights
            if weight.path not in sourced
        ]
        for state in states:
            if state.ok or state.path in required:
                self._progress.files[state.path] = str(state.state)
            if not state.ok and state.path in required:
                raise Permanent(f"{state.message}; it has no source: add one, or put the file there")
        return [state for state in states if state.ok]

    async def _ask(self, session: aiohttp.ClientSession, item: _Item) -> None:
        """Size and validator at the source, of what is to be fetched or compared."""
        if item.choice.step is Step.KEEP:
            return
        source, request = item.source, self._request
        if source.kind is Kind.FILE:
            item.remote = Remote(await asyncio.to_thread(copy.size_of, source, request.claims))
        else:
            credentials = request.credentials.get(source.secret, Credentials())
            item.origin = Origin(
                session, source, credentials, allow_http=request.allow_http, stall_seconds=request.pace.stall_seconds
            )
            item.remote = await Transfer.patiently(item.origin.look, request.pace)
        if item.choice.step is Step.COMPARE:
            item.choice = self._compared(item, item.remote.size)

    def _compared(self, item: _Item, remote_size: int) -> Choice:
        assert item.found is not None
        here = item.found.state.size_bytes
        if here == remote_size or (self._request.quantize and wants_quantizing(item.source.weight)):
            return Choice(Step.KEEP)
        return Choice(Step.FETCH, f"{here} bytes, {remote_size} at its source")

    def _may_quantize(self, source: Source) -> bool:
        return self._request.quantize and wants_quantizing(source.weight)

    def _count(self, items: list[_Item]) -> None:
        for item in items:
            if item.remote is not None and item.choice.step is Step.FETCH:
                self._progress.bytes_total += item.remote.size
            elif item.found is not None:
                self._progress.bytes_total += item.found.state.size_bytes
                self._progress.bytes_done += item.found.state.size_bytes

    def _check_space(self, items: list[_Item]) -> None:
        """All files together, before the first byte. Raises NoSpace."""
        sizes = []
        for item in items:
            if item.remote is not None and item.choice.step is Step.FETCH:
                there = self._partial(item).landed_before() if item.source.kind is not Kind.FILE else 0
                sizes.append((item.remote.size, there, self._may_quantize(item.source)))
        needed = bytes_needed(sizes)
        status = os.statvfs(self._request.root)
        free = status.f_bavail * status.f_frsize
        if needed > free:
            raise NoSpace(
                f"{self._request.root} has {human(free)} free, {human(needed)} are needed for {len(sizes)} files;"
                " make the volume larger, or remove something from it"
            )

    # --- one file -----------------------------------------------------------------------------------------------------

    def _keep(self, item: _Item) -> None:
        """It is right; make sure that the manifest says so."""
        source, found = item.source, item.found
        assert found is not None
        path = source.weight.path
        record = found.record
        if record is None or record.mtime_ns != found.state.mtime_ns or record.source != source.shown:
            sha256 = found.state.sha256
            if not sha256:
                with open_beneath(self._request.root, path) as file:
                    sha256 = check_file(source.weight, file, VerifyLevel.HEADER, must_hash=True).sha256
            made_from = record.source_sha256 if record else ""
            record = self._record(source, found.state, sha256, made_from)
        self._progress.files[path] = str(State.PRESENT)
        self._reports[path] = FileReport(path, "Kept", record.bytes, record.sha256)

    async def _bring(self, item: _Item) -> None:
        """Fetch, check, and give the file its name; once more where it turned out wrong."""
        path = item.source.weight.path
        self._progress.file = path
        for attempt in range(1, _TRIES + 1):
            self._progress.phase, self._progress.files[path] = Phase.FETCHING, "Fetching"
            began = self._progress.bytes_done
            try:
                await self._once(item)
                return
            except SourceChanged as changed:
                fault = str(changed)
                if item.origin is not None:
                    item.remote = await Transfer.patiently(item.origin.look, self._request.pace)
            except _Wrong as wrong:
                fault = str(wrong)
            log.warning("%s", fault)
            discard(self._target(item.source))
            self._progress.bytes_done = began
            if attempt == _TRIES:
                raise Permanent(f"{fault}; fetched {_TRIES} times: check the source, and its sha256") from None

    async def _once(self, item: _Item) -> None:
        partial = await asyncio.to_thread(self._open, item)
        try:
            sha256 = await self._land(item, partial)
            await asyncio.to_thread(partial.note)
            await self._settle(item.source, partial, sha256)
        finally:  # cancelled, too: what has landed must not be fetched again
            partial.leave()

    def _partial(self, item: _Item) -> Partial:
        assert item.remote is not None
        return Partial(self._target(item.source), item.remote, item.source.address)

    def _open(self, item: _Item) -> Partial:
        partial = self._partial(item)
        partial.open()
        self._progress.bytes_done += partial.bytes_done
        return partial

    async def _land(self, item: _Item, partial: Partial) -> str:
        def landed(count: int) -> None:
            self._progress.bytes_done += count

        if item.origin is None:
            return await asyncio.to_thread(copy.copy, item.source, self._request.claims, partial, landed)
        return await Transfer(item.origin, partial, landed, self._request.pace).run()

    async def _settle(self, source: Source, partial: Partial, sha256: str) -> None:
        """The bytes are there: are they the file? Raises _Wrong, Permanent."""
        path = source.weight.path
        if source.expected and sha256 != source.expected and not (source.sha256 is None and self._may_quantize(source)):
            raise _Wrong(f"{path}: sha256 {sha256} from {source.shown}, expected {source.expected}")
        wide = source.weight.model_copy(update={"dtypes": _WIDE, "size_bytes": None})
        state = await asyncio.to_thread(_judge, source.weight, partial)
        if state.state is State.WRONG_DTYPE and wants_quantizing(source.weight) and _judge(wide, partial).ok:
            if not self._request.quantize:
                raise Permanent(f"{state.message}; set weights.quantize, or name a source in FP8")
            await self._quantize(source, partial, sha256)
            return
        if not state.ok:
            raise _Wrong(f"{state.message} (from {source.shown})")
        await asyncio.to_thread(partial.finish)
        await asyncio.to_thread(self._written, source, "Fetched", sha256, "")

    async def _quantize(self, source: Source, partial: Partial, sha256: str) -> None:
        from kinora.weights.quantize import QuantizeError, quantize  # noqa: PLC0415 - numpy takes its time to come

        path = source.weight.path
        self._progress.phase, self._progress.files[path] = Phase.QUANTIZING, "Quantizing"
        self._progress.bytes_total += partial.remote.size
        before = self._progress.bytes_done
        target = self._target(source)
        made = target.with_name(f".{target.name}.quantized")

        def tell(done: int, _total: int) -> None:
            self._progress.bytes_done = before + done

        def work() -> None:
            with suppress(FileNotFoundError):
                made.unlink()
            scaled = wants_scales(source.weight)
            quantize(partial.path, made, scaled=scaled, workers=self._request.workers, progress=tell)
            made.replace(target)
            sync_folder(target.parent)

        try:
            await asyncio.to_thread(work)
        except QuantizeError as error:
            raise Permanent(f"{path}: {error}") from None
        self._progress.bytes_done = before + partial.remote.size
        await asyncio.to_thread(self._written, source, "Quantized", "", sha256)
        discard(target)

    def _written(self, source: Source, outcome: str, sha256: str, made_from: str) -> None:
        """The file has its name: look at it there, and write it into the manifest."""
        path = source.weight.path
        with open_beneath(self._request.root, path) as file:
            state = check_file(source.weight, file, VerifyLevel.HEADER, must_hash=not sha256)
        if not state.ok:
            raise Permanent(state.message)
        record = self._record(source, state, sha256 or state.sha256, made_from)
        self._progress.files[path] = str(State.PRESENT)
        self._reports[path] = FileReport(path, outcome, record.bytes, record.sha256)

    def _record(self, source: Source, state: FileState, sha256: str, made_from: str) -> Record:
        record = Record(
            bytes=state.size_bytes,
            sha256=sha256,
            dtype=state.dtype,
            source=source.shown,
            verified_time=rfc3339(dt.datetime.now(dt.UTC)),
            mtime_ns=state.mtime_ns,
            source_sha256=made_from,
        )
        self._records = {**read_manifest(self._request.root), state.path: record}
        write_manifest(self._request.root, self._records)
        return record

    def _target(self, source: Source) -> Path:
        return self._request.root / source.weight.path


class _Wrong(Exception):  # noqa: N818 - a verdict on the way out
    """The bytes that came are not the file; said with its path."""


def _judge(weight: Weight, partial: Partial) -> FileState:
    """The header of what has landed, against what the catalogue expects."""
    with open_beneath(partial.path.parent, partial.path.name) as file:
        return check_file(weight, file, VerifyLevel.HEADER)


def _session() -> aiohttp.ClientSession:
    # Cookies of one source are none of another's; a proxy of the environment is used, as by every other program.
    return aiohttp.ClientSession(
        auto_decompress=False,
        trust_env=True,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0),
    )


def _keep_memory() -> None:
    """Have glibc keep the memory of network buffers: giving each back costs more than receiving it.

    Measured: 0.94 instead of 0.55 GB/s on loopback. Elsewhere than on glibc nothing happens.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at its largest
