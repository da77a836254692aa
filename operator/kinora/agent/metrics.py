"""What an agent counts, in a registry of its own. Label sets are bounded: results, stages, reasons; never a job."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """The agent's metrics."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.attempts = Counter(
            "kinora_agent_attempts",
            "Attempts that ended here, by what came of them.",
            ["result"],
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "kinora_agent_stage_seconds",
            "Seconds of each stage of an attempt (staged, loaded, rendered, published).",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.writes = Counter(
            "kinora_agent_status_writes",
            "Status writes that the API server took, by what they told.",
            ["kind"],
            registry=self.registry,
        )
        self.conflicts = Counter(
            "kinora_agent_status_conflicts", "Status writes answered 409 and decided again.", registry=self.registry
        )
        self.engine_exits = Counter(
            "kinora_agent_engine_exits", "Exits of the engine seen, by how.", ["how"], registry=self.registry
        )
        self.engine_restarts = Counter(
            "kinora_agent_engine_restarts",
            "Restarts of the engine asked for, by why.",
            ["reason"],
            registry=self.registry,
        )
        self.engine_ready = Gauge("kinora_agent_engine_ready", "1 while EngineReady is True.", registry=self.registry)
        self.engine_memory = Gauge(
            "kinora_agent_engine_memory_bytes", "Memory of the engine's container.", registry=self.registry
        )
        self.gpu_seconds = Counter(
            "kinora_agent_gpu_seconds", "Seconds in which the engine held a prompt.", registry=self.registry
        )
        self.cancel_seconds = Histogram(
            "kinora_agent_halt_seconds",
            "Seconds from the wish to stop a prompt to a free engine.",
            buckets=_SECONDS,
            registry=self.registry,
        )
