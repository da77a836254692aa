"""The made-up cluster that a trace is played on: ModelServers, pools, queues, and how the world behaves. Pydantic."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from kinora.catalogue.load import Catalogue
from kinora.controller.scheduling.facts import AGING_SECONDS

_Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class SimulatedPool(_Part):
    """A pool: `capacity` pods are there at most, whatever is asked; spot pods live `meanLifeSeconds` (exponential)."""

    name: str
    gpu_model: str | None = None
    "The card whose speed the catalogue knows of the server's model."
    price_per_hour: float = Field(1.0, ge=0)
    capacity: int = Field(1000, ge=0)
    max_replicas: int | None = Field(None, ge=0)
    mean_life_seconds: _Positive | None = None
    "Set: the pool is spot, and its pods are taken away after that long on average."
    seconds_per_million_token_steps: _Positive = 20.0
    "Not given, and the server names a model: the catalogue's, on that card."
    start_seconds: _Positive = 240.0
    "From a pod's creation to its first job: node, image, weights, load."


class SimulatedAutoscaling(_Part):
    """ModelServer.spec.autoscaling."""

    min_replicas: int = Field(0, ge=0)
    max_replicas: int = Field(1, ge=1)
    target_queue_seconds: _Positive = 600.0
    idle_seconds: _Positive = 600.0


class SimulatedServer(_Part):
    """One ModelServer, with its pools in order."""

    name: str
    model: str | None = None
    "A model of the catalogue, whose published speeds stand where none are given."
    replicas: int = Field(1, ge=0)
    autoscaling: SimulatedAutoscaling | None = None
    pools: tuple[SimulatedPool, ...] = Field(min_length=1)
    overhead_seconds: float = Field(10.0, ge=0)
    fallback_after_seconds: _Positive = 300.0


class SimulatedQueue(_Part):
    """One declared queue, as in the chart's values."""

    name: str
    weight: _Positive = 1.0
    max_running: int | None = Field(None, ge=0)
    video_seconds_per_day: float | None = Field(None, ge=0)
    preempts: bool = False
    preemptible: bool = False


class SimulatedCluster(_Part):
    """Everything beside the trace. `noise`: how far a render's time strays, as a fraction (log-normal)."""

    name: str
    servers: tuple[SimulatedServer, ...] = Field(min_length=1)
    queues: tuple[SimulatedQueue, ...] = ()
    aging_seconds: float = Field(AGING_SECONDS, ge=0)
    noise: float = Field(0.1, ge=0, le=1)
    staging_seconds: float = Field(2.0, ge=0)
    bind_ahead: bool = True
    seed: int = 1


def with_speeds(cluster: SimulatedCluster, catalogue: Catalogue) -> SimulatedCluster:
    """The cluster with the catalogue's speeds where it gives none. Raises ValueError for a model without."""
    servers = tuple(_with_speeds(server, catalogue) for server in cluster.servers)
    return cluster.model_copy(update={"servers": servers})


def _with_speeds(server: SimulatedServer, catalogue: Catalogue) -> SimulatedServer:
    if server.model is None:
        return server
    model = catalogue.get(server.model)
    if model is None or model.cost is None:
        known = ", ".join(one.name for one in catalogue if one.cost is not None)
        raise ValueError(
            f"servers: {server.name}: model is {server.model}; allowed: {known}, or speeds without a model"
        )
    pools = []
    for pool in server.pools:
        speed = model.cost.speed(pool.gpu_model).seconds_per_million_token_steps
        given = "seconds_per_million_token_steps" in pool.model_fields_set
        pools.append(pool if given else pool.model_copy(update={"seconds_per_million_token_steps": speed}))
    change: dict[str, object] = {"pools": tuple(pools)}
    if "overhead_seconds" not in server.model_fields_set:
        change["overhead_seconds"] = model.cost.speed(server.pools[0].gpu_model).overhead_seconds
    return server.model_copy(update=change)
