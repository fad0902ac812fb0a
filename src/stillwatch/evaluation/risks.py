"""Whether risk, the calibrated 0-1 of each account, ranks and means what it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EDGES = (0.0, 0.1, 0.5, 0.9, 0.99)
"""Lower ends of the bands in which stated and observed risk are compared; the last reaches to 1."""


@dataclass(frozen=True, slots=True)
class Band:
    """Accounts whose risk lies in [``low``, ``high``): what was stated on average, and the share truly planted."""

    low: float
    high: float
    accounts: int
    stated: float
    observed: float


@dataclass(frozen=True, slots=True)
class RiskQuality:
    """``auc``: chance that a planted account has a higher risk than an honest one; ``brier``: mean squared error."""

    auc: float | None
    brier: float | None
    bands: tuple[Band, ...]


def judge_risk(risk: NDArray[np.float64], planted: NDArray[np.bool_], of: NDArray[np.bool_]) -> RiskQuality:
    """Judge the risks of the accounts ``of``; those without one (NaN) are left out."""
    rated = of & ~np.isnan(risk)
    risk, planted = risk[rated], planted[rated]
    if not len(risk):
        return RiskQuality(None, None, ())
    above = standing(risk[planted], risk[~planted])
    auc = float(above.mean()) if planted.any() and not planted.all() else None
    return RiskQuality(auc, float(((risk - planted) ** 2).mean()), _bands(risk, planted))


def standing(values: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value, the share of ``among`` below it, ties counted half; its mean is the AUC."""
    ordered = np.sort(among)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (below + upto) / (2 * max(1, len(among)))


def _bands(risk: NDArray[np.float64], planted: NDArray[np.bool_]) -> tuple[Band, ...]:
    band = np.searchsorted(EDGES, risk, "right") - 1
    highs = (*EDGES[1:], 1.0)
    return tuple(
        Band(EDGES[b], highs[b], int((at := band == b).sum()), float(risk[at].mean()), float(planted[at].mean()))
        for b in np.unique(band)
    )
