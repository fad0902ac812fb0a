"""How early a replay told: what was taken before an account was flagged, before a campaign was named, and who was let go.

An account counts as flagged from its ``first_flagged_at`` on, even if a later step let it go; how many that befell is
told beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from stillwatch.evaluation.measures import Overlap, Rate
from stillwatch.evaluation.reading import Sides
from stillwatch.evaluation.replays import Flags, Numbers, Replay, Taken, read_replay

LARGE_ACCOUNTS = 50
LEAST_REDRAWN = 5
"""Of fewer campaigns, drawing them anew says nothing about others like them."""
REDRAWINGS, SEED = 2000, 0
HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over campaigns, and where 95 % of its values lie when the campaigns are drawn anew.

    ``value`` is None over no campaign, ``low`` and ``high`` over fewer than five.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Heads:
    """Replacement heads (generation 1 and later) that made exchanges: how many were never flagged, and the exchanges of
    any kind that one made before it was flagged, all of them if it never was; None where there is no such head."""

    never_flagged: Rate
    exchanges_median: float | None
    exchanges_90: float | None
    """Nine in ten made at most as many."""
    known: int
    """Heads whose harvest began once their campaign was named: what was to be recognised was known."""
    known_median: float | None
    """Exchanges of such a head before it was flagged."""


@dataclass(frozen=True, slots=True)
class CampaignTimes:
    """How early one planted campaign was told; its harvest is the distillation exchanges of all its taken.

    ``served`` counts those before their account was flagged, ``before_named`` those before any campaign that is mostly
    this one at the end was told, or, if that is later, before the first of this one's accounts in it was flagged.
    Shares are of the harvest, None without one. ``hours_to_named`` runs from its first; None if never named.
    """

    campaign_id: str
    shape: str
    accounts: int
    flagged: Rate
    cleared: int
    """Accounts flagged and let go again for good."""
    harvest: int
    served: int
    served_share: float | None
    before_named: int
    before_named_share: float | None
    hours_to_named: float | None
    heads: Heads | None
    """None in a truth without generations."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Several planted campaigns together: ``served`` share of all their harvest, and medians over those that have one,
    a campaign that was never named counting as named after its last exchange, and after infinitely many hours."""

    name: str
    accounts: int
    named: Rate
    served: Estimate
    before_named_median: Estimate
    hours_to_named_median: float | None
    """None also if half of them were never named."""
    heads: Heads | None


@dataclass(frozen=True, slots=True)
class FlaggedHonest:
    """Honest accounts that were ever flagged, of an honest population or of all of them.

    ``hours_until_cleared`` is the median, from first flagged to let go for good, of those that were; None of none.
    """

    population: str
    ever: Rate
    at_the_end: int
    cleared: int
    hours_until_cleared: float | None


@dataclass(frozen=True, slots=True)
class Timeliness:
    """How early a replay told. ``campaigns``, and every pool, are empty where the log does not lie with the truth."""

    campaigns: tuple[CampaignTimes, ...]
    pooled: Pool
    large: Pool
    """Those of at least 50 taken."""
    shapes: tuple[Pool, ...]
    honest: FlaggedHonest
    populations: tuple[FlaggedHonest, ...]
    """Those with an account ever flagged, most first."""


def judge_timeliness(
    truth: Path, result: Path, sides: Sides, counts: Overlap, listed: list[dict[str, Any]]
) -> Timeliness | None:
    """How early the replay in ``result`` told of what the truth plants; None if the result is not a replay's.

    ``counts`` is the overlap of ``sides``, ``listed`` the reported campaigns. UsageError if a file cannot be read.
    """
    if (replay := read_replay(truth, result, sides, counts, listed)) is None:
        return None
    taken = replay.taken
    found = {code: _campaign(replay, taken, code) for code in range(1, len(counts)) if taken}
    shapes = sorted({c.shape for c in found.values()})
    return Timeliness(
        tuple(found.values()),
        _pool(replay, "all", found),
        _pool(replay, "large", {k: c for k, c in found.items() if c.accounts >= LARGE_ACCOUNTS}),
        tuple(_pool(replay, shape, {k: c for k, c in found.items() if c.shape == shape}) for shape in shapes),
        *_honest(replay),
    )


def _campaign(replay: Replay, taken: Taken, code: int) -> CampaignTimes:
    planted, of = replay.sides.planted.codes == code, taken.code == code
    flagged, cleared = _count(replay, planted)
    harvest, served, unnamed = (int(n[of].sum()) for n in (taken.harvest, taken.served, taken.unnamed))
    hours = (replay.named_us[code] - taken.first_us[of].min(initial=np.inf)) / HOUR_US if harvest else np.inf
    return CampaignTimes(
        campaign_id=replay.sides.planted.names[code - 1],
        shape=replay.sides.population_of(planted),
        accounts=flagged.total,
        flagged=flagged,
        cleared=cleared,
        harvest=harvest,
        served=served,
        served_share=served / harvest if harvest else None,
        before_named=unnamed,
        before_named_share=unnamed / harvest if harvest else None,
        hours_to_named=float(hours) if np.isfinite(hours) else None,
        heads=_heads(replay, taken, of),
    )


def _heads(replay: Replay, taken: Taken, of: Flags) -> Heads | None:
    if (taken.generation < 0).all():
        return None
    heads = of & (taken.generation > 0)
    before = taken.unflagged[heads]
    never = Rate(int((~taken.is_flagged[heads]).sum()), len(before))
    is_known = np.isfinite(taken.first_us) & (taken.first_us >= replay.named_us[taken.code])
    known = taken.unflagged[heads & is_known]
    return Heads(never, _quantile(before, 0.5), _quantile(before, 0.9), len(known), _quantile(known, 0.5))


def _quantile(values: Numbers, part: float) -> float | None:
    return float(np.quantile(values, part)) if len(values) else None


def _pool(replay: Replay, name: str, found: Mapping[int, CampaignTimes]) -> Pool:
    taken = replay.taken
    harvesting = [c for c in found.values() if c.harvest]
    harvest, served, unnamed = np.array([(c.harvest, c.served, c.before_named) for c in harvesting]).reshape(-1, 3).T
    hours = [np.inf if c.hours_to_named is None else c.hours_to_named for c in harvesting]
    middle = median(hours) if hours else np.inf
    return Pool(
        name=name,
        accounts=sum(c.accounts for c in found.values()),
        named=Rate(sum(c.hours_to_named is not None for c in harvesting), len(harvesting)),
        served=_estimate(len(harvesting), lambda drawn: served[drawn].sum(axis=-1) / harvest[drawn].sum(axis=-1)),
        before_named_median=_estimate(len(harvesting), lambda drawn: np.median((unnamed / harvest)[drawn], axis=-1)),
        hours_to_named_median=float(middle) if np.isfinite(middle) else None,
        heads=_heads(replay, taken, np.isin(taken.code, list(found))) if taken else None,
    )


def _estimate(campaigns: int, figure: Callable[[Numbers], Any]) -> Estimate:
    """``figure`` of all the campaigns, and its spread when they are drawn anew (percentile bootstrap)."""
    if not campaigns:
        return Estimate(None)
    value = float(figure(np.arange(campaigns)))
    if campaigns < LEAST_REDRAWN:
        return Estimate(value)
    drawn = np.random.default_rng(SEED).integers(0, campaigns, (REDRAWINGS, campaigns))
    low, high = np.quantile(figure(drawn), (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def _honest(replay: Replay) -> tuple[FlaggedHonest, tuple[FlaggedHonest, ...]]:
    """All the honest accounts, and the populations that have any ever flagged."""
    codes, honest = replay.sides.population.codes, replay.sides.in_truth & (replay.sides.planted.codes == 0)
    names = ("?", *replay.sides.population.names)
    hit = np.unique(codes[honest & np.isfinite(replay.flagged_us)])
    kinds = [_flagged_honest(replay, names[code], honest & (codes == code)) for code in hit]
    return _flagged_honest(replay, "all", honest), tuple(sorted(kinds, key=lambda p: (-p.ever.hits, p.population)))


def _flagged_honest(replay: Replay, name: str, of: Flags) -> FlaggedHonest:
    ever, cleared = _count(replay, of)
    of = of & np.isfinite(replay.flagged_us) & np.isfinite(replay.cleared_us)
    hours = (replay.cleared_us[of] - replay.flagged_us[of]) / HOUR_US
    return FlaggedHonest(name, ever, ever.hits - cleared, cleared, float(np.median(hours)) if cleared else None)


def _count(replay: Replay, of: Flags) -> tuple[Rate, int]:
    """How many of these accounts were ever flagged, and how many of those let go for good."""
    flagged = of & np.isfinite(replay.flagged_us)
    return Rate(int(flagged.sum()), int(of.sum())), int((flagged & np.isfinite(replay.cleared_us)).sum())
