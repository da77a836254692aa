"""`kinora models`, `validate` and `render` with the entries and further names of an administrator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from kinora.cli.main import main

TUNE = "extends: wan2.1-vace-14b\nname: tune\nweights: [{role: diffusion, name: tune.safetensors, source: ours}]\n"
BAD = "extends: wan2.1-vace-14b\nname: bad\ndefaults: {steps: many}\n"
JOB = """
apiVersion: kinora.dev/v1alpha1
kind: VideoJob
metadata: {name: fox}
spec: {model: tune, task: TextToVideo, prompt: a fox, parameters: {seed: 1}}
"""
EDIT = """
apiVersion: kinora.dev/v1alpha1
kind: VideoJob
metadata: {name: edit}
spec:
  model: wan2.7-videoedit
  task: Edit
  prompt: in clay
  inputs: {video: {claim: {name: clips, path: a.mp4}}}
  parameters: {seed: 1, durationSeconds: 11}
"""


def run(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(main, list(arguments), input=text)


@pytest.fixture
def entry(tmp_path: Path) -> str:
    path = tmp_path / "tune.yaml"
    path.write_text(TUNE, encoding="utf-8")
    return str(path)


def test_an_entry_is_listed_with_the_packaged_models(entry: str) -> None:
    found = run("models", "-f", entry)
    assert found.exit_code == 0
    assert "tune" in [line.split()[0] for line in found.stdout.splitlines()]
    listed = json.loads(run("models", "-f", entry, "-o", "json").stdout)
    assert "tune.safetensors" in [
        weight["name"] for weight in next(m for m in listed if m["name"] == "tune")["weights"]
    ]


def test_a_config_map_is_read_as_the_operator_reads_it_and_the_good_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    data = {"tune.yaml": TUNE, "bad.yaml": BAD}
    path.write_text(yaml.safe_dump({"kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}), encoding="utf-8")
    found = run("models", "-f", str(path))
    assert found.exit_code == 1
    assert "tune" in [line.split()[0] for line in found.stdout.splitlines()]
    assert "m/bad.yaml: defaults.steps: Input should be a valid integer" in found.stderr


def test_jobs_of_an_administrator_s_model_are_validated_and_rendered(entry: str) -> None:
    assert run("validate", "-", text=JOB).exit_code == 1
    assert run("validate", "-", "--models", entry, text=JOB).exit_code == 0
    graph = json.loads(run("render", "-", "--models", entry, text=JOB).stdout)
    assert graph["11"]["inputs"]["unet_name"] == "tune.safetensors"


def test_aliases_have_the_hosted_name_s_limits() -> None:
    alias = ("--alias", "wan2.7-videoedit=wan2.1-vace-14b")
    assert "no administrator has mapped" in run("validate", "-", text=EDIT).stdout
    assert "2 to 10 seconds for wan2.7-videoedit" in run("validate", "-", *alias, text=EDIT).stdout
    assert "2 to 10 seconds for wan2.7-videoedit" in run("render", "-", *alias, text=EDIT).stderr
    good = run("render", "-", *alias, text=EDIT.replace("11", "10"))
    assert good.exit_code == 0
    assert [node["class_type"] for node in json.loads(good.stdout).values()].count("KSampler") == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--alias", "x"), "--alias is 'x'; allowed: NAME=MODEL"),
        (("--alias", "x=wan9"), "alias x: wan9 is no model"),
        (("--models", "/no/such/file"), "/no/such/file: No such file"),
    ],
)
def test_options_that_cannot_be_used_end_it(arguments: tuple[str, str], said: str) -> None:
    for command in ("validate", "render"):
        found = run(command, "-", *arguments, text=JOB)
        assert found.exit_code == 2
        assert said in found.stderr


def test_a_bad_entry_ends_it_with_the_field(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD, encoding="utf-8")
    found = run("validate", "-", "--models", str(path), text=JOB)
    assert (found.exit_code, "defaults.steps" in found.stderr) == (2, True)
