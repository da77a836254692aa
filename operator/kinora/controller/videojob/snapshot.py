"""What the operator knows of one VideoJob at the moment of a decision: frozen facts, gathered elsewhere."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinora.controller.videojob.check import Verdict

Object = Mapping[str, Any]
TERMINATING_LIMIT = 30.0  # seconds beyond a pod's grace
NOT_READY_LIMIT = 60.0  # seconds of a node


@dataclass(frozen=True)
class PodState:
    """The pod of an assignment as the watches tell it. ``exists`` is by UID: another UID is another pod."""

    exists: bool
    phase: str = ""
    deletion_time: dt.datetime | None = None  # metadata.deletionTimestamp: when its grace ends
    node_not_ready_seconds: float | None = None  # None: ready, unknown, or a virtual node

    def lost(self, now: dt.datetime) -> str:
        """Why the pod counts as lost; empty while it does not (api.md)."""
        if not self.exists:
            return "the pod is gone"
        if self.phase in {"Failed", "Succeeded"}:
            return f"the pod ended in phase {self.phase}"
        if self.deletion_time is not None and (now - self.deletion_time).total_seconds() > TERMINATING_LIMIT:
            return "the pod is still terminating 30 s after its grace period"
        if self.node_not_ready_seconds is not None and self.node_not_ready_seconds > NOT_READY_LIMIT:
            return f"the pod's node has been NotReady for {self.node_not_ready_seconds:.0f} s"
        return ""

    def next_look(self, now: dt.datetime) -> float | None:
        """Seconds until the pod counts as lost if nothing changes; None: nothing is running out."""
        left = []
        if self.deletion_time is not None:
            left.append(TERMINATING_LIMIT - (now - self.deletion_time).total_seconds())
        if self.node_not_ready_seconds is not None:
            left.append(NOT_READY_LIMIT - self.node_not_ready_seconds)
        return max(min(left), 0.0) + 0.5 if left else None


@dataclass(frozen=True)
class IntakeState:
    """What a stager has to do with the job; nothing, where it names no url and no upload."""

    stager: str = ""  # the Deployment whose store was chosen; empty where no ModelServer offers a store
    store: str = ""  # the root of that store
    stager_ready: bool = True
    store_served: bool = True  # a ModelServer that can render the job uses the store that holds its inputs


@dataclass(frozen=True)
class JobSnapshot:
    """One VideoJob with everything that its next decision rests on. Seconds are on the observer's monotonic clock."""

    job: Object
    verdict: Verdict
    pod: PodState
    has_server: bool  # a ModelServer of the namespace serves its model
    surplus: bool  # its pod holds two other bound jobs that go first
    seen_seconds: float  # since the operator first saw the job, or saw that its inputs are in a store
    running_seconds: float  # since it saw this attempt run
    cancel_seconds: float  # since it saw cancel on an assigned job
    suspended_seconds: float  # how long it has been seen suspended, in all
    now: dt.datetime
    preset_lacks: str = ""  # why no pod that serves can render its preset; empty where one can, or none serves
    only_spot: str = ""  # why it may not go to the pools that there are, which are all spot; empty: it may
    intake: IntakeState = IntakeState()
