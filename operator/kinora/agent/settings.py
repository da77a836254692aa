"""Where this agent is and how long it waits: values only, read from the environment once. No I/O beyond that.

Defaults are the paths and ports of a server pod (kinora.api.names); a test or a hollow agent gives others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kinora.api import agentconfig, names
from kinora.api.agentconfig import AgentConfig, Watermark
from kinora.storage.broker.signer import Patience
from kinora.storage.opened import Mounts


class SettingsError(Exception):
    """The environment is not that of an agent container; the message names the variable."""


@dataclass(frozen=True)
class Identity:
    """Which pod this is."""

    namespace: str
    pod_name: str
    pod_uid: str
    node_name: str = ""

    @property
    def client_id(self) -> str:
        """The websocket client of this pod: the same after a restart, so that the agent is told of its prompts."""
        return f"kinora-{self.pod_uid}"


@dataclass(frozen=True)
class Paths:
    """Folders and sockets of the pod."""

    input: Path = Path(names.INPUT_DIR)
    output: Path = Path(names.OUTPUT_DIR)
    models: Path = Path(names.MODELS_DIR)
    artifacts: Path = Path(names.ARTIFACTS_DIR)
    claims: Path = Path(names.INPUT_CLAIMS_DIR)
    supervisor: str = names.SUPERVISOR_SOCKET


@dataclass(frozen=True)
class Times:
    """Seconds."""

    progress: float = 5.0  # at most one progress write in this time (api.md)
    outcome: float = 5.0  # how often the engine is asked what the websocket should have told
    interrupt: float = 20.0  # an interrupt that has not worked by then becomes a restart (invariant 8)
    weights_missing: float = 3.0  # between looks at weight files that are missing ...
    weights_present: float = 30.0  # ... and at ones that were found good
    engine_probe: float = 0.25  # between tries of an engine that is starting
    settle: float = 1.0  # before a new agent says Starting: an engine that runs already must not seem to fail
    write_retry: float = 0.5  # first pause of a status write that the API server did not take ...
    write_retry_limit: float = 10.0  # ... and the longest
    silence_scale: float = 1.0  # of every silence budget


@dataclass(frozen=True)
class Settings:
    """Everything that an agent is told."""

    identity: Identity
    config: AgentConfig
    paths: Paths = field(default_factory=Paths)
    times: Times = field(default_factory=Times)
    engine_url: str = f"http://127.0.0.1:{names.ENGINE_PORT}"
    listen_host: str = "0.0.0.0"  # noqa: S104 - the kubelet's probes and Prometheus come from outside the pod
    listen_port: int = names.AGENT_PORT
    live: bool = False  # whether gateways may listen to renders
    live_port: int = names.AGENT_LIVE_PORT
    mounts: Mounts = field(default_factory=Mounts)
    patience: Patience = field(default_factory=Patience)
    watermark: Watermark = field(default_factory=Watermark)


def settings_from(environment: Mapping[str, str]) -> Settings:
    """The settings of a server pod. Raises SettingsError."""

    def must(variable: str) -> str:
        value = environment.get(variable, "")
        if not value:
            raise SettingsError(f"{variable} is not set")
        return value

    try:
        config = AgentConfig.model_validate_json(must(agentconfig.CONFIG_VARIABLE))
    except ValueError as error:
        raise SettingsError(f"{agentconfig.CONFIG_VARIABLE}: {error}") from None
    identity = Identity(
        namespace=must(agentconfig.NAMESPACE_VARIABLE),
        pod_name=must(agentconfig.POD_NAME_VARIABLE),
        pod_uid=must(agentconfig.POD_UID_VARIABLE),
        node_name=environment.get(agentconfig.NODE_NAME_VARIABLE, ""),
    )
    try:
        watermark = Watermark.model_validate_json(environment.get(agentconfig.WATERMARK_VARIABLE) or "{}")
    except ValueError as error:
        raise SettingsError(f"{agentconfig.WATERMARK_VARIABLE}: {error}") from None
    live = environment.get(agentconfig.LIVE_VARIABLE) == "true"
    return Settings(identity, config, watermark=watermark, live=live)
