"""What was asked of the bench and what it gave, a line each, over seeds; and tables for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kstest, t

Found = dict[str, Any]
"""What one seed gave: JSON values."""
FEW_SEEDS = 3
"""Below this many seeds an interval is from least to largest."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing asked: its ``number``, what it means, what was ``asked`` beforehand, what it ``got``, if it ``holds``."""

    number: str
    meaning: str
    asked: str
    got: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page: what it shows, its columns, its lines, and what must be known to read it."""

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Over:
    """A figure over seeds: the mean with its 95 % interval by Student's t from three seeds on, else least and largest."""

    mean: float
    low: float
    high: float
    least: float
    largest: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Over:
        """ValueError for no values."""
        if not values:
            raise ValueError("no seed gave this figure")
        n, mean = len(values), float(np.mean(values))
        least, largest = float(min(values)), float(max(values))
        if n < FEW_SEEDS:
            return cls(mean, least, largest, least, largest, n)
        half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
        return cls(mean, mean - half, mean + half, least, largest, n)

    def text(self, digits: int = 1) -> str:
        """Such as ``-9.3 (-12.0 to -6.6)``."""
        if self.seeds == 1:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def uniform(log10_ps: Sequence[float]) -> float:
    """The p of Kolmogorov and Smirnov's test that these are uniform."""
    return float(kstest(10.0 ** np.asarray(log10_ps, np.float64), "uniform").pvalue)


def below(log10_ps: Sequence[float], limit: float) -> float:
    """The share of p below ``limit``."""
    return float(np.mean(10.0 ** np.asarray(log10_ps, np.float64) < limit))
