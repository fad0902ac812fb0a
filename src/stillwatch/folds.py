"""Facts and accounts folded into observations, and the tables every detector stands on.

    observations   account, kind, value, count, first, last: values that at least two customers hold
    population     one row: customers, exchanges
    holders        kind, value, holders: how common each value is
    coherence      kind, value, other: do the holders of a value also share *other* things, beyond chance?

``account`` there is a customer: accounts that declare one organisation are folded into one, so they never link.

Coherence is the heart of discovery: a value is a hypothesis, tested once on its holders, so n holders cost n rows and no
pairs are made. Two tests, by how another kind is shared:

*Pools* (cards, phones, networks, re-asked prompts: many values, each with few holders). Where s(u) of the S holders share u,
``tied = sum over u of max(0, s(u) - 1)``. Were they S random customers, s(u) would be Poisson with mean m(u) = S h(u)/N and the
expectation ``sum of m - 1 + exp(-m)``. ``bits`` is the Poisson log-likelihood ratio of ``tied`` against it.

*Marks* (wordings, system texts: few values, some with very many holders). The one value that most exceeds its rate among the
others, binomially, less the log2 of the number of values looked at.

In both, how common u is, is asked of the *other* customers, ``h - s`` of ``N - S``: a campaign must not hide in the base rate it
makes itself. Where an account can hold many values, m is scaled by how much busier than others the holders are; and for
networks the expectation by how concentrated the holders are in a few countries, since neighbours share networks.
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

NO_OBSERVATIONS = """
    SELECT account, CAST(NULL AS VARCHAR) AS kind, exchange AS value, exchange AS count, time AS first, time AS last
    FROM facts WHERE 1 = 0"""

NO_KINDS = """
    SELECT CAST('' AS VARCHAR) AS kind, CAST('' AS VARCHAR) AS family, CAST(0 AS DOUBLE) AS cap,
           CAST('' AS VARCHAR) AS tested, account AS pool, account AS many
    FROM facts WHERE 1 = 0"""
"""Tables that are filled by appending, empty: a replay folds again and again."""

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
        WHERE k.tested <> '' AND h.holders <= greatest(50, k.cap * p.customers)""",
    "busy": """
        SELECT account FROM rare GROUP BY account HAVING count(*) > 2000""",
    "rarities": """
        SELECT kind, holders, CAST(count(*) AS DOUBLE) AS number,
               CAST(sum(holders) AS DOUBLE) AS held FROM (
            SELECT DISTINCT kind, value, holders FROM rare) distinct_values
        GROUP BY kind, holders""",
    "anchors": """
        SELECT r.account AS account, r.kind AS kind, r.family AS family, r.value AS value, r.holders AS holders
        FROM rare r JOIN kinds k ON k.kind = r.kind AND k.tested = 'anchor'
        WHERE r.holders >= 3 AND r.account NOT IN (SELECT account FROM busy)""",
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
    "held": """
        SELECT kind, value, max(holders) AS holders, other, CAST(sum(shared) AS DOUBLE) AS held
        FROM companions GROUP BY kind, value, other""",
    "leaning": """
        SELECT h.kind AS kind, h.value AS value, h.holders AS holders, h.other AS other, k.family AS family, k.pool AS pool,
               CASE WHEN k.many = 1 THEN power(1.25, round(greatest(0, ln(
                   h.held / h.holders * (p.customers - h.holders + 1) / greatest(1, t.held - h.held))) / ln(1.25)))
               ELSE 1.0 END AS busier
        FROM held h
        JOIN (SELECT kind, sum(held) AS held FROM rarities GROUP BY kind) t ON t.kind = h.other
        JOIN kinds k ON k.kind = h.other
        CROSS JOIN population p""",
    "chance": """
        SELECT s.holders AS holders, s.other AS other, s.busier AS busier,
               sum(r.number * (s.busier * s.holders * r.holders / p.customers - 1
                   + exp(-s.busier * s.holders * r.holders / p.customers))) AS expected
        FROM (SELECT DISTINCT holders, other, busier FROM leaning WHERE pool = 1) s
        JOIN rarities r ON r.kind = s.other CROSS JOIN population p
        GROUP BY s.holders, s.other, s.busier""",
    "tied": """
        SELECT c.kind AS kind, c.value AS value, c.other AS other, CAST(sum(c.shared - 1) AS DOUBLE) AS tied,
               sum(l.busier * c.holders * (c.other_holders - c.shared) / (p.customers - c.holders + 1)
                   + exp(-l.busier * c.holders * (c.other_holders - c.shared) / (p.customers - c.holders + 1))
                   - l.busier * c.holders * c.other_holders / p.customers
                   - exp(-l.busier * c.holders * c.other_holders / p.customers)) AS own
        FROM companions c
        JOIN leaning l ON l.kind = c.kind AND l.value = c.value AND l.other = c.other AND l.pool = 1
        CROSS JOIN population p
        GROUP BY c.kind, c.value, c.other HAVING sum(c.shared - 1) > 0""",
    "coherence_tied": """
        SELECT t.kind AS kind, t.value AS value, l.holders AS holders, t.other AS other, t.tied AS tied,
               greatest(1e-3, (c.expected + t.own)
                   * CASE WHEN l.family = 'network' THEN greatest(1, coalesce(n.concentration, 1)) ELSE 1.0 END) AS expected
        FROM tied t
        JOIN leaning l ON l.kind = t.kind AND l.value = t.value AND l.other = t.other
        JOIN chance c ON c.holders = l.holders AND c.other = l.other AND c.busier = l.busier
        LEFT JOIN anchor_country n ON n.kind = t.kind AND n.value = t.value""",
    "coherence_rates": """
        SELECT c.kind AS kind, c.value AS value, c.holders AS holders, c.other AS other, c.shared AS shared,
               least(0.999999, l.busier * (c.other_holders - c.shared + 0.5) / (p.customers - c.holders + 1)) AS rate,
               count(*) OVER (PARTITION BY c.kind, c.value, c.other) AS looked
        FROM companions c
        JOIN leaning l ON l.kind = c.kind AND l.value = c.value AND l.other = c.other AND l.pool = 0
        CROSS JOIN population p
        WHERE c.shared >= 2""",
    "coherence_marks": """
        SELECT kind, value, holders, other, shared, rate,
               shared * log2(shared / (holders * rate)) - log2(looked + 1)
               + CASE WHEN shared < holders
                 THEN (holders - shared) * log2((1 - shared * 1.0 / holders) / (1 - rate)) ELSE 0 END AS bits
        FROM coherence_rates WHERE shared > holders * rate""",
    "coherence_marked": """
        SELECT kind, value, holders, other, shared, rate, bits,
               row_number() OVER (PARTITION BY kind, value, other ORDER BY bits DESC, shared DESC, rate) AS place
        FROM coherence_marks""",
    "coherence": """
        SELECT kind, value, holders, other, tied, expected,
               CASE WHEN tied > expected
                    THEN tied * log2(tied / expected) - (tied - expected) * 1.4426950408889634 ELSE 0 END AS bits
        FROM coherence_tied
        UNION ALL
        SELECT kind, value, holders, other, CAST(shared AS DOUBLE) AS tied, holders * rate AS expected,
               greatest(0, bits) AS bits
        FROM coherence_marked WHERE place = 1""",
}
"""Named steps, in order, run once before the detectors; the same text on every engine."""


def fold(engine: Engine) -> None:
    """Make ``observations`` from the tables ``facts`` and ``accounts``, one kind at a time to bound memory."""
    engine.step("observations", NO_OBSERVATIONS, {})
    for kind in KINDS.values():
        shared, each = (FOLD_SHARED, FOLD_FACTS) if kind.table == "facts" else (FOLD_SHARED_ACCOUNTS, FOLD_ACCOUNTS)
        engine.step("fold_shared", shared.format(kind=kind.name, column=kind.column), {})
        engine.append("observations", engine.rows(each.format(kind=kind.name, column=kind.column), {}))


def prepare(engine: Engine) -> None:
    """Run the base steps; ``observations``, ``facts`` and ``accounts`` must be there."""
    engine.step("kinds", NO_KINDS, {})
    engine.append("kinds", kinds_table())
    for name, sql in BASE_STEPS.items():
        engine.step(name, sql, {})


def kinds_table() -> pa.Table:
    """The declared kinds as rows ``kind, family, cap, tested, pool, many``: pool or mark; can an account hold several."""
    kinds = list(KINDS.values())
    return pa.table({
        "kind": pa.array([k.name for k in kinds]),
        "family": pa.array([k.family for k in kinds]),
        "cap": pa.array([k.cap for k in kinds], pa.float64()),
        "tested": pa.array([k.tested for k in kinds]),
        "pool": pa.array([int(k.family != "template") for k in kinds], pa.int32()),
        "many": pa.array([int(k.table == "facts") for k in kinds], pa.int32()),
    })  # fmt: skip
