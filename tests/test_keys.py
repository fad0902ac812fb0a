"""Keys are unrelated, do not show, and are named by what they commit to."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.protection.keys import Kind, Scheme, commitment_of, derive
from stillwatch.protection.sequences import Sequences, pairs_of, windows_at
from stillwatch.secret import Secret

MASTER = Secret("m" * 32)


def test_every_part_of_what_a_key_is_for_makes_another_key() -> None:
    usual = derive(MASTER, "SW-1", "2026-11", Scheme())
    others = [
        derive(Secret("n" * 32), "SW-1", "2026-11", Scheme()),
        derive(MASTER, "SW-2", "2026-11", Scheme()),
        derive(MASTER, "SW-1", "2026-12", Scheme()),
        derive(MASTER, "SW-1", "2026-11", Scheme(width=2)),
        derive(MASTER, "SW-1", "2026-11", Scheme(), attempt=1),
        derive(MASTER, "SW-1\x00", "2026-11", Scheme()),
        derive(MASTER, 'SW-1","2026-11', "x", Scheme()),
    ]
    assert len({k.secret for k in (usual, *others)}) == len({k.key_id for k in (usual, *others)}) == 8
    assert derive(MASTER, "SW-1", "2026-11", Scheme()) == usual


def test_a_key_is_named_but_not_shown() -> None:
    key = derive(MASTER, "SW-1", "2026-11", Scheme())
    assert key.commitment == commitment_of(key.secret)
    assert key.secret.hex() not in f"{key!r} {key.key_id}" and "SW-1" not in key.key_id
    assert key.secret.hex()[:16] != key.key_id


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": 17}, {"share": 1.0}, {"delta": 0.0}, {"kind": "red"}])
def test_a_scheme_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Scheme(**wrong)  # type: ignore[arg-type]


def test_a_key_needs_a_master_a_campaign_and_an_epoch() -> None:
    for given in ((Secret("short"), "c", "e"), (MASTER, "", "e"), (MASTER, "c", "")):
        with pytest.raises(ValueError):
            derive(*given, Scheme())
    assert Scheme(kind="gumbel").kind is Kind.GUMBEL  # type: ignore[arg-type]


def test_prompts_are_context_and_never_scored() -> None:
    sequences = Sequences.of([[1, 2, 3, 4], [5], [], [6, 7, 8]], prompts=[2, 0, 0, 1])
    assert sequences.positions(1).tolist() == [2, 3, 6, 7]
    assert windows_at(sequences, sequences.positions(2), 2).tolist() == [[1, 2], [2, 3], [6, 7]]
    assert len(Sequences.of([])) == 0 and Sequences.of([]).positions(1).size == 0


def test_a_pair_counts_once_however_often_it_stands() -> None:
    rng = np.random.default_rng(1)
    lists = [rng.integers(0, 5, 40).tolist() for _ in range(20)]
    pairs = pairs_of(Sequences.of(lists, 3), 2)
    slow: dict[tuple[int, ...], int] = {}
    for tokens in lists:
        for i in range(3, len(tokens)):
            slow[tuple(tokens[i - 2 : i + 1])] = slow.get(tuple(tokens[i - 2 : i + 1]), 0) + 1
    got = {(*w, t): n for w, t, n in zip(pairs.windows.tolist(), pairs.tokens.tolist(), pairs.counts.tolist())}
    assert got == slow
