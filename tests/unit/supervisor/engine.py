"""A tiny engine for the supervisor's tests: says in a file what happens to it, and does what its argument tells.

python engine.py DIARY [exit CODE | stubborn | orphan | idle]
"""

import os
import signal
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Write ``started PID PGID`` to the diary and behave."""
    diary, behaviour = Path(sys.argv[1]), sys.argv[2:] or ["idle"]
    if behaviour[0] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour[0] == "orphan":
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        note(diary, f"child {child.pid}")
    note(diary, f"started {os.getpid()} {os.getpgid(0)} {os.umask(0):o}")
    print("a line of the engine", flush=True)
    if behaviour[0] == "exit":
        sys.exit(int(behaviour[1]))
    while True:
        signal.pause()


def note(diary: Path, line: str) -> None:
    """Append one line at once."""
    with diary.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    main()
