"""What a stager knows of its jobs when answers and watches cross: a job that went is gone, a newer word stays."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from kinora.api import names
from kinora.api.agentconfig import NAMESPACE_VARIABLE
from kinora.api.stagerconfig import CONFIG_VARIABLE
from kinora.catalogue.load import load_catalogue
from kinora.kube.client import ApiError
from kinora.media.info import MediaInfo
from kinora.stager.decide import Concluded, Found
from kinora.stager.metrics import Metrics
from kinora.stager.settings import settings_from
from kinora.stager.stager import Parts, Stager
from waiting import model_server, video_job

Object = dict[str, Any]
UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
FOUND = Found("ab" * 32, 100, MediaInfo("Image", 600, 400, 1, 0.0, 0.0, "PNG"))


def job(version: int = 1, phase: str = "Pending", **spec: Any) -> Object:
    made = video_job("cup", task="ImageToVideo", inputs={"image": {"url": "https://x.example/cup.jpg"}}, **spec)
    made["metadata"] |= {"namespace": "films", "uid": UID, "resourceVersion": str(version), "generation": 1}
    return {**made, "status": {"phase": phase}}


class House:
    """A stager, an API server with one job, and a store that has whatever is asked for."""

    root = "pvc://artifacts/"

    def __init__(self) -> None:
        self.stored: Object | None = job()
        self.writes: list[Object] = []
        self.forgotten: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None  # what happens between a write and its answer
        config = {"artifactClaim": "artifacts"}
        settings = settings_from({NAMESPACE_VARIABLE: "films", CONFIG_VARIABLE: json.dumps(config)})
        parts: Any = {"client": self, "store": self, "intake": self}
        self.stager = Stager(Parts(settings=settings, catalogue=load_catalogue(), metrics=Metrics(), **parts))
        server = model_server()
        server["metadata"]["namespace"] = "films"
        self.stager._servers_replaced([server])
        self.stager._jobs_replaced([job()])

    async def patch(self, *_where: Any, subresource: str) -> Object:
        body = _where[-1]
        assert self.stored is not None
        if body["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "")
        self.writes.append(body["status"])
        answer = job(2)
        answer["status"] |= body["status"]
        self.meanwhile()
        return answer

    async def find(self, *_where: Any) -> Object | None:
        return copy.deepcopy(self.stored)

    async def forget(self, uid: str) -> None:
        self.forgotten.append(uid)

    async def bring(self, _uid: str, inputs: Any) -> tuple[dict[str, Found], list[BaseException]]:
        return {one.name: FOUND for one in inputs}, []

    async def look(self) -> Object | None:
        """Take the job in; what is known of it then."""
        await self.stager._look(names.key(job()))
        return self.stager._jobs.get(names.key(job()))


async def test_what_was_written_is_known_by_its_answer() -> None:
    house = House()
    known = await house.look()
    assert known is not None
    assert (known["metadata"]["resourceVersion"], len(house.writes), house.forgotten) == ("2", 1, [UID])


async def test_a_job_whose_end_was_told_before_the_answer_is_not_known_any_more() -> None:
    """The operator queues it at once, and no event of it follows: it would be known for as long as the stager lives."""
    house = House()
    house.meanwhile = lambda: house.stager._job_happened("DELETED", job(3, "Queued"))
    assert await house.look() is None
    assert house.forgotten == [UID]


async def test_a_cancel_that_was_told_before_the_answer_stays() -> None:
    house = House()
    house.meanwhile = lambda: house.stager._job_happened("MODIFIED", job(3, cancel=True))
    known = await house.look()
    assert known is not None
    assert known["spec"]["cancel"]


@pytest.mark.parametrize("stored", [None, job(5, "Queued")], ids=["deleted", "queued"])
async def test_a_job_that_a_stale_write_finds_gone_leaves_nothing(stored: Object | None) -> None:
    house = House()
    house.stored = job(5, "Queued")
    house.find = lambda *_where: found(stored)  # type: ignore[method-assign]
    assert await house.look() is None
    assert (house.writes, house.forgotten) == ([], [UID])


async def found(stored: Object | None) -> Object | None:
    return stored


async def test_a_job_that_went_after_its_last_input_came_is_not_written_and_leaves_no_note() -> None:
    house = House()
    house.stager._job_happened("DELETED", job(3, "Cancelled"))
    await house.stager._tell(names.key(job()), job(), Concluded([], None))
    assert (house.writes, house.forgotten) == ([], [UID])
