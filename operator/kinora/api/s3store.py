"""`spec.artifacts.s3` of a ModelServer: the bucket of its artifacts, and what of it cannot work. No other resource.

Rules stand in the CRD, so that the API server refuses when it is applied; the same in Python is `kinora validate`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from kinora.api.base import ApiModel, Finding, ObjectName, Rule, cel, rule
from kinora.api.videojob import ConfigMapSource


class Addressing(StrEnum):
    """How a bucket is named in a URL: in the path, or in the host's name."""

    PATH = "Path"
    VIRTUAL_HOSTED = "VirtualHosted"


class Access(StrEnum):
    """How agents reach a bucket that has a Secret: by URLs that the store's stager signs, or with its keys."""

    BROKER = "Broker"
    SECRET = "Secret"  # noqa: S105 - a word


_ENDPOINT = r"https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?"
_ENDPOINT_ALLOWED = "https:// or http://, a host, and a port where it is needed; no user, path or query"
_KEY_PREFIX = r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*/?"
_KEY_PREFIX_ALLOWED = "a relative path whose parts begin with a letter, a digit or _ and hold only those, - and ."
_ADDRESS = r"https?://([0-9.]+|\[.*\])(:[0-9]+)?/?"  # an IP address in the place of a host name
_OSS = r"https?://[^/:]*\.aliyuncs\.com(:[0-9]+)?/?"


def _text_rule(field: str, pattern: str, allowed: str) -> Rule:
    def meaning(value: Any) -> Iterator[Finding]:
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            yield Finding("", value, allowed)

    return rule(f"self.matches(r'^({pattern})$')", f"'{field} is ' + self + '; allowed: {allowed}'", meaning=meaning)


def _s3_rule(wrong: str, field: str, value: str, allowed: str, is_wrong: Callable[[Any], bool]) -> Rule:
    """A combination that cannot work: `wrong` in CEL, `is_wrong` the same in Python."""

    def meaning(given: Any) -> Iterator[Finding]:
        if isinstance(given, Mapping) and is_wrong(given):
            yield Finding(field, value, allowed)

    return rule(f"!({wrong})", f"{field} is {value}; allowed: {allowed}", meaning=meaning)


def _is(given: Any, field: str, pattern: str) -> bool:
    value = given.get(field)
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


_HOSTED = "has(self.addressing) && self.addressing == 'VirtualHosted'"
_IN_PATH = "has(self.addressing) && self.addressing == 'Path'"
_S3_RULES = (
    _s3_rule(
        f"{_HOSTED} && has(self.endpoint) && self.endpoint.matches(r'^({_ADDRESS})$')",
        "addressing", "VirtualHosted", "Path, as the endpoint is an IP address",
        lambda it: _is(it, "addressing", "VirtualHosted") and _is(it, "endpoint", _ADDRESS),
    ),
    _s3_rule(
        f"{_HOSTED} && self.bucket.contains('.')",
        "addressing", "VirtualHosted", "Path, as no certificate covers a bucket with a dot in its name",
        lambda it: _is(it, "addressing", "VirtualHosted") and _is(it, "bucket", r".*\..*"),
    ),
    _s3_rule(
        f"{_IN_PATH} && has(self.endpoint) && self.endpoint.matches(r'^({_OSS})$')",
        "addressing", "Path", "VirtualHosted, as OSS takes nothing else",
        lambda it: _is(it, "addressing", "Path") and _is(it, "endpoint", _OSS),
    ),
    _s3_rule(
        "has(self.caConfigMap) && !(has(self.endpoint) && self.endpoint.startsWith('https://'))",
        "caConfigMap", "set", "unset, unless endpoint begins with https://",
        lambda it: it.get("caConfigMap") is not None and not _is(it, "endpoint", "https://.*"),
    ),
)  # fmt: skip
_Endpoint = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class S3Store(ApiModel):
    """An S3-compatible bucket (docs/storage.md). What is not given follows from the endpoint, or is AWS's.

    secretName: accessKeyID, secretAccessKey, sessionToken; without it requests are not signed. publicEndpoint: where
    links for users lead. caConfigMap: the PEM certificates that the endpoint is trusted by. access: whether agents get
    presigned URLs for their own jobs (Broker), or the Secret itself; where no stagers run, it is the Secret.
    """

    model_config = ConfigDict(json_schema_extra=cel(*_S3_RULES))

    bucket: Annotated[str, StringConstraints(min_length=3, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    endpoint: _Endpoint | None = Field(
        None, json_schema_extra=cel(_text_rule("endpoint", _ENDPOINT, _ENDPOINT_ALLOWED))
    )
    region: Annotated[str, StringConstraints(pattern="^[-a-z0-9]+$", max_length=63)] | None = None
    addressing: Addressing | None = None
    prefix: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = Field(
        None, json_schema_extra=cel(_text_rule("prefix", _KEY_PREFIX, _KEY_PREFIX_ALLOWED))
    )
    secret_name: ObjectName | None = None
    public_endpoint: _Endpoint | None = Field(
        None, json_schema_extra=cel(_text_rule("publicEndpoint", _ENDPOINT, _ENDPOINT_ALLOWED))
    )
    ca_config_map: ConfigMapSource | None = None
    access: Access = Access.BROKER


def s3_root(bucket: str, prefix: str | None) -> str:
    """`s3://bucket/prefix/`, as it begins the uri of everything in the store."""
    return f"s3://{bucket}/{key_prefix(prefix)}"


def key_prefix(prefix: str | None) -> str:
    """What whole keys begin with: empty, or with a `/` at its end."""
    return f"{prefix.removesuffix('/')}/" if prefix else ""
