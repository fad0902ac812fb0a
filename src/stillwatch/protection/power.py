"""What a test could find, said before it is made: the z to expect where so much of the training was watermarked text.

The signal is that of a *perfect* student: the provider's own model is read on the served text, leant fully by a rehearsal key
that no campaign has, and what it then says more is averaged by window (``opened.leant``). It is small where the text has
little entropy, as the watermark is. Of a student trained on a ``share`` of such text, the signal is ``UPTAKE`` x share of that.
The noise is the suspect's own differences from the reference, read without any key: they do not depend on one.

    z = uptake share sum S (g - gamma) / sqrt(gamma (1 - gamma) (sum D^2 + (uptake share)^2 sum S^2))

Limits: ``UPTAKE`` was set below what students of two layers took up (docs/protection.md), and larger ones, or such that were
trained on later, may take up less. The z of a fixed share varies by about 1 around its mean. From text alone the signal is
taken from counts by window, which overstate the entropy of text that follows from far back. So these numbers say what can be
hoped for; a test that finds nothing is inconclusive whatever they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillwatch.protection.coins import drawn, lanes, uniform
from stillwatch.protection.differences import Differences, favoured_of
from stillwatch.protection.keys import Key, Kind

SHARES = (1.0, 0.5, 0.1, 0.05, 0.01)
UPTAKE = 0.15
"""Part of a perfect student's leaning that is counted on."""


@dataclass(frozen=True, slots=True)
class Expected:
    """At this ``share`` of watermarked training text: the least ``z`` to expect in the weaker half, and the least ``chance`` that
    both halves fire. ``perfect``: what a student that takes up everything would show. ``needed``: the z that fires after Holm's
    correction, about."""

    share: float
    z: float
    perfect: float
    needed: float
    chance: float

    def to_dict(self) -> dict[str, float]:
        """As JSON values, rounded as far as they mean something."""
        return {
            "share": self.share,
            "z": round(self.z, 2),
            "z_perfect": round(self.perfect, 2),
            "z_needed": round(self.needed, 2),
            "chance": round(self.chance, 3),
        }


def needed(threshold: float, hypotheses: int) -> float:
    """The z at which Chernoff's bound falls to the threshold over the number of hypotheses, where terms are many."""
    return math.sqrt(2 * math.log(hypotheses / threshold))


def expected(signal: Differences, noise: float, key: Key, uptake: float = UPTAKE) -> dict[float, float]:
    """The z to expect by share; ``signal`` of a perfect student under the rehearsal ``key``, ``noise`` the sum of squares of the
    suspect's own differences."""
    gamma = key.scheme.share
    leaning = float(signal.value @ (favoured_of(signal, key) - gamma))
    squares = float(signal.value @ signal.value)
    sizes = {s: math.sqrt(gamma * (1 - gamma) * (noise + (uptake * s) ** 2 * squares)) for s in SHARES}
    return {s: uptake * s * leaning / size if size else 0.0 for s, size in sizes.items()}


def least(
    halves: Sequence[dict[float, float]], perfect: Sequence[dict[float, float]], threshold: float, hypotheses: int
) -> tuple[Expected, ...]:
    """What both halves of a test can be expected to show, of a student such as ours and at best: the weaker one's z, and by the
    union bound the chance of both."""
    z_needed = needed(threshold, hypotheses)
    told = []
    for share in SHARES:
        missed = sum(0.5 * math.erfc((h[share] - z_needed) / math.sqrt(2)) for h in halves)
        z, best = (min(h[share] for h in told_of) for told_of in (halves, perfect))
        told.append(Expected(share, z, best, z_needed, max(0.0, 1 - missed)))
    return tuple(told)


def leant_counts(shares: Differences, key: Key) -> Differences:
    """As ``opened.leant`` for ``shares`` of each token after each window (times its weight) that were counted in text."""
    index = shares.window_index
    weight = np.maximum(shares.weights[index], 1e-12)
    share = np.maximum(shares.value / weight, 1e-12)
    size = len(shares.windows)
    if key.scheme.kind is Kind.BERNOULLI:
        raised = share * np.exp(key.scheme.delta * favoured_of(shares, key))
        raised /= np.bincount(index, raised, minlength=size)[index]
    else:
        first, second = lanes(key.words, shares.windows)
        drawn_by = np.log(uniform(drawn(first[index], second[index], shares.token))) / share
        best = np.full(size, -np.inf)
        np.maximum.at(best, index, drawn_by)
        raised = (drawn_by == best[index]).astype(np.float64)
    return Differences(shares.windows, shares.weights, index, shares.token, (raised - share) * weight, shares.positions)
