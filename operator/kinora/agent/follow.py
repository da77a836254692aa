"""What the engine is doing with one prompt, and whether its silence has lasted too long: pure, told the time.

Events go in one by one; out come the stage and percent for the status, and the moment at which silence is over its
budget. Where events come from, and what is done about silence, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kinora.engine.stages import Stage, stage_of

_ORDER: Final = tuple(Stage)
# Where each stage begins and ends on the way from 0 to 99 percent. Sampling is nearly all of a render's time.
_SPAN: Final[Mapping[Stage, tuple[int, int]]] = {
    Stage.WAIT: (0, 0),
    Stage.LOAD: (0, 5),
    Stage.ENCODE: (5, 15),
    Stage.SAMPLE: (15, 90),
    Stage.DECODE: (90, 97),
    Stage.SAVE: (97, 99),
}
_ANSWER_BUDGET: Final = 600.0  # seconds: the next prompt may keep the engine from answering


def silence_budget(stage: Stage, tokens: int, slowest_step: float | None = None) -> float:
    """Seconds without a sign of life that an engine may take in a stage of a render of that many tokens.

    Generous: a restart throws a render away. Loading reads tens of GB from a volume; the VAE encodes and decodes
    without one event; a step takes up to a minute on a small GPU, and once steps were seen they are the measure.
    """
    if stage is Stage.SAMPLE and slowest_step is not None:
        return max(120.0, 10 * slowest_step)
    fixed, per_token = {
        Stage.WAIT: (60.0, 0.0),
        Stage.LOAD: (900.0, 0.0),
        Stage.ENCODE: (300.0, 0.005),
        Stage.SAMPLE: (300.0, 0.01),
        Stage.DECODE: (300.0, 0.01),
        Stage.SAVE: (300.0, 0.005),
    }[stage]
    return fixed + per_token * tokens


@dataclass(frozen=True)
class View:
    """What a progress write says."""

    percent: int
    stage: str
    step: int | None = None
    steps: int | None = None


@dataclass
class Follow:
    """The state of one prompt. Times are seconds of one monotonic clock."""

    graph: Mapping[str, Mapping[str, Any]]
    tokens: int
    submitted_at: float
    scale: float = 1.0
    started_at: float | None = None
    sampling_at: float | None = None
    ended_at: float | None = None
    _stage: Stage = Stage.WAIT  # for people: never goes back
    _activity: Stage = Stage.WAIT  # of the node that runs now: what the budget depends on
    _node: str | None = None
    _step: tuple[int, int] | None = None
    _life_at: float = 0.0
    _step_at: float | None = None
    _slowest: float | None = None
    _samplers_done: set[str] = field(default_factory=set)
    _nudged: bool = False

    def __post_init__(self) -> None:
        self._life_at = self.submitted_at
        self._samplers = [name for name, node in self.graph.items() if self._stage_of(name) is Stage.SAMPLE and node]

    def submitted(self, at: float) -> None:
        """The engine has taken the prompt: the wait for an engine that takes one was not its silence."""
        self.submitted_at = at
        self._alive(at)

    def started(self, at: float) -> None:
        """The engine has begun with the prompt."""
        if self.started_at is None:
            self.started_at = at
            self._enter(Stage.LOAD, at)

    def resumed(self, at: float, since: float) -> None:
        """It has been running for that many seconds, unseen."""
        self.started(at)
        self.started_at = at - since

    def node_started(self, name: str, at: float) -> None:
        """A node runs. The one that ran already is no news (it is told again after a reconnect)."""
        self.started(at)
        if name == self._node:
            return
        if self._node in self._samplers:
            self._samplers_done.add(str(self._node))
        self._node, self._step, self._step_at = name, None, None
        self._enter(self._stage_of(name), at)

    def progressed(self, name: str, value: float, maximum: float, at: float) -> None:
        """A node says how far it is."""
        self.node_started(name, at)
        step = (int(value), int(maximum))
        if step == self._step:
            return
        if self._activity is Stage.SAMPLE and self._step_at is not None:
            self._slowest = max(self._slowest or 0.0, at - self._step_at)
        self._step, self._step_at = step, at
        self._alive(at)

    def ended(self, at: float) -> None:
        """The engine is done with the prompt, whatever came of it."""
        if self.ended_at is None:
            self.ended_at = at

    def view(self) -> View:
        """For the status; a step is told only while sampling."""
        low, high = _SPAN[self._stage]
        if self._stage is not Stage.SAMPLE:
            return View(low, str(self._stage))
        share = len(self._samplers_done) / max(1, len(self._samplers))
        step = self._step if self._activity is Stage.SAMPLE else None
        if step and step[1] > 0:
            share += min(1.0, step[0] / step[1]) / max(1, len(self._samplers))
        percent = int(low + (high - low) * min(1.0, share))
        return View(percent, str(self._stage), *(step or (None, None)))

    def budget(self) -> float:
        """Seconds of silence that are allowed now."""
        slowest = self._slowest if self._step_at is not None else None
        return self.scale * silence_budget(self._activity, self.tokens, slowest)

    def nudge_at(self) -> float | None:
        """When half of the budget is gone: time to ask for events anew. None when that was done, or is over."""
        return None if self._nudged or self.ended_at is not None else self._life_at + self.budget() / 2

    def nudged(self) -> None:
        """It was done; only a sign of life arms it again."""
        self._nudged = True

    def silent_at(self) -> float:
        """When silence is over its budget: of the render, and after its end of the question what came of it."""
        if self.ended_at is not None:
            return self.ended_at + self.scale * _ANSWER_BUDGET
        return self._life_at + self.budget()

    def silence(self) -> str:
        """The silence in words."""
        if self.ended_at is not None:
            return f"the engine did not say for {self.scale * _ANSWER_BUDGET:.0f} s what came of the prompt"
        return f"no sign of life for {self.budget():.0f} s in stage {self._activity}"

    def _stage_of(self, name: str) -> Stage:
        return stage_of(str(self.graph.get(name, {}).get("class_type", "")))

    def _enter(self, stage: Stage, at: float) -> None:
        self._activity = stage
        if stage is Stage.DECODE and self._more_windows():
            stage = Stage.SAMPLE
        if _ORDER.index(stage) > _ORDER.index(self._stage):
            self._stage = stage
        if self._activity is Stage.SAMPLE and self.sampling_at is None:
            self.sampling_at = at
        self._alive(at)

    def _more_windows(self) -> bool:
        """Whether renders follow this decoding: a graph of several windows decodes each."""
        decoders = sum(self._stage_of(name) is Stage.DECODE for name in self.graph)
        return decoders > 1 and not self._samplers_done.issuperset(self._samplers)

    def _alive(self, at: float) -> None:
        self._life_at = at
        self._nudged = False
