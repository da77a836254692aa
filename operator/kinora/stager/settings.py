"""Where this stager is, what it may fetch and how long it waits: values only, read from the environment once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kinora.api import names
from kinora.api.agentconfig import NAMESPACE_VARIABLE
from kinora.api.allow import Allow
from kinora.api.stagerconfig import CONFIG_VARIABLE, StagerConfig
from kinora.storage.guard.policy import Policy
from kinora.storage.opened import Mounts


class SettingsError(Exception):
    """The environment is not that of a stager; the message names the variable."""


@dataclass(frozen=True)
class Times:
    """Seconds."""

    retry_first: float = 1.0  # before the second try of a fetch ...
    retry_limit: float = 60.0  # ... and the longest pause between two
    sweep: float = 3600.0  # between two looks for uploads that nobody uses


@dataclass(frozen=True)
class Settings:
    """Everything that a stager is told."""

    namespace: str
    config: StagerConfig
    policy: Policy
    times: Times = field(default_factory=Times)
    artifacts: Path = Path(names.ARTIFACTS_DIR)
    listen_host: str = "0.0.0.0"  # noqa: S104 - the kubelet's probes, Prometheus and gateways come from outside the pod
    listen_port: int = names.STAGER_PORT
    store_port: int = names.STORE_PORT
    mounts: Mounts = field(default_factory=Mounts)
    url_seconds: int = 900  # how long a URL may be used that is signed for an agent; each of its requests gets its own


def policy_of(allow: Allow) -> Policy:
    """The fetcher's policy. ValueError names the entry that cannot be read."""
    return Policy.of(allow.hosts, allow.networks, allow.ports, "stager.allow.", http=allow.http)


def settings_from(environment: Mapping[str, str]) -> Settings:
    """The settings of a stager's pod. Raises SettingsError."""

    def must(variable: str) -> str:
        value = environment.get(variable, "")
        if not value:
            raise SettingsError(f"{variable} is not set")
        return value

    text = must(CONFIG_VARIABLE)
    try:
        config = StagerConfig.model_validate_json(text)
        policy = policy_of(config.allow)
    except ValueError as error:
        raise SettingsError(f"{CONFIG_VARIABLE}: {error}") from None
    return Settings(must(NAMESPACE_VARIABLE), config, policy)
