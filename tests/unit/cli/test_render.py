"""`kinora render`: the graph of a job without a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kinora.cli.main import main
from unit.workflows.made import node, sound

ROOT = Path(__file__).parents[3]
JOB = """
apiVersion: kinora.dev/v1alpha1
kind: VideoJob
metadata: {name: steam}
spec:
  model: wan2.1-i2v-14b-480p
  task: ImageToVideo
  prompt: steam rises
  inputs: {image: {configMap: {name: photographs, key: coffee.jpg}}}
"""


def run(*arguments: str, text: str = JOB) -> tuple[int, Any, str]:
    result = CliRunner().invoke(main, ["render", "-", *arguments], input=text)
    return result.exit_code, json.loads(result.stdout) if result.stdout else None, result.stderr


def values(graph: dict[str, Any], name: str) -> set[Any]:
    return {node["inputs"][name] for node in graph.values() if isinstance(node["inputs"].get(name), (str, int))}


def test_a_graph() -> None:
    code, graph, err = run()
    assert code == 0
    assert all(set(node) == {"class_type", "inputs"} for node in graph.values())
    assert "coffee.jpg" in values(graph, "image")
    assert "kinora/steam" in values(graph, "filename_prefix")
    assert "no seed" in err


def test_a_hosted_model_that_nobody_mapped() -> None:
    code, _, err = run(text=JOB.replace("wan2.1-i2v-14b-480p", "wan2.7-videoedit"))
    assert code == 1
    assert "spec.model is wan2.7-videoedit; allowed: " in err


def test_a_size_that_the_input_decides_is_told() -> None:
    sized = (ROOT / "examples/video-to-video.yaml").read_text(encoding="utf-8").replace("VideoToVideo", "Outpaint")
    assert "no size is asked for" not in run(text=sized)[2]
    unsized = sized.replace("width: 640, height: 352, ", "expand: {left: 1.5}, ")
    assert unsized != sized
    code, graph, err = run(text=unsized)
    assert code == 0
    assert graph
    assert "no size is asked for" in err


def test_staged_names() -> None:
    code, graph, _ = run("--inputs-as", "image=job-1/photo.png")
    assert code == 0
    assert "job-1/photo.png" in values(graph, "image")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*-to-video.yaml")), ids=lambda path: path.stem)
def test_the_examples(path: Path) -> None:
    code, graph, _ = run(text=path.read_text(encoding="utf-8"))
    assert code == 0
    assert len(graph) > 5


@pytest.mark.parametrize(
    ("arguments", "text", "told"),
    [
        (["--inputs-as", "video=a"], JOB, "--inputs-as video: allowed: image"),
        (["--inputs-as", "image"], JOB, "--inputs-as is 'image'; allowed: NAME=PATH"),
        (["--job", "x"], JOB, "the file holds steam; give one by --job"),
        ([], JOB + "---" + JOB, "the file holds steam, steam; give one by --job"),
        ([], "kind: ConfigMap\n", "the file holds no VideoJob"),
        ([], JOB.replace("wan2.1-i2v-14b-480p", "wan9"), "spec.model is wan9; allowed: wan2.1-i2v-14b-480p"),
        ([], JOB.replace("wan2.1-i2v-14b-480p", "../../x"), "spec.model is ../../x; allowed: "),
        (
            [],
            JOB + "  parameters: {frames: 80, width: 100000}\n",
            "spec.parameters.width is 100000; allowed: 16 to 4096",
        ),
        ([], JOB + "  parameters: {frames: 80, steps: 150}\n", "spec.parameters.frames is 80; allowed: 4n+1"),
        ([], JOB.replace("model: wan2.1-i2v-14b-480p", "modelServerName: i2v"), "give its model by --model"),
    ],
)
def test_no_graph(arguments: list[str], text: str, told: str) -> None:
    code, graph, err = run(*arguments, text=text)
    assert (code, graph) == (1, None)
    assert told in err


def test_a_server_s_job_takes_the_model_that_is_given() -> None:
    code, graph, _ = run(
        "--model", "wan2.1-i2v-14b-480p", text=JOB.replace("model: wan2.1-i2v-14b-480p", "modelServerName: a")
    )
    assert code == 0
    assert graph


def test_not_a_file() -> None:
    assert CliRunner().invoke(main, ["render", "/nowhere.yaml"]).exit_code == 2


def test_it_imports_no_heavy_library() -> None:
    """What makes the process quick; the time itself is measured by tests/bench/render.py."""
    script = (
        "import sys; from kinora.cli.main import main\n"
        f"main(['render', {str(ROOT / 'examples/text-to-video.yaml')!r}], standalone_mode=False)\n"
        "heavy = {'numpy', 'av', 'PIL', 'kopf', 'kubernetes', 'aiohttp', 'httpx', 'websockets', 'asyncio', 'cv2'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_prepared_files_can_be_named_and_are_told() -> None:
    job = JOB.replace("wan2.1-i2v-14b-480p", "wan2.1-vace-1.3b").replace("ImageToVideo", "FirstLastFrame")
    frame = "{configMap: {name: photographs, key: coffee.jpg}}"
    job = job.replace(f"image: {frame}", f"firstFrame: {frame}, lastFrame: {frame}")
    code, graph, err = run("--inputs-as", "control=job-1/control.mkv", text=job)
    assert code == 0, err
    assert "job-1/control.mkv" in values(graph, "video")
    assert "control, mask.video: prepared by the agent" in err
    assert "in a cluster it is the source's" in err
    assert "allowed: control, mask.video" in run("--inputs-as", "firstFrame=a.png", text=job)[2]


RAW = """
apiVersion: kinora.dev/v1alpha1
kind: VideoJob
metadata: {name: raw}
spec:
  model: wan2.1-vace-1.3b
  prompt: a blue ship
  inputs: {image: {claim: {name: media, path: ship.png}}}
  workflow:
    configMapRef: {name: graphs, key: vace.json}
    bindings: {prompt: 15.text, image: 50.image}
"""


def _graphs(**changes: Any) -> str:
    graph = sound(**changes)
    graph["50"] = node("LoadImage", image="own.png")
    data = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "graphs"},
        "data": {"vace.json": json.dumps(graph)},
    }
    return json.dumps(data)


def test_a_raw_workflow_of_the_same_stream() -> None:
    code, graph, _ = run("--inputs-as", "image=ship.png", text=f"{RAW}---\n{_graphs()}")
    assert code == 0
    assert graph["15"]["inputs"]["text"] == "a blue ship"
    assert graph["50"]["inputs"]["image"] == "ship.png"
    assert graph["32"]["inputs"]["filename_prefix"] == "raw/raw-32"


def test_a_raw_workflow_whose_config_map_is_in_another_file(tmp_path: Path) -> None:
    code, _, err = run(text=RAW)
    assert code == 1
    assert "its workflow is key vace.json of ConfigMap graphs; give that file too (--workflow-config-map)" in err
    path = tmp_path / "graphs.yaml"
    path.write_text(_graphs())
    assert run("--workflow-config-map", str(path), text=RAW)[0] == 0
    assert "allowed: image" in run("--workflow-config-map", str(path), "--inputs-as", "video=a", text=RAW)[2]


def test_a_raw_workflow_with_faults_is_not_rendered() -> None:
    code, _, err = run(text=f"{RAW}---\n{_graphs(n17={'width': 72}, n24={'steps': 999})}")
    assert code == 1
    assert "node 17 (WanVaceToVideo) width is 72" in err
    assert "node 24 (KSampler) steps is 999" in err
