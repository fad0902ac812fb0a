"""An unlucky key is turned down, and vetting makes no accusation likelier."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stillwatch.errors import Terminal, UsageError
from stillwatch.protection import vetting
from stillwatch.protection.coins import coins
from stillwatch.protection.keys import Key, Kind, Scheme, derive
from stillwatch.protection.sequences import Sequences, pairs_of
from stillwatch.protection.vetting import FACTOR, LIMIT, Vetting
from stillwatch.secret import Secret

MASTER = Secret("a master secret of the tests, long enough")


def key(attempt: int = 0, campaign: str = "C-1", **scheme: object) -> Key:
    return derive(MASTER, campaign, "2026-11", Scheme(**scheme), attempt)  # type: ignore[arg-type]


def text(seed: int = 0, sequences: int = 100, length: int = 40, vocabulary: int = 300) -> Sequences:
    rng = np.random.default_rng(seed)
    return Sequences.of(rng.zipf(1.3, (sequences, length)) % vocabulary, prompts=4)


def marked(leaning: Key) -> Sequences:
    """Text of favoured tokens alone."""
    rng, rows = np.random.default_rng(2), np.empty((80, 40), np.int64)
    favoured = leaning.scheme.favours(coins(leaning.words, np.arange(300)[:, None, None], np.arange(300)[None]))
    allowed = [np.flatnonzero(row) for row in favoured]
    rows[:, 0] = rng.integers(300, size=80)
    for row in rows:
        for at in range(1, 40):
            row[at] = rng.choice(allowed[row[at - 1]])
    return Sequences.of(rows)


def test_z_is_the_binomials_over_distinct_pairs() -> None:
    mark, written = key(width=2), text()
    found = Vetting(written).of(mark)
    pairs = pairs_of(written, 2)
    hits = int(mark.scheme.favours(coins(mark.words, pairs.windows, pairs.tokens)).sum())
    assert (found.pairs, found.favoured) == (len(pairs), hits)
    assert found.z == pytest.approx((hits - 0.25 * len(pairs)) / math.sqrt(len(pairs) * 0.1875))
    doubled = Sequences.of([row for row in np.split(written.tokens, 100) for _ in range(2)], prompts=4)
    assert Vetting(doubled).of(mark) == found, "what stands twice counts once"


@pytest.mark.parametrize("kind", list(Kind))
def test_the_first_attempt_is_turned_down_where_it_favours_what_everybody_writes(kind: Kind) -> None:
    unlucky = key(kind=kind)
    vets = Vetting(marked(unlucky))
    assert vets.of(unlucky).z > 10
    found, vetted = vets.first(lambda attempt: key(attempt, kind=kind))
    assert found.attempt == len(vetted.turned_down) >= 1
    assert vetted.turned_down[0] == vets.of(unlucky).z and vetted.holds
    assert all(abs(z) > LIMIT for z in vetted.turned_down)
    assert found.secret != unlucky.secret and found.key_id != unlucky.key_id


def test_a_lucky_key_is_taken_at_once() -> None:
    vets = Vetting(text())
    lucky = next(c for c in (f"C-{n}" for n in range(50)) if vets.of(key(campaign=c)).holds)
    found, vetted = vets.first(lambda attempt: key(attempt, lucky))
    assert (found.attempt, vetted.turned_down) == (0, ())


def test_a_text_that_turns_everything_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vetting, "MOST_ATTEMPTS", 3)
    unlucky = key()
    with pytest.raises(Terminal, match="3 keys one after the other"):
        Vetting(marked(unlucky)).first(lambda attempt: unlucky)


def test_a_short_text_says_too_little() -> None:
    with pytest.raises(UsageError, match="distinct pairs") as told:
        Vetting(text(sequences=2)).of(key())
    assert "1,000" in told.value.hint


def test_about_two_keys_of_three_are_let_through_and_none_accuses_more_often() -> None:
    """Keys vetted on one text, tried on another that shares much of it, and on itself: tails are no heavier than promised."""
    own, other = text(1), text(2)
    vets = Vetting(own)
    keys = [key(campaign=f"C-{n}") for n in range(300)]
    through = [k for k in keys if vets.of(k).holds]
    assert abs(len(through) / len(keys) - 1 / FACTOR) < 4 * math.sqrt(0.68 * 0.32 / 300)
    on_other, tried = [Vetting(other).of(k).z for k in through], len(through)
    for z in (1.0, 1.645, 2.0):
        tail = 0.5 * math.erfc(z / math.sqrt(2))
        assert sum(x > z for x in on_other) <= tried * tail + 3 * math.sqrt(tried * tail)
    assert np.std(on_other) < 1
    assert max(abs(vets.of(k).z) for k in through) <= LIMIT
