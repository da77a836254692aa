"""The allow-list of (class, input) pairs, as data: which classes, and which of their inputs lead out of the graph.

Facts: the node contract (which inputs name files, and of which folder), and the sources of the node packages for what
a contract cannot say: which nodes fetch, read paths of the server, or keep files of their own.
"""

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

from kinora.engine.contract import InputSpec, node_specs
from kinora.recipes.needs import MediaKind

#: Safe for every model: they compute, read files by name only, write below a prefix, and fetch nothing.
CURATED: Final = frozenset(
    {
        *("CLIPLoader", "UNETLoader", "VAELoader", "LoraLoaderModelOnly", "CLIPTextEncode", "ModelSamplingSD3"),
        *("KSampler", "KSamplerAdvanced", "EmptyLatentImage", "TrimVideoLatent", "VAEDecode", "VAEDecodeTiled"),
        *("WanVaceToVideo", "INTConstant", "FloatConstant", "GetImageSize", "GetVideoComponents"),
        *("LoadImage", "LoadImageMask", "LoadVideo", "VHS_LoadVideo", "EmptyImage", "SolidMask"),
        *("ImageScale", "ImageResizeKJv2", "ImageCrop", "ImageInvert", "ImageBatch", "ImageFromBatch", "Canny"),
        *("ImageCompositeMasked", "ImagePadForOutpaint", "RepeatImageBatch", "ImageToMask", "MaskToImage"),
        *("InvertMask", "GrowMask", "CreateVideo", "SaveVideo", "SaveImage", "PreviewImage", "VHS_VideoCombine"),
        *("WanVideoModelLoader", "WanVideoVAELoader", "LoadWanVideoT5TextEncoder", "LoadWanVideoClipTextEncoder"),
        *("WanVideoTextEncode", "WanVideoImageClipEncode", "WanVideoSampler", "WanVideoDecode"),
        *("WanVideoBlockSwap", "WanVideoTorchCompileSettings"),
    }
)

#: Never, whatever a ModelServer allows: they take paths of the server, fetch, run code, or work the engine's own queue.
NEVER: Final = (
    *("VHS_*Path", "VHS_LoadAudio*", "VHS_LoadImages*", "VHS_PruneOutputs", "VHS_BatchManager", "VHS_*Batch*Manager"),
    *("*FromURL*", "*FromUrl*", "*LoadUrl*", "*LoadURL*", "*Download*", "*HTTP*", "*Http*", "*Webhook*"),
    *("*Exec*", "*Eval*", "*Python*", "*Shell*", "*Script*", "*LoadFromPath*", "*SaveToPath*", "*FromPath*"),
)

#: Inputs that a class takes beyond its contract: the widgets of VHS_VideoCombine's formats.
BEYOND: Final[Mapping[str, Mapping[str, type]]] = {
    "VHS_VideoCombine": {
        "pix_fmt": str, "crf": int, "save_metadata": bool, "trim_to_audio": bool, "bitrate": int, "megabit": bool,
        "profile": str, "input_color_depth": str, "lossless": bool,
    }
}  # fmt: skip

#: Values that a class may have where its contract allows more.
ONLY: Final[Mapping[tuple[str, str], tuple[Any, ...]]] = {
    # The others make a file for each frame, or one that cannot be proven.
    ("VHS_VideoCombine", "format"): (
        "video/h264-mp4", "video/h265-mp4", "video/webm", "video/av1-webm", "video/ffv1-mkv", "video/ProRes",
        "video/nvenc_h264-mp4", "video/nvenc_hevc-mp4", "video/nvenc_av1-mp4", "image/gif",
    ),
    # It keeps embeddings as files in a folder that all jobs share.
    ("WanVideoTextEncode", "use_disk_cache"): (False,),
}  # fmt: skip

PREFIX: Final = "filename_prefix"
#: Output nodes whose files are results; every output of another node is a preview, or nothing.
SAVERS: Final = frozenset({"VHS_VideoCombine", "SaveVideo", "SaveImage"})
_FILE_KINDS: Final = {
    "LoadImage": MediaKind.IMAGE,
    "LoadImageMask": MediaKind.IMAGE,
    "LoadVideo": MediaKind.VIDEO,
    "VHS_LoadVideo": MediaKind.VIDEO,
}
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_ +-]*(\.\d+)?[A-Za-z0-9_ +-]*")


@lru_cache(maxsize=4096)
def never_allowed(class_type: str) -> bool:
    """Whether no ModelServer can allow the class."""
    return any(fnmatchcase(class_type, pattern) for pattern in NEVER)


def allowed_classes(recipes: Collection[str], more: Collection[str] | None) -> frozenset[str]:
    """The classes of the model's recipes, the curated ones, and what the ModelServer adds."""
    return frozenset(name for name in {*recipes, *CURATED, *(more or ())} if not never_allowed(name))


def is_file(wanted: InputSpec | None) -> bool:
    """Whether the input names a file among those that users upload."""
    return wanted is not None and wanted.files == ("input",)


def weight_folders(wanted: InputSpec | None) -> tuple[str, ...]:
    """The folders of models from which the input names a file; none for other inputs."""
    return wanted.files if wanted is not None and wanted.files and not is_file(wanted) else ()


def a(kind: str) -> str:
    """The kind of a file with its article."""
    return f"an {kind.lower()}" if kind[0] in "IAEO" else f"a {kind.lower()}"


def file_kind(class_type: str) -> MediaKind:
    """What the class reads."""
    return _FILE_KINDS.get(class_type, MediaKind.EITHER)


def is_plain_word(value: str) -> bool:
    """Whether a text for a node outside of the contract can be no path, address or file name."""
    return _PLAIN_WORD.fullmatch(value) is not None and len(value) <= 64


def is_one_word(value: str) -> bool:
    """Whether the text is a single short word, as a codec's options are."""
    return re.fullmatch(r"\w{1,32}", value, re.ASCII) is not None


def known_input(class_type: str, name: str) -> InputSpec | None:
    """What the contract says of the input."""
    spec = node_specs().get(class_type)
    return spec.inputs.get(name) if spec is not None else None
