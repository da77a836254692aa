"""The operator's gauges: what its store holds, counted when it is scraped. Only the leader tells of the cluster.

Each replica keeps the same store; told by all of them, every job would be counted as often.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from kinora.api import reasons
from kinora.api.intake import awaits_stager
from kinora.api.names import CONDITION_ENGINE_READY, LABEL_POOL
from kinora.api.reasons import TERMINAL, Phase
from kinora.api.transitions import is_assigned, parse_time
from kinora.controller.spot import pool_names, pool_of, spot_pools
from kinora.controller.store import Store
from kinora.kube.metrics import Book, Sample

Object = dict[str, Any]
SILENT_SECONDS: Final = 900.0
"Without progress for so long a render is told as stalled. Its agent judges by what the engine does, and acts."
_UNSERVED: Final = frozenset(
    {reasons.NO_MODEL_SERVER, reasons.NO_PRESET_WEIGHTS, reasons.ONLY_SPOT, reasons.STAGER_NOT_READY}
)
_STATES: Final = ("Starting", "Idle", "Busy")


@dataclass
class _Jobs:
    """What one look at every unfinished job has found. Marks are (namespace, model)."""

    phases: Tally[str] = field(default_factory=Tally)
    unserved: int = 0
    depth: Tally[tuple[str, str]] = field(default_factory=Tally)
    oldest: dict[tuple[str, str], str] = field(default_factory=dict)


class Inventory:
    """Computes the gauges. ``models``: the only names that become labels of a model."""

    def __init__(self, store: Store, models: frozenset[str], book: Book) -> None:
        self._store = store
        self.models = models
        self._seen = _Jobs()
        self.leads: Callable[[], bool] = lambda: True
        self.transitions: Callable[[], int] = lambda: 0
        self.queued_keys: Callable[[], int] = lambda: 0
        self.spot_life: Callable[[str, str], float | None] = lambda _server, _pool: None
        book.computed(
            "kinora_leader",
            "gauge",
            "1 in the replica that decides and writes, 0 in a standby",
            samples=lambda: [((), float(self.leads()))],
        )
        book.computed(
            "kinora_leader_transitions_total",
            "counter",
            "Changes of the leader, as its Lease counts them: every replica tells the same number (max, not sum)",
            samples=lambda: [((), float(self.transitions()))],
        )
        book.computed(
            "kinora_work_queue_depth",
            "gauge",
            "Keys that wait to be looked at, those with a time in the future among them",
            samples=lambda: [((), float(self.queued_keys()))],
        )
        self._jobs(book)
        self._servers(book)

    def _jobs(self, book: Book) -> None:
        self._told(book, "kinora_videojobs", "Unfinished VideoJobs by phase", ["phase"], self._phases)
        self._told(
            book,
            "kinora_videojobs_stalled",
            "Unfinished VideoJobs that do not go on: Silent (a render without progress for 15 min), Unserved (no "
            "ModelServer, pool, preset or stager that could take it)",
            ["cause"],
            self._stalled,
        )
        names = ["namespace", "model"]
        self._told(
            book,
            "kinora_queue_depth",
            "VideoJobs without a server pod, left out those that are suspended or whose inputs are still fetched",
            names,
            self._depth,
        )
        self._told(
            book, "kinora_queue_oldest_seconds", "Age of the oldest VideoJob of kinora_queue_depth", names, self._oldest
        )

    def _servers(self, book: Book) -> None:
        names = ["namespace", "model"]
        self._told(book, "kinora_modelservers", "ModelServers by their condition Ready", ["ready"], self._readiness)
        self._told(
            book,
            "kinora_modelserver_replicas",
            "Server pods that are wanted: spec.replicas, or the autoscaler's last decision",
            names,
            self._wanted,
        )
        self._told(
            book,
            "kinora_modelserver_pods",
            "Server pods by state: Starting, Idle, Busy",
            [*names, "pool", "state"],
            self._pods,
        )
        self._told(
            book,
            "kinora_modelserver_backlog_seconds",
            "Predicted GPU-seconds of the jobs that wait, as the autoscaler counts them",
            names,
            self._backlog,
        )
        self._told(
            book,
            "kinora_pool_price_per_hour",
            "Of one pod, as the ModelServer says, in the administrator's currency (of several: the highest)",
            [*names, "pool"],
            self._prices,
        )
        self._told(
            book,
            "kinora_spot_life_seconds",
            "How long pods of a spot pool live, as observed (of several: the shortest); absent: too few were lost",
            [*names, "pool"],
            self._lives,
        )
        self._told(
            book,
            "kinora_weights_bytes",
            "Weight files of ModelServers with sources: Done, Total",
            [*names, "state"],
            self._weights,
        )

    def _told(
        self, book: Book, name: str, tells: str, labels: list[str], samples: Callable[[], Iterator[Sample]]
    ) -> None:
        book.computed(name, "gauge", tells, labels, samples=lambda: samples() if self.leads() else ())

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _phases(self) -> Iterator[Sample]:
        """The first of the jobs' families to be collected: it looks at every job once, for the others too."""
        self._seen = self._look()
        for phase in Phase:
            if phase not in TERMINAL:
                yield (str(phase),), self._seen.phases[str(phase)]

    def _look(self) -> _Jobs:
        seen = _Jobs()
        for entry in self._store.jobs.entries.values():
            job = entry.obj
            spec, status = job["spec"], job.get("status") or {}
            seen.phases[status.get("phase") or Phase.PENDING.value] += 1
            if status.get("assignment") and is_assigned(status):
                continue
            seen.unserved += status.get("reason") in _UNSERVED
            has_files = "inputs" in spec or "workflow" in spec  # a stager has nothing to do with others
            if spec.get("suspend") or (has_files and awaits_stager(job)):
                continue
            mark, created = (job["metadata"]["namespace"], self.model_of(job)), job["metadata"]["creationTimestamp"]
            seen.depth[mark] += 1
            seen.oldest[mark] = min(created, seen.oldest.get(mark, created))  # of one form: text sorts as time does
        return seen

    def _stalled(self) -> Iterator[Sample]:
        now, silent = dt.datetime.now(dt.UTC), 0
        for key in (key for keys in self._store.jobs_by_pod.values() for key in keys):
            last = ((self._store.jobs.entries[key].obj["status"]).get("progress") or {}).get("lastUpdateTime")
            silent += last is not None and (now - parse_time(last)).total_seconds() > SILENT_SECONDS
        yield ("Silent",), silent
        yield ("Unserved",), self._seen.unserved

    def _depth(self) -> Iterator[Sample]:
        yield from sorted(self._seen.depth.items())

    def _oldest(self) -> Iterator[Sample]:
        now = dt.datetime.now(dt.UTC)
        for mark, created in sorted(self._seen.oldest.items()):
            yield mark, max(0.0, (now - parse_time(created)).total_seconds())

    def model_of(self, job: Object) -> str:
        """The model that the job waits for; empty when it is none of the catalogue, or not known yet."""
        named = job["spec"].get("modelServerName")
        if named:
            server = self._store.servers.get(f"{job['metadata']['namespace']}/{named}")
            return self.known(server["spec"].get("model", "") if server else "")
        return self.known(job["spec"].get("model", ""))

    def known(self, model: str) -> str:
        """The name as a label: empty for one that the catalogue does not have (users write what they like)."""
        return model if model in self.models else ""

    # --- ModelServers -------------------------------------------------------------------------------------------------

    def _each(self) -> Iterator[tuple[tuple[str, str], Object]]:
        for entry in self._store.servers.entries.values():
            server = entry.obj
            yield (server["metadata"]["namespace"], self.known(server["spec"].get("model", ""))), server

    def _readiness(self) -> Iterator[Sample]:
        tally: Tally[str] = Tally({"True": 0, "False": 0, "Unknown": 0})
        for _, server in self._each():
            conditions = (server.get("status") or {}).get("conditions") or []
            told = (found.get("status") for found in conditions if found.get("type") == "Ready")
            tally[next(told, None) or "Unknown"] += 1
        for status, count in tally.items():
            yield (status,), count

    def _wanted(self) -> Iterator[Sample]:
        tally: Tally[tuple[str, str]] = Tally()
        for mark, server in self._each():
            decided = (server.get("status") or {}).get("lastScale") if server["spec"].get("autoscaling") else None
            tally[mark] += int(decided[0]["toReplicas"] if decided else server["spec"].get("replicas", 1))
        yield from sorted(tally.items())

    def _pods(self) -> Iterator[Sample]:
        tally: Tally[tuple[str, ...]] = Tally()
        for (namespace, model), server in self._each():
            for pool in pool_names(server):
                tally.update({(namespace, model, pool, state): 0 for state in _STATES})
            for pod in self._store.pods_by_server.get(f"{namespace}/{server['metadata']['name']}", {}).values():
                pool = (pod["metadata"].get("labels") or {}).get(LABEL_POOL, "")
                tally[namespace, model, pool, self._state(pod)] += 1
        yield from sorted(tally.items())

    def _state(self, pod: Object) -> str:
        if self._store.jobs_by_pod.get(pod["metadata"]["uid"]):
            return "Busy"
        for condition in (pod.get("status") or {}).get("conditions") or []:
            if condition.get("type") == CONDITION_ENGINE_READY and condition.get("status") == "True":
                return "Idle"
        return "Starting"

    def _backlog(self) -> Iterator[Sample]:
        total: dict[tuple[str, str], float] = defaultdict(float)
        for mark, server in self._each():
            total[mark] += float((server.get("status") or {}).get("backlogSeconds") or 0.0)
        yield from sorted(total.items())

    def _prices(self) -> Iterator[Sample]:
        prices: dict[tuple[str, ...], float] = {}
        for mark, server in self._each():
            for pool in pool_names(server):
                price = pool_of(server, pool).get("pricePerHour")
                if price is not None:
                    prices[*mark, pool] = max(float(price), prices.get((*mark, pool), 0.0))
        yield from sorted(prices.items())

    def _lives(self) -> Iterator[Sample]:
        lives: dict[tuple[str, ...], float] = {}
        for mark, server in self._each():
            for pool in spot_pools(server):
                life = self.spot_life(f"{mark[0]}/{server['metadata']['name']}", pool)
                if life is not None:
                    lives[*mark, pool] = min(life, lives.get((*mark, pool), life))
        yield from sorted(lives.items())

    def _weights(self) -> Iterator[Sample]:
        totals: Tally[tuple[str, ...]] = Tally()
        for mark, server in self._each():
            weights = (server.get("status") or {}).get("weights") or {}
            if weights.get("bytesTotal"):
                totals[*mark, "Done"] += int(weights.get("bytesDone") or 0)
                totals[*mark, "Total"] += int(weights["bytesTotal"])
        yield from sorted(totals.items())
