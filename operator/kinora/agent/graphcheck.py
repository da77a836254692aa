"""The agent's own look at every graph before it goes to the engine: allowed classes, files of this job only. Pure.

The operator has looked before; this is the second lock on the same door (api.md, "Inside the pod").
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

# The inputs of node classes that name a file in the engine's input folder.
_FILE_INPUTS: Final[Mapping[str, str]] = {
    "LoadImage": "image",
    "LoadImageMask": "image",
    "LoadVideo": "file",
    "VHS_LoadVideo": "video",
}


def graph_faults(graph: Mapping[str, Mapping[str, Any]], allowed: Collection[str], folder: str) -> list[str]:
    """Why the graph must not be run, in words; empty when it may."""
    faults = []
    for name, node in graph.items():
        class_type = str(node.get("class_type", ""))
        if class_type not in allowed:
            faults.append(f"node {name} is of class {class_type}, which this ModelServer does not allow")
        field = _FILE_INPUTS.get(class_type)
        if field is not None:
            value = str((node.get("inputs") or {}).get(field, ""))
            if not value.startswith(f"{folder}/") or ".." in value.split("/"):
                faults.append(f"node {name} reads a file that is not of this job")
        prefix = (node.get("inputs") or {}).get("filename_prefix")
        if prefix is not None and (not str(prefix).startswith(f"{folder}/") or ".." in str(prefix).split("/")):
            faults.append(f"node {name} writes outside of the job's folder")
    return faults
