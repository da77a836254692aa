"""How faults of a graph name their place and show values: on one line, clipped, nothing that a terminal would obey."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

FIELD: Final = "spec.workflow"
_SHOWN = 60
_PLACE = re.compile(rf"{re.escape(FIELD)} node (?P<node>[^ ]+)(?: \((?P<kind>.*?)\)(?= |$))?(?: (?P<name>.+))?")


def place(node_id: str, class_type: str = "", name: str = "") -> str:
    """`spec.workflow node 49 (WanVaceToVideo) width`."""
    known = f" ({printable(class_type)})" if class_type else ""
    return f"{FIELD} node {printable(node_id)}{known}" + (f" {printable(name)}" if name else "")


@dataclass(frozen=True, slots=True)
class Located:
    """Where in a graph a fault is. `name`: the input; empty where it is the node as a whole."""

    node_id: str
    class_type: str = ""
    name: str = ""


def located(field: str) -> Located | None:
    """What `place` was given; None for a field that is no place in a graph."""
    found = _PLACE.fullmatch(field)
    return Located(found["node"], found["kind"] or "", found["name"] or "") if found else None


def shown(value: Any) -> str:
    """A value as JSON, clipped."""
    if isinstance(value, dict):
        return f"an object of {len(value)} entries"
    if isinstance(value, list) and len(value) > 4:
        return f"a list of {len(value)} entries"
    return _clipped(printable(json.dumps(value, ensure_ascii=False, default=str)))


def printable(text: str) -> str:
    """The text with everything that does not print (controls, direction marks, surrogates) as an escape."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
