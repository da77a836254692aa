"""The client against a running stand-in: submit, follow, stop, refuse, lose."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract import graphs
from contract.harness import I2V_MODEL, VACE_MODEL, Standin, prepare, running_standin, write_safetensors
from kinora.engine.base import (
    Connected,
    Disconnected,
    Engine,
    EngineEvent,
    EngineUnavailable,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    Failed,
    GraphRefused,
    Interrupted,
    NodeExecuted,
    NodeStarted,
    Outcome,
    OutputFile,
    Pending,
    Progress,
    Running,
    Succeeded,
    Unknown,
)
from kinora.engine.client import ComfyClient

DEADLINE = 15.0
ENDED = (Succeeded, Failed, Interrupted)


def _id() -> str:
    return str(uuid.uuid4())


async def _ended(engine: Engine, prompt_id: str) -> Outcome:
    async with asyncio.timeout(DEADLINE):
        while True:  # each question is a round trip, so nothing spins
            outcome = await engine.outcome(prompt_id)
            if isinstance(outcome, ENDED):
                return outcome


async def _until(events: AsyncIterator[EngineEvent], kind: type[EngineEvent]) -> list[EngineEvent]:
    seen: list[EngineEvent] = []
    async with asyncio.timeout(DEADLINE):
        async for event in events:
            seen.append(event)
            if isinstance(event, kind):
                return seen
    raise AssertionError("the event stream ended")


async def test_a_prompt_from_submission_to_its_file(client: ComfyClient, standin: Standin) -> None:
    prompt_id, client_id = _id(), _id()
    events = client.events(client_id)
    assert await anext(events) == Connected()
    await client.submit(graphs.vace(prefix="first/clip"), prompt_id, client_id)
    seen = await _until(events, ExecutionSuccess)
    assert seen[0] == ExecutionStart(prompt_id)
    assert [event.node for event in seen if isinstance(event, NodeStarted)][-4:] == ["24", "30", "31", "32"]
    steps = [event for event in seen if isinstance(event, Progress) and event.node == "24"]
    assert steps == [Progress(prompt_id, "24", value, 3) for value in (1, 2, 3)]
    executed = [event for event in seen if isinstance(event, NodeExecuted)]
    assert [event.node for event in executed] == ["32"]
    outcome = await _ended(client, prompt_id)
    file = OutputFile("32", "gifs", "clip_00001.mp4", "first", "output", "video/h264-mp4")
    assert outcome == Succeeded((file,))
    assert (standin.output / file.subfolder / file.filename).stat().st_size > 1000


async def test_unknown_prompts_are_unknown(client: ComfyClient) -> None:
    assert await client.outcome(_id()) == Unknown()


async def test_a_prompt_is_not_submitted_twice(client: ComfyClient, standin: Standin) -> None:
    prompt_id = _id()
    for _ in range(3):
        await client.submit(graphs.still(prefix="twice/clip"), prompt_id, "me")
    await _ended(client, prompt_id)
    await client.submit(graphs.still(prefix="twice/clip"), prompt_id, "me")
    assert isinstance(await client.outcome(prompt_id), Succeeded)
    assert [path.name for path in (standin.output / "twice").glob("*.mp4")] == ["clip_00001.mp4"]


async def test_an_identical_prompt_is_served_from_the_cache_with_the_old_file(client: ComfyClient) -> None:
    ids = [_id(), _id()]
    for prompt_id in ids:
        await client.submit(graphs.still(frames=5, prefix="cached/clip"), prompt_id, "me")
    first, second = [await _ended(client, prompt_id) for prompt_id in ids]
    assert isinstance(first, Succeeded)
    assert first == second


async def test_a_graph_with_a_wrong_value_is_refused(client: ComfyClient) -> None:
    graph = graphs.vace(weight_dtype="fp4")
    with pytest.raises(GraphRefused) as refused:
        await client.submit(graph, _id(), "me")
    assert "node 11 (UNETLoader): Value not in list: weight_dtype: 'fp4' not in ['default'" in refused.value.message
    assert set(refused.value.node_errors) == {"11"}


async def test_a_graph_of_which_a_part_is_wrong_is_refused_and_does_not_run(client: ComfyClient) -> None:
    graph = graphs.still(prefix="partial/clip") | {"3": graphs.node("SaveImage", filename_prefix="x")}
    prompt_id = _id()
    with pytest.raises(GraphRefused, match=r"node 3 \(SaveImage\): Required input is missing: images"):
        await client.submit(graph, prompt_id, "me")
    assert not isinstance(await client.outcome(prompt_id), Pending)


async def test_a_failing_node_is_named(client: ComfyClient) -> None:
    prompt_id = _id()
    await client.submit(graphs.vace(width=72), prompt_id, "me")
    outcome = await _ended(client, prompt_id)
    assert isinstance(outcome, Failed)
    assert (outcome.error.node_id, outcome.error.class_type) == ("24", "KSampler")
    assert outcome.error.exception_type == "RuntimeError"
    assert outcome.error.message.startswith("The size of tensor a (48) must match the size of tensor b (60)")


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        (I2V_MODEL, "is no Wan VACE model: it has no key 'vace_patch_embedding.weight'"),
        ({**VACE_MODEL, "blocks.0.self_attn.q.weight": ("BF16", (8, 8))}, "blocks.0.self_attn.q.weight is BF16"),
    ],
)
async def test_weights_that_are_wrong_for_their_role_fail_in_their_loader(
    client: ComfyClient, standin: Standin, tensors: dict, complaint: str
) -> None:
    name, prompt_id = f"{_id()}.safetensors", _id()
    write_safetensors(standin.models / "diffusion_models" / name, tensors)
    graph = graphs.vace()
    graph["11"]["inputs"]["unet_name"] = name
    await client.submit(graph, prompt_id, "me")
    outcome = await _ended(client, prompt_id)
    assert isinstance(outcome, Failed)
    assert outcome.error.class_type == "UNETLoader"
    assert complaint in outcome.error.message


async def test_weights_that_are_no_safetensors_file_fail_in_their_loader(client: ComfyClient, standin: Standin) -> None:
    (standin.models / "vae" / "torn.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    graph, prompt_id = graphs.vace(), _id()
    graph["14"]["inputs"]["vae_name"] = "torn.safetensors"
    await client.submit(graph, prompt_id, "me")
    outcome = await _ended(client, prompt_id)
    assert isinstance(outcome, Failed)
    assert outcome.error.class_type == "VAELoader"
    assert outcome.error.message.startswith("Error while deserializing header: truncated")


async def test_it_says_what_it_is_and_which_nodes_it_has(client: ComfyClient) -> None:
    stats = await client.system_stats()
    assert stats["system"]["engine"] == "Kinora stand-in engine, not a model"
    info = await client.object_info()
    assert info["UNETLoader"]["input"]["required"]["unet_name"][0][0].endswith(".safetensors")
    assert info["WanVaceToVideo"]["output"] == ["CONDITIONING", "CONDITIONING", "LATENT", "INT"]


async def test_interrupt_stops_a_sampler_at_its_next_step(slow_client: ComfyClient) -> None:
    prompt_id, client_id = _id(), _id()
    events = slow_client.events(client_id)
    await anext(events)
    await slow_client.submit(graphs.vace(steps=400), prompt_id, client_id)
    await _until(events, Progress)
    await slow_client.interrupt(_id())  # another prompt: must do nothing
    await _until(events, Progress)
    assert await slow_client.outcome(prompt_id) == Running()
    await slow_client.interrupt(prompt_id)
    seen = await _until(events, ExecutionInterrupted)
    assert seen[-1] == ExecutionInterrupted(prompt_id, "24")
    assert await _ended(slow_client, prompt_id) == Interrupted()
    after = _id()
    await slow_client.submit(graphs.still(), after, client_id)
    assert isinstance(await _ended(slow_client, after), Succeeded)


async def test_a_prompt_that_is_held_does_its_steps_and_no_more_until_it_may(tmp_path: Path) -> None:
    hold, prompt_id, client_id = tmp_path / "hold", _id(), _id()
    hold.write_text("2")
    prepare(tmp_path)
    with running_standin(tmp_path, "--hold-file", str(hold)) as standin:
        async with ComfyClient(standin.url) as engine:
            events = engine.events(client_id)
            await anext(events)
            await engine.submit(graphs.vace(steps=4), prompt_id, client_id)
            steps = [(await _until(events, Progress))[-1] for _ in range(2)]
            assert await engine.outcome(prompt_id) == Running()
            hold.unlink()
            steps += [(await _until(events, Progress))[-1] for _ in range(2)]
            assert steps == [Progress(prompt_id, "24", value, 4) for value in (1, 2, 3, 4)]
            assert isinstance(await _ended(engine, prompt_id), Succeeded)
            hold.write_text("")
            await engine.submit(graphs.vace(seed=8), other := _id(), client_id)
            await _until(events, NodeStarted)
            await engine.interrupt(other)
            assert await _ended(engine, other) == Interrupted()


async def test_a_pending_prompt_is_deleted_without_trace(slow_client: ComfyClient) -> None:
    first, second = _id(), _id()
    await slow_client.submit(graphs.vace(steps=400), first, "me")
    await slow_client.submit(graphs.still(), second, "me")
    assert await slow_client.outcome(second) == Pending()
    await slow_client.delete_pending(second)
    assert await slow_client.outcome(second) == Unknown()
    await slow_client.interrupt(first)
    assert await _ended(slow_client, first) == Interrupted()


async def test_free_forgets_the_results(slow_client: ComfyClient) -> None:
    graph, names = graphs.still(prefix="freed/clip"), []
    for _ in range(2):
        prompt_id = _id()
        await slow_client.submit(graph, prompt_id, "me")
        outcome = await _ended(slow_client, prompt_id)
        assert isinstance(outcome, Succeeded)
        names.append(outcome.outputs[0].filename)
        await slow_client.free(unload_models=True, free_memory=True)
    assert names == ["clip_00001.mp4", "clip_00002.mp4"]


async def test_a_killed_engine_is_unavailable_and_no_verdict(slow_client: ComfyClient, slow_standin: Standin) -> None:
    prompt_id, client_id = _id(), _id()
    events = slow_client.events(client_id)
    await anext(events)
    await slow_client.submit(graphs.vace(steps=400), prompt_id, client_id)
    await _until(events, Progress)
    slow_standin.kill()
    seen = await _until(events, Disconnected)
    assert not any(isinstance(event, ExecutionSuccess) for event in seen)
    with pytest.raises(EngineUnavailable):
        await slow_client.outcome(prompt_id)
    with pytest.raises(EngineUnavailable):
        await slow_client.submit(graphs.still(), _id(), client_id)


async def test_sigterm_ends_a_busy_engine_at_once(slow_client: ComfyClient, slow_standin: Standin) -> None:
    events = slow_client.events("me")
    await anext(events)
    await slow_client.submit(graphs.vace(steps=400), _id(), "me")
    await _until(events, Progress)
    slow_standin.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(slow_standin.process.wait, 2) == 128 + signal.SIGTERM


async def test_a_second_socket_takes_the_place_of_the_first(slow_client: ComfyClient) -> None:
    prompt_id = _id()
    first = slow_client.events("me")
    await anext(first)
    await slow_client.submit(graphs.vace(steps=400), prompt_id, "me")
    await _until(first, Progress)
    second = slow_client.events("me")
    assert await anext(second) == Connected()
    seen = await _until(second, Progress)
    assert isinstance(seen[-1], Progress)
    await slow_client.interrupt(prompt_id)
    await _until(second, ExecutionInterrupted)


async def test_a_forgotten_prompt_is_in_the_history_no_more(client: ComfyClient) -> None:
    prompt_id, kept = _id(), _id()
    for one in (prompt_id, kept):
        await client.submit(graphs.still(), one, _id())
        assert isinstance(await _ended(client, one), Succeeded)
    await client.forget(prompt_id)
    assert await client.outcome(prompt_id) == Unknown()
    assert isinstance(await client.outcome(kept), Succeeded)
