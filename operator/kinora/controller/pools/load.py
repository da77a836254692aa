"""The providers as they ship in the package: one YAML file each, read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files

import yaml
from pydantic import ValidationError

from kinora.api.modelserver import Provider as ProviderName
from kinora.controller.pools.model import Notices, Provider, VirtualNodes


class ProviderError(Exception):
    """A provider's file is not sound. The message names the file, the field, what was found and what is allowed."""


class Providers:
    """All providers by name. Immutable."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._providers = {provider.name: provider for provider in providers}
        missing = [name.value for name in ProviderName if name not in self._providers]
        if missing:
            raise ProviderError(f"providers without a file: {', '.join(missing)}")
        notices = [provider.notices for provider in self]
        virtual = [provider.virtual_nodes for provider in self]
        self.notices = Notices(
            pod_conditions=tuple(sign for notice in notices for sign in notice.pod_conditions),
            node_conditions=tuple(sign for notice in notices for sign in notice.node_conditions),
            node_taints=tuple(taint for notice in notices for taint in notice.node_taints),
        )
        "Of all providers: their words do not collide, and a generic pool may stand on anybody's nodes."
        self.virtual_nodes = VirtualNodes(
            labels={key: value for nodes in virtual for key, value in nodes.labels.items()},
            taint_keys=tuple(key for nodes in virtual for key in nodes.taint_keys),
            name_prefixes=tuple(prefix for nodes in virtual for prefix in nodes.name_prefixes),
        )

    def __getitem__(self, name: ProviderName) -> Provider:
        return self._providers[name]

    def __iter__(self) -> Iterator[Provider]:
        return iter(self._providers.values())


def parse_provider(text: str, origin: str) -> Provider:
    """One provider from YAML text; `origin` names it in errors. Raises ProviderError."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProviderError(f"{origin}: not YAML: {error}") from None
    try:
        return Provider.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']} (found {str(fault['input'])[:80]!r})"
            for fault in error.errors()
        )
        raise ProviderError(f"{origin}: {faults}") from None


@cache
def load_providers() -> Providers:
    """The packaged providers. Raises ProviderError for a bad file, or one of another name."""
    providers = []
    for entry in sorted(files("kinora.controller.pools").joinpath("providers").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            provider = parse_provider(entry.read_text(encoding="utf-8"), entry.name)
            if entry.name != f"{provider.name}.yaml":
                raise ProviderError(f"{entry.name}: name: {provider.name!r} must be the file's name")
            providers.append(provider)
    return Providers(providers)
