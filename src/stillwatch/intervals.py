"""Shares with their 95 % intervals, where what is counted comes in lumps: exchanges of one account are alike.

A share is a ratio of sums over *units* (who decides: an account, a payer, a company). Its variance is that of the ratio
linearised over units (Cochran 1977, 6.8), which turns it into the number of independent exchanges that would be as
uncertain; Wilson's interval of so many, fewer where units are few (Korn and Graubard 1998), is in [0, 1] at any share.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

Z95 = 1.959963984540054
"""Standard normal quantile that leaves 2.5 % on either side."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share and its interval."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.value <= self.high <= 1:
            raise ValueError(f"a share lies in its interval, and that in [0, 1]: {self.low}, {self.value}, {self.high}")


def share_of(
    unit: np.ndarray, hits: np.ndarray, total: np.ndarray,
    stratum: np.ndarray | None = None, weight: np.ndarray | None = None,
) -> Share:  # fmt: skip
    """``hits`` over ``total``, of rows that belong to units (any numbers; at least two of them).

    With strata (numbers from 0) it is the mean of their shares by ``weight``, which adds up to 1: what others would show
    if they were spread over the strata so. Every stratum with a weight must hold something.
    """
    stratum = np.zeros(len(unit), np.int64) if stratum is None else stratum
    weight = np.ones(1) if weight is None else weight
    whole = np.maximum(1, np.bincount(stratum, total, len(weight)))
    each = np.bincount(stratum, hits, len(weight)) / whole
    value = float(np.clip(weight @ each, 0, 1))
    off = (weight / whole)[stratum] * (hits - each[stratum] * total)
    by_unit = np.bincount(np.unique(unit, return_inverse=True)[1], off)
    units = len(by_unit)
    variance = float((by_unit**2).sum()) * units / (units - 1)
    worth = float(total.sum()) if variance == 0 else min(float(total.sum()), value * (1 - value) / variance)
    # Where all units agree entirely, each has said one thing.
    worth = float(units) if value in (0.0, 1.0) else worth
    return Share(value, *wilson(value, worth * (Z95 / student(units - 1)) ** 2))


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a share of ``n`` independent ones; ``n`` need not be whole."""
    centre = (share * n + Z95**2 / 2) / (n + Z95**2)
    half = Z95 * sqrt(share * (1 - share) * n + Z95**2 / 4) / (n + Z95**2)
    low = 0.0 if share == 0 else min(share, max(0.0, centre - half))
    return low, 1.0 if share == 1 else max(share, min(1.0, centre + half))


def more(one: Share, other: Share) -> tuple[float, float]:
    """Interval of how much more ``one`` is than ``other``, independent of it (Newcombe 1998, method 10)."""
    gap = one.value - other.value
    low = gap - sqrt((one.value - one.low) ** 2 + (other.high - other.value) ** 2)
    return low, gap + sqrt((one.high - one.value) ** 2 + (other.value - other.low) ** 2)


def student(freedom: float) -> float:
    """97.5 % quantile of Student's t, by its expansion about the normal one; within 1 % from 4 degrees of freedom on."""
    z, f = Z95, freedom
    return (
        z + (z**3 + z) / (4 * f) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * f**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * f**3)
    )  # fmt: skip
