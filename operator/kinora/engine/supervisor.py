"""The engine container's PID 1: runs the engine as a child and obeys start, stop, restart and stats on a unix socket.

One file, standard library only, Python >= 3.9: it is copied into a shared folder and run by whatever Python an engine
image has, so nothing of Kinora may be imported here, and it knows nothing of jobs, prompts or Kubernetes.

    KINORA_ENGINE_COMMAND="python main.py" python3 supervisor.py --socket /kinora/run/supervisor.sock -- --port 8188

The protocol is one JSON object a line. A request is {"command": NAME, "id": ANY}; the answer carries the same id, "ok",
and the whole state (see `Supervisor.state`). Commands:
    stats    nothing but the answer
    watch    the answer, and from then on one line without an id after every start and every exit
    start    run the engine; undoes a stop
    stop     end the engine and hold it
    restart  end the engine, and start it again at once
An engine that exits by itself is started again after a short backoff unless it is held. Every exit is remembered (the
last 16) under the number of its incarnation, so that a client that was away learns exactly which one died how.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import selectors
import shlex
import signal
import socket
import stat
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

COMMAND_VARIABLE = "KINORA_ENGINE_COMMAND"
TERM_SECONDS = 10.0  # from SIGTERM to SIGKILL
BACKOFF_FIRST = 0.5  # seconds before an engine that died by itself is started again; doubles ...
BACKOFF_LIMIT = 10.0  # ... up to this
SETTLED_SECONDS = 60.0  # an engine that ran this long starts the backoff anew
EXITS_KEPT = 16
LINE_LIMIT = 65536  # bytes of one request
NO_LIMIT = 1 << 60  # cgroup v1 writes "no limit" as a huge number
NOT_STARTED = 127  # the exit code of a command that cannot be run, as in a shell


def log(message: str) -> None:
    """One line on stderr, which is the container's log."""
    sys.stderr.write("kinora-supervisor: " + message + "\n")
    sys.stderr.flush()


# --- the container's memory -------------------------------------------------------------------------------------------


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None  # "max" too: no limit


def _counter(path: str, name: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                field, _, value = line.partition(" ")
                if field == name:
                    return int(value)
    except (OSError, ValueError):
        pass
    return None


def memory(root: str) -> dict[str, int | None]:
    """currentBytes, limitBytes and oomKills of the own cgroup (v2, else v1); None for what cannot be read."""
    if os.path.exists(os.path.join(root, "memory.current")):
        return {
            "currentBytes": _number(os.path.join(root, "memory.current")),
            "limitBytes": _number(os.path.join(root, "memory.max")),
            "oomKills": _counter(os.path.join(root, "memory.events"), "oom_kill"),
        }
    folder = os.path.join(root, "memory")
    limit = _number(os.path.join(folder, "memory.limit_in_bytes"))
    return {
        "currentBytes": _number(os.path.join(folder, "memory.usage_in_bytes")),
        "limitBytes": None if limit is not None and limit >= NO_LIMIT else limit,
        "oomKills": _counter(os.path.join(folder, "memory.oom_control"), "oom_kill"),
    }


# --- the engine's life ------------------------------------------------------------------------------------------------


class Supervisor:
    """The engine's state machine: Stopped, Running, Stopping, Backoff. `tick` moves it on when something is due."""

    def __init__(self, command: list[str], cgroup: str, changed: Callable[[], None]) -> None:
        self.command = command
        self.cgroup = cgroup
        self.changed = changed
        self.boot = str(uuid.uuid4())  # another boot: the whole container died, and this list of exits begins anew
        self.phase = "Stopped"
        self.incarnation = 0
        self.pid = 0
        self.held = False
        self.exits: deque[dict[str, Any]] = deque(maxlen=EXITS_KEPT)
        self._again = False  # start at once when the stopping one is gone
        self._requested = False  # whether the coming exit was asked for
        self._started = 0.0
        self._oom_before: int | None = None
        self._backoff = BACKOFF_FIRST
        self._due: float | None = None  # when to KILL (Stopping) or to start (Backoff)

    def start(self) -> None:
        """Run the engine; one that is being stopped is started again when it is gone."""
        self.held = False
        if self.phase == "Stopping":
            self._again = True
        elif self.phase != "Running":
            self._spawn()

    def stop(self) -> None:
        """End the engine and hold it."""
        self.held = True
        self._again = False
        if self.phase == "Backoff":
            self.phase, self._due = "Stopped", None
            self.changed()
        elif self.phase == "Running":
            self._terminate()

    def restart(self) -> None:
        """End the engine, if it runs, and start it."""
        self.held = False
        if self.phase == "Running":
            self._terminate()
        if self.phase == "Stopping":
            self._again = True
        else:
            self._spawn()

    def state(self) -> dict[str, Any]:
        """What every answer carries."""
        running = self.pid > 0
        return {
            "boot": self.boot,
            "phase": self.phase,
            "held": self.held,
            "incarnation": self.incarnation,
            "pid": self.pid or None,
            "uptimeSeconds": round(time.monotonic() - self._started, 3) if running else None,
            "memory": memory(self.cgroup),
            "exits": list(self.exits),
        }

    def due(self) -> float | None:
        """Seconds until `tick` has something to do."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def tick(self) -> None:
        """Do what is due: KILL what would not end, start what waited."""
        if self._due is None or time.monotonic() < self._due:
            return
        self._due = None
        if self.phase == "Stopping":
            log(f"engine {self.incarnation} did not end within {TERM_SECONDS:.0f} s of SIGTERM; killing it")
            self._signal(signal.SIGKILL)
        elif self.phase == "Backoff":
            self._spawn()

    def reap(self) -> None:
        """Collect every ended child: the engine, and what it left behind (as PID 1 all orphans are ours)."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self._ended(status)

    def _spawn(self) -> None:
        self.incarnation += 1
        self._due = None
        self._again = self._requested = False
        self._started = time.monotonic()
        self._oom_before = memory(self.cgroup)["oomKills"]
        blocked = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE}
        try:
            self.pid = os.posix_spawnp(
                self.command[0], self.command, dict(os.environ), setpgroup=0, setsigmask=[], setsigdef=blocked
            )
        except OSError as error:
            log(f"engine {self.incarnation} cannot be started: {self.command[0]}: {error.strerror}")
            self._exited(NOT_STARTED, None, 0)
            return
        self.phase = "Running"
        log(f"engine {self.incarnation} started as process {self.pid}")
        self.changed()

    def _terminate(self) -> None:
        self.phase = "Stopping"
        self._requested = True
        self._due = time.monotonic() + TERM_SECONDS
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _ended(self, status: int) -> None:
        self._signal(signal.SIGKILL)  # what is left of its group must not keep the GPU
        if os.WIFSIGNALED(status):
            self._exited(None, os.WTERMSIG(status), self.pid)
        else:
            self._exited(os.WEXITSTATUS(status), None, self.pid)

    def _exited(self, code: int | None, number: int | None, pid: int) -> None:
        ran = time.monotonic() - self._started
        oom = memory(self.cgroup)["oomKills"]
        self.exits.append(
            {
                "incarnation": self.incarnation,
                "pid": pid or None,
                "exitCode": code,
                "signal": number,
                "oomKills": None if oom is None or self._oom_before is None else oom - self._oom_before,
                "requested": self._requested,
                "uptimeSeconds": round(ran, 3),
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )
        how = f"with code {code}" if number is None else f"by signal {number}"
        log(f"engine {self.incarnation} ended {how} after {ran:.1f} s")
        again, self.pid, self._due = self._again, 0, None
        if again:
            self._spawn()
            return
        if self.held or self._requested:
            self.phase = "Stopped"
        else:
            self._backoff = BACKOFF_FIRST if ran >= SETTLED_SECONDS else self._backoff
            self.phase, self._due = "Backoff", time.monotonic() + self._backoff
            self._backoff = min(self._backoff * 2, BACKOFF_LIMIT)
        self.changed()


# --- the socket -------------------------------------------------------------------------------------------------------


class Client:
    """One connection: what it sent and has not ended with a newline, what it was not yet able to take."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.pending = b""
        self.watches = False


class Server:
    """The selector loop: signals, the socket, the supervisor's timers."""

    def __init__(self, command: list[str], path: str, cgroup: str) -> None:
        self.supervisor = Supervisor(command, cgroup, self._announce)
        self.ending = False
        self._told_to_end = False
        self._path = path
        self._clients: set[Client] = set()
        self._selector = selectors.DefaultSelector()
        self._listener = listen(path)
        self._wakeup, alarm = socket.socketpair()
        self._wakeup.setblocking(False)
        alarm.setblocking(False)
        self._alarm = alarm
        signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_end)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._woken)

    def run(self) -> int:
        """Serve until SIGTERM has ended the engine. Returns the exit code of the process."""
        self.supervisor.start()
        while not (self.ending and self.supervisor.pid == 0):
            for key, events in self._selector.select(self.supervisor.due()):
                if callable(key.data):
                    key.data()
                else:
                    self._serve(key.data, events)
            if self._told_to_end and not self.ending:
                self.ending = True
                self.supervisor.stop()
            self.supervisor.reap()
            self.supervisor.tick()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        log("ended")
        return 0

    def _note_end(self, _number: int, _frame: object) -> None:
        self._told_to_end = True  # the loop, which the signal has woken, does the rest

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        client = Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _serve(self, client: Client, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(client)
        if events & selectors.EVENT_READ and client in self._clients:
            self._receive(client)

    def _receive(self, client: Client) -> None:
        try:
            data = client.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(client.received) + len(data) > LINE_LIMIT:
            self._drop(client)
            return
        *lines, client.received = (client.received + data).split(b"\n")
        for line in lines:
            self._send(client, self._obey(client, line))

    def _obey(self, client: Client, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            name, ident = request["command"], request.get("id")
        except (ValueError, TypeError, KeyError, AttributeError):
            return {"ok": False, "error": "a request is a JSON object with a command"}
        commands = {
            "stats": lambda: None,
            "watch": lambda: setattr(client, "watches", True),
            "start": self.supervisor.start,
            "stop": self.supervisor.stop,
            "restart": self.supervisor.restart,
        }
        command = commands.get(name) if isinstance(name, str) else None
        if command is None:
            return {"ok": False, "id": ident, "error": f"unknown command; allowed: {', '.join(sorted(commands))}"}
        if self.ending and name in ("start", "restart"):
            return {"ok": False, "id": ident, "error": "ending"}
        command()
        return {"ok": True, "id": ident, **self.supervisor.state()}

    def _announce(self) -> None:
        watchers = [client for client in self._clients if client.watches]
        if watchers:
            state = {"ok": True, **self.supervisor.state()}
            for client in watchers:
                self._send(client, state)

    def _send(self, client: Client, message: dict[str, Any]) -> None:
        client.pending += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._flush(client)

    def _flush(self, client: Client) -> None:
        try:
            sent = client.connection.send(client.pending)
            client.pending = client.pending[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if len(client.pending) > 16 * LINE_LIMIT:  # it does not read: let it connect anew
            self._drop(client)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.pending else 0)
        if client in self._clients:
            self._selector.modify(client.connection, wanted, client)

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._selector.unregister(client.connection)
            client.connection.close()


def listen(path: str) -> socket.socket:
    """The listening socket, group-accessible; a stale file of an earlier container is replaced."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SystemExit(f"{path}: there is something that is not a socket")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o660)
    listener.listen(16)
    listener.setblocking(False)
    return listener


def _adopt_orphans() -> None:
    """Be the parent of orphans where this is not PID 1 (PR_SET_CHILD_SUBREAPER); best effort."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def main(arguments: list[str]) -> int:
    """Parse the command line and run."""
    own, _, extra = _split(arguments)
    parser = argparse.ArgumentParser(description="Run and supervise a render engine.")
    parser.add_argument("--socket", required=True, help="path of the unix socket to listen on")
    parser.add_argument("--cgroup", default="/sys/fs/cgroup", help="where the container's cgroup is mounted")
    options = parser.parse_args(own)
    command = shlex.split(os.environ.get(COMMAND_VARIABLE, "")) + extra
    if not os.environ.get(COMMAND_VARIABLE, "").strip():
        parser.error(f"{COMMAND_VARIABLE} is not set: an engine image names in it the command that starts its engine")
    os.umask(0o002)
    if os.getpid() != 1:
        _adopt_orphans()
    return Server(command, options.socket, options.cgroup).run()


def _split(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    if "--" not in arguments:
        return arguments, "", []
    at = arguments.index("--")
    return arguments[:at], "--", arguments[at + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
