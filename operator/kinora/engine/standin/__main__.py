"""Command line of the stand-in: `python -m kinora.engine.standin --port 8188 ...`. Parses, logs what it is, serves.

No behaviour of the engine lives here. Other flags, such as ComfyUI has many, are logged and have no effect.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kinora.engine.standin import STANDIN_NAME
from kinora.engine.standin.folders import Folders
from kinora.engine.standin.pace import Pace
from kinora.engine.standin.server import Server, serve

log = logging.getLogger("kinora.standin")


def parser() -> argparse.ArgumentParser:
    """The flags: ComfyUI's names for what both have, and the pace."""
    flags = argparse.ArgumentParser(prog="python -m kinora.engine.standin", description=STANDIN_NAME)
    flags.add_argument("--listen", default="127.0.0.1", help="address to listen on")
    flags.add_argument("--port", type=int, default=8188, help="port; 0 takes a free one and prints it")
    flags.add_argument("--input-directory", type=Path, default=Path("input"))
    flags.add_argument("--output-directory", type=Path, default=Path("output"))
    flags.add_argument("--temp-directory", type=Path, default=Path("temp"))
    flags.add_argument("--models-directory", type=Path, default=Path("models"))
    flags.add_argument(
        "--speed",
        type=float,
        default=_env("KINORA_STANDIN_SPEED"),
        help="sample as fast as an H100 with Wan 2.1 14B, times this (0: as fast as the CPU paints)",
    )
    flags.add_argument(
        "--step-seconds",
        type=float,
        default=_env("KINORA_STANDIN_STEP_SECONDS"),
        help="each sampling step takes at least this long; rules --speed out",
    )
    flags.add_argument(
        "--node-seconds",
        type=float,
        default=_env("KINORA_STANDIN_NODE_SECONDS"),
        help="each node takes at least this long, uninterruptibly",
    )
    flags.add_argument(
        "--hold-file",
        type=Path,
        help="a file with the number of sampling steps that a prompt may do; it waits until there are more, or no file",
    )
    flags.add_argument("--disable-metadata", action="store_true", help="SaveImage and SaveVideo leave the graph out")
    return flags


def _env(name: str) -> float:
    return float(os.environ.get(name, "0") or 0)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)  # at once: a render in progress is thrown away, as when ComfyUI is killed


def main() -> None:
    """Serves until SIGTERM or SIGINT, which end the process at once."""
    os.umask(0o002)  # engine and agent are different users of one group
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(message)s")
    flags, others = parser().parse_known_args()
    if others:
        log.info("without effect here: %s", " ".join(others))
    log.info("%s: pictures are painted from the graph's inputs by arithmetic", STANDIN_NAME)
    folders = Folders(
        input=flags.input_directory,
        output=flags.output_directory,
        temp=flags.temp_directory,
        models=flags.models_directory,
    )
    pace = Pace(
        speed=flags.speed, step_seconds=flags.step_seconds, node_seconds=flags.node_seconds, hold=flags.hold_file
    )
    serve(flags.listen, flags.port, Server(folders, pace, metadata=not flags.disable_metadata))


if __name__ == "__main__":
    main()
