"""Video nodes: loading, taking apart, putting together and saving. Encoding itself: encode.py."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kinora.engine.standin.encode import read_video, write_ffv1, write_mp4
from kinora.engine.standin.nodes.images import SAVE_COUNTER
from kinora.engine.standin.pictures import resize
from kinora.engine.standin.registry import node
from kinora.engine.standin.values import Context, Images, NodeError, Output, Video

VHS_COUNTER = r"{name}_(\d+)\D*\..+"
SAVEVIDEO_CRF = 23  # libx264's own default, which SaveVideo leaves alone


@node("LoadVideo")
def load_video(context: Context, *, file: str, **_more: Any) -> Output:
    """VIDEO."""
    return Output((read_video(context.folders.upload(file)),))


@node("GetVideoComponents")
def get_video_components(_context: Context, *, video: Video) -> Output:
    """images, audio (none here), fps."""
    return Output((video.images, None, video.fps))


@node("VHS_LoadVideo")
def vhs_load_video(
    context: Context,
    *,
    video: str,
    force_rate: float,
    custom_width: int,
    custom_height: int,
    frame_load_cap: int,
    skip_first_frames: int,
    select_every_nth: int,
    **_options: Any,
) -> Output:
    """IMAGE, frame count, audio (none), video info: resampled to force_rate, then skipped, thinned, capped, resized."""
    wanted = skip_first_frames + frame_load_cap * select_every_nth
    seconds = wanted / force_rate if frame_load_cap and force_rate > 0 else 0.0
    size = (custom_width, custom_height) if custom_width and custom_height else None
    loaded = read_video(context.folders.upload(video), seconds, size)
    images, fps = loaded.images, loaded.fps
    if force_rate > 0:
        count = max(1, round(len(images) * force_rate / fps))
        images = images[np.minimum((np.arange(count) * fps / force_rate).astype(int), len(images) - 1)]
        fps = force_rate
    images = images[skip_first_frames::select_every_nth]
    if frame_load_cap:
        images = images[:frame_load_cap]
    if not len(images):
        raise NodeError("No frames generated", "RuntimeError")
    if custom_width or custom_height:
        width = custom_width or round(images.shape[2] * custom_height / images.shape[1])
        height = custom_height or round(images.shape[1] * custom_width / images.shape[2])
        images = resize(images, width, height)
    info = {"source_fps": loaded.fps, "source_frame_count": len(loaded.images)}
    info |= {"loaded_fps": fps / select_every_nth, "loaded_frame_count": len(images)}
    return Output((images, len(images), None, info))


@node("CreateVideo")
def create_video(_context: Context, *, images: Images, fps: float, **_more: Any) -> Output:
    """VIDEO."""
    return Output((Video(images, fps),))


@node("SaveVideo")
def save_video(context: Context, *, video: Video, filename_prefix: str, **_options: Any) -> Output:
    """name_00001_.mp4 in the output folder, listed under "images"."""
    place = context.folders.save_place(filename_prefix, "output", SAVE_COUNTER)
    name = f"{place.name}_{place.counter:05}_.mp4"
    metadata = {"prompt": json.dumps(context.graph)} if context.metadata else {}
    write_mp4(place.folder / name, video.images, video.fps, crf=SAVEVIDEO_CRF, metadata=metadata)
    return Output(
        ui={"images": [{"filename": name, "subfolder": place.subfolder, "type": "output"}], "animated": [True]}
    )


@node("VHS_VideoCombine")
def vhs_video_combine(
    context: Context,
    /,  # FFV1 has an input of that name
    *,
    images: Images,
    frame_rate: float,
    loop_count: int,
    filename_prefix: str,
    format: str,
    pingpong: bool,
    save_output: bool,
    save_metadata: bool = True,
    **encoding: Any,
) -> Output:
    """name_00001.mp4 or .mkv and its first picture as name_00001.png, listed under "gifs". Odd sides are made even."""
    if format not in _ENDINGS:
        raise NodeError(f"the stand-in writes {' and '.join(_ENDINGS)}, not {format}", "NotImplementedError")
    kind = "output" if save_output else "temp"
    place = context.folders.save_place(filename_prefix, kind, VHS_COUNTER)
    stem = f"{place.name}_{place.counter:05}"
    path = place.folder / f"{stem}.{_ENDINGS[format]}"
    if pingpong:
        images = np.concatenate([images, images[-2:0:-1]])
    info, metadata = PngInfo(), {}
    if save_metadata:
        info.add_text("prompt", json.dumps(context.graph))
        metadata["comment"] = json.dumps({"prompt": context.graph})
    Image.fromarray(np.ascontiguousarray(images[0])).save(place.folder / f"{stem}.png", pnginfo=info, compress_level=4)
    height, width = images.shape[1:3]
    if height % 2 or width % 2:
        images = np.pad(images, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    count = len(images)
    looped = images if not loop_count else np.tile(images, (loop_count + 1, 1, 1, 1))

    def progress(done: int) -> None:
        if done <= count:
            context.progress(done, count)

    _write(path, looped, frame_rate, encoding=encoding, metadata=metadata, progress=progress)
    entry = {
        "filename": path.name,
        "subfolder": place.subfolder,
        "type": kind,
        "format": format,
        "frame_rate": frame_rate,
        "workflow": f"{stem}.png",
        "fullpath": str(path),
    }
    return Output(ui={"gifs": [entry]})


_ENDINGS = {"video/h264-mp4": "mp4", "video/ffv1-mkv": "mkv"}
# The format's own inputs, by FFmpeg's names of them, with the node's defaults.
_FFV1 = {"level": ("level", "3"), "coder": ("coder", "1"), "context": ("context", "1"), "gop_size": ("g", 1)}
_FFV1 |= {"slices": ("slices", "16"), "slicecrc": ("slicecrc", "1")}


def _write(
    path: Path,
    images: Images,
    fps: float,
    *,
    encoding: Mapping[str, Any],
    metadata: Mapping[str, str],
    progress: Callable[[int], None],
) -> None:
    if path.suffix == ".mp4":
        crf, pix_fmt = encoding.get("crf", 19), encoding.get("pix_fmt", "yuv420p")
        write_mp4(path, images, fps, crf=crf, pix_fmt=pix_fmt, metadata=metadata, progress=progress)
        return
    options = {name: str(encoding.get(key, default)) for key, (name, default) in _FFV1.items()}
    pix_fmt = encoding.get("pix_fmt", "rgba64le")
    if pix_fmt not in ("bgra", "bgr0"):
        raise NodeError(f"the stand-in writes FFV1 in bgra, not {pix_fmt}", "NotImplementedError")
    write_ffv1(path, images, fps, options=options, pix_fmt=pix_fmt, metadata=metadata, progress=progress)
