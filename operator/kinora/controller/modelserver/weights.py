"""The weights of a ModelServer with sources: which weights Job it wants, whether its volume is verified, what it tells.

Pure. Pods are made when the volume is verified, and not before: a GPU does not wait for a download. What makes it so is
a Job that completed for exactly these sources (or `status.weights.sourcesHash`, which outlives the Job) and no agent
that has since found a file missing or changed; then the Job runs again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kinora.api import names, reasons
from kinora.api.agentconfig import NAMESPACE_VARIABLE, POD_NAME_VARIABLE, POD_UID_VARIABLE
from kinora.api.base import integral
from kinora.api.modelserver import ModelServerSpec
from kinora.api.transitions import rfc3339
from kinora.api.weightsjob import CONFIG_VARIABLE, WeightsConfig, WeightsProgress
from kinora.catalogue.model import Model
from kinora.controller.modelserver import desired
from kinora.controller.modelserver.snapshot import Object, ServerSnapshot, WeightsRun
from kinora.controller.pools.shape import Shape, cpu_shape_of, fitted, own_resources, provider_of
from kinora.controller.settings import Settings
from kinora.weights.plan import human
from kinora.weights.sources import claims_of, read_sources, secrets_of

Body = dict[str, Any]

SETTLE_SECONDS = 60.0  # after a Job's end: agents look again, and caches of a network volume end
TTL_SECONDS = 3600  # a Job that failed is tried anew after that
BACKOFF_LIMIT = 6
_NO_USE = [1, 2, 4]  # exit codes after which another try is of no use (kinora.weights.faults)
_COMPLAINTS = frozenset({reasons.WEIGHTS_MISSING, reasons.WEIGHTS_CHANGED})


@dataclass(frozen=True)
class Volume:
    """What is decided about the weights. `ready`: verified for these sources, as far as the Job is concerned."""

    ready: bool
    reason: str = reasons.WEIGHTS_PRESENT
    message: str = ""
    status: Body | None = None
    create: Body | None = None
    delete: tuple[WeightsRun, ...] = ()
    again_in: float | None = None
    sourced: bool = field(default=True)


def look(snapshot: ServerSnapshot, spec: ModelServerSpec, model: Model, settings: Settings) -> Volume:
    """Decide. Without sources nothing is fetched, and the agents alone say what is there."""
    if not spec.weights.sources:
        stale = None if (snapshot.server.get("status") or {}).get("weights") is None else {"weights": None}
        return Volume(True, status=stale, delete=_others(snapshot, ""), sourced=False)
    config = _config(snapshot.server, spec, model, settings)
    wanted = sources_hash(config)
    run = next((run for run in snapshot.runs if run.sources_hash == wanted and not run.terminating), None)
    others = _others(snapshot, wanted)
    if run is None:
        shape = cpu_shape_of(settings.providers[provider_of(spec.gpu.pools)])
        return _without_run(snapshot, config, wanted, settings, shape, others)
    if run.complete:
        return _completed(snapshot, run, wanted, others)
    progress = WeightsProgress.from_message(run.message)
    if run.failed:
        words = progress.message or run.failure or "the weights Job failed"
        message = f"{words} (Job {run.name}; it is tried again {TTL_SECONDS // 60} minutes after it failed)"
        return Volume(False, reasons.WEIGHTS_FAILED, message, _status(progress, None, None), delete=others)
    reason, message = _under_way(run, progress)
    return Volume(False, reason, message, _status(progress, None, None), delete=others)


def current(snapshot: ServerSnapshot, volume: Volume, hashes: Mapping[str, str]) -> ServerSnapshot:
    """While other weights are on their way no pod is outdated: those that serve go on serving. ``hashes``: by pool."""
    if volume.ready:
        return snapshot
    pods = (replace(pod, template_hash=hashes.get(pod.pool, pod.template_hash)) for pod in snapshot.pods)
    return replace(snapshot, pods=tuple(pods))


_OF_THE_FILES = ("name", "family", "weights")


def sources_hash(config: WeightsConfig) -> str:
    """Sixteen hex digits over what decides which files are there: of the model's entry, no more than its files.

    Else an operator with a better word about a model would have every volume looked at anew.
    """
    told = integral(config.model_dump(mode="json", by_alias=True, exclude_none=True))
    told["entry"] = {field: told["entry"].get(field) for field in _OF_THE_FILES}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _config(server: Object, spec: ModelServerSpec, model: Model, settings: Settings) -> WeightsConfig:
    return WeightsConfig(
        claim=desired.weights_claim(server, spec),
        entry=model.model_dump(mode="json", by_alias=True, exclude={"cost"}),  # another estimate fetches nothing anew
        sources=spec.weights.sources,
        verify=spec.weights.verify,
        quantize=spec.weights.quantize,
        allow_http=settings.weights_rules.allow_http,
        hub=settings.weights_rules.hub,
    )


def _others(snapshot: ServerSnapshot, wanted: str) -> tuple[WeightsRun, ...]:
    """Jobs for sources that are no longer asked for."""
    return tuple(run for run in snapshot.runs if run.sources_hash != wanted and not run.terminating)


def _without_run(  # noqa: PLR0917 - all that a Job is made of
    snapshot: ServerSnapshot,
    config: WeightsConfig,
    wanted: str,
    settings: Settings,
    shape: Shape,
    others: tuple[WeightsRun, ...],
) -> Volume:
    known = (snapshot.server.get("status") or {}).get("weights") or {}
    if known.get("sourcesHash") == wanted and not _complaint(snapshot, None):
        return Volume(True, delete=others)
    body = _job(snapshot.server, config, wanted, settings, shape)
    status = _status(WeightsProgress(), None, None)
    waits = any(run.sources_hash == wanted for run in snapshot.runs)  # the one before is being deleted: same name
    message = f"the weights Job {body['metadata']['name']} is being made"
    return Volume(False, reasons.WEIGHTS_PENDING, message, status, None if waits else body, others)


def _completed(snapshot: ServerSnapshot, run: WeightsRun, wanted: str, others: tuple[WeightsRun, ...]) -> Volume:
    end = run.end_time or snapshot.now
    complaint = _complaint(snapshot, end)
    if complaint is None:
        progress = WeightsProgress.from_message(run.message) if run.reason == reasons.WEIGHTS_PRESENT else None
        return Volume(True, status=_status(progress, wanted, end), delete=others)
    left = SETTLE_SECONDS - (snapshot.now - end).total_seconds()
    if left > 0:
        return Volume(True, status=_status(None, wanted, end), delete=others, again_in=left)
    message = f"fetching again: {complaint}"
    cleared = _status(WeightsProgress(), None, None)
    return Volume(False, reasons.WEIGHTS_PENDING, message, cleared, delete=(*others, run))


def _complaint(snapshot: ServerSnapshot, after: dt.datetime | None) -> str | None:
    """What an agent says of a file, if it found that after the Job had ended (or if there is no Job any more)."""
    for pod in snapshot.pods:
        if pod.terminating or pod.is_lost or pod.engine_reason not in _COMPLAINTS:
            continue
        if after is None or pod.engine_since is None or pod.engine_since >= after.replace(microsecond=0):
            return f"{pod.name}: {pod.engine_message}"
    return None


def _under_way(run: WeightsRun, progress: WeightsProgress) -> tuple[str, str]:
    if not run.reason:
        words = run.waiting_message or "its pod has not told anything yet"
        return reasons.WEIGHTS_PENDING, f"Job {run.name}: {words}"
    if progress.message:
        return run.reason, progress.message
    amount = f"{human(progress.bytes_done)} of {human(progress.bytes_total)}"
    parts = [amount, f"{human(progress.rate)}/s" if progress.rate else "", progress.file]
    return run.reason, ", ".join(part for part in parts if part)


def _status(progress: WeightsProgress | None, wanted: str | None, verified: dt.datetime | None) -> Body:
    """`status.weights`. `wanted`: verified for these sources; None: not, by now. `progress` None: as it was told."""
    weights: Body = {"sourcesHash": wanted}
    if verified is not None:
        weights["verifiedTime"] = rfc3339(verified)
    if progress is not None and progress.bytes_total:
        weights |= {"bytesDone": progress.bytes_done, "bytesTotal": progress.bytes_total}
    if progress is not None and progress.files:
        weights["files"] = [{"name": file.name, "state": file.state} for file in progress.files]
    return {"weights": weights}


# --- the Job ----------------------------------------------------------------------------------------------------------


def _job(server: Object, config: WeightsConfig, wanted: str, settings: Settings, shape: Shape) -> Body:
    metadata = server["metadata"]
    labels = {**desired.labels(server), names.LABEL_COMPONENT: names.COMPONENT_WEIGHTS}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.weights_job_name(metadata["name"], metadata["uid"], wanted),
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {names.ANNOTATION_SOURCES_HASH: wanted},
            "ownerReferences": [desired.owner(server)],
        },
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "weights", "operator": "In", "values": _NO_USE},
                    },
                ]
            },
            "template": {
                "metadata": {
                    "labels": {**shape.labels, **labels},
                    **({"annotations": shape.annotations} if shape.annotations else {}),
                },
                "spec": _pod_spec(config, settings, shape),
            },
        },
    }


def _pod_spec(config: WeightsConfig, settings: Settings, shape: Shape) -> Body:
    sources = read_sources(config.sources, Model.model_validate(config.entry), settings.weights_rules)
    claims, secrets = claims_of(sources), secrets_of(sources)
    spec: Body = {
        "restartPolicy": "Never",
        "serviceAccountName": names.WEIGHTS_SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": names.SHARED_GID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(config, settings, shape, claims, secrets)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": config.claim}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "token", "projected": {"defaultMode": 0o440, "sources": desired.token_sources()}},
            *({"name": f"source-{index}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
              for index, claim in enumerate(claims) if claim != config.claim),
            *({"name": f"secret-{index}", "secret": {"secretName": secret, "defaultMode": 0o440}}
              for index, secret in enumerate(secrets)),
        ],
    }  # fmt: skip
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if shape.node_selector:
        spec["nodeSelector"] = shape.node_selector
    if shape.tolerations:
        spec["tolerations"] = list(shape.tolerations)
    return spec


def _container(config: WeightsConfig, settings: Settings, shape: Shape, claims: list[str], secrets: list[str]) -> Body:
    asked = own_resources("weights", shape, requests={"cpu": "500m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    told = json.dumps(integral(config.model_dump(mode="json", by_alias=True, exclude_none=True)))
    return {
        "name": "weights",
        "image": settings.agent_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["kinora", "weights-job"],
        "env": [
            {"name": CONFIG_VARIABLE, "value": told},
            desired.downward(POD_NAME_VARIABLE, "metadata.name"),
            desired.downward(POD_UID_VARIABLE, "metadata.uid"),
            desired.downward(NAMESPACE_VARIABLE, "metadata.namespace"),
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own emptyDir
        ],
        "securityContext": desired.secured(names.AGENT_UID),
        "volumeMounts": [
            {"name": "models", "mountPath": names.MODELS_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
            *(
                {
                    "name": "models" if claim == config.claim else f"source-{index}",
                    "mountPath": f"{names.SOURCE_CLAIMS_DIR}/{claim}",
                    "readOnly": True,
                }
                for index, claim in enumerate(claims)
            ),
            *(
                {"name": f"secret-{index}", "mountPath": f"{names.SECRETS_DIR}/{secret}", "readOnly": True}
                for index, secret in enumerate(secrets)
            ),
        ],
        "resources": fitted("weights", asked, shape),
    }
