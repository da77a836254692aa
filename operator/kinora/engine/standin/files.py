"""Uploads, views, and which files a graph may name: the server's dealings with the four folders.

What is in a file is for the nodes.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp.web import FileField

from kinora.engine.contract import node_specs
from kinora.engine.filenames import numbered
from kinora.engine.standin.folders import BadName, Folders, beneath


def known(folders: Folders, graph: Any) -> dict[str, list[str]]:
    """Folder -> file names, with every upload that the graph names and that exists ("job/a.png", "b.mp4 [output]")."""
    found = folders.files()
    if not isinstance(graph, Mapping):
        return found
    for node in graph.values():
        spec = node_specs().get(node.get("class_type", "")) if isinstance(node, Mapping) else None
        if spec is None:
            continue
        for wanted in spec.inputs.values():
            name = node.get("inputs", {}).get(wanted.name)
            if wanted.files == ("input",) and isinstance(name, str) and _exists(folders, name):
                found["input"].append(name)
    return found


def _exists(folders: Folders, name: str) -> bool:
    try:
        return folders.upload(name).is_file()
    except BadName:
        return False


def viewed(folders: Folders, query: Mapping[str, str]) -> Path | None:
    """The file that GET /view names, or None. BadName for one outside its folder."""
    name = query.get("filename", "")
    if not name:
        return None
    folder = beneath(folders.of_kind(query.get("type", "output")), query.get("subfolder", ""))
    path = beneath(folder, Path(name).name)
    return path if path.is_file() else None


def store_upload(folders: Folders, upload: FileField, *, kind: str, subfolder: str, overwrite: bool) -> dict[str, str]:
    """Stores an upload and answers {name, subfolder, type}. A taken name gets " (1)", unless `overwrite`."""
    folder = beneath(folders.of_kind(kind), subfolder)
    folder.mkdir(parents=True, exist_ok=True)
    names = numbered(Path(upload.filename).name)
    path = beneath(folder, next(names))
    while not overwrite and path.exists() and not _same(upload, path):
        path = beneath(folder, next(names))
    upload.file.seek(0)
    with path.open("wb") as target:
        shutil.copyfileobj(upload.file, target)
    return {"name": path.name, "subfolder": subfolder, "type": kind}


def _same(upload: FileField, path: Path) -> bool:
    upload.file.seek(0)
    return bool(upload.file.read() == path.read_bytes())
