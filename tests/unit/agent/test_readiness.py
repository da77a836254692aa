"""EngineReady: the first thing that stands in the way, and its words."""

from dataclasses import replace

import pytest

from kinora.agent.readiness import Facts, assess, shortened

GOOD = Facts(weights_checked=True, supervisor_answers=True, process_runs=True, engine_answers=True, was_up=True)


@pytest.mark.parametrize(
    ("facts", "reason", "said"),
    [
        (GOOD, "EngineReady", "answers"),
        (Facts(), "Starting", "weight files are being checked"),
        (Facts(weights_checked=True), "Starting", "supervisor's socket"),
        (Facts(weights_checked=True, was_up=True), "EngineDown", "supervisor's socket"),
        (replace(GOOD, engine_answers=False, was_up=False), "Starting", "does not answer yet"),
        (replace(GOOD, engine_answers=False), "Starting", "does not answer yet"),
        (replace(GOOD, engine_answers=False, exits=1, last_exit="signal 9"), "EngineDown", "signal 9"),
        (replace(GOOD, engine_answers=False, was_up=False, exits=1, last_exit="exit code 1"), "Starting", "answer yet"),
        (replace(GOOD, engine_answers=False, was_up=False, exits=3, last_exit="exit code 1"), "EngineDown", "3 times"),
        (replace(GOOD, weight_faults=("vae/a.safetensors: not there",)), "WeightsMissing", "vae/a.safetensors"),
        (replace(GOOD, missing_nodes=("WanVaceToVideo",)), "NodesMissing", "WanVaceToVideo"),
        (
            replace(GOOD, weight_faults=("vae/a: 0 bytes",), weights_were_good=True),
            "WeightsChanged",
            "vae/a: 0 bytes",
        ),
        (
            replace(GOOD, weights_changed=("vae/a",), weights_were_good=True),
            "WeightsVerifying",
            "being verified again: vae/a",
        ),
        (replace(GOOD, cuda_fault="KSampler: illegal access", weight_faults=("x",)), "CudaFault", "illegal access"),
        (replace(GOOD, draining=True, cuda_fault="x"), "Draining", "drained"),
        (replace(GOOD, token_fault="not bound", draining=True), "TokenNotBound", "not bound"),
    ],
)
def test_the_first_obstacle(facts: Facts, reason: str, said: str) -> None:
    readiness = assess(facts)
    assert (readiness.reason, readiness.ready) == (reason, reason == "EngineReady")
    assert said in readiness.message


def test_files_of_preset_fast_stand_in_nobody_else_s_way() -> None:
    assert assess(GOOD).fast is None
    assert assess(replace(GOOD, fast_faults=())).fast == ""
    lacking = assess(replace(GOOD, fast_faults=("loras/a.safetensors: not on the volume",)))
    assert (lacking.ready, lacking.fast) == (True, "loras/a.safetensors: not on the volume")


def test_long_lists_are_cut_and_messages_bounded() -> None:
    assert shortened(tuple("abcdefg"), ", ") == "a, b, c, d, e, and 2 more"
    assert len(assess(replace(GOOD, weight_faults=("x" * 5000,))).message) == 1024
