"""The catalogue as the operator has it: ConfigMaps come, change, go; a bad entry takes nothing else with it."""

from __future__ import annotations

from typing import Any

from kinora.api.modelserver import ModelServerSpec, Pool
from kinora.catalogue.load import load_catalogue
from kinora.controller.models import Models
from kinora.controller.modelserver import desired, refuse
from kinora.controller.modelserver.snapshot import ServerSnapshot
from kinora.controller.videojob.check import Accepted, Refused, Undecided, check
from unit.controller.builders import SETTINGS, VACE, job, server, server_plan, server_snapshot

Object = dict[str, Any]
TUNE = f"extends: {VACE}\nname: tune\ndefaults: {{steps: 9}}\n"


def config_map(name: str = "models", **entries: str) -> Object:
    data = {f"{key}.yaml": text for key, text in entries.items()}
    return {"metadata": {"name": name, "namespace": "system", "uid": name}, "data": data}


def models(**aliases: str) -> Models:
    return Models(load_catalogue(), {name.replace("_", "-"): target for name, target in aliases.items()})


def verdict(found: Models, model: str) -> Any:
    return check(job(model=model), found.catalogue, {})


def test_an_entry_comes_changes_and_goes() -> None:
    found = models()
    assert isinstance(verdict(found, "tune"), Refused)
    assert found.take([config_map(tune=TUNE)]).models
    accepted = verdict(found, "tune")
    assert isinstance(accepted, Accepted)
    assert accepted.resolved["steps"] == 9
    assert not found.take([config_map(tune=TUNE)]).models, "the same again is no change"
    assert found.take([config_map(tune=TUNE.replace("9", "8"))]).models
    assert verdict(found, "tune").resolved["steps"] == 8
    assert found.take([]).models
    assert isinstance(verdict(found, "tune"), Refused)
    assert found.good == 0


def test_a_bad_change_keeps_the_last_good_entry_and_is_told_once() -> None:
    found = models()
    found.take([config_map(tune=TUNE)])
    change = found.take([config_map(tune=TUNE.replace("9", "many"))])
    assert not change.models
    [(about, note)] = change.notes
    assert (about["metadata"]["name"], note.kind, note.reason) == ("models", "Warning", "BadModelEntry")
    assert "tune: tune.yaml: defaults.steps" in note.message
    assert "its last good entry stays in use" in note.message
    assert isinstance(verdict(found, "tune"), Accepted)
    assert found.take([config_map(tune=TUNE.replace("9", "many"))]).notes == ()
    assert (found.good, len(found.bad)) == (1, 1)


def test_jobs_of_a_model_whose_entry_never_was_good_wait_and_others_do_not() -> None:
    found = models()
    change = found.take([config_map(tune=TUNE.replace("9", "many"), other=TUNE.replace("tune", "other"))])
    assert "the model is not to be had" in change.notes[0][1].message
    waiting = verdict(found, "tune")
    assert isinstance(waiting, Undecided)
    assert waiting.reason == "ModelEntryRefused"
    assert "the catalogue entry of tune cannot be used" in waiting.message
    assert "defaults.steps" in waiting.message
    assert isinstance(verdict(found, "other"), Accepted)
    refusal = refuse.check(ModelServerSpec.model_validate(server(model="tune")["spec"]), found.catalogue, "image")
    assert isinstance(refusal, refuse.Refusal)
    assert "defaults.steps" in refusal.message


def test_an_entry_that_an_engine_would_refuse_is_bad() -> None:
    found = models()
    change = found.take([config_map(tune=f"extends: {VACE}\nname: tune\ndefaults: {{sampler: fastest}}\n")])
    assert "sampler_name" in change.notes[0][1].message


def test_an_alias_leads_to_a_model_of_a_config_map_too_and_one_that_leads_nowhere_stops_nothing() -> None:
    found = models(wan_nine="tune", lost="nowhere")
    assert isinstance(verdict(found, "wan-nine"), Refused)
    found.take([config_map(tune=TUNE)])
    accepted = verdict(found, "wan-nine")
    assert isinstance(accepted, Accepted)
    assert accepted.model == "tune", "ModelServers know it by this name"
    assert "wan-nine is rendered by tune" in accepted.resolved["notes"]
    refusal = refuse.check(ModelServerSpec.model_validate(server(model="wan-nine")["spec"]), found.catalogue, "image")
    assert isinstance(refusal, refuse.Refusal)
    assert "a further name of tune" in refusal.message


def test_agents_are_told_the_entry_and_a_change_of_it_rolls_their_pods() -> None:
    spec = ModelServerSpec.model_validate(server(model="tune")["spec"])
    found = models()
    found.take([config_map(tune=TUNE)])
    entry = found.catalogue.entry("tune")
    plain, own = desired.template_hash(spec, "image"), desired.template_hash(spec, "image", entry)
    assert plain != own != desired.template_hash(spec, "image", entry.replace("9", "8"))
    pod = desired.pod(
        server(model="tune"), spec, SETTINGS, pool=Pool(name="default"), slot=0, incarnation=0, entry=entry
    )
    variables = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
    assert "modelEntry" in variables["KINORA_AGENT_CONFIG"]
    assert pod["metadata"]["annotations"]["kinora.dev/template-hash"] == desired.template_hash(
        spec, SETTINGS.engine_image, entry
    )
    without = desired.pod(server(), spec, SETTINGS, pool=Pool(name="default"), slot=0, incarnation=0)
    assert "modelEntry" not in str(without)


def planned_pod(snapshot: ServerSnapshot, found: Models) -> Object:
    return server_plan(snapshot, models=found.catalogue).create[-1].body


def test_the_plan_of_a_server_goes_by_its_entry() -> None:
    found = models()
    found.take([config_map(tune=TUNE)])
    snapshot = server_snapshot(server(model="tune"))
    plain = planned_pod(snapshot, found)
    object.__setattr__(snapshot, "entry", found.catalogue.entry("tune"))
    own = planned_pod(snapshot, found)
    assert plain["metadata"]["name"] != own["metadata"]["name"]
