"""What the traits of any group are worked out from: sums by customer, and by customer and wording, loaded once a judgement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.store import Engine
from stillwatch.types import CAPABILITIES

PLANES = range(0, 64, 8)
SIDES = tuple(f"side_{plane}" for plane in PLANES)
"""Of eight of the 64 planes through all meanings, how many exchanges lie on one side: sums that tell what is asked about."""
SUMS = ("length", "squares", "chars", "chars_squares", "read_squares", "prompts", *SIDES)
"""What accounts of a group are held against each other by: sums over exchanges of logarithms of lengths, of their squares and of
those of ``read``; how many different prompts; and ``SIDES``."""
SUMMED = """sum(ln(1 + coalesce(f.input_tokens, 0))) AS length,
               sum(ln(1 + coalesce(f.input_tokens, 0)) * ln(1 + coalesce(f.input_tokens, 0))) AS squares,
               sum(ln(1 + coalesce(f.prompt_chars, 0))) AS chars,
               sum(ln(1 + coalesce(f.prompt_chars, 0)) * ln(1 + coalesce(f.prompt_chars, 0))) AS chars_squares,
               sum(coalesce(f.elicitation, 0) * coalesce(f.elicitation, 0)) AS read_squares,
               count(DISTINCT CASE WHEN coalesce(f.prompt, 0) <> 0 THEN f.prompt ELSE f.exchange END) AS prompts,
               """ + ",\n               ".join(
    f"sum(CASE WHEN (f.meaning & {1 << plane}) <> 0 THEN 1.0 ELSE 0.0 END) AS side_{plane}" for plane in PLANES
)
"""The columns ``SUMS``."""

PRACTICE = (
    """
        SELECT a.customer AS account, f.{column} AS wording, count(*) AS n,
               greatest(count(DISTINCT CASE WHEN coalesce(f.conversation, 0) <> 0 THEN f.conversation ELSE f.exchange END),
                        sum(CASE WHEN f.turn <= 1 THEN 1 ELSE 0 END)) AS tasks,
               sum(coalesce(f.elicitation, 0)) AS read,
               sum(CASE WHEN f.elicitation >= 0.5 THEN 1.0 ELSE 0.0 END) AS marked,
               sum(CASE WHEN f.capability < 10 THEN 1.0 ELSE 0.0 END) AS aimed,
               sum(CASE WHEN coalesce(f.turn, 0) <= 1 THEN 1.0 ELSE 0.0 END) AS single,
               sum(coalesce(f.appetite, 0)) AS appetite,
               """
    + SUMMED
    + """
        FROM facts f JOIN accounts a ON a.account = f.account
        WHERE f.{column} <> 0 AND f.{column} IN (SELECT value FROM holders WHERE kind = '{column}')
        GROUP BY a.customer, f.{column}
        """
)
"""What is asked by customer and ``column``: a wording or a system text that several hold. A ``task`` is a conversation, or an
exchange that opens one: an agent's forty steps are one thing to do, dealt out once."""

STEPS = {
    "trait_start": "SELECT min(time) AS first FROM facts",
    "trait_totals": """
        SELECT a.customer AS account, count(*) AS n, avg(coalesce(f.elicitation, 0)) AS read,
               avg(CASE WHEN f.elicitation >= 0.5 THEN 1.0 ELSE 0.0 END) AS marked,
               avg(CASE WHEN f.capability < 10 THEN 1.0 ELSE 0.0 END) AS aimed,
               avg(CASE WHEN coalesce(f.turn, 0) <= 1 THEN 1.0 ELSE 0.0 END) AS single,
               avg(coalesce(f.appetite, 0)) AS appetite,
               """
    + SUMMED
    + """,
               avg(cos(date_diff('hour', s.first, f.time) * 0.2617993878)) AS cosine,
               avg(sin(date_diff('hour', s.first, f.time) * 0.2617993878)) AS sine,
               avg(CASE WHEN (f.slot - f.slot % 4) / 4 % 7 IN (2, 3) THEN 1.0 ELSE 0.0 END) AS weekend,
               date_diff('hour', max(s.first), min(f.time)) AS began
        FROM facts f JOIN accounts a ON a.account = f.account CROSS JOIN trait_start s
        GROUP BY a.customer""",
    "trait_aims": """
        SELECT a.customer AS account, f.capability AS capability, count(*) AS n
        FROM facts f JOIN accounts a ON a.account = f.account WHERE f.capability IS NOT NULL
        GROUP BY a.customer, f.capability""",
    "trait_practice": "UNION ALL".join(PRACTICE.format(column=c) for c in ("wording", "system")),
    "trait_sites": """
        SELECT account, net, share FROM (
            SELECT a.customer AS account, f.net AS net, count(*) * 1.0 / sum(count(*)) OVER (PARTITION BY a.customer) AS share,
                   row_number() OVER (PARTITION BY a.customer ORDER BY count(*) DESC, f.net) AS place
            FROM facts f JOIN accounts a ON a.account = f.account
            WHERE f.net <> 0 GROUP BY a.customer, f.net) ranked
        WHERE place = 1""",
    "trait_moves": """
        SELECT a.customer AS account, sum(CASE WHEN f.model = m.model THEN 1 ELSE 0 END) AS moved, count(*) AS asked
        FROM models m
        JOIN facts f ON f.time >= m.released_at AND f.time < m.released_at + INTERVAL 24 HOUR
        JOIN accounts a ON a.account = f.account
        CROSS JOIN trait_start s
        WHERE m.released_at > s.first
        GROUP BY a.customer""",
    "trait_accounts": """
        SELECT customer AS account, min(programme) AS programme, min(verification) AS verification, max(card) AS card,
               max(issuer) AS issuer, max(mail_domain) AS mail_domain, max(billing_country) AS billing,
               max(phone_country) AS phone, max(org) AS org
        FROM accounts GROUP BY customer""",
}
"""Named steps on ``facts``, ``accounts`` and ``models``: what ``Ground`` is loaded from."""


MEASURES = ("read", "marked", "aimed", "single", "appetite")
LARGE = 0.1
"""Share of all there is from which on a group is a good part of what it would be held against."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One number by customer, ``values``, and the ``weight`` each has in a mean; ``sum`` and ``total`` are those of all."""

    values: np.ndarray
    weight: np.ndarray
    sum: float
    total: float

    @classmethod
    def by(cls, values: np.ndarray, weight: np.ndarray) -> Measure:
        """A measure of these."""
        return cls(values, weight, float(values @ weight), float(weight.sum()))

    def of(self, members: np.ndarray) -> float:
        """The mean over ``members``; 0 where none of them counts."""
        return self._mean(*self._inside(members))

    def usual(self, members: np.ndarray) -> float:
        """What ``members`` are held against: the mean over all, or over all others where they are ``LARGE`` enough to move it.
        Held against others alone, a small group would look the stranger the more of those like it were taken in."""
        inside, weight = self._inside(members)
        if weight < LARGE * self.total:
            return self._mean(self.sum, self.total)
        return self._mean(self.sum - inside, self.total - weight)

    def _inside(self, members: np.ndarray) -> tuple[float, float]:
        weight = self.weight[members]
        return float(self.values[members] @ weight), float(weight.sum())

    @staticmethod
    def _mean(total: float, weight: float) -> float:
        return total / weight if weight > 0.5 else 0.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What the traits of any group are worked out from: by customer (``totals``, ``declared``, ``site``), and by
    customer and wording (``practice``, sorted by wording then customer, wording w at ``at[w]:at[w + 1]``)."""

    holdings: Holdings
    totals: dict[str, np.ndarray]
    declared: dict[str, np.ndarray]
    site: np.ndarray
    site_share: np.ndarray
    moved: np.ndarray
    asked: np.ndarray
    wordings: np.ndarray
    at: np.ndarray
    account: np.ndarray
    practice: dict[str, np.ndarray]
    aims: np.ndarray
    """Exchanges by customer and capability."""
    all_aims: np.ndarray
    """Those of all customers."""
    measures: dict[str, Measure]
    """Means by exchange (``MEASURES``, ``weekend``), by customer of at least eight (``day``), by customer (``crossing``)."""
    volume_spread: float
    """Standard deviation of the logarithm of how many exchanges a customer has."""
    slots: float
    """Chance that two active quarters of a day are the same one."""

    @classmethod
    def load(cls, engine: Engine, holdings: Holdings) -> Ground:
        """Run the steps; facts, accounts, models and the folds must be there."""
        for name, sql in STEPS.items():
            engine.step(name, sql, {})
        size = len(holdings.account_at) - 1
        totals = dense(engine.rows("trait_totals"), size)
        declared = dense(engine.rows("trait_accounts"), size)
        sites, moves = dense(engine.rows("trait_sites"), size), dense(engine.rows("trait_moves"), size)
        rows = engine.rows("trait_practice").sort_by([("wording", "ascending"), ("account", "ascending")])
        wording = rows["wording"].to_numpy()
        wordings, first = np.unique(wording, return_index=True)
        practice = {n: rows[n].to_numpy().astype(float) for n in ("n", "tasks", *SUMS, *MEASURES)}
        aimed = engine.rows("trait_aims")
        capability = np.clip(aimed["capability"].to_numpy(), 0, len(CAPABILITIES) - 1)
        aims = np.zeros((size, len(CAPABILITIES)))
        aims[aimed["account"].to_numpy(), capability] = aimed["n"].to_numpy()
        n = totals["n"].astype(float)
        totals["volume"] = np.log(np.maximum(1, n))
        totals["day"] = np.hypot(totals["cosine"], totals["sine"])
        declared["vouched"] = np.isin(declared["verification"].astype(str), ("contract", "id", "domain"))
        declared["taught"] = np.isin(declared["programme"].astype(str), ("education", "research", "startup"))
        known = (declared["billing"] != 0) & (declared["phone"] != 0)
        declared["crossing"] = known & (declared["billing"] != declared["phone"])
        measures = {m: Measure.by(totals[m].astype(float), n) for m in (*MEASURES, "weekend")}
        measures["day"] = Measure.by(totals["day"], (n >= 8).astype(float))
        measures["crossing"] = Measure.by(declared["crossing"].astype(float), (n > 0).astype(float))
        active = holdings.holders[holdings.kind == KIND_NAMES.index("slot")]
        slots = float(((active / max(1, active.sum())) ** 2).sum())
        return cls(
            holdings, totals, declared, sites["net"], sites["share"].astype(float), moves["moved"].astype(float),
            moves["asked"].astype(float), wordings, np.append(first, len(wording)), rows["account"].to_numpy(), practice,
            aims, aims.sum(axis=0), measures, float(totals["volume"][n > 0].std()), slots,
        )  # fmt: skip


def dense(rows: pa.Table, size: int) -> dict[str, np.ndarray]:
    """Columns of ``rows`` by customer, 0 or '' for customers without a row."""
    account = rows["account"].to_numpy()
    found = {}
    for name in rows.column_names:
        column = rows[name]
        words = pa.types.is_string(column.type)
        values = np.asarray(column.to_pylist(), object) if words else column.fill_null(0).to_numpy()
        out = np.full(size, "", object) if words else np.zeros(size, values.dtype)
        out[account] = values
        found[name] = out
    return found
