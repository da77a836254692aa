"""Image archives: written, read and sent without what the receiver has."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# Of the machines that this runs on, what images call them.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    return ARCHITECTURES.get(os.uname().machine, os.uname().machine)


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def pause_archive(program: Path, reference: str, target: Path) -> None:
    """An image of one static program."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as layer:
        _add(layer, "pause", program.read_bytes(), 0o755)
    data = inner.getvalue()
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        _add(archive, "layer.tar", data)
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def blobs_of(layout: Path, tag: str) -> tuple[dict[str, Any], list[str]]:
    """The index entry of a tag in an OCI layout folder, and the digests of all that belongs to it."""
    index = json.loads((layout / "index.json").read_text())
    for entry in index["manifests"]:
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            manifest = json.loads(blob(layout, entry["digest"]).read_text())
            parts = [manifest["config"], *manifest["layers"]]
            return entry, [entry["digest"], *dict.fromkeys(part["digest"] for part in parts)]
    raise KeyError(tag)


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/", 1)


def adopt(layout: Path, tag: str, config: str) -> bool:
    """Add an image whose layers are all in the layout folder; False when one is missing."""
    index_file = layout / "index.json"
    if not index_file.exists():
        return False
    index = json.loads(index_file.read_text())
    known = _layers(layout, index)
    layers = [known.get(diff_id) for diff_id in json.loads(config)["rootfs"]["diff_ids"]]
    if None in layers:
        return False
    kind = "application/vnd.oci.image.config.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": _put(layout, config, kind), "layers": layers}
    name = {"org.opencontainers.image.ref.name": tag}
    entry = {**_put(layout, json.dumps(manifest), _MANIFEST), "annotations": name}
    others = [item for item in index["manifests"] if item.get("annotations") != name]
    index_file.write_text(json.dumps({**index, "manifests": [*others, entry]}))
    return True


def _put(layout: Path, text: str, kind: str) -> dict[str, Any]:
    """Store a blob; returns its descriptor."""
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    blob(layout, digest).write_text(text)
    return {"mediaType": kind, "digest": digest, "size": len(text.encode())}


def _layers(layout: Path, index: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Descriptors of the layers in a layout folder, by the digest of their uncompressed content."""
    found: dict[str, dict[str, Any]] = {}
    for entry in index["manifests"]:
        manifest = json.loads(blob(layout, entry["digest"]).read_text())
        config = json.loads(blob(layout, manifest["config"]["digest"]).read_text())
        found.update(zip(config["rootfs"]["diff_ids"], manifest["layers"], strict=True))
    return found


def oci_archive(layout: Path, tag: str, references: Sequence[str], target: Path, *, present: Collection[str]) -> int:
    """Write an archive of one image without the blobs that the receiver has; returns its bytes.

    After a change of code that is the last layer and a few kB of JSON.
    """
    entry, digests = blobs_of(layout, tag)
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": _MANIFEST,
                "digest": entry["digest"],
                "size": entry["size"],
                "annotations": {"io.containerd.image.name": reference},
            }
            for reference in references
        ],
    }
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        for digest in digests:
            # The manifest and the config are read from the archive: always sent.
            if digest not in present or blob(layout, digest).stat().st_size < 65_536:
                archive.add(blob(layout, digest), f"blobs/{digest.replace(':', '/', 1)}")
        _add(archive, "index.json", json.dumps(index).encode())
    return target.stat().st_size


def prune(layout: Path, keep: Collection[str]) -> None:
    """Drop tags that are not kept, and the blobs that nothing kept needs."""
    path = layout / "index.json"
    if not path.exists():
        return
    index = json.loads(path.read_text())
    kept, needed = [], set()
    for entry in index["manifests"]:
        tag = entry.get("annotations", {}).get("org.opencontainers.image.ref.name")
        if tag in keep:
            kept.append(entry)
            needed.update(blobs_of(layout, tag)[1])
    path.write_text(json.dumps({**index, "manifests": kept}))
    for file in (layout / "blobs" / "sha256").iterdir():
        if f"sha256:{file.name}" not in needed:
            file.unlink()
