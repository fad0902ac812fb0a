"""Weights: what each trait may say, that no weight says otherwise, and that odds are what the parts add up to."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures_engine import weights_of
from stillwatch.types import FAMILIES
from stillwatch.weighing import LARGE, TRAITS, Judge, Trees, Weights, probability, weights

SHIPPED = weights()
JUDGES = {"small": SHIPPED.small, "large": SHIPPED.large}


def rows(judge: Judge, seed: int, number: int) -> np.ndarray:
    """Rows of traits, about what is usual and far out, and on the very bounds that trees ask about."""
    rng = np.random.default_rng(seed)
    found = SHIPPED.usual + rng.normal(0, 2, (number, len(SHIPPED.names)))
    inner = np.flatnonzero(judge.trees.asks >= 0)
    for row in found:
        some = rng.choice(inner, 5)
        row[judge.trees.asks[some]] = judge.trees.bound[some]
    return found


def named(row: np.ndarray) -> dict[str, float]:
    return dict(zip(SHIPPED.names, row.tolist()))


def test_every_trait_is_weighed_once() -> None:
    assert len(set(SHIPPED.names)) == len(SHIPPED.names)
    assert set(SHIPPED.names) == set(TRAITS)
    assert SHIPPED.usual.shape == (len(TRAITS),)
    assert np.isfinite(SHIPPED.usual).all()
    assert all(judge.slope > 0 for judge in JUDGES.values())
    assert all(t.sign in (-1, 1) and t.family in FAMILIES and t.asks for t in TRAITS.values())


@pytest.mark.parametrize("of", JUDGES)
def test_trees_are_trees(of: str) -> None:
    t = JUDGES[of].trees
    inner = np.flatnonzero(t.asks >= 0)
    assert t.asks.max(initial=-1) < len(TRAITS)
    assert len({len(a) for a in (t.asks, t.bound, t.left, t.right, t.value)}) == 1
    reached = np.concatenate([t.left[inner], t.right[inner], t.roots])
    assert sorted(reached.tolist()) == list(range(len(t.asks))), "each node is a root or the child of one"
    assert np.isfinite(t.value).all()
    low, high = np.sort([t.value[t.left[inner]], t.value[t.right[inner]]], axis=0)
    assert ((low - 1e-4 <= t.value[inner]) & (t.value[inner] <= high + 1e-4)).all(), "a node is worth a mean of its two"


@pytest.mark.parametrize("of", JUDGES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(TRAITS)))
def test_bits_never_move_against_a_trait_s_direction(of: str, seed: int, name: str) -> None:
    """One trait at a time over a grid, all others held."""
    judge = JUDGES[of]
    at = SHIPPED.names.index(name)
    bounds = judge.trees.bound[judge.trees.asks == at]
    grid = np.unique(
        np.concatenate([np.linspace(SHIPPED.usual[at] - 9, SHIPPED.usual[at] + 9, 23), bounds, bounds + 1e-9])
    )
    for row in rows(judge, seed, 2):
        changed = np.repeat(row[None], len(grid), axis=0)
        changed[:, at] = grid
        bits = np.array([judge.total(r) for r in changed])
        assert (np.diff(bits) * TRAITS[name].sign >= -1e-9).all(), name


def walked(trees: Trees, row: np.ndarray) -> float:
    total = trees.start
    for root in trees.roots.tolist():
        node = root
        while trees.asks[node] >= 0:
            node = int(trees.left[node] if row[trees.asks[node]] <= trees.bound[node] else trees.right[node])
        total += float(trees.value[node])
    return total


@pytest.mark.parametrize("of", JUDGES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_arrays_say_what_walking_each_tree_by_hand_says(of: str, seed: int) -> None:
    judge = JUDGES[of]
    for row in rows(judge, seed, 3):
        assert judge.trees.total(row) == pytest.approx(walked(judge.trees, row))


@pytest.mark.parametrize("of", JUDGES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_each_trait_gives_adds_up(of: str, seed: int) -> None:
    judge = JUDGES[of]
    for row in rows(judge, seed, 3):
        mean = judge.trees.start + judge.trees.value[judge.trees.roots].sum()
        assert mean + judge.trees.each(row).sum() == pytest.approx(judge.trees.total(row))


@pytest.mark.parametrize("accounts", [5, LARGE - 1, LARGE, 1000])
def test_who_judges_a_group_goes_by_its_size(accounts: int) -> None:
    traits = named(rows(SHIPPED.small, 1, 1)[0]) | {"size": math.log2(accounts)}
    judge = SHIPPED.large if accounts >= LARGE else SHIPPED.small
    row = np.array([traits[n] for n in SHIPPED.names])
    assert SHIPPED.total(traits) == pytest.approx(judge.slope * walked(judge.trees, row) + judge.shift)
    assert SHIPPED.each(traits) == pytest.approx(judge.slope * judge.trees.each(row))
    slope, doubling, shift = judge.standing
    assert SHIPPED.odds(traits) == pytest.approx(slope * SHIPPED.total(traits) + doubling * math.log2(accounts) + shift)


def test_the_order_traits_come_in_does_not_matter() -> None:
    row = named(rows(SHIPPED.small, 1, 1)[0])
    assert SHIPPED.total(dict(reversed(row.items()))) == SHIPPED.total(row)


def test_a_trait_that_is_missing_is_an_error_and_not_a_guess() -> None:
    row = named(rows(SHIPPED.small, 1, 1)[0])
    del row["dispatch"]
    with pytest.raises(KeyError):
        SHIPPED.total(row)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3))
def test_probability_is_one_and_rises_with_the_odds(bits: float, more: float) -> None:
    assert 0 < probability(bits) <= probability(bits + more) <= 1
    assert probability(bits) + probability(-bits) == pytest.approx(1)


@pytest.mark.parametrize(("bits", "p"), [(0, 1 / 2), (1, 2 / 3), (-1, 1 / 3), (3, 8 / 9)])
def test_probability_of_odds(bits: float, p: float) -> None:
    assert probability(bits) == pytest.approx(p)
    assert math.log2(p / (1 - p)) == pytest.approx(bits)


def test_weights_are_loaded_once() -> None:
    assert weights() is SHIPPED
    assert isinstance(SHIPPED, Weights)


def test_of_groups_that_stand_the_larger_are_the_surer() -> None:
    traits = dict.fromkeys(TRAITS, 0.0)
    judge = replace(weights_of().small, standing=(2.0, 0.5, -3.0))
    weights = replace(weights_of(), small=judge, large=judge)
    assert weights.odds(traits | {"size": 8.0}) - weights.odds(traits | {"size": 6.0}) == pytest.approx(1.0)
    assert weights.odds(traits) == pytest.approx(2 * weights.total(traits) - 3)
    assert all(judge.standing[1] > 0 for judge in JUDGES.values())
