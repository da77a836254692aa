"""Who may hold a Lease, and when: the pure rules. No I/O, clock or randomness; ``lease.py`` is the shell around them.

Times are seconds of the observer's own monotonic clock; a wall clock is never compared. Two facts keep two holders
apart, whatever the delays: a holder believes in its lease for ``Terms.renew`` from when it *sent* the last write that
the API server took; another takes the lease no sooner than ``duration`` after it *saw* that write. Every write is a
compare-and-set on the resourceVersion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Terms:
    """Durations in seconds (api.md).

    Attributes:
        duration: how long others leave a lease alone after they saw it written.
        renew: how long the holder believes in it after it sent its last successful write; what is left of
            ``duration`` is for requests under way and for clocks that run at different rates.
        retry: pause between two renewals, and between two attempts.
    """

    duration: float = 8.0
    renew: float = 5.0
    retry: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for terms under which two could hold, or one could never renew."""
        if not 0 < 2 * self.retry <= self.renew <= 0.8 * self.duration:
            raise ValueError(
                f"terms {self}: allowed is 0 < 2 * retry <= renew <= 0.8 * duration; raise duration, or lower renew"
            )

    @property
    def published(self) -> int:
        """``spec.leaseDurationSeconds``, which has whole seconds: never less than ``duration``."""
        return math.ceil(self.duration)


@dataclass(frozen=True)
class Record:
    """What counts of one state of a Lease object; ``holder`` is empty when it was released."""

    version: str
    holder: str
    duration: float | None = None
    transitions: int = 0


@dataclass(frozen=True)
class View:
    """The newest state that was seen (None: there is no such object), and when another than its holder may take it."""

    record: Record | None
    free_at: float


@dataclass(frozen=True)
class Standing:
    """What one process knows and has of a Lease.

    Attributes:
        identity: its name in ``holderIdentity``; no two live processes have the same.
        view: None: never read.
        renewed: when its last successful write was sent; None: it does not hold.
        not_before: when to write again after a write without success.
        must_read: a write was refused as stale.
    """

    identity: str
    terms: Terms = field(default_factory=Terms)
    view: View | None = None
    renewed: float | None = None
    not_before: float = -math.inf
    must_read: bool = False


@dataclass(frozen=True)
class Read:
    """Read the Lease."""


@dataclass(frozen=True)
class Write:
    """Write oneself in as the holder: over this record (compare-and-set on its version), or, if None, create it."""

    over: Record | None
    transitions: int
    acquires: bool


@dataclass(frozen=True)
class Wait:
    """Do nothing until then, or until something is seen."""

    until: float


@dataclass(frozen=True)
class Lost:
    """It was held, and may not be relied on any more."""

    why: str


Step = Read | Write | Wait | Lost


def record(lease: Object) -> Record:
    """What counts of a Lease object."""
    spec = lease.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds")
    return Record(
        version=str(lease["metadata"].get("resourceVersion", "")),
        holder=spec.get("holderIdentity") or "",
        duration=None if seconds is None else float(seconds),
        transitions=int(spec.get("leaseTransitions") or 0),
    )


def holds(standing: Standing, now: float) -> bool:
    """Whether the process may act as the holder at this moment."""
    return standing.renewed is not None and now < standing.renewed + standing.terms.renew


def seen(standing: Standing, found: Record | None, now: float) -> Standing:
    """The Lease was read, or a watch told of it; None: it does not exist. An older state than the known one is an echo.

    A Lease that vanished is left alone for its duration like one that was written: its holder may not know it yet.
    """
    view = standing.view
    if found is None:
        if view is None:
            view = View(None, now)
        elif view.record is not None:
            view = View(None, now + _patience(view.record, standing.terms))
    elif view is None or view.record is None or _newer(found, view.record):
        view = View(found, now + _patience(found, standing.terms) if found.holder else now)
    return replace(standing, view=view, must_read=False)


def wrote(standing: Standing, answer: Record, sent: float, now: float) -> Standing:
    """The API server took the write that was sent then."""
    return replace(seen(standing, answer, now), renewed=sent, not_before=-math.inf)


def refused(standing: Standing) -> Standing:
    """The write was stale: somebody else wrote. Read before anything else."""
    return replace(standing, must_read=True)


def unanswered(standing: Standing, now: float, pause: float) -> Standing:
    """Nothing is known of the write or read: try again after the pause."""
    return replace(standing, not_before=now + pause)


def dropped(standing: Standing) -> Standing:
    """The process holds it no more, by its own decision."""
    return replace(standing, renewed=None)


def next_step(standing: Standing, now: float) -> Step:
    """What to do now."""
    return _candidate(standing, now) if standing.renewed is None else _holder(standing, standing.renewed, now)


def _candidate(standing: Standing, now: float) -> Step:
    view = standing.view
    if now < standing.not_before:
        return Wait(standing.not_before)
    if view is None or standing.must_read:
        return Read()
    if view.record is None:
        return Write(None, transitions=0, acquires=True) if now >= view.free_at else Wait(view.free_at)
    # Its own name: that of the process before it in the same container, which is dead.
    if now >= view.free_at or view.record.holder == standing.identity:
        changes = view.record.holder != standing.identity
        return Write(view.record, transitions=view.record.transitions + changes, acquires=True)
    return Wait(view.free_at)


def _holder(standing: Standing, renewed: float, now: float) -> Step:
    view, terms = standing.view, standing.terms
    deadline = renewed + terms.renew
    if now >= deadline:
        return Lost(f"not renewed for {now - renewed:.1f} s; allowed are {terms.renew:g} s")
    found = view.record if view else None
    if found is not None and found.holder != standing.identity:
        return Lost(f"taken by {found.holder}" if found.holder else "given up in its name")
    if now < standing.not_before:
        return Wait(min(standing.not_before, deadline))
    if standing.must_read:
        return Read()
    if found is None:
        return Write(None, transitions=0, acquires=False)
    if now >= renewed + terms.retry:
        return Write(found, transitions=found.transitions, acquires=False)
    return Wait(renewed + terms.retry)


def _patience(found: Record, terms: Terms) -> float:
    """As long as the holder itself says, if it says so: its terms may be those of another release."""
    return max(found.duration or 0.0, terms.duration)


def _newer(found: Record, known: Record) -> bool:
    if found.version.isdigit() and known.version.isdigit():
        return int(found.version) > int(known.version)
    return found.version != known.version
