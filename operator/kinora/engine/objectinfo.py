"""GET /object_info: the node contract in the form in which ComfyUI serves it. Pure."""

from collections.abc import Collection
from typing import Any, Final

from kinora.engine.contract import FilesByFolder, InputSpec, NodeSpec, node_specs

_COMBO_STYLE: Final = "comfy_extras.nodes_video"  # the module of the list whose COMBOs come in the newer form
#: Classes that give their outputs as whole lists. The contract does not say it; these are all that there are in it.
_LISTS: Final = frozenset({"RebatchImages"})


def object_info(
    classes: Collection[str], files: FilesByFolder, only: str | None = None, *, category: str
) -> dict[str, Any]:
    """Those of the contract's classes that are in `classes` (or the one named), with the files of the moment."""
    return {
        name: _described(spec, files, category)
        for name, spec in node_specs().items()
        if name in classes and (only is None or name == only)
    }


def _described(spec: NodeSpec, files: FilesByFolder, category: str) -> dict[str, Any]:
    inputs: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for wanted in spec.inputs.values():
        inputs["required" if wanted.required else "optional"][wanted.name] = _input(spec, wanted, files)
    if not inputs["optional"]:
        del inputs["optional"]
    return {
        "input": inputs,
        "input_order": {section: list(members) for section, members in inputs.items()},
        "output": [kind for _, kind in spec.outputs],
        "output_is_list": [spec.name in _LISTS for _ in spec.outputs],
        "output_name": [name for name, _ in spec.outputs],
        "name": spec.name,
        "display_name": spec.name,
        "description": "",
        "python_module": spec.module,
        "category": category,
        "output_node": spec.is_output,
    }


def _input(spec: NodeSpec, wanted: InputSpec, files: FilesByFolder) -> list[Any]:
    config = wanted.config(files)
    if spec.module == _COMBO_STYLE and isinstance(config[0], list):
        return ["COMBO", {**config[1], "options": config[0]}]
    return config
