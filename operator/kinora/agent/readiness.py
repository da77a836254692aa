"""Whether a job bound now would start, and if not why: the EngineReady condition as a pure function of facts.

The order of the checks is the order in which a person would have to mend them. Gathering the facts is health.py's.
"""

from __future__ import annotations

from dataclasses import dataclass

from kinora.api import reasons
from kinora.api.transitions import clip

_SHOWN = 5  # of a list of missing things


@dataclass(frozen=True)
class Facts:
    """What is known of the pod at one moment."""

    token_fault: str | None = None
    draining: bool = False
    cuda_fault: str | None = None
    weights_checked: bool = False
    weight_faults: tuple[str, ...] = ()
    weights_were_good: bool = False  # this agent has verified them once
    weights_changed: tuple[str, ...] = ()  # paths that look different since; they are being verified
    fast_faults: tuple[str, ...] | None = (
        None  # of the files that preset Fast needs; None: the model has no such preset
    )
    supervisor_answers: bool = False
    process_runs: bool = False
    was_up: bool = False  # this agent has seen its engine ready before
    exits: int = 0  # of the engine by itself, since it last answered
    last_exit: str = ""
    engine_answers: bool = False
    missing_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Readiness:
    """The condition: True only with reason EngineReady."""

    reason: str
    message: str
    fast: str | None = None
    "What jobs of preset Fast lack, nothing (empty) where they can be rendered; None: the model has no such preset."

    @property
    def ready(self) -> bool:
        """Whether the engine takes a prompt."""
        return self.reason == reasons.ENGINE_READY


def assess(facts: Facts) -> Readiness:
    """The first thing that stands in the way."""
    reason, message = _obstacle(facts) or (reasons.ENGINE_READY, "the engine answers, its nodes and weights are there")
    fast = None if facts.fast_faults is None else clip(shortened(facts.fast_faults))
    return Readiness(reason, clip(message), fast)


def _obstacle(facts: Facts) -> tuple[str, str] | None:
    if facts.token_fault:
        return reasons.TOKEN_NOT_BOUND, facts.token_fault
    if facts.draining:
        return reasons.DRAINING, "the pod is being drained: what renders is finished, nothing new is started"
    if facts.cuda_fault:
        return reasons.CUDA_FAULT, facts.cuda_fault
    if facts.weights_changed:
        return reasons.WEIGHTS_VERIFYING, "changed, and being verified again: " + shortened(facts.weights_changed, ", ")
    if facts.weight_faults:
        reason = reasons.WEIGHTS_CHANGED if facts.weights_were_good else reasons.WEIGHTS_MISSING
        return reason, shortened(facts.weight_faults)
    return _engine_obstacle(facts)


def _engine_obstacle(facts: Facts) -> tuple[str, str] | None:
    if not facts.weights_checked:
        return reasons.ENGINE_STARTING, "the weight files are being checked"
    if facts.engine_answers:
        if facts.missing_nodes:
            what = "the engine lacks node classes that the model's recipes use: "
            return reasons.NODES_MISSING, what + shortened(facts.missing_nodes, ", ")
        return None
    if not facts.supervisor_answers:
        text = "the engine's container does not answer on the supervisor's socket"
        return (reasons.ENGINE_DOWN if facts.was_up else reasons.ENGINE_STARTING), text
    if facts.exits and (facts.was_up or facts.exits >= 3 or not facts.process_runs):
        return reasons.ENGINE_DOWN, f"the engine has ended {facts.exits} times by itself: {facts.last_exit}"
    return reasons.ENGINE_STARTING, "the engine is starting and does not answer yet"


def shortened(items: tuple[str, ...], separator: str = "; ") -> str:
    """The first few, and how many more."""
    more = len(items) - _SHOWN
    return separator.join(items[:_SHOWN]) + (f"{separator}and {more} more" if more > 0 else "")
