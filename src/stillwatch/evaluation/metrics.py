"""How right a scan was: accounts, campaigns, look-alikes and what its errors cost, against a simulated truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillwatch.evaluation.asked import Asked, read_asked
from stillwatch.evaluation.measures import Agreement, Overlap, Rate, agreement, overlap
from stillwatch.evaluation.plain import plain
from stillwatch.evaluation.reading import Sides, lay_side_by_side, read_campaigns, read_outcome, read_truth
from stillwatch.evaluation.risks import RiskQuality, judge_risk
from stillwatch.evaluation.timeliness import Timeliness, judge_timeliness

MIN_PIECE_ACCOUNTS = 3
MIN_PIECE_SHARE = 0.05
FALSE_SHARE = 0.5
"""A reported campaign is false when more than this share of its accounts is honest."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What an error costs, in any one unit. As they stand, one honest account accused weighs as much as ten thousand
    distillation queries answered for accounts that were missed; set your own."""

    wrongly_accused: float = 1000.0
    exchange_given_away: float = 0.1


@dataclass(frozen=True, slots=True)
class Cost:
    """Errors and their price. Exchanges are None, and left out of ``total``, where the truth does not list them."""

    prices: Prices
    wrongly_accused: int
    exchanges_given_away: int | None
    total: float


@dataclass(frozen=True, slots=True)
class Population:
    """What happened to one honest population. ``highest_risk`` is None if the result knows none of its accounts."""

    name: str
    accused: Rate
    highest_risk: float | None
    riskiest_account: str | None


@dataclass(frozen=True, slots=True)
class Planted:
    """What was found of one planted campaign.

    ``pieces`` are the reported campaigns that hold at least max(3, 5 %) of its accounts, largest share first;
    ``purity`` the share of their accounts that is its own. ``capabilities_off`` is half the summed difference between
    the true and the reported capability shares: 0 the same, 1 nothing in common, None where either is unknown.
    """

    campaign_id: str
    shape: str
    recall: Rate
    pieces: tuple[str, ...]
    largest_piece: Rate
    purity: Rate
    capabilities: Mapping[str, float]
    reported_capabilities: Mapping[str, float]
    capabilities_off: float | None


@dataclass(frozen=True, slots=True)
class Reported:
    """What a reported campaign consists of. ``dominated_by`` is None for a false one; accounts that the truth does not
    list are counted in ``unknown`` only; ``honest`` counts accounts by population."""

    campaign_id: str
    accounts: int
    purity: Rate
    dominated_by: str | None
    is_false: bool
    honest: Mapping[str, int]
    unknown: int


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Where truth and result do not cover the same. An account missing from the result counts as not accused; one
    missing from the truth counts nowhere else."""

    not_in_result: int
    planted_not_in_result: int
    not_in_truth: int
    accused_not_in_truth: int
    repeated_rows: int
    campaigns_without_accounts: tuple[str, ...]
    campaigns_not_listed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A scan against the truth. Intervals take accounts as independent, which those of one campaign are not."""

    accounts: int
    precision: Rate
    recall: Rate
    found: Rate
    """Planted campaigns of which at least one piece was reported."""
    mean_recall: float | None
    """Recall with every planted campaign counted alike."""
    agreement: Agreement
    campaigns: tuple[Planted, ...]
    reported: tuple[Reported, ...]
    populations: tuple[Population, ...]
    unmatched: Unmatched
    risk: RiskQuality
    cost: Cost
    timeliness: Timeliness | None
    """How early a replay told; None for a scan."""

    @property
    def headline(self) -> float:
        """The worst of B-cubed F1, pairwise F1 and purity: neither one giant group nor a heap of splinters scores."""
        return self.agreement.headline

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"headline": self.headline, **plain(self)}


def evaluate(truth: Path, result: Path, prices: Prices | None = None) -> Evaluation:
    """Compare a scan's or a replay's folder with the truth (``truth.parquet``, or the simulated log's folder).

    Raises UsageError if either cannot be read or they share no account.
    """
    listed = read_campaigns(result)
    sides = lay_side_by_side(read_truth(truth), read_outcome(result))
    asked = read_asked(truth, sides.account_ids)
    counts = _overlap(sides, sides.in_truth)
    campaigns = tuple(_planted(sides, counts, row, listed, asked) for row in range(1, len(counts)))
    return Evaluation(
        accounts=int(counts.sum()),
        precision=Rate(int(counts[1:, 1:].sum()), int(counts[:, 1:].sum())),
        recall=Rate(int(counts[1:, 1:].sum()), int(counts[1:].sum())),
        found=Rate(sum(bool(c.pieces) for c in campaigns), len(campaigns)),
        mean_recall=float(np.mean([c.recall.value or 0.0 for c in campaigns])) if campaigns else None,
        agreement=agreement(counts),
        campaigns=campaigns,
        reported=tuple(_reported(sides, counts, column) for column in range(1, counts.shape[1])),
        populations=_populations(sides),
        unmatched=_unmatched(sides, listed),
        risk=judge_risk(sides.risk, sides.planted.codes > 0, sides.in_truth & sides.in_result),
        cost=_cost(sides, asked, prices or Prices()),
        timeliness=judge_timeliness(truth, result, sides, counts, listed),
    )


def _overlap(sides: Sides, of: NDArray[np.bool_]) -> Overlap:
    shape = len(sides.planted.names), len(sides.reported.names)
    return overlap(sides.planted.codes[of], sides.reported.codes[of], shape)


def _planted(sides: Sides, counts: Overlap, row: int, listed: list[dict[str, Any]], asked: Asked | None) -> Planted:
    held, accounts = counts[row, 1:], int(counts[row].sum())
    least = min(accounts, max(MIN_PIECE_ACCOUNTS, ceil(MIN_PIECE_SHARE * accounts)))
    pieces = [int(c) for c in np.argsort(-held, kind="stable") if held[c] >= least]
    names = tuple(sides.reported.names[c] for c in pieces)
    true_shares = asked.shares(sides.planted.codes == row) if asked else {}
    said_shares = _said_shares([c for c in listed if c["campaign_id"] in names])
    return Planted(
        campaign_id=sides.planted.names[row - 1],
        shape=sides.population_of(sides.planted.codes == row),
        recall=Rate(int(held.sum()), accounts),
        pieces=names,
        largest_piece=Rate(int(held.max(initial=0)), accounts),
        purity=Rate(int(held[pieces].sum()), int(counts[:, 1:].sum(axis=0)[pieces].sum())),
        capabilities=true_shares,
        reported_capabilities=said_shares,
        capabilities_off=_difference(true_shares, said_shares),
    )


def _said_shares(campaigns: list[dict[str, Any]]) -> dict[str, float]:
    """Capability shares of several reported campaigns together, each weighted by its exchanges."""
    totals: dict[str, float] = {}
    for campaign in campaigns:
        for name, share in (campaign.get("capabilities") or {}).items():
            totals[name] = totals.get(name, 0.0) + share * (campaign.get("exchanges") or 1)
    whole = sum(totals.values())
    return {name: total / whole for name, total in sorted(totals.items())} if whole else {}


def _difference(left: Mapping[str, float], right: Mapping[str, float]) -> float | None:
    if not left or not right:
        return None
    return sum(abs(left.get(name, 0.0) - right.get(name, 0.0)) for name in {*left, *right}) / 2


def _reported(sides: Sides, counts: Overlap, column: int) -> Reported:
    members = sides.reported.codes == column
    known, planted = int(counts[:, column].sum()), counts[1:, column]
    honest = sides.population.codes[members & sides.in_truth & (sides.planted.codes == 0)]
    by_population = {("?", *sides.population.names)[c]: int(n) for c, n in zip(*np.unique(honest, return_counts=True))}
    is_false = len(honest) > FALSE_SHARE * known
    return Reported(
        campaign_id=sides.reported.names[column - 1],
        accounts=int(members.sum()),
        purity=Rate(int(planted.max(initial=0)), known),
        dominated_by=sides.planted.names[int(planted.argmax())] if planted.any() and not is_false else None,
        is_false=is_false,
        honest=by_population,
        unknown=int((members & ~sides.in_truth).sum()),
    )


def _populations(sides: Sides) -> tuple[Population, ...]:
    honest = sides.in_truth & (sides.planted.codes == 0)
    found = (_population(sides, honest, int(code)) for code in np.unique(sides.population.codes[honest]))
    return tuple(sorted(found, key=lambda p: (-p.accused.hits, -(p.highest_risk or 0.0), p.name)))


def _population(sides: Sides, honest: NDArray[np.bool_], code: int) -> Population:
    rows = np.flatnonzero(honest & (sides.population.codes == code))
    rated = rows[~np.isnan(sides.risk[rows])]
    top = int(rated[sides.risk[rated].argmax()]) if len(rated) else None
    return Population(
        name=("?", *sides.population.names)[code],
        accused=Rate(int((sides.reported.codes[rows] > 0).sum()), len(rows)),
        highest_risk=None if top is None else float(sides.risk[top]),
        riskiest_account=None if top is None else sides.account_ids[top].as_py(),
    )


def _unmatched(sides: Sides, listed: list[dict[str, Any]]) -> Unmatched:
    absent, unknown = ~sides.in_result, ~sides.in_truth
    named = {str(c["campaign_id"]) for c in listed}
    return Unmatched(
        not_in_result=int(absent.sum()),
        planted_not_in_result=int((absent & (sides.planted.codes > 0)).sum()),
        not_in_truth=int(unknown.sum()),
        accused_not_in_truth=int((unknown & (sides.reported.codes > 0)).sum()),
        repeated_rows=sides.repeated,
        campaigns_without_accounts=tuple(sorted(named - set(sides.reported.names))),
        campaigns_not_listed=tuple(sorted(set(sides.reported.names) - named)),
    )


def _cost(sides: Sides, asked: Asked | None, prices: Prices) -> Cost:
    accused, planted = sides.reported.codes > 0, sides.planted.codes > 0
    wrong = int((sides.in_truth & accused & ~planted).sum())
    given_away = asked.total(planted & ~accused) if asked else None
    total = wrong * prices.wrongly_accused + (given_away or 0) * prices.exchange_given_away
    return Cost(prices, wrong, given_away, total)
