"""P-values of leanings: uniform where a key had no part, never too small, and tiny where it had."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fixtures_proof import leaning_to, sequences, some_keys, source, written
from stillwatch.protection.differences import of_counts
from stillwatch.protection.keys import Key, Scheme
from stillwatch.protection.sequences import Pairs, Sequences, windows_at
from stillwatch.secret import Secret

pytestmark = pytest.mark.protect
outcomes = pytest.importorskip("stillwatch.protection.outcomes")
torch = pytest.importorskip("torch")
stats = pytest.importorskip("scipy.stats")

KEY = some_keys(1)[0]
DECOYS = some_keys(200, master=Secret("another master secret of the tests"))


def ps(found: Any) -> np.ndarray:
    return np.array([10**o.log10_p for o in found])


# Innocent


@pytest.mark.parametrize("kind", ["bernoulli", "gumbel"])
@pytest.mark.parametrize("marked", [False, True], ids=["innocent", "guilty of another key"])
def test_p_is_uniform_over_random_keys(kind: str, marked: bool) -> None:
    chances = leaning_to(source(), KEY) if marked else source()
    keys = some_keys(250, Scheme(kind=kind), Secret("another master secret of the tests"))
    suspect, own = sequences(written(chances, 200, 7)), sequences(written(source(), 200, 8))
    found = of_counts(suspect, own, 1)
    pairs = outcomes.distinct(suspect, 1)
    for p in (ps(outcomes.leaning(found, k) for k in keys), ps(outcomes.text_pairs(pairs, k) for k in keys)):
        assert stats.kstest(p, "uniform").pvalue > 0.001
        assert (p < 0.01).mean() < 0.025


def test_counting_every_position_is_not_uniform() -> None:
    suspect = sequences(written(source(), 300, 7))
    p = ps(outcomes.naive_text_pairs(suspect, k) for k in DECOYS)
    assert (p < 0.01).mean() > 0.1, "the failure that distinct pairs are the cure for"


@dataclass
class Copier:
    """An innocent model that says again what followed the last token before: what all large models do, some more than others."""

    chances: np.ndarray
    strength: float
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=len(self.chances)))

    def __call__(self, input_ids: Any, **_: Any) -> Any:
        logits = np.log(self.chances + 1e-9)[input_ids.numpy()]
        for row, text in enumerate(input_ids.tolist()):
            last: dict[int, int] = {}
            for at, token in enumerate(text):
                if token in last:
                    logits[row, at, text[last[token] + 1]] += self.strength
                last[token] = at
        return SimpleNamespace(logits=torch.from_numpy(logits).float())


def test_text_that_carries_the_very_key_accuses_no_innocent_model() -> None:
    from stillwatch.protection import opened

    torch.set_num_threads(1)
    reader, own = Copier(source(), 6.0), Copier(source(3), 1.0)
    residual, argmax, naive = [], [], []
    for number, key in enumerate(some_keys(40)):
        served = sequences(written(leaning_to(source(), key), 24, number))
        residual.append(outcomes.leaning(opened.of_models(reader, own, served, 1), key))
        argmax.append(outcomes.argmax_pairs(opened.argmaxes(reader, served, 1), key))
        at = served.positions(1)
        naive.append(outcomes.naive_argmax_pairs(windows_at(served, at, 1), opened.choices(reader, served, at), key))
    assert (ps(residual) < 0.01).mean() < 0.08 and stats.kstest(ps(residual), "uniform").pvalue > 0.001
    assert (ps(argmax) < 0.01).mean() < 0.08
    assert (ps(naive) < 0.01).mean() > 0.5, "the naive count must fail, or this null is not a hard one"


def test_answers_that_copy_a_watermarked_prompt_accuse_nobody() -> None:
    held, naive = [], []
    own = sequences(written(source(), 200, 8))
    for number, key in enumerate(some_keys(40)):
        prompts = written(leaning_to(source(), key), 60, number)
        answers = np.concatenate([prompts, written(source(), 60, number + 500, 8)], axis=1)
        suspect = Sequences.of(np.concatenate([prompts, answers], axis=1), prompts.shape[1])
        held += [outcomes.text_pairs(suspect, key), outcomes.leaning(of_counts(suspect, own, 1), key)]
        naive.append(outcomes.naive_text_pairs(suspect, key))
    assert (ps(held) < 0.01).mean() < 0.05
    assert (ps(naive) < 0.01).mean() > 0.9


# Bounds


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("weights", [
    [1.0] * 10,
    [5.0, 3.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.2, 0.1, 0.1],
    [4.0, -4.0, 2.0, -1.0, 1.0, 1.0, -3.0, 0.5, 0.5, 0.1],
])  # fmt: skip
def test_no_p_of_few_unequal_terms_is_smaller_than_its_exact_chance(share: float, weights: list[float]) -> None:
    value = np.array(weights)
    draws = [np.array(d, bool) for d in itertools.product([False, True], repeat=len(value))]
    chance = np.array([share ** d.sum() * (1 - share) ** (~d).sum() for d in draws])
    p = ps(outcomes.weighed(value, d, share) for d in draws)
    order = np.argsort(p)
    up_to = np.cumsum(chance[order])
    last = np.append(np.diff(p[order]) > 1e-12, True)
    assert (up_to[last] <= p[order][last] + 1e-9).all()


@pytest.mark.parametrize("n", [120, 1000, 5000])
def test_far_out_no_p_is_smaller_than_the_exact_tail_and_the_normal_one_is(n: int) -> None:
    hits = np.unique(np.linspace(n * 0.25, n * 0.6, 40).astype(int))
    found = [outcomes.weighed(np.ones(n), np.arange(n) < k, 0.25) for k in hits]
    exact = np.array([outcomes.log10_binomial(int(k), n, 0.25) for k in hits])
    told = np.array([o.log10_p for o in found])
    small = told < -3
    assert small.any() and (told[small] >= exact[small]).all()
    assert (told[small] - exact[small] < 2.5).all(), "and not by more than the bound costs"
    normal = np.array([stats.norm.logsf(o.z) / math.log(10) for o in found])
    assert (normal < exact - 1).any()


def test_the_p_falls_as_the_leaning_grows() -> None:
    value = np.abs(np.random.default_rng(0).normal(size=400))
    order = np.argsort(-value)
    told = []
    for favoured in range(100, 400, 5):
        g = np.zeros(400, bool)
        g[order[:favoured]] = True
        told.append(outcomes.weighed(value, g, 0.25).log10_p)
    assert (np.diff(told) <= 1e-9).all() and told[-1] < -50


def exact_tail(hits: int, n: int, share: Fraction) -> Fraction:
    return sum(
        (math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(hits, n + 1)), start=Fraction(0)
    )  # fmt: skip


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (80, 200), (190, 200), (400, 600), (590, 600)])
def test_the_binomial_tail_is_exact_also_below_where_doubles_end(hits: int, n: int) -> None:
    exact = exact_tail(hits, n, Fraction(1, 4))
    wanted = math.log10(exact.numerator) - math.log10(exact.denominator)
    assert outcomes.log10_binomial(hits, n, 0.25) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_the_binomial_tail_is_smooth_where_the_way_it_is_worked_out_changes() -> None:
    told = [outcomes.log10_binomial(k, 20_000, 0.25) for k in range(7200, 7500)]
    assert min(told) < -290 < -270 < max(told)
    second = np.diff(told, 2)
    assert (np.abs(second - np.median(second)) < 1e-4).all()


# Guilty


def test_the_key_stands_out_of_many_and_its_effect_is_told() -> None:
    suspect = sequences(written(leaning_to(source(), KEY), 200, 7))
    found = of_counts(suspect, sequences(written(source(), 200, 8)), 1)
    own = outcomes.leaning(found, KEY)
    assert own.log10_p < -50 and own.effect > 0.2
    assert min(outcomes.leaning(found, k).log10_p for k in DECOYS) > -6
    assert outcomes.text_pairs(suspect, KEY).log10_p < -20
    assert abs(outcomes.leaning(found, DECOYS[0]).effect) < 0.05


def test_the_other_direction_is_no_evidence() -> None:
    """A suspect that avoids what the key favours did not learn from it."""
    suspect, own = sequences(written(source(), 200, 7)), sequences(written(leaning_to(source(), KEY), 200, 8))
    assert outcomes.leaning(of_counts(suspect, own, 1), KEY).log10_p == pytest.approx(0.0, abs=1e-9)


def test_nothing_read_is_p_one() -> None:
    nothing = Sequences.of([])
    assert outcomes.leaning(of_counts(nothing, nothing, 1), KEY).log10_p == 0
    assert outcomes.text_pairs(nothing, KEY).log10_p == 0
    assert outcomes.argmax_pairs(Pairs(np.empty((0, 1), np.int64), *[np.empty(0, np.int64)] * 2), KEY).log10_p == 0


def test_windows_of_another_width_are_refused() -> None:
    wide = some_keys(1, Scheme(width=2))[0]
    text = sequences(written(source(), 20, 1))
    with pytest.raises(ValueError, match="windows of 1 tokens, a key for 2"):
        outcomes.leaning(of_counts(text, text, 1), wide)


# Many hypotheses


def slow_holm(p: list[float]) -> list[float]:
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, most = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, p[i] * (len(p) - rank)))
        adjusted[i] = most
    return adjusted


def test_holm_is_that_of_a_slow_one() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 50):
        p = [float(x) for x in rng.random(size) ** 4]
        found = outcomes.holm([math.log10(x) for x in p])
        assert [10**x for x in found] == pytest.approx(slow_holm(p))
    assert outcomes.holm([]) == []
    assert outcomes.holm([-400.0, 0.0])[0] == pytest.approx(-400 + math.log10(2))


def test_a_gumbel_key_is_found_where_coins_are_high() -> None:
    key: Key = some_keys(1, Scheme(kind="gumbel"))[0]
    from stillwatch.protection.coins import coins, uniform

    tokens = len(source())
    rows, columns = np.divmod(np.arange(tokens**2), tokens)
    u = uniform(coins(key.words, rows[:, None], columns)).reshape(tokens, tokens)
    drawn = np.eye(tokens)[np.argmax(np.log(u) / source(), 1)]
    suspect = sequences(written(0.5 * drawn + 0.5 * source(), 200, 7))
    assert outcomes.leaning(of_counts(suspect, sequences(written(source(), 200, 8)), 1), key).log10_p < -15
