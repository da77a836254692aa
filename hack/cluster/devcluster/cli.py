"""Commands of ``python3 hack/cluster`` and their output."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence

from . import builder, cluster, foreign, gobuild, images, procs
from .backend import Backend, detect
from .control import Plan
from .paths import DEFAULT_NAME, Layout, cache_root, state_root
from .steps import ClusterError, say, warn

OWN_MODES = ("node", "control-plane")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python3 hack/cluster",
        description="A real Kubernetes cluster for development. Environment: KINORA_CLUSTER=<context> uses that "
        "cluster (with KINORA_REGISTRY for images), KINORA_CACHE and KINORA_STATE move the folders.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--name", default=DEFAULT_NAME, help=f"name of the cluster (default: {DEFAULT_NAME})")
        return sub

    up = command("up", "start the cluster, or see that it is up")
    up.add_argument(
        "--control-plane-only", action="store_true", help="no node: API server and controllers on 127.0.0.1"
    )
    up.add_argument(
        "--nodes-gpus",
        type=int,
        default=cluster.DEFAULT_GPUS,
        metavar="N",
        help="GPUs that the node advertises (default: 4)",
    )
    command("down", "stop the cluster and remove what it made; caches stay")
    build = command("images", "build the images and load those that changed into the cluster")
    build.add_argument(
        "--only", action="append", choices=sorted(images.IMAGES), help="this image and what it is made from"
    )
    command("env", "print paths, tools and image references as JSON")
    command("status", "say what runs")
    gc = command("gc", "remove cached binaries and images that this version does not use")
    gc.add_argument("--all", action="store_true", help="remove every cache")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        layout = Layout.of(arguments.name)
        return int(COMMANDS[arguments.command](layout, arguments) or 0)
    except (ClusterError, ValueError) as error:
        warn(f"{error}")
        return 1
    except BrokenPipeError:
        # Whoever reads the output has seen enough (head, a pager).
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        warn("stopped; run the command again to go on, or down to clean up")
        return 130


def _up(layout: Layout, arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    if arguments.nodes_gpus < 0:
        raise ClusterError(f"--nodes-gpus {arguments.nodes_gpus} is not allowed: give 0 or more")
    backend = detect(control_plane_only=arguments.control_plane_only)
    say(backend.sentence)
    with cluster.locked(layout):
        check_same(layout, backend)
        if backend.kind == "own":
            mode = "control-plane" if arguments.control_plane_only else "node"
            cluster.up(layout, mode, arguments.nodes_gpus)
        else:
            foreign.up(layout, backend, arguments.nodes_gpus)
    say(f"cluster {layout.name} is up  ({time.monotonic() - started:.1f} s in all)")
    say(f"kubeconfig: {layout.kubeconfig}")


def check_same(layout: Layout, backend: Backend) -> None:
    """Refuse to put one cluster's kubeconfig in the place of another's."""
    mode = foreign.mode_of(layout)
    there = "own" if mode in OWN_MODES else mode
    if there and there != backend.kind:
        raise ClusterError(
            f"the name {layout.name} is taken by a cluster of kind {there!r}, and now {backend.kind!r} was asked for: "
            f"run down --name {layout.name} first, or use another name"
        )


def _down(layout: Layout, _: argparse.Namespace) -> None:
    started = time.monotonic()
    with cluster.locked(layout):
        mode = foreign.mode_of(layout)
        if mode in ("kind", "context"):
            foreign.down(layout, mode)
        else:
            cluster.remove(layout)
    layout.lock.unlink(missing_ok=True)
    say(f"cluster {layout.name} is down  ({time.monotonic() - started:.1f} s)")


def _images(layout: Layout, arguments: argparse.Namespace) -> None:
    with cluster.locked(layout):
        images.build_and_load(layout, _backend_of(layout), arguments.only)


def _backend_of(layout: Layout) -> Backend:
    """The kind of cluster that is up under this name, or that would be used."""
    mode = foreign.mode_of(layout)
    if mode == "control-plane":
        raise ClusterError(f"cluster {layout.name} has no node: images are of no use to it")
    if mode in OWN_MODES:
        return Backend("own")
    if mode == "kind":
        return Backend("kind")
    if mode == "context":
        context = json.loads(layout.record.read_text())["context"]
        return Backend("context", context, os.environ.get("KINORA_REGISTRY", "").rstrip("/"))
    return detect()


def _env(layout: Layout, _: argparse.Namespace) -> None:
    mode = foreign.mode_of(layout)
    own = mode in ("", *OWN_MODES)
    result: dict[str, object] = {
        "name": layout.name,
        "mode": mode,
        "kubeconfig": str(layout.kubeconfig),
        "kubectl": str(gobuild.folder() / "kubectl" if own else foreign.tool("kubectl")),
        "helm": str(gobuild.folder() / "helm" if own else foreign.tool("helm")),
        "state": str(layout.root),
        "logs": str(layout.logs),
        "auditLog": str(layout.audit_log) if mode in OWN_MODES else None,
        "images": images.loaded(layout),
    }
    plan = Plan.load(layout) if mode in OWN_MODES else None
    if plan:
        result.update(server=plan.server, pki=str(layout.pki), node=plan.name if plan.mode == "node" else None)
    say(json.dumps(result, indent=1))


def _status(layout: Layout, _: argparse.Namespace) -> int:
    mode = foreign.mode_of(layout)
    plan = Plan.load(layout) if mode in OWN_MODES else None
    if not mode:
        say(f"cluster {layout.name}: not up")
        return 1
    well = plan is None or cluster.healthy(layout, plan)
    say(f"cluster {layout.name}: {mode}, {'healthy' if well else 'NOT healthy'}, state in {layout.root}")
    for process in procs.recorded(layout):
        say(f"  {process.name:<26} pid {process.pid:<8} {'runs' if process.alive else 'ENDED'}  {process.log}")
    return 0 if well else 1


def _gc(layout: Layout, arguments: argparse.Namespace) -> None:
    cache = cache_root()
    clusters = {path.parent.name for path in (state_root() / "clusters").glob("*/cluster.json")}
    if arguments.all:
        if clusters:
            raise ClusterError(f"clusters are up ({', '.join(sorted(clusters))}): run down for each first")
        builder.wipe()
        shutil.rmtree(cache, ignore_errors=True)
        say(f"removed {cache}")
        return
    for path in (cache / "bin").glob("*/"):
        if path != gobuild.folder() and not clusters:
            shutil.rmtree(path)
            say(f"removed {path}")
    for path in (cache / "containerd").glob("*"):
        if path.name not in clusters and path.name != layout.name:
            shutil.rmtree(path)
            say(f"removed {path}")
    images.clean(layout)


COMMANDS = {"up": _up, "down": _down, "images": _images, "env": _env, "status": _status, "gc": _gc}
