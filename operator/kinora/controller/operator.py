"""The operator's loop: events fill the store, changes put keys on the queue, workers decide and execute.

Level-triggered: a key says only where to look; the snapshot is gathered anew each time, so that a missed or doubled
event changes nothing. Keys: ("job", ns/name), ("server", ns/name), ("bind", namespace), ("finished", ns/name),
("expire", ns/name), ("stager", namespace), ("models", "").
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from kinora.api.names import MODELSERVERS, VIDEOJOBS, key, server_of
from kinora.api.transitions import is_assigned, is_finished
from kinora.api.videojob import Preset
from kinora.catalogue.load import Catalogue
from kinora.controller.afterwards import Afterwards
from kinora.controller.binder import Binder
from kinora.controller.executor import Executor, StaleError
from kinora.controller.forecaster import Forecaster
from kinora.controller.gather import Gatherer, has_news_of_presets
from kinora.controller.learning import work_of
from kinora.controller.metrics import Metrics
from kinora.controller.models import Models
from kinora.controller.modelserver.pace import Pace
from kinora.controller.plan import Note, Plan
from kinora.controller.planner import Planner
from kinora.controller.scheduling.bind import Bind
from kinora.controller.settings import Settings
from kinora.controller.stager import decide as stager_decide
from kinora.controller.starts import Starts
from kinora.controller.store import Cache, Store
from kinora.controller.usage import UsageKeeper
from kinora.controller.videojob import decide as job_decide
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.queue import WorkQueue
from kinora.kube.resources import CONFIGMAP, MODELSERVER, POD, VIDEOJOB, Resource

log = logging.getLogger(__name__)
Object = dict[str, Any]
Key = tuple[str, str]

_WRITTEN = {"job": VIDEOJOBS, "server": MODELSERVERS}  # kinds whose own writes come back by the watch
SERVER_DELAY_LIMIT = 2.0
SERVER_DELAY = 0.2  # seconds: many pods and jobs change together; a ModelServer is looked at once for all of them
WORKFLOW_SECONDS = 5.0  # between two looks for a ConfigMap that is not there
HEAD_START = 0.5  # seconds that a new leader's binds have before everything else


def is_urgent(item: Key) -> bool:
    """What goes before a long queue of new jobs, which are looked at one by one and mostly written.

    An idle pod must not wait for that; nor may jobs that have ended, each of which is kept whole until it is looked at.
    """
    return item[0] in {"bind", "finished"}


class Operator:
    """One operator process's brain. ``deliver`` takes events in; ``work`` runs until cancelled."""

    def __init__(self, client: KubeClient, catalogue: Catalogue, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        self.store = Store(loop.time, self._changed)
        self.models = Models(catalogue, settings.model_aliases)
        self.metrics = Metrics(self.store, frozenset(self.models.catalogue.names))
        self._client = client
        self._settings = settings
        self._gatherer = Gatherer(self.store, self.models.catalogue, settings)
        self._model_maps: dict[str, Object] = {}  # ConfigMaps with models, by key
        self._model_notes: list[tuple[Object, Note]] = []
        self._models_read = asyncio.Event()
        if not settings.namespace:
            self._models_read.set()
        self._executor = Executor(client, settings)
        self._executor.wrote = lambda plural, obj: self.metrics.api.wrote(plural, obj, loop.time())
        self._executor.made = self._made
        self._queue: WorkQueue[Key] = WorkQueue(urgent=is_urgent)
        self._binder = Binder(
            self.store,
            self._gatherer,
            self._executor,
            self.metrics,
            take=self._take_job,
            refresh=lambda name: self._refresh(("job", name)),
            again=lambda namespace, delay: self._queue.add(("bind", namespace), delay),
            bound_to=self._note_bind,
        )
        self.usage = UsageKeeper(client, self._gatherer.ledger, settings.ledger, self._gatherer.spots)
        self.afterwards = Afterwards(
            self.store, self._gatherer, self._executor, self.metrics, self.usage, self._queue, client, settings,
            take=self._take_job,
        )  # fmt: skip
        self.forecaster = Forecaster(
            self.store, self._gatherer, self._executor, self.metrics, self._take_job, self._binder
        )
        self._planner = Planner(self.store, self._gatherer, self._binder, self.models, settings)
        self._starts = Starts(self.store, self._gatherer.learning, self.metrics)
        self.metrics.inventory.queued_keys = lambda: len(self._queue)
        self.metrics.inventory.spot_life = lambda name, pool: self._gatherer.spots.life(name, pool, time.time())
        # Servers whose children beside pods were made by this process: UID and generation at that time.
        self._children: dict[str, tuple[str, int]] = {}
        self._pace = Pace()
        self._server_delay = SERVER_DELAY  # seconds until a ModelServer is looked at for its jobs
        self._staged: dict[str, frozenset[str]] = {}  # namespace -> ModelServers whose stagers' children were made
        self._fast: dict[str, str] = {}  # what pods (by UID) said last of preset Fast
        self.caches: dict[str, Cache] = {
            "job": self.store.jobs,
            "server": self.store.servers,
            "pod": self.store.pods,
            "claim": self.store.claims,
            "node": self.store.nodes,
            "stager": self.store.stagers,
            "weights job": self.store.weights_jobs,
            "weights pod": self.store.weights_pods,
        }

    # --- events in ------------------------------------------------------------------------------------------------

    def deliver(self, kind: str, event_type: str, obj: Object) -> None:
        """One watch event of a kind of ``caches``."""
        cache = self.caches[kind]
        if kind in _WRITTEN:
            self.metrics.api.shown(_WRITTEN[kind], obj, self.store.now())
        if event_type == "DELETED":
            cache.remove(obj)
            if kind == "job":
                self.afterwards.left(obj)
        elif kind == "job":
            self._take_job(obj)
        else:
            cache.apply(obj)

    def deliver_end(self, job: Object) -> None:
        """A job as it ended, by a watch of those."""
        self.store.jobs.remove(job)
        self.afterwards.ended(job)

    def replace_model_maps(self, maps: list[Object]) -> None:
        """A full list of the ConfigMaps with models."""
        self._model_maps = {key(one): one for one in maps}
        self._read_models()

    def deliver_model_map(self, event_type: str, one: Object) -> None:
        """One watch event of such a ConfigMap."""
        if event_type == "DELETED":
            self._model_maps.pop(key(one), None)
        else:
            self._model_maps[key(one)] = one
        self._read_models()

    def _read_models(self) -> None:
        """Read every entry anew; whatever rests on the catalogue is decided again where it changed."""
        change = self.models.take(self._model_maps.values())
        self._models_read.set()
        self._model_notes += change.notes
        if change.notes:
            self._queue.add(("models", ""))
        if change.models:
            self._gatherer.use(self.models.catalogue)
            for name in self.store.jobs.entries:
                self._binder.index(name)
            self.metrics.know(frozenset(self.models.catalogue.names))
            self.look_at_everything()
        self.metrics.count_entries(good=self.models.good, bad=len(self.models.bad))

    async def _note_models(self) -> None:
        notes, self._model_notes = self._model_notes, []
        for one, note in notes:
            await self._executor.note({**one, "apiVersion": "v1", "kind": CONFIGMAP.kind}, note)

    def _made(self, resource: Resource, obj: Object) -> None:
        """The answer to a create. A pod counts at once: else the next look could find two of the three that it made."""
        if resource == POD:
            self.store.pods.apply(obj)

    def _take_job(self, job: Object) -> None:
        if is_finished(job.get("status") or {}):
            self.store.jobs.remove(job)
            self.afterwards.ended(job)
        else:
            self.store.jobs.apply(job)

    def _changed(self, kind: str, name: str) -> None:
        """The store changed: put on the queue whatever may decide differently now."""
        namespace = name.partition("/")[0]
        if kind == "job":
            self._binder.index(name)
            self._queue.add(("job", name))
            self._queue.add(("bind", namespace))
            self._servers_of(namespace)
        elif kind == "server":
            self._queue.add(("server", name))
            self._queue.add(("bind", namespace))
        elif kind in {"offer", "stager"}:
            self._jobs_of(namespace)
            self._queue.add(("stager", namespace), SERVER_DELAY)
        elif kind == "pod":
            self._pod_changed(name, namespace)
        elif kind == "claim":
            self._servers_of(namespace)
        elif kind == "node":
            self._node_changed(name)
        elif kind == "child":
            self._queue.add(("server", name), SERVER_DELAY)

    def _pod_changed(self, name: str, namespace: str) -> None:
        pod = self.store.pods.get(name)
        if pod is None:
            self._fast = {uid: said for uid, said in self._fast.items() if uid in self.store.pods_by_uid}
            self._starts.forget(self.store.pods_by_uid.keys())
            self._servers_of(namespace)
            self._jobs_of(namespace, assigned=True)
            return
        self._starts.see(pod)
        server = self.store.servers.get(server_of(pod))
        if server is not None and self._queue.is_open:  # a standby's memory would only grow
            self._gatherer.note_spot(server, pod, dt.datetime.now(dt.UTC))
        self._queue.add(("server", server_of(pod)), SERVER_DELAY)
        self._queue.add(("bind", namespace))
        for job in self.store.jobs_by_pod.get(pod["metadata"]["uid"], ()):
            self._queue.add(("job", job))
        if has_news_of_presets(pod, self._fast):
            for waiting in self.store.waiting.get(namespace, ()):
                spec = self.store.jobs.entries[waiting].obj["spec"]
                if (spec.get("parameters") or {}).get("preset") == Preset.FAST:
                    self._queue.add(("job", waiting))

    def _node_changed(self, name: str) -> None:
        """A node's readiness changed: its pods get no new job, or get them again; its jobs' time runs, or stops."""
        for uid, pod in self.store.pods_by_uid.items():
            if pod["spec"].get("nodeName") == name:
                self._queue.add(("server", server_of(pod)), SERVER_DELAY)
                self._queue.add(("bind", pod["metadata"]["namespace"]))
                for job in self.store.jobs_by_pod.get(uid, ()):
                    self._queue.add(("job", job))

    def _servers_of(self, namespace: str) -> None:
        for name in self.store.servers.entries:
            if name.startswith(f"{namespace}/"):
                self._queue.add(("server", name), self._server_delay)

    def _jobs_of(self, namespace: str, *, assigned: bool = False) -> None:
        """The jobs of a namespace that wait; with ``assigned`` those whose pod is not in the store any more."""
        if not assigned:
            for name in self.store.waiting.get(namespace, ()):
                self._queue.add(("job", name))
            return
        for uid, jobs in self.store.jobs_by_pod.items():
            if uid not in self.store.pods_by_uid:
                for name in jobs:
                    self._queue.add(("job", name))

    def look_at_everything(self) -> None:
        """After a full list: every object once, and the children that somebody may have deleted.

        Binds first: behind the writes of a long queue an idle pod would wait, and what is bound need not be queued.
        """
        self._children.clear()
        for name in self._gatherer.waiting.namespaces():
            self._queue.add(("bind", name))
        for name in self.store.jobs.entries:
            self._queue.add(("job", name))
        for name in self.store.servers.entries:
            self._queue.add(("server", name))
        self._staged.clear()
        for name in {*self.store.servers.entries, *self.store.stagers.entries}:
            self._queue.add(("stager", name.partition("/")[0]))

    # --- leading --------------------------------------------------------------------------------------------------

    def stand_by(self) -> None:
        """Keep the store warm and decide nothing; what is being carried out goes on."""
        self._queue.close()
        self.afterwards.stand_by()

    def take_over(self) -> None:
        """Decide from now on: bind what idle pods can take, then look at every object that is known.

        A job that waited while nobody led would else be written Queued just as it is bound: one write and a 409 more.
        """
        self._queue.open()
        for name in self._gatherer.waiting.namespaces():
            self._queue.add(("bind", name))
        if self._model_notes:
            del self._model_notes[:-64]  # a long standby's; the newest tell how the entries are now
            self._queue.add(("models", ""))
        asyncio.get_running_loop().call_later(HEAD_START, self.look_at_everything)

    async def landed(self) -> None:
        """Wait until no decision is being carried out."""
        await self._queue.landed()

    # --- workers --------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Decide and execute until cancelled; starts nothing before the store is synced."""
        await self.store.ready.wait()
        await self._models_read.wait()
        await self._load_usage()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.usage.run(time.time))
                group.create_task(self.forecaster.run())
                for _ in range(self._settings.workers):
                    group.create_task(self._worker())
        finally:
            with suppress(ApiError, UnreachableError, TimeoutError):
                async with asyncio.timeout(2.0):
                    await self.usage.save(time.time())

    async def _load_usage(self) -> None:
        """The ledger comes before the first bind: without it every queue would look unused."""
        while True:
            try:
                return await self.usage.load()
            except (ApiError, UnreachableError) as error:
                log.warning("reading the usage ledger: %s; trying again", error)
                await asyncio.sleep(1.0)

    async def _worker(self) -> None:
        while True:
            item = await self._queue.get()
            failed, began = False, self.store.now()
            try:
                await self._handle(*item)
                self.metrics.reconciles.labels(item[0], "Done").inc()
            except StaleError:
                self.metrics.reconciles.labels(item[0], "Stale").inc()
                await self._refresh(item)
            except (ApiError, UnreachableError) as error:
                failed = True
                self.metrics.reconciles.labels(item[0], "Failed").inc()
                log.warning("%s %s: %s; trying again", *item, error)
            except Exception:  # one object's surprise must not stop the work on all others
                failed = True
                self.metrics.reconciles.labels(item[0], "Crashed").inc()
                log.exception("%s %s: unexpected", *item)
            finally:
                self.metrics.reconcile_seconds.labels(item[0]).observe(self.store.now() - began)
                self._queue.done(item, failed=failed)
            # A decision that has nothing to write waits for nothing: without this a long queue would be gone through
            # in one go, for seconds in which no renewal of the Lease is sent and no event is taken in.
            await asyncio.sleep(0)

    async def _handle(self, kind: str, name: str) -> None:
        if kind == "job":
            await self._reconcile_job(name)
        elif kind == "models":
            await self._note_models()
        elif kind == "server":
            await self._reconcile_server(name)
        elif kind == "bind":
            await self._binder.run(name)
        elif kind == "stager":
            await self._reconcile_stagers(name)
        elif kind == "finished" and self._binder.is_moving(name):
            self._queue.add((kind, name), SERVER_DELAY)  # what its bind cost is charged with the answer, then corrected
        elif kind == "finished":
            await self.afterwards.look(name)
        else:
            await self.afterwards.look_at_expired(name)

    async def _refresh(self, item: Key) -> None:
        """A stale write: read the object as it is now and look again."""
        kind, name = item
        resource = MODELSERVER if kind == "server" else VIDEOJOB
        namespace, _, short = name.partition("/")
        try:
            obj = await self._client.find(resource, namespace, short)
        except (ApiError, UnreachableError) as error:
            log.warning("reading %s again: %s", name, error)
        else:
            if obj is not None and kind == "server":
                self.store.servers.apply(obj)
            elif obj is not None:
                self._take_job(obj)
        self._queue.add(item, 0.01)

    async def _reconcile_job(self, name: str) -> None:
        entry = self.store.jobs.entries.get(name)
        if entry is None:
            return
        await self._read_workflow(entry.obj)
        if self._binder.is_moving(name):  # a second write would only lose against that one
            self._queue.add(("job", name), SERVER_DELAY)
            return
        job = entry.obj
        plan = job_decide.decide(self._gatherer.job(entry, dt.datetime.now(dt.UTC)))
        with self._binder.writing(name):  # a bind that waits for it finds the job as it was written
            written = await self._executor.run(VIDEOJOB, job, plan)
            if written is not None:
                if is_finished(written["status"]):
                    self.afterwards.observe(written)
                elif is_assigned(job.get("status") or {}):
                    self.metrics.observe_requeued(job, written, self.afterwards.model_of(job))
                self._take_job(written)
        if plan.requeue_after is not None:
            self._queue.add(("job", name), plan.requeue_after)

    async def _read_workflow(self, job: Object) -> None:
        """The ConfigMap of a raw workflow, once; while it is not there, again after a while."""
        if not self._gatherer.wants_workflow(job):
            return
        namespace = job["metadata"]["namespace"]
        found = await self._client.find(CONFIGMAP, namespace, job["spec"]["workflow"]["configMapRef"]["name"])
        if self._gatherer.take_workflow(job, found):
            self._queue.add(("bind", namespace))
        else:
            self._queue.add(("job", key(job)), WORKFLOW_SECONDS)

    async def _reconcile_server(self, name: str) -> None:
        server = self.store.servers.get(name)
        if server is None:
            self._children.pop(name, None)
            self._pace.forget(name)
            self._binder.cordoned.pop(name, None)
            self._executor.refusals.pop(name, None)
            self._planner.forget(name)
            return
        mark = (server["metadata"]["uid"], server["metadata"].get("generation", 1))
        made = self._children.get(name) == mark
        if not made:
            self._executor.refusals.pop(name, None)  # of another spec, or of long ago
        refusals = dict(self._executor.refusals.get(name, {}))
        began, cordoned = time.thread_time(), self._binder.cordoned.get(name)
        plan = self._planner.plan(server, refusals, made=made)
        if self._binder.cordoned.get(name) != cordoned:
            self._queue.add(("bind", server["metadata"]["namespace"]))  # what is staged there goes elsewhere
        # However many jobs come and go, looking at their ModelServer takes a twentieth of the processor.
        self._server_delay = min(max(SERVER_DELAY, 20 * (time.thread_time() - began)), SERVER_DELAY_LIMIT)
        plan = self._paced(name, server, plan)
        written = await self._executor.run(MODELSERVER, server, plan)
        if any(create.resource != POD for create in plan.create):  # a refused spec has made none
            self._children[name] = mark
        if written is not None:
            self.metrics.observe_server(server, written)
            self._pace.wrote(name, self.store.now())
            self.store.servers.apply(written)
        if plan.requeue_after is not None:
            self._queue.add(("server", name), plan.requeue_after)
        if self._executor.refusals.get(name, {}) != refusals:
            self._queue.add(("server", name), SERVER_DELAY)  # to say so

    def _paced(self, name: str, server: Object, plan: Plan) -> Plan:
        """The plan without a status that tells only other counts, as long as the last one is new."""
        if plan.status is None or plan.notes:
            return plan
        wait = self._pace.wait(name, server.get("status") or {}, plan.status, self.store.now())
        if not wait:
            return plan
        again = wait if plan.requeue_after is None else min(wait, plan.requeue_after)
        return replace(plan, status=None, requeue_after=again)

    async def _reconcile_stagers(self, namespace: str) -> None:
        """One stager an artifact claim of the namespace's ModelServers."""
        if not self.store.stagers.synced:
            return  # its first list brings the key back
        prefix = f"{namespace}/"
        servers = [entry.obj for name, entry in self.store.servers.entries.items() if name.startswith(prefix)]
        running = [entry.obj for name, entry in self.store.stagers.entries.items() if name.startswith(prefix)]
        owners = frozenset(server["metadata"]["uid"] for server in servers)
        made = self._staged.get(namespace) == owners
        catalogue = self.models.catalogue
        entries = {name: text for name in catalogue.names if (text := catalogue.entry(name))}
        plan = stager_decide.decide(namespace, servers, running, self._settings, entries=entries, children_made=made)
        await self._executor.children(plan)
        self._staged[namespace] = owners

    def _note_bind(self, job: Object, bind: Bind) -> None:
        """Charge the job's queue, and hold what it was told against what came."""
        now = time.time()
        server = self.store.servers.get(f"{job['metadata']['namespace']}/{bind.pod.server}")
        if server is not None:
            seconds = self._gatherer.learning.speed(server, bind.pod.pool).rate.seconds(work_of(job))
            self.usage.bound(job, seconds, now)
        self.forecaster.started(job, now)
