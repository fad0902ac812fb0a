"""Proportions with their intervals, and how well two partitions of the accounts agree.

An *overlap* is an integer matrix: planted campaigns down (row 0: honest), reported campaigns across (column 0: not
accused), accounts counted. An accused honest account counts against precision in full: unlike in textbook B-cubed it
is no "cluster of its own" that is partly right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillwatch.intervals import wilson

Overlap = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rate:
    """``hits`` of ``total``, with Wilson's 95 % interval; nothing is known of a rate of nothing: (None, 0, 1)."""

    hits: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.total:
            raise ValueError(f"a rate needs 0 <= hits <= total: {self.hits} of {self.total}")

    @property
    def value(self) -> float | None:
        return self.hits / self.total if self.total else None

    @property
    def low(self) -> float:
        return wilson(self.hits / self.total, self.total)[0] if self.total else 0.0

    @property
    def high(self) -> float:
        return wilson(self.hits / self.total, self.total)[1] if self.total else 1.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the reported campaigns match the planted ones as groups; each in [0, 1], None where undefined.

    ``bcubed_*`` average over accounts: of an accused account, how much of its reported campaign is of its planted one;
    of a planted account, how much of its planted campaign stands in its reported one. ``pairwise_f1`` asks the same of
    pairs of accounts. ``purity`` is the share of the accused who belong to the planted campaign that dominates theirs.
    """

    bcubed_precision: float | None
    bcubed_recall: float | None
    bcubed_f1: float | None
    pairwise_f1: float | None
    purity: float | None

    @property
    def headline(self) -> float:
        """The worst of B-cubed F1, pairwise F1 and purity: neither one giant group nor a heap of splinters scores.

        With nothing planted and nobody accused it is 1; with only one of the two, 0.
        """
        if self.bcubed_precision is None and self.bcubed_recall is None:
            return 1.0
        worst = (self.bcubed_f1 or 0.0, self.purity or 0.0)
        return min(worst) if self.pairwise_f1 is None else min(*worst, self.pairwise_f1)


def overlap(planted: NDArray[np.int64], reported: NDArray[np.int64], shape: tuple[int, int]) -> Overlap:
    """Count accounts by (planted, reported) code, 0 for honest and for not accused; ``shape`` excludes the zeros."""
    rows, columns = shape[0] + 1, shape[1] + 1
    return np.bincount(planted * columns + reported, minlength=rows * columns).reshape(rows, columns)


def agreement(counts: Overlap) -> Agreement:
    """Compare the two partitions an overlap describes (Bagga and Baldwin 1998 for B-cubed)."""
    both, accused, planted = counts[1:, 1:], counts[:, 1:].sum(axis=0), counts[1:].sum(axis=1)
    precision = _ratio((both**2 / np.maximum(accused, 1)).sum(), accused.sum())
    recall = _ratio((both**2 / np.maximum(planted, 1)[:, None]).sum(), planted.sum())
    dominated = both.max(axis=0, initial=0).sum()
    return Agreement(
        precision,
        recall,
        _harmonic(precision, recall),
        _ratio(2 * _pairs(both), _pairs(accused) + _pairs(planted)),
        _ratio(dominated, accused.sum()),
    )


def _pairs(sizes: Overlap) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _harmonic(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b else 0.0
