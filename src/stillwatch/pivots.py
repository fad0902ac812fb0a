"""Did a cluster move to a new model at once, beside what comparable honest accounts did on the same day?

Everybody tries a new model on its first day, and busy accounts more than idle ones, so a move alone accuses nobody. It
is told beside the share of *comparable* accounts: honest ones that were there both the day before the release and the
day after, as if they were as busy as the cluster's are. Both shares have intervals that take what one decider does as
one decision: a payer, a company (a mail domain that few have) or else an account. A company that switches its service
over has decided once, which is no ground for an interval, so nothing is told of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from stillwatch.intervals import Share, more, share_of
from stillwatch.store import Engine
from stillwatch.types import Pivot

STEPS = {
    "pivot_domains": """
        SELECT d.mail_domain AS mail_domain
        FROM (SELECT mail_domain, count(DISTINCT customer) AS holders FROM accounts
              WHERE mail_domain <> 0 GROUP BY mail_domain) d CROSS JOIN population p
        WHERE d.holders <= greatest(50, 0.01 * p.customers)""",
    "pivot_deciders": """
        SELECT a.customer AS account, min(CASE WHEN d.mail_domain IS NOT NULL THEN d.mail_domain
                   WHEN coalesce(a.card, 0) <> 0 THEN a.card ELSE CAST(a.customer AS BIGINT) END) AS decider
        FROM accounts a LEFT JOIN pivot_domains d ON d.mail_domain = a.mail_domain
        GROUP BY a.customer""",
    "pivot_active": """
        SELECT m.model AS model, a.customer AS account, count(*) AS volume,
               sum(CASE WHEN f.time < m.released_at THEN 1 ELSE 0 END) AS before,
               sum(CASE WHEN f.time >= m.released_at THEN 1 ELSE 0 END) AS asked,
               sum(CASE WHEN f.time >= m.released_at AND f.model = m.model THEN 1 ELSE 0 END) AS moved
        FROM models m
        JOIN facts f ON f.time >= m.released_at - INTERVAL 24 HOUR AND f.time < m.released_at + INTERVAL 24 HOUR
        JOIN accounts a ON a.account = f.account
        GROUP BY m.model, a.customer""",
    "pivot_taken": """
        SELECT k.cluster AS cluster, m.model AS model, k.account AS account, count(*) AS asked,
               sum(CASE WHEN k.model = m.model THEN 1 ELSE 0 END) AS moved
        FROM models m
        JOIN case_marked k ON k.taken = 1 AND k.time >= m.released_at AND k.time < m.released_at + INTERVAL 24 HOUR
        GROUP BY k.cluster, m.model, k.account""",
    "pivot_moved": """
        SELECT t.cluster AS cluster, t.model AS model, t.account AS account, d.decider AS decider, t.asked AS asked,
               t.moved AS moved, a.volume AS volume
        FROM pivot_taken t
        JOIN pivot_active a ON a.model = t.model AND a.account = t.account
        JOIN pivot_deciders d ON d.account = t.account""",
    "pivot_others": """
        SELECT a.model AS model, a.account AS account, d.decider AS decider, a.asked AS asked, a.moved AS moved,
               a.volume AS volume
        FROM pivot_active a JOIN pivot_deciders d ON d.account = a.account
        WHERE a.before > 0 AND a.asked > 0""",
}
"""Run after the cases are gathered: they read ``case_marked`` and ``members``."""

LEAST = 20
"""Exchanges of the first day below which no share is told."""
LEAST_DECIDERS = 5
"""Who must have decided, at least, for an interval of a cluster; and four times as many of the others in each stratum."""


def find(engine: Engine, models: list[str], suspected: np.ndarray | None = None) -> dict[int, Pivot]:
    """By case number, the model it moved to most: at least a quarter of its extraction, twice the benign share, beyond
    chance (four standard deviations of a binomial with the benign share), and more than it with 97.5 % certainty.

    ``models`` are the names by number; ``suspected`` the customers that are not honest beyond doubt.
    """
    for name, sql in STEPS.items():
        engine.step(name, sql, {})
    suspects = np.zeros(0, np.int32) if suspected is None else suspected
    members, others = columns(engine.rows("members"), "account"), columns(engine.rows("pivot_others"), "account")
    found: dict[int, Pivot] = {}
    for cluster, model, moved in moves(columns(engine.rows("pivot_moved"), "account")):
        out = np.union1d(suspects, members["account"][members["cluster"] == cluster])
        honest = only(others, (others["model"] == model) & ~np.isin(others["account"], out))
        pivot = compared(models[model], moved, honest)
        known = found.get(cluster)
        if pivot is not None and (known is None or pivot.share_24h > known.share_24h):
            found[cluster] = pivot
    return found


def compared(model: str, moved: dict[str, np.ndarray], honest: dict[str, np.ndarray]) -> Pivot | None:
    """The move of one cluster beside that of honest accounts; None where it is none, or too little is known."""
    if moved["asked"].sum() < LEAST or len(np.unique(moved["decider"])) < LEAST_DECIDERS:
        return None
    share = share_of(moved["decider"], moved["moved"], moved["asked"])
    benign = benign_share(moved, honest)
    if benign is None:
        return None
    low, high = more(share, benign)
    others = benign.value
    due = others + 4 * math.sqrt(max(1e-4, others * (1 - others)) / moved["asked"].sum())
    if share.value < max(0.25, 2 * others, due) or low <= 0:
        return None
    return Pivot(model, share.value, others, share.low, share.high, low, high)


def benign_share(moved: dict[str, np.ndarray], honest: dict[str, np.ndarray]) -> Share | None:
    """What honest accounts moved, were they as busy as those of the cluster; None where there are too few to say.

    Busy is counted in powers of two of the exchanges of both days.
    """
    if len(np.unique(honest["decider"])) < 4 * LEAST_DECIDERS:
        return None
    theirs, mine = (np.log2(rows["volume"]).astype(np.int64) for rows in (honest, moved))
    _, first = np.unique(np.column_stack([theirs, honest["decider"]]), axis=0, return_index=True)
    bounds = levels(np.bincount(theirs[first]), 4 * LEAST_DECIDERS)
    weight = np.bincount(np.searchsorted(bounds, mine, "right"), moved["asked"], len(bounds) + 1)
    stratum = np.searchsorted(bounds, theirs, "right")
    return share_of(honest["decider"], honest["moved"], honest["asked"], stratum, weight / weight.sum())


def levels(counts: np.ndarray, least: int) -> np.ndarray:
    """Where to cut numbers, given how many there are of each, so that every part holds at least ``least``: each bound
    begins the next part."""
    bounds: list[int] = []
    held, above = 0, int(counts.sum())
    for number, count in enumerate(counts.tolist()):
        if held >= least and above >= least:
            bounds.append(number)
            held = 0
        held, above = held + count, above - count
    return np.array(bounds, np.int64)


def moves(rows: dict[str, np.ndarray]) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """The rows of each cluster and model."""
    for cluster, model in np.unique(np.column_stack([rows["cluster"], rows["model"]]), axis=0).tolist():
        yield cluster, model, only(rows, (rows["cluster"] == cluster) & (rows["model"] == model))


def only(rows: dict[str, np.ndarray], keep: np.ndarray) -> dict[str, np.ndarray]:
    """Some of the rows."""
    return {name: column[keep] for name, column in rows.items()}


def columns(rows: pa.Table, by: str) -> dict[str, np.ndarray]:
    """A table of whole numbers as arrays, sorted: engines give rows in any order."""
    rows = rows.sort_by(by)
    return {name: rows[name].to_numpy().astype(np.int64) for name in rows.column_names}
