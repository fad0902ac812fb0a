"""Figures: F1, calibration, recall at a rate of false marks; each on text that the weights in question never saw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from stillwatch.fingerprints._reader import holding, sigmoid
from stillwatch.types import CAPABILITIES, ELICITATIONS

Floats = npt.NDArray[np.float32]
SPLIT = len(CAPABILITIES)
FAMILIES = ELICITATIONS[1:]


def f1(truth: Floats, p: Floats) -> Floats:
    """F1 of each capability, where those hold that the reader would say hold."""
    held = holding(p)
    result: Floats = 2 * (truth * held).sum(0) / np.maximum(truth.sum(0) + held.sum(0), 1e-9)
    return result


def interval(value: Any, groups: npt.NDArray[Any], draws: int = 400) -> tuple[float, float]:
    """95 % bootstrap interval of ``value(rows)``, drawing whole groups (sources): rows of one are not independent."""
    rng, names = np.random.default_rng(0), np.unique(groups)
    rows = {n: np.flatnonzero(groups == n) for n in names}
    got = [value(np.concatenate([rows[n] for n in rng.choice(names, len(names))])) for _ in range(draws)]
    return float(np.quantile(got, 0.025)), float(np.quantile(got, 0.975))


def calibration_error(truth: Floats, p: Floats, bins: int = 15) -> float:
    """Expected calibration error of the likeliest capability."""
    best = np.argmax(p, axis=1)
    sure, right = p.max(axis=1), truth[np.arange(len(p)), best]
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [abs(right[place == b].mean() - sure[place == b].mean()) * (place == b).mean() for b in np.unique(place)]
    return float(sum(gaps))


def platt(raw: Floats, truth: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Slope and shift of each class that make ``sigmoid(slope * raw + shift)`` a probability (Platt 1999)."""
    fitted = [LogisticRegression(C=10).fit(raw[:, [k]], truth[:, k], sample_weight=weight) for k in range(raw.shape[1])]
    slopes = np.array([max(m.coef_[0, 0], 0.05) for m in fitted], np.float32)
    return slopes, np.array([m.intercept_[0] for m in fitted], np.float32)


def calibrated(raw: Floats, truth: Floats, sources: Sequence[str]) -> tuple[Floats, Floats]:
    """Slope and shift of each capability, every source counting the same: Platt's for each class, then one more line for all,
    which makes the score of the likeliest class the chance that it is right (picking the greatest of several is too sure)."""
    weight = even(sources)
    slopes, shifts = platt(raw, truth, weight)
    p = np.clip(sigmoid(raw * slopes + shifts), 1e-6, 1 - 1e-6)
    best, sure = np.argmax(p, axis=1), p.max(axis=1)
    model = LogisticRegression(C=10).fit(np.log(sure / (1 - sure))[:, None], truth[np.arange(len(p)), best], weight)
    slope, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    return (slopes * slope).astype(np.float32), (shifts * slope + shift).astype(np.float32)


def even(groups: Sequence[str]) -> Floats:
    """A weight for each row such that every group counts the same, 1 on average."""
    _, inverse, counts = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    weight = 1 / counts[inverse]
    result: Floats = (weight * len(weight) / weight.sum()).astype(np.float32)
    return result


def level(most: Floats, sources: Sequence[str], share: float) -> float:
    """What ``share`` of these strongest log-odds exceed, every source counting the same."""
    weight, order = even(sources), np.argsort(-most)
    return float(most[order][np.searchsorted(np.cumsum(weight[order]) / weight.sum(), share)])


def by_group(values: npt.NDArray[Any], groups: Sequence[Any]) -> dict[Any, float]:
    """Mean of the values of each group."""
    found: dict[Any, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        found[group].append(float(value))
    return {g: float(np.mean(v)) for g, v in found.items()}
