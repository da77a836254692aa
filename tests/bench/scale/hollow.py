"""What a hollow agent is given in place of the world: engine, supervisor, weights, media and store, all in memory.

Each keeps the contract of what it stands for (kinora.engine.base.Engine, kinora.storage.store.ArtifactStore, ...) and
does none of the work: no pixel is made. The one thing on disk is the output file that the agent opens, of some bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from kinora.agent.health import WeightFaults
from kinora.engine import base
from kinora.engine.supervisor_client import EngineExit, EngineProcess, SupervisorClient
from kinora.media.info import MediaError, MediaInfo, Normalised, Proof
from kinora.storage.keys import checked_key
from kinora.storage.store import NotStoredError, Stored


class Pace:
    """How long a render lasts, for all engines of a process: seconds, or until released."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.held = False
        self._waiting: dict[asyncio.Event, str] = {}  # in the order of their start; whose render it is
        self._free: set[str] = set()  # whose renders are not held any more

    async def render(self, whose: str = "") -> None:
        """Wait as long as a render takes. ``whose``: the server pod's UID; empty: nobody's in particular."""
        if not self.held or whose in self._free:
            await asyncio.sleep(self.seconds)
            return
        gate = asyncio.Event()
        self._waiting[gate] = whose
        try:
            await gate.wait()
        finally:
            self._waiting.pop(gate, None)

    @property
    def waiting(self) -> int:
        """How many renders are held."""
        return len(self._waiting)

    def hold(self) -> None:
        """Renders that begin from now on last until they are released."""
        self.held = True
        self._free.clear()

    def release(self, count: int | None = None) -> list[str]:
        """End that many held renders (None: all, and hold no more); whose they were.

        Whoever is released is not held before the next ``hold``: its pod comes to be idle though a job is staged there.
        """
        chosen = dict(itertools.islice(self._waiting.items(), count))
        for gate in chosen:
            gate.set()
        self._free.update(whose for whose in chosen.values() if whose)
        if count is None:
            self.held = False
            self._free.clear()
        return list(chosen.values())


@dataclass
class Ledger:
    """What happened in this process, for the harness's own checks."""

    accepted: dict[str, float] = field(default_factory=dict)  # prompt id -> wall clock of its acceptance, seconds
    again: Counter[str] = field(default_factory=Counter)  # prompts that were handed over more than once
    published: Counter[str] = field(default_factory=Counter)  # job UID -> keys made for it


class HollowEngine:
    """One engine: a prompt at a time, the events of a render, an output file of some bytes. Implements base.Engine."""

    def __init__(self, output: Path, classes: Mapping[str, Any], pace: Pace, ledger: Ledger, owner: str = "") -> None:
        """``owner``: the server pod's UID, for `Pace`."""
        self._owner = owner
        self._output = output
        self._classes = dict(classes)
        self._pace = pace
        self._ledger = ledger
        self._outcomes: dict[str, base.Outcome] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._streams: set[asyncio.Queue[base.EngineEvent]] = set()

    async def object_info(self) -> dict[str, Any]:
        """See base.Engine."""
        return self._classes

    async def system_stats(self) -> dict[str, Any]:
        """See base.Engine."""
        return {"system": {}, "devices": []}

    async def submit(self, graph: Mapping[str, Any], prompt_id: str, client_id: str) -> None:
        """See base.Engine."""
        if prompt_id in self._outcomes:
            self._ledger.again[prompt_id] += 1
            return
        self._ledger.accepted[prompt_id] = time.time()
        self._outcomes[prompt_id] = base.Pending()
        self._tasks[prompt_id] = asyncio.create_task(self._run(prompt_id, graph))

    async def outcome(self, prompt_id: str) -> base.Outcome:
        """See base.Engine."""
        return self._outcomes.get(prompt_id, base.Unknown())

    async def interrupt(self, prompt_id: str) -> None:
        """See base.Engine."""
        if isinstance(self._outcomes.get(prompt_id), base.Running):
            self._tasks[prompt_id].cancel()

    async def delete_pending(self, prompt_id: str) -> None:
        """See base.Engine."""
        if isinstance(self._outcomes.get(prompt_id), base.Pending):
            self._tasks[prompt_id].cancel()
            del self._outcomes[prompt_id]

    async def forget(self, prompt_id: str) -> None:
        """See base.Engine."""
        if not isinstance(self._outcomes.get(prompt_id), base.Pending | base.Running):
            self._outcomes.pop(prompt_id, None)

    async def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """See base.Engine."""

    async def events(self, client_id: str) -> AsyncIterator[base.EngineEvent]:
        """See base.Engine. An engine in memory has one client: its own pod's agent."""
        stream: asyncio.Queue[base.EngineEvent] = asyncio.Queue()
        self._streams.add(stream)
        try:
            yield base.Connected()
            while True:
                yield await stream.get()
        finally:
            self._streams.discard(stream)

    def restart(self) -> None:
        """The process is another one: nothing is known of any prompt."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._outcomes.clear()

    async def _run(self, prompt_id: str, graph: Mapping[str, Any]) -> None:
        try:
            async with self._turn:
                self._outcomes[prompt_id] = base.Running()
                sampler, combine = _node_of(graph, "KSampler"), _node_of(graph, "VHS_VideoCombine")
                self._tell(base.ExecutionStart(prompt_id))
                self._tell(base.NodeStarted(prompt_id, sampler))
                await self._pace.render(self._owner)
                self._tell(base.Progress(prompt_id, sampler, 2, 2))
                output = self._make(graph, combine)
                self._outcomes[prompt_id] = base.Succeeded((output,))
                self._tell(base.NodeExecuted(prompt_id, combine, {}))
                self._tell(base.ExecutionSuccess(prompt_id))
        except asyncio.CancelledError:
            if prompt_id in self._outcomes:
                self._outcomes[prompt_id] = base.Interrupted()
                self._tell(base.ExecutionInterrupted(prompt_id, ""))
        finally:
            self._tasks.pop(prompt_id, None)

    def _tell(self, event: base.EngineEvent) -> None:
        for stream in self._streams:
            stream.put_nowait(event)

    def _make(self, graph: Mapping[str, Any], combine: str) -> base.OutputFile:
        """A file that says what a video of this graph would be; HollowMedia reads it."""
        inputs = graph[combine]["inputs"]
        spine = graph[_node_of(graph, "WanVaceToVideo")]["inputs"]
        length = graph[spine["length"][0]]["inputs"]["value"]
        subfolder, _, prefix = str(inputs["filename_prefix"]).partition("/")
        video = {
            "width": spine["width"],
            "height": spine["height"],
            "frames": length,
            "fps": inputs["frame_rate"],
            "name": prefix,
        }
        folder = self._output / subfolder
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{prefix}_00001.mp4"
        (folder / name).write_text(json.dumps(video))
        return base.OutputFile(combine, "gifs", name, subfolder, "output", "video/h264-mp4")


def _node_of(graph: Mapping[str, Any], class_type: str) -> str:
    return next(name for name, node in graph.items() if node["class_type"] == class_type)


class HollowSupervisor(SupervisorClient):
    """The supervisor of an engine that runs from the start."""

    def __init__(self, engine: HollowEngine) -> None:
        super().__init__("in memory")
        self._engine = engine
        self._incarnation = 1
        self._exits: tuple[EngineExit, ...] = ()
        self._changed = asyncio.Event()

    async def stats(self) -> EngineProcess:
        """See SupervisorClient."""
        return EngineProcess(
            boot="hollow",
            phase="Running",
            held=False,
            incarnation=self._incarnation,
            pid=None,
            uptime_seconds=0.0,
            memory_bytes=0,
            memory_limit=None,
            exits=self._exits,
        )

    async def start(self) -> EngineProcess:
        """See SupervisorClient."""
        return await self.stats()

    async def stop(self) -> EngineProcess:
        """See SupervisorClient."""
        raise NotImplementedError("no phase of the harness stops an engine")

    async def restart(self) -> EngineProcess:
        """See SupervisorClient."""
        self._engine.restart()
        self._exits = (*self._exits[-3:], EngineExit(self._incarnation, None, 15, 0, True, 1.0))
        self._incarnation += 1
        self._changed.set()
        return await self.stats()

    async def watch(self) -> AsyncIterator[EngineProcess | None]:
        """See SupervisorClient."""
        while True:
            yield await self.stats()
            await self._changed.wait()
            self._changed.clear()


class HollowWeights:
    """Weight files that are good and stay so."""

    async def full(self) -> WeightFaults:
        """See kinora.agent.health.WeightsCheck."""
        return WeightFaults()

    async def changed(self) -> tuple[str, ...]:
        """See kinora.agent.health.WeightsCheck."""
        return ()


class HollowMedia:
    """Reads what HollowEngine wrote instead of decoding; the harness's jobs have no inputs to look at."""

    async def probe(self, file: BinaryIO) -> MediaInfo:
        """See kinora.agent.staging.Media."""
        raise MediaError("the harness's jobs have no inputs")

    async def normalise_image(self, file: BinaryIO, output: BinaryIO) -> Normalised:
        """See kinora.agent.staging.Media."""
        raise MediaError("the harness's jobs have no inputs")

    async def prepare(
        self, inputs: Mapping[str, BinaryIO], outputs: Mapping[str, BinaryIO], plan: Mapping[str, Any]
    ) -> dict[str, list[str]]:
        """See kinora.agent.staging.Media."""
        raise MediaError("the harness's jobs have no inputs")

    async def prove(self, file: BinaryIO) -> Proof:
        """See kinora.agent.staging.Media."""
        content = file.read()
        video = json.loads(content)
        return Proof(
            frames=video["frames"],
            fps=float(video["fps"]),
            width=video["width"],
            height=video["height"],
            duration_seconds=video["frames"] / video["fps"],
            codec="h264",
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
        )


class MemoryStore:
    """Create-only keys in a dict; tells the ledger which job each new key belongs to."""

    def __init__(self, ledger: Ledger) -> None:
        self._contents: dict[str, bytes] = {}
        self._ledger = ledger

    def uri(self, key: str) -> str:
        """See kinora.storage.store.ArtifactStore."""
        return f"pvc://artifacts/{key}"

    async def put(self, key: str, source: BinaryIO) -> Stored:
        """See kinora.storage.store.ArtifactStore."""
        checked_key(key)
        created = key not in self._contents
        if created:
            self._contents[key] = source.read()
            self._ledger.published[key.split("/")[-3]] += 1
        return self._stored(key, created=created)

    async def read_back(self, key: str) -> Stored:
        """See kinora.storage.store.ArtifactStore."""
        return self._stored(key, created=False)

    async def size(self, key: str) -> int | None:
        """See kinora.storage.store.ArtifactStore."""
        content = self._contents.get(checked_key(key))
        return None if content is None else len(content)

    async def open_read(self, key: str) -> BinaryIO:
        """See kinora.storage.store.ArtifactStore."""
        self._stored(key, created=False)
        return io.BytesIO(self._contents[key])

    def _stored(self, key: str, *, created: bool) -> Stored:
        content = self._contents.get(checked_key(key))
        if content is None:
            raise NotStoredError(f"no artifact {key}")
        return Stored(self.uri(key), len(content), hashlib.sha256(content).hexdigest(), created)

    def clear(self) -> None:
        """Give the memory back between two phases."""
        self._contents.clear()
