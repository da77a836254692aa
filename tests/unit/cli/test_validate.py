"""`kinora validate` on files: every fault at once, with its line; nothing from outside can make it crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.catalogue.load import load_catalogue
from kinora.cli.main import main
from kinora.cli.manifests import Document, UnreadableError, read
from kinora.cli.validate import validate
from unit.workflows.made import node, sound

ROOT = Path(__file__).parents[3]
HEAD = "apiVersion: kinora.dev/v1alpha1\nkind: VideoJob\nmetadata: {name: a}\n"
JOB = HEAD + "spec:\n  model: wan2.1-vace-1.3b\n  task: TextToVideo\n  prompt: a lighthouse\n"
SERVER = (
    "apiVersion: kinora.dev/v1alpha1\nkind: ModelServer\nmetadata: {name: vace}\nspec:\n  model: wan2.1-vace-1.3b\n"
    "  weights: {claimName: models}\n  artifacts: {claimName: videos}\n"
)


def found(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    return [line.removeprefix(str(tmp_path) + "/") for line in validate(read(str(path)), load_catalogue()).lines]


def run(*arguments: str, text: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["validate", *arguments], input=text)
    return result.exit_code, result.stdout, result.stderr


def test_the_examples_are_sound() -> None:
    files = sorted(str(path) for path in (ROOT / "examples").glob("*.yaml"))
    code, out, err = run(*files)
    assert (code, out) == (0, "")
    assert err == f"{len(files)} files, {len(files) + 1} objects, 0 faults\n"


def test_every_fault_of_every_object_at_once(tmp_path: Path) -> None:
    lines = found(
        tmp_path,
        JOB
        + "  parameters: {frames: 80, width: 100, steps: many}\n  priority: 5000\n  queue: gold\n---\n"
        + SERVER.replace("vace}", "1vace}")
        + "  warmup: true\n  engine: {args: [--port=1, --listen]}\n  gpu: {count: 99}\n---\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
    )
    assert [line.partition("; allowed: ")[0] for line in lines] == [
        "f.yaml:8: VideoJob/a: spec.parameters.width is 100",
        "f.yaml:8: VideoJob/a: spec.parameters.steps is many",
        "f.yaml:8: VideoJob/a: spec.parameters.frames is 80",
        "f.yaml:9: VideoJob/a: spec.priority is 5000",
        "f.yaml:14: ModelServer/1vace: metadata.name is 1vace",
        "f.yaml:19: ModelServer/1vace: spec.warmup is set; not implemented yet",
        "f.yaml:20: ModelServer/1vace: spec.engine.args is --port=1",
        "f.yaml:20: ModelServer/1vace: spec.engine.args is --listen",
        "f.yaml:21: ModelServer/1vace: spec.gpu.count is 99",
    ]
    assert "77 or 81" in lines[2]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            JOB.replace("task: TextToVideo", "task: ImageToVideo"),
            ":4: VideoJob/a: spec.inputs.image is not set; allowed: ",
        ),
        (JOB.replace("wan2.1-vace-1.3b", "wan9"), ":5: VideoJob/a: spec.model is wan9; allowed: wan2.1-i2v-14b-480p, "),
        (JOB + "  stepz: 1\n", ":8: VideoJob/a: spec.stepz is no field of this resource; allowed: "),
        (JOB + "  prompt: b\n", ":8: VideoJob/a: spec.prompt is given twice; allowed: once"),
        (JOB + "stat: 1\n", ":8: VideoJob/a: stat is no field of this resource"),
        (JOB.replace("name: a", "name: A_b"), ":3: VideoJob/A_b: metadata.name is A_b; allowed: small letters"),
        (JOB.replace("name: a", "labels: {}"), ":3: VideoJob/no name: metadata.name is not set"),
        (JOB.replace("v1alpha1", "v1"), ":1: VideoJob/a: apiVersion is kinora.dev/v1; allowed: kinora.dev/v1alpha1"),
        (JOB.replace("VideoJob", "Videojob"), ":2: Videojob/a: kind is Videojob; allowed: VideoJob, ModelServer"),
        (HEAD, ":1: VideoJob/a: spec is not set"),
        (HEAD + "spec: []\n", ":4: VideoJob/a: spec is a list of 0; allowed: a mapping of fields"),
        (HEAD + "spec: {}\n", ":4: VideoJob/a: spec is without all of them; allowed: exactly one of model"),
        ("- a\n", ":1: object/no name: object is a list; allowed: a mapping"),
        ("apiVersion: kinora.dev/v1alpha1\nkind: VideoJob\nspec: {}\n", ":1: VideoJob/no name: metadata is not set"),
        (
            "items:\n- " + JOB.replace("\n", "\n  ") + "  priority: 9999\nkind: List\n",
            ":9: VideoJob/a: spec.priority is 9999",
        ),
        (SERVER.replace("wan2.1-vace-1.3b", "wan9"), ":5: ModelServer/vace: spec.model is wan9; allowed: wan2.1-i2v"),
    ],
)
def test_one_fault(tmp_path: Path, text: str, fault: str) -> None:
    lines = found(tmp_path, text)
    assert any(line.startswith("f.yaml" + fault) for line in lines), lines


def test_a_job_may_name_a_server_of_the_same_files(tmp_path: Path) -> None:
    job = JOB.replace("model: wan2.1-vace-1.3b", "modelServerName: vace") + "  parameters: {frames: 85}\n"
    assert found(tmp_path, job) == []
    (line,) = found(tmp_path, f"{job}---\n{SERVER}")
    assert "spec.parameters.frames is 85; allowed: 4n+1 between 5 and 81" in line


def test_what_cannot_be_read(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(JOB + "  : [\n")
    code, out, err = run(str(bad), str(tmp_path / "none.yaml"), "-", text=JOB + "  priority: 9999\n")
    assert code == 2
    assert "standard input:8: VideoJob/a: spec.priority is 9999" in out
    assert f"{bad}:8: not YAML" in err
    assert "none.yaml: No such file" in err


def test_as_json() -> None:
    code, out, _ = run("-o", "json", "-", text=JOB + "  priority: 9999\n")
    (fault,) = json.loads(out)
    assert code == 1
    assert fault == {
        "file": "standard input",
        "line": 8,
        "object": "VideoJob/a",
        "field": "spec.priority",
        "value": "9999",
        "allowed": "-1000 to 1000",
        "notImplemented": False,
    }


@pytest.mark.parametrize(
    "text", ["\0", "a: &a [*a]", "[" * 5000, "? {a: b}\n: c", "!!python/object:os.system {}", "\ud800"]
)
def test_hostile_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UnreadableError):
        assert validate(read(str(path)), load_catalogue()).lines == []


LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
TREE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "model",
    "task",
    "inputs",
    "parameters",
    "output",
    "workflow",
    "queue",
    "webhook",
    "prompt",
    "weights",
    "gpu",
    "engine",
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["VideoJob", "ModelServer"]), st.dictionaries(st.sampled_from(FIELDS), TREE, max_size=5), TREE)
def test_nothing_makes_it_crash(kind: str, spec: object, metadata: object) -> None:
    data = {"apiVersion": "kinora.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    assert validate([Document("f", data, {})], load_catalogue()).objects == 1


def test_models() -> None:
    runner = CliRunner()
    table = runner.invoke(main, ["models"]).stdout.splitlines()
    assert table[0].split()[:2] == ["NAME", "TASKS"]
    assert [line.split()[0] for line in table[1:]] == list(load_catalogue().names)
    made = json.loads(runner.invoke(main, ["models", "-o", "json"]).stdout)
    assert [model["name"] for model in made] == list(load_catalogue().names)
    assert "name: wan2.1-vace-1.3b" in runner.invoke(main, ["models", "-o", "yaml"]).stdout


GRAPH = json.dumps(sound(n17={"width": 72}))
RAW = (
    HEAD + "spec:\n  model: wan2.1-vace-1.3b\n  prompt: x\n  workflow:\n"
    "    configMapRef: {name: graphs, key: g}\n    bindings: {prompt: 15.text, size: 17.width}\n"
)
MAP = f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: graphs}}\ndata:\n  g: '{GRAPH}'\n"


def test_a_raw_workflow_is_judged_with_its_config_map(tmp_path: Path) -> None:
    lines = found(tmp_path, RAW + MAP)
    assert [line.partition("; allowed: ")[0] for line in lines] == [
        "f.yaml:7: VideoJob/a: spec.workflow node 17 (WanVaceToVideo) width is 72",
        "f.yaml:9: VideoJob/a: spec.workflow.bindings.size is no name of a binding",
    ]


def test_a_raw_workflow_without_its_config_map_is_noted(tmp_path: Path) -> None:
    job, graphs = tmp_path / "job.yaml", tmp_path / "map.yaml"
    job.write_text(RAW.replace(", size: 17.width", ""))
    graphs.write_text(MAP.removeprefix("---\n"))
    code, out, err = run(str(job))
    assert (code, out) == (0, "")
    assert "checked without its workflow: its workflow is key g of ConfigMap graphs" in err
    code, out, _ = run(str(job), "--workflow-config-map", str(graphs))
    assert code == 1
    assert "width is 72" in out


def test_what_a_model_server_of_the_same_files_allows_counts(tmp_path: Path) -> None:
    graph = sound()
    graph["50"] = node("Glow")
    text = HEAD + f"spec:\n  model: wan2.1-vace-1.3b\n  workflow:\n    inline: '{json.dumps(graph)}'\n"
    assert 'node 50 class_type is "Glow"' in found(tmp_path, text)[0]
    assert found(tmp_path, f"{text}---\n{SERVER}  allowedNodeClasses: [Glow]\n") == []
