"""Names that the gateway gives: (tenant, id) <-> VideoJob, labels, the annotation with a dialect's note. Pure.

An object's name is made of the tenant and the id, so that another tenant's id leads nowhere, and no table is needed.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

from kinora.api.names import GATEWAY_JOB, GROUP
from kinora.gateway.tenants import Tenant

LABEL_REQUEST: Final = f"{GROUP}/request"
ANNOTATION_NOTE: Final = f"{GROUP}/gateway"

_PREFIX: Final = "gw"
_IDEMPOTENT: Final = uuid.UUID("5f9f4bb2-8f5c-5f0e-9d0c-3b1a3f6f2c11")  # of our own; its value has no meaning


def is_id(text: str) -> bool:
    """Whether the text is a UUID in canonical form: the only form of an id."""
    try:
        return str(uuid.UUID(text)) == text
    except (ValueError, AttributeError):
        return False


def job_name(tenant: Tenant, id_: str) -> str:
    """The name of the tenant's VideoJob of that id: `gw-<tenant's digest>-<id>`."""
    return f"{_PREFIX}-{tenant.digest}-{id_}"


def id_of(name: str) -> str | None:
    """The id in an object's name; None where the gateway did not give the name."""
    found = GATEWAY_JOB.fullmatch(name)
    return found["id"] if found else None


def new_id() -> str:
    """A new id: random."""
    return str(uuid.uuid4())


def id_of_key(tenant: Tenant, idempotency_key: str) -> str:
    """The id that follows from a tenant's Idempotency-Key: asking twice makes one object."""
    return str(uuid.uuid5(_IDEMPOTENT, f"{tenant.name}\n{idempotency_key}"))


def request_digest(body: bytes) -> str:
    """Twenty hex digits of a request's body, as a label and in the note."""
    return hashlib.sha256(body).hexdigest()[:20]
