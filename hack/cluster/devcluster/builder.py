"""buildah and mmdebstrap: images without a Docker engine and without a registry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from . import archive, packages
from .paths import REPOSITORY, cache_root
from .steps import ClusterError, run, step

BASE_NAME = "localhost/kinora-base"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
# Nobody reads manuals in a container.
BASE_EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
)
# What pip on this machine is told, the image build is told too.
PIP_SETTINGS = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CERT", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT",
    "PIP_NO_INDEX",
)  # fmt: skip
# Files and folders of the machine that those settings may point into.
MACHINE_FILES = ("/etc/ssl/certs", "/etc/pip.conf")


def codename(os_release: Path = Path("/etc/os-release")) -> str:
    """The Debian release of this machine: the base image is of the same."""
    values = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    if values.get("ID", "").strip('"') != "debian":
        raise ClusterError(
            "the base image is made from Debian's packages, and this machine is no Debian: use Docker with kind"
        )
    return values["VERSION_CODENAME"].strip('"')


def base_key() -> str:
    """Hash of how the base image is made."""
    recipe = json.dumps([BASE_PACKAGES, BASE_EXCLUDED, codename(), os.uname().machine])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def base_reference() -> str:
    return f"{BASE_NAME}:{base_key()}"


def _buildah(*words: str | Path, log: Path | None = None) -> str:
    """buildah with a store of its own, in a mount namespace of its own: it leaves mounts behind."""
    home = cache_root() / "buildah"
    scratch = home / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    store = [f"--root={home / 'storage'}", f"--runroot={home / 'run'}", "--storage-driver=overlay"]
    # Without this it leaves a lock file in /etc/cni.
    config = home / "containers.conf"
    config.write_text(f'[network]\nnetwork_config_dir = "{home / "network"}"\n')
    command = ["unshare", "--mount", "--propagation", "slave", "--", "buildah", *store, *words]
    return run(command, env={"TMPDIR": str(scratch), "CONTAINERS_CONF": str(config)}, log=log)


def prepare() -> None:
    """Install the programs and make the base image, where they are missing."""
    if os.geteuid() != 0:
        raise ClusterError("building images without Docker needs root: run as root, or use Docker")
    packages.ensure(packages.IMAGES)
    if has(base_reference()):
        return
    with step("base image from Debian's packages"), tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        root = Path(folder) / "root.tar"
        excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in BASE_EXCLUDED]
        include = f"--include={','.join(BASE_PACKAGES)}"
        run(
            ["mmdebstrap", "--variant=minbase", include, *excluded, *_apt_options(), codename(), root, *_apt_sources()],
            log=cache_root() / "logs" / "base-image.log",
            env={"TMPDIR": folder},
        )
        container = _buildah("from", "scratch").strip()
        _buildah("add", "--quiet", container, root, "/")
        _buildah("commit", "--quiet", "--rm", container, base_reference())


def _scratch() -> Path:
    path = cache_root() / "buildah" / "tmp"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _apt_sources() -> list[str]:
    """This machine's own list of Debian packages' sources, so that mirrors are honoured."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.is_file() and any(line.startswith(("deb ", "Types:")) for line in path.read_text().splitlines()):
            return [str(path)]
    return []


def _apt_options() -> list[str]:
    """This machine's settings for reaching the sources (proxies, certificates)."""
    dump = run(["apt-config", "dump"])
    lines = [line for line in dump.splitlines() if line.startswith(("Acquire::http", "Acquire::https"))]
    return [f"--aptopt={line}" for line in lines if not line.endswith('"";')]


def has(reference: str) -> bool:
    return bool(_buildah("images", "--quiet", "--filter", f"reference={reference}").strip())


def build(dockerfile: Path, reference: str, arguments: Mapping[str, str]) -> None:
    """Build one image; a RUN step reaches the machine's network and package settings."""
    words = ["build", "--isolation=chroot", "--network=host", "--pull=false", "--layers", "--format=oci"]
    settings = {name: os.environ[name] for name in PIP_SETTINGS if os.environ.get(name)}
    words += [f"--build-arg={name}={value}" for name, value in {**settings, **arguments}.items()]
    words += [f"--volume={path}:{path}:ro" for path in machine_paths(settings)]
    log = cache_root() / "logs" / f"build-{reference.rpartition('/')[2].replace(':', '-')}.log"
    _buildah(*words, f"--file={dockerfile}", f"--tag={reference}", REPOSITORY, log=log)


def machine_paths(settings: Mapping[str, str]) -> list[str]:
    """Paths of this machine that pip needs during a build."""
    words = [word for value in settings.values() for word in value.split() if word.startswith("/")]
    found = [path for path in dict.fromkeys([*MACHINE_FILES, *words]) if Path(path).exists()]
    # A path below one that is there already must not be mounted twice.
    return [path for path in found if not any(path != other and Path(path).is_relative_to(other) for other in found)]


def export(reference: str, oci: Path, name: str) -> None:
    """Copy an image to an OCI layout folder."""
    oci.mkdir(parents=True, exist_ok=True)
    told = json.loads(_buildah("inspect", "--type=image", reference))
    # An image that only changes metadata has no layers of its own to copy, and
    # buildah would write all of its parent's again to see that.
    if archive.adopt(oci, name, str(told["Config"])):
        return
    _buildah("push", "--quiet", "--format=oci", reference, f"oci:{oci}:{name}")


def push(reference: str) -> None:
    _buildah("push", "--quiet", reference, f"docker://{reference}")


def clean(keep: Collection[str]) -> None:
    """Remove images whose tag is not kept, and build layers that nothing uses."""
    if packages.find("buildah") is None or not (cache_root() / "buildah").exists():
        return
    names: Sequence[str] = _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()
    for reference in names:
        tag = reference.rpartition(":")[2]
        if "kinora" in reference and tag not in keep and reference != base_reference():
            _buildah("rmi", "--force", reference)


def wipe() -> None:
    shutil.rmtree(cache_root() / "buildah", ignore_errors=True)
