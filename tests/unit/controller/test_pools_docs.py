"""docs/pools.md: every manifest in it is sound, and its list of cards is the data's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinora.api.findings import findings
from kinora.api.modelserver import ModelServerSpec, Provider
from kinora.controller.modelserver.refuse import refusals
from kinora.controller.pools.load import load_providers
from unit.controller.builders import SETTINGS, catalogue

TEXT = (Path(__file__).parents[3] / "docs/pools.md").read_text(encoding="utf-8")
MANIFESTS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_is_sound(manifest: dict[str, Any]) -> None:
    assert findings(ModelServerSpec, manifest["spec"], "spec") == ()
    assert list(refusals(ModelServerSpec.model_validate(manifest["spec"]), catalogue(), SETTINGS)) == []


@pytest.mark.parametrize("provider", Provider)
def test_the_cards_are_the_datas(provider: Provider) -> None:
    [row] = re.findall(rf"^\| {provider} \| (\w.*\)) \|$", TEXT, re.MULTILINE)
    cards = load_providers()[provider].gpu.cards
    told = [", ".join(filter(None, (str(card.memory_gib), card.compute_capability))) for card in cards]
    assert row == ", ".join(f"{card.name} ({words})" for card, words in zip(cards, told, strict=True))
    assert f"### {provider}: " in TEXT


def test_every_taint_and_condition_that_is_a_notice_is_told() -> None:
    notices = load_providers().notices
    for sign in (*notices.pod_conditions, *notices.node_conditions):
        assert f"`{sign.type}`" in TEXT
    for taint in notices.node_taints:
        assert taint.key in TEXT or taint.key.partition("/")[2] in TEXT or taint.key.partition("/")[0] in TEXT
