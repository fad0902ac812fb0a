"""Differences of texts, and which positions are read for them."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from fixtures_proof import sequences, some_keys, source, written
from stillwatch.protection.differences import Differences, favoured_of, fresh, numbered, of_counts, of_text
from stillwatch.protection.sequences import Sequences


def random_sequences(seed: int, tokens: int = 5) -> Sequences:
    rng = np.random.default_rng(seed)
    lists = [rng.integers(0, tokens, rng.integers(0, 20)).tolist() for _ in range(12)]
    return Sequences.of(lists, [int(rng.integers(0, 4)) for _ in lists])


def slow_fresh(found: Sequences, width: int) -> list[int]:
    kept = []
    for begin, start, end in zip(found.begins, found.starts, found.ends, strict=True):
        seen = set()
        for at in range(begin + width, end):
            window = tuple(found.tokens[at - width : at].tolist())
            if window not in seen and at >= start:
                kept.append(at)
            seen.add(window)
    return kept


def slow_shares(found: Sequences, width: int) -> dict[tuple[int, ...], Counter[int]]:
    shares: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for at in slow_fresh(found, width):
        shares[tuple(found.tokens[at - width : at].tolist())][int(found.tokens[at])] += 1
    return shares


def entries(found: Differences) -> dict[tuple[tuple[int, ...], int], float]:
    windows = [tuple(w) for w in found.windows.tolist()]
    return {(windows[i], t): v for i, t, v in zip(found.window_index, found.token.tolist(), found.value, strict=True)}


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_fresh_positions_are_those_a_slow_look_finds(seed: int, width: int) -> None:
    found = random_sequences(seed)
    assert fresh(found, width).tolist() == slow_fresh(found, width)


def test_a_window_in_the_prompt_is_not_fresh_behind_it() -> None:
    found = Sequences.of([[1, 2, 3, 1, 9, 1, 8]], 3)
    assert fresh(found, 1).tolist() == [3, 5], "after 3 and 9; 1 stood in the prompt, and stands twice behind it"


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_differences_of_counts_are_those_counted_slowly(seed: int, width: int) -> None:
    suspect, reference = random_sequences(seed), random_sequences(seed + 100)
    ours, theirs = slow_shares(suspect, width), slow_shares(reference, width)
    wanted = {}
    for window in ours.keys() & theirs.keys():
        n, m = ours[window].total(), theirs[window].total()
        for token in ours[window].keys() | theirs[window].keys():
            value = min(n * m / (n + m), 64) ** 0.5 * (ours[window][token] / n - theirs[window][token] / m)
            if abs(value) > 1e-12:
                wanted[window, token] = pytest.approx(value)
    found = of_counts(suspect, reference, width)
    assert entries(found) == wanted
    assert found.positions == sum(c[w].total() for c in (ours, theirs) for w in ours.keys() & theirs.keys())


def test_equal_texts_differ_nowhere_and_shares_of_one_add_up_to_its_weights() -> None:
    text = sequences(written(source(), 40, seed=5))
    assert len(of_counts(text, text, 1)) == 0
    one = of_text(text, 1)
    assert np.bincount(one.window_index, one.value) == pytest.approx(one.weights)


def test_texts_without_a_window_in_common_give_no_differences() -> None:
    found = of_counts(Sequences.of([[1, 2, 1, 3]]), Sequences.of([[4, 5, 6]]), 1)
    assert (len(found), found.windows.shape, found.positions) == (0, (0, 1), 0)
    assert len(of_counts(Sequences.of([]), Sequences.of([]), 2)) == 0


def test_rows_are_numbered_alike_where_they_are_alike() -> None:
    rows = np.random.default_rng(1).integers(-3, 3, (200, 3))
    number = numbered(rows)
    assert set(number) == set(range(len(np.unique(rows, axis=0))))
    for a in range(0, 200, 7):
        assert ((number == number[a]) == (rows == rows[a]).all(1)).all()


def test_favoured_entries_are_those_whose_coins_are() -> None:
    key = some_keys(1)[0]
    found = of_counts(sequences(written(source(), 60, 1)), sequences(written(source(), 60, 2)), 1)
    from stillwatch.protection.coins import coins, threshold

    coin = coins(key.words, found.windows[found.window_index], found.token)
    assert (favoured_of(found, key) == (coin < threshold(0.25))).all()
    assert 0.2 < favoured_of(found, key).mean() < 0.3


def test_differences_that_cannot_be_are_refused() -> None:
    one = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="a window, a token and a value"):
        Differences(np.zeros((1, 1), np.int64), np.ones(1), one, one, np.ones(2), 1)
    with pytest.raises(ValueError, match="is a number"):
        Differences(np.zeros((1, 1), np.int64), np.ones(1), one, one, np.array([np.nan]), 1)
