"""The stand-in answers every recorded exchange as the real ComfyUI did. What is levelled first: traces.py."""

from pathlib import Path

import av

from contract import traces
from contract.harness import Standin, running_standin

# In the order in which they were recorded: what is served from the cache depends on the prompt before.
PLAIN = ("success-video", "success-cached", "invalid-value", "invalid-node-class", "invalid-missing-input",
         "invalid-no-outputs", "execution-error")  # fmt: skip
BUSY = ("interrupt-running", "queue-delete-pending")
RENDERS = ("vace-text", "vace-reference", "vace-control-canny", "vace-inpaint", "vace-outpaint", "vace-savevideo",
           "vace-length-80", "vace-width-72", "vace-width-70", "vace-interrupt-sampling")  # fmt: skip


async def _replayed(standin: Standin, path: Path, merged: bool = True) -> None:
    items = traces.load(path)
    replay = traces.Replay(standin)
    await replay.run(items)
    got, wanted = traces.level_messages(replay.messages, standin.output), traces.recorded_messages(items)
    if merged:
        assert got == wanted, path.name
    else:  # status messages are answers to other requests there, and fall where those fall
        for status in (True, False):
            assert _only(got, status) == _only(wanted, status), path.name
    answers = [traces.level(answer, standin.output) for answer in replay.answers]
    for answer, expected in zip(answers, traces.recorded_answers(items), strict=True):
        if expected["path"] == "/system_stats":
            _contains(answer["response"], expected["response"])
        else:
            assert answer == expected, path.name


def _only(messages: list[dict], status: bool) -> list[dict]:
    return [message for message in messages if (message["type"] == "status") is status]


def _contains(stats: dict, wanted: dict) -> None:
    """The stand-in's statistics have every field of ComfyUI's, and one more that says what it is."""
    assert set(stats["system"]) - set(wanted["system"]) == {"engine"}
    assert set(wanted["system"]) <= set(stats["system"])
    assert stats["devices"] == wanted["devices"]


async def test_plain_and_refused_prompts(recordings: Path, engine_root: Path) -> None:
    (engine_root / "models/vae/wan21_vace_vae.safetensors").write_bytes(b"")
    with running_standin(engine_root) as standin:
        for name in PLAIN:
            await _replayed(standin, recordings / "traces" / f"{name}.jsonl")


async def test_busy_nodes_and_the_queue(recordings: Path, engine_root: Path) -> None:
    (engine_root / "output/job").mkdir()
    (engine_root / "output/job/clip_00001.mp4").touch()  # the recorded run had one before it, and counts on
    with running_standin(engine_root, "--node-seconds", "0.4") as standin:
        for name in BUSY:
            await _replayed(standin, recordings / "traces" / f"{name}.jsonl", merged=name == "interrupt-running")


async def test_renders(recordings: Path, engine_root: Path) -> None:
    with running_standin(engine_root, "--step-seconds", "0.01") as standin:
        for name in RENDERS:
            await _replayed(standin, recordings / "traces" / f"{name}.jsonl")
        assert _frames(standin.output / "job" / "out_00006.mp4") == 77  # of the 80 that were asked for


def test_no_recording_is_left_out(recordings: Path) -> None:
    assert {path.stem for path in (recordings / "traces").glob("*.jsonl")} == {*PLAIN, *BUSY, *RENDERS}


def _frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
