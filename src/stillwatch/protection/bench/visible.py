"""Whether a defence can be told from the outputs: a distiller that can tell drops them, or goes elsewhere.

A linear discriminant over counts of adjacent tokens and the length of the response, fitted on half of the outputs; the area
under its ROC curve on the rest, with the interval of Newcombe (2006, method 5) on Hanley and McNeil's variance (1982). It is
a simple classifier: an area of a half says that this one cannot tell, not that none can.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from stillwatch.intervals import Z95, Share
from stillwatch.protection.bench.defences import Outputs
from stillwatch.protection.bench.tasks import ALPHABET, PAD

RIDGE = 1.0
"""Added to the scatter of each feature."""
_GRID = np.linspace(0, 1, 2001)


def told_apart(defended: Outputs, undefended: Outputs) -> Share:
    """The AUC with its interval; outputs of one task, to different questions. ValueError for fewer than four of either."""
    if min(len(defended), len(undefended)) < 4:
        raise ValueError("telling outputs apart takes at least four of either kind")
    ours, others = _features(defended), _features(undefended)
    slope = _discriminant(ours[::2], others[::2])
    return area(ours[1::2] @ slope, others[1::2] @ slope)


def area(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> Share:
    """The share of pairs in which the positive one is higher, ties counting half, with its 95 % interval."""
    m, n = len(positive), len(negative)
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    value = float(below.sum() / (2 * m * n))
    spread = _variance(_GRID, m, n)
    inside = _GRID[(_GRID - value) ** 2 <= Z95**2 * spread]
    low, high = (inside.min(), inside.max()) if len(inside) else (value, value)
    return Share(value, min(value, float(low)), max(value, float(high)))


def _variance(area: NDArray[np.float64], m: int, n: int) -> NDArray[np.float64]:
    """Newcombe's method 5: Hanley and McNeil's, with both sizes taken as their mean less a half."""
    size = (m + n) / 2 - 1
    both = (1 - area) / (2 - area) + area / (1 + area)
    return area * (1 - area) * (1 + size * both) / (m * n)


def _features(outputs: Outputs) -> NDArray[np.float64]:
    """Square roots of how often each token follows each other one, and the length."""
    told, size = np.column_stack([outputs.prompts[:, -1:], outputs.responses]), len(ALPHABET)
    pairs = told[:, :-1] * size + told[:, 1:]
    counts = np.zeros((len(told), size * size))
    np.add.at(counts, (np.arange(len(told))[:, None], pairs), told[:, 1:] != PAD)
    length = (told != PAD).sum(1, keepdims=True) / sqrt(told.shape[1])
    return np.column_stack([np.sqrt(counts), length])


def _discriminant(ours: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fisher's direction (1936), with a ridge."""
    gap = ours.mean(0) - others.mean(0)
    within = np.concatenate([ours - ours.mean(0), others - others.mean(0)])
    scatter = within.T @ within / len(within)
    return np.linalg.solve(scatter + RIDGE / sqrt(len(within)) * np.eye(len(gap)), gap)
