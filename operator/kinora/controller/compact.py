"""Objects as the store keeps them: without managedFields, and with equal texts kept once. Pure.

Every JSON document brings its own copy of every key and of every reason, so that ten thousand queued jobs hold the
same few hundred words ten thousand times: with their managedFields four fifths of what they weigh.
"""

from __future__ import annotations

from sys import intern
from typing import Any, Final

Object = dict[str, Any]
_SHARED: Final = 160  # characters: longer texts (prompts, graphs) are rarely the same


def compact(obj: Object) -> Object:
    """The same object, sharing its texts with all others that wait; nobody may change it in place."""
    metadata = obj["metadata"]
    if "managedFields" in metadata:
        metadata = {name: value for name, value in metadata.items() if name != "managedFields"}
        obj = {**obj, "metadata": metadata}
    if (obj.get("status") or {}).get("assignment"):
        return obj  # bound jobs are few, and soon over: sharing costs more than it gives
    shared: Object = _shared(obj)
    return shared


def _shared(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return intern(value) if len(value) <= _SHARED else value
    if kind is dict:
        return {intern(name): _shared(inner) for name, inner in value.items()}
    if kind is list:
        return [_shared(inner) for inner in value]
    return value
