"""`kinora keys new`: a random key, and the entry for the gateway's Secret. Nothing is asked of a cluster."""

from __future__ import annotations

import json
import re
import secrets
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from kinora.gateway.settings import GatewayValues
from kinora.gateway.tenants import EntryError, Limits, entry_text, hash_of, parse_entry

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


class KeysError(Exception):
    """What was asked for cannot be; the message says what is allowed."""


@dataclass(frozen=True)
class Wanted:
    """The options of the command."""

    name: str
    namespace: str
    queue: str
    tenant: str | None
    dialects: tuple[str, ...]
    limits: tuple[str, ...]
    days: int | None


@dataclass(frozen=True)
class Made:
    """The key itself, its entry, and the command that adds the entry."""

    key: str
    entry: str
    advice: str


def new(wanted: Wanted) -> Made:
    """A new key of 32 random bytes. Raises KeysError."""
    if not _NAME.fullmatch(wanted.name) or len(wanted.name) > 63:
        raise KeysError(f"NAME is {wanted.name!r}; allowed: letters, digits, -, _ and . (1 to 63)")
    key = f"kn-{secrets.token_urlsafe(32)}"
    entry: dict[str, object] = {
        "hashes": [hash_of(key)],
        "namespace": wanted.namespace,
        "queue": wanted.queue,
        "limits": _limits(wanted.limits),
    }
    if wanted.tenant:
        entry["tenant"] = wanted.tenant
    if wanted.dialects:
        entry["dialects"] = list(wanted.dialects)
    if wanted.days:
        entry["expires"] = (datetime.now(UTC) + timedelta(days=wanted.days)).isoformat(timespec="seconds")
    try:
        text = entry_text(parse_entry(wanted.name, json.dumps(entry)))
    except EntryError as error:
        raise KeysError(str(error)) from None
    return Made(key, text, _advice(wanted.name, text))


def _limits(given: tuple[str, ...]) -> dict[str, object]:
    allowed = {str(field.alias or name) for name, field in Limits.model_fields.items()}
    found: dict[str, object] = {}
    for one in given:
        name, _, number = one.partition("=")
        if name not in allowed or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", number):
            raise KeysError(f"--limit {one}; allowed: NAME=NUMBER with a NAME of {', '.join(sorted(allowed))}")
        found[name] = float(number) if "." in number else int(number)
    try:
        Limits.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise KeysError(f"--limit {first['loc'][0]}: {first['msg']}") from None
    return found


def _advice(name: str, text: str) -> str:
    secret = GatewayValues().keys_secret
    patch = json.dumps({"stringData": {name: text}})
    return (
        f"add its entry, in the namespace of the gateway:\n"
        f"  kubectl create secret generic {secret} --dry-run=client -o yaml | kubectl apply -f -   # once\n"
        f"  kubectl patch secret {secret} --type merge -p {shlex.quote(patch)}"
    )
