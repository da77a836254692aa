"""How long spot pods live: from losses and from pods that only ended, robustly, within bounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.controller.scheduling.spotlife import KEEP, KEEP_SECONDS, POOLS, Life, Lives, median_life

NOW = 1_800_000_000.0


def lost(*seconds: float) -> list[Life]:
    return [Life(one, lost=True, at=NOW) for one in seconds]


def let_go(*seconds: float) -> list[Life]:
    return [Life(one, lost=False, at=NOW) for one in seconds]


def test_the_median_of_those_that_were_lost_when_all_were() -> None:
    assert median_life(lost(100, 200, 300, 400, 500)) == 300


def test_two_losses_say_nothing() -> None:
    assert median_life(lost(100, 200)) is None
    assert median_life(let_go(*range(100, 200))) is None


def test_pods_that_were_let_go_early_make_a_pool_neither_worse_nor_better() -> None:
    """Scaled down after a minute, they were never in danger of being lost at 200 s: leaving them in is right."""
    assert median_life([*lost(100, 200, 300, 400, 500), *let_go(*[60.0] * 40)]) == 300


def test_pods_that_outlive_the_losses_lengthen_the_life() -> None:
    few = [*lost(100, 200, 300), *let_go(1000, 1000, 1000)]
    assert median_life(few) == 300
    assert median_life([*few, *let_go(1000)]) is None, "more than half live on: no length is known to be too long"


def test_a_few_odd_ones_do_not_move_it() -> None:
    usual = [3000.0 + index for index in range(20)]
    assert median_life(lost(*usual)) == pytest.approx(median_life(lost(1, 2, *usual, 1e7, 1e7)) or 0, rel=0.01)


def test_of_a_known_market_it_finds_the_median() -> None:
    """Exponential lives of 2 h on average, half of the pods let go at random before."""
    chance = random.Random(3)
    lives = []
    for _ in range(2000):
        life, going = chance.expovariate(1 / 7200), chance.expovariate(1 / 7200)
        lives.append(Life(min(life, going), lost=life < going))
    assert median_life(lives) == pytest.approx(7200 * 0.693, rel=0.1)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=60))
def test_it_is_an_age_at_which_a_pod_was_lost_and_more_survivors_never_shorten_it(
    drawn: list[tuple[float, bool]],
) -> None:
    lives = [Life(seconds, was_lost) for seconds, was_lost in drawn]
    found = median_life(lives)
    assert found is None or Life(found, lost=True) in lives
    longer = median_life([*lives, *let_go(2e6)])
    assert longer is None or (found is not None and longer >= found)


def test_it_is_kept_over_a_restart_and_bounded() -> None:
    lives = Lives()
    for number in range(POOLS + 10):
        for index in range(KEEP + 10):
            lives.add(f"films/vace/{number}", Life(float(index), lost=True, at=NOW))
    assert lives.changed
    text = lives.to_text()
    assert len(text) < 512 * 1024, "a ConfigMap holds 1 MiB, the ledger beside it"
    again = Lives.from_text(text)
    assert len(again.ended) == POOLS
    assert again.median("films/vace/200", (), NOW) == lives.median("films/vace/200", (), NOW) is not None
    assert "films/vace/0" not in again.ended, "the pools that were quiet for longest went"


def test_what_is_old_says_nothing_any_more() -> None:
    lives = Lives()
    for seconds in (100, 200, 300):
        lives.add("films/vace/spot", Life(seconds, lost=True, at=NOW))
    assert lives.median("films/vace/spot", (), NOW + KEEP_SECONDS / 2) == 200
    assert lives.median("films/vace/spot", (), NOW + KEEP_SECONDS * 2) is None
    lives.prune(NOW + KEEP_SECONDS * 2)
    assert lives.ended == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}', '{"a": [[1]]}', '{"a": [["x", 1, 2]]}'])
def test_what_nobody_wrote_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        Lives.from_text(text)
