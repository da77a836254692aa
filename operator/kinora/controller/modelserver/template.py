"""spec.podTemplate: what of a server pod it may not set, and how the rest is merged into it. Pure.

Merged by Kubernetes' own keys: containers, init containers, volumes and environment by name, mounts by their path,
claims and gates by name; tolerations are appended, maps merged, other lists replaced. A volume or a variable of the
same name is replaced whole, for two sources of one are an error. What makes a pod a server pod is not for change: the
agent, the supervisor, the account and its token, the folders that engine and agent share.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kinora.api import names
from kinora.api.base import Finding
from kinora.controller import storevolumes

Body = dict[str, Any]
ROOT = "spec.podTemplate"

_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "claims": "name",
    "schedulingGates": "name",
    "readinessGates": "conditionType",
}
_APPENDED = frozenset({"tolerations", "topologySpreadConstraints", "envFrom"})
_WHOLE = frozenset({"volumes", "env"})

_POD_FIELDS: Mapping[str, str] = {
    "serviceAccountName": f"unset; server pods run as {names.AGENT_SERVICE_ACCOUNT}",
    "serviceAccount": f"unset; server pods run as {names.AGENT_SERVICE_ACCOUNT}",
    "automountServiceAccountToken": "unset; the token is the agent's alone",
    "shareProcessNamespace": "unset; engine and agent must not see each other's processes",
    "restartPolicy": "unset; it is Always",
    "terminationGracePeriodSeconds": "unset; set spec.drainSeconds",
    "activeDeadlineSeconds": "unset; it would end renders",
    "enableServiceLinks": "unset; it is false",
    "ephemeralContainers": "unset",
    "nodeName": "unset; set a pool's nodeSelector",
}
_ENGINE_FIELDS: Mapping[str, str] = {
    "image": "unset; set spec.engine.image",
    "command": "unset; the supervisor runs the engine",
    "args": "unset; set spec.engine.args",
    "restartPolicy": "unset; it is Always",
    "livenessProbe": "unset; the agent looks after the engine",
    "readinessProbe": "unset; the agent looks after the engine",
    "startupProbe": "unset; the agent looks after the engine",
}
_OWN_CONTAINERS = frozenset({names.CONTAINER_AGENT, names.CONTAINER_INSTALL})
# Volumes that stay as they are, and of those the ones that no container but the agent may mount.
_FIXED_VOLUMES = frozenset({"run", "models", "token"}) | storevolumes.VOLUMES
_AGENT_VOLUMES = frozenset({"token", "agent-tmp"}) | storevolumes.VOLUMES
_ENGINE_PATHS = frozenset(
    {names.RUN_DIR, names.INPUT_DIR, names.OUTPUT_DIR, names.TEMP_DIR, names.MODELS_DIR, "/tmp", "/dev/shm"}  # noqa: S108
)
_IDENTITY_LABELS = frozenset({names.LABEL_NAME, names.LABEL_COMPONENT, names.LABEL_MANAGED_BY})


@dataclass(frozen=True)
class Broken(Finding):
    """A finding about the shape of the template, not about what it asks for."""


def identity_fault(label: str, value: object, path: str) -> Iterator[Finding]:
    """A label or annotation by which the operator knows its pods."""
    if label in _IDENTITY_LABELS or label.partition("/")[0] == names.GROUP:
        yield Finding(f"{path}.{label}", value, f"keys other than {names.GROUP}/* and those of Kinora's children")


def faults(template: Mapping[str, Any], env_names: str | None = None) -> Iterator[Finding]:
    """What the template may not set, or cannot be read. ``env_names``: a provider's rule for variables' names."""
    for field in template:
        if field not in {"metadata", "spec"}:
            yield Finding(f"{ROOT}.{field}", _shown(template[field]), "metadata, spec")
    yield from _metadata_faults(template.get("metadata") or {})
    spec = template.get("spec") or {}
    if not isinstance(spec, Mapping):
        yield Broken(f"{ROOT}.spec", _shown(spec), "a mapping of fields")
        return
    for field, value in spec.items():
        if field.startswith("host"):
            yield Finding(f"{ROOT}.spec.{field}", _shown(value), "unset; server pods have nothing of their host's")
        elif field in _POD_FIELDS:
            yield Finding(f"{ROOT}.spec.{field}", _shown(value), _POD_FIELDS[field])
    broken = [fault for field in _KEYS for fault in _list_faults(spec, field, f"{ROOT}.spec")]
    yield from broken
    yield from _type_faults(spec, f"{ROOT}.spec", maps=("securityContext", "nodeSelector"), lists=("tolerations",))
    yield from _affinity_faults(spec.get("affinity"))
    if not broken:
        for path, volume in _items(spec, "volumes"):
            yield from _volume_faults(path, volume)
        for field in ("initContainers", "containers"):
            for path, container in _items(spec, field):
                yield from _container_faults(path, container, env_names)


def _metadata_faults(metadata: object) -> Iterator[Finding]:
    if not isinstance(metadata, Mapping):
        yield Broken(f"{ROOT}.metadata", _shown(metadata), "labels, annotations")
        return
    for field, entries in metadata.items():
        path = f"{ROOT}.metadata.{field}"
        if field not in {"labels", "annotations"}:
            yield Finding(path, _shown(entries), "labels, annotations")
        elif not isinstance(entries, Mapping) or not all(isinstance(value, str) for value in entries.values()):
            yield Broken(path, _shown(entries), "a mapping of text to text")
        else:
            for key, value in entries.items():
                yield from identity_fault(key, value, path)


def _items(holder: Mapping[str, Any], field: str, path: str = f"{ROOT}.spec") -> Iterator[tuple[str, Body]]:
    for index, item in enumerate(holder.get(field) or []):
        yield f"{path}.{field}[{index}]", item


def _list_faults(holder: Mapping[str, Any], field: str, path: str) -> Iterator[Finding]:
    """Whether a keyed list is one, its items have their key, and no key comes twice."""
    items = holder.get(field)
    if items is None:
        return
    if not isinstance(items, list):
        yield Broken(f"{path}.{field}", _shown(items), "a list")
        return
    seen: set[object] = set()
    for index, item in enumerate(items):
        key = item.get(_KEYS[field]) if isinstance(item, Mapping) else None
        place = f"{path}.{field}[{index}]"
        if not isinstance(key, (str, int)):
            yield Broken(place, _shown(item), f"a mapping with {_KEYS[field]}")
        elif key in seen:
            yield Broken(f"{place}.{_KEYS[field]}", key, "each once")
        else:
            seen.add(key)


def _type_faults(
    holder: Mapping[str, Any], path: str, *, maps: tuple[str, ...], lists: tuple[str, ...] = ()
) -> Iterator[Finding]:
    """Whether what is merged with the pod's own is of its kind."""
    for fields, kind, words in ((maps, Mapping, "a mapping of fields"), (lists, list, "a list")):
        for field in fields:
            value = holder.get(field)
            if value is not None and not isinstance(value, kind):
                yield Broken(f"{path}.{field}", _shown(value), words)


def _volume_faults(path: str, volume: Body) -> Iterator[Finding]:
    name = volume["name"]
    if name in _FIXED_VOLUMES or str(name).startswith("claim-"):
        yield Finding(f"{path}.name", name, "names other than those of Kinora's own volumes")
    if "hostPath" in volume:
        yield Finding(f"{path}.hostPath", _shown(volume["hostPath"]), "other kinds of volumes")
    sources = (volume.get("projected") or {}).get("sources") if isinstance(volume.get("projected"), Mapping) else None
    for index, source in enumerate(sources or []):
        if isinstance(source, Mapping) and "serviceAccountToken" in source:
            place = f"{path}.projected.sources[{index}].serviceAccountToken"
            yield Finding(place, _shown(source["serviceAccountToken"]), "unset; the token is the agent's alone")


def _affinity_faults(affinity: object) -> Iterator[Finding]:
    """Whether it can be merged with the pool's; the API server judges the rest."""
    path = f"{ROOT}.spec.affinity"
    node = affinity.get("nodeAffinity") if isinstance(affinity, Mapping) else affinity
    if affinity is not None and not (isinstance(affinity, Mapping) and isinstance(node or {}, Mapping)):
        yield Broken(path, _shown(affinity), "a mapping with nodeAffinity, podAffinity, podAntiAffinity")
    elif isinstance(node, Mapping):
        required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
        terms = required.get("nodeSelectorTerms") if isinstance(required, Mapping) else required
        if not isinstance(terms or [], list) or not all(isinstance(term, Mapping) for term in terms or []):
            yield Broken(f"{path}.nodeAffinity", _shown(node), "nodeSelectorTerms as a list of mappings")


def _container_faults(path: str, container: Body, env_names: str | None) -> Iterator[Finding]:
    name = container["name"]
    if name in _OWN_CONTAINERS:
        yield Finding(f"{path}.name", name, f"{names.CONTAINER_ENGINE}, or containers of your own")
        return
    is_engine = name == names.CONTAINER_ENGINE
    for field, allowed in _ENGINE_FIELDS.items() if is_engine else ():
        if field in container:
            yield Finding(f"{path}.{field}", _shown(container[field]), allowed)
    lists = ("env", "volumeMounts", "volumeDevices", "ports")
    broken = [fault for field in lists for fault in _list_faults(container, field, path)]
    resources = container.get("resources") or {}
    broken += _type_faults(container, path, maps=("securityContext", "resources"))
    if isinstance(resources, Mapping):
        broken += _list_faults(resources, "claims", f"{path}.resources")
        broken += _type_faults(resources, f"{path}.resources", maps=("requests", "limits"))
    yield from broken
    if broken:
        return
    for place, mount in _items(container, "volumeMounts", path):
        if mount.get("name") in _AGENT_VOLUMES or str(mount.get("name")).startswith("claim-"):
            yield Finding(f"{place}.name", mount["name"], "volumes other than the agent's own")
        if is_engine and str(mount["mountPath"]).rstrip("/") in _ENGINE_PATHS:
            yield Finding(f"{place}.mountPath", mount["mountPath"], "paths other than those of Kinora's own folders")
    for place, variable in _items(container, "env", path):
        if env_names and not re.fullmatch(env_names, str(variable["name"])):
            yield Finding(f"{place}.name", variable["name"], f"names that match {env_names} (the provider's rule)")


def _shown(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, Mapping)):
        return f"a list of {len(value)}" if isinstance(value, list) else "a mapping"
    return value


def merge(pod: Body, template: Mapping[str, Any]) -> Body:
    """The pod with the template in it; the template has no faults. Neither is changed."""
    out = copy.deepcopy(pod)
    extra = _without_nulls(template.get("spec") or {})
    for field, entries in (template.get("metadata") or {}).items():
        out["metadata"][field] = {**out["metadata"].get(field, {}), **entries}
    _engine_to_its_list(extra)
    affinity = extra.pop("affinity", None)
    own_first = [container["name"] for container in out["spec"]["initContainers"]]
    out["spec"] = _merged_map(out["spec"], extra)
    out["spec"]["initContainers"].sort(key=lambda one: _turn(one["name"], own_first))
    if affinity:
        out["spec"]["affinity"] = with_affinity(out["spec"].get("affinity") or {}, affinity)
    return out


def _without_nulls(value: Any) -> Any:
    """A copy in which a null is not there: in a manifest it says that a field is not set."""
    if isinstance(value, Mapping):
        return {field: _without_nulls(item) for field, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _engine_to_its_list(extra: Body) -> None:
    """The engine is a sidecar, an init container by its list; who changes it may call it a container."""
    for container in list(extra.get("containers") or []):
        if container["name"] == names.CONTAINER_ENGINE:
            extra["containers"].remove(container)
            extra.setdefault("initContainers", []).append(container)


def _turn(name: str, own: list[str]) -> int:
    """The supervisor's copy first, the engine last: init containers of others have ended when it starts."""
    if name == names.CONTAINER_ENGINE:
        return 2
    return 0 if name in own else 1


def _merged_map(base: Body, extra: Mapping[str, Any]) -> Body:
    out = dict(base)
    for field, value in extra.items():
        known = out.get(field)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            out[field] = _merged_map(dict(known), value)
        elif isinstance(value, list) and isinstance(known, list):
            out[field] = _merged_list(field, known, value)
        else:
            out[field] = value
    return out


def _merged_list(field: str, base: list[Any], extra: list[Any]) -> list[Any]:
    if field in _APPENDED:
        return base + [item for item in extra if item not in base]
    if field not in _KEYS:
        return extra
    key, out = _KEYS[field], list(base)
    for item in extra:
        place = next((index for index, known in enumerate(out) if known[key] == item[key]), None)
        if place is None:
            out.append(item)
        else:
            out[place] = item if field in _WHOLE else _merged_map(out[place], item)
    return out


def with_affinity(base: Body, extra: Mapping[str, Any]) -> Body:
    """Both affinities at once: alternatives of required node terms hold each with each, preferences are appended."""
    required, preferred = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    )
    out = {**base, **{name: value for name, value in extra.items() if name != "nodeAffinity"}}
    ours, theirs = dict(base.get("nodeAffinity") or {}), dict(extra.get("nodeAffinity") or {})
    terms = [((side.get(required) or {}).get("nodeSelectorTerms") or [{}]) for side in (ours, theirs)]
    both = [_and(left, right) for left in terms[0] for right in terms[1]]
    node: Body = {}
    if any(both):
        node[required] = {"nodeSelectorTerms": both}
    if ours.get(preferred) or theirs.get(preferred):
        node[preferred] = [*(ours.get(preferred) or []), *(theirs.get(preferred) or [])]
    return {**out, "nodeAffinity": node} if node else out


def _and(left: Body, right: Body) -> Body:
    out: Body = {}
    for field in ("matchExpressions", "matchFields"):
        rules = [*(left.get(field) or []), *(right.get(field) or [])]
        if rules:
            out[field] = rules
    return out
