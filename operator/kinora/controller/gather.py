"""Frozen snapshots out of the store, one for each decision. Reads the store and the clock; decides nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Container
from typing import Any

from kinora.api.names import LABEL_MODEL_SERVER
from kinora.api.reasons import Phase
from kinora.api.transitions import is_assigned, parse_time, phase_of
from kinora.catalogue.load import Catalogue
from kinora.controller.modelserver import decide as server_decide
from kinora.controller.modelserver.snapshot import ServerPod, ServerSnapshot, WeightsRun, server_pod, weights_run
from kinora.controller.scheduling.bind import Idle, Waiting
from kinora.controller.settings import Settings
from kinora.controller.store import Entry, Store
from kinora.controller.videojob.check import Accepted, Undecided, Verdict, check
from kinora.controller.videojob.snapshot import JobSnapshot, PodState

Object = dict[str, Any]
BOUND_LIMIT = 2  # jobs a pod may hold: one runs, one is staged


class Gatherer:
    """Builds snapshots; remembers each job's verdict, which depends on its generation and the servers' models only."""

    def __init__(self, store: Store, catalogue: Catalogue, settings: Settings) -> None:
        self._store = store
        self._catalogue = catalogue
        self._settings = settings
        self._verdicts: dict[str, tuple[tuple[int, str], Verdict]] = {}  # job UID -> what it rests on, verdict

    def forget(self, job: Object) -> None:
        """Drop the remembered verdict of a job that is gone."""
        self._verdicts.pop(job["metadata"]["uid"], None)

    def servers(self, namespace: str) -> dict[str, str]:
        """ModelServer name -> model, of one namespace."""
        prefix = f"{namespace}/"
        return {
            entry.obj["metadata"]["name"]: entry.obj["spec"].get("model", "")
            for name, entry in self._store.servers.entries.items()
            if name.startswith(prefix)
        }

    def verdict(self, job: Object) -> Verdict:
        """Whether the job can be rendered (remembered once it is known)."""
        metadata = job["metadata"]
        server = job["spec"].get("modelServerName")
        named = self._store.servers.get(f"{metadata['namespace']}/{server}") if server else None
        mark = (metadata.get("generation", 1), named["spec"].get("model", "") if named else "")
        remembered = self._verdicts.get(metadata["uid"])
        if remembered is not None and remembered[0] == mark:
            return remembered[1]
        verdict = check(job, self._catalogue, self.servers(metadata["namespace"]))
        if not isinstance(verdict, Undecided):
            self._verdicts[metadata["uid"]] = (mark, verdict)
        return verdict

    def serving(self, job: Object, verdict: Verdict, servers: dict[str, str]) -> frozenset[str]:
        """Names of the ModelServers that can render the job."""
        if not isinstance(verdict, Accepted):
            return frozenset()
        named = job["spec"].get("modelServerName")
        if named:
            return frozenset({named} & servers.keys())
        return frozenset(name for name, model in servers.items() if model == verdict.model)

    def job(self, entry: Entry, now: dt.datetime) -> JobSnapshot:
        """The snapshot of one VideoJob."""
        job = entry.obj
        status = job.get("status") or {}
        verdict = self.verdict(job)
        servers = self.servers(job["metadata"]["namespace"])
        return JobSnapshot(
            job=job,
            verdict=verdict,
            pod=self._pod_state(status),
            has_server=bool(self.serving(job, verdict, servers)),
            surplus=self._is_surplus(job),
            seen_seconds=self._store.now() - entry.seen,
            running_seconds=self._store.age(entry, f"running-{status.get('attempt')}"),
            cancel_seconds=self._store.age(entry, "cancel"),
            suspended_seconds=entry.suspended_seconds + self._store.age(entry, "suspend"),
            now=now,
        )

    def _pod_state(self, status: Object) -> PodState:
        if not is_assigned(status):
            return PodState(exists=False)
        pod = self._store.pods_by_uid.get(status["assignment"]["podUID"])
        if pod is None:
            return PodState(exists=False)
        deletion = pod["metadata"].get("deletionTimestamp")
        node = pod["spec"].get("nodeName", "")
        since = self._store.node_not_ready.get(node)
        return PodState(
            exists=True,
            phase=(pod.get("status") or {}).get("phase", ""),
            deletion_time=parse_time(deletion) if deletion else None,
            node_not_ready_seconds=None if since is None else self._store.now() - since,
        )

    def _is_surplus(self, job: Object) -> bool:
        """Whether two other jobs of the same pod go first (an over-bound pod: the operator takes back)."""
        status = job.get("status") or {}
        if phase_of(status) != Phase.SCHEDULED or not is_assigned(status):
            return False
        held = self._store.jobs_by_pod.get(status["assignment"]["podUID"], set())
        if len(held) <= BOUND_LIMIT:
            return False
        others = sorted(held, key=lambda name: _turn(self._store.jobs.entries[name].obj))
        return others.index(f"{job['metadata']['namespace']}/{job['metadata']['name']}") >= BOUND_LIMIT

    def server(self, server: Object, now: dt.datetime) -> ServerSnapshot:
        """The snapshot of one ModelServer."""
        return self._snapshot(server, now, self._backlog(server["metadata"]["namespace"], server["metadata"]["name"]))

    def _snapshot(self, server: Object, now: dt.datetime, backlog: int) -> ServerSnapshot:
        namespace, name = server["metadata"]["namespace"], server["metadata"]["name"]
        uid = server["metadata"]["uid"]
        pods = [pod for pod in self._store.pods_by_server.get(f"{namespace}/{name}", {}).values() if _owned(pod, uid)]
        prefix = f"{namespace}/"
        return ServerSnapshot(
            server=server,
            pods=tuple(self._server_pod(pod) for pod in pods),
            claims=frozenset(key[len(prefix) :] for key in self._store.claims.entries if key.startswith(prefix)),
            backlog=backlog,
            now=now,
            runs=self._runs(f"{namespace}/{name}", uid),
        )

    def _runs(self, server: str, uid: str) -> tuple[WeightsRun, ...]:
        """The weights Jobs of one ModelServer, each with its pods."""
        jobs = [job for job in self._store.weights_jobs.of(server) if _owned(job, uid)]
        pods = self._store.weights_pods.of(server) if jobs else []
        return tuple(weights_run(job, [pod for pod in pods if _owned(pod, job["metadata"]["uid"])]) for job in jobs)

    def _server_pod(self, pod: Object) -> ServerPod:
        return server_pod(
            pod,
            busy=bool(self._store.jobs_by_pod.get(pod["metadata"]["uid"])),
            node_ready=pod["spec"].get("nodeName", "") not in self._store.node_not_ready,
        )

    def _backlog(self, namespace: str, server: str) -> int:
        return sum(1 for job in self.waiting(namespace) if server in job.servers)

    def waiting(self, namespace: str, held: Container[str] = ()) -> list[Waiting]:
        """The jobs of a namespace that may be bound now; ``held``: keys of those that may not for a while."""
        servers = self.servers(namespace)
        out = []
        for key in self._store.waiting.get(namespace, set()):
            if key in held:
                continue
            job = self._store.jobs.entries[key].obj
            spec = job["spec"]
            if spec.get("suspend") or spec.get("cancel") or job["metadata"].get("deletionTimestamp"):
                continue
            able = self.serving(job, self.verdict(job), servers)
            if able:
                metadata = job["metadata"]
                priority = int(spec.get("priority") or 0)
                out.append(Waiting(key, metadata["uid"], able, priority, metadata["creationTimestamp"]))
        return out

    def idle(self, namespace: str, reserved: frozenset[str], now: dt.datetime) -> list[Idle]:
        """The pods of a namespace that would start a job now; ``reserved``: UIDs with a bind on its way."""
        out = []
        for name in self.servers(namespace):
            server = self._store.servers.get(f"{namespace}/{name}")
            if server is None or server["metadata"].get("deletionTimestamp"):
                continue
            snapshot = self._snapshot(server, now, backlog=0)  # counting it at every bind would be quadratic
            cordoned = server_decide.cordoned(snapshot, self._catalogue, self._settings)
            out += [
                Idle(pod.name, pod.uid, pod.node, name, pod.pool)
                for pod in snapshot.pods
                if pod.serves and not pod.busy and pod.uid not in cordoned and pod.uid not in reserved
            ]
        return out


def _owned(obj: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or [])


def _turn(job: Object) -> tuple[int, str, str]:
    """The order in which a pod takes its bound jobs: what runs, then priority, then boundTime; ties by UID."""
    status = job.get("status") or {}
    runs = phase_of(status) != Phase.SCHEDULED
    urgency = -10_000 if runs else -int(job["spec"].get("priority") or 0)
    return urgency, status["assignment"].get("boundTime", ""), job["metadata"]["uid"]


def server_of(pod: Object) -> str:
    """The key of the ModelServer that a pod belongs to."""
    return f"{pod['metadata']['namespace']}/{pod['metadata'].get('labels', {}).get(LABEL_MODEL_SERVER, '')}"
