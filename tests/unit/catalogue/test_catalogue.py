"""The shipped catalogue: it loads, says what the documents say, and a bad entry is refused with its field."""

from importlib.resources import files

import pytest
import yaml

from kinora.api.videojob import Task
from kinora.catalogue.hosted import hosted
from kinora.catalogue.load import CatalogueError, load_catalogue, parse_model
from kinora.catalogue.model import Model, Role

CATALOGUE = load_catalogue()
VACE = "wan2.1-vace-1.3b"
I2V = "wan2.1-i2v-14b-480p"


def _text(name: str) -> str:
    return files("kinora.catalogue").joinpath("models", f"{name}.yaml").read_text(encoding="utf-8")


def test_lookup() -> None:
    assert CATALOGUE.names == (I2V, VACE, "wan2.1-vace-14b", "wan2.2-vace-fun-a14b")
    found = CATALOGUE.get(VACE)
    assert found is not None
    assert found.name == VACE
    assert CATALOGUE.get("wan9") is None
    assert CATALOGUE.get(None) is None
    assert load_catalogue() is CATALOGUE


@pytest.mark.parametrize("model", list(CATALOGUE), ids=lambda model: model.name)
def test_tasks_are_the_api_s(model: Model) -> None:
    assert set(model.tasks) <= {str(task) for task in Task}


@pytest.mark.parametrize("model", list(CATALOGUE), ids=lambda model: model.name)
def test_defaults_are_within_limits(model: Model) -> None:
    limits, defaults = model.limits, model.defaults
    assert limits.frames.minimum <= defaults.frames <= limits.frames.maximum
    assert defaults.frames % limits.frames.step == 1
    assert defaults.width % limits.size.multiple == 0
    assert defaults.height % limits.size.multiple == 0
    assert defaults.width * defaults.height <= limits.size.max_pixels
    for name in ("fps", "steps", "guidance", "shift"):
        assert getattr(defaults, name) in getattr(limits, name), name


def test_facts_of_the_first_document() -> None:
    model = CATALOGUE.get(VACE)
    assert model is not None
    assert [weight.path for weight in model.weights] == [
        "diffusion_models/wan21_vace_1_3_b.safetensors",
        "text_encoders/umt5_xxl_fp8_e4m3fn.safetensors",
        "vae/wan21_vace_vae.safetensors",
        "loras/Wan2_1_self_forcing_dmd_1_3B_lora_rank_32_fp16.safetensors",
    ]
    defaults = model.defaults
    assert (defaults.width, defaults.height, defaults.frames, defaults.steps) == (480, 480, 49, 20)
    assert (defaults.guidance, defaults.shift, defaults.sampler, defaults.scheduler) == (4, 8, "uni_pc", "simple")
    assert defaults.weight_dtype == "fp8_e4m3fn_fast"
    assert defaults.negative_prompt.startswith("色调艳丽，过曝，静态")


def test_facts_of_the_second_document() -> None:
    model = CATALOGUE.get(I2V)
    assert model is not None
    assert {weight.role: weight.name for weight in model.required_weights} == {
        Role.DIFFUSION: "Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors",
        Role.TEXT_ENCODER: "wan2.1/umt5-xxl-enc-bf16.safetensors",
        Role.VAE: "wan2.1/Wan2_1_VAE_bf16.safetensors",
        Role.CLIP_VISION: "wan2.1/open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors",
    }
    defaults = model.defaults
    assert (defaults.width, defaults.height, defaults.frames, defaults.steps) == (512, 512, 81, 10)
    assert (defaults.guidance, defaults.shift, defaults.scheduler) == (6, 5, "dpm++")
    with pytest.raises(KeyError):
        CATALOGUE.get(VACE).weight(Role.CLIP_VISION)  # type: ignore[union-attr]


def test_facts_of_the_runcomfy_and_wavespeed_documents() -> None:
    fun, large = CATALOGUE.get("wan2.2-vace-fun-a14b"), CATALOGUE.get("wan2.1-vace-14b")
    assert fun is not None
    assert large is not None
    for size in ("480x480", "720x720", "480x720", "576x1024", "720x1280", "1024x576", "1280x720"):
        width, height = map(int, size.split("x"))
        assert width * height <= fun.limits.size.max_pixels
        assert max(width, height) <= fun.limits.size.max_side
    assert (fun.limits.frames.maximum, fun.defaults.steps, fun.defaults.guidance, fun.defaults.shift) == (
        141,
        12,
        3.5,
        8,
    )
    assert (fun.limits.steps.minimum, fun.limits.steps.maximum) == (2, 40)
    assert (fun.limits.fps.minimum, fun.limits.fps.maximum) == (12, 24)
    assert (large.defaults.steps, large.defaults.guidance, large.defaults.shift) == (30, 5, 16)
    assert (large.limits.frames.maximum, large.limits.references) == (161, 5)


def test_a_hosted_name_is_known_only_where_it_is_mapped() -> None:
    assert CATALOGUE.get("wan2.1-vace-plus") is None
    assert "hosted" in CATALOGUE.unknown("wan2.1-vace-plus")
    assert CATALOGUE.unknown("wan9") == ""
    mapped = CATALOGUE.with_aliases({"wan2.1-vace-plus": "wan2.1-vace-14b"})
    found = mapped.get("wan2.1-vace-plus")
    assert found is not None
    assert (found.name, found.local_name) == ("wan2.1-vace-plus", "wan2.1-vace-14b")
    assert mapped.names == CATALOGUE.names
    with pytest.raises(CatalogueError, match="wan9"):
        CATALOGUE.with_aliases({"wan2.1-vace-plus": "wan9"})
    with pytest.raises(CatalogueError, match="is a model"):
        CATALOGUE.with_aliases({VACE: "wan2.1-vace-14b"})


def _mapped(name: str, target: str) -> Model:
    found = CATALOGUE.with_aliases({name: target}).get(name)
    assert found is not None
    return found


def test_what_the_dashscope_document_allows_of_its_hosted_models() -> None:
    plus = _mapped("wan2.1-vace-plus", "wan2.1-vace-14b")
    assert plus.tasks == (Task.REFERENCE_TO_VIDEO, Task.VIDEO_TO_VIDEO, Task.INPAINT, Task.EXTEND, Task.OUTPAINT)
    assert (plus.limits.references, plus.limits.most_control_strength) == (3, 1)
    assert (plus.defaults.width, plus.defaults.height) == (1280, 720)
    edit = _mapped("wan2.7-videoedit", "wan2.1-vace-14b")
    assert (edit.tasks, edit.limits.references, edit.limits.negative_prompt) == ((Task.EDIT,), 4, 500)
    assert edit.limits.seconds is not None
    assert (edit.limits.seconds.minimum, edit.limits.seconds.maximum) == (2, 10)


def test_a_hosted_name_never_widens_the_local_model() -> None:
    small = _mapped("wan2.1-vace-plus", VACE)
    assert small.limits.size.max_pixels == 399360
    assert (small.defaults.width, small.defaults.height) == (480, 480)
    plain = _mapped("ours", VACE)
    assert (plain.local_name, plain.limits) == (VACE, CATALOGUE.get(VACE).limits)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", list(hosted()))
def test_hosted_names_recommend_a_model_that_does_their_tasks(name: str) -> None:
    near = CATALOGUE.get(hosted()[name].near)
    assert near is not None
    assert set(hosted()[name].tasks) <= set(near.tasks)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"family": "wan9"}, ["family", "wan9"]),
        ({"tasks": ["Dream"]}, ["tasks.0", "Dream"]),
        ({"presets": {}}, ["presets: Fast is not there"]),
        ({"presets": {"Fast": {"steps": 500}}}, ["presets.Fast.steps: 500 is not within limits.steps"]),
        ({"engine_options": {}}, ["engine_options: must be set for family wan-i2v-wrapper, and for no other"]),
        ({"colour": "red"}, ["colour"]),
        ({"name": "Upper"}, ["name", "Upper"]),
        ({"weights": []}, ["weights"]),
        ({"gpu": {"memoryGiB": -1, "compute_capability": "8.9"}}, ["gpu.memoryGiB", "-1"]),
        ({"gpu": {"memoryGiB": 1, "compute_capability": "Ada"}}, ["gpu.compute_capability", "Ada"]),
    ],
)
def test_a_bad_entry_is_refused_with_the_field(change: dict[str, object], words: list[str]) -> None:
    entry = {**yaml.safe_load(_text(VACE)), **change}
    with pytest.raises(CatalogueError) as caught:
        parse_model(yaml.safe_dump(entry), "mine.yaml")
    assert "mine.yaml" in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("limits", "frames"), {"minimum": 5, "maximum": 80}, "80 is not 4n+1"),
        (("limits", "frames"), {"minimum": 81, "maximum": 5}, "above"),
        (("limits", "steps"), {"minimum": 5, "maximum": 1}, "above"),
    ],
)
def test_limits_are_checked(path: tuple[str, str], value: object, word: str) -> None:
    entry = yaml.safe_load(_text(VACE))
    entry[path[0]][path[1]] = value
    with pytest.raises(CatalogueError, match="limits") as caught:
        parse_model(yaml.safe_dump(entry), "x")
    assert word in str(caught.value)


@pytest.mark.parametrize("name", ["../etc/passwd", "/abs", "a/../b", "a//b", ""])
def test_weight_names_stay_below_their_folder(name: str) -> None:
    entry = yaml.safe_load(_text(VACE))
    entry["weights"][0]["name"] = name
    with pytest.raises(CatalogueError, match=r"weights\.0\.name"):
        parse_model(yaml.safe_dump(entry), "x")


def test_one_file_a_role() -> None:
    entry = yaml.safe_load(_text(VACE))
    entry["weights"].append(entry["weights"][0])
    with pytest.raises(CatalogueError, match="same role"):
        parse_model(yaml.safe_dump(entry), "x")


@pytest.mark.parametrize("text", ["- a list", "a: [", "", "{}"])
def test_not_an_entry(text: str) -> None:
    with pytest.raises(CatalogueError):
        parse_model(text, "x")
