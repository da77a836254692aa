"""The chart as helm renders it, for the tests of its templates."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinora_cluster import ROOT

Object = dict[str, Any]
CHART = ROOT / "charts/kinora"


@cache
def helm() -> str | None:
    """The dev cluster's helm, or one on the PATH."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack/cluster"), "env", "--name", "kinora-it"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout).get("helm", "") if done.returncode == 0 else ""
    return found if found and Path(found).exists() else shutil.which("helm")


@cache
def render(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = helm()
    if program is None:
        pytest.skip("no helm here; make integration-up brings one")
    command = [program, "template", "films", str(CHART), "--namespace", "kinora-system", "--kube-version", "1.34.0"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def objects(*arguments: str) -> list[Object]:
    done = render(*arguments)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.load_all(done.stdout, yaml.CSafeLoader) if found]  # five times as fast


def one(kind: str, name: str, *arguments: str) -> Object:
    return next(found for found in objects(*arguments) if (found["kind"], found["metadata"]["name"]) == (kind, name))
