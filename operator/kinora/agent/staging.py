"""Brings a job's inputs into the engine's input folder, looked at and normalised. What they are judged by is recipes'.

Sources are files on claims, keys of ConfigMaps, artifacts of finished jobs, and what a stager has put into the store:
nothing is fetched here. Every file is untrusted: opened beneath its root without following links, copied, and read only
by the media child. A fault of an input is permanent.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, Protocol

from kinora.agent.settings import Settings
from kinora.agent.verdict import Refusal, failure, permanent
from kinora.api import reasons, transitions
from kinora.api.reasons import Phase
from kinora.api.stagerconfig import MAX_INPUT_BYTES
from kinora.api.videojob import ArtifactSource, Audio, ClaimSource, ConfigMapSource
from kinora.catalogue.model import Model
from kinora.kube.client import KubeClient
from kinora.kube.resources import CONFIGMAP, VIDEOJOB
from kinora.media import child
from kinora.media.files import FileRefused, open_beneath
from kinora.media.info import InputError, MediaError, MediaInfo, Normalised, Proof
from kinora.recipes.build import preparation
from kinora.recipes.finishing import SOUNDING, finishing, lengthened, silenced
from kinora.recipes.graph import StagedInput
from kinora.recipes.needs import MediaKind, NamedInput, field_of, staging_faults
from kinora.recipes.preparation import Preparation, kind_of_prepared, sized
from kinora.recipes.resolved import Resolved
from kinora.storage.keys import KeyRefused, input_key
from kinora.storage.store import ArtifactStore, NotStoredError
from kinora.workflows.parse import MAX_BYTES
from kinora.workflows.resolved import MANY_INPUTS
from kinora.workflows.workflow import StagedFile

MARK_FILE: Final = "watermark.picture"  # the administrator's mark, in the job's input folder
MAX_CONFIGMAP_BYTES: Final = 1024**2
_CHUNK: Final = 1 << 20
# What VHS_LoadVideo lists; another name would not be found.
_VIDEO_SUFFIXES: Final = frozenset({".mp4", ".webm", ".mkv", ".mov"})
_IMAGE_SUFFIX: Final = {"JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tiff", "GIF": ".gif"}
_PREPARED_SUFFIX: Final = {MediaKind.VIDEO: ".mkv", MediaKind.IMAGE: ".png"}
_WORDS: Final = {
    MediaKind.IMAGE: "one image",
    MediaKind.VIDEO: "one video",
    MediaKind.EITHER: "one image or video",
}
_MAX_ACTION, _MAX_ACTIONS, _MAX_ACTIONS_TEXT = 96, 4, 600  # characters of one, how many, and of all, in a status


Object = dict[str, Any]


class Media(Protocol):
    """The media child; a hollow agent has none."""

    async def probe(self, file: BinaryIO) -> MediaInfo: ...
    async def prove(self, file: BinaryIO) -> Proof: ...
    async def normalise_image(self, file: BinaryIO, output: BinaryIO) -> Normalised: ...
    async def prepare(
        self, inputs: Mapping[str, BinaryIO], outputs: Mapping[str, BinaryIO], plan: Mapping[str, Any]
    ) -> dict[str, list[str]]: ...
    async def hear(self, file: BinaryIO) -> float: ...
    async def finish(
        self, inputs: Mapping[str, BinaryIO], output: BinaryIO, plan: Mapping[str, Any], text: str
    ) -> list[str]: ...


class MediaChild:
    """PyAV and Pillow in a child without token or credentials (kinora.media.child)."""

    async def probe(self, file: BinaryIO) -> MediaInfo:
        """See child.probe."""
        return await child.probe(file)

    async def prove(self, file: BinaryIO) -> Proof:
        """See child.prove."""
        return await child.prove(file)

    async def normalise_image(self, file: BinaryIO, output: BinaryIO) -> Normalised:
        """See child.normalise_image."""
        return await child.normalise_image(file, output)

    async def prepare(
        self, inputs: Mapping[str, BinaryIO], outputs: Mapping[str, BinaryIO], plan: Mapping[str, Any]
    ) -> dict[str, list[str]]:
        """See child.prepare."""
        return await child.prepare(inputs, outputs, plan)

    async def hear(self, file: BinaryIO) -> float:
        """See child.hear."""
        return await child.hear(file)

    async def finish(
        self, inputs: Mapping[str, BinaryIO], output: BinaryIO, plan: Mapping[str, Any], text: str
    ) -> list[str]:
        """See child.finish."""
        return await child.finish(inputs, output, plan, text)


@dataclass(frozen=True)
class Staged:
    """A job's inputs, ready: where the engine finds each, what status says of it, and what they made of the job.

    `finishing` is what is to be made of the render (recipes.finishing, as plain values); None: it is delivered as is.
    """

    files: Mapping[str, StagedInput]
    facts: tuple[dict[str, Any], ...]
    resolved: Resolved
    finishing: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class StoredInputs:
    """What a stager has brought: the root of its store, and the sha256 of each input by name."""

    root: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> StoredInputs:
        """As a job's status tells it."""
        entries = status.get("inputs") or []
        return cls(status.get("inputStore") or "", {entry["name"]: str(entry.get("sha256")) for entry in entries})


@dataclass(frozen=True)
class _Copied:
    path: Path
    sha256: str
    size: int


class Stager:
    """Stages the inputs of one job after another; holds nothing between them."""

    def __init__(self, settings: Settings, client: KubeClient, store: ArtifactStore, media: Media) -> None:
        self._settings = settings
        self._client = client
        self._store = store
        self._media = media

    async def stage(
        self,
        inputs: tuple[NamedInput, ...],
        resolved: Resolved,
        model: Model,
        folder: str,
        *,
        stored: StoredInputs | None = None,
    ) -> Staged:
        """Fetch, look at and prepare all inputs in `folder` of the input folder. Raises Refusal (InvalidInput).

        `stored`: what a stager has brought into the store.
        """
        root = self._settings.paths.input / folder
        root.mkdir(mode=0o2775, parents=True, exist_ok=True)
        files: dict[str, StagedInput] = {}
        found: dict[str, MediaInfo] = {}
        facts: dict[str, dict[str, Any]] = {}
        for one in inputs:
            copied = await self._fetch(one, root, stored or StoredInputs())
            found[one.name] = await self._look(one, copied)
            path, entry = await self._prepare(one, copied, found[one.name])
            files[one.name] = StagedInput(f"{folder}/{path.name}", found[one.name].kind)
            facts[one.name] = entry
        faults = staging_faults(resolved, found)
        if faults:
            raise permanent(reasons.INVALID_INPUT, "; ".join(str(fault) for fault in faults))
        sounding = await self._sounding(resolved, files, found, facts)
        resolved = silenced(lengthened(sized(resolved, found, model.limits.size), found), sounding)
        plan = preparation(model, resolved, found)
        if plan is not None:
            await self._made(plan, files, facts, root)
        finish = finishing(resolved, found, sounding)
        if resolved.watermark and self._settings.watermark.image is not None:
            await self._mark(self._settings.watermark.image, root / MARK_FILE)
        return Staged(files, tuple(facts.values()), resolved, None if finish is None else finish.to_dict())

    async def _sounding(
        self,
        resolved: Resolved,
        files: Mapping[str, StagedInput],
        found: Mapping[str, MediaInfo],
        facts: Mapping[str, dict[str, Any]],
    ) -> dict[str, bool]:
        """Which of the job's videos have sound, where it is asked for; all of it is decoded before a GPU is used."""
        sounding = {}
        if resolved.audio == Audio.SOURCE:
            for name in (name for name in SOUNDING if name in found):
                path = self._settings.paths.input / files[name].file
                try:
                    with path.open("rb") as file:
                        seconds = await self._media.hear(file)
                except MediaError as error:
                    raise _bad(name, str(error), "a video whose audio can be decoded, or output.audio None") from None
                sounding[name] = seconds > 0
                words = f"{seconds:.2f} s of audio kept" if seconds > 0 else "has no audio"
                facts[name].setdefault("actions", []).append(words)
        return sounding

    async def stage_files(
        self, inputs: tuple[NamedInput, ...], folder: str, *, stored: StoredInputs | None = None
    ) -> dict[str, tuple[StagedFile, Object]]:
        """The inputs of a raw workflow, by name: looked at and left as they are, with what status says of each.

        `stored`: what a stager has brought into the store. Raises Refusal (InvalidInput).
        """
        root = self._settings.paths.input / folder
        root.mkdir(mode=0o2775, parents=True, exist_ok=True)
        staged = {}
        for one in inputs:
            copied = await self._fetch(one, root, stored or StoredInputs())
            info = await self._look(one, copied)
            if one.kind not in (MediaKind.EITHER, info.kind):
                raise _bad(one.name, f"a file of kind {info.kind}", _WORDS[one.kind])
            suffixes = _VIDEO_SUFFIXES if info.kind == MediaKind.VIDEO else {_IMAGE_SUFFIX.get(info.codec, ".png")}
            path = copied.path
            if path.suffix not in suffixes:
                path = path.with_suffix(".mp4" if info.kind == MediaKind.VIDEO else next(iter(suffixes)))
                os.replace(copied.path, path)
            entry: Object = {"name": one.name, "sha256": copied.sha256}
            if len(inputs) <= MANY_INPUTS:
                entry |= {"bytes": copied.size, "width": info.width, "height": info.height, "frames": info.frames}
            if len(inputs) <= MANY_INPUTS and info.kind == MediaKind.VIDEO:
                entry |= {"fps": info.fps, "durationSeconds": info.duration_seconds}
            staged[one.name] = StagedFile(f"{folder}/{path.name}", info), entry
        return staged

    async def _made(
        self, plan: Preparation, files: dict[str, StagedInput], facts: dict[str, dict[str, Any]], root: Path
    ) -> None:
        """Carry out the preparation: what it makes joins `files`, what was done to an input its entry in `facts`."""
        made = {str(name): root / f"{name}{_PREPARED_SUFFIX[kind_of_prepared(name)]}" for name in plan.makes}
        try:
            with ExitStack() as stack:
                sources = {
                    name: stack.enter_context((root / PurePosixPath(staged.file).name).open("rb"))
                    for name, staged in files.items()
                }
                targets = {name: stack.enter_context(path.open("w+b")) for name, path in made.items()}
                actions = await self._media.prepare(sources, targets, plan.to_dict())
        except InputError as error:
            raise _bad(error.name, f"a file that cannot be used: {error}", "see docs/tasks.md") from None
        except MediaError as error:
            raise permanent(reasons.INVALID_INPUT, f"spec.inputs cannot be prepared: {error}") from None
        for name, path in made.items():
            files[name] = StagedInput(f"{root.name}/{path.name}", kind_of_prepared(name))
        room = _MAX_ACTIONS_TEXT
        for name, words in actions.items():
            known = facts[name].setdefault("actions", [])
            known.extend(word[:_MAX_ACTION] for word in words)
            del known[_MAX_ACTIONS:]
            room -= sum(map(len, known))
            if room < 0:
                del known[1:]

    async def _mark(self, source: ConfigMapSource, target: Path) -> None:
        """Bring the administrator's mark. What is wrong with it is no fault of the job: it may be tried again."""
        try:
            file = await self._open_config_map("watermark", source)
            await asyncio.to_thread(target.write_bytes, file.read())
            with target.open("rb") as written:
                info = await self._media.probe(written)
        except (Refusal, MediaError):
            info = None
        if info is None or info.kind != MediaKind.IMAGE:
            where = f"key {source.key} of ConfigMap {source.name}"
            raise failure(reasons.AGENT_ERROR, f"the watermark that the chart names is no picture: {where}")

    # --- sources ------------------------------------------------------------------------------------------------------

    async def _fetch(self, one: NamedInput, root: Path, stored: StoredInputs) -> _Copied:
        source, target = one.source, root / f"{_safe(one.name)}.part"
        if source.claim is not None:
            file, suffix = self._open_claim(one.name, source.claim), PurePosixPath(source.claim.path).suffix
        elif source.config_map is not None:
            file, suffix = await self._open_config_map(one.name, source.config_map), ""
        elif source.artifact is not None:
            file, expected = await self._open_artifact(one.name, source.artifact)
            copied = await self._copy(one.name, file, target, ".mp4")
            if copied.sha256 != expected:
                artifact = f"artifact {source.artifact.index} of {source.artifact.video_job_name}"
                raise _bad(f"{one.name}.artifact", f"{artifact} with sha256 {copied.sha256}", f"sha256 {expected}")
            return copied
        else:
            return await self._from_stager(one, stored, target)
        return await self._copy(one.name, file, target, suffix)

    def _open_claim(self, name: str, claim: ClaimSource) -> BinaryIO:
        known = self._settings.config.input_claims
        if claim.name not in known:
            allowed = ", ".join(known) or "none (the ModelServer has no inputClaims)"
            raise _bad(f"{name}.claim.name", claim.name, allowed)
        try:
            return open_beneath(self._settings.paths.claims / claim.name, claim.path)
        except FileRefused as refused:
            raise _bad(f"{name}.claim.path", str(refused), "a regular file on the claim") from None

    async def _open_config_map(self, name: str, source: ConfigMapSource) -> BinaryIO:
        found = await self._client.find(CONFIGMAP, self._settings.identity.namespace, source.name)
        if found is None:
            raise _bad(f"{name}.configMap.name", source.name, "a ConfigMap of the job's namespace")
        texts, binaries = found.get("data") or {}, found.get("binaryData") or {}
        if source.key not in texts and source.key not in binaries:
            keys = sorted([*texts, *binaries])
            raise _bad(f"{name}.configMap.key", source.key, ", ".join(keys[:8]) or "the ConfigMap is empty")
        try:
            text = texts.get(source.key)
            content = text.encode() if text is not None else base64.b64decode(binaries[source.key], validate=True)
        except binascii.Error:
            raise _bad(f"{name}.configMap.key", source.key, "base64 in binaryData") from None
        if len(content) > MAX_CONFIGMAP_BYTES:
            raise _bad(f"{name}.configMap.key", f"{len(content)} bytes", f"at most {MAX_CONFIGMAP_BYTES}")
        return io.BytesIO(content)

    async def _open_artifact(self, name: str, source: ArtifactSource) -> tuple[BinaryIO, str]:
        field = f"{name}.artifact"
        found = await self._client.find(VIDEOJOB, self._settings.identity.namespace, source.video_job_name)
        if found is None:
            raise _bad(f"{field}.videoJobName", source.video_job_name, "a VideoJob of the same namespace")
        status = found.get("status") or {}
        if transitions.phase_of(status) is not Phase.SUCCEEDED:
            shown = f"{source.video_job_name}, which is {status.get('phase', 'Pending')}"
            raise _bad(f"{field}.videoJobName", shown, "a VideoJob that has Succeeded")
        artifacts = status.get("artifacts") or []
        if source.index >= len(artifacts):
            raise _bad(f"{field}.index", source.index, f"0 to {len(artifacts) - 1}")
        artifact = artifacts[source.index]
        root = self._store.uri("k")[:-1]
        uri = str(artifact.get("uri", ""))
        if not uri.startswith(root):
            raise _bad(f"{field}.videoJobName", "an artifact of another store", "one in this ModelServer's store")
        try:
            return await self._store.open_read(uri.removeprefix(root)), str(artifact.get("sha256", ""))
        except (NotStoredError, KeyRefused) as error:
            raise _bad(f"{field}.videoJobName", str(error), "an artifact that is still in the store") from None

    async def _from_stager(self, one: NamedInput, stored: StoredInputs, target: Path) -> _Copied:
        """What a stager has fetched: its content is what status says, whoever wrote to the store since."""
        field = f"{one.name}.{'url' if one.source.url is not None else 'upload'}"
        expected, root = stored.hashes.get(one.name), self._store.uri("k")[:-1]
        if not stored.root or expected is None:
            raise _bad(field, "set, and no stager has fetched it", "a job whose condition InputsReady is True")
        if stored.root != root:
            raise _bad(field, f"in the store {stored.root}", f"{root}, this ModelServer's store")
        try:
            file = await self._store.open_read(input_key(expected))
        except (NotStoredError, KeyRefused):
            allowed = "an input that is; make the job anew"
            raise _bad(field, f"no longer in the store (sha256 {expected})", allowed) from None
        copied = await self._copy(one.name, file, target, "")
        if copied.sha256 != expected:
            raise _bad(field, f"stored with sha256 {copied.sha256}", f"sha256 {expected}, as it was fetched")
        return copied

    async def stored_text(self, sha256: str, stored: StoredInputs) -> str:
        """A graph that a stager has read, judged and kept in the store under its hash. Raises Refusal."""
        field, root = "spec.workflow.upload", self._store.uri("k")[:-1]
        if stored.root != root:
            where = f"in the store {stored.root}" if stored.root else "set, and no stager has read it"
            raise _refused(field, where, f"{root}, this ModelServer's store")
        try:
            file = await self._store.open_read(input_key(sha256))
        except (NotStoredError, KeyRefused):
            raise _refused(
                field, f"no longer in the store (sha256 {sha256})", "one that is; make the job anew"
            ) from None

        def read() -> bytes:
            with file:
                return file.read(MAX_BYTES + 1)

        content = await asyncio.to_thread(read)
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise _refused(field, f"stored with sha256 {found}", f"sha256 {sha256}, as it was judged")
        return content.decode()

    async def _copy(self, name: str, source: BinaryIO, target: Path, suffix: str) -> _Copied:
        def copy() -> _Copied:
            digest, size = hashlib.sha256(), 0
            with source, open(target, "wb") as file:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    if size > MAX_INPUT_BYTES:
                        raise _bad(name, "larger", f"at most {MAX_INPUT_BYTES} bytes")
                    file.write(chunk)
            return _Copied(target.with_suffix(suffix.lower() or ".bin"), digest.hexdigest(), size)

        copied = await asyncio.to_thread(copy)
        os.replace(target, copied.path)
        return copied

    # --- looking ------------------------------------------------------------------------------------------------------

    async def _look(self, one: NamedInput, copied: _Copied) -> MediaInfo:
        try:
            with copied.path.open("rb") as file:
                return await self._media.probe(file)
        except MediaError as error:
            raise _bad(one.name, f"a file of {copied.size} bytes: {error}", _WORDS[one.kind]) from None

    async def _prepare(self, one: NamedInput, copied: _Copied, info: MediaInfo) -> tuple[Path, dict[str, Any]]:
        entry: dict[str, Any] = {"name": one.name, "sha256": copied.sha256, "bytes": copied.size}
        if one.kind is not MediaKind.VIDEO and info.kind == MediaKind.IMAGE:
            path, normalised = await self._normalise(one, copied)
            entry |= {"width": normalised.width, "height": normalised.height, "actions": list(normalised.actions)}
            return path, entry
        path = copied.path
        if path.suffix not in _VIDEO_SUFFIXES:
            path = path.with_suffix(".mp4")  # readers go by the content
            os.replace(copied.path, path)
        entry |= {"width": info.width, "height": info.height, "frames": info.frames, "fps": info.fps}
        entry["durationSeconds"] = info.duration_seconds
        return path, entry

    async def _normalise(self, one: NamedInput, copied: _Copied) -> tuple[Path, Normalised]:
        path = copied.path.with_suffix(".png")
        partial = path.with_suffix(".normalised")
        try:
            with copied.path.open("rb") as file, partial.open("wb") as output:
                normalised = await self._media.normalise_image(file, output)
        except MediaError as error:
            raise _bad(one.name, str(error), "one image") from None
        with suppress(FileNotFoundError):
            os.unlink(copied.path)
        os.replace(partial, path)
        return path, normalised


def _bad(field: str, value: object, allowed: str) -> Refusal:
    return _refused(field_of(field), value, allowed)


def _refused(field: str, value: object, allowed: str) -> Refusal:
    text = str(value)
    shown = text if len(text) <= 300 else text[:297] + "..."
    return permanent(reasons.INVALID_INPUT, f"{field} is {shown}; allowed: {allowed}")


def _safe(name: str) -> str:
    """`references[0]` as a file name."""
    return name.replace("[", "-").replace("]", "")
