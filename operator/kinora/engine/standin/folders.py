"""The engine's folders: where uploads, outputs and weights lie, and how ComfyUI names and counts files in them.

Names that leave their folder are refused here. What is in a file must not be known here.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kinora.engine.filenames import annotated

ALIASES = {"diffusion_models": ("diffusion_models", "unet"), "text_encoders": ("text_encoders", "clip")}
MODEL_FOLDERS = ("diffusion_models", "text_encoders", "vae", "clip_vision", "loras")
MODEL_SUFFIXES = {".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl"}


class BadName(ValueError):  # noqa: N818
    """A file name that leaves its folder."""


@dataclass(frozen=True)
class SavePlace:
    """Where the next output goes: `folder` exists; `counter` is the next free number for `name`."""

    folder: Path
    name: str
    counter: int
    subfolder: str


@dataclass(frozen=True)
class Folders:
    """The four folders that ComfyUI is started with."""

    input: Path
    output: Path
    temp: Path
    models: Path

    def of_kind(self, kind: str) -> Path:
        """The folder of a file type: input, output or temp. ValueError for another."""
        folders = {"input": self.input, "output": self.output, "temp": self.temp}
        if kind not in folders:
            raise BadName(f"no such type: {kind}")
        return folders[kind]

    def files(self) -> dict[str, list[str]]:
        """Every folder of the node contract with the names that are allowed in it, sorted."""
        found = {folder: self._models(folder) for folder in MODEL_FOLDERS}
        return found | {"input": _names(self.input)}

    def upload(self, text: str) -> Path:
        """The path of a name as a loader node gets it: "a.png", "job/a.png" or "a.png [output]"."""
        name, kind = annotated(text)
        return beneath(self.of_kind(kind or "input"), name)

    def model(self, folder: str, name: str) -> Path | None:
        """The path of a weight file, or None when no such file is there."""
        for alias in ALIASES.get(folder, (folder,)):
            path = beneath(self.models / alias, name)
            if path.is_file():
                return path
        return None

    def save_place(self, prefix: str, kind: str, pattern: str) -> SavePlace:
        """Place for the next file of `prefix` ("job/clip"). `pattern` has {name} and finds the counter in a name."""
        root = self.of_kind(kind)
        target = beneath(root, prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        counting = re.compile(pattern.format(name=re.escape(target.name)), re.IGNORECASE)
        taken = [int(match[1]) for entry in os.listdir(target.parent) if (match := counting.match(entry))]
        subfolder = os.path.relpath(target.parent, root)
        return SavePlace(target.parent, target.name, max(taken, default=0) + 1, "" if subfolder == "." else subfolder)

    def _models(self, folder: str) -> list[str]:
        names: set[str] = set()
        for alias in ALIASES.get(folder, (folder,)):
            names.update(name for name in _names(self.models / alias) if Path(name).suffix.lower() in MODEL_SUFFIXES)
        return sorted(names)


def beneath(root: Path, name: str) -> Path:
    """`root`/`name`, without following links. Raises BadName when it would lie outside `root`."""
    path = Path(os.path.normpath(root / name))
    if "\0" in name or not path.is_relative_to(os.path.normpath(root)):
        raise BadName(f"not beneath its folder: {name}")
    return path


def _names(root: Path) -> list[str]:
    """Files beneath `root`, relative to it, sorted; [] where there is no such folder."""
    found = []
    for folder, _, names in os.walk(root):
        relative = os.path.relpath(folder, root)
        found += [name if relative == "." else f"{relative}/{name}" for name in names]
    return sorted(found)
