"""Building the project's images and loading them into a cluster.

An image's tag is the hash of all that goes into it, so an image that did not
change is neither built nor sent, and a chart that names the tag rolls its pods
exactly when something changed. The tag `dev` always names the latest one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import builder, cluster, node
from .archive import oci_archive, prune
from .backend import Backend, docker_answers
from .paths import REPOSITORY, Layout, cache_root
from .steps import ClusterError, run, say, step

DEV_TAG = "dev"
_SKIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache"}


@dataclass(frozen=True)
class Image:
    """An image that is made from a Dockerfile in images/."""

    name: str  # of the repository: localhost/kinora-NAME, or localhost/kinora
    folder: str
    inputs: tuple[str, ...]
    parent: str | None = None  # the image of ours that it starts from
    parent_argument: str = "BASE"

    @property
    def dockerfile(self) -> Path:
        return REPOSITORY / "images" / self.folder / "Dockerfile"


IMAGES = {
    "kinora": Image(
        "kinora",
        "kinora",
        ("images/kinora", "requirements/runtime.lock", "pyproject.toml", "README.md", "LICENSE", "operator"),
    ),
    "standin": Image("kinora-standin", "standin", ("images/standin",), parent="kinora", parent_argument="KINORA_IMAGE"),
}


def input_files(inputs: Iterable[str], root: Path = REPOSITORY) -> list[Path]:
    """Every file that goes into an image, in a fixed order."""
    files: list[Path] = []
    for item in inputs:
        path = root / item
        if path.is_dir():
            files += [file for file in sorted(path.rglob("*")) if file.is_file() and not _SKIPPED & set(file.parts)]
        elif path.is_file():
            files.append(path)
        else:
            raise ClusterError(f"{item} is missing: an image is made from it")
    return [file for file in files if file.suffix != ".pyc"]


def tag(image: Image, base: str, root: Path = REPOSITORY) -> str:
    """Hash of an image's inputs and of what it starts from."""
    digest = hashlib.sha256(f"{image.name}\0{base}\0".encode())
    for file in input_files(image.inputs, root):
        digest.update(f"{file.relative_to(root)}\0{file.stat().st_mode & 0o111:o}\0".encode())
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def tags(base: str) -> dict[str, str]:
    """The tag of each image now; one that starts from another depends on its tag."""
    found: dict[str, str] = {}
    for key, image in IMAGES.items():
        found[key] = tag(image, found[image.parent] if image.parent else base)
    return found


def loaded(layout: Layout) -> dict[str, str]:
    """References of the images that were last loaded into the cluster."""
    try:
        return {str(key): str(value) for key, value in json.loads(layout.images_record.read_text()).items()}
    except (OSError, ValueError):
        return {}


def build_and_load(layout: Layout, backend: Backend, only: Sequence[str] | None) -> None:
    """Build what changed, load what the cluster lacks, and write down the references."""
    started = time.monotonic()
    wanted = closure(only or list(IMAGES))
    if backend.kind == "own":
        references = _own(layout, wanted)
    elif backend.kind == "kind":
        references = _kind(layout, wanted)
    else:
        references = _registry(backend, wanted)
    if layout.root.exists():
        layout.images_record.write_text(json.dumps({**loaded(layout), **references}, indent=1) + "\n")
    for key, reference in references.items():
        say(f"image {key}: {reference}")
    say(f"images are ready  ({time.monotonic() - started:.1f} s in all)")


def closure(keys: Sequence[str]) -> list[str]:
    """The images and those that they start from, the latter first."""
    wanted = set(keys)
    for key in keys:
        parent = IMAGES[key].parent
        if parent:
            wanted.add(parent)
    return [key for key in IMAGES if key in wanted]


def _own(layout: Layout, wanted: Sequence[str]) -> dict[str, str]:
    holder = cluster.holder_of(layout)
    now = tags(builder.base_key())
    references = {key: f"localhost/{IMAGES[key].name}:{now[key]}" for key in wanted}
    there = node.images(holder)
    if all({reference, _dev(reference)} <= there for reference in references.values()) and loaded(layout) == references:
        say("[ok] images are up to date")
        return references
    builder.prepare()
    oci = cache_root() / "images"
    for key, reference in references.items():
        _build(key, reference, references, builder.build)
        repository, _, now_tag = reference.rpartition(":")
        name = f"{IMAGES[key].name}-{now_tag}"
        with step(f"load {repository}"):
            builder.export(reference, oci, name)
            archive = layout.root / "image.tar"
            present = _content(layout)
            oci_archive(oci, name, [reference, _dev(reference)], archive, present=present)
            node.load(holder, archive)
            archive.unlink()
    kept = [f"{IMAGES[key].name}-{now[key]}" for key in IMAGES]
    prune(oci, kept)
    return references


def _dev(reference: str) -> str:
    return f"{reference.rpartition(':')[0]}:{DEV_TAG}"


def _content(layout: Layout) -> set[str]:
    """Digests of the blobs that the node's containerd has."""
    folder = cache_root() / "containerd" / layout.name / "io.containerd.content.v1.content" / "blobs" / "sha256"
    return {f"sha256:{path.name}" for path in folder.glob("*")}


def _build(key: str, reference: str, references: dict[str, str], build: Callable[..., None]) -> None:
    image = IMAGES[key]
    if builder.has(reference):
        say(f"[ok] {reference} is built already")
        return
    base = references[image.parent] if image.parent else builder.base_reference()
    with step(f"build {reference}"):
        build(image.dockerfile, reference, {image.parent_argument: base})


def _docker_build(wanted: Sequence[str], prefix: str) -> dict[str, str]:
    """Build with Docker, from the public base images that the Dockerfiles name."""
    now = tags("public")
    references = {key: f"{prefix}{IMAGES[key].name}:{now[key]}" for key in wanted}
    for key, reference in references.items():
        image = IMAGES[key]
        arguments = [f"--build-arg={image.parent_argument}={references[image.parent]}"] if image.parent else []
        with step(f"docker build {reference}"):
            run(["docker", "build", f"--file={image.dockerfile}", f"--tag={reference}", *arguments, REPOSITORY])
    return references


def _kind(layout: Layout, wanted: Sequence[str]) -> dict[str, str]:
    references = _docker_build(wanted, "localhost/")
    if loaded(layout) == references:
        return references
    for reference in references.values():
        with step(f"kind load {reference}"):
            run(["docker", "tag", reference, _dev(reference)])
            run(["kind", "load", "docker-image", f"--name={layout.name}", reference, _dev(reference)])
    return references


def _registry(backend: Backend, wanted: Sequence[str]) -> dict[str, str]:
    if not backend.registry:
        raise ClusterError(
            f"images for context {backend.context} need a registry that its nodes can pull from: "
            "set KINORA_REGISTRY=<host/path>"
        )
    if docker_answers():
        references = _docker_build(wanted, f"{backend.registry}/")
        for reference in references.values():
            with step(f"docker push {reference}"):
                run(["docker", "push", reference])
        return references
    builder.prepare()
    now = tags(builder.base_key())
    references = {key: f"{backend.registry}/{IMAGES[key].name}:{now[key]}" for key in wanted}
    for key, reference in references.items():
        _build(key, reference, references, builder.build)
        with step(f"push {reference}"):
            builder.push(reference)
    return references


def clean(layout: Layout) -> None:
    """Drop images that were built for earlier versions and that no cluster was given last."""
    keep = set(tags(builder.base_key()).values())
    for record in layout.root.parent.glob("*/images.json"):
        given = loaded(Layout(record.parent.name, record.parent))
        keep |= {reference.rpartition(":")[2] for reference in given.values()}
    builder.clean(keep)
    prune(cache_root() / "images", [f"{image.name}-{tag}" for image in IMAGES.values() for tag in keep])
    if not layout.record.exists() or json.loads(layout.record.read_text()).get("mode") != "node":
        return
    holder = cluster.holder_of(layout)
    used = set(node.ctr(holder, "containers", "ls").split())
    for reference in node.images(holder) - used:
        ours = reference.startswith("localhost/kinora") and reference != node.PAUSE_IMAGE
        if ours and reference.rpartition(":")[2] not in {*keep, DEV_TAG}:
            node.ctr(holder, "images", "rm", reference)
