"""`kinora weights fetch` against a real HTTP server that does everything wrong once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kinora.api.modelserver import VerifyLevel, WeightSource
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Dtype, Model, Weight
from kinora.weights import fetch as module
from kinora.weights import partial as partial_module
from kinora.weights import quantize as quantize_module
from kinora.weights.faults import NoSpace, Permanent, Transient
from kinora.weights.fetch import FileReport, Progress, Request, fetch
from kinora.weights.header import read_header
from kinora.weights.lock import Held, hold
from kinora.weights.manifest import NAME, read_manifest
from kinora.weights.sources import Credentials, Rules, read_sources
from kinora.weights.tiny import demo_file
from kinora.weights.transfer import Pace
from kinora.weights.verify import verify
from unit.weights.origin_server import Server, gets, serving, stalled

#: No server stalls by itself, however slow the machine: a connection that is left costs bytes that tests count.
PACE = Pace(connections=3, tries=4, first_pause=0.01, longest_pause=0.05, stall_seconds=60)
RULES = Rules(allow_http=True, local_files=True)


def model_named(name: str = "wan2.1-vace-1.3b") -> Model:
    found = load_catalogue().get(name)
    assert found is not None
    return found


WHOLE = model_named()
MODEL = WHOLE.model_copy(update={"weights": tuple(weight for weight in WHOLE.weights if weight.preset is None)})
BIG = MODEL.weights[0]  # 312,272 bytes as a demo file
OTHERS = MODEL.weights[1:]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 64 KiB, so that a demo file has five."""
    monkeypatch.setattr(partial_module.Partial.__init__, "__defaults__", (64 << 10,))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


def request(
    server: Server, root: Path, model: Model = MODEL, sources: list[WeightSource] | None = None, **more: Any
) -> Request:
    """Every file of the model, served as its demo file, unless told otherwise."""
    if sources is None:
        sources = []
        for weight in model.weights:
            if weight.path not in server.files:
                server.put(weight.path, demo_file(model, weight))
            sources.append(WeightSource(name=weight.path, url=f"{server.url}/{weight.path}"))
    found = read_sources(sources, model, RULES)
    return Request(model, root, tuple(found), allow_http=True, pace=more.pop("pace", PACE), **more)


def outcomes(reports: list[FileReport]) -> list[str]:
    return [report.outcome for report in reports]


def all_sound(root: Path, model: Model = MODEL) -> bool:
    return all(state.ok for state in verify(model, root, VerifyLevel.HASH))


def leftovers(root: Path) -> list[str]:
    return [path.name for path in root.rglob(".*") if path.is_file()]


# --- the plain story


async def test_every_file_comes_is_verified_and_stands_in_the_manifest(server: Server, tmp_path: Path) -> None:
    progress = Progress()
    reports = await fetch(request(server, tmp_path), progress)
    assert outcomes(reports) == ["Fetched"] * 3
    assert all_sound(tmp_path)
    assert leftovers(tmp_path) == []
    records = read_manifest(tmp_path)
    for report in reports:
        content = server.files[report.path]
        assert (tmp_path / report.path).read_bytes() == content
        assert report.sha256 == records[report.path].sha256 == digest(content)
        assert records[report.path].source == f"{server.url}/{report.path}"
    assert progress.bytes_done == progress.bytes_total == sum(map(len, server.files.values()))
    assert set(progress.files.values()) == {"Present"}


async def test_what_is_right_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    await fetch(request(server, tmp_path))
    before = len(server.requests)
    for level in VerifyLevel:
        assert outcomes(await fetch(request(server, tmp_path, level=level))) == ["Kept"] * 3
    assert len(server.requests) == before


async def test_files_that_somebody_put_there_are_adopted_if_they_are_as_long_as_at_the_source(
    server: Server, tmp_path: Path
) -> None:
    asked = request(server, tmp_path)
    for weight in MODEL.weights:
        (tmp_path / weight.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / weight.path).write_bytes(server.files[weight.path])
    assert outcomes(await fetch(asked)) == ["Kept"] * 3
    assert gets(server) == [], "only a look at each"
    assert read_manifest(tmp_path)[BIG.path].sha256 == digest(server.files[BIG.path])


async def test_a_truncated_file_is_found_by_its_header_and_fetched_again(server: Server, tmp_path: Path) -> None:
    await fetch(request(server, tmp_path))
    file = tmp_path / BIG.path
    file.write_bytes(file.read_bytes()[:100_000])
    reports = await fetch(request(server, tmp_path))
    assert outcomes(reports) == ["Fetched", "Kept", "Kept"]
    assert all_sound(tmp_path)


async def test_a_changed_byte_is_found_by_hash_and_fetched_again(server: Server, tmp_path: Path) -> None:
    await fetch(request(server, tmp_path))
    file = tmp_path / BIG.path
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    # Even with size and time as they were, where Hash is asked for.
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert outcomes(await fetch(request(server, tmp_path, level=VerifyLevel.HASH)))[0] == "Fetched"
    file.write_bytes(content)
    assert outcomes(await fetch(request(server, tmp_path)))[0] == "Fetched", "its time has changed: every byte is read"
    assert all_sound(tmp_path)


async def test_another_source_or_another_sha256_of_it_is_fetched(server: Server, tmp_path: Path) -> None:
    asked = request(server, tmp_path)
    await fetch(asked)
    moved = server.put("elsewhere", server.files[BIG.path])
    others = [WeightSource(name=weight.path, url=f"{server.url}/{weight.path}") for weight in OTHERS]
    sources = [WeightSource(name="diffusion", url=moved), *others]
    assert outcomes(await fetch(request(server, tmp_path, sources=sources)))[0] == "Fetched"
    same = sources[0].model_copy(update={"sha256": digest(server.files[BIG.path]), "url": f"{server.url}/third"})
    assert outcomes(await fetch(request(server, tmp_path, sources=[same, *others])))[0] == "Kept", "the same bytes"


async def test_a_file_without_a_source_must_be_there(server: Server, tmp_path: Path) -> None:
    asked = request(server, tmp_path)
    only = replace(asked, sources=asked.sources[:1])
    with pytest.raises(Permanent, match=f"{OTHERS[0].path}: not on the volume.*has no source"):
        await fetch(only)
    await fetch(asked)
    assert outcomes(await fetch(only)) == ["Kept", "Present", "Present"]


async def test_a_file_that_only_a_preset_needs_may_be_missing_or_have_a_source(server: Server, tmp_path: Path) -> None:
    sources = request(server, tmp_path).sources
    without = Request(WHOLE, tmp_path, sources, allow_http=True, pace=PACE)
    assert len(await fetch(without)) == len(MODEL.weights) < len(WHOLE.weights)
    reports = await fetch(request(server, tmp_path, model=WHOLE))
    assert outcomes(reports) == [*["Kept"] * len(MODEL.weights), "Fetched"]


# --- the network


async def test_a_connection_that_breaks_in_the_middle_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    broken: list[str] = []

    async def fault(count: int, asked: web.Request) -> web.StreamResponse | None:
        path = asked.path.lstrip("/")
        if asked.headers.get("Range") == "bytes=0-0" or len(broken) >= 3 or path != BIG.path:
            return None
        broken.append(asked.headers["Range"])
        return await server.send(asked, path, cut_after=20_000)

    server.fault = fault
    await fetch(request(server, tmp_path))
    assert len(broken) == 3
    assert (tmp_path / BIG.path).read_bytes() == server.files[BIG.path]
    total = sum(map(len, server.files.values())) + len(MODEL.weights)
    assert server.served <= total + 3 * 20_000, "each part goes on, none begins anew"
    assert any(not name.startswith(("bytes=0-", "bytes=65536-", "bytes=131072-")) for name in gets(server))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    async def fault(count: int, _asked: web.Request) -> web.StreamResponse | None:
        return web.Response(status=status, headers={"Retry-After": "0"}) if count in {1, 3} else None

    server.fault = fault
    await fetch(request(server, tmp_path))
    assert all_sound(tmp_path)


async def test_one_that_stays_busy_is_given_up_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    async def fault(count: int, asked: web.Request) -> web.StreamResponse | None:
        if asked.path.lstrip("/") == BIG.path and asked.headers["Range"].startswith("bytes=262144-"):
            return web.Response(status=503)
        return None

    server.fault = fault
    with pytest.raises(Transient, match="answers 503; tried 4 times"):
        await fetch(request(server, tmp_path))
    assert not (tmp_path / BIG.path).exists(), "a file appears whole or not at all"
    server.fault, server.served = None, 0
    await fetch(request(server, tmp_path))
    rest = len(server.files[BIG.path]) - 4 * 65536
    assert server.served == rest + sum(len(server.files[weight.path]) for weight in OTHERS) + len(MODEL.weights)
    assert all_sound(tmp_path)


async def test_a_connection_that_stalls_is_left(server: Server, tmp_path: Path) -> None:
    server.fault = stalled()
    async with asyncio.timeout(30):
        await fetch(request(server, tmp_path, pace=replace(PACE, stall_seconds=0.5)))
    assert all_sound(tmp_path)


async def test_a_server_without_ranges_sends_the_whole_and_begins_anew_after_a_break(
    server: Server, tmp_path: Path
) -> None:
    server.ranges = False

    async def fault(count: int, asked: web.Request) -> web.StreamResponse | None:
        path = asked.path.lstrip("/")
        return await server.send(asked, path, cut_after=100_000) if count == 2 and path == BIG.path else None

    server.fault = fault
    progress = Progress()
    await fetch(request(server, tmp_path), progress)
    assert all_sound(tmp_path)
    assert progress.bytes_done == progress.bytes_total


async def test_a_file_that_changes_between_its_parts_is_begun_anew(server: Server, tmp_path: Path) -> None:
    before, after = b"x" * len(demo_file(MODEL, BIG)), demo_file(MODEL, BIG)
    asked = request(server, tmp_path)
    server.put(BIG.path, before)

    async def fault(count: int, wanted: web.Request) -> web.StreamResponse | None:
        if count == 4 and wanted.path.lstrip("/") == BIG.path:
            server.put(BIG.path, after)
        return None

    server.fault = fault
    await fetch(asked)
    assert (tmp_path / BIG.path).read_bytes() == after


async def test_one_that_changes_for_ever_is_told(server: Server, tmp_path: Path) -> None:
    async def fault(count: int, wanted: web.Request) -> web.StreamResponse | None:
        if wanted.path.lstrip("/") == BIG.path:
            server.tags[BIG.path] = f'"{count}"'
        return None

    server.fault = fault
    with pytest.raises(Permanent, match="changed while it was fetched"):
        await fetch(request(server, tmp_path))


async def test_a_wrong_length_is_no_end(server: Server, tmp_path: Path) -> None:
    """The server says more than it sends, for one answer."""

    async def fault(count: int, wanted: web.Request) -> web.StreamResponse | None:
        path = wanted.path.lstrip("/")
        return await server.send(wanted, path, cut_after=1) if count == 2 else None

    server.fault = fault
    await fetch(request(server, tmp_path))
    assert all_sound(tmp_path)


@pytest.mark.parametrize(("status", "mend"), [(401, "secretName"), (403, "may not read"), (404, "check the URL")])
async def test_a_refusal_is_told_at_once_and_not_tried_again(
    server: Server, tmp_path: Path, status: int, mend: str
) -> None:
    async def fault(_count: int, wanted: web.Request) -> web.StreamResponse | None:
        return web.Response(status=status) if wanted.path.lstrip("/") == BIG.path else None

    server.fault = fault
    with pytest.raises(Permanent, match=f"answers {status}.*{mend}"):
        await fetch(request(server, tmp_path))
    assert sum(1 for path, _ in server.requests if path == BIG.path) == 1


async def test_nobody_listens(tmp_path: Path) -> None:
    async with serving() as gone:
        asked = request(gone, tmp_path)
    with pytest.raises(Transient, match="cannot connect"):
        await fetch(asked)


# --- content


async def test_corrupt_content_is_fetched_once_more_and_then_told(server: Server, tmp_path: Path) -> None:
    asked = request(server, tmp_path)
    right = server.files[BIG.path]
    source = replace(asked.sources[0], sha256=digest(right))
    asked = replace(asked, sources=(source, *asked.sources[1:]))
    wrong = bytearray(right)
    wrong[-7] ^= 0xFF
    server.files[BIG.path] = bytes(wrong)
    with pytest.raises(Permanent, match=f"{BIG.path}: sha256 {digest(wrong)}.*expected {digest(right)}.*fetched 2"):
        await fetch(asked)
    assert not (tmp_path / BIG.path).exists()
    assert leftovers(tmp_path) == ["lock"] or "lock" not in leftovers(tmp_path)
    assert len([name for name in gets(server) if name.startswith("bytes=0-")]) == 2

    async def mended(count: int, wanted: web.Request) -> web.StreamResponse | None:
        server.files[BIG.path] = bytes(wrong) if len(gets(server)) <= 5 else right
        return None

    server.fault, server.requests = mended, []
    await fetch(asked)
    assert all_sound(tmp_path)


async def test_something_that_is_no_weight_file_is_refused_by_its_header(server: Server, tmp_path: Path) -> None:
    server.put(BIG.path, b"<html>please log in</html>" * 100)
    with pytest.raises(Permanent, match=f"{BIG.path}: .*not a safetensors file"):
        await fetch(request(server, tmp_path))
    assert not (tmp_path / BIG.path).exists()


async def test_a_token_goes_to_its_own_host_and_to_no_other(server: Server, tmp_path: Path) -> None:
    async with serving() as cdn:
        content = demo_file(MODEL, BIG)
        cdn.put("blob", content)

        async def redirect(_count: int, wanted: web.Request) -> web.StreamResponse | None:
            if wanted.path.lstrip("/") != BIG.path:
                return None
            return web.Response(status=302, headers={"Location": f"{cdn.url}/blob?signed=1"})

        server.fault = redirect
        asked = request(server, tmp_path, credentials={None: Credentials(token="hush")})
        await fetch(asked)
        assert (tmp_path / BIG.path).read_bytes() == content
        assert {headers.get("Authorization") for _, headers in server.requests} == {"Bearer hush"}
        assert {headers.get("Authorization") for _, headers in cdn.requests} == {None}
    assert "hush" not in (tmp_path / NAME).read_text()
    assert "hush" not in repr(asked)


async def test_a_redirect_loop_ends(server: Server, tmp_path: Path) -> None:
    async def loop(_count: int, wanted: web.Request) -> web.StreamResponse | None:
        return web.Response(status=307, headers={"Location": wanted.path})

    server.fault = loop
    with pytest.raises(Permanent, match="redirects"):
        await fetch(request(server, tmp_path))


async def test_a_redirect_to_something_else_is_not_followed(server: Server, tmp_path: Path) -> None:
    async def away(_count: int, _wanted: web.Request) -> web.StreamResponse | None:
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})

    server.fault = away
    with pytest.raises(Permanent, match="no web address"):
        await fetch(request(server, tmp_path))


# --- the volume


async def test_room_is_looked_for_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    needed = sum(len(demo_file(MODEL, weight)) for weight in MODEL.weights)
    blocks = needed // real.f_frsize  # one block too few

    class Small:
        f_bavail, f_frsize = blocks, real.f_frsize

    monkeypatch.setattr(module.os, "statvfs", lambda _path: Small)
    with pytest.raises(NoSpace, match=r"free, .* are needed for 3 files"):
        await fetch(request(server, tmp_path))
    assert gets(server) == []


async def test_two_writers_at_once(server: Server, tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(Held, match="another process"):
        await fetch(request(server, tmp_path))
    await fetch(request(server, tmp_path))


async def test_a_folder_that_cannot_be_written_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / BIG.folder).write_text("a file where a folder should be")
    with pytest.raises(Permanent, match="diffusion_models"):
        await fetch(request(server, tmp_path))


async def test_a_killed_fetch_is_resumed_with_the_rest_alone(server: Server, tmp_path: Path) -> None:
    """kill -9 of a whole process in mid-file; the next one asks for what has not landed."""
    content = demo_file(MODEL, BIG)
    half = asyncio.Event()

    async def fault(count: int, wanted: web.Request) -> web.StreamResponse | None:
        if wanted.path.lstrip("/") == BIG.path and wanted.headers["Range"].startswith("bytes=262144-"):
            half.set()
            await asyncio.Event().wait()
        return None

    asked = request(server, tmp_path)
    server.fault = fault
    sources = [word for source in asked.sources for word in ("--source", f"{source.weight.path}={source.address}")]
    script = (
        "import kinora.weights.partial as p, kinora.weights.transfer as t; t._NOTE_SECONDS = 0.05;"
        "p.Partial.__init__.__defaults__ = (65536,);"
        "from kinora.cli.main import main; main()"
    )
    command = ["weights", "fetch", MODEL.name, "--into", str(tmp_path), "--allow-http", "--connections", "2", *sources]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *command)
    async with asyncio.timeout(30):
        await half.wait()
        notes = (tmp_path / BIG.path).with_name(f".{BIG.name}.partial.json")
        while sum(json.loads(notes.read_text())["done"] if notes.exists() else ()) < 4 * 65536:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    server.fault, server.served, server.requests = None, 0, []
    progress = Progress()
    await fetch(asked, progress)
    big = [h["Range"] for path, h in server.requests if path == BIG.path and h["Range"] != "bytes=0-0"]
    assert big == [f"bytes=262144-{len(content) - 1}"]
    assert (tmp_path / BIG.path).read_bytes() == content
    assert progress.bytes_done == progress.bytes_total


async def test_a_resumed_file_that_is_another_one_by_now_begins_anew(server: Server, tmp_path: Path) -> None:
    async def fault(count: int, wanted: web.Request) -> web.StreamResponse | None:
        if wanted.path.lstrip("/") == BIG.path and wanted.headers["Range"].startswith("bytes=131072-"):
            return web.Response(status=503)
        return None

    asked = request(server, tmp_path)
    server.put(BIG.path, b"y" * len(server.files[BIG.path]))
    server.fault = fault
    with pytest.raises(Transient):
        await fetch(asked)
    server.fault = None
    server.put(BIG.path, demo_file(MODEL, BIG))
    await fetch(asked)
    assert (tmp_path / BIG.path).read_bytes() == demo_file(MODEL, BIG)


async def test_from_a_folder(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    here.mkdir()
    sources = []
    for weight in MODEL.weights:
        (there / weight.path).parent.mkdir(parents=True)
        (there / weight.path).write_bytes(demo_file(MODEL, weight))
        sources.append(WeightSource(name=weight.path, url=f"file://{there}/{weight.path}"))
    asked = Request(MODEL, here, tuple(read_sources(sources, MODEL, RULES)))
    assert outcomes(await fetch(asked)) == ["Fetched"] * 3
    assert all_sound(here)
    (there / BIG.path).unlink()
    assert outcomes(await fetch(asked)) == ["Kept"] * 3
    (here / BIG.path).unlink()
    with pytest.raises(Permanent, match="not there"):
        await fetch(asked)


# --- quantizing


def wide(model: Model, weight: Weight) -> bytes:
    """The weight file as its maker publishes it: BF16."""
    return demo_file(model, weight.model_copy(update={"dtypes": (Dtype.BF16,)}))


async def test_a_wide_source_becomes_the_fp8_file_that_the_catalogue_expects(server: Server, tmp_path: Path) -> None:
    server.put(BIG.path, wide(MODEL, BIG))
    sha256 = digest(server.files[BIG.path])
    asked = request(server, tmp_path, quantize=True)
    asked = replace(asked, sources=(replace(asked.sources[0], sha256=sha256), *asked.sources[1:]))
    progress = Progress()
    reports = await fetch(asked, progress)
    assert outcomes(reports) == ["Quantized", "Fetched", "Fetched"]
    assert read_header(tmp_path / BIG.path).tensors[BIG.proof.typed[0]].dtype == "F8_E4M3"
    record = read_manifest(tmp_path)[BIG.path]
    assert (record.dtype, record.source_sha256) == ("F8_E4M3", sha256)
    assert record.sha256 == digest((tmp_path / BIG.path).read_bytes())
    assert leftovers(tmp_path) == []
    assert progress.bytes_done == progress.bytes_total
    assert all_sound(tmp_path)
    assert outcomes(await fetch(asked)) == ["Kept"] * 3


async def test_a_wide_source_without_quantize_is_told(server: Server, tmp_path: Path) -> None:
    server.put(BIG.path, wide(MODEL, BIG))
    with pytest.raises(Permanent, match=r"is BF16.*expected F8_E4M3; set weights.quantize"):
        await fetch(request(server, tmp_path))


async def test_quantizing_that_was_interrupted_fetches_nothing_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(BIG.path, wide(MODEL, BIG))
    asked = request(server, tmp_path, quantize=True)

    def fails(*_args: Any, **_more: Any) -> None:
        raise quantize_module.QuantizeError("the node went away")

    with monkeypatch.context() as patch:
        patch.setattr(quantize_module, "quantize", fails)
        with pytest.raises(Permanent, match="node went away"):
            await fetch(asked)
    server.requests = []
    assert outcomes(await fetch(asked))[0] == "Quantized"
    assert [path for path, headers in server.requests if headers["Range"] != "bytes=0-0" and path == BIG.path] == []
