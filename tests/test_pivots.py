"""Moves to a new model: what an operator's accounts did, beside honest ones as busy, with intervals that know who decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fixtures_engine import START, SmallLog
from stillwatch.intervals import Share, more, share_of, student, wilson
from stillwatch.pivots import find, levels
from stillwatch.store import Engine, open_engine
from stillwatch.types import Pivot

RELEASE = START + timedelta(days=1)
OLD, NEW = 0, 1


def day(log: SmallLog, account: int, volume: int, moved: float, rng: np.random.Generator) -> None:
    """``volume`` exchanges on each side of the release; of those after it a share ``moved`` goes to the new model."""
    for k in range(2 * volume):
        after = k >= volume
        model = NEW if after and rng.random() < moved else OLD
        at = (RELEASE if after else START) + timedelta(minutes=float(rng.uniform(0, 24 * 60 - 1)))
        log.facts.append({"account": account, "time": at, "model": model, "exchange": len(log.facts) + 1})


def honest(log: SmallLog, rng: np.random.Generator, many: int = 300, busy: float = 0.1, idle: float = 0.1) -> None:
    """Accounts of their own, half of them busy; so many of either move, and then most of what they ask."""
    for k in range(many):
        volume, share = (24, busy) if k % 2 else (3, idle)
        who = log.account(card=f"own {k}", mail_domain=f"free{k % 2}")
        day(log, who, volume, 0.9 * (rng.random() < share), rng)


def operator(log: SmallLog, rng: np.random.Generator, shares: Sequence[float], **traits: str) -> np.ndarray:
    """An account for each of the shares that it moves, two to a card."""
    accounts = [
        log.account(**{"card": f"pool {k // 2}", "mail_domain": f"free{k % 2}"} | traits) for k in range(len(shares))
    ]
    for who, share in zip(accounts, shares, strict=True):
        day(log, who, 20, share, rng)
    return np.array(accounts)


def found(log: SmallLog, *clusters: np.ndarray, suspected: np.ndarray | None = None) -> dict[int, Pivot]:
    """The pivots of these clusters, all of whose exchanges are taken for extraction."""
    number = {int(a): k for k, c in enumerate(clusters) for a in c}
    marked = [{"cluster": number[f["account"]], "taken": 1, **f} for f in log.facts if f["account"] in number]
    with log.opened(seed=1) as engine:
        return asked(engine, marked, number, suspected)


def asked(
    engine: Engine, marked: list[dict[str, Any]], number: dict[int, int], suspected: np.ndarray | None = None
) -> dict[int, Pivot]:
    """``find`` on an engine that holds a log, given the exchanges taken and the cluster of each account."""
    engine.append("models", pa.table({
        "model": pa.array([OLD, NEW], pa.int32()),
        "released_at": pa.array([START - timedelta(days=90), RELEASE], pa.timestamp("us", "UTC")),
    }))  # fmt: skip
    engine.append("case_marked", pa.Table.from_pylist(marked))
    engine.append("members", pa.table({"account": list(number), "cluster": list(number.values())}))
    return find(engine, ["old", "new"], suspected)


def test_an_operator_that_moves_half_among_early_adopters_is_told_with_its_interval() -> None:
    log, rng = SmallLog(), np.random.default_rng(1)
    honest(log, rng)
    campaign = operator(log, rng, rng.beta(1.2, 1.3, 60).tolist())
    pivot = found(log, campaign)[0]
    assert pivot.model == "new"
    assert pivot.share_low < 0.48 < pivot.share_high
    assert 0.1 < pivot.share_high - pivot.share_low < 0.3, "wider than of independent exchanges, which would be 0.06"
    assert pivot.benign_share_24h == pytest.approx(0.09, abs=0.05)
    assert 0 < pivot.more_low < pivot.share_24h - pivot.benign_share_24h < pivot.more_high
    assert found(log, campaign)[0] == pivot, "run again"


@pytest.mark.spark
def test_engines_agree_on_moves() -> None:
    log, rng = SmallLog(), np.random.default_rng(8)
    honest(log, rng, 120)
    campaign = operator(log, rng, [0.6] * 20)
    marked = [{"cluster": 0, "taken": 1, **f} for f in log.facts if f["account"] in campaign]
    told = []
    with log.opened() as folded:
        held = {name: folded.rows(name) for name in ("facts", "accounts", "population")}
    for name in ("duckdb", "spark"):
        with open_engine(name, "500MB", 1) as engine:
            for table, rows in held.items():
                engine.append(table, rows)
            told.append(asked(engine, marked, {int(a): 0 for a in campaign}))
    assert told[0] == told[1] != {}


def test_a_company_that_switches_over_has_decided_once() -> None:
    log, rng = SmallLog(), np.random.default_rng(2)
    honest(log, rng)
    company = operator(log, rng, [1.0] * 40, mail_domain="acme")
    payer = operator(log, rng, [1.0] * 40, card="one")
    assert found(log, company, payer) == {}


def test_early_adopters_are_held_against_accounts_as_busy() -> None:
    """Busy accounts moved as much; of all accounts together far fewer exchanges did."""
    log, rng = SmallLog(), np.random.default_rng(3)
    honest(log, rng, 400, busy=0.5, idle=0.0)
    for k in range(3000):
        log.exchange(log.account(card=f"late {k}"), 2, time=RELEASE + timedelta(hours=1))
    early = operator(log, rng, [0.9 * float(k % 2) for k in range(40)])
    assert found(log, early) == {}
    moved = [f["model"] == NEW for f in log.facts if f["time"] >= RELEASE and f["account"] < early[0]]
    assert 2 * np.mean(moved) < 0.45, "beside everybody it would have been told"


def test_few_accounts_few_exchanges_and_nobody_to_compare_with_say_nothing() -> None:
    log, rng = SmallLog(), np.random.default_rng(4)
    honest(log, rng)
    few = operator(log, rng, [1.0] * 8)
    assert found(log, few) == {}, "four payers"
    alone, rng = SmallLog(), np.random.default_rng(5)
    assert found(alone, operator(alone, rng, [0.5] * 40)) == {}


def test_suspects_are_not_the_honest_ones_to_compare_with() -> None:
    log, rng = SmallLog(), np.random.default_rng(6)
    honest(log, rng)
    one, other = operator(log, rng, [0.6] * 40), operator(log, rng, [1.0] * 200)
    with_them = found(log, one)[0].benign_share_24h if 0 in found(log, one) else 1.0
    assert found(log, one, suspected=other)[0].benign_share_24h < 0.2 < with_them


def test_intervals_of_shares_cover_what_they_say() -> None:
    """Accounts of 20 exchanges whose own shares scatter widely about 0.48: 95 of a hundred intervals hold it."""
    rng, held, naive = np.random.default_rng(7), 0, 0
    for _ in range(400):
        total = rng.integers(5, 40, 30)
        hits = rng.binomial(total, rng.beta(0.96, 1.04, 30))
        share = share_of(np.arange(30), hits, total)
        low, high = wilson(share.value, float(total.sum()))
        held, naive = held + (share.low <= 0.48 <= share.high), naive + (low <= 0.48 <= high)
    assert 0.92 <= held / 400 <= 0.98
    assert naive / 400 < 0.6


def test_strata_are_weighed_as_told() -> None:
    unit, stratum = np.arange(80), np.repeat([0, 1], 40)
    hits, total = np.where(stratum == 1, 5, 0), np.full(80, 10)
    even = share_of(unit, hits, total)
    busy = share_of(unit, hits, total, stratum, np.array([0.1, 0.9]))
    assert even.value == pytest.approx(0.25) and busy.value == pytest.approx(0.45)
    low, high = more(busy, even)
    assert low < 0.2 < high


def test_edges_of_shares() -> None:
    all_ = share_of(np.arange(30), np.full(30, 9), np.full(30, 9))
    assert all_.high == 1.0 and 0.8 < all_.low < 0.95, "thirty decisions, not 270"
    none = share_of(np.arange(30), np.zeros(30), np.full(30, 9))
    assert (none.low, none.value) == (0.0, 0.0) and 0.05 < none.high < 0.2
    for freedom, quantile in ((4, 2.776), (9, 2.262), (60, 2.0)):
        assert student(freedom) == pytest.approx(quantile, rel=0.01)
    with pytest.raises(ValueError, match="interval"):
        Share(0.5, 0.6, 0.7)
    with pytest.raises(ValueError, match="intervals"):
        Pivot("new", 0.5, 0.1, 0.6, 0.7, 0.3, 0.5)


def test_levels_hold_enough_each() -> None:
    counts = np.array([3, 30, 0, 5, 40, 2, 1])
    bounds = levels(counts, 20)
    parts = np.split(counts, bounds)
    assert len(parts) == 2 and min(p.sum() for p in parts) >= 20
    assert len(levels(np.array([5, 5]), 20)) == 0
