"""Kubernetes manifests from YAML files, with the line of every field. Nothing here knows what the fields mean."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")
_MAX_BYTES = 16 << 20
Path_ = tuple[str | int, ...]


class UnreadableError(Exception):
    """A file that cannot be read, or is no YAML. The message names the file and the line."""


@dataclass(frozen=True)
class Document:
    """One object of a file."""

    file: str
    data: Any
    lines: Mapping[Path_, int]
    twice: tuple[tuple[str, int], ...] = ()
    "Keys given twice in one mapping, with the line of the second: YAML takes the last without a word."

    @property
    def kind(self) -> str:
        """The object's kind; empty where there is none."""
        return str(self.data.get("kind") or "") if isinstance(self.data, Mapping) else ""

    @property
    def name(self) -> str:
        """metadata.name, or generateName; empty where there is none."""
        metadata = self.data.get("metadata") if isinstance(self.data, Mapping) else None
        metadata = metadata if isinstance(metadata, Mapping) else {}
        return str(metadata.get("name") or metadata.get("generateName") or "")

    def line(self, path: str) -> int:
        """The line of `spec.inputs.references[0]`, or of the nearest field above it that is there."""
        steps: list[str | int] = [int(step[1:-1]) if step[0] == "[" else step for step in _STEP.findall(path)]
        while steps and tuple(steps) not in self.lines:
            steps.pop()
        return self.lines.get(tuple(steps), 1)


@dataclass
class _Walk:
    lines: dict[Path_, int] = field(default_factory=dict)
    twice: list[tuple[str, int]] = field(default_factory=list)

    def visit(self, node: yaml.Node, path: Path_ = (), depth: int = 0) -> None:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if depth > 100:
            raise yaml.YAMLError("nested too deeply")
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else "?"
                if name in seen:
                    self.twice.append((".".join(map(str, (*path, name))), key.start_mark.line + 1))
                seen.add(name)
                self.lines[(*path, name)] = key.start_mark.line + 1
                self.visit(value, (*path, name), depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*path, index), depth + 1)


def read(path: str) -> list[Document]:
    """The objects of a file, `-` for standard input; the items of a List one by one. Raises UnreadableError."""
    name = "standard input" if path == "-" else path
    try:
        text = sys.stdin.read(_MAX_BYTES) if path == "-" else _text(Path(path))
        loader = _Loader(text)
        try:
            return list(_documents(name, loader))
        finally:
            loader.dispose()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UnreadableError(f"{name}: {reason}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UnreadableError(f"{name}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UnreadableError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None


def _text(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(_MAX_BYTES)


def _documents(name: str, loader: Any) -> Iterator[Document]:
    while loader.check_node():
        node = loader.get_node()
        walk = _Walk()
        walk.visit(node)
        data = loader.construct_document(node)
        if data is None:
            continue
        if isinstance(data, Mapping) and data.get("kind") == "List" and isinstance(data.get("items"), list):
            for index, item in enumerate(data["items"]):
                below = {
                    path[2:]: line for path, line in walk.lines.items() if path[:2] == ("items", index)
                }  # paths of an item begin at the item
                yield Document(name, item, below, tuple(walk.twice) if index == 0 else ())
        else:
            yield Document(name, data, walk.lines, tuple(walk.twice))
