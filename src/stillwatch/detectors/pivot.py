"""Accounts that move to a new model within a day of its release.

Of those active on that day, a share moves at least ``min_share`` of its traffic at once; moving is worth the log2 of one over
that share. Everybody benchmarks a new model on its first day, so this corroborates and never links.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stillwatch.detectors import Detector, Example


def _day(account: str, new: int, old: int) -> list[Mapping[str, Any]]:
    times = range(1500, 1500 + new + old)
    return [{"account": account, "model": 1 if k < new else 0, "time": t} for k, t in enumerate(times)]


_RELEASE: Sequence[Mapping[str, Any]] = [{"model": 0, "released_at": None}, {"model": 1, "released_at": 1440}]

DETECTOR = Detector(
    name="pivot",
    family="migration",
    technique="AML.T0024.002",
    meaning="an account that moved to a new model within a day of its release",
    shape="signals",
    needs=("models.released_at",),
    params={"min_share": 0.3, "min_exchanges": 3, "min_bits": 1.0},
    steps={
        "pivot_day": """
            SELECT m.model AS model, a.customer AS account, count(*) AS exchanges,
                   sum(CASE WHEN f.model = m.model THEN 1 ELSE 0 END) AS moved
            FROM models m
            JOIN facts f ON f.time >= m.released_at AND f.time < m.released_at + INTERVAL 24 HOUR
            JOIN accounts a ON a.account = f.account
            GROUP BY m.model, a.customer
            HAVING count(*) >= $min_exchanges""",
        "pivot_base": """
            SELECT model, (1 + sum(CASE WHEN moved >= $min_share * exchanges THEN 1 ELSE 0 END)) / (2.0 + count(*)) AS share
            FROM pivot_day GROUP BY model""",
        "pivot": """
            SELECT d.account AS account, max(log2(1 / b.share)) AS bits,
                   max(concat(CAST(d.moved AS VARCHAR), ' of ', CAST(d.exchanges AS VARCHAR),
                       ' exchanges of the first day went to the new model')) AS exhibit
            FROM pivot_day d JOIN pivot_base b ON b.model = d.model
            WHERE d.moved >= $min_share * d.exchanges
            GROUP BY d.account
            HAVING max(log2(1 / b.share)) >= $min_bits""",
    },
    examples=[
        Example(
            "one moves, others stay",
            [],
            {"a"},
            tables={"facts": _day("a", 6, 4) + [f for k in range(9) for f in _day(f"o{k}", 0, 9)], "models": _RELEASE},
        ),
        Example(
            "everybody moves",
            [],
            tables={"facts": [f for k in range(9) for f in _day(f"o{k}", 6, 3)], "models": _RELEASE},
        ),
    ],
)
