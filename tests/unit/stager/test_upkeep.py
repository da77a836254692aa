"""Sweeps go on whatever one of them meets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from kinora.kube.client import KubeClient
from kinora.kube.secret_keys import SecretKeys
from kinora.stager.metrics import Metrics
from kinora.stager.upkeep import Retention, Upkeep
from kinora.storage.objects import PvcObjects
from kinora.storage.uploads import PvcFiles
from waiting import until


async def test_what_nobody_expects_ends_one_sweep_and_not_all_of_them(tmp_path: Path) -> None:
    sweeps: list[str] = []

    class Failing(Upkeep):
        async def sweep_uploads(self) -> int:
            sweeps.append("uploads")
            raise ValueError("an object of a strange name")

        async def sweep_objects(self) -> int:
            sweeps.append("objects")
            return 0

    async def keys(_anew: bool = False) -> list[bytes]:
        return [bytes(32)]

    files, objects = PvcFiles(tmp_path, "videos", "films"), PvcObjects(tmp_path, "videos")
    client: Any = cast(KubeClient, None)
    upkeep = Failing(client, files, objects, Retention(60, 60, 60), every_seconds=0.01, metrics=Metrics())
    upkeep._keys = cast(SecretKeys, keys)
    running = asyncio.create_task(upkeep.run())
    await until(lambda: running.done() or sweeps.count("objects") > 1)
    assert not running.done()
    assert sweeps[:4] == ["uploads", "objects", "uploads", "objects"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
