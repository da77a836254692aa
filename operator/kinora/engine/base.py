"""What the agent needs of an engine, in Kinora's own words: a protocol, the outcomes and the events.

Nothing here speaks HTTP or names ComfyUI's fields; client.py does that for ComfyUI and the stand-in, and an engine in
memory can take its place. A websocket that closes is never a verdict: the truth is `outcome`.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias


class EngineUnavailable(Exception):  # noqa: N818 - it names a state, as the design does
    """The engine does not answer (refused, timed out, or answered something that is no answer)."""


class GraphRefused(Exception):  # noqa: N818
    """The engine will not run this graph, ever: do not try again.

    `message` is one line for a person; `node_errors` is ComfyUI's own {node id: {errors, class_type, ...}}.
    """

    def __init__(self, message: str, node_errors: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.message = message
        self.node_errors = node_errors


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a node made. `list` is the name of the list that has it (gifs, images, videos, ...).

    `type` is "output" for results and "temp" for previews; the file is <folder of the type>/subfolder/filename.
    """

    node: str
    list: str
    filename: str
    subfolder: str
    type: str
    format: str | None = None


@dataclass(frozen=True, slots=True)
class EngineError:
    """Why a prompt failed: the node, its class and the exception. `message` holds no traceback and no path.

    `is_oom` is an accelerator out of memory (free and go on); `is_cuda_fault` a broken CUDA context (replace the pod).
    """

    node_id: str
    class_type: str
    exception_type: str
    message: str
    is_oom: bool = False
    is_cuda_fault: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The engine has never heard of the prompt, or has forgotten it (it restarted)."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The prompt waits in the engine's queue."""


@dataclass(frozen=True, slots=True)
class Running:
    """The prompt is the one that runs."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The prompt ran to its end. `outputs` are its results (type "output") in the engine's order, maybe none."""

    outputs: tuple[OutputFile, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A node failed."""

    error: EngineError


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Somebody stopped the prompt."""


Outcome: TypeAlias = Unknown | Pending | Running | Succeeded | Failed | Interrupted


@dataclass(frozen=True, slots=True)
class Connected:
    """The event stream stands. Events of the time before are lost: ask `outcome`."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The event stream broke; it will be tried again."""


@dataclass(frozen=True, slots=True)
class ExecutionStart:
    """A prompt has begun."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class NodesCached:
    """These nodes of the prompt need not run; told once, after its begin."""

    prompt_id: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A node of the prompt has begun."""

    prompt_id: str
    node: str


@dataclass(frozen=True, slots=True)
class Progress:
    """`value` of `max` steps of a node are done (sampling steps, frames encoded, ...)."""

    prompt_id: str
    node: str
    value: int
    max: int


@dataclass(frozen=True, slots=True)
class NodeExecuted:
    """An output node has run (or was served from the cache). `output` is what it made, as the engine says it."""

    prompt_id: str
    node: str
    output: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExecutionSuccess:
    """All nodes of a prompt have run."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ExecutionError:
    """A node of a prompt failed."""

    prompt_id: str
    error: EngineError


@dataclass(frozen=True, slots=True)
class ExecutionInterrupted:
    """A prompt was stopped in this node."""

    prompt_id: str
    node: str


PromptEvent: TypeAlias = (
    ExecutionStart
    | NodesCached
    | NodeStarted
    | Progress
    | NodeExecuted
    | ExecutionSuccess
    | ExecutionError
    | ExecutionInterrupted
)
EngineEvent: TypeAlias = Connected | Disconnected | PromptEvent


class Engine(Protocol):
    """An engine that holds one prompt at a time. Every method raises EngineUnavailable when it does not answer."""

    async def object_info(self) -> dict[str, Any]:
        """The node classes that it has: {class: {input: {required, optional}, output, ...}}."""
        ...

    async def system_stats(self) -> dict[str, Any]:
        """What it says of itself: {system: {...}, devices: [...]}, memory in bytes."""
        ...

    async def submit(self, graph: Mapping[str, Any], prompt_id: str, client_id: str) -> None:
        """Hands over a graph under our own id. Does nothing when it knows that id already. Raises GraphRefused."""
        ...

    async def outcome(self, prompt_id: str) -> Outcome:
        """What has become of a prompt."""
        ...

    async def interrupt(self, prompt_id: str) -> None:
        """Stops this prompt, if it runs, at its next step. Another one is not touched."""
        ...

    async def delete_pending(self, prompt_id: str) -> None:
        """Takes this prompt out of the queue, if it waits there."""
        ...

    async def forget(self, prompt_id: str) -> None:
        """Drops an ended prompt from the history, which holds the whole graph of each for as long as it lives."""
        ...

    async def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """Asks it to give back memory before the next prompt."""
        ...

    def events(self, client_id: str) -> AsyncIterator[EngineEvent]:
        """What happens to the prompts of this client id, from now on, for ever; reconnects by itself."""
        ...
