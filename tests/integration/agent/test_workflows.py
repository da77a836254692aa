"""Raw workflows through a whole agent: real API server, supervisor and stand-in."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

import pytest

from integration.agent.bench import Bench
from integration.agent.test_agent import ENDED, PHOTO, in_phase, ready, wrote
from integration.test_workflows import REF, config_map, raw_job
from kinora.kube.resources import CONFIGMAP
from kinora.media.child import prove
from kinora.workflows.workflow import text_hash
from unit.workflows.made import node, sound

pytestmark = pytest.mark.integration
Object = dict[str, Any]


def small(**changes: Any) -> Object:
    changes["n17"] = {"width": 128, "height": 128, "length": 9, **changes.get("n17", {})}
    changes["n24"] = {"steps": 2, **changes.get("n24", {})}
    return sound(**changes)


async def test_a_workflow_with_files_and_bindings_succeeds_with_proof(bench: Bench) -> None:
    shutil.copy(PHOTO, bench.root / "claims/media/coffee.jpg")
    await ready(bench)
    graph = small(n17={"reference_image": ["50", 0]})
    graph["50"] = node("LoadImage", image="cup.jpg", upload="image")
    digest = hashlib.sha256(PHOTO.read_bytes()).hexdigest()
    source = {"claim": {"name": "media", "path": "coffee.jpg"}}
    workflow = {
        "inline": json.dumps(graph),
        "bindings": {"prompt": "15.text", "frames": "17.length", "seed": "24.seed"},
        "files": [{"name": "cup.jpg", "source": source, "sha256": digest}],
    }
    await bench.bind(raw_job(workflow=workflow, prompt="a cup of coffee", parameters={"frames": 13}))
    status = await bench.status_when("raw", ENDED)
    assert status["phase"] == "Succeeded", status
    [artifact] = status["artifacts"]
    assert status["message"].startswith("13 frames of 128x128 at 16 fps")
    assert (artifact["node"], artifact["list"], artifact["frames"]) == ("32", "gifs", 13)
    path = bench.root / "artifacts" / artifact["uri"].removeprefix("pvc://artifacts/")
    with path.open("rb") as file:
        assert (await prove(file)).sha256 == artifact["sha256"]
    [facts] = status["inputs"]
    assert (facts["name"], facts["sha256"]) == ("files[0]", digest)
    assert (status["resolved"]["frames"], status["resolved"]["inputs"]) == (17, ["files[0]"])
    assert 0 <= status["resolved"]["seed"] < 2**53
    await wrote(bench, Running=1, Succeeded=1)


async def test_a_workflow_from_a_config_map_resumes_after_the_map_is_gone(bench: Bench) -> None:
    text = json.dumps(small())
    await bench.kube.create(CONFIGMAP, bench.namespace, config_map(text))
    await ready(bench)
    bench.hold()
    await bench.bind(raw_job(workflow=REF), {"resolved": {"workflowSha256": text_hash(text)}})
    await bench.status_when("raw", in_phase("Running"))
    await bench.kill_agent()
    await bench.kube.delete(CONFIGMAP, bench.namespace, "graphs")
    await bench.start_agent()
    bench.go()
    status = await bench.status_when("raw", ENDED)
    assert status["phase"] == "Succeeded", status
    assert status["resolved"]["workflowSha256"] == text_hash(text)


async def test_what_cannot_run_fails_for_good_before_the_engine_is_asked(bench: Bench) -> None:
    shutil.copy(PHOTO, bench.root / "claims/media/coffee.jpg")
    await bench.kube.create(CONFIGMAP, bench.namespace, config_map(json.dumps(small())))
    await ready(bench)
    reads = small()
    reads["50"] = node("VHS_LoadVideo", video="x", force_rate=0, custom_width=0, custom_height=0, frame_load_cap=9)
    reads["50"]["inputs"] |= {"skip_first_frames": 0, "select_every_nth": 1}
    file = {"name": "x", "source": {"claim": {"name": "media", "path": "coffee.jpg"}}}
    wrong = {
        "path": ({"inline": json.dumps(small(n14={"vae_name": "../x"}))}, None, "InvalidSpec", "vae_name"),
        "changed": (REF, {"resolved": {"workflowSha256": "0" * 64}}, "WorkflowChanged", "another text"),
        "kind": ({"inline": json.dumps(reads), "files": [file]}, None, "InvalidInput", "a file that is an image"),
        "pin": (
            {"inline": json.dumps(reads), "files": [{**file, "sha256": "0" * 64}]}, None, "InvalidInput", "sha256",
        ),
    }  # fmt: skip
    for name, (workflow, status, _, _) in wrong.items():
        await bench.bind(raw_job(name, workflow=workflow), status)
    for name, (_, _, reason, said) in wrong.items():
        status = await bench.status_when(name, ENDED)
        assert (status["phase"], status["reason"]) == ("Failed", reason), status
        assert said in status["message"]
        assert "startTime" not in status
        assert str(bench.root) not in status["message"]


def stored(bench: Bench, text: str, content: str | None = None) -> tuple[Object, Object]:
    """A workflow whose text a stager has judged and kept, and what it told. `content`: what lies there by now."""
    sha256 = text_hash(text)
    path = bench.root / "artifacts/inputs" / sha256
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if content is None else content)
    workflow = {"upload": {"key": f"0123456789/{sha256}", "sha256": sha256}}
    return workflow, {"inputStore": "pvc://artifacts/", "resolved": {"workflowSha256": sha256}}


async def test_a_graph_that_a_stager_keeps_in_the_store_is_rendered(bench: Bench) -> None:
    workflow, told = stored(bench, json.dumps(small()) + " " * 100_000)
    await ready(bench)
    await bench.bind(raw_job(workflow=workflow), told)
    status = await bench.status_when("raw", ENDED)
    assert status["phase"] == "Succeeded", status
    assert status["resolved"]["workflowSha256"] == workflow["upload"]["sha256"]


async def test_a_graph_in_the_store_that_is_not_the_judged_one_is_never_run(bench: Bench) -> None:
    await ready(bench)
    spoilt, told = stored(bench, json.dumps(small(n24={"seed": 1})), json.dumps(small(n24={"seed": 2})))
    gone, told_gone = stored(bench, json.dumps(small(n24={"seed": 3})))
    (bench.root / "artifacts/inputs" / gone["upload"]["sha256"]).unlink()
    foreign, told_foreign = stored(bench, json.dumps(small(n24={"seed": 4})))
    hostile, told_hostile = stored(bench, json.dumps(small(n14={"vae_name": "../x"})))
    cases = {
        "spoilt": (spoilt, told, "InvalidInput", "as it was judged"),
        "gone": (gone, told_gone, "InvalidInput", "no longer in the store"),
        "foreign": (
            foreign,
            {**told_foreign, "inputStore": "pvc://other/"},
            "InvalidInput",
            "in the store pvc://other/",
        ),
        "unread": (foreign, {"resolved": told_foreign["resolved"]}, "InvalidInput", "no stager has read it"),
        "hostile": (hostile, told_hostile, "InvalidSpec", "vae_name"),
    }
    for name, (workflow, status, _, _) in cases.items():
        await bench.bind(raw_job(name, workflow=workflow), status)
    for name, (_, _, reason, said) in cases.items():
        status = await bench.status_when(name, ENDED)
        assert (status["phase"], status["reason"]) == ("Failed", reason), status
        assert said in status["message"]
        assert "startTime" not in status
