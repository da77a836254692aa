"""The shape of a provider's data: what its pods carry, how its cards are named, how it tells that capacity goes.

Pydantic models only, frozen, unknown fields refused. No I/O.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from kinora.api.modelserver import Capacity
from kinora.api.modelserver import Provider as ProviderName


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Toleration(_Entry):
    """A toleration as a pod has it."""

    key: str | None = None
    operator: Annotated[str, StringConstraints(pattern="^(Exists|Equal)$")]
    value: str | None = None
    effect: Annotated[str, StringConstraints(pattern="^(NoSchedule|NoExecute|PreferNoSchedule)$")] | None = None

    def as_field(self) -> dict[str, Any]:
        """The entry of spec.tolerations."""
        return self.model_dump(by_alias=True, exclude_none=True)


class Marks(_Entry):
    """What a pod carries so that the provider treats it as meant."""

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


class CapacityRules(Marks):
    """One kind of capacity: its marks, and the labels of its nodes."""

    node_labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    "One of these values, of the keys that the way of making nodes has (`Provider.nodes`)."
    not_node_labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    "None of these values; a node without the label will do."
    gpu_label_as_node_selector: bool = False
    "The pod label that names the card is a node selector here."


class Card(_Entry):
    """One GPU model. ``name`` is what a pool's gpuModel says; memory and capability are of one card."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    memory_gib: int = Field(alias="memoryGiB", gt=0)
    compute_capability: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")] | None = None
    "CUDA compute capability; null where the maker does not tell, or the card has none."
    pod_labels: dict[str, str] = Field(default_factory=dict)
    node_labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    resource_name: str | None = None
    "Where it is not the provider's usual one."


class GpuRules(_Entry):
    """How GPUs are asked for."""

    resource_name: str
    required: bool = False
    "Whether a pod with a GPU must name its model."
    marks: Marks = Marks()
    cards: tuple[Card, ...] = ()

    @model_validator(mode="after")
    def _one_entry_a_name(self) -> Self:
        names = [card.name for card in self.cards]
        if len(set(names)) != len(names):
            raise ValueError("two cards have the same name")
        return self

    def card(self, name: str) -> Card | None:
        """The card of that name."""
        return next((card for card in self.cards if card.name == name), None)


class ContainerRules(_Entry):
    """What every container has, init containers too."""

    requests_equal_limits: bool = False
    resources: dict[str, dict[str, str]] = Field(default_factory=dict)
    "By container name (``*``: any other): quantities of what its own resources do not say."
    cpu_pods: dict[str, dict[str, str]] = Field(default_factory=dict)
    "The same, for pods that are no server pods (weights Job, stager). Apart: no server pod's hash rests on it."
    env_names: str | None = None
    "A regular expression that each environment variable's name must match, where the provider has one."


class NodeWay(_Entry):
    """One way in which nodes are made, by the labels that such nodes have."""

    name: str
    keys: tuple[str, ...] = Field(min_length=1)


class Sign(_Entry):
    """A condition that tells of an end."""

    type: str
    messages: tuple[str, ...] = ()
    "One of these words must be in its message; none: any message."


class Taint(_Entry):
    """A taint that tells of an end."""

    key: str
    value: str | None = None


class Notices(_Entry):
    """How the provider says that a pod's capacity goes away soon."""

    pod_conditions: tuple[Sign, ...] = ()
    node_conditions: tuple[Sign, ...] = ()
    node_taints: tuple[Taint, ...] = ()


class VirtualNodes(_Entry):
    """How a virtual node is known: its conditions and taints say nothing of one pod (decisions.md, 15)."""

    labels: dict[str, str] = Field(default_factory=dict)
    taint_keys: tuple[str, ...] = ()
    name_prefixes: tuple[str, ...] = ()


class Provider(_Entry):
    """One provider."""

    name: ProviderName
    display_name: str
    sources: tuple[str, ...]
    "Where the facts are from."
    marks: Marks = Marks()
    without_gpu: Marks = Marks()
    gpu: GpuRules
    capacities: dict[Capacity, CapacityRules]
    nodes: tuple[NodeWay, ...] = ()
    "None: one way, whose nodes have all the labels."
    containers: ContainerRules = ContainerRules()
    notices: Notices = Notices()
    virtual_nodes: VirtualNodes = VirtualNodes()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        missing = [capacity.value for capacity in Capacity if capacity not in self.capacities]
        if missing:
            raise ValueError(f"capacities without an entry: {', '.join(missing)}")
        return self
