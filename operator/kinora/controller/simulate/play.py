"""The simulation itself: a heap of events on a clock of its own; after every moment the decision function decides."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kinora.controller.scheduling import fleet, scale
from kinora.controller.scheduling.cost import Learnt, Sample, remaining
from kinora.controller.scheduling.decide import Server, decide
from kinora.controller.scheduling.facts import Held, Job, Lane, Pod, Queue, Rate, World, level, place
from kinora.controller.scheduling.forecast import forecast
from kinora.controller.scheduling.ledger import Ledger
from kinora.controller.simulate.cluster import SimulatedCluster, SimulatedPool, SimulatedServer
from kinora.controller.simulate.trace import Arrival

EPOCH = 1_800_000_000.0
TICK = 30.0
FORECAST_EVERY = 120.0
PATIENCE = 7 * 86_400.0
"How long after the last arrival the simulation goes on while jobs are left."


@dataclass
class Outcome:
    """One job's story, in seconds of the trace. Times are None while they have not come."""

    arrival: Arrival
    start: float | None = None
    end: float | None = None
    attempts: int = 0
    forecast: float | None = None
    "When it was first told that it would start."
    forecast_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Moment:
    """The cluster at one moment of the trace."""

    time: float
    waiting: int
    busy: int
    pods: int


@dataclass
class Played:
    """Everything that happened. Costs are in the unit of the pools' prices."""

    cluster: str
    outcomes: list[Outcome]
    moments: list[Moment] = field(default_factory=list)
    pod_seconds: float = 0.0
    busy_seconds: float = 0.0
    cost: float = 0.0
    lost: int = 0
    preempted: int = 0
    taken_back: int = 0


@dataclass
class _Task:
    job: Job
    outcome: Outcome
    ends: float | None = None
    started: float = 0.0
    predicted: float = 0.0


@dataclass
class _Server:
    """A pod of the simulation."""

    uid: str
    slot: int
    server: SimulatedServer
    pool: SimulatedPool
    created: float
    placed: float | None = None
    ready: float | None = None
    idle_since: float = 0.0
    tasks: list[_Task] = field(default_factory=list)

    @property
    def spot(self) -> bool:
        return self.pool.mean_life_seconds is not None


class Simulation:
    """Plays one trace on one cluster."""

    def __init__(self, cluster: SimulatedCluster, arrivals: Sequence[Arrival]) -> None:
        self._cluster = cluster
        self._chance = random.Random(cluster.seed)  # noqa: S311 - a simulation, repeatable by its seed
        self._count = itertools.count()
        self._events: list[tuple[float, int, str, str]] = []
        self._outcomes = [Outcome(arrival) for arrival in arrivals]
        self._waiting: dict[str, Job] = {}
        self._pods: dict[str, _Server] = {}
        self._rests: dict[tuple[str, str], fleet.Rest] = {}
        self._ledger = Ledger()
        self._learnt: dict[tuple[str, str], Learnt] = {}
        self._queues = {
            one.name: Queue(one.name, one.weight, max_running=one.max_running, preempts=one.preempts,
                            video_seconds_per_day=one.video_seconds_per_day, preemptible=one.preemptible)
            for one in cluster.queues
        }  # fmt: skip
        self._servers = {server.name: server for server in cluster.servers}
        self._played = Played(cluster.name, self._outcomes)
        self._now = 0.0

    def play(self) -> Played:
        """From the first arrival until every job has ended, or PATIENCE is over."""
        for index, outcome in enumerate(self._outcomes):
            self._at(outcome.arrival.arrival, "arrive", str(index))
        last = self._outcomes[-1].arrival.arrival if self._outcomes else 0.0
        self._at(0.0, "tick", "")
        while self._events and self._now <= last + PATIENCE:
            self._now = self._events[0][0]
            while self._events and self._events[0][0] <= self._now:
                _, _, kind, what = heapq.heappop(self._events)
                self._happen(kind, what, last)
            self._decide()
        for pod in list(self._pods.values()):
            self._remove(pod)
        return self._played

    def _at(self, time: float, kind: str, what: str) -> None:
        heapq.heappush(self._events, (time, next(self._count), kind, what))

    # --- events ---------------------------------------------------------------------------------------------------

    def _happen(self, kind: str, what: str, last: float) -> None:
        if kind == "arrive":
            self._arrive(int(what))
        elif kind == "tick":
            self._tick(last)
        elif (pod := self._pods.get(what)) is None:
            return
        elif kind == "ready":
            pod.ready = pod.idle_since = self._now
        elif kind == "end" and pod.tasks and pod.tasks[0].ends is not None and pod.tasks[0].ends <= self._now:
            self._end(pod)
        elif kind == "reclaim":
            self._lose(pod)

    def _arrive(self, index: int) -> None:
        arrival = self._outcomes[index].arrival
        key = str(index)
        self._waiting[key] = Job(
            key, f"{index:08d}", arrival.queue, arrival.priority, EPOCH + self._now, arrival.work,
            arrival.video_seconds,
        )  # fmt: skip

    def _tick(self, last: float) -> None:
        busy = sum(1 for pod in self._pods.values() if pod.tasks)
        self._played.moments.append(Moment(self._now, len(self._waiting), busy, len(self._pods)))
        if self._now < last or self._waiting or busy:
            self._at(self._now + TICK, "tick", "")

    def _end(self, pod: _Server) -> None:
        task = pod.tasks.pop(0)
        seconds = self._now - task.started
        task.outcome.end = self._now
        self._played.busy_seconds += seconds
        key = (pod.server.name, pod.pool.name)
        self._learnt[key] = self._model(*key).with_sample(Sample(task.job.work, seconds))
        self._ledger.charge(task.job.queue, EPOCH + self._now, gpu_seconds=seconds - task.predicted)
        pod.idle_since = self._now
        if pod.tasks:
            self._start(pod, staged=True)

    def _lose(self, pod: _Server) -> None:
        """The provider takes the capacity away: what rendered there begins anew elsewhere."""
        for task in pod.tasks:
            running = task.ends is not None
            self._played.lost += running
            self._played.busy_seconds += self._now - task.started if running else 0.0
            self._waiting[task.job.key] = replace(task.job, losses=task.job.losses + running)
        self._remove(pod)

    def _remove(self, pod: _Server) -> None:
        if pod.placed is not None:
            alive = self._now - pod.placed
            self._played.pod_seconds += alive
            self._played.cost += alive / 3600 * pod.pool.price_per_hour
        del self._pods[pod.uid]

    # --- decisions ------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        self._find_capacity()
        world = self._world()
        decision = decide(world, tuple(self._server(server, world) for server in self._cluster.servers))
        for leave in decision.assignment.leaves:
            self._leave(leave.job, running=leave.running)
        for bind in decision.assignment.binds:
            if bind.ahead and not self._cluster.bind_ahead:
                continue
            self._bind(bind.job, self._pods[bind.pod.uid])
        for name, arranged in decision.fleets.items():
            self._arrange(self._servers[name], arranged)
        if self._now % FORECAST_EVERY < TICK:
            self._foretell(world)

    def _bind(self, key: str, pod: _Server) -> None:
        job = self._waiting.pop(key)
        predicted = self._model(pod.server.name, pod.pool.name).rate.seconds(job.work)
        pod.tasks.append(_Task(job, self._outcomes[int(key)], predicted=predicted))
        moment = EPOCH + self._now
        self._ledger.charge(job.queue, moment, gpu_seconds=predicted, video_seconds=job.video_seconds)
        if len(pod.tasks) == 1:
            self._start(pod, staged=False)

    def _start(self, pod: _Server, *, staged: bool) -> None:
        task = pod.tasks[0]
        task.started = self._now + (0.0 if staged else self._cluster.staging_seconds)
        rate = Rate(pod.server.overhead_seconds, pod.pool.seconds_per_million_token_steps / 1e6)
        seconds = rate.seconds(task.job.work) * self._chance.lognormvariate(0, self._cluster.noise)
        task.ends = task.started + seconds
        task.outcome.attempts += 1
        if task.outcome.start is None:
            task.outcome.start = task.started
        self._at(task.ends, "end", pod.uid)

    def _leave(self, key: str, *, running: bool) -> None:
        for pod in self._pods.values():
            task = next((task for task in pod.tasks if task.job.key == key), None)
            if task is not None:
                pod.tasks.remove(task)
                self._waiting[key] = task.job
                self._played.preempted += running
                self._played.taken_back += not running
                if running:
                    self._played.busy_seconds += max(0.0, self._now - task.started)
                    pod.idle_since = self._now
                    if pod.tasks:
                        self._start(pod, staged=True)
                self._ledger.charge(task.job.queue, EPOCH + self._now, gpu_seconds=-task.predicted,
                                    video_seconds=-task.job.video_seconds)  # fmt: skip
                return

    def _arrange(self, server: SimulatedServer, arranged: fleet.Fleet) -> None:
        for member in arranged.going:
            if not self._pods[member.uid].tasks:
                self._remove(self._pods[member.uid])
        for rest in arranged.rests:
            self._rests[server.name, rest.pool] = rest
        for start in arranged.starts:
            pool = next(pool for pool in server.pools if pool.name == start.pool)
            uid = f"{server.name}-{next(self._count):08d}"
            self._pods[uid] = _Server(uid, start.slot, server, pool, self._now)
        self._find_capacity()

    def _find_capacity(self) -> None:
        """Pending pods get what their pool has left."""
        used: dict[str, int] = defaultdict(int)
        for pod in self._pods.values():
            used[pod.pool.name] += pod.placed is not None
        for pod in self._pods.values():
            if pod.placed is None and used[pod.pool.name] < pod.pool.capacity:
                used[pod.pool.name] += 1
                pod.placed = self._now
                self._at(self._now + pod.pool.start_seconds, "ready", pod.uid)
                if pod.pool.mean_life_seconds is not None:
                    life = self._chance.expovariate(1 / pod.pool.mean_life_seconds)
                    self._at(self._now + life, "reclaim", pod.uid)

    def _foretell(self, world: World) -> None:
        for key, told in forecast(world).items():
            outcome = self._outcomes[int(key)]
            if outcome.forecast is None and told.start is not None and outcome.start is None:
                outcome.forecast, outcome.forecast_at = told.start - EPOCH, self._now

    # --- what the decision sees -----------------------------------------------------------------------------------

    def _model(self, server: str, pool: str) -> Learnt:
        """The prior is half as fast as the truth: what a catalogue can know of a card it has not met."""
        known = self._servers[server]
        per_million = next(one.seconds_per_million_token_steps for one in known.pools if one.name == pool)
        prior = Rate(known.overhead_seconds, 2 * per_million / 1e6)
        return self._learnt.setdefault((server, pool), Learnt(prior))

    def _world(self) -> World:
        groups: dict[tuple[str, frozenset[str]], list[Job]] = defaultdict(list)
        for job in self._waiting.values():
            server = self._outcomes[int(job.key)].arrival.server
            groups[job.queue, frozenset({server})].append(job)
        aging = self._cluster.aging_seconds
        lanes = tuple(
            Lane(queue, servers, tuple(sorted(jobs, key=lambda job: place(job, aging))))
            for (queue, servers), jobs in groups.items()
        )
        running: dict[str, int] = defaultdict(int)
        for pod in self._pods.values():
            for task in pod.tasks:
                running[task.job.queue] += 1
        names = {lane.queue for lane in lanes} | running.keys()
        now = EPOCH + self._now
        return World(
            now=now,
            lanes=lanes,
            pods=tuple(self._pod(pod) for pod in self._pods.values()),
            queues=self._queues,
            usage={name: self._ledger.usage(name, now, running[name]) for name in names},
            rates={
                (server.name, pool.name): self._model(server.name, pool.name).rate
                for server in self._cluster.servers
                for pool in server.pools
            },
            staging={server.name: self._cluster.staging_seconds for server in self._cluster.servers},
            spot_life={
                (server.name, pool.name): pool.mean_life_seconds * math.log(2)  # the median, as the operator learns it
                for server in self._cluster.servers
                for pool in server.pools
                if pool.mean_life_seconds is not None
            },
            aging_seconds=aging,
        )

    def _pod(self, pod: _Server) -> Pod:
        held = tuple(self._held(task) for task in pod.tasks)
        ready_in = 0.0 if pod.ready is not None else max(0.0, self._ready_at(pod) - self._now)
        return Pod(pod.uid, pod.uid, "", pod.server.name, pod.pool.name, pod.ready is not None, spot=pod.spot,
                   price=pod.pool.price_per_hour, held=held, ready_in=ready_in)  # fmt: skip

    def _ready_at(self, pod: _Server) -> float:
        return (self._now if pod.placed is None else pod.placed) + pod.pool.start_seconds

    def _held(self, task: _Task) -> Held:
        job, running = task.job, task.ends is not None
        elapsed = max(0.0, self._now - task.started) if running else 0.0
        left = remaining(task.predicted, elapsed, None) if running else task.predicted
        step = level(job.priority, job.created, self._cluster.aging_seconds)
        return Held(job.key, job.uid, job.queue, step, running, left, elapsed)

    def _server(self, server: SimulatedServer, world: World) -> Server:
        members = tuple(self._member(pod) for pod in self._pods.values() if pod.server is server)
        places = tuple(self._place(server, pool, world.now) for pool in server.pools)
        wish = fleet.Wish(server.replicas, places, fallback_after=server.fallback_after_seconds)
        policy = None
        if server.autoscaling is not None:
            asked = server.autoscaling
            policy = scale.Policy(
                asked.min_replicas, asked.max_replicas, asked.target_queue_seconds, asked.idle_seconds
            )
        return Server(server.name, wish, members, policy, cold_start=server.pools[0].start_seconds)

    def _place(self, server: SimulatedServer, pool: SimulatedPool, now: float) -> fleet.Place:
        rest = self._rests.get((server.name, pool.name))
        resting = rest is not None and rest.until > now
        return fleet.Place(pool.name, pool.max_replicas, pool.price_per_hour, pool.mean_life_seconds is not None,
                           rest.until if rest and resting else 0.0, rest.rests if rest else 0)  # fmt: skip

    def _member(self, pod: _Server) -> fleet.Member:
        idle = self._now - pod.idle_since if pod.ready is not None and not pod.tasks else 0.0
        pending = self._now - pod.created if pod.placed is None else None
        return fleet.Member(pod.uid, pod.uid, pod.slot, pod.pool.name, current=True, serves=pod.ready is not None,
                            busy=bool(pod.tasks), pending_for=pending, idle_for=idle)  # fmt: skip
