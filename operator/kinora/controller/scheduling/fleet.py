"""What becomes of each pod of one ModelServer, and in which pool the next ones start. Pure.

Drain before replace: a pod that should go gets no new job (``cordoned``) and is deleted once it is idle. Pools are
tried in their order; one that refuses, or leaves a pod pending for fallbackAfterSeconds, rests for a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MAX_REST: Final = 3600.0
"The longest that a refusing pool rests, in seconds."


@dataclass(frozen=True, slots=True)
class Place:
    """One pool: its limit, its price an hour, and since when it refuses."""

    name: str
    limit: int | None = None
    price: float = 0.0
    spot: bool = False
    resting_until: float = 0.0
    rests: int = 0
    "Refusals in a row: each doubles the rest."


@dataclass(frozen=True, slots=True)
class Member:
    """One pod that is not yet gone."""

    uid: str
    name: str
    slot: int
    pool: str
    current: bool
    "Made from the template as it is now."
    serves: bool
    busy: bool
    terminating: bool = False
    lost: bool = False
    "Ended by itself: it holds no capacity any more."
    overdue: bool = False
    "Terminating beyond its grace: its slot is given on."
    notice: str = ""
    "Why its capacity goes away, or may (a cordoned node): it gets no new job; empty: it stays."
    ending: bool = False
    "The notice is final: it is replaced now, and goes once it is idle."
    pending_for: float | None = None
    "Seconds without a node; None once it has one."
    refusal: str = ""
    "What the provider says of its capacity."
    idle_for: float = 0.0
    broken: bool = False
    "Its engine needs another pod: it goes once it is idle."


@dataclass(frozen=True, slots=True)
class Start:
    """A pod to make in this slot and pool."""

    slot: int
    pool: str


@dataclass(frozen=True, slots=True)
class Rest:
    """A pool that refused: not tried again before ``until``."""

    pool: str
    until: float
    rests: int
    message: str


@dataclass(frozen=True)
class Fleet:
    """The pods of a server by what becomes of them."""

    kept: tuple[Member, ...] = ()
    going: tuple[Member, ...] = ()  # to delete now
    cordoned: frozenset[str] = frozenset()  # UIDs that get no new job
    starts: tuple[Start, ...] = ()
    rests: tuple[Rest, ...] = ()
    blocked: str = ""
    "Why pods that are wanted are not started."


@dataclass(frozen=True)
class Wish:
    """How many pods are wanted, and where they may be."""

    replicas: int
    places: tuple[Place, ...]
    max_unavailable: int = 1
    fallback_after: float = 300.0
    firm: int = 0
    "How many of them must not be spot: jobs wait that may not go there (decisions.md, 13)."


def arrange(members: Sequence[Member], wish: Wish, now: float) -> Fleet:
    """Decide every pod's fate, and where new ones start."""
    alive = [member for member in members if not member.terminating]
    rests = _rests(alive, wish, now)
    refused = {rest.pool for rest in rests}
    stuck = {member.uid for member in alive if member.pool in refused and member.pending_for is not None}
    going = [member for member in alive if member.lost or member.uid in stuck or (member.broken and not member.busy)]
    gone = {member.uid for member in going}
    rest = [member for member in alive if member.uid not in gone]
    leaving = [member for member in rest if member.ending] + _surplus(rest, wish)
    leave = {member.uid for member in leaving}
    outdated = _outdated([member for member in rest if member.uid not in leave], wish)
    leave |= {member.uid for member in outdated}
    going += [member for member in (*leaving, *outdated) if not member.busy]
    gone |= {member.uid for member in going}
    kept = tuple(member for member in rest if member.uid not in gone)
    missing = max(0, wish.replicas - _held(members, kept, gone, wish))
    starts, blocked = _starts(members, wish, refused, missing, now)
    cordoned = frozenset(member.uid for member in rest if member.uid in leave or member.notice) | gone
    return Fleet(kept, tuple(going), cordoned, starts, rests, blocked)


def _rests(alive: Sequence[Member], wish: Wish, now: float) -> tuple[Rest, ...]:
    """The pools whose pods found no capacity for too long."""
    found: dict[str, Rest] = {}
    places = {place.name: place for place in wish.places}
    for member in sorted(alive, key=lambda member: -(member.pending_for or 0.0)):
        place = places.get(member.pool)
        if place is None or member.pool in found or len(places) < 2:
            continue
        if member.pending_for is not None and member.pending_for >= wish.fallback_after:
            seconds = min(wish.fallback_after * 2**place.rests, MAX_REST)
            message = member.refusal or f"a pod found no node in {member.pending_for:.0f} s"
            found[member.pool] = Rest(member.pool, now + seconds, place.rests + 1, message)
    return tuple(found.values())


def _surplus(rest: Sequence[Member], wish: Wish) -> list[Member]:
    """The pods beyond the wanted number: idle and useless ones first, the dearest first, the longest idle first."""
    price = {place.name: place.price for place in wish.places}
    rank = {place.name: index for index, place in enumerate(wish.places)}
    staying = [member for member in rest if not member.ending]

    def worth(member: Member) -> tuple[object, ...]:
        known = member.pool in rank
        dear = (price.get(member.pool, 0.0), rank.get(member.pool, len(rank)))
        useless = (not known, member.slot < 0, bool(member.notice), not member.current, not member.serves)
        return (not member.busy, useless, dear, member.idle_for, member.slot)

    spot = {place.name for place in wish.places if place.spot}
    firm = sum(1 for member in staying if member.pool not in spot)
    room = wish.replicas - max(0, wish.firm - firm)  # the rest is for pods that are not spot
    kept = kept_spot = 0
    surplus = []
    for member in sorted(staying, key=lambda member: (worth(member), member.name)):
        is_spot = member.pool in spot
        if kept >= wish.replicas or (is_spot and kept_spot >= room):
            surplus.append(member)
        else:
            kept, kept_spot = kept + 1, kept_spot + is_spot
    return surplus


def _outdated(rest: Sequence[Member], wish: Wish) -> list[Member]:
    """The outdated pods that may be unavailable now: broken ones first, then idle ones, then the lowest slots."""
    staying = [member for member in rest if not member.ending]
    outdated = [member for member in staying if not member.current]
    unavailable = sum(1 for member in staying if member.current and not member.serves)
    unavailable += max(0, wish.replicas - len(staying))
    broken = [member for member in outdated if not member.serves]
    room = max(0, wish.max_unavailable - unavailable - len(broken))
    serving = sorted((member for member in outdated if member.serves), key=lambda member: (member.busy, member.slot))
    return broken + serving[:room]


def _held(members: Sequence[Member], kept: Sequence[Member], gone: set[str], wish: Wish) -> int:
    """Places that are filled, or will be free only when a pod has gone: no spare GPU is needed to replace it.

    Capacity that was taken away, or will be, is not waited for: its successor starts at once.
    """
    staying = sum(1 for member in kept if not member.ending)
    leaving = [member for member in members if member.terminating or member.uid in gone]
    going = sum(1 for member in leaving if not (member.overdue or member.lost or member.ending))
    return max(staying, min(staying + going, wish.replicas))


def _starts(
    members: Sequence[Member], wish: Wish, resting: set[str], missing: int, now: float
) -> tuple[tuple[Start, ...], str]:
    """New pods in free slots, each in the first pool that has room."""
    holding = [member for member in members if not member.overdue and not member.lost]
    taken = {member.slot for member in holding}
    counts = {place.name: sum(1 for member in holding if member.pool == place.name) for place in wish.places}
    firm = {place.name for place in wish.places if not place.spot}
    starts: list[Start] = []
    blocked = ""
    for _ in range(missing):
        lacking = sum(counts[name] for name in firm) < wish.firm
        pool, blocked = _next_pool(wish, counts, resting, now, firm if lacking else None)
        if pool is None:
            break
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        taken.add(slot)
        counts[pool] += 1
        starts.append(Start(slot, pool))
    return tuple(starts), blocked


def _next_pool(
    wish: Wish, counts: Mapping[str, int], resting: set[str], now: float, only: set[str] | None
) -> tuple[str | None, str]:
    """The first pool in order (of ``only``, if some are) that has room; None and why while there is none."""
    why = []
    for place in wish.places:
        if only and place.name not in only:
            continue
        if place.name in resting or place.resting_until > now:
            why.append(f"pool {place.name} refused lately")
        elif place.limit is not None and counts[place.name] >= place.limit:
            why.append(f"pool {place.name} has its maxReplicas of {place.limit}")
        else:
            return place.name, ""
    return None, "; ".join(why)
