"""Entries of an administrator: whole or laid over a packaged one; a bad one is refused with the field, alone."""

import json
from typing import Any

import pytest
import yaml

from kinora.catalogue.load import CatalogueError, load_catalogue
from kinora.catalogue.model import Role
from kinora.catalogue.own import parse_own, read_entries, with_own
from kinora.engine.entrycheck import entry_fault

PACKAGED = load_catalogue()
LARGE, I2V = "wan2.1-vace-14b", "wan2.1-i2v-14b-480p"
TUNE: dict[str, Any] = {
    "extends": LARGE,
    "name": "films-tune",
    "weights": [{"role": "diffusion", "name": "films/tune.safetensors", "source": "ours"}],
    "defaults": {"steps": 24},
}


def _text(**change: Any) -> str:
    return yaml.safe_dump({**TUNE, **change})


def test_an_entry_says_only_what_differs() -> None:
    own, base = parse_own(_text(), "m", PACKAGED).model, PACKAGED.get(LARGE)
    assert base is not None
    assert (own.name, own.defaults.steps, own.defaults.guidance) == ("films-tune", 24, base.defaults.guidance)
    assert own.weight(Role.DIFFUSION).name == "films/tune.safetensors"
    assert own.weight(Role.DIFFUSION).proof == base.weight(Role.DIFFUSION).proof
    assert own.weight(Role.VAE) == base.weight(Role.VAE)
    assert own.presets == base.presets
    assert entry_fault(own) == ""


def test_another_file_has_another_size_and_source() -> None:
    """What is known of the packaged file says nothing of one with another name."""
    fun = "wan2.2-vace-fun-a14b"
    changed = {"extends": fun, "name": "x", "weights": [{"role": "vae", "name": "ours.safetensors", "source": "ours"}]}
    own = parse_own(yaml.safe_dump(changed), "m", PACKAGED).model.weight(Role.VAE)
    assert (own.size_bytes, own.sha256) == (None, None)
    del changed["weights"][0]["source"]  # type: ignore[attr-defined]
    with pytest.raises(CatalogueError, match=r"weights\.3\.source: Field required"):
        parse_own(yaml.safe_dump(changed), "m", PACKAGED)


def test_options_of_the_hardware_are_overridden_in_place() -> None:
    text = f"extends: {I2V}\nengine_options: {{attention_mode: sdpa, block_swap: {{blocks_to_swap: 30}}}}"
    options = parse_own(text, "m", PACKAGED).model.engine_options
    assert options is not None
    assert options.block_swap is not None
    assert (options.attention_mode, options.block_swap.blocks_to_swap) == ("sdpa", 30)
    assert options.block_swap.use_non_blocking
    without = parse_own(f"extends: {I2V}\nengine_options: {{block_swap: null}}", "m", PACKAGED).model.engine_options
    assert without is not None
    assert without.block_swap is None


def test_the_same_meaning_has_the_same_text() -> None:
    """Agents are told the text, and it is in the hash of their pods: a comment must not roll them."""
    first = parse_own("# note\n" + _text(), "m", PACKAGED)
    second = parse_own(json.dumps(dict(reversed(TUNE.items()))), "m", PACKAGED)
    assert first.text == second.text
    assert parse_own(first.text, "agent", PACKAGED).model == first.model


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"),
        ("- a", "found list; allowed: a mapping"),
        ("extends: wan9", "extends: found 'wan9'; allowed: wan2.1-i2v-14b-480p"),
        (_text(colour="red"), "colour: Extra inputs are not permitted"),
        (_text(served_by="x"), "served_by: no field of an entry"),
        (_text(weights={"role": "vae"}), "weights: allowed: a list of mappings"),
        (_text(weights=[{"role": "brain", "name": "a", "source": "b"}]), "weights.4.role"),
        (_text(defaults={"steps": 999}), "defaults.steps: 999 is not within limits.steps"),
        (_text(limits={"windows": {"overlap": 16}}), "limits.windows: Value error, overlap 16 is not 4n+1"),
        ("name: whole", "display_name: Field required"),
    ],
)
def test_a_bad_entry_is_refused_with_the_field(text: str, said: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse_own(text, "ns/models/x.yaml", PACKAGED)
    assert str(caught.value).startswith("ns/models/x.yaml: ")
    assert said.replace("Value error, ", "") in str(caught.value).replace("Value error, ", "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"defaults": {"sampler": "fastest"}}, "sampler_name"),
        ({"defaults": {"weight_dtype": "int3"}}, "weight_dtype"),
        ({"required_node_classes": ["KSampler"]}, "required_node_classes and optional_node_classes: CLIPLoader"),
        ({"limits": {"windows": {"colour_match": "magic"}}}, "method"),
    ],
)
def test_what_only_the_nodes_know_is_checked_against_them(change: dict[str, Any], said: str) -> None:
    fault = entry_fault(parse_own(_text(**change), "m", PACKAGED).model)
    assert fault.startswith("films-tune: task ")
    assert said in fault


def test_good_entries_stand_beside_bad_ones() -> None:
    files = {
        "ns/a": {"films-tune.yaml": _text(), "broken.yaml": "x: [", "readme.txt": "hello"},
        "ns/b": {"other.yaml": _text(), "twice.yaml": _text(name="twice")},
        "ns/c": {"twice.yaml": _text(name="twice")},
    }
    read = read_entries(files, PACKAGED)
    assert set(read.good) == {"films-tune"}
    assert set(read.bad) == {"broken", "readme.txt", "other", "twice"}
    assert "must be the key without .yaml" in read.bad["other"]
    assert read.bad["twice"] == "ns/c/twice.yaml: twice is in ns/b/twice.yaml too; allowed: one of them"
    catalogue = with_own(PACKAGED, read)
    assert catalogue.names == tuple(sorted((*PACKAGED.names, "films-tune")))
    assert json.loads(catalogue.entry("films-tune"))["extends"] == LARGE
    assert catalogue.entry(LARGE) == ""
    assert catalogue.get("broken") is None
    assert "not YAML" in catalogue.unknown("broken")


def test_a_packaged_model_is_replaced_by_an_entry_of_its_name_and_missed_where_that_is_bad() -> None:
    slow = with_own(
        PACKAGED, read_entries({"a/b": {f"{LARGE}.yaml": f"extends: {LARGE}\ndefaults: {{steps: 35}}"}}, PACKAGED)
    )
    found = slow.get(LARGE)
    assert found is not None
    assert found.defaults.steps == 35
    bad = with_own(
        PACKAGED, read_entries({"a/b": {f"{LARGE}.yaml": f"extends: {LARGE}\ndefaults: {{steps: x}}"}}, PACKAGED)
    )
    assert bad.get(LARGE) is None
    assert "defaults.steps" in bad.unknown(LARGE)
