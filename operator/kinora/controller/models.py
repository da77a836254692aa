"""The catalogue as the operator has it now: the packaged models, the entries of labelled ConfigMaps, the aliases.

A bad entry takes nothing else with it. A name that was good keeps its last good entry for as long as this process
lives; one that never was is refused, its ModelServers say why, and its jobs wait rather than fail.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kinora.catalogue.load import Catalogue
from kinora.catalogue.own import Own, Read, read_entries, with_own
from kinora.controller.plan import Note
from kinora.engine.entrycheck import entry_fault

log = logging.getLogger(__name__)
Object = dict[str, Any]
BAD_ENTRY = "BadModelEntry"


@dataclass(frozen=True)
class Change:
    """What taking the ConfigMaps anew has changed."""

    models: bool  # jobs and servers may be decided differently
    notes: tuple[tuple[Object, Note], ...]  # events, each for the ConfigMap that it is about


class Models:
    """Holds the catalogue of the moment; `take` replaces it."""

    def __init__(self, packaged: Catalogue, aliases: Mapping[str, str]) -> None:
        self._packaged = packaged
        self._aliases = dict(aliases)
        self._good: dict[str, Own] = {}
        self._told: dict[str, str] = {}
        self.bad: Mapping[str, str] = {}
        self.catalogue = self._aliased(packaged)

    def take(self, maps: Iterable[Object]) -> Change:
        """The ConfigMaps as they all are now."""
        found = {f"{one['metadata']['namespace']}/{one['metadata']['name']}": one for one in maps}
        read = self._checked(
            read_entries({place: one.get("data") or {} for place, one in found.items()}, self._packaged)
        )
        kept = {name: own for name, own in self._good.items() if name in read.bad}
        self._good = {**kept, **read.good}
        before, self.bad = self.catalogue, read.bad
        still_bad = {name: why for name, why in read.bad.items() if name not in kept}
        self.catalogue = self._aliased(with_own(self._packaged, Read(self._good, still_bad)))
        changed = _meaning(before) != _meaning(self.catalogue)
        return Change(changed, tuple(self._notes(found)))

    @property
    def good(self) -> int:
        """How many entries of ConfigMaps are in use, last good ones among them."""
        return len(self._good)

    def _checked(self, read: Read) -> Read:
        """An entry whose graphs an engine would refuse is bad, too."""
        bad = dict(read.bad)
        for name, own in read.good.items():
            known = self._good.get(name)
            fault = "" if known is not None and known.text == own.text else entry_fault(own.model)
            if fault:
                bad[name] = fault
        return Read({name: own for name, own in read.good.items() if name not in bad}, bad)

    def _aliased(self, catalogue: Catalogue) -> Catalogue:
        """With the aliases that lead somewhere; one that leads nowhere is told, and is as unknown as without it."""
        good = {}
        for name, target in self._aliases.items():
            fault = catalogue.alias_fault(name, target)
            if fault:
                log.warning("%s", fault)
            else:
                good[name] = target
        return catalogue.with_aliases(good)

    def _notes(self, maps: Mapping[str, Object]) -> Iterable[tuple[Object, Note]]:
        """One event for each entry that is newly bad, or bad in another way."""
        told = self._told
        self._told = dict(self.bad)
        for name, why in self.bad.items():
            place = next((place for place in maps if f"{place}/" in why), next(iter(maps), None))
            if told.get(name) == why or place is None:
                continue
            log.warning("model entry %s: %s", name, why)
            rest = "its last good entry stays in use" if name in self._good else "the model is not to be had"
            message = f"{name}: {why.removeprefix(f'{place}/')}; {rest}"
            yield maps[place], Note("Warning", BAD_ENTRY, message[:1024], "Read")


def _meaning(catalogue: Catalogue) -> tuple[object, ...]:
    entries = {name: catalogue.entry(name) for name in catalogue.names}
    return tuple(entries.items()), tuple(catalogue.aliases.items()), tuple(catalogue.refused.items())
