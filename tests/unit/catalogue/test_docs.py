"""docs/models.md is what the catalogue says, and the entries that it shows can be used."""

import re
from pathlib import Path

import yaml

from kinora.catalogue.docs import document
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.own import parse_own
from kinora.engine.entrycheck import entry_fault

PAGE = Path(__file__).parents[3] / "docs/models.md"


def test_the_page_is_made_from_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "run: make generate"


def test_every_file_parameter_and_class_of_every_model_is_on_it() -> None:
    page = document()
    for model in load_catalogue():
        section = page.split(f"\n## {model.name}\n")[1].split("\n## ")[0]
        assert all(f"`{weight.path}`" in section for weight in model.weights)
        assert all(f"`{name}`" in section for name in model.node_classes)
        assert all(f"| {name} |" in section for name in ("frames", "steps", "guidance", "shift", "fps", "denoise"))


def test_the_entries_shown_can_be_used() -> None:
    [shown] = re.findall(r"```yaml\n(.*?)```", document(), re.S)
    entries = yaml.safe_load(shown)["models"]
    assert len(entries) == 2
    for name, entry in entries.items():
        own = parse_own(yaml.safe_dump(entry), name, load_catalogue()).model
        assert (own.name, entry_fault(own)) == (name, "")


def test_links_lead_somewhere() -> None:
    page = document()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-")
        for line in page.splitlines()
        if line[:3] == "## "
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors
    tasks = (PAGE.parent / "tasks.md").read_text(encoding="utf-8")
    for anchor in set(re.findall(r"\(tasks\.md#([^)]+)\)", page)):
        assert f"\n## {anchor}\n" in tasks.lower()
