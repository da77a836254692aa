"""The operator's settings: environment variables that the chart sets, read once at the start."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from kinora.api import webhooks
from kinora.api.stagerconfig import CHART_VARIABLE, StagerValues
from kinora.controller.pools.load import Providers, load_providers
from kinora.controller.queues import QueuesError, read_queues
from kinora.controller.scheduling.facts import AGING_SECONDS, Queue
from kinora.kube.election import Terms
from kinora.storage.guard.policy import Policy
from kinora.weights.sources import DEFAULT_HUB, Rules


@dataclass(frozen=True)
class Settings:
    """Every setting of the operator process.

    Attributes:
        agent_image: image of the agent and of the init container that brings the supervisor (KINORA_IMAGE).
        engine_image: default of ModelServer.spec.engine.image (KINORA_ENGINE_IMAGE); empty: spec must name one.
        image_pull_policy: pull policy of both (KINORA_IMAGE_PULL_POLICY).
        image_pull_secrets: names of pull secrets for server pods, in each ModelServer's own namespace
            (KINORA_IMAGE_PULL_SECRETS, comma-separated).
        namespaces: where to look; empty: everywhere (KINORA_NAMESPACES, comma-separated).
        http_port: port of /metrics, /healthz and /readyz (KINORA_HTTP_PORT).
        instance: this process's name in events and leases (POD_NAME); no two live processes may share it.
        lease_namespace: where the leader's Lease is; empty: ``namespace``, and without one the connection's.
        lease_name: the Lease that makes one of several replicas the leader (KINORA_LEASE_NAME).
        lease_terms: how long it lasts.
        resync_seconds: how often everything is listed anew, to prune what vanished unseen.
        workers: decisions carried out side by side.
        weights_rules: what sources of weights may be (KINORA_WEIGHTS_ALLOW_HTTP, KINORA_WEIGHTS_HUB).
        queues: the declared queues by name (KINORA_QUEUES, JSON).
        aging_seconds: how long a job waits to gain one step of priority; 0: never (KINORA_AGING_SECONDS).
        ledger: ConfigMap, namespace/name, that keeps what queues used; empty: memory only (KINORA_LEDGER).
        namespace: where the operator itself runs (POD_NAMESPACE): ConfigMaps there may hold models; empty: no models
            are read from any.
        watermark: what `output.watermark` shows, as agents read it (KINORA_WATERMARK, JSON); empty: the default text.
        model_aliases: further names of models, such as hosted ones (KINORA_MODEL_ALIASES: name=model,name=model).
        providers: the providers of GPU capacity (data of the package).
        stager: the chart's values of stagers (KINORA_STAGER, JSON).
        webhooks: whether a gateway delivers webhooks (KINORA_WEBHOOKS_ENABLED).
        live: whether gateways may listen to renders (KINORA_LIVE).
        live_policy: whether server pods get a NetworkPolicy that lets gateways alone listen (KINORA_LIVE_POLICY).
    """

    agent_image: str
    engine_image: str = ""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    http_port: int = 8080
    instance: str = "kinora-operator"
    lease_namespace: str = ""
    lease_name: str = "kinora-operator"
    lease_terms: Terms = field(default_factory=Terms)
    resync_seconds: float = 300.0
    workers: int = 16
    namespace: str = ""
    watermark: str = ""
    model_aliases: Mapping[str, str] = field(default_factory=dict)
    weights_rules: Rules = field(default_factory=Rules)
    queues: Mapping[str, Queue] = field(default_factory=lambda: read_queues(""))
    aging_seconds: float = AGING_SECONDS
    ledger: str = ""
    providers: Providers = field(default_factory=load_providers)
    stager: StagerValues = field(default_factory=StagerValues)
    webhooks: bool = False
    live: bool = False
    live_policy: bool = False


def from_environment() -> Settings:
    """Settings of this process. Raises SystemExit naming the variable that is missing or cannot be used."""
    env = os.environ
    image = env.get("KINORA_IMAGE", "")
    if not image:
        raise SystemExit("KINORA_IMAGE is not set; it names the image of the agents (the chart sets it)")
    try:
        queues = read_queues(env.get("KINORA_QUEUES", ""))
    except QueuesError as error:
        raise SystemExit(f"KINORA_QUEUES: {error}") from None
    return Settings(
        agent_image=image,
        engine_image=env.get("KINORA_ENGINE_IMAGE", ""),
        image_pull_policy=env.get("KINORA_IMAGE_PULL_POLICY", "IfNotPresent"),
        image_pull_secrets=_names(env.get("KINORA_IMAGE_PULL_SECRETS", "")),
        namespaces=_names(env.get("KINORA_NAMESPACES", "")),
        http_port=int(env.get("KINORA_HTTP_PORT", "8080")),
        instance=env.get("POD_NAME") or f"{socket.gethostname()}-{secrets.token_hex(4)}",
        lease_name=env.get("KINORA_LEASE_NAME", "kinora-operator"),
        queues=queues,
        aging_seconds=float(env.get("KINORA_AGING_SECONDS", str(AGING_SECONDS))),
        ledger=env.get("KINORA_LEDGER", ""),
        namespace=env.get("POD_NAMESPACE", ""),
        watermark=env.get("KINORA_WATERMARK", ""),
        model_aliases=_aliases(env.get("KINORA_MODEL_ALIASES", "")),
        stager=stager_values(env.get(CHART_VARIABLE, "{}")),
        webhooks=env.get(webhooks.ENABLED_VARIABLE, "") == "true",
        live=env.get("KINORA_LIVE", "") == "true",
        live_policy=env.get("KINORA_LIVE_POLICY", "") == "true",
        weights_rules=Rules(
            allow_http=env.get("KINORA_WEIGHTS_ALLOW_HTTP", "") == "true",
            hub=env.get("KINORA_WEIGHTS_HUB") or DEFAULT_HUB,
        ),
    )


def stager_values(text: str) -> StagerValues:
    """The chart's values. Raises SystemExit naming what cannot be read: better here than in every stager."""
    try:
        values = StagerValues.model_validate_json(text)
        Policy.of(values.allow.hosts, values.allow.networks, values.allow.ports, "stager.allow.")
    except ValueError as error:
        raise SystemExit(f"{CHART_VARIABLE}: {error}") from None
    return values


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _aliases(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return {name: model for name, _, model in pairs}
