"""Progress lines, errors and running programs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class ClusterError(Exception):
    """Something that the user can mend; the text says what is wrong and how."""


def say(text: str) -> None:
    """Print one line at once: the output is watched by people and by CI."""
    print(text, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print what is being done, that it still goes on, and how long it took."""
    started = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(20):
            say(f"   ... {title} ({time.monotonic() - started:.0f} s so far)")

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    except BaseException:
        say(f"[!!] {title} failed after {time.monotonic() - started:.1f} s")
        raise
    finally:
        done.set()
        ticker.join()
    say(f"[ok] {title}  {time.monotonic() - started:.1f} s")


def tail(path: Path, lines: int = 25) -> str:
    """The last lines of a log, indented, or a note that there is none."""
    if not path.is_file():
        return f"    (no log at {path})"
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 32_768))
        text = log.read().decode("utf-8", "replace")
    return "\n".join(f"    {line[:400]}" for line in text.splitlines()[-lines:])


def run(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float = 1800,
) -> str:
    """Run a program to its end; on failure raise with the end of what it printed."""
    words = [str(word) for word in command]
    full_env = {**os.environ, **env} if env else None
    try:
        done = subprocess.run(
            words, env=full_env, cwd=cwd, input=stdin, text=True, timeout=timeout, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT if log else subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ClusterError(f"program {words[0]!r} was not found: install it, or put it on PATH") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(words[:4])} ... did not end within {timeout:.0f} s") from error
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as out:
            out.write(f"$ {' '.join(words)}\n{done.stdout}")
    if done.returncode != 0:
        said = done.stdout if log else f"{done.stdout}{done.stderr}"
        ending = "\n".join(f"    {line[:400]}" for line in said.splitlines()[-25:])
        where = f"\n  whole log: {log}" if log else ""
        raise ClusterError(f"{' '.join(words[:6])} exited with {done.returncode}:\n{ending}{where}")
    return done.stdout


def wait_for(
    what: str,
    condition: Callable[[], bool],
    *,
    deadline: float,
    failed: Callable[[], str | None],
    log: Path | None = None,
    every: float = 0.1,
) -> None:
    """Wait until the condition holds; `failed` tells early that it never will, `log` may tell why."""
    end = time.monotonic() + deadline
    while not condition():
        reason = failed()
        if reason is None and time.monotonic() > end:
            said = f"; the end of {log}:\n{tail(log)}" if log else ""
            reason = f"not seen within {deadline:.0f} s{said}"
        if reason is not None:
            raise ClusterError(f"{what}: {reason}")
        time.sleep(every)


@contextmanager
def file_lock(path: Path, holder: str) -> Iterator[None]:
    """Hold a lock; say that somebody else holds it before waiting for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for {holder}")
                fcntl.flock(file, fcntl.LOCK_EX)
            # Who held it may have removed the file: then a newcomer would lock another one.
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue
            yield
            return


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
