"""Looking at untrusted files in a process that has nothing to lose: no token, no environment, little memory.

The file is handed over open, at standard input; the answer comes back as JSON. A child that dies or takes too long is
the fault of its file (MediaError, permanent), once it has said that its own code is loaded; before that it is ours
(IsolationError).
"""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from kinora.media.info import InputError, MediaError, MediaInfo, Normalised, Proof

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_MAX_ANSWER = 64 * 1024
_MiB = 1024 * 1024


class IsolationError(Exception):
    """The child could not be started: our own installation, not the file."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The child's resource limits. `file_bytes` bounds what it may write; `wall_seconds` is the parent's patience."""

    wall_seconds: float = 180
    address_bytes: int = 4096 * _MiB
    data_bytes: int = 2048 * _MiB
    cpu_seconds: int = 120
    file_bytes: int = 512 * _MiB
    open_files: int = 64


#: A whole clip is decoded, transformed and written without loss: more of everything than a look takes.
PREPARING = Limits(wall_seconds=900, cpu_seconds=1200, data_bytes=3072 * _MiB, file_bytes=2048 * _MiB)


async def probe(file: BinaryIO, limits: Limits | None = None) -> MediaInfo:
    """What the open file is. Raises MediaError."""
    return MediaInfo.from_dict(await run_isolated("probe", file, limits=limits))


async def prove(file: BinaryIO, limits: Limits | None = None) -> Proof:
    """Read a finished video back: frames, rate, size, length, codec, sha256, bytes. Raises MediaError."""
    return Proof.from_dict(await run_isolated("prove", file, limits=limits))


async def normalise_image(file: BinaryIO, output: BinaryIO, limits: Limits | None = None) -> Normalised:
    """Write the picture in `file` to `output` (open for writing) as the PNG that an engine reads. Raises MediaError."""
    answer = await run_isolated("normalise_image", file, output=output, limits=limits)
    return Normalised(answer["width"], answer["height"], tuple(answer["actions"]))


async def put_alpha(image: BinaryIO, mask: BinaryIO, output: BinaryIO, limits: Limits | None = None) -> None:
    """Write the picture with the alpha of the mask to `output` (see alpha.py). Raises MediaError, InputError."""
    inputs = {"image": image, "mask": mask}
    await run_isolated("put_alpha", None, inputs=inputs, outputs={"image": output}, limits=limits)


async def channel(file: BinaryIO, output: BinaryIO, name: str, limits: Limits | None = None) -> None:
    """Write the colours (`rgb`) or the alpha (`a`) of a picture to `output`, open for writing. Raises MediaError."""
    await run_isolated("channel", file, {"name": name}, output=output, limits=limits)


async def preview(
    file: BinaryIO, output: BinaryIO, kind: str, quality: int, *, opaque: bool, limits: Limits | None = None
) -> None:
    """Write a picture as `kind` (webp, jpeg) to `output`, open for writing (see alpha.py). Raises MediaError."""
    arguments = {"kind": kind, "quality": quality, "opaque": opaque}
    await run_isolated("preview", file, arguments, output=output, limits=limits)


async def thumbnail(file: BinaryIO, output: BinaryIO, limits: Limits | None = None) -> None:
    """Write one frame of a video to `output`, open for writing, as WebP (see stills.py). Raises MediaError."""
    await run_isolated("thumbnail", file, output=output, limits=limits)


async def spritesheet(file: BinaryIO, output: BinaryIO, limits: Limits | None = None) -> None:
    """Write many frames of a video to `output`, open for writing, as one JPEG (see stills.py). Raises MediaError."""
    await run_isolated("spritesheet", file, output=output, limits=limits)


async def prepare(
    inputs: Mapping[str, BinaryIO],
    outputs: Mapping[str, BinaryIO],
    plan: Mapping[str, Any],
    limits: Limits | None = None,
) -> dict[str, list[str]]:
    """Carry out a preparation (see prepare.py): what was done to each input. Raises MediaError, InputError where known.

    The files are open: inputs for reading, outputs for writing.
    """
    answer = await run_isolated(
        "prepare", None, {"plan": dict(plan)}, inputs=inputs, outputs=outputs, limits=limits or PREPARING
    )
    return {name: list(actions) for name, actions in answer["actions"].items()}


async def hear(file: BinaryIO, limits: Limits | None = None) -> float:
    """Seconds of sound in the open video; 0 where it has none. Raises MediaError for sound that cannot be decoded."""
    return float((await run_isolated("hear", file, limits=limits))["seconds"])


async def finish(
    inputs: Mapping[str, BinaryIO],
    output: BinaryIO,
    plan: Mapping[str, Any],
    text: str,
    limits: Limits | None = None,
) -> list[str]:
    """Carry out a finishing (see finish.py) into `output`: what was done. Raises MediaError, InputError where known.

    `inputs` are open for reading: the engine's file, sources by their names, the mark's picture where there is one.
    """
    answer = await run_isolated(
        "finish",
        None,
        {"plan": dict(plan), "text": text},
        inputs=inputs,
        outputs={"video": output},
        limits=limits or finishing_limits(plan),
    )
    return [str(action) for action in answer["actions"]]


def finishing_limits(plan: Mapping[str, Any]) -> Limits:
    """Patience and room by the work: pixels that come in and go out, and motion that is measured."""
    pixels = plan["rendered"] * plan["width"] * plan["height"]
    pixels += plan["frames"] * plan["output_width"] * plan["output_height"]
    seconds = 300 + 4e-6 * pixels + (3.0 * plan["frames"] if plan["fps"] != plan["output_fps"] else 0.0)
    return Limits(
        wall_seconds=seconds,
        cpu_seconds=int(4 * seconds),
        data_bytes=3072 * _MiB,
        file_bytes=256 * _MiB + 3 * plan["frames"] * plan["output_width"] * plan["output_height"],
    )


async def run_isolated(
    function: str,
    file: BinaryIO | None,
    arguments: Mapping[str, Any] | None = None,
    *,
    output: BinaryIO | None = None,
    inputs: Mapping[str, BinaryIO] | None = None,
    outputs: Mapping[str, BinaryIO] | None = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Run a function of worker.py on open files in a child, for at most `limits.wall_seconds`; its result as a dict.

    Raises MediaError (the file), IsolationError (the child did not start).
    """
    limits = limits or Limits()
    request = {
        "function": function,
        "arguments": dict(arguments or {}),
        "limits": {name: value for name, value in asdict(limits).items() if name != "wall_seconds"},
        "output": output.fileno() if output is not None else None,
        "inputs": {name: one.fileno() for name, one in (inputs or {}).items()},
        "outputs": {name: one.fileno() for name, one in (outputs or {}).items()},
    }
    passed = [*(inputs or {}).values(), *(outputs or {}).values(), *([output] if output is not None else [])]
    process = await _start(json.dumps(request), file, tuple(one.fileno() for one in passed))
    try:
        async with asyncio.timeout(limits.wall_seconds):
            answer = await _answer(process)
    except TimeoutError:
        raise MediaError(f"it was not decoded within {limits.wall_seconds:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return answer


async def _start(request: str, file: BinaryIO | None, passed: tuple[int, ...]) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", "kinora.media.worker", request,
            stdin=DEVNULL if file is None else file.fileno(), stdout=PIPE, stderr=PIPE,
            env=_ENVIRONMENT, cwd="/", start_new_session=True, pass_fds=passed, limit=_MAX_ANSWER,
        )  # fmt: skip
    except OSError as error:
        raise IsolationError(f"the media child cannot be started: {error.strerror}") from None


async def _answer(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    assert process.stderr is not None
    complaint = asyncio.ensure_future(process.stderr.read(4096))
    try:
        ready = await process.stdout.readline()
        if ready != b"ready\n":
            said = (await complaint).decode("utf-8", "replace").strip().splitlines()
            raise IsolationError(f"the media child did not start: {said[-1][:200] if said else 'no reason given'}")
        try:
            line = await process.stdout.readline()
        except ValueError:
            raise MediaError("its description is too long") from None
    finally:
        complaint.cancel()
    if not line.endswith(b"\n"):
        raise MediaError(f"its decoding was ended: {_death(await process.wait())}")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        if answer.get("input"):
            raise InputError(answer["input"], answer["error"])
        raise MediaError(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _death(code: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "it used more processor time than allowed, or was killed"
    if code == -signal.SIGXFSZ:
        return "it would have written more than allowed"
    return f"signal {-code}" if code < 0 else "out of memory or an error in the decoder"
