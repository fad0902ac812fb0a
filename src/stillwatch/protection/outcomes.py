"""How far what was read leans towards a key, and how probable that is where the key had no part in it.

Every test here has the same null: the model, and the text it was read on, were made without this key. The key is random,
its coins are then independent of what was read, and the probability is over the *key*: nothing is assumed of models or
texts. It holds whatever the model is, and however often pairs hang together.

A p below ``PROVEN`` is never an approximation. For the residual it is Chernoff's bound, the least of exp(-l t) E exp(l S)
over l, with the exact moment generating function of the sum (Chernoff 1952; sharper than Bernstein's and Bennett's bounds,
which are derived from it): P(p <= a) <= a holds for every a below ``PROVEN``, however few or unequal the terms. Above, the
normal tail serves, where ``effective`` terms are at least ``FEW`` (Berry and Esseen: the error falls with their root), and
the bound where they are fewer. Counts of distinct pairs are exactly binomial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, log_ndtr
from scipy.stats import binom

from stillwatch.protection.coins import coins
from stillwatch.protection.differences import Differences, Floats, favoured_of, fresh
from stillwatch.protection.keys import Key
from stillwatch.protection.sequences import Ints, Pairs, Sequences, pairs_at, windows_at

PROVEN = 1e-3
"""A p below this is a proven bound, or exact."""
FEW = 50.0
"""Effective terms below which the normal tail is believed nowhere."""


class Statistic(StrEnum):
    """What is counted. RESIDUAL: differences from the reference, of open weights or of text. ARGMAX: distinct pairs of a
    window and the suspect's own choice after it (open weights). PAIRS: distinct pairs in the suspect's text."""

    RESIDUAL = "residual"
    ARGMAX = "argmax"
    PAIRS = "pairs"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``z`` in standard deviations over the random key, ``log10_p`` one-sided, ``terms`` that were weighed and how many
    ``effective`` ones of equal weight say as much; ``effect``: the excess of favoured tokens, as a share of all."""

    statistic: Statistic
    z: float
    log10_p: float
    terms: int
    effective: float
    effect: float = 0.0


def leaning(differences: Differences, key: Key) -> Outcome:
    """The residual test: z = sum D (g - share) / sqrt(share (1 - share) sum D^2), with D the differences and g whether the key
    favours a pair. ValueError where the windows are not as wide as the key's."""
    if differences.width != key.scheme.width:
        raise ValueError(f"windows of {differences.width} tokens, a key for {key.scheme.width}")
    g = favoured_of(differences, key)
    return weighed(differences.value, g, key.scheme.share, float(differences.weights.sum()))


def weighed(value: Floats, g: NDArray[np.bool_], share: float, weight: float = 0.0) -> Outcome:
    """The outcome for weights ``value`` on pairs of which ``g`` are favoured, each by chance ``share``."""
    squares = float(value @ value)
    if not squares:
        return Outcome(Statistic.RESIDUAL, 0.0, 0.0, len(value), 0.0)
    scaled = value / math.sqrt(squares * share * (1 - share))
    z = float(scaled @ (g - share))
    effective = squares**2 / float(np.sum(value**4))
    effect = float(value @ (g - share)) / weight if weight else 0.0
    return Outcome(Statistic.RESIDUAL, z, _log10_tail(scaled, z, share, effective), len(value), effective, effect)


def argmax_pairs(read: Pairs, key: Key) -> Outcome:
    """Exact test on the distinct pairs of a window and what the suspect would write after it (``opened.argmaxes``)."""
    return _counted(Statistic.ARGMAX, read.windows, read.tokens, key)


def text_pairs(suspect: Sequences | Pairs, key: Key) -> Outcome:
    """Exact test on the distinct pairs in what the suspect wrote, or on those that ``distinct`` found in it."""
    read = suspect if isinstance(suspect, Pairs) else distinct(suspect, key.scheme.width)
    return _counted(Statistic.PAIRS, read.windows, read.tokens, key)


def distinct(suspect: Sequences, width: int) -> Pairs:
    """The distinct pairs that a suspect wrote; windows seen earlier in the same text are left out."""
    return pairs_at(suspect, fresh(suspect, width), width)


def naive_argmax_pairs(windows: Ints, tokens: Ints, key: Key) -> Outcome:
    """Wrong, and kept to show it: every position counts, however often its pair stands."""
    return _counted(Statistic.ARGMAX, windows, tokens, key)


def naive_text_pairs(suspect: Sequences, key: Key) -> Outcome:
    """Wrong, and kept to show it: every position counts, however often its pair stands and whatever stands before it."""
    at = suspect.positions(key.scheme.width)
    return _counted(Statistic.PAIRS, windows_at(suspect, at, key.scheme.width), suspect.tokens[at], key)


def _counted(statistic: Statistic, windows: Ints, tokens: Ints, key: Key) -> Outcome:
    share, n = key.scheme.share, len(tokens)
    if not n:
        return Outcome(statistic, 0.0, 0.0, 0, 0.0)
    hits = int(key.scheme.favours(coins(key.words, windows, tokens)).sum())
    z = (hits - n * share) / math.sqrt(n * share * (1 - share))
    return Outcome(statistic, z, log10_binomial(hits, n, share), n, float(n), hits / n - share)


def log10_binomial(hits: int, n: int, share: float) -> float:
    """log10 of the chance of at least ``hits`` of ``n``: exact, and far below where a double ends."""
    near = float(binom.sf(hits - 1, n, share))
    if near > 1e-280 or hits <= n * share:
        return min(math.log10(near), 0.0)
    # The tail as its first term times a sum that falls at least geometrically, since hits lie above the mean.
    j = np.arange(hits, n)
    ratios = np.cumsum(np.log((n - j) / (j + 1)) + math.log(share / (1 - share)))
    first = gammaln(n + 1) - gammaln(hits + 1) - gammaln(n - hits + 1)
    first += hits * math.log(share) + (n - hits) * math.log1p(-share)
    return float(first + math.log1p(float(np.exp(ratios).sum()))) / math.log(10)


def _log10_tail(scaled: Floats, z: float, share: float, effective: float) -> float:
    """log10 p of ``z`` = sum of scaled x (g - share): as the module says."""
    normal = float(log_ndtr(-z)) / math.log(10)
    if effective >= FEW and normal > math.log10(PROVEN):
        return normal
    bound = _chernoff(scaled, z, share) / math.log(10)
    return max(normal, min(bound, math.log10(PROVEN) if effective >= FEW else 0.0))


def _chernoff(scaled: Floats, z: float, share: float) -> float:
    """Natural log of Chernoff's bound on P(sum >= z). Every step gives a bound that holds; how well the least is found
    decides only how sharp it is."""
    if z <= 0:
        return 0.0
    most = 500.0 / float(np.abs(scaled).max())
    at, best = min(z, most), 0.0
    for _ in range(60):
        tilted = np.exp(at * scaled)
        mass = 1 - share + share * tilted
        exponent = float(np.sum(np.log1p(share * np.expm1(at * scaled)) - at * share * scaled)) - at * z
        raised = share * tilted / mass
        slope = float(scaled @ (raised - share)) - z
        curve = float(scaled**2 @ (raised * (1 - raised)))
        better, best = exponent < best - 1e-6, min(best, exponent)
        step = float(np.clip(at - slope / curve if curve > 0 else most, at / 2, min(2 * at, most)))
        if not better and abs(step - at) < 1e-4 * at:
            break
        at = step
    return best


def holm(log10_ps: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p as log10, in the order given: at a threshold on these, the chance that any true null of the
    family is rejected is at most the threshold, however the tests hang together."""
    order = np.argsort(np.asarray(log10_ps, np.float64), kind="stable")
    left = np.log10(np.arange(len(order), 0, -1))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(log10_ps, np.float64)[order] + left), 0.0)
    return [float(p) for p in adjusted]
