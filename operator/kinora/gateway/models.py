"""Which models there are for the gateway: the packaged ones, an administrator's own, aliases. The shell around them is
main.py, which watches the ConfigMaps."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from kinora.catalogue.load import Catalogue
from kinora.catalogue.own import read_entries, with_own

log = logging.getLogger(__name__)


def catalogue_of(packaged: Catalogue, aliases: Mapping[str, str], maps: Iterable[Mapping[str, Any]]) -> Catalogue:
    """The catalogue with the entries of these ConfigMaps and the aliases that lead somewhere.

    Bad entries are left out; the operator, which reads the same ConfigMaps, tells of them by events.
    """
    found = {f"{one['metadata']['namespace']}/{one['metadata']['name']}": one.get("data") or {} for one in maps}
    catalogue = with_own(packaged, read_entries(found, packaged))
    good = {}
    for name, target in aliases.items():
        fault = catalogue.alias_fault(name, target)
        if fault:
            log.warning("%s", fault)
        else:
            good[name] = target
    return catalogue.with_aliases(good)
