"""What one pool asks of a pod: the provider's data for its capacity and GPU model, and the pool's own fields. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kinora.api.modelserver import Pool
from kinora.api.modelserver import Provider as ProviderName
from kinora.controller.pools.model import Card, Marks, Provider

Body = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What a pod of the pool has beside what every server pod has.

    ``terms`` are the alternatives of a required node affinity, each a tuple of match expressions; a single one of
    single values is in ``node_selector`` instead. ``defaults``: by container name, quantities that it gets where its
    own resources say nothing.
    """

    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Body, ...] = ()
    terms: tuple[tuple[Body, ...], ...] = ()
    resource_name: str = ""
    requests_equal_limits: bool = False
    defaults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def used(self) -> Body:
        """The shape as JSON without what is empty: part of a template's hash, blind to fields that come later."""
        values = {name: value for name, value in vars(self).items() if value}
        body: Body = json.loads(json.dumps(values, sort_keys=True))
        return body


def shape_of(provider: Provider, pool: Pool, *, gpus: int) -> Shape:
    """The shape of a pool's pods. ``gpus``: GPUs a pod asks for by count.

    A pool that names a gpuModel is placed by it at a count of 0 too (its GPU then comes by a resource claim).
    """
    capacity = provider.capacities[pool.capacity]
    card = provider.gpu.card(pool.gpu_model) if pool.gpu_model else None
    with_gpu = gpus > 0 or card is not None
    marks: list[Marks] = [provider.marks, *([provider.gpu.marks] if with_gpu else []), capacity]
    if not with_gpu:
        marks.append(provider.without_gpu)  # last: it has another word for what the capacity says of GPUs
    labels = _merged(mark.labels for mark in marks)
    selector = _merged(mark.node_selector for mark in marks)
    if card is not None:
        (selector if capacity.gpu_label_as_node_selector else labels).update(card.pod_labels)
    terms = _terms(provider, pool, card)
    if len(terms) == 1 and all(rule["operator"] == "In" and len(rule["values"]) == 1 for rule in terms[0]):
        selector |= {rule["key"]: rule["values"][0] for rule in terms[0]}
        terms = ()
    return Shape(
        labels={**labels, **pool.labels},
        annotations={**_merged(mark.annotations for mark in marks), **pool.annotations},
        node_selector={**selector, **pool.node_selector},
        tolerations=_distinct([*(entry.as_field() for mark in marks for entry in mark.tolerations), *pool.tolerations]),
        terms=terms,
        resource_name=pool.resource_name or (card and card.resource_name) or provider.gpu.resource_name,
        requests_equal_limits=provider.containers.requests_equal_limits,
        defaults=provider.containers.resources,
    )


def cpu_shape_of(provider: Provider) -> Shape:
    """The shape of pods that ask for no GPU and belong to no pool: a weights Job's, a stager's.

    Of a pool's capacity and card there is nothing in it, nor of the pool's own fields, which choose GPU nodes.
    """
    marks = (provider.marks, provider.without_gpu)
    return Shape(
        labels=_merged(mark.labels for mark in marks),
        annotations=_merged(mark.annotations for mark in marks),
        node_selector=_merged(mark.node_selector for mark in marks),
        tolerations=_distinct([entry.as_field() for mark in marks for entry in mark.tolerations]),
        requests_equal_limits=provider.containers.requests_equal_limits,
        defaults=provider.containers.cpu_pods,
    )


def provider_of(pools: Iterable[Mapping[str, Any] | Pool]) -> ProviderName:
    """Whose cluster it is, by pools as a spec has them, or as they were read: the first that is not generic."""
    for pool in pools:
        name = pool.provider if isinstance(pool, Pool) else pool.get("provider")
        if name in set(ProviderName) - {ProviderName.GENERIC}:
            return ProviderName(name)
    return ProviderName.GENERIC


def fitted(name: str, resources: Mapping[str, Any], shape: Shape) -> Body:
    """A container's resources by the provider's rules: its quantities where there are none, requests = limits."""
    defaults = shape.defaults.get(name, shape.defaults.get("*", {}))
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if shape.requests_equal_limits:
        equal = {**defaults, **requests, **limits}
        requests, limits = equal, dict(equal)
    elif defaults:
        requests = {**defaults, **limits, **requests}
    asked = (("requests", requests), ("limits", limits))
    return {**resources, **{field: value for field, value in asked if value}}


def own_resources(name: str, shape: Shape, *, requests: Body, limits: Body) -> Body:
    """Of a container of Kinora's own, before they are `fitted`: the provider's quantities where it has any."""
    return {} if name in shape.defaults else {"requests": requests, "limits": limits}


def _merged(maps: Iterator[dict[str, str]]) -> dict[str, str]:
    out: dict[str, str] = {}
    for entries in maps:
        out |= entries
    return out


def _distinct(entries: list[Body]) -> tuple[Body, ...]:
    """Without repetitions, in order."""
    return tuple(entry for index, entry in enumerate(entries) if entry not in entries[:index])


def _terms(provider: Provider, pool: Pool, card: Card | None) -> tuple[tuple[Body, ...], ...]:
    """One alternative for each way in which the provider's nodes are made."""
    capacity = provider.capacities[pool.capacity]
    wanted = {**capacity.node_labels, **(card.node_labels if card else {})}
    unwanted = tuple(_rule(key, "NotIn", values) for key, values in capacity.not_node_labels.items())
    ways = [way.keys for way in provider.nodes] or [tuple(wanted)]
    if card is not None and card.node_labels:  # a way without a word for the card would take any
        ways = [keys for keys in ways if card.node_labels.keys() & set(keys)]
    terms = [
        tuple(_rule(key, "In", values) for key, values in wanted.items() if key in keys) + unwanted for keys in ways
    ]
    return tuple(term for index, term in enumerate(terms) if term and term not in terms[:index])


def _rule(key: str, operator: str, values: tuple[str, ...]) -> Body:
    return {"key": key, "operator": operator, "values": list(values)}
