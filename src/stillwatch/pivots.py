"""Did a cluster move to a new model at once, beside what honest accounts did on the same day?

Everybody tries a new model on its first day, so a move alone accuses nobody; it is told with the benign share beside it.
"""

from __future__ import annotations

import math

from stillwatch.store import Engine
from stillwatch.types import Pivot

STEPS = {
    "pivot_moved": """
        SELECT k.cluster AS cluster, m.model AS model, count(*) AS exchanges,
               avg(CASE WHEN k.model = m.model THEN 1.0 ELSE 0.0 END) AS share
        FROM models m
        JOIN case_marked k ON k.taken = 1 AND k.time >= m.released_at AND k.time < m.released_at + INTERVAL 24 HOUR
        GROUP BY k.cluster, m.model""",
    "pivot_others": """
        SELECT m.model AS model, avg(CASE WHEN f.model = m.model THEN 1.0 ELSE 0.0 END) AS share
        FROM models m
        JOIN facts f ON f.time >= m.released_at AND f.time < m.released_at + INTERVAL 24 HOUR
        JOIN accounts a ON a.account = f.account
        WHERE a.customer NOT IN (SELECT account FROM members)
        GROUP BY m.model""",
    "pivot_compared": """
        SELECT p.cluster AS cluster, p.model AS model, p.exchanges AS exchanges, p.share AS share, o.share AS others
        FROM pivot_moved p JOIN pivot_others o ON o.model = p.model""",
}
"""Run after the cases are gathered: they read ``case_marked`` and ``members``."""

LEAST = 20
"""Exchanges of the first day below which no share is told."""


def find(engine: Engine, models: list[str]) -> dict[int, Pivot]:
    """By case number, the model it moved to most: at least a quarter of its extraction, twice the benign share, beyond chance.

    ``models`` are the names by number. Beyond chance is four standard deviations of a binomial with the benign share.
    """
    for name, sql in STEPS.items():
        engine.step(name, sql, {})
    found: dict[int, Pivot] = {}
    for row in engine.rows("pivot_compared", {}).to_pylist():
        share, others = float(row["share"]), float(row["others"])
        due = others + 4 * math.sqrt(max(1e-4, others * (1 - others)) / row["exchanges"])
        if row["exchanges"] < LEAST or share < max(0.25, 2 * others, due):
            continue
        known = found.get(row["cluster"])
        if known is None or share > known.share_24h:
            found[row["cluster"]] = Pivot(models[row["model"]], share, others)
    return found
