"""Carries out plans: the only place of the operator that writes to the cluster.

Writes only what differs, one status patch at most a plan, and applies each answer to the store at once.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from typing import Any

from kinora.api.names import LABEL_POOL, server_of
from kinora.controller.modelserver.snapshot import PodRefusal
from kinora.controller.plan import Create, Note, Plan
from kinora.controller.settings import Settings
from kinora.kube import events
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import POD, Resource

log = logging.getLogger(__name__)
Object = dict[str, Any]
MANAGER = "kinora-operator"
REPORTER = "kinora.dev/operator"
# Answers to a pod that is not taken as it is: malformed, forbidden (a quota, a policy), or refused by a webhook.
_REFUSED = frozenset({400, 403, 406, 413, 422})
REFUSED_SECONDS = 30.0  # until a pod is tried again in a pool where it was refused


class StaleError(Exception):
    """The object changed since it was read: read again, decide again."""


def differs(current: Any, patch: Any) -> bool:
    """Whether a merge patch would change anything."""
    if not isinstance(patch, Mapping):
        return bool(current != patch)
    if not isinstance(current, Mapping):
        return True
    return any(name in current if value is None else differs(current.get(name), value) for name, value in patch.items())


class Executor:
    """Writes plans with one API client."""

    def __init__(self, client: KubeClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self.wrote: Callable[[str, Object], None] = lambda _plural, _obj: None  # told of each status write's answer
        self.made: Callable[[Resource, Object], None] = lambda _resource, _obj: None  # told of each create's answer
        self.refusals: dict[str, dict[str, PodRefusal]] = {}  # ModelServer's key -> pool -> the last refusal of a pod

    async def run(self, resource: Resource, obj: Object, plan: Plan) -> Object | None:
        """Carry out one plan; the object's new state if its status was written. Raises StaleError, ApiError."""
        await self.children(plan)
        written = None
        if plan.status and differs(obj.get("status") or {}, plan.status):
            written = await self.patch_status(resource, obj, plan.status)
        if written is not None or not plan.status:
            for note in plan.notes:
                await self.note(obj, note)
        return written

    async def children(self, plan: Plan) -> None:
        """Make, apply and delete what the plan says; its status and events are another matter."""
        for create in plan.create:
            await self._create(create)
        for wanted in plan.apply:
            metadata = wanted.body["metadata"]
            await self._client.apply(wanted.resource, wanted.body, manager=MANAGER)
            log.info("applied %s %s/%s", wanted.resource.kind, metadata["namespace"], metadata["name"])
        for delete in plan.delete:
            if await self._client.delete(delete.resource, delete.namespace, delete.name, uid=delete.uid):
                log.info("deleted %s %s/%s", delete.resource.kind, delete.namespace, delete.name)

    async def patch_status(self, resource: Resource, obj: Object, status: Object) -> Object | None:
        """One merge patch with the resourceVersion that was decided on; None when the object is gone."""
        metadata = obj["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}, "status": status}
        try:
            written = await self._client.patch(
                resource, metadata["namespace"], metadata["name"], body, subresource="status"
            )
        except ApiError as error:
            if error.is_not_found:
                return None
            if error.is_conflict:
                raise StaleError(f"{resource.plural} {metadata['namespace']}/{metadata['name']}") from error
            raise
        self.wrote(resource.plural, written)
        return written

    async def _create(self, create: Create) -> None:
        metadata = create.body["metadata"]
        try:
            made = await self._client.create(create.resource, metadata["namespace"], create.body)
            log.info("created %s %s/%s", create.resource.kind, metadata["namespace"], metadata["name"])
        except ApiError as error:
            if create.resource == POD and error.status in _REFUSED:
                self._refused(create.body, error)
            elif create.optional and error.status in _REFUSED:
                log.warning("%s %s/%s: %s", create.resource.kind, metadata["namespace"], metadata["name"], error)
            elif not error.already_exists:
                raise
        else:
            self.made(create.resource, made)
            if create.resource == POD:
                self.refusals.pop(server_of(create.body), None)

    def _refused(self, pod: Object, error: ApiError) -> None:
        """Remember what was said, for the status: it is no fault of the operator's, and nothing to end a pass for."""
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=REFUSED_SECONDS)
        log.warning("pod %s/%s is refused: %s", pod["metadata"]["namespace"], pod["metadata"]["name"], error.message)
        pool = pod["metadata"]["labels"].get(LABEL_POOL, "")
        self.refusals.setdefault(server_of(pod), {})[pool] = PodRefusal(error.message, until)

    async def note(self, obj: Object, note: Note) -> None:
        """Record one event on the object."""
        body = events.event_body(
            obj,
            kind=note.kind,
            reason=note.reason,
            note=note.message,
            action=note.action,
            reporter=REPORTER,
            instance=self._settings.instance,
            now=dt.datetime.now(dt.UTC),
        )
        await events.record(self._client, body)
