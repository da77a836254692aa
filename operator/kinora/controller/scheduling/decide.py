"""The one decision of scheduling: (jobs, pods, pools, estimates, now) -> binds, jobs that leave, pods that come and go.

Pure. It puts together scale (how many pods), fleet (which, and where) and bind (which job where), so that no pod that
is about to go gets a job, and no pod goes that just got one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kinora.controller.scheduling import fleet, scale
from kinora.controller.scheduling.bind import Assignment, assign, is_firm
from kinora.controller.scheduling.facts import Lane, World


@dataclass(frozen=True)
class Server:
    """One ModelServer: what it may have and what it has."""

    name: str
    wish: fleet.Wish
    members: tuple[fleet.Member, ...]
    policy: scale.Policy | None = None
    "None: wish.replicas rules (HPA, KEDA, kubectl scale)."
    cold_start: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What to do in one namespace. `scales` has the ModelServers that scale themselves only."""

    assignment: Assignment
    scales: Mapping[str, scale.Scale] = field(default_factory=dict)
    fleets: Mapping[str, fleet.Fleet] = field(default_factory=dict)


def decide(world: World, servers: tuple[Server, ...]) -> Decision:
    """Binds first, on the pods that stay; then scale and fleet for what is left waiting."""
    before = {server.name: _fleet(world, server) for server in servers}
    cordoned = {uid for one in before.values() for uid in one.cordoned}
    open_pods = tuple(replace(pod, open=pod.open and pod.uid not in cordoned) for pod in world.pods)
    assignment = assign(replace(world, pods=open_pods))
    busy = {bind.pod.uid for bind in assignment.binds}
    bound = frozenset(bind.job for bind in assignment.binds)
    asked = tuple(_with_busy(server, busy) for server in servers)
    scales = {
        server.name: scale.scale(
            server.policy,
            scaling_members(world, server.members),
            backlog(world, server.name, bound),
            server.cold_start,
        )
        for server in asked
        if server.policy is not None
    }
    wishes = {server.name: _wish(world, server, scales.get(server.name), bound) for server in asked}
    fleets = {server.name: fleet.arrange(server.members, wishes[server.name], world.now) for server in asked}
    return Decision(assignment, scales, _released(asked, wishes, fleets, world.now))


def _wish(world: World, server: Server, scaled: scale.Scale | None, bound: frozenset[str]) -> fleet.Wish:
    """How many pods, and how many of them not on spot: as many as the jobs that may not go there need."""
    replicas = server.wish.replicas if scaled is None else scaled.replicas
    spots = [place.name for place in server.wish.places if place.spot]
    if not spots or len(spots) == len(server.wish.places):
        return replace(server.wish, replicas=replicas)
    waiting = sum(
        1
        for lane in world.lanes
        if server.name in lane.servers
        for job in lane.jobs
        if job.key not in bound and all(is_firm(world, job, server.name, pool) for pool in spots)
    )
    firm_busy = sum(1 for one in server.members if one.busy and one.pool not in spots)
    per_pod = max(1, math.ceil(waiting / max(replicas, 1)))
    firm = min(replicas, firm_busy + math.ceil(waiting / per_pod)) if waiting else 0
    return replace(server.wish, replicas=replicas, firm=firm)


def _with_busy(server: Server, taken: set[str]) -> Server:
    """The server with the pods that just got a job."""
    members = (replace(one, busy=True, idle_for=0.0) if one.uid in taken else one for one in server.members)
    return replace(server, members=tuple(members))


def _fleet(world: World, server: Server) -> fleet.Fleet:
    """The fleet before scaling: a server that scales itself keeps what it has."""
    wish = server.wish
    if server.policy is not None:
        wish = replace(wish, replicas=sum(1 for one in server.members if not one.terminating and not one.lost))
    return fleet.arrange(server.members, wish, world.now)


def _released(
    servers: tuple[Server, ...], wishes: Mapping[str, fleet.Wish], fleets: dict[str, fleet.Fleet], now: float
) -> dict[str, fleet.Fleet]:
    """Before a dearer pool is used, an idle pod of another ModelServer leaves the one that refused (decisions.md, 14).

    The start is put off; the pool is tried again once the pod has gone.
    """
    out = dict(fleets)
    spare = [(server, member) for server in servers for member in _spare(server, out[server.name])]
    for server in servers:
        for start in out[server.name].starts:
            refused = _earlier_refusals(wishes[server.name], out[server.name], start.pool, now)
            found = next((one for one in spare if one[0].name != server.name and one[1].pool in refused), None)
            if found is None:
                continue
            spare.remove(found)
            other, member = found
            out[other.name] = _without(out[other.name], member)
            mine = out[server.name]
            again = fleet.Rest(member.pool, now, 0, f"{member.name} of {other.name} makes room")
            kept = tuple(one for one in mine.rests if one.pool != member.pool)
            starts = tuple(one for one in mine.starts if one != start)
            out[server.name] = replace(mine, starts=starts, rests=(*kept, again), blocked=again.message)
    return out


def _spare(server: Server, arranged: fleet.Fleet) -> list[fleet.Member]:
    """Idle pods above the minimum of a server that scales itself, and that does not start others."""
    if server.policy is None or arranged.starts:
        return []
    idle = [one for one in arranged.kept if not one.busy and one.serves and one.uid not in arranged.cordoned]
    idle.sort(key=lambda one: (-one.idle_for, one.name))
    return idle[: max(0, len(arranged.kept) - server.policy.minimum)]


def _earlier_refusals(wish: fleet.Wish, arranged: fleet.Fleet, pool: str, now: float) -> set[str]:
    """The pools that come before this one and refused lately."""
    order = [place.name for place in wish.places]
    before = wish.places[: order.index(pool)]
    resting = {rest.pool for rest in arranged.rests}
    return {place.name for place in before if place.resting_until > now or place.name in resting}


def _without(arranged: fleet.Fleet, member: fleet.Member) -> fleet.Fleet:
    kept = tuple(one for one in arranged.kept if one.uid != member.uid)
    return replace(arranged, kept=kept, going=(*arranged.going, member), cordoned=arranged.cordoned | {member.uid})


def backlog(world: World, server: str, bound: frozenset[str] = frozenset()) -> scale.Backlog:
    """The jobs that wait for this ModelServer; those that others can render too count in equal parts."""
    jobs, useful, seconds, longest = 0.0, 0.0, 0.0, 0.0
    pool = next((pod.pool for pod in world.pods if pod.server == server), "")
    rate = world.rates.get((server, pool)) or next((one for key, one in world.rates.items() if key[0] == server), None)
    for lane in world.lanes:
        if server not in lane.servers:
            continue
        part = 1.0 / len(lane.servers)
        waiting = [job for job in lane.jobs if job.key not in bound]
        jobs += part * len(waiting)
        useful += part * min(len(waiting), _room(world, lane, bound))
        for job in waiting:
            each = rate.seconds(job.work) if rate else 0.0
            seconds, longest = seconds + each * part, max(longest, each)
    return scale.Backlog(math.ceil(jobs), seconds, longest, math.ceil(useful))


def _room(world: World, lane: Lane, bound: frozenset[str]) -> float:
    """How many more jobs the lane's queue may run at once."""
    limit = world.queue(lane.queue).max_running
    if limit is None:
        return math.inf
    usage = world.usage.get(lane.queue)
    newly = sum(1 for job in lane.jobs if job.key in bound)
    return max(0, limit - (usage.running if usage else 0) - newly)


def scaling_members(world: World, members: tuple[fleet.Member, ...]) -> tuple[scale.Member, ...]:
    """The members that count for scaling, with how long each is busy."""
    pods = {pod.uid: pod for pod in world.pods}
    out = []
    for member in members:
        if member.terminating or member.lost or member.notice:
            continue
        pod = pods.get(member.uid)
        held = pod.held if pod else ()
        busy_for = sum(one.remaining or 0.0 for one in held) + (pod.ready_in if pod else 0.0)
        out.append(scale.Member(member.uid, member.busy, busy_for, member.idle_for))
    return tuple(out)
