"""What a group of accounts is like: a row of numbers that tell an operator's accounts from people who merely have
something in common.

Each trait asks one question of the group, against what the other customers do. None decides; ``weighing.py`` weighs them. The
questions are about the group's *practice*: the exchanges built from wordings that mark it, so that ordinary traffic mixed in
says nothing either way.

*Dispatch* is the trait nobody fakes cheaply. An operator's accounts are workers that draw from one queue, so who asks what
is a matter of chance: the counts of (account, wording) scatter as a multinomial would. People, even of one company or class, have
work of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.store import Engine

PRACTICE = """
        SELECT a.customer AS account, f.{column} AS wording, count(*) AS n, sum(coalesce(f.elicitation, 0)) AS read,
               sum(CASE WHEN f.elicitation >= 0.5 THEN 1.0 ELSE 0.0 END) AS marked,
               sum(CASE WHEN f.capability < 10 THEN 1.0 ELSE 0.0 END) AS aimed,
               sum(CASE WHEN coalesce(f.turn, 0) <= 1 THEN 1.0 ELSE 0.0 END) AS single,
               sum(coalesce(f.appetite, 0)) AS appetite, sum(ln(1 + coalesce(f.output_tokens, 0))) AS written,
               count(DISTINCT f.prompt) AS prompts
        FROM facts f JOIN accounts a ON a.account = f.account
        WHERE f.{column} <> 0 AND f.{column} IN (SELECT value FROM holders WHERE kind = '{column}')
        GROUP BY a.customer, f.{column}
        """
"""What is asked by customer and ``column``: a wording or a system text that several hold."""

STEPS = {
    "trait_start": "SELECT min(time) AS first FROM facts",
    "trait_totals": """
        SELECT a.customer AS account, count(*) AS n, avg(coalesce(f.elicitation, 0)) AS read,
               avg(CASE WHEN f.elicitation >= 0.5 THEN 1.0 ELSE 0.0 END) AS marked,
               avg(CASE WHEN f.capability < 10 THEN 1.0 ELSE 0.0 END) AS aimed,
               avg(CASE WHEN coalesce(f.turn, 0) <= 1 THEN 1.0 ELSE 0.0 END) AS single,
               avg(coalesce(f.appetite, 0)) AS appetite, avg(ln(1 + coalesce(f.output_tokens, 0))) AS written,
               date_diff('hour', min(f.time), max(f.time)) AS hours,
               date_diff('hour', max(s.first), min(f.time)) AS began
        FROM facts f JOIN accounts a ON a.account = f.account CROSS JOIN trait_start s
        GROUP BY a.customer""",
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
        SELECT customer AS account, min(programme) AS programme, min(verification) AS verification, min(plan) AS plan,
               max(card) AS card, max(issuer) AS issuer, max(mail_domain) AS mail_domain, max(referrer) AS referrer,
               max(signup_day) AS signup_day, max(billing_country) AS billing, max(phone_country) AS phone, max(org) AS org,
               count(*) AS seats
        FROM accounts GROUP BY customer""",
}
"""Named steps on ``facts``, ``accounts`` and ``models``: what ``Ground`` is loaded from."""

ALIKE = ("client", "tls", "tools", "system", "settings", "slot", "mail_domain", "signup_day", "signup_tls", "referrer")
"""Kinds of which is asked how far one value is common to the group and to nobody else."""
SHARING = ("card", "phone", "net", "signup_net", "prompt", "wording", "system")
"""Kinds of which is asked how many members share a value with another, beyond chance."""
MEASURES = ("read", "marked", "aimed", "single", "appetite", "written")
UNTOLD = 6.0
"""``dispatch`` of a group with nothing to deal out; the most it can be."""
MARKERS = 40
"""Marking wordings that are looked at, those most members use."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the traits of any group are worked out from: by customer (``totals``, ``declared``, ``home``, ``site``), and by
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
    cap: np.ndarray
    base: dict[str, float]
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
        practice = {n: rows[n].to_numpy().astype(float) for n in ("n", "prompts", *MEASURES)}
        n = totals["n"].astype(float)
        base = {m: float(np.average(totals[m], weights=n)) for m in MEASURES}
        totals["volume"] = np.log(np.maximum(1, n))
        base["volume_spread"] = float(totals["volume"][n > 0].std())
        declared["vouched"] = np.isin(declared["verification"].astype(str), ("contract", "id", "domain"))
        declared["taught"] = np.isin(declared["programme"].astype(str), ("education", "research", "startup"))
        known = (declared["billing"] != 0) & (declared["phone"] != 0)
        declared["crossing"] = known & (declared["billing"] != declared["phone"])
        base["crossing"] = float(declared["crossing"].sum() / holdings.n)
        active = holdings.holders[holdings.kind == KIND_NAMES.index("slot")]
        slots = float(((active / max(1, active.sum())) ** 2).sum())
        return cls(
            holdings, totals, declared, sites["net"], sites["share"].astype(float), moves["moved"].astype(float),
            moves["asked"].astype(float), wordings, np.append(first, len(wording)), rows["account"].to_numpy(), practice,
            holdings.cap(), base, slots,
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


def traits(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """The traits of one group, by name."""
    marks = markers(ground, members)
    return {
        "size": float(np.log2(len(members))),
        **practice(ground, members, marks),
        **sharing(ground, members),
        **alike(ground, members),
        **declared(ground, members),
        **rhythm(ground, members),
    }


def markers(ground: Ground, members: np.ndarray) -> np.ndarray:
    """Positions in ``ground.wordings`` of the wordings and system texts that mark the group: at least 3 of it use
    them, far more than others do."""
    h = ground.holdings
    _, held = h.values_of(members)
    held = held[np.isin(h.kind[held], (KIND_NAMES.index("wording"), KIND_NAMES.index("system")))]
    values, inside = np.unique(held, return_counts=True)
    outside = (h.holders[values] - inside + 0.5) / (h.n - len(members) + 1)
    keep = (inside >= 3) & (inside >= 0.01 * len(members)) & (inside / len(members) >= 8 * outside)
    values = values[keep][np.argsort(-inside[keep], kind="stable")][:MARKERS]
    return np.searchsorted(ground.wordings, h.value[values])


def practice(ground: Ground, members: np.ndarray, marks: np.ndarray) -> dict[str, float]:
    """What is asked in the wordings that mark the group, and how it is dealt out."""
    rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(ground.at[m], ground.at[m + 1]) for m in marks)])
    which = np.repeat(np.arange(len(marks)), ground.at[marks + 1] - ground.at[marks])
    mine = np.isin(ground.account[rows], members)
    exclusive = mine.mean() if len(mine) else 0.0
    rows, which = rows[mine], which[mine]
    n = ground.practice["n"][rows]
    total, all_ = n.sum(), ground.totals["n"]
    share = {m: ground.practice[m][rows].sum() / total if total else 0.0 for m in MEASURES}
    base = ground.base
    user = np.searchsorted(members, ground.account[rows])
    per_user = np.bincount(user, n, len(members))
    return {
        "marks": float(np.log2(1 + len(marks))),
        "exclusive": float(exclusive),
        "practising": float((per_user > 0).mean()),
        "practice": float(total / max(1.0, all_[members].sum())),
        "practice_even": float(np.log1p(_spread(per_user[per_user > 0] / all_[members][per_user > 0]))),
        "read": float(np.log2((share["read"] + 0.02) / (base["read"] + 0.02))),
        "marked": float(np.log2((share["marked"] + 0.01) / (base["marked"] + 0.01))),
        "aimed": share["aimed"] - base["aimed"],
        "single": share["single"] - base["single"],
        "appetite": share["appetite"] - base["appetite"],
        "written": share["written"] - base["written"],
        "distinct": float(ground.practice["prompts"][rows].sum() / total) if total else 1.0,
        "repeats": float(np.log2(total / max(1, len(rows)))) if total else 0.0,
        "dispatch": dispatch(user, which, n),
    }


def dispatch(user: np.ndarray, which: np.ndarray, n: np.ndarray) -> float:
    """How like chance it is who uses which wording: log2 of chi-square over its degrees of freedom, clipped to -1..6; 6 where
    there is nothing to deal out."""
    busy = np.bincount(user, n)
    keep = busy[user] >= 2
    user, which, n = user[keep], which[keep], n[keep]
    if not len(n):
        return UNTOLD
    users, kinds, total = np.bincount(user, n), np.bincount(which, n), n.sum()
    freedom = ((users > 0).sum() - 1) * ((kinds > 0).sum() - 1)
    if freedom < 5:
        return UNTOLD
    chi = total * (n**2 / (users[user] * kinds[which])).sum() - total
    return float(np.clip(np.log2(max(chi, 1e-9) / freedom), -1, UNTOLD))


def sharing(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """Of each kind, the share of members that hold a rare value with another of them, and the bits beyond chance per member."""
    h = ground.holdings
    position, held = h.values_of(members)
    rare = h.holders[held] <= ground.cap[held]
    found = {}
    for name in SHARING:
        keep = rare & (h.kind[held] == KIND_NAMES.index(name))
        values, number, count = np.unique(held[keep], return_inverse=True, return_counts=True)
        outside = (h.holders[values] - count + 0.5) / (h.n - len(members) + 1)
        lift = np.where(count >= 2, np.log2(np.maximum(1.0, (count - 1) / len(members) / outside)), 0.0)
        best = np.zeros(len(members))
        np.maximum.at(best, position[keep], lift[number])
        found[f"share_{name}"] = float((best >= 2).mean())
        found[f"bits_{name}"] = float(np.minimum(best, 12).mean())
    return found


def alike(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """Of each kind, p log2(p / q) for the value that sets the group apart most: p of its members hold it, q of the others."""
    h = ground.holdings
    _, held = h.values_of(members)
    values, count = np.unique(held, return_counts=True)
    p = count / len(members)
    q = (h.holders[values] - count + 1) / (h.n - len(members) + 2)
    bits = np.where(p > q, p * np.log2(p / q), 0.0)
    found = {}
    for name in ALIKE:
        mine = bits[h.kind[values] == KIND_NAMES.index(name)]
        found[f"alike_{name}"] = float(mine.max(initial=0.0))
    for name in ("issuer", "billing"):
        found[f"alike_{name}"] = _alike(ground.declared[name], members, h.n)
    found["alike_country"] = _alike(h.country, members, h.n)
    return found


def _alike(values: np.ndarray, members: np.ndarray, customers: int) -> float:
    """As ``alike``, of one column by customer, 0 where unknown."""
    mine = values[members]
    distinct, count = np.unique(mine[mine != 0], return_counts=True)
    if not len(distinct):
        return 0.0
    top = distinct[np.argmax(count)]
    p, q = count.max() / len(members), ((values == top).sum() - count.max() + 1) / (customers - len(members) + 2)
    return float(max(0.0, p * np.log2(p / q)))


def declared(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """Who they say they are, who pays, and whether that fits together."""
    d = ground.declared
    cards = d["card"][members]
    paying = cards[cards != 0]
    domains = d["mail_domain"]
    mine = domains[members][domains[members] != 0]
    names, count = np.unique(mine, return_counts=True)
    top = names[np.argmax(count)] if len(names) else 0
    sites, carried = np.unique(ground.site[members], return_inverse=True)
    return {
        "payers": len(np.unique(paying)) / len(paying) if len(paying) else 1.0,
        "one_payer": float(np.unique(paying, return_counts=True)[1].max() / len(members)) if len(paying) else 0.0,
        "one_domain": float(count.max() / len(members) * count.max() / (domains == top).sum()) if len(names) else 0.0,
        "one_site": float(np.bincount(carried, ground.site_share[members]).max(initial=0) / len(members)) if len(sites) else 0.0,
        "org": float((d["org"][members] != 0).mean()),
        "vouched": float(d["vouched"][members].mean()),
        "taught": float(d["taught"][members].mean()),
        "crossing": float(d["crossing"][members].mean() - ground.base["crossing"]),
    }  # fmt: skip


def rhythm(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """How alike they are in time: how much they do, when they began, whether they work in the same hours, whether they moved."""
    h, t = ground.holdings, ground.totals
    volume = t["volume"][members]
    _, held = h.values_of(members)
    slots = held[h.kind[held] == KIND_NAMES.index("slot")]
    _, count = np.unique(slots, return_counts=True)
    worked = count.sum()
    due = worked**2 * ground.slots + worked
    new = ground.moved[members].sum() / max(1.0, ground.asked[members].sum())
    others = (ground.moved.sum() - ground.moved[members].sum()) / max(
        1.0, ground.asked.sum() - ground.asked[members].sum()
    )
    began = np.sort(t["began"][members].astype(float))
    return {
        "volume_even": float(np.log(max(0.05, volume.std()) / max(0.05, ground.base["volume_spread"]))),
        "began": float(np.log((6 + began[int(0.8 * len(began))] - began[int(0.2 * len(began))]) / 6)),
        "hours": float(np.log2(max(1.0, (count.astype(float) ** 2).sum()) / max(1.0, due))),
        "moved": float((new - others) * min(1.0, ground.asked[members].sum() / 50)),
    }


def _spread(values: np.ndarray) -> float:
    """Standard deviation over mean."""
    return float(values.std() / values.mean()) if len(values) and values.mean() > 0 else 0.0
