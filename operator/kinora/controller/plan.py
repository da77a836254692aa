"""What a decision returns: children to create, objects to delete, one status, events, and when to look again.

Plain frozen values; the executor is the only one that carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinora.kube.resources import Resource

Object = dict[str, Any]


@dataclass(frozen=True)
class Create:
    """A child to make; AlreadyExists means that it was made before.

    `optional`: where the API server refuses it the log says so, and all the rest goes on.
    """

    resource: Resource
    body: Object
    optional: bool = False


@dataclass(frozen=True)
class Delete:
    """An object to delete, only if it still has this UID; pods go gracefully.

    Without a UID: whatever has the name, where nobody watches such objects and the name is one that only we give.
    """

    resource: Resource
    namespace: str
    name: str
    uid: str | None


@dataclass(frozen=True)
class Note:
    """An event on the decided object, recorded only after the status write succeeded."""

    kind: str  # Normal | Warning
    reason: str
    message: str
    action: str


@dataclass(frozen=True)
class Plan:
    """The outcome of one decision. ``status`` is a merge patch of the object's status."""

    create: tuple[Create, ...] = ()
    apply: tuple[Create, ...] = ()  # made, or brought to these fields
    delete: tuple[Delete, ...] = ()
    status: Object | None = None
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None  # seconds

    @property
    def is_empty(self) -> bool:
        """Nothing to write."""
        return not (self.create or self.apply or self.delete or self.status or self.notes)


NOTHING = Plan()
