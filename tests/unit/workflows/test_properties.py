"""Whatever graph comes, it is refused with words or it keeps to the job's own files, weights and folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from kinora.agent.graphcheck import graph_faults
from kinora.engine.contract import node_specs
from kinora.recipes.faults import InvalidSpec
from kinora.workflows.allow import BEYOND, allowed_classes, is_file, known_input, weight_folders
from kinora.workflows.workflow import StagedFile, finished, plan
from unit.workflows.made import UID, model, node, sound, spec

FOLDER = "0b1c-1"
CLASSES = sorted({*node_specs(), "VHS_LoadVideoPath", "Mystery", "LoadLatent"})
NAMES = sorted(
    {name for one in node_specs().values() for name in one.inputs} | {"path", "url", "filename_prefix", "prompt"}
)
TEXTS = st.sampled_from(
    ["photo.png", "../photo.png", "/etc/passwd", "photo.png [output]", "<files[0]>", "0b1c-1/files-0.png", "a", "",
     "x.bin", "wan21_vace_vae.safetensors", "C:\\x", "http://x", "../../0b1c-1/x", "./photo.png",
     "ｐhoto.png", "video/h264-mp4"]
) | st.text(max_size=12)  # fmt: skip
VALUES = st.one_of(
    TEXTS, st.integers(-(2**65), 2**65), st.floats(), st.booleans(), st.none(),
    st.tuples(st.sampled_from(["11", "15", "17", "31", "50", "51", "9"]), st.integers(-1, 4)).map(list),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
NODES = st.fixed_dictionaries(
    {"class_type": st.sampled_from(CLASSES), "inputs": st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)}
)


FILE_INPUTS = st.sampled_from(["image", "file", "filename_prefix"])


@dataclass(frozen=True)
class Facts:
    kind: str = "Image"
    width: int = 64
    height: int = 64
    frames: int = 1
    fps: float = 0.0


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """A sound graph that reads one file, with nodes put in and inputs changed."""
    graph = sound(n17={"reference_image": ["50", 0]})
    graph["50"] = {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["text", "file", "prefix", "number", "mystery", "reader", "node", "any"]))
        if kind == "text":
            graph["15"]["inputs"]["text"] = draw(TEXTS)
        elif kind == "file":
            graph["50"]["inputs"]["image"] = draw(TEXTS)
        elif kind == "prefix":
            graph["32"]["inputs"]["filename_prefix"] = draw(TEXTS)
        elif kind == "number":
            graph["24"]["inputs"]["seed"] = draw(st.integers(-1, 2**64))
        elif kind == "mystery":
            graph["9"] = node("Mystery", **draw(st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=2)))
        elif kind == "reader":
            graph["51"] = node(draw(st.sampled_from(["LoadImage", "LoadVideo"])), **{draw(FILE_INPUTS): draw(TEXTS)})
        elif kind == "node":
            graph["52"] = draw(NODES)
        else:
            one = draw(st.sampled_from(sorted(graph)))
            graph[one]["inputs"][draw(st.sampled_from([*sorted(graph[one]["inputs"]), *NAMES]))] = draw(VALUES)
    return graph


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_no_accepted_graph_reads_or_writes_outside_of_the_job(graph: dict[str, Any]) -> None:
    text = json.dumps(graph)
    job, one = spec(text, files={"photo.png": "photo.png"}), model()
    try:
        planned = plan(job, one, text, UID, ("Mystery",))
        final = finished(planned, one, {"files[0]": StagedFile(f"{FOLDER}/files-0.png", Facts())}, FOLDER, ("Mystery",))
    except InvalidSpec as invalid:
        refused = invalid
    else:
        refused = None
    if refused is not None:
        event("refused")
        assert refused.faults
        assert all(str(fault).isprintable() for fault in refused.faults)
        return
    event("accepted")
    assert graph_faults(final, allowed_classes(one.node_classes, ("Mystery",)), FOLDER) == []
    weights = {weight.name for weight in one.weights}
    for one_node in final.values():
        for name, value in one_node["inputs"].items():
            wanted = known_input(one_node["class_type"], name)
            if is_file(wanted):
                assert value == f"{FOLDER}/files-0.png"
            elif weight_folders(wanted):
                assert value in weights
            elif name == "filename_prefix":
                assert value.startswith(f"{FOLDER}/{FOLDER}-")
                assert value.count("/") == 1
            elif wanted is None and isinstance(value, str) and name not in BEYOND.get(one_node["class_type"], {}):
                assert value == f"{FOLDER}/files-0.png" or value in weights or not set(value) & set("/\\:~.")


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=200)
    | st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists).map(json.dumps)
)
def test_any_text_is_refused_with_words(text: str) -> None:
    job = spec(text)
    with pytest.raises(InvalidSpec) as refused:
        plan(job, model(), text, UID)
    assert refused.value.faults
