"""docs/models.md from the catalogue: `python -m kinora.catalogue.docs FILE`. Text only; the data says everything."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kinora.api.videojob import Preset
from kinora.catalogue.hosted import Hosted, hosted
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model, Range, Weight

_INTRO = """# Models

Made from the catalogue by `make generate`; do not edit. `kinora models` prints the table, `-o yaml` everything.

Every model renders frames at multiples of 16 pixels and, by the packing of its VAE, in numbers of 4n+1. Sizes of files
are in bytes where they are known; *converted* ones you make yourself (`kinora weights quantize`). A file whose hash is
known is held to it where `ModelServer.spec.weights.verify` is `Hash`.
"""

_OWN = """## Models of your own

An administrator adds a model, or changes a packaged one, without a new image: an entry in the chart's value `models`,
or a key `<name>.yaml` of any ConfigMap with the label `kinora.dev/catalogue: "true"` in the operator's own namespace.
(Tenants do not write there: a model is everybody's.) It is read at once.

```yaml
# values.yaml of the chart
models:
  films-tune:                       # a fine-tune: another file, everything else as it is
    extends: wan2.1-vace-14b
    name: films-tune
    weights:
      - {role: diffusion, name: films/tune_fp8_e4m3fn.safetensors, source: our training}
  wan2.1-i2v-14b-480p:              # a packaged model with other options of the engine
    extends: wan2.1-i2v-14b-480p
    engine_options:
      attention_mode: sdpa
      block_swap: {blocks_to_swap: 30}
      torch_compile: {}             # on, as its defaults are; null: off
```

- `extends` names a packaged model. Mappings are merged into it, lists take its place; of `weights` each role by itself.
  A file with another name needs its `source`, and loses what is known of the packaged one (size, hash). Without
  `extends` an entry is whole: `kinora models -o yaml` shows how one looks.
- A ModelServer then says `model: films-tune`. A change of the entry replaces its pods, as a change of its spec does; a
  comment changes nothing.
- **A bad entry** is refused with its field: an event `BadModelEntry` on the ConfigMap, a line in the operator's log,
  the metric `kinora_catalogue_entries{state="Refused"}`. All others stay. Where the name had a good entry, that one
  stays in use for as long as the operator runs; where not, or after a restart, its ModelServers say why and its jobs
  wait: they do not fail for a slip of somebody else. An entry that loads, and whose graphs an engine would refuse (a
  sampler that does not exist), is bad, too.
- `kinora models -f FILE`, `kinora validate --models FILE` and `kinora render --models FILE` read the same files,
  entries or ConfigMaps, before you apply them.
"""


def document() -> str:
    """The whole page."""
    models = list(load_catalogue())
    parts = [
        _INTRO,
        _table(["model", "tasks", "render size", "frames", "GPU", "presets"], (_row(model) for model in models)),
        *("\n".join(_section(model)) for model in models),
        "\n".join(_hosted_section(hosted().values())),
        _OWN,
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _row(model: Model) -> list[str]:
    size, windows = model.limits.size, model.limits.windows
    frames = f"{model.limits.frames.minimum} to {model.limits.frames.maximum}"
    longer = "" if windows is None else f", Edit {windows.longest}"
    return [
        f"[{model.name}](#{_anchor(model.name)})",
        str(len(model.tasks)),
        f"up to {size.max_pixels:,} px, {size.max_side} a side",
        frames + longer,
        f"{model.gpu.memory_gib} GiB, compute {model.gpu.compute_capability}",
        ", ".join((Preset.QUALITY, *model.presets)),
    ]


def _section(model: Model) -> Iterator[str]:
    yield f"## {model.name}\n"
    yield f"{model.display_name}. {model.description} [{_host(model.documentation)}]({model.documentation})\n"
    yield f"Tasks: {', '.join(model.tasks)}.\n"
    yield _table(["file", "role", "types", "bytes", "from"], (_file(weight) for weight in model.weights))
    yield from (f"{weight.name}: licence: {weight.licence}.\n" for weight in model.weights if weight.licence)
    yield from (f"sha256 of {weight.name}: `{weight.sha256}`\n" for weight in model.weights if weight.sha256)
    yield _table(["parameter", "default", *model.presets, "allowed"], _parameters(model))
    yield from _more(model)
    yield f"GPU: {model.gpu.memory_gib} GiB for the defaults, compute capability {model.gpu.compute_capability}.\n"
    yield from _cost(model)
    yield f"Node classes: {_code(model.required_node_classes)}."
    if model.optional_node_classes:
        yield f"Only for some jobs: {_code(model.optional_node_classes)}."
    yield ""


def _cost(model: Model) -> Iterator[str]:
    if model.cost is None:
        return
    yield (
        "Where estimates begin, until renders were measured: seconds = overhead + rate x (tokens x steps) / 1,000,000,"
        f" on a card that is not listed as on {next(iter(model.cost.cards))}.\n"
    )
    rows = (
        [card, f"{speed.overhead_seconds:g}", f"{speed.seconds_per_million_token_steps:g}"]
        for card, speed in model.cost.cards.items()
    )
    yield _table(["gpuModel", "overhead", "rate"], rows)
    yield f"Source: {model.cost.source}\n"


def _file(weight: Weight) -> list[str]:
    known = "" if weight.size_bytes is None else f"{weight.size_bytes:,}"
    role = str(weight.role) + (f" (preset {weight.preset})" if weight.preset else "")
    return [f"`{weight.path}`", role, ", ".join(weight.dtypes), known, weight.source]


def _parameters(model: Model) -> Iterator[list[str]]:
    limits, defaults, presets = model.limits, model.defaults, model.presets.values()
    size, same = limits.size, [""] * len(model.presets)
    smallest = f"multiples of {size.multiple}, {size.min_side} to {size.max_side}"
    yield ["width, height", f"{defaults.width}x{defaults.height}", *same, f"{smallest}, {size.max_pixels:,} px in all"]
    frames = f"{limits.frames.step}n+1, {limits.frames.minimum} to {limits.frames.maximum}"
    yield ["frames", str(defaults.frames), *same, frames]
    for name in ("fps", "steps", "guidance", "shift"):
        of_presets = [_number(getattr(values, name, None)) for values in presets]
        yield [name, _number(getattr(defaults, name)), *of_presets, _range(getattr(limits, name))]
    yield ["denoise", "1", *same, _range(limits.denoise)]
    words = [defaults.sampler, defaults.scheduler]
    others = [", ".join(dict.fromkeys([values.sampler or "", values.scheduler or ""])) for values in presets]
    yield ["sampler, scheduler", ", ".join(dict.fromkeys(words)), *others, "set by the entry"]
    if limits.control_strength:
        yield ["controlStrength", "1", *same, f"0 to {limits.most_control_strength:g}"]
    yield ["references", "", *same, f"at most {limits.references}" if limits.references else "none"]
    yield ["crf", str(defaults.crf), *same, "0 to 51"]


def _more(model: Model) -> Iterator[str]:
    windows = model.limits.windows
    if windows is not None:
        yield (
            f"Edit: more than {windows.frames} frames are rendered in windows, {windows.overlap} frames of overlap,"
            f" {windows.maximum} windows at most: up to {windows.longest} frames."
            f" Colours are matched by `{windows.colour_match}`.\n"
        )
    if model.presets:
        yield (
            "Preset Fast needs its LoRA on the volume; a server without it is ready for other jobs"
            f" ([tasks](tasks.md#presets)).{_lora_words(model)}\n"
        )
    if model.engine_options is not None:
        rows = []
        for name, value in model.engine_options.model_dump().items():
            below = value.items() if isinstance(value, dict) else [("", value)]
            rows += [[f"{name}.{key}" if key else name, _word(one)] for key, one in below]
        yield "Options of the engine (`engine_options`; they belong to the hardware, an administrator changes them):\n"
        yield _table(["option", "value"], rows)


def _lora_words(model: Model) -> str:
    return " Each expert has its own." if len(model.preset_weights(Preset.FAST)) > 1 else ""


def _hosted_section(found: Iterable[Hosted]) -> Iterator[str]:
    yield "## Hosted names\n"
    yield (
        "Models that only their makers host. They do not exist until an administrator maps them to a local model (chart"
        " value `modelAliases: {wan2.7-videoedit: wan2.1-vace-14b}`, `--alias` on the command line). A job then has the"
        " name's own limits, where they are narrower than the local model's.\n"
    )
    rows = (
        [
            f"`{one.name}` ({one.maker})",
            ", ".join(one.tasks),
            str(one.references),
            f"{one.seconds.minimum:g} to {one.seconds.maximum:g} s",
            f"{one.max_pixels:,} px",
            f"`{one.near}`",
        ]
        for one in found
    )
    yield _table(["name", "tasks", "references", "length", "rendered", "nearest"], rows)
    for one in found:
        more = [one.description]
        if one.controls is not None:
            more.append(f"Controls: {', '.join(one.controls)}.")
        if one.control_strength < 2:
            more.append(f"controlStrength 0 to {one.control_strength:g}.")
        if one.negative_prompt < 5000:
            more.append(f"negativePrompt of at most {one.negative_prompt} characters.")
        yield f"- `{one.name}`: {' '.join(more)}"
    yield ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _range(allowed: Range) -> str:
    if allowed.minimum == allowed.maximum:
        return f"{allowed.minimum:g}"
    return f"{allowed.minimum:g} to {allowed.maximum:g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _word(value: object) -> str:
    if value is None:
        return "off"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _anchor(name: str) -> str:
    return name.replace(".", "")


def _host(url: str) -> str:
    return url.split("/")[2]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
