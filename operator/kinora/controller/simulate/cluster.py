"""The made-up cluster that a trace is played on: ModelServers, pools, queues, and how the world behaves. Pydantic."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from kinora.controller.scheduling.facts import AGING_SECONDS

_Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class SimulatedPool(_Part):
    """A pool: `capacity` pods are there at most, whatever is asked; spot pods live `meanLifeSeconds` (exponential)."""

    name: str
    price_per_hour: float = Field(1.0, ge=0)
    capacity: int = Field(1000, ge=0)
    max_replicas: int | None = Field(None, ge=0)
    mean_life_seconds: _Positive | None = None
    "Set: the pool is spot, and its pods are taken away after that long on average."
    seconds_per_million_token_steps: _Positive = 20.0
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
