"""How files are called here: results by prefix and job id, uploads by the path that their user gave. Pure.

A result's name is unique in a tenant and leads back to its job, so that /view needs nothing but the name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from kinora.engine.filenames import parted
from kinora.gateway.jobs import Artifact, Job

MAX_PATH: Final = 255  # characters; of spec.workflow.files[].name
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_RESULT = re.compile(rf"(?:^|_)(?P<id>{_UUID})_(?P<number>\d{{5}})_?(?:\.\w+)?")
_TAIL = re.compile(r"_\d{5}(?P<mark>_?)(?P<suffix>\.\w{1,8})$")
_SUFFIX = re.compile(r"\.\w{1,8}$")
_UNSAFE = re.compile(r"[^\w .()+@~%-]|^\.+")
_MAX_BASE = 60
_DEFAULT = "video"


class BadName(ValueError):  # noqa: N818 - a verdict
    """A name that leaves its folder, or that no file can have."""


def result_name(job: Job, artifact: Artifact, prefix: str) -> tuple[str, str]:
    """(subfolder, file name) of a result. `prefix`: filename_prefix of the node that saved it, "" where unknown."""
    subfolder, base = parted(prefix.replace("\\", "/"))
    folders = [_UNSAFE.sub("_", part)[:_MAX_BASE] for part in subfolder.split("/") if part not in ("", ".", "..")]
    base = _UNSAFE.sub("_", base)[:_MAX_BASE] or _DEFAULT
    tail = _TAIL.search(artifact.filename)
    suffix = _SUFFIX.search(artifact.filename)
    mark = tail["mark"] if tail else ""
    ending = tail["suffix"] if tail else (suffix[0] if suffix else "")
    return "/".join(folders[:4]), f"{base}_{job.id}_{artifact.index + 1:05d}{mark}{ending}"


def result_of(filename: str) -> tuple[str, int] | None:
    """(job id, index of the artifact) that a result's name says; None for another name."""
    found = _RESULT.search(filename)
    if found is None or found.end() != len(filename) or found["number"] == "00000":
        return None
    return found["id"], int(found["number"]) - 1


def prefix_in(graph: Mapping[str, Any], node: str) -> str:
    """The prefix that a node of the graph has; "" where there is none."""
    value = ((graph.get(node) or {}).get("inputs") or {}).get("filename_prefix")
    return value if isinstance(value, str) else ""


def upload_path(subfolder: str, filename: str) -> str:
    """`subfolder/filename` of an upload, in one spelling. Raises BadName."""
    parts = [part for part in f"{subfolder}/{filename}".replace("\\", "/").split("/") if part not in ("", ".")]
    path = "/".join(parts)
    if filename.replace("\\", "/").rpartition("/")[2] in ("", ".", ".."):
        raise BadName("a file name is needed")
    if ".." in parts or "~" in parts or subfolder.startswith(("/", "\\")) or filename.startswith(("/", "\\")):
        raise BadName("a name leads out of its folder")
    if not path.isprintable() or ":" in path or len(path) > MAX_PATH:
        raise BadName(f"a name has a character that no file may have, or is longer than {MAX_PATH}")
    return path
