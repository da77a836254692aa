"""The gateway's settings: what the chart says, read from the environment once. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from kinora.api.webhooks import WebhookValues
from kinora.gateway.tenants import DIALECTS, Limits
from kinora.gateway.webhooks.send import policy_of

CHART_VARIABLE: Final = "KINORA_GATEWAY"
#: Where a namespace's store is served: the Service that the operator makes for a stager.
STORE_URL: Final = "http://{service}.{namespace}.svc:{port}"


class SettingsError(Exception):
    """The environment is not that of a gateway; the message names the variable and the field."""


class _Values(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class PromptExtend(_Values):
    """An OpenAI-compatible endpoint that rewrites prompts where a client asks for it; url empty: none."""

    url: str = ""
    model: str = ""
    key_file: str = ""
    timeout_seconds: float = Field(10.0, gt=0)


class Retention(_Values):
    """Seconds after which what the gateway had made is removed; 0: never (decision 19)."""

    job_seconds: int = Field(7 * 24 * 3600, ge=0)
    link_seconds: int = Field(24 * 3600, ge=60)
    upload_seconds: int = Field(48 * 3600, ge=60)


class Live(_Values):
    """Whether the gateway listens to renders, so that websockets of the ComfyUI dialect hear of every step."""

    enabled: bool = True


class GatewayValues(_Values):
    """The chart's values under `gateway`, as far as the process needs them."""

    dialects: list[str] = Field(default_factory=lambda: list(DIALECTS))
    public_url: Annotated[str, StringConstraints(pattern=r"^(https?://[^/\s]+(/[^\s?#]*)?)?$")] = ""
    keys_secret: str = "kinora-gateway-keys"  # noqa: S105 - a name
    signing_secret: str = "kinora-gateway"  # noqa: S105
    max_body_bytes: int = Field(4 * 1024**2, ge=1024)
    account_limits: Limits = Field(default_factory=Limits)
    retention: Retention = Field(default_factory=Retention)
    prompt_extend: PromptExtend = Field(default_factory=PromptExtend)
    drain_seconds: float = Field(5.0, ge=0)
    webhooks: WebhookValues = Field(default_factory=WebhookValues)
    store_url: str = STORE_URL
    live: Live = Field(default_factory=Live)


@dataclass(frozen=True)
class Settings:
    """Everything that a gateway is told. `namespace`: its own, where keys, signing key and models are."""

    namespace: str
    instance: str = "kinora-gateway"
    namespaces: tuple[str, ...] = ()
    model_aliases: Mapping[str, str] = field(default_factory=dict)
    values: GatewayValues = field(default_factory=GatewayValues)
    host: str = "0.0.0.0"  # noqa: S104 - a Service is in front
    port: int = 8000
    admin_port: int = 8080


def settings_from(environment: Mapping[str, str]) -> Settings:
    """The settings of a gateway's pod. Raises SettingsError."""
    namespace = environment.get("POD_NAMESPACE", "")
    if not namespace:
        raise SettingsError("POD_NAMESPACE is not set")
    try:
        values = GatewayValues.model_validate_json(environment.get(CHART_VARIABLE) or "{}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise SettingsError(f"{CHART_VARIABLE}: {place}: {first['msg']}") from None
    try:
        policy_of(values.webhooks.allow)
    except ValueError as error:
        raise SettingsError(f"{CHART_VARIABLE}: {error}") from None
    unknown = sorted(set(values.dialects) - set(DIALECTS))
    if unknown:
        raise SettingsError(f"{CHART_VARIABLE}: dialects: {', '.join(unknown)}; allowed: {', '.join(DIALECTS)}")
    pairs = (pair.partition("=") for pair in environment.get("KINORA_MODEL_ALIASES", "").split(",") if pair)
    return Settings(
        namespace=namespace,
        instance=environment.get("POD_NAME") or "kinora-gateway",
        namespaces=tuple(name for name in environment.get("KINORA_NAMESPACES", "").split(",") if name),
        model_aliases={name: model for name, _, model in pairs},
        values=values,
        host=environment.get("KINORA_LISTEN_HOST") or "0.0.0.0",  # noqa: S104
        port=int(environment.get("KINORA_GATEWAY_PORT", "8000")),
        admin_port=int(environment.get("KINORA_HTTP_PORT", "8080")),
    )
