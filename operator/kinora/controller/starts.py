"""How long server pods take from their creation until they serve. Each is measured once, when it comes to serve.

Goes by every state of a pod that comes, not by the looks at its ModelServer: a pod may serve before the first of them.
Decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kinora.api import reasons
from kinora.api.names import CONDITION_ENGINE_READY, LABEL_POOL, server_of
from kinora.controller.learning import Learning
from kinora.controller.metrics import Metrics
from kinora.controller.modelserver.snapshot import condition, start_stages
from kinora.controller.store import Store

Object = dict[str, Any]


class Starts:
    """The starts that this process sees from their beginning; those of pods that it finds serving are not known."""

    def __init__(self, store: Store, learning: Learning, metrics: Metrics) -> None:
        self._store = store
        self._learning = learning
        self._metrics = metrics
        self._is_open: dict[str, bool] = {}  # pod UID -> whether its start is yet to be measured

    def see(self, pod: Object) -> None:
        """A state of a pod, as it comes."""
        uid = pod["metadata"]["uid"]
        if not self._is_open.setdefault(uid, _is_starting(pod)):
            return
        stages = start_stages(pod)
        server = self._store.servers.get(server_of(pod))
        if "Total" not in stages or server is None:
            return
        self._is_open[uid] = False  # an engine that is started again later makes no new start of the pod
        self._learning.started(server_of(pod), stages["Total"])
        self._metrics.observe_start(server, pod["metadata"].get("labels", {}).get(LABEL_POOL, ""), stages)

    def forget(self, pods: Collection[str]) -> None:
        """Only pods with these UIDs are there."""
        self._is_open = {uid: is_open for uid, is_open in self._is_open.items() if uid in pods}


def _is_starting(pod: Object) -> bool:
    """Whether a pod that is seen for the first time has never served: one whose engine ended says so (EngineDown)."""
    ready = condition(pod, CONDITION_ENGINE_READY)
    return ready.get("status") != "True" and ready.get("reason", reasons.ENGINE_STARTING) == reasons.ENGINE_STARTING
