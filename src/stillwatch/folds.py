"""Facts and accounts folded into observations, and the tables every detector stands on.

    observations   account, kind, value, count, first, last: values that at least two customers hold
    population     one row: customers, exchanges
    holders        kind, value, holders: how common each value is
    coherence      kind, value, other: do the holders of a value also share *other* things, beyond chance?

``account`` there is a customer: accounts that declare one organisation are folded into one, so they never link.

Coherence is the heart of discovery: a value is a hypothesis, tested once on its holders, so n holders cost n rows and no
pairs are made. For S holders of a value and another kind whose values u are held by h(u) of N customers, the
holders' coincidences are ``tied = sum over u of max(0, s(u) - 1)`` with s(u) holders in common. If they were S random
customers, s(u) would be binomial and the expectation ``sum over u of S h/N - 1 + (1 - h/N)^S``. How common u is, is asked
of the *other* customers, ``h - s`` of ``N - S``: a campaign must not hide in the base rate it makes itself. Where an account
can hold many values, the expectation is scaled by how much busier than others the holders are, squared; and always by how
concentrated they are in a few countries, since neighbours share networks. ``bits`` is the Poisson log-likelihood ratio of ``tied`` against that expectation.
"""

from __future__ import annotations

import pyarrow as pa

from stillwatch.kinds import KINDS
from stillwatch.store import Engine

FOLD_FACTS = """
    SELECT a.customer AS account, '{kind}' AS kind, f.{column} AS value,
           count(*) AS count, min(f.time) AS first, max(f.time) AS last
    FROM facts f JOIN accounts a ON a.account = f.account
    WHERE f.{column} <> 0 AND f.{column} IN (SELECT value FROM fold_shared)
    GROUP BY a.customer, f.{column}"""

FOLD_SHARED = """
    SELECT f.{column} AS value
    FROM facts f JOIN accounts a ON a.account = f.account
    WHERE f.{column} <> 0
    GROUP BY f.{column}
    HAVING min(a.customer) <> max(a.customer)"""

FOLD_ACCOUNTS = """
    SELECT customer AS account, '{kind}' AS kind, {column} AS value,
           count(*) AS count, min(created_at) AS first, max(created_at) AS last
    FROM accounts
    WHERE {column} <> 0 AND {column} IN (SELECT value FROM fold_shared)
    GROUP BY customer, {column}"""

FOLD_SHARED_ACCOUNTS = """
    SELECT {column} AS value FROM accounts WHERE {column} <> 0
    GROUP BY {column} HAVING min(customer) <> max(customer)"""

BASE_STEPS = {
    "population": "SELECT count(DISTINCT customer) AS customers FROM accounts",
    "holders": """
        SELECT kind, value, count(*) AS holders FROM observations
        GROUP BY kind, value HAVING count(*) >= 2""",
    "homes": """
        SELECT account, min(country) AS country FROM (
            SELECT a.customer AS account, f.country AS country,
                   row_number() OVER (PARTITION BY a.customer ORDER BY count(*) DESC, f.country) AS place
            FROM facts f JOIN accounts a ON a.account = f.account
            WHERE f.country <> 0
            GROUP BY a.customer, f.country) ranked
        WHERE place = 1 GROUP BY account""",
    "countries": """
        SELECT country, count(*) * 1.0 / sum(count(*)) OVER () AS share FROM homes GROUP BY country""",
    "rare": """
        SELECT o.account, o.kind, k.family, o.value, h.holders
        FROM observations o
        JOIN holders h ON h.kind = o.kind AND h.value = o.value
        JOIN kinds k ON k.kind = o.kind
        CROSS JOIN population p
        WHERE k.cap > 0 AND h.holders <= greatest(50, k.cap * p.customers)""",
    "busy": """
        SELECT account FROM rare GROUP BY account HAVING count(*) > 2000""",
    "rarities": """
        SELECT kind, holders, CAST(count(*) AS DOUBLE) AS number,
               CAST(sum(holders) AS DOUBLE) AS held FROM (
            SELECT DISTINCT kind, value, holders FROM rare) distinct_values
        GROUP BY kind, holders""",
    "anchors": """
        SELECT account, kind, family, value, holders FROM rare
        WHERE holders >= 3 AND account NOT IN (SELECT account FROM busy)""",
    "anchor_country": """
        SELECT kind, value, sum(q * q / share) AS concentration FROM (
            SELECT a.kind AS kind, a.value AS value, c.share AS share,
                   count(*) * 1.0 / sum(count(*)) OVER (PARTITION BY a.kind, a.value) AS q
            FROM anchors a JOIN homes m ON m.account = a.account JOIN countries c ON c.country = m.country
            GROUP BY a.kind, a.value, c.country, c.share) mixes
        GROUP BY kind, value""",
    "companions": """
        SELECT a.kind AS kind, a.value AS value, max(a.holders) AS holders, b.kind AS other, b.value AS other_value,
               max(b.holders) AS other_holders, count(*) AS shared
        FROM anchors a JOIN rare b ON b.account = a.account AND b.family <> a.family
        GROUP BY a.kind, a.value, b.kind, b.value""",
    "tied": """
        SELECT kind, value, max(holders) AS holders, other,
               CAST(sum(shared - 1) AS DOUBLE) AS tied, CAST(sum(shared) AS DOUBLE) AS held,
               sum(holders * 1.0 * (other_holders - shared) / (p.customers - holders + 1)
                   + power(1 - (other_holders - shared) * 1.0 / (p.customers - holders + 1), holders)
                   - holders * 1.0 * other_holders / p.customers
                   - power(1 - other_holders * 1.0 / p.customers, holders)) AS own
        FROM companions CROSS JOIN population p GROUP BY kind, value, other""",
    "chance": """
        SELECT s.holders AS holders, r.kind AS other,
               sum(r.number * (s.holders * r.holders * 1.0 / p.customers - 1
                   + power(1 - r.holders * 1.0 / p.customers, s.holders))) AS expected,
               sum(r.held) AS held
        FROM (SELECT DISTINCT holders FROM tied) s CROSS JOIN rarities r CROSS JOIN population p
        GROUP BY s.holders, r.kind""",
    "coherence_chance": """
        SELECT t.kind AS kind, t.value AS value, t.holders AS holders, t.other AS other, t.tied AS tied,
               greatest(1e-3, (c.expected + t.own) * greatest(1, coalesce(n.concentration, 1))
                   * CASE WHEN k.many = 1
                     THEN greatest(1, power(t.held / t.holders * (p.customers - t.holders + 1)
                                            / greatest(1, c.held - t.held), 2)) ELSE 1 END) AS expected
        FROM tied t
        JOIN chance c ON c.holders = t.holders AND c.other = t.other
        JOIN kinds k ON k.kind = t.other
        LEFT JOIN anchor_country n ON n.kind = t.kind AND n.value = t.value
        CROSS JOIN population p
        WHERE t.tied > 0""",
    "coherence": """
        SELECT kind, value, holders, other, tied, expected,
               CASE WHEN tied > expected
                    THEN tied * log2(tied / expected) - (tied - expected) * 1.4426950408889634 ELSE 0 END AS bits
        FROM coherence_chance""",
}
"""Named steps, in order, run once before the detectors; the same text on every engine."""


def fold(engine: Engine) -> None:
    """Make ``observations`` from the tables ``facts`` and ``accounts``, one kind at a time to bound memory."""
    for kind in KINDS.values():
        shared, each = (FOLD_SHARED, FOLD_FACTS) if kind.table == "facts" else (FOLD_SHARED_ACCOUNTS, FOLD_ACCOUNTS)
        engine.step("fold_shared", shared.format(kind=kind.name, column=kind.column), {})
        engine.append("observations", engine.rows(each.format(kind=kind.name, column=kind.column), {}))


def prepare(engine: Engine) -> None:
    """Run the base steps; ``observations``, ``facts`` and ``accounts`` must be there."""
    engine.append("kinds", kinds_table())
    for name, sql in BASE_STEPS.items():
        engine.step(name, sql, {})


def kinds_table() -> pa.Table:
    """The declared kinds as rows ``kind, family, cap, many``: whether an account can hold several values of it."""
    kinds = list(KINDS.values())
    return pa.table({
        "kind": pa.array([k.name for k in kinds]),
        "family": pa.array([k.family for k in kinds]),
        "cap": pa.array([k.cap for k in kinds], pa.float64()),
        "many": pa.array([int(k.table == "facts") for k in kinds], pa.int32()),
    })  # fmt: skip
