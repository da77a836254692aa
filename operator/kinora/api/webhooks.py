"""What operator, gateway and users agree on about webhooks: states, reasons, the Secret's label, the chart's values.

Pure. Who delivers, and when, is the gateway's (kinora.gateway.webhooks).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from pydantic import Field

from kinora.api.allow import Allow
from kinora.api.base import ApiModel
from kinora.api.names import GROUP
from kinora.api.reasons import TERMINAL, Phase
from kinora.api.transitions import is_finished, parse_time

ENABLED_VARIABLE: Final = "KINORA_WEBHOOKS_ENABLED"  # of the operator: whether anybody delivers

#: "true" on a Secret whose owner lets webhooks be signed with what is in it. Without it a user who may make VideoJobs,
#: and read no Secrets, could have any Secret of the namespace used as a key.
LABEL_SECRET: Final = f"{GROUP}/webhook-secret"
DELIVERY_SECONDS: Final = 24 * 3600  # from the job's end, or from the first attempt: then it is given up


class WebhookState(StrEnum):
    """status.webhook.state. Pending: it will be tried, or tried again; the other two stay."""

    PENDING = "Pending"
    DELIVERED = "Delivered"
    FAILED = "Failed"


SETTLED: Final = frozenset({WebhookState.DELIVERED, WebhookState.FAILED})

# --- status.webhook.reason ------------------------------------------------------------------------------------------
NO_ANSWER: Final = "NoAnswer"  # no connection, or no whole head of an answer in time
ANSWERED_WITH_ERROR: Final = "AnsweredWithError"  # an answer other than 2xx and 410
GONE: Final = "Gone"  # the receiver answered 410: it wants no more
INVALID_URL: Final = "InvalidURL"  # it can never be sent to
DESTINATION_REFUSED: Final = "DestinationRefused"  # the guard does not let it be reached
SECRET_NOT_FOUND: Final = "SecretNotFound"  # noqa: S105 - a reason, as those below
SECRET_NOT_LABELLED: Final = "SecretNotLabelled"  # noqa: S105
SECRET_NOT_READABLE: Final = "SecretNotReadable"  # noqa: S105 - the gateway may not read Secrets of the namespace
SECRET_INVALID: Final = "SecretInvalid"  # noqa: S105 - it holds no key that can be used

# --- events -----------------------------------------------------------------------------------------------------------
EVENT_BLOCKED: Final = "WebhookBlocked"  # not sent: the Secret or the destination; tried again
EVENT_GIVEN_UP: Final = "WebhookGivenUp"

#: Field selector of finished jobs with a webhook that is not settled. Both paths are selectable fields of the CRD, so
#: that the API server leaves the others out: those who deliver hold, list and are told of nothing else.
UNDELIVERED: Final = ",".join(
    (
        "spec.webhook.url!=",
        *(f"status.webhook.state!={state}" for state in sorted(SETTLED)),
        *(f"status.phase!={phase}" for phase in Phase if phase not in TERMINAL),
    )
)


class Destinations(Allow):
    """Where webhooks may go."""

    http: bool = False


class WebhookValues(ApiModel):
    """The chart's values under `gateway.webhooks`.

    Attributes:
        shards: how many parts the jobs are dealt into; each is delivered by one replica at a time.
        parallel: deliveries at a time, of each replica.
        per_host: of these, to one host.
        timeout_seconds: of one delivery, from the name's resolution to the head of the answer.
        allow: destinations besides the public internet.
    """

    enabled: bool = True
    shards: int = Field(8, ge=1, le=64)
    parallel: int = Field(64, ge=1, le=1024)
    per_host: int = Field(4, ge=1, le=64)
    timeout_seconds: float = Field(15.0, gt=0, le=60)
    allow: Destinations = Field(default_factory=Destinations)


def is_undelivered(job: Mapping[str, Any]) -> bool:
    """Whether a job has ended, has a webhook, and it is neither delivered nor given up."""
    status = job.get("status") or {}
    return (
        bool((job["spec"].get("webhook") or {}).get("url"))
        and is_finished(status)
        and (status.get("webhook") or {}).get("state") not in SETTLED
    )


def keeps_job(job: Mapping[str, Any], now: dt.datetime) -> bool:
    """Whether a finished job must stay although its time to live is over: its webhook may still be delivered.

    Never longer than it would be tried, and some: where nobody delivers, it is not kept for good.
    """
    ended = (job.get("status") or {}).get("completionTime")
    if not ended or not is_undelivered(job):
        return False
    return now < parse_time(ended) + dt.timedelta(seconds=1.25 * DELIVERY_SECONDS)
