"""The supervisor as it runs in an engine container: a real process, a real engine process, the real socket."""

import asyncio
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from kinora.engine import supervisor as supervisor_file
from kinora.engine.supervisor_client import EngineProcess, SupervisorClient, SupervisorUnavailable

ENGINE = Path(__file__).with_name("engine.py")
PATIENCE = 20.0


@dataclass
class Running:
    """One supervisor under test."""

    process: asyncio.subprocess.Process
    client: SupervisorClient
    diary: Path
    cgroup: Path

    async def until(self, wanted: Callable[[EngineProcess], bool]) -> EngineProcess:
        """Wait, on the supervisor's own announcements, for a state."""
        async with asyncio.timeout(PATIENCE), aclosing(self.client.watch()) as states:
            async for state in states:
                if state is not None and wanted(state):
                    return state
        raise AssertionError("the watch ended")

    def told(self, word: str) -> list[list[str]]:
        """The diary's lines that begin with `word`."""
        lines = [line.split() for line in self.diary.read_text().splitlines()] if self.diary.exists() else []
        return [line for line in lines if line[0] == word]

    async def until_told(self, word: str, times: int = 1) -> list[list[str]]:
        """Wait until the engine has written that."""
        await poll(lambda: len(self.told(word)) >= times)
        return self.told(word)


Start = Callable[..., "asyncio.Future[Running]"]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts supervisors; ends them and what they started."""
    running: list[Running] = []

    async def begin(*behaviour: str, command: str | None = None, file: str = supervisor_file.__file__) -> Running:
        cgroup = tmp_path / "cgroup"
        cgroup.mkdir(exist_ok=True)
        (cgroup / "memory.current").write_text("1000\n")
        (cgroup / "memory.max").write_text("max\n")
        (cgroup / "memory.events").write_text("low 0\noom 1\noom_kill 3\n")
        path = str(tmp_path / "s.sock")
        diary = tmp_path / "diary"
        engine = command if command is not None else f"{sys.executable} {ENGINE}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, file, "--socket", path, "--cgroup", str(cgroup), "--", str(diary), *behaviour,
            env={**os.environ, "KINORA_ENGINE_COMMAND": engine},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        one = Running(process, SupervisorClient(path), diary, cgroup)
        running.append(one)
        await one.until(lambda state: state.incarnation >= 1)
        return one

    yield begin  # type: ignore[misc]
    for one in running:
        if one.process.returncode is None:
            one.process.terminate()
        await one.process.communicate()


async def poll(fulfilled: Callable[[], bool]) -> None:
    """Wait for what no announcement tells (a file of the engine, an entry of /proc)."""
    async with asyncio.timeout(PATIENCE):
        while not fulfilled():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)


def variant(folder: Path, **constants: float) -> str:
    """A copy of the supervisor with other times."""
    text = Path(supervisor_file.__file__).read_text()
    for name, value in constants.items():
        text, times = re.subn(rf"^{name} = [0-9.]+", f"{name} = {value}", text, flags=re.MULTILINE)
        assert times == 1
    copy = folder / "supervisor.py"
    copy.write_text(text)
    return str(copy)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_engine_runs_in_its_own_group_with_group_writable_files(start: Start) -> None:
    running = await start()
    [(_, pid, group, umask)] = await running.until_told("started")
    state = await running.client.stats()
    assert (state.phase, state.incarnation, state.pid) == ("Running", 1, int(pid))
    assert group == pid != str(running.process.pid)
    assert umask == "2"
    assert state.memory_bytes == 1000
    assert state.memory_limit is None
    assert state.uptime_seconds is not None
    assert state.uptime_seconds > 0


async def test_the_socket_is_for_the_group_only(start: Start, tmp_path: Path) -> None:
    await start()
    assert stat.S_IMODE((tmp_path / "s.sock").stat().st_mode) == 0o660


async def test_stop_holds_the_engine_and_start_undoes_it(start: Start) -> None:
    running = await start()
    await running.until_told("started")
    await running.client.stop()
    stopped = await running.until(lambda state: state.phase == "Stopped")
    assert stopped.held
    assert stopped.exits[-1].requested
    assert stopped.exits[-1].signal == signal.SIGTERM
    begun = await running.client.start()
    assert (begun.phase, begun.incarnation, begun.held) == ("Running", 2, False)


async def test_restart_starts_at_once_under_a_new_number(start: Start) -> None:
    running = await start()
    await running.until_told("started")
    before = await running.client.stats()
    answer = await running.client.restart()
    assert answer.phase in ("Stopping", "Running")
    after = await running.until(lambda state: state.incarnation == 2 and state.is_running)
    assert after.identity == (before.boot, 2)
    ended = after.exit_of(before.identity)
    assert ended is not None
    assert (ended.requested, ended.signal) == (True, signal.SIGTERM)


async def test_an_engine_that_exits_is_started_again_and_its_code_is_kept(start: Start) -> None:
    running = await start("exit", "7")
    state = await running.until(lambda state: state.incarnation >= 2)
    assert state.exits[0].exit_code == 7
    assert state.exits[0].signal is None
    assert not state.exits[0].requested


async def test_a_killed_engine_is_told_from_one_that_the_kernel_killed_for_memory(start: Start) -> None:
    running = await start()
    [(_, pid, *_)] = await running.until_told("started")
    os.kill(int(pid), signal.SIGKILL)
    state = await running.until(lambda state: state.incarnation == 2)
    assert (state.exits[0].signal, state.exits[0].oom_kills) == (signal.SIGKILL, 0)

    _, (_, pid, *_) = await running.until_told("started", 2)
    (running.cgroup / "memory.events").write_text("oom_kill 4\n")
    os.kill(int(pid), signal.SIGKILL)
    state = await running.until(lambda state: state.incarnation == 3)
    assert (state.exits[1].signal, state.exits[1].oom_kills) == (signal.SIGKILL, 1)


async def test_an_engine_that_will_not_end_is_killed(start: Start, tmp_path: Path) -> None:
    running = await start("stubborn", file=variant(tmp_path, TERM_SECONDS=0.2))
    await running.until_told("started")
    await running.client.stop()
    state = await running.until(lambda state: state.phase == "Stopped")
    assert state.exits[-1].signal == signal.SIGKILL


async def test_what_the_engine_leaves_behind_is_killed_and_reaped(start: Start) -> None:
    running = await start("orphan")
    await running.until_told("started")
    [(_, child)] = running.told("child")
    [(_, pid, *_)] = running.told("started")
    assert alive(int(child))
    os.kill(int(pid), signal.SIGKILL)
    await running.until(lambda state: state.incarnation == 2)
    await poll(lambda: not os.path.exists(f"/proc/{child}"))


async def test_sigterm_ends_the_engine_and_then_the_supervisor_with_0(start: Start, tmp_path: Path) -> None:
    running = await start()
    [(_, pid, *_)] = await running.until_told("started")
    running.process.terminate()
    async with asyncio.timeout(PATIENCE):
        assert await running.process.wait() == 0
    assert not alive(int(pid))
    assert not (tmp_path / "s.sock").exists()


async def test_sigterm_while_nothing_runs_ends_at_once(start: Start) -> None:
    running = await start()
    await running.client.stop()
    await running.until(lambda state: state.phase == "Stopped")
    running.process.terminate()
    async with asyncio.timeout(PATIENCE):
        assert await running.process.wait() == 0


async def test_the_engines_output_goes_through_untouched(start: Start) -> None:
    running = await start()
    assert running.process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await running.process.stdout.readline() == b"a line of the engine\n"


async def test_a_command_that_does_not_exist_is_an_exit_127_and_stays_tried(start: Start) -> None:
    running = await start(command="/no/such/engine")
    state = await running.until(lambda state: state.incarnation >= 2)
    assert state.exits[0].exit_code == 127
    assert state.pid is None


async def test_a_stale_socket_file_is_replaced(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "s.sock"))
    running = await start()
    assert (await running.client.stats()).incarnation == 1


async def test_the_list_of_exits_is_bounded(start: Start, tmp_path: Path) -> None:
    quick = variant(tmp_path, BACKOFF_FIRST=0.001, BACKOFF_LIMIT=0.001)
    running = await start(command="/no/such/engine", file=quick)
    state = await running.until(lambda state: state.incarnation > 20)
    assert len(state.exits) == 16
    assert state.exits[-1].incarnation >= state.incarnation - 1


@pytest.mark.parametrize(
    ("request_line", "said"),
    [
        (b"not json\n", b"a request is a JSON object with a command"),
        (b"[]\n", b"a request is a JSON object with a command"),
        (b'{"command": "reboot", "id": 4}\n', b"unknown command; allowed: restart, start, stats, stop, watch"),
        (b'{"command": ["stats"]}\n', b"unknown command"),
    ],
)
async def test_bad_requests_are_answered_and_harm_nothing(start: Start, request_line: bytes, said: bytes) -> None:
    running = await start()
    reader, writer = await asyncio.open_unix_connection(running.client.path)
    writer.write(request_line)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.readline()
    writer.close()
    assert said in answer
    assert b'"ok":false' in answer
    assert (await running.client.stats()).is_running


async def test_nobody_there_is_unavailable_and_the_watch_says_so_once(tmp_path: Path) -> None:
    client = SupervisorClient(str(tmp_path / "none.sock"))
    with pytest.raises(SupervisorUnavailable):
        await client.stats()
    seen = []
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5), aclosing(client.watch()) as states:
            async for state in states:
                seen.append(state)
    assert seen == [None]


async def test_the_watch_survives_another_supervisor_in_its_place(start: Start) -> None:
    first = await start()
    boots: list[str | None] = []
    async with asyncio.timeout(PATIENCE), aclosing(first.client.watch()) as states:
        async for state in states:
            boots.append(state.boot if state else None)
            if len(boots) == 1:
                first.process.kill()
                os.kill(int((await first.until_told("started"))[0][1]), signal.SIGKILL)  # as with PID 1 of a container
                await first.process.wait()
            elif boots[-1] is None:
                await start()
            elif boots[-1] != boots[0]:
                break
    assert None in boots
