"""GET /object_info: the node contract in the form in which ComfyUI serves it. Pure."""

from typing import Any

from kinora.engine.contract import FilesByFolder, InputSpec, NodeSpec, node_specs
from kinora.engine.standin.registry import NODES

COMBO_STYLE = "comfy_extras.nodes_video"  # the module of the list whose COMBOs come in the newer form


def object_info(files: FilesByFolder, only: str | None = None) -> dict[str, Any]:
    """Every class that the stand-in executes (or the one named, if it is there), with the files of the moment."""
    return {
        name: _described(spec, files)
        for name, spec in node_specs().items()
        if name in NODES and (only is None or name == only)
    }


def _described(spec: NodeSpec, files: FilesByFolder) -> dict[str, Any]:
    inputs: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for wanted in spec.inputs.values():
        inputs["required" if wanted.required else "optional"][wanted.name] = _input(spec, wanted, files)
    if not inputs["optional"]:
        del inputs["optional"]
    lists = NODES[spec.name].lists
    return {
        "input": inputs,
        "input_order": {section: list(members) for section, members in inputs.items()},
        "output": [kind for _, kind in spec.outputs],
        "output_is_list": [lists for _ in spec.outputs],
        "output_name": [name for name, _ in spec.outputs],
        "name": spec.name,
        "display_name": spec.name,
        "description": "",
        "python_module": spec.module,
        "category": "stand-in",
        "output_node": spec.is_output,
    }


def _input(spec: NodeSpec, wanted: InputSpec, files: FilesByFolder) -> list[Any]:
    config = wanted.config(files)
    if spec.module == COMBO_STYLE and isinstance(config[0], list):
        return ["COMBO", {**config[1], "options": config[0]}]
    return config
