"""Boosted trees over an account's columns, tested on campaigns they have not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillwatch.evaluation.columns import Columns
from stillwatch.evaluation.measures import Rate
from stillwatch.evaluation.reading import Labels
from stillwatch.evaluation.risks import standing

MIN_CAMPAIGNS = 2
MIN_HONEST = 2
"""With fewer there is nobody to tell apart in one of the halves."""
SURE_PRECISION = 0.99
LEANED_ON_ACCOUNTS = 2000
LEANED_ON_COLUMNS = 10

Scores = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Point:
    """What the trees get at one threshold in each half: pooled, and by campaign."""

    precision: Rate
    recall: Rate
    recall_by_campaign: Mapping[str, Rate]


@dataclass(frozen=True, slots=True)
class Leaning:
    """How much AUC on unseen campaigns is lost when a column is shuffled."""

    column: str
    auc_lost: float


@dataclass(frozen=True, slots=True)
class TreeReport:
    """Two halves, each tested by trees grown on the other; campaigns are never split.

    Thresholds are chosen on the very accounts tested, to the trees' advantage: ``best_f1``, and ``sure``, the most they
    find at a precision of 0.99, None if they reach that in neither half.
    """

    auc: float
    auc_by_half: tuple[float, ...]
    best_f1: Point
    sure: Point | None
    leans_on: tuple[Leaning, ...]


def grow_and_test(columns: Columns, campaign: Labels, seed: int) -> TreeReport:
    """Grow on one half of campaigns and honest accounts, test on the other, both ways round."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

    # With so few rows, threads that wait for one another on a busy machine cost ten times what they bring.
    with threadpool_limits(1):
        return _grow_and_test(columns, campaign, seed)


def _grow_and_test(columns: Columns, campaign: Labels, seed: int) -> TreeReport:
    rng = np.random.default_rng(seed)
    half = _halves(campaign, rng)
    planted = campaign.codes > 0
    tested = [half == 0, half == 1]
    models = [_grow(columns.values[~test], campaign.codes[~test], seed) for test in tested]
    scores = np.zeros(len(half))
    for model, test in zip(models, tested):
        scores[test] = model.predict_proba(columns.values[test])[:, 1]
    aucs = tuple(_auc(scores[t], planted[t]) for t in tested)
    best = [_accuse(scores[t], planted[t], _best_f1) for t in tested]
    sure = [_accuse(scores[t], planted[t], _surest) for t in tested]
    leans_on = _leans_on(models[0], columns, np.flatnonzero(tested[0]), planted, rng)
    best_point = _point(campaign, _merge(tested, best))
    sure_point = _point(campaign, _merge(tested, sure)) if any(s.any() for s in sure) else None
    return TreeReport(float(np.mean(aucs)), aucs, best_point, sure_point, leans_on)


def _halves(campaign: Labels, rng: np.random.Generator) -> NDArray[np.int64]:
    """0 or 1 for each account: whole campaigns, largest first, to the emptier half; honest ones by lot."""
    half = np.zeros(len(campaign.codes), np.int64)
    honest = campaign.codes == 0
    half[honest] = rng.permutation(int(honest.sum())) % 2
    sizes = np.bincount(campaign.codes, minlength=len(campaign.names) + 1)[1:]
    campaigns, accounts = [0, 0], [0, 0]
    for place in np.argsort(-sizes, kind="stable"):
        to = 0 if (campaigns[0], accounts[0]) <= (campaigns[1], accounts[1]) else 1
        half[campaign.codes == place + 1] = to
        campaigns[to] += 1
        accounts[to] += int(sizes[place])
    return half


def _grow(values: NDArray[np.float32], codes: NDArray[np.int64], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    trees = HistGradientBoostingClassifier(
        max_iter=150,
        max_bins=63,
        learning_rate=0.08,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    return trees.fit(values, codes > 0, sample_weight=_weights(codes))


def _weights(codes: NDArray[np.int64]) -> Scores:
    """Campaigns count by the root of their size, so that the largest is not all there is to learn; classes alike."""
    sizes = np.bincount(codes)
    weights = 1 / np.sqrt(sizes[codes])
    for side in (codes > 0, codes == 0):
        weights[side] *= len(codes) / 2 / max(weights[side].sum(), 1e-9)
    return weights


def _auc(scores: Scores, planted: Bools) -> float:
    return float(standing(scores[planted], scores[~planted]).mean())


def _accuse(scores: Scores, planted: Bools, choose: Any) -> Bools:
    """Which accounts stand at or above the threshold ``choose`` picks from the curve of precision and recall."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(planted[order])[last_of_tie]
    accused = np.flatnonzero(last_of_tie) + 1
    place = choose(hits / accused, hits / max(1, planted.sum()))
    return scores >= scores[order][last_of_tie][place] if place is not None else np.zeros(len(scores), bool)


def _best_f1(precision: Scores, recall: Scores) -> int | None:
    return int(np.argmax(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def _surest(precision: Scores, recall: Scores) -> int | None:
    places = np.flatnonzero((precision >= SURE_PRECISION) & (recall > 0))
    return int(places[-1]) if len(places) else None


def _merge(tested: list[Bools], accused: list[Bools]) -> Bools:
    merged = np.zeros(len(tested[0]), bool)
    for test, said in zip(tested, accused):
        merged[test] = said
    return merged


def _point(campaign: Labels, accused: Bools) -> Point:
    planted = campaign.codes > 0
    hits = int((accused & planted).sum())
    by_campaign = {
        name: Rate(int(accused[of].sum()), int(of.sum()))
        for name, of in ((n, campaign.codes == i + 1) for i, n in enumerate(campaign.names))
    }
    return Point(Rate(hits, int(accused.sum())), Rate(hits, int(planted.sum())), by_campaign)


def _leans_on(
    model: Any, columns: Columns, rows: NDArray[np.int64], planted: Bools, rng: np.random.Generator
) -> tuple[Leaning, ...]:
    """Columns without which the trees do worst, on a sample of the accounts they were tested on."""
    rows = rng.choice(rows, min(len(rows), LEANED_ON_ACCOUNTS), replace=False)
    if planted[rows].all() or not planted[rows].any():
        return ()
    values = columns.values[rows]
    whole = _auc(model.predict_proba(values)[:, 1], planted[rows])
    lost = []
    for j, name in enumerate(columns.names):
        shuffled = values.copy()
        shuffled[:, j] = rng.permutation(values[:, j])
        lost.append(Leaning(name, whole - _auc(model.predict_proba(shuffled)[:, 1], planted[rows])))
    return tuple(sorted(lost, key=lambda one: -one.auc_lost)[:LEANED_ON_COLUMNS])
