"""docs/tasks.md: every manifest in it is sound, every task has one, and every picture is there."""

import re
from pathlib import Path

import pytest
import yaml

from kinora.api.videojob import Task, VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.recipes.resolve import resolve

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "tasks.md").read_text(encoding="utf-8")
MANIFESTS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["spec"]["task"])
def test_a_manifest_resolves(manifest: dict) -> None:
    spec = VideoJobSpec.model_validate(manifest["spec"])
    model = load_catalogue().get(spec.model)
    assert model is not None
    assert resolve(spec, model, "uid").task == spec.task
    assert f"## {spec.task}\n" in TEXT


def test_every_task_has_a_manifest_and_a_picture() -> None:
    assert {manifest["spec"]["task"] for manifest in MANIFESTS} == {str(task) for task in Task}
    pictures = re.findall(r"\]\((images/[^)]+)\)", TEXT)
    assert len(pictures) == len(Task) + 1  # and one of what is delivered
    assert all((DOCS / picture).is_file() for picture in pictures)


def test_the_table_is_the_catalogue_s() -> None:
    [header] = re.findall(r"^\| task \| inputs \| (.*) \|$", TEXT, re.MULTILINE)
    models = header.split(" | ")
    assert sorted(models) == list(load_catalogue().names)
    for task in Task:
        [row] = re.findall(rf"^\| \[{task}\].*$", TEXT, re.MULTILINE)
        cells = [cell.strip() for cell in row.strip("|").split("|")][2:]
        for name, cell in zip(models, cells, strict=True):
            model = load_catalogue().get(name)
            assert model is not None
            assert (cell == "yes") is (task in model.tasks), (task, name)
