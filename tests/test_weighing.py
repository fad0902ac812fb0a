"""Weights: what each trait may say, that no weight says otherwise, and that odds are what the parts add up to."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures_engine import weights_of
from stillwatch.types import Axis
from stillwatch.weighing import TRAITS, Trees, Weights, probability, weights

SHIPPED = weights()
SIGNS = np.array([TRAITS[n][0] for n in SHIPPED.names])


def rows(seed: int, number: int) -> np.ndarray:
    """Rows of traits, far out and close by, and on the very bounds that trees ask about."""
    rng = np.random.default_rng(seed)
    found = SHIPPED.centre + SHIPPED.scale * rng.normal(0, 2, (number, len(SHIPPED.names)))
    bounds = SHIPPED.trees.bound[SHIPPED.trees.asks >= 0]
    asks = SHIPPED.trees.asks[SHIPPED.trees.asks >= 0]
    for row in found:
        some = rng.integers(0, max(1, len(asks)), 5) if len(asks) else np.zeros(0, int)
        row[asks[some]] = bounds[some]
    return found


def named(row: np.ndarray) -> dict[str, float]:
    return dict(zip(SHIPPED.names, row.tolist()))


def test_every_trait_is_weighed_once() -> None:
    assert len(set(SHIPPED.names)) == len(SHIPPED.names)
    assert set(SHIPPED.names) == set(TRAITS)
    for column in (SHIPPED.bits, SHIPPED.centre, SHIPPED.scale, SHIPPED.spread):
        assert column.shape == (len(TRAITS),)
        assert np.isfinite(column).all()
    assert (SHIPPED.scale > 0).all()
    assert (SHIPPED.spread >= 0).all()
    assert SHIPPED.slope > 0
    assert all(sign in (-1, 1) and asks for sign, _, asks in TRAITS.values())


@pytest.mark.parametrize("name", TRAITS)
def test_the_line_speaks_only_in_the_direction_of_the_question(name: str) -> None:
    assert SHIPPED.bits[SHIPPED.names.index(name)] * TRAITS[name][0] >= 0


def test_trees_are_trees() -> None:
    t = SHIPPED.trees
    inner = np.flatnonzero(t.asks >= 0)
    assert t.asks.max(initial=-1) < len(TRAITS)
    assert len({len(a) for a in (t.asks, t.bound, t.left, t.right, t.value)}) == 1
    reached = np.concatenate([t.left[inner], t.right[inner], t.roots])
    assert sorted(reached.tolist()) == list(range(len(t.asks))), "each node is a root or the child of one"
    assert np.isfinite(t.value).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(TRAITS)))
def test_odds_never_move_against_a_trait_s_direction(seed: int, name: str) -> None:
    """One trait at a time over a grid, all others held: line, trees and their sum."""
    at = SHIPPED.names.index(name)
    low, high = SHIPPED.centre[at] - 5 * SHIPPED.scale[at], SHIPPED.centre[at] + 5 * SHIPPED.scale[at]
    bounds = SHIPPED.trees.bound[SHIPPED.trees.asks == at]
    grid = np.unique(np.concatenate([np.linspace(low, high, 23), bounds, bounds + 1e-9]))
    for row in rows(seed, 2):
        changed = np.repeat(row[None], len(grid), axis=0)
        changed[:, at] = grid
        trees = np.array([SHIPPED.trees.total(r) for r in changed])
        odds = np.array([SHIPPED.total(named(r)) for r in changed])
        for bits in (trees, odds):
            assert (np.diff(bits) * TRAITS[name][0] >= -1e-9).all(), name


def walked(trees: Trees, row: np.ndarray) -> float:
    total = trees.start
    for root in trees.roots.tolist():
        node = root
        while trees.asks[node] >= 0:
            node = int(trees.left[node] if row[trees.asks[node]] <= trees.bound[node] else trees.right[node])
        total += float(trees.value[node])
    return total


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_arrays_say_what_walking_each_tree_by_hand_says(seed: int) -> None:
    for row in rows(seed, 3):
        assert SHIPPED.trees.total(row) == pytest.approx(walked(SHIPPED.trees, row))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_axes_add_up_to_the_line_and_line_and_trees_to_the_odds(seed: int) -> None:
    row = rows(seed, 1)[0]
    traits = named(row)
    by_axis = SHIPPED.by_axis(traits)
    assert set(by_axis) == set(Axis)
    line = SHIPPED.start + sum(by_axis.values())
    assert SHIPPED.each(traits).sum() == pytest.approx(sum(by_axis.values()))
    due = SHIPPED.slope * (line + walked(SHIPPED.trees, row)) / 2 + SHIPPED.shift
    assert SHIPPED.total(traits) == pytest.approx(due)


def test_a_trait_counts_to_three_deviations() -> None:
    weights = weights_of(read=2.0, org=-1.0)
    traits = dict.fromkeys(TRAITS, 0.0)
    assert weights.total(traits | {"read": 2.5}) == pytest.approx(5.0)
    assert weights.total(traits | {"read": 100.0}) == weights.total(traits | {"read": 3.0}) == pytest.approx(6.0)
    assert weights.total(traits | {"read": 1.0, "org": 1.0}) == pytest.approx(1.0)


def test_the_order_traits_come_in_does_not_matter() -> None:
    row = named(rows(1, 1)[0])
    assert SHIPPED.total(dict(reversed(row.items()))) == SHIPPED.total(row)


def test_a_trait_that_is_missing_is_an_error_and_not_a_guess() -> None:
    row = named(rows(1, 1)[0])
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
    weights = replace(weights_of(), standing=(2.0, 0.5, -3.0))
    assert weights.odds(traits | {"size": 8.0}) - weights.odds(traits | {"size": 6.0}) == pytest.approx(1.0)
    assert weights.odds(traits) == pytest.approx(2 * weights.total(traits) - 3)
    assert SHIPPED.standing[1] > 0
