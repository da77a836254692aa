"""Frozen snapshots out of the store, one for each decision. Reads the store and the clock; decides nothing."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection
from dataclasses import replace
from sys import intern
from typing import Any

from kinora.api.intake import (
    artifact_store,
    awaits_stager,
    choose_store,
    is_judged_by_stager,
    is_resolved_by_stager,
    needs_stager,
    store_of,
    stores_for,
)
from kinora.api.names import ANNOTATION_ORDER, LABEL_DIALECT, LABEL_TENANT, stager_name
from kinora.api.reasons import Phase
from kinora.api.transitions import is_assigned, is_finished, parse_time, phase_of
from kinora.api.videojob import Preset
from kinora.catalogue.load import Catalogue
from kinora.controller.learning import Learning, video_seconds_of, work_of
from kinora.controller.modelserver.notice import notice
from kinora.controller.modelserver.snapshot import ServerPod, ServerSnapshot, WeightsRun, server_pod, weights_run
from kinora.controller.scheduling.cost import remaining
from kinora.controller.scheduling.facts import DEFAULT_QUEUE, Held, Job, Lane, Pod, Rate, World, level
from kinora.controller.scheduling.ledger import Ledger
from kinora.controller.settings import Settings
from kinora.controller.spot import SpotWatch, is_spot, pool_names, pool_of, spot_pools
from kinora.controller.stager.decide import is_available
from kinora.controller.store import Entry, Store
from kinora.controller.videojob.check import Accepted, Around, Refused, Undecided, Verdict, check, told_classes
from kinora.controller.videojob.snapshot import IntakeState, JobSnapshot, PodState
from kinora.controller.waiting import WaitingJobs, Way

Object = dict[str, Any]
BOUND_LIMIT = 2  # jobs a pod may hold: one runs, one is staged


class Gatherer:
    """Builds snapshots; remembers each job's verdict, which depends on its generation and the servers' models only."""

    def __init__(self, store: Store, catalogue: Catalogue, settings: Settings) -> None:
        self._store = store
        self._catalogue = catalogue
        self._settings = settings
        self._texts: dict[str, tuple[str | None, str]] = {}  # job UID -> its workflow's text, or why there is none
        self._verdicts: dict[str, tuple[tuple[int, str, bool], Verdict]] = {}  # job UID -> what it rests on, verdict
        # UID -> what it was read from, and the facts: of a pod that holds nothing, and of one that is busy
        self._pods: dict[str, tuple[Object, Object | None, ServerPod, ServerPod]] = {}
        self.waiting = WaitingJobs(settings.aging_seconds)
        self.learning = Learning(catalogue)
        self.ledger = Ledger()
        self.spots = SpotWatch()

    def use(self, catalogue: Catalogue) -> None:
        """Go by another catalogue from now on."""
        self._catalogue = catalogue
        self.learning.use(catalogue)
        self._verdicts.clear()

    def forget(self, job: Object) -> None:
        """Drop the remembered verdict of a job that is gone."""
        self._verdicts.pop(job["metadata"]["uid"], None)
        self._texts.pop(job["metadata"]["uid"], None)

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
        judged = is_judged_by_stager(job) and is_resolved_by_stager(job)
        mark = (metadata.get("generation", 1), named["spec"].get("model", "") if named else "", judged)
        remembered = self._verdicts.get(metadata["uid"])
        if remembered is not None and remembered[0] == mark:
            return remembered[1]
        text, missing = self._texts.get(metadata["uid"], (None, ""))
        namespace = metadata["namespace"]
        around = Around(
            self.servers(namespace),
            self._allowed(namespace),
            text,
            missing,
            self._settings.queues,
            has_stagers=self._settings.stager.enabled or not awaits_stager(job),
            has_webhooks=self._settings.webhooks,
        )
        verdict = check(job, self._catalogue, around)
        if not isinstance(verdict, Undecided):
            self._verdicts[metadata["uid"]] = (mark, verdict)
            self._texts.pop(metadata["uid"], None)
            if job["spec"].get("workflow"):  # only now is it known which servers allow its classes
                self.index(f"{metadata['namespace']}/{metadata['name']}")
        return verdict

    def wants_workflow(self, job: Object) -> bool:
        """Whether the ConfigMap of the job's workflow must be read before it can be judged."""
        ref = (job["spec"].get("workflow") or {}).get("configMapRef")
        status = job.get("status") or {}
        if not ref or is_assigned(status) or is_finished(status) or self._texts.get(job["metadata"]["uid"], (None,))[0]:
            return False
        return isinstance(self.verdict(job), Undecided)

    def take_workflow(self, job: Object, config_map: Object | None) -> bool:
        """What was found where the job's workflow should be; whether there is a text."""
        ref = job["spec"]["workflow"]["configMapRef"]
        text = ((config_map or {}).get("data") or {}).get(ref["key"])
        missing = f"no ConfigMap {ref['name']!r} in the namespace yet; spec.workflow.configMapRef names it"
        if config_map is not None:
            missing = f"ConfigMap {ref['name']!r} has no text under the key {ref['key']!r} yet"
        self._texts[job["metadata"]["uid"]] = (text, missing)
        return text is not None

    def _allowed(self, namespace: str) -> dict[str, list[str]]:
        """ModelServer name -> allowedNodeClasses, of those of a namespace that have any."""
        prefix = f"{namespace}/"
        return {
            entry.obj["metadata"]["name"]: entry.obj["spec"]["allowedNodeClasses"]
            for name, entry in self._store.servers.entries.items()
            if name.startswith(prefix) and entry.obj["spec"].get("allowedNodeClasses")
        }

    def serving(self, job: Object, verdict: Verdict, servers: dict[str, str]) -> frozenset[str]:
        """Names of the ModelServers that can render the job."""
        if not isinstance(verdict, Accepted):
            return frozenset()
        named = job["spec"].get("modelServerName")
        able = (
            {named} & servers.keys() if named else {name for name, model in servers.items() if model == verdict.model}
        )
        if verdict.classes:
            allowed = self._allowed(job["metadata"]["namespace"])
            able = {name for name in able if verdict.classes <= set(allowed.get(name, ()))}
        return frozenset(able)

    def _able(self, namespace: str, way: Way, servers: dict[str, str], allowed: dict[str, list[str]]) -> frozenset[str]:
        """Names of the ModelServers that serve this way; where a stager stored the inputs, those with that store."""
        able = {way.server} & servers.keys() if way.server else {one for one in servers if servers[one] == way.model}
        if way.store:
            able = {one for one in able if self._store_root(namespace, one) == way.store}
        return frozenset(one for one in able if not way.classes or way.classes <= set(allowed.get(one, ())))

    def _store_root(self, namespace: str, server: str) -> str | None:
        found = self._store.servers.get(f"{namespace}/{server}")
        offered = artifact_store(found) if found is not None else None
        return offered.root if offered is not None else None

    def _intake(self, job: Object, verdict: Verdict, serving: frozenset[str]) -> IntakeState:
        if not needs_stager(job):
            return IntakeState()
        namespace = job["metadata"]["namespace"]
        if not awaits_stager(job):
            roots = {self._store_root(namespace, name) for name in serving}
            return IntakeState(store_served=store_of(job) in roots)
        found = [self._store.servers.get(f"{namespace}/{name}") for name in serving]
        model = verdict.model if isinstance(verdict, Accepted) else ""
        named = job["spec"].get("modelServerName")
        chosen = choose_store(job["metadata"]["uid"], stores_for(model, named, filter(None, found)))
        if chosen is None:
            return IntakeState()
        name = stager_name(chosen.name)
        ready = is_available(self._store.stagers.get(f"{namespace}/{name}"))
        return IntakeState(name, chosen.root, stager_ready=ready)

    def job(self, entry: Entry, now: dt.datetime) -> JobSnapshot:
        """The snapshot of one VideoJob."""
        job = entry.obj
        status = job.get("status") or {}
        verdict = self.verdict(job)
        servers = self.servers(job["metadata"]["namespace"])
        able = self.serving(job, verdict, servers)
        return JobSnapshot(
            job=job,
            verdict=verdict,
            pod=self._pod_state(status),
            has_server=bool(able),
            preset_lacks=self._preset_lacks(job, verdict, able),
            only_spot=self._only_spot(job, able, now.timestamp()),
            surplus=self._is_surplus(job),
            seen_seconds=self._store.now() - entry.since.get("staged", entry.seen),
            running_seconds=self._store.age(entry, f"running-{status.get('attempt')}"),
            cancel_seconds=self._store.age(entry, "cancel"),
            suspended_seconds=entry.suspended_seconds + self._store.age(entry, "suspend"),
            now=now,
            intake=self._intake(job, verdict, able),
        )

    def _preset_lacks(self, job: Object, verdict: Verdict, servers: frozenset[str]) -> str:
        """What the serving pods lack of the job's preset; empty where one of them, or none at all, is there."""
        preset = verdict.preset if isinstance(verdict, Accepted) else ""
        if not preset or is_assigned(job.get("status") or {}):
            return ""
        namespace = job["metadata"]["namespace"]
        pods = [
            self._server_pod(pod)
            for name in sorted(servers)
            for pod in self._store.pods_by_server.get(f"{namespace}/{name}", {}).values()
        ]
        serving = [pod for pod in pods if pod.serves]
        if not serving or any(preset in pod.presets for pod in serving):
            return ""
        return next((pod.preset_message for pod in serving if pod.preset_message), "not checked yet")

    def _only_spot(self, job: Object, able: Collection[str], now: float) -> str:
        status, namespace = job.get("status") or {}, job["metadata"]["namespace"]
        found = {} if is_assigned(status) else {f"{namespace}/{name}": name for name in able}
        servers = {key: server for key in found if (server := self._store.servers.get(key)) is not None}
        work = work_of(job)
        return self.spots.only_spot(
            servers,
            lost=int(status.get("disruptions") or 0),
            seconds=lambda server, pool: self.learning.speed(server, pool).rate.seconds(work),
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

    def server(self, server: Object, now: dt.datetime, reserved: Collection[str] = ()) -> ServerSnapshot:
        """The snapshot of one ModelServer. ``reserved``: UIDs of pods with a bind on its way: as good as busy."""
        namespace, name = server["metadata"]["namespace"], server["metadata"]["name"]
        uid = server["metadata"]["uid"]
        pods = [
            self._server_pod(pod)
            for pod in self._store.pods_by_server.get(f"{namespace}/{name}", {}).values()
            if _owned(pod, uid)
        ]
        prefix = f"{namespace}/"
        return ServerSnapshot(
            server=server,
            pods=tuple(replace(pod, busy=True) if pod.uid in reserved else pod for pod in pods),
            claims=frozenset(key[len(prefix) :] for key in self._store.claims.entries if key.startswith(prefix)),
            backlog=sum(len(lane.jobs) for lane in self._lanes(namespace) if name in lane.servers),
            now=now,
            runs=self._runs(f"{namespace}/{name}", uid),
            entry=self._catalogue.entry(server["spec"].get("model")),
        )

    def note_spot(self, server: Object, pod: Object, now: dt.datetime) -> None:
        """A state of one of the server's pods, as it comes: how long those of spot pools live is learnt from it."""
        spot = spot_pools(server)
        if spot:
            name = f"{server['metadata']['namespace']}/{server['metadata']['name']}"
            self.spots.note(name, spot, self._server_pod(pod), now)

    def _runs(self, server: str, uid: str) -> tuple[WeightsRun, ...]:
        """The weights Jobs of one ModelServer, each with its pods."""
        jobs = [job for job in self._store.weights_jobs.of(server) if _owned(job, uid)]
        pods = self._store.weights_pods.of(server) if jobs else []
        return tuple(weights_run(job, [pod for pod in pods if _owned(pod, job["metadata"]["uid"])]) for job in jobs)

    def _server_pod(self, pod: Object) -> ServerPod:
        """The facts of a pod; read anew only when the object or its node changed."""
        uid = pod["metadata"]["uid"]
        name = pod["spec"].get("nodeName", "")
        ready, node = name not in self._store.node_not_ready, self._store.nodes.get(name)
        known = self._pods.get(uid)
        if known is None or known[0] is not pod or known[1] is not node or known[2].node_ready != ready:
            if len(self._pods) > 2 * len(self._store.pods_by_uid) + 64:
                self._pods = {one: facts for one, facts in self._pods.items() if one in self._store.pods_by_uid}
            told = notice(pod, node, self._settings.providers)
            facts = server_pod(pod, busy=False, node_ready=ready, told=told)
            known = self._pods[uid] = (pod, node, facts, replace(facts, busy=True))
        return known[3] if self._store.jobs_by_pod.get(uid) else known[2]

    # --- the queue ------------------------------------------------------------------------------------------------

    def index(self, name: str, held: Collection[str] = ()) -> None:
        """Bring the queue up to date with one job; ``held``: keys of those that may not be bound for a while."""
        job = self._store.jobs.get(name)
        way = self._way(job) if job is not None and name not in held and _may_be_bound(job) else None
        if job is None or way is None:
            self.waiting.remove(name)
            return
        metadata, spec = job["metadata"], job["spec"]
        created = parse_time(metadata["creationTimestamp"]).timestamp()
        self.waiting.put(
            metadata["namespace"],
            way,
            Job(
                key=name,
                uid=metadata["uid"],
                queue=spec.get("queue") or DEFAULT_QUEUE,
                priority=int(spec.get("priority") or 0),
                created=created,
                work=work_of(job),
                video_seconds=video_seconds_of(job),
                losses=int((job.get("status") or {}).get("disruptions") or 0),
                preset=_preset(spec),
                **_own_turn(metadata, created),
            ),
        )

    def _way(self, job: Object) -> Way | None:
        """How the job is served; None for one that is refused, or whose model nobody knows."""
        remembered = self._verdicts.get(job["metadata"]["uid"])
        if remembered is not None and isinstance(remembered[1], Refused):
            return None
        classes = frozenset[str]()
        if is_judged_by_stager(job):
            classes = told_classes(job)
        elif job["spec"].get("workflow"):
            if remembered is None or not isinstance(remembered[1], Accepted):
                return None
            classes = remembered[1].classes
        store = (store_of(job) or "") if needs_stager(job) else ""
        preset = _preset(job["spec"])
        if job["spec"].get("modelServerName"):
            return Way(server=str(job["spec"]["modelServerName"]), preset=preset, classes=classes, store=store)
        model = self._catalogue.get(job["spec"].get("model"))
        return None if model is None else Way(model=model.local_name, preset=preset, classes=classes, store=store)

    def _lanes(self, namespace: str) -> tuple[Lane, ...]:
        servers = self.servers(namespace)
        allowed = self._allowed(namespace)
        return self.waiting.lanes(namespace, lambda way: self._able(namespace, way, servers, allowed))

    def world(self, namespace: str, reserved: Collection[str], cordoned: Collection[str], now: float) -> World:
        """What binding in a namespace rests on. ``reserved``: UIDs of pods with a bind on its way."""
        pods: list[Pod] = []
        rates, staging, spot_life = {}, {}, {}
        for name in self.servers(namespace):
            server = self._store.servers.get(f"{namespace}/{name}")
            if server is None or server["metadata"].get("deletionTimestamp"):
                continue
            key = f"{namespace}/{name}"
            staging[name] = self.learning.staging(key)
            for pool in pool_names(server):
                rates[name, pool] = self.learning.speed(server, pool).rate
                life = self.spots.life(key, pool, now) if is_spot(pool_of(server, pool)) else None
                if life is not None:
                    spot_life[name, pool] = life
            for raw in self._store.pods_by_server.get(key, {}).values():
                pod = self._pod(raw, server, reserved, cordoned, now)
                if pod is not None:
                    pods.append(pod)
                    if (name, pod.pool) not in rates:
                        rates[name, pod.pool] = self.learning.speed(server, pod.pool).rate
        lanes = self._lanes(namespace)
        running = self._running_by_queue()
        queues = {lane.queue for lane in lanes}
        return World(
            now=now,
            lanes=lanes,
            pods=tuple(pods),
            queues=self._settings.queues,
            usage={queue: self.ledger.usage(queue, now, running.get(queue, 0)) for queue in queues},
            rates=rates,
            staging=staging,
            spot_life=spot_life,
            aging_seconds=self._settings.aging_seconds,
        )

    def _pod(
        self, raw: Object, server: Object, reserved: Collection[str], cordoned: Collection[str], now: float
    ) -> Pod | None:
        facts = self._server_pod(raw)
        if not any(
            owner.get("uid") == server["metadata"]["uid"] for owner in raw["metadata"].get("ownerReferences") or []
        ):
            return None
        is_open = facts.uid not in reserved and facts.uid not in cordoned and not facts.notice
        held = self._held(facts.uid, server, facts.pool) if facts.busy else ()
        pool = pool_of(server, facts.pool)
        ready_in = self._ready_in(facts, raw, server, now)
        leaving = facts.notice or ("it is about to go" if facts.uid in cordoned else "")
        return Pod(facts.name, facts.uid, facts.node, server["metadata"]["name"], facts.pool, facts.serves, is_open,
                   spot=is_spot(pool), price=float(pool.get("pricePerHour") or 0.0), held=held, presets=facts.presets,
                   leaving=leaving, ending=facts.is_ending, ready_in=ready_in)  # fmt: skip

    def _ready_in(self, facts: ServerPod, raw: Object, server: Object, now: float) -> float:
        """Seconds until a pod that starts will serve, if it takes as long as usual: until then it does no work."""
        created = raw["metadata"].get("creationTimestamp")
        if facts.serves or not created:
            return 0.0
        return max(0.0, parse_time(created).timestamp() + self.learning.cold_start(server) - now)

    def _held(self, uid: str, server: Object, pool: str) -> tuple[Held, ...]:
        entries = [self._store.jobs.entries[name] for name in self._store.jobs_by_pod.get(uid, ())]
        entries.sort(key=lambda entry: _turn(entry.obj))
        rate = self.learning.speed(server, pool).rate
        return tuple(self._held_job(entry, rate) for entry in entries)

    def _held_job(self, entry: Entry, rate: Rate) -> Held:
        job, status = entry.obj, entry.obj.get("status") or {}
        metadata, spec = job["metadata"], job["spec"]
        running = phase_of(status) != Phase.SCHEDULED
        elapsed = self._store.age(entry, f"running-{status.get('attempt')}")
        percent = (status.get("progress") or {}).get("percent")
        created = parse_time(metadata["creationTimestamp"]).timestamp()
        released = (status.get("released") or {}).get("attempt") == status.get("attempt")
        return Held(
            key=f"{metadata['namespace']}/{metadata['name']}",
            uid=metadata["uid"],
            queue=spec.get("queue") or DEFAULT_QUEUE,
            level=level(int(spec.get("priority") or 0), created, self._settings.aging_seconds),
            running=running,
            remaining=remaining(rate.seconds(work_of(job)), elapsed, percent) if running else None,
            elapsed=elapsed,
            leaving=released or bool(spec.get("cancel")) or bool(status["assignment"].get("preemptTime")),
        )

    def _running_by_queue(self) -> dict[str, int]:
        """Jobs bound now, by queue, over all namespaces. Counted only where a queue has a limit."""
        if not any(queue.max_running is not None for queue in self._settings.queues.values()):
            return {}
        count: dict[str, int] = {}
        for names in self._store.jobs_by_pod.values():
            for name in names:
                queue = self._store.jobs.entries[name].obj["spec"].get("queue") or DEFAULT_QUEUE
                count[queue] = count.get(queue, 0) + 1
        return count


def _preset(spec: Object) -> str:
    """The preset whose files a pod must have besides."""
    asked = (spec.get("parameters") or {}).get("preset")
    return str(asked) if asked == Preset.FAST else ""


def _own_turn(metadata: Object, created: float) -> dict[str, Any]:
    """With which jobs of its tenant one may change places, and what goes first among them: their time, unless told."""
    labels = metadata.get("labels") or {}
    if not labels.get(LABEL_TENANT):
        return {}
    try:
        told = float((metadata.get("annotations") or {})[ANNOTATION_ORDER])
    except (KeyError, TypeError, ValueError):
        told = math.nan
    group = intern(f"{labels[LABEL_TENANT]}/{labels.get(LABEL_DIALECT, '')}")
    return {"group": group, "order": told if math.isfinite(told) else created * 1000}


def _may_be_bound(job: Object) -> bool:
    """Whether the job waits for a pod and nothing holds it back."""
    spec = job["spec"]
    if spec.get("suspend") or spec.get("cancel") or job["metadata"].get("deletionTimestamp"):
        return False
    if awaits_stager(job):  # nothing is queued, counted or scaled for before its inputs are known
        return False
    return not is_assigned(job.get("status") or {})


def _owned(obj: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or [])


def _turn(job: Object) -> tuple[int, str, str]:
    """The order in which a pod takes its bound jobs: what runs, then priority, then boundTime; ties by UID."""
    status = job.get("status") or {}
    runs = phase_of(status) != Phase.SCHEDULED
    urgency = -10_000 if runs else -int(job["spec"].get("priority") or 0)
    return urgency, status["assignment"].get("boundTime", ""), job["metadata"]["uid"]


def has_news_of_presets(pod: Object, known: dict[str, str]) -> bool:
    """Whether the pod says something else of preset Fast than is ``known`` of it (by UID), which is then updated."""
    uid, facts = pod["metadata"]["uid"], server_pod(pod, busy=False)
    said = f"{facts.serves} {sorted(facts.presets)} {facts.preset_message}"
    if known.get(uid) == said:
        return False
    known[uid] = said
    return True
