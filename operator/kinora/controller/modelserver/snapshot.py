"""What the operator knows of one ModelServer at the moment of a decision: frozen facts, gathered elsewhere."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kinora.api.names import (
    ANNOTATION_SOURCES_HASH,
    ANNOTATION_TEMPLATE_HASH,
    CONDITION_ENGINE_READY,
    CONDITION_FAST_READY,
    CONDITION_WEIGHTS_READY,
    CONTAINER_ENGINE,
    LABEL_POOL,
    LABEL_SLOT,
)
from kinora.api.reasons import POD_GATED
from kinora.api.transitions import parse_time
from kinora.api.videojob import Preset
from kinora.controller.modelserver.notice import Notice

Object = Mapping[str, Any]
NO_NOTICE = Notice()
TERMINATING_LIMIT = 30.0  # seconds beyond a pod's grace: its node is gone, or its processes cannot be ended


@dataclass(frozen=True)
class ServerPod:
    """One server pod as seen in the watch."""

    name: str
    uid: str
    slot: int
    template_hash: str
    phase: str
    node: str
    pool: str
    terminating: bool
    engine_ready: bool
    engine_reason: str
    engine_message: str
    scheduled: bool
    unscheduled_message: str
    waiting_message: str
    busy: bool
    node_ready: bool = True
    engine_since: dt.datetime | None = None  # the engine condition's last transition
    deletion_time: dt.datetime | None = None  # metadata.deletionTimestamp: when its grace ends
    presets: frozenset[str] = frozenset()  # whose files it has
    preset_message: str = ""  # what the files of preset Fast lack
    gates: tuple[str, ...] = ()  # scheduling gates that hold it: it waits for somebody's leave, and is not refused
    refused_message: str = ""  # what the provider, the scheduler or the node says of why it does not start
    notice: str = ""  # why its capacity goes away, or may: no new job; empty: it stays
    is_ending: bool = False  # the notice is final: pod or node will go, whatever happens
    placed: dt.datetime | None = None  # since when it has a node
    by_force: bool = False  # its deletion left it no time at all: nobody of ours does that

    @property
    def is_lost(self) -> bool:
        """The pod ended by itself and will never serve again."""
        return self.phase in {"Failed", "Succeeded"}

    @property
    def serves(self) -> bool:
        """A job bound now would start."""
        return self.engine_ready and self.node_ready and not self.terminating and not self.is_lost

    def overdue_in(self, now: dt.datetime) -> float | None:
        """Seconds until a terminating pod no longer holds its slot; None: it is not terminating."""
        if self.deletion_time is None:
            return None
        return TERMINATING_LIMIT - (now - self.deletion_time).total_seconds()


@dataclass(frozen=True)
class PodRefusal:
    """Why the API server, or an admission webhook, took no pod of a pool, and until when it is not asked again."""

    message: str
    until: dt.datetime


@dataclass(frozen=True)
class WeightsRun:
    """One weights Job, and what its newest pod tells of itself."""

    name: str
    uid: str
    sources_hash: str
    complete: bool = False
    failed: bool = False
    failure: str = ""  # the Job's own words
    end_time: dt.datetime | None = None
    terminating: bool = False
    reason: str = ""  # of the pod's condition; empty: it has told nothing yet
    message: str = ""
    waiting_message: str = ""  # why the pod does not start, as scheduler or kubelet say it


@dataclass(frozen=True)
class ServerSnapshot:
    """One ModelServer with everything that its next decision rests on."""

    server: Object
    pods: tuple[ServerPod, ...]
    claims: frozenset[str]  # names of the PVCs that exist in the namespace
    backlog: int  # unfinished jobs of the namespace that only wait for this server
    now: dt.datetime
    runs: tuple[WeightsRun, ...] = ()
    entry: str = ""  # the text of an administrator's entry of its model
    refusals: Mapping[str, PodRefusal] = field(default_factory=dict)  # by pool


def condition(pod: Object, kind: str) -> Object:
    """The pod's (or the Job's) condition of that type; empty: it has none."""
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == kind:
            found: Object = condition
            return found
    return {}


def server_pod(pod: Object, *, busy: bool, node_ready: bool = True, told: Notice = NO_NOTICE) -> ServerPod:
    """The facts of one pod object; ``told``: what is said of its future."""
    metadata = pod["metadata"]
    status = pod.get("status") or {}
    engine = condition(pod, CONDITION_ENGINE_READY)
    scheduled = condition(pod, "PodScheduled")
    fast = condition(pod, CONDITION_FAST_READY)
    slot = metadata.get("labels", {}).get(LABEL_SLOT, "")
    deletion = metadata.get("deletionTimestamp")
    gates = tuple(gate["name"] for gate in pod["spec"].get("schedulingGates") or [])
    # The condition still speaks of gates for a while after the last one was taken off.
    is_gated = bool(gates) or scheduled.get("reason") == POD_GATED
    unscheduled = scheduled.get("message", "") if scheduled.get("status") == "False" and not is_gated else ""
    waiting = _waiting(status)
    return ServerPod(
        name=metadata["name"],
        uid=metadata["uid"],
        slot=int(slot) if slot.isdigit() else -1,
        template_hash=metadata.get("annotations", {}).get(ANNOTATION_TEMPLATE_HASH, ""),
        phase=status.get("phase", "Pending"),
        node=pod["spec"].get("nodeName", ""),
        pool=metadata.get("labels", {}).get(LABEL_POOL, ""),
        terminating=bool(deletion),
        engine_ready=engine.get("status") == "True",
        engine_reason=engine.get("reason", ""),
        engine_message=engine.get("message", ""),
        engine_since=parse_time(engine["lastTransitionTime"]) if engine.get("lastTransitionTime") else None,
        scheduled=scheduled.get("status") != "False",
        unscheduled_message=unscheduled,
        waiting_message=waiting,
        busy=busy,
        node_ready=node_ready,
        deletion_time=parse_time(deletion) if deletion else None,
        presets=frozenset({str(Preset.FAST)}) if fast.get("status") == "True" else frozenset(),
        preset_message=fast.get("message", "") if fast.get("status") == "False" else "",
        gates=gates,
        refused_message=unscheduled or _provider_message(status) or waiting,
        notice=told.text,
        is_ending=told.final,
        placed=_placed(pod, scheduled),
        by_force=bool(deletion) and metadata.get("deletionGracePeriodSeconds") == 0,
    )


def _placed(pod: Object, scheduled: Object) -> dt.datetime | None:
    """Since when the pod has a node; a virtual one may give it no condition PodScheduled."""
    if not pod["spec"].get("nodeName"):
        return None
    at = scheduled.get("lastTransitionTime") if scheduled.get("status") == "True" else None
    at = at or pod["metadata"].get("creationTimestamp")
    return parse_time(at) if at else None


def start_stages(pod: Object) -> dict[str, float]:
    """Seconds of each stage of the start of a pod that serves, as far as its status tells: see kinora_cold_start."""
    status, created = pod.get("status") or {}, pod["metadata"].get("creationTimestamp")
    scheduled, ready = condition(pod, "PodScheduled"), condition(pod, CONDITION_ENGINE_READY)
    engines = [one for one in status.get("initContainerStatuses") or [] if one.get("name") == CONTAINER_ENGINE]
    times = {
        "created": created,
        "scheduled": scheduled.get("lastTransitionTime") if scheduled.get("status") == "True" else None,
        "started": next((((one.get("state") or {}).get("running") or {}).get("startedAt") for one in engines), None),
        "ready": ready.get("lastTransitionTime") if ready.get("status") == "True" else None,
    }
    stages = {"Schedule": ("created", "scheduled"), "Pull": ("scheduled", "started"), "Engine": ("started", "ready"),
              "Total": ("created", "ready")}  # fmt: skip
    return {
        stage: max(0.0, (parse_time(end) - parse_time(begin)).total_seconds())
        for stage, (first, last) in stages.items()
        if (begin := times[first]) and (end := times[last])
    }


def _provider_message(status: Object) -> str:
    """What a virtual node's provider says of a pod that it cannot start (no stock, quota, unsupported resources)."""
    if status.get("phase", "Pending") != "Pending" or not status.get("reason"):
        return ""
    return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")


def _waiting(status: Object) -> str:
    """Why a container does not start (image, mount), as kubelet says it; empty when all is well."""
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in statuses:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in {None, "PodInitializing", "ContainerCreating"}:
            return f"container {container['name']}: {waiting['reason']}: {waiting.get('message', '')}".strip(": ")
    return ""


def weights_run(job: Object, pods: Iterable[Object]) -> WeightsRun:
    """The facts of one weights Job; `pods` are those that it has made."""
    metadata = job["metadata"]
    complete, failed = condition(job, "Complete"), condition(job, "Failed")
    ended = complete if complete.get("status") == "True" else failed if failed.get("status") == "True" else {}
    newest = max(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]), default=None)
    told: Object = condition(newest, CONDITION_WEIGHTS_READY) if newest else {}
    return WeightsRun(
        name=metadata["name"],
        uid=metadata["uid"],
        sources_hash=metadata.get("annotations", {}).get(ANNOTATION_SOURCES_HASH, ""),
        complete=complete.get("status") == "True",
        failed=failed.get("status") == "True",
        failure=failed.get("message", "") if failed.get("status") == "True" else "",
        end_time=parse_time(ended["lastTransitionTime"]) if ended.get("lastTransitionTime") else None,
        terminating=bool(metadata.get("deletionTimestamp")),
        reason=told.get("reason", ""),
        message=told.get("message", ""),
        waiting_message=_why_not_started(newest) if newest else "",
    )


def _why_not_started(pod: Object) -> str:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("message", ""))
    return _waiting(pod.get("status") or {})
