"""Status writes: compare-and-set, patience with the API server, nothing for lost jobs. And the reporter on it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest

from kinora.agent.follow import View
from kinora.agent.jobs import key_of
from kinora.agent.metrics import Metrics
from kinora.agent.reporter import Reporter
from kinora.agent.settings import Identity, Times
from kinora.agent.writer import OVER_LIMIT, JobStore, Lost, StatusWriter
from kinora.kube.client import ApiError, UnreachableError
from unit.agent.made import NOW, POD, job

Object = dict[str, Any]
TIMES = Times(write_retry=0.001, write_retry_limit=0.002, progress=0.02)


class Server:
    """An API server with one job: optimistic concurrency as the real one has it, and faults to order."""

    def __init__(self, stored: Object | None) -> None:
        self.stored = stored
        self.faults: list[Exception] = []
        self.taken: list[Object] = []
        self.wrote = asyncio.Event()

    async def find(self, _resource: Any, _namespace: str, _name: str) -> Object | None:
        return copy.deepcopy(self.stored)

    async def patch(self, _resource: Any, _namespace: str, _name: str, body: Object, *, subresource: str) -> Object:
        assert subresource == "status"
        if self.faults:
            raise self.faults.pop(0)
        if self.stored is None:
            raise ApiError(404, "NotFound", "")
        if body["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "")
        self.taken.append(body["status"])
        self.change(body["status"])
        self.wrote.set()
        return copy.deepcopy(self.stored)

    def change(self, status: Object) -> None:
        """Anybody's write."""
        assert self.stored is not None
        self.stored["status"].update(status)
        metadata = self.stored["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)


def writer_on(server: Server) -> StatusWriter:
    store = JobStore(lambda: None)
    if server.stored is not None:
        store.put(copy.deepcopy(server.stored))
    return StatusWriter(server, Identity("ns", "vace-0", POD), TIMES, store, Metrics())  # type: ignore[arg-type]


def tell(word: str) -> Callable[[Object], Object]:
    return lambda _job: {"message": word}


async def test_a_write_goes_out_and_its_answer_is_known_at_once() -> None:
    server = Server(job())
    writer = writer_on(server)
    assert await writer.write(key_of(job()), "Running", tell("a"))
    found = writer.store.get(job()["metadata"]["uid"])
    assert found is not None
    assert (found["metadata"]["resourceVersion"], found["status"]["message"]) == ("2", "a")


async def test_a_stale_write_is_decided_again_on_the_job_as_it_stands() -> None:
    server = Server(job())
    writer = writer_on(server)
    server.change({"reason": "SomebodyElse"})
    await writer.write(key_of(job()), "Running", lambda found: {"message": found["status"].get("reason", "stale")})
    assert server.taken == [{"message": "SomebodyElse"}]


async def test_an_unreachable_server_is_tried_until_it_answers() -> None:
    server = Server(job())
    server.faults = [UnreachableError("down"), ApiError(500, "InternalError", ""), ApiError(403, "Forbidden", "")]
    assert await writer_on(server).write(key_of(job()), "Succeeded", tell("a"))
    assert server.taken == [{"message": "a"}]


async def test_progress_is_tried_once() -> None:
    server = Server(job())
    server.faults = [UnreachableError("down")]
    assert not await writer_on(server).write(key_of(job()), "Progress", tell("a"), persist=False)
    assert server.taken == []


async def test_nothing_is_written_where_there_is_nothing_to_say() -> None:
    server = Server(job())
    assert await writer_on(server).write(key_of(job()), "Running", lambda _job: None)
    assert server.taken == []


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "Cancelled"},
        {"phase": "Queued", "assignment": None},
        {"attempt": 2},
        {"assignment": {"podUID": "another"}},
        {"released": {"attempt": 1}},
    ],
)
async def test_a_job_that_is_lost_is_not_written(change: Object) -> None:
    server = Server(job())
    writer = writer_on(server)
    server.change(change)
    with pytest.raises(Lost):
        await writer.write(key_of(job()), "Succeeded", tell("a"))
    assert server.taken == []


async def test_a_job_that_was_deleted_or_made_anew_is_lost() -> None:
    server = Server(job())
    writer = writer_on(server)
    server.stored = None
    with pytest.raises(Lost):
        await writer.write(key_of(job()), "Succeeded", tell("a"))
    assert writer.store.all() == []
    server = Server(job())
    writer = writer_on(server)
    server.stored = {**job(version=9), "metadata": {**job()["metadata"], "uid": "new", "resourceVersion": "9"}}
    with pytest.raises(Lost):
        await writer.write(key_of(job()), "Succeeded", tell("a"))


class LostAnswers(Server):
    """The first write is taken, and the connection breaks before its answer."""

    def __init__(self, stored: Object) -> None:
        super().__init__(stored)
        self.told: Callable[[Object], None] = lambda _job: None

    async def patch(self, *arguments: Any, **options: Any) -> Object:
        written = await super().patch(*arguments, **options)
        if len(self.taken) == 1:
            self.told(written)
            raise UnreachableError("reset")
        return written


@pytest.mark.parametrize("told", [False, True], ids=["read", "told by the watch"])
async def test_a_last_write_whose_answer_was_lost_is_known_as_its_own(told: bool) -> None:
    server = LostAnswers(job())
    writer = writer_on(server)
    if told:
        server.told = writer.store.put
    assert await writer.write(key_of(job()), "Succeeded", lambda _job: {"phase": "Succeeded", "reason": "Completed"})
    assert len(server.taken) == 1
    assert writer._metrics.registry.get_sample_value("kinora_agent_status_writes_total", {"kind": "Succeeded"}) == 1


async def test_what_somebody_else_made_of_the_job_is_not_taken_for_the_own_write() -> None:
    server = LostAnswers(job())
    server.told = lambda _job: server.change({"phase": "Cancelled"})
    with pytest.raises(Lost):
        await writer_on(server).write(key_of(job()), "Succeeded", lambda _job: {"phase": "Succeeded"})


class SlowAnswers(Server):
    """The write is done and told to all watches; its answer comes later."""

    def __init__(self, stored: Object) -> None:
        super().__init__(stored)
        self.answer = asyncio.Event()
        self.reads = 0

    async def patch(self, *arguments: Any, **options: Any) -> Object:
        written = await super().patch(*arguments, **options)
        await self.answer.wait()
        return written

    async def find(self, *arguments: Any) -> Object | None:
        self.reads += 1
        return await super().find(*arguments)


@pytest.mark.parametrize(("since", "reads"), [(None, 0), ({"reason": "SomebodyElse"}, 1)])
async def test_an_event_that_overtakes_the_answer_to_an_own_write_waits_for_it(
    since: Object | None, reads: int
) -> None:
    server = SlowAnswers(job())
    writer, uid = writer_on(server), job()["metadata"]["uid"]
    writing = asyncio.create_task(writer.write(key_of(job()), "Succeeded", lambda _job: {"phase": "Succeeded"}))
    await server.wrote.wait()
    if since is not None:
        server.change(since)  # what left the selection is newer than the own write: it has to be read
    looking = asyncio.create_task(writer.look(uid, copy.deepcopy(server.stored)))
    server.answer.set()
    await asyncio.gather(writing, looking)
    found = writer.store.get(uid)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == server.stored["metadata"]["resourceVersion"]  # type: ignore[index]
    assert server.reads == reads


async def test_leaving_the_selection_is_looked_into() -> None:
    server = Server(job())
    writer = writer_on(server)
    uid = job()["metadata"]["uid"]
    server.change({"message": "still there"})
    await writer.look(uid)
    found = writer.store.get(uid)
    assert found is not None
    assert found["status"]["message"] == "still there"
    server.stored = None
    await writer.look(uid)
    assert writer.store.get(uid) is None
    await writer.look(uid)


def test_an_older_version_never_replaces_a_newer_one() -> None:
    changes: list[int] = []
    store = JobStore(lambda: changes.append(1))
    store.put(job(version=10, phase="Succeeded"))
    store.put(job(version=9, phase="Running"))
    [kept] = store.all()
    assert kept["status"]["phase"] == "Succeeded"
    assert len(changes) == 1


# --- the reporter -----------------------------------------------------------------------------------------------------


def reporter_on(server: Server, lost: list[int] | None = None) -> Reporter:
    seen = lost if lost is not None else []
    return Reporter(
        key_of(job()), writer_on(server), now=lambda: NOW, times=TIMES, inputs=[{"name": "image"}],
        resolved={}, on_lost=lambda: seen.append(1),
    )  # fmt: skip


async def test_a_short_render_costs_one_write() -> None:
    server = Server(job())
    reporter = reporter_on(server)
    reporter.started()
    reporter.progress(View(50, "Sample", 1, 2))
    reporter.publishing()
    await reporter.close()
    [running] = server.taken
    assert (running["phase"], running["inputs"]) == ("Running", [{"name": "image"}])


async def test_the_newest_view_is_written_once_a_window() -> None:
    server = Server(job())
    reporter = reporter_on(server)
    reporter.started()
    await server.wrote.wait()
    server.wrote.clear()
    reporter.progress(View(20, "Sample", 1, 10))
    reporter.progress(View(30, "Sample", 2, 10))
    await server.wrote.wait()
    await reporter.close()
    assert len(server.taken) == 2
    assert (server.taken[1]["progress"]["percent"], server.taken[1]["progress"]["step"]) == (30, 2)


async def test_a_long_publication_is_told_as_finalizing() -> None:
    server = Server(job())
    reporter = reporter_on(server)
    reporter.started()
    await server.wrote.wait()
    server.wrote.clear()
    reporter.publishing()
    await server.wrote.wait()
    await reporter.close()
    assert [status["phase"] for status in server.taken] == ["Running", "Finalizing"]


async def test_after_a_restart_running_is_not_written_again() -> None:
    server = Server(job(phase="Running"))
    reporter = reporter_on(server)
    reporter.started()
    await reporter.close()
    assert server.taken == []


async def test_a_loss_is_told_to_the_attempt() -> None:
    server = Server(job())
    lost: list[int] = []
    reporter = reporter_on(server, lost)
    server.change({"phase": "Queued", "assignment": None})
    reporter.started()
    await reporter.close()
    assert lost == [1]
    assert server.taken == []


async def test_a_reporter_that_never_started_closes() -> None:
    server = Server(job())
    reporter = reporter_on(server)
    await reporter.close()
    assert not reporter.running


def test_a_job_that_is_over_is_not_kept_and_an_older_event_does_not_bring_it_back() -> None:
    store = JobStore(lambda: None)
    store.put(job(version=5))
    uid = job()["metadata"]["uid"]
    assert store.knows(job(version=5))
    store.close(uid)
    assert store.all() == []
    assert store.knows(job(version=5)), "the event of its own last write need not be looked into"
    assert not store.knows(job(version=6))
    store.put(job(version=4))
    assert store.get(uid) is None
    store.put(job(version=6))  # bound here again
    assert store.get(uid) is not None


def test_what_is_remembered_of_jobs_that_are_over_is_bounded() -> None:
    store = JobStore(lambda: None)
    for number in range(OVER_LIMIT + 10):
        one = job(version=5)
        one["metadata"]["uid"] = f"uid-{number}"
        store.put(one)
        store.close(f"uid-{number}")
    assert len(store._over) == OVER_LIMIT
