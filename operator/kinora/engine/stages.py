"""What a node of a graph is for: the words by which a job's progress is told. Pure."""

from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """What a node of the graph is for. In the order in which a render goes through them."""

    WAIT = "Wait"
    LOAD = "Load"
    ENCODE = "Encode"
    SAMPLE = "Sample"
    DECODE = "Decode"
    SAVE = "Save"


_SAVERS: Final = frozenset({"VHS_VideoCombine", "CreateVideo"})
_MEDIA_LOADERS: Final = frozenset({"LoadImage", "LoadImageMask", "LoadVideo"})


def stage_of(class_type: str) -> Stage:
    """The stage of a node class, from its name: engines load, sample, decode and save under such names."""
    if class_type in _SAVERS or class_type.startswith("Save"):
        return Stage.SAVE
    if "Decode" in class_type:
        return Stage.DECODE
    if "Sampler" in class_type:
        return Stage.SAMPLE
    if class_type in _MEDIA_LOADERS or class_type.startswith("VHS_Load"):
        return Stage.ENCODE
    if "Loader" in class_type or class_type.startswith(("LoadWanVideo", "ModelSampling")):
        return Stage.LOAD
    return Stage.ENCODE
