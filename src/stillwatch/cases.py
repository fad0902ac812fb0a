"""A cluster brought before judgement: everything the verdict may look at, gathered once for all clusters.

Two questions are asked of the same rows. *What are they after?* is asked of the exchanges that look like extraction: those
built from a wording that marks the cluster (its members use it, hardly anybody else does) or that read like training
data being made. *Who else could they be?* is asked of the accounts: payers, sites, mail domains, organisations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.kinds import KINDS
from stillwatch.membership import Scored
from stillwatch.store import Engine
from stillwatch.types import CAPABILITIES, FAMILIES

PART = 0.25
"""How much of the usual share of such exchanges a member needs; chance alone makes some accounts lighter than others."""

STEPS = {
    "case_rows": """
        SELECT m.cluster AS cluster, m.account AS account, f.time AS time, f.model AS model, f.wording AS wording,
               f.system AS system, f.capability AS capability, coalesce(f.elicitation, 0) AS elicitation, f.turn AS turn,
               f.prompt AS prompt, f.output_tokens AS output_tokens, f.net AS net
        FROM facts f JOIN accounts a ON a.account = f.account JOIN members m ON m.account = a.customer""",
    "case_wordings": """
        SELECT r.cluster AS cluster, r.wording AS wording, count(DISTINCT r.account) AS accounts, max(h.holders) AS holders
        FROM case_rows r JOIN holders h ON h.kind = 'wording' AND h.value = r.wording
        GROUP BY r.cluster, r.wording HAVING count(DISTINCT r.account) >= 3
        UNION ALL
        SELECT r.cluster AS cluster, r.system AS wording, count(DISTINCT r.account) AS accounts, max(h.holders) AS holders
        FROM case_rows r JOIN holders h ON h.kind = 'system' AND h.value = r.system
        GROUP BY r.cluster, r.system HAVING count(DISTINCT r.account) >= 3""",
    "case_sizes": "SELECT cluster, count(*) AS size FROM members GROUP BY cluster",
    "case_markers": """
        SELECT w.cluster AS cluster, w.wording AS wording, w.accounts AS accounts, w.holders AS holders
        FROM case_wordings w JOIN case_sizes s ON s.cluster = w.cluster CROSS JOIN population p
        WHERE w.accounts * 1.0 / s.size >= 8 * (w.holders - w.accounts + 0.5) / (p.customers - s.size + 1)""",
    "case_marked": """
        SELECT r.cluster AS cluster, r.account AS account, r.time AS time, r.model AS model, r.capability AS capability,
               r.elicitation AS elicitation, r.turn AS turn, r.prompt AS prompt, r.output_tokens AS output_tokens,
               CASE WHEN k.wording IS NOT NULL OR s.wording IS NOT NULL THEN 1 ELSE 0 END AS worded,
               CASE WHEN k.wording IS NOT NULL OR s.wording IS NOT NULL OR r.elicitation >= 0.5 THEN 1 ELSE 0 END AS taken
        FROM case_rows r
        LEFT JOIN case_markers k ON k.cluster = r.cluster AND k.wording = r.wording
        LEFT JOIN case_markers s ON s.cluster = r.cluster AND s.wording = r.system""",
    "case_totals": """
        SELECT cluster, count(*) AS exchanges, min(time) AS first_seen, max(time) AS last_seen,
               sum(taken) AS taken, sum(worded) AS worded,
               sum(CASE WHEN elicitation >= 0.5 THEN 1 ELSE 0 END) AS elicited,
               sum(CASE WHEN worded = 1 AND elicitation >= 0.5 THEN 1 ELSE 0 END) AS worded_elicited,
               sum(CASE WHEN worded = 1 AND capability < 10 THEN 1 ELSE 0 END) AS worded_targeted,
               sum(CASE WHEN capability < 10 THEN 1 ELSE 0 END) AS targeted,
               sum(CASE WHEN worded = 1 AND coalesce(turn, 0) <= 1 THEN 1 ELSE 0 END) AS worded_single,
               count(DISTINCT CASE WHEN worded = 1 THEN prompt ELSE NULL END) AS worded_distinct,
               avg(CASE WHEN taken = 1 THEN output_tokens ELSE NULL END) AS taken_output
        FROM case_marked GROUP BY cluster""",
    "case_capabilities": """
        SELECT cluster, capability, count(*) AS exchanges FROM case_marked
        WHERE taken = 1 AND capability IS NOT NULL GROUP BY cluster, capability""",
    "case_models": "SELECT cluster, model, count(*) AS exchanges FROM case_marked GROUP BY cluster, model",
    "case_days": """
        SELECT cluster, date_trunc('day', time) AS day, count(*) AS exchanges, sum(taken) AS taken,
               count(DISTINCT account) AS accounts
        FROM case_marked GROUP BY cluster, date_trunc('day', time)""",
    "case_members": """
        SELECT cluster, account, count(*) AS exchanges, sum(taken) AS taken, sum(worded) AS worded,
               min(time) AS first_seen, max(time) AS last_seen
        FROM case_marked GROUP BY cluster, account""",
    "case_everybody": """
        SELECT avg(CASE WHEN coalesce(elicitation, 0) >= 0.5 THEN 1.0 ELSE 0.0 END) AS elicited,
               avg(CASE WHEN capability < 10 THEN 1.0 ELSE 0.0 END) AS targeted,
               avg(output_tokens) AS output_tokens, count(*) AS exchanges
        FROM facts""",
    "case_sites": """
        SELECT cluster, net, sum(share) AS share FROM (
            SELECT r.cluster AS cluster, r.account AS account, r.net AS net,
                   count(*) * 1.0 / sum(count(*)) OVER (PARTITION BY r.cluster, r.account) AS share
            FROM case_rows r WHERE r.net <> 0 GROUP BY r.cluster, r.account, r.net) shares
        GROUP BY cluster, net""",
    "case_accounts": """
        SELECT m.cluster AS cluster, m.account AS account, a.created_at AS created_at, a.org AS org, a.programme AS programme,
               a.plan AS plan, a.verification AS verification, a.card AS card, a.mail_domain AS mail_domain,
               a.billing_country AS billing_country
        FROM members m JOIN accounts a ON a.account = m.account""",
    "case_seats": "SELECT customer AS account, count(*) AS seats FROM accounts GROUP BY customer HAVING count(*) > 1",
    "case_domains": """
        SELECT mail_domain, count(DISTINCT customer) AS holders FROM accounts WHERE mail_domain <> 0 GROUP BY mail_domain""",
}


@dataclass(frozen=True, slots=True)
class Tie:
    """What the members of a case share of one kind, measured on members that the *other* families put there.

    ``tested`` members were picked without this kind's family; ``tied`` coincidences were found among them where ``expected``
    were due to chance, and ``covered`` of them share a value with another.
    """

    kind: str
    family: str
    bits: float
    tested: int
    tied: float
    expected: float
    covered: int
    values: int


@dataclass(frozen=True, slots=True)
class Case:
    """One cluster and what is known of it; tables are rows of this cluster only."""

    number: int
    members: np.ndarray
    scored: Scored
    ties: tuple[Tie, ...]
    totals: dict[str, float]
    everybody: dict[str, float]
    tables: dict[str, pa.Table]

    @property
    def size(self) -> int:
        return len(self.members)

    def share(self, part: str, whole: str) -> float:
        """``totals[part] / totals[whole]``, 0 where there is nothing to divide by."""
        return self.totals[part] / self.totals[whole] if self.totals[whole] else 0.0


def gather(engine: Engine, holdings: Holdings, clusters: list[tuple[np.ndarray, Scored]]) -> list[Case]:
    """A case for every cluster, in their order."""
    if not clusters:
        return []
    number = np.repeat(np.arange(len(clusters), dtype=np.int32), [len(c) for c, _ in clusters])
    account = np.concatenate([c for c, _ in clusters]).astype(np.int32)
    engine.step("members", "SELECT account, account AS cluster FROM observations WHERE 1 = 0", {})
    engine.append("members", pa.table({"account": account, "cluster": number}))
    for name, sql in STEPS.items():
        engine.step(name, sql, {})
    everybody = engine.rows("case_everybody", {}).to_pylist()[0]
    domains = engine.rows("case_domains", {})
    split = {
        name: by_cluster(engine.rows(name, {}), len(clusters))
        for name in ("case_totals", "case_capabilities", "case_models", "case_days", "case_members",
                     "case_sites", "case_accounts", "case_markers")
    }  # fmt: skip
    degrees = holdings.degrees()
    cases = []
    for k, (members, scored) in enumerate(clusters):
        parts = {name: parts[k] for name, parts in split.items()} | {"case_domains": domains}
        totals = {n: float(v or 0) for n, v in parts["case_totals"].to_pylist()[0].items() if not hasattr(v, "year")}
        cases.append(Case(k, members, scored, shared(holdings, members, scored, degrees), totals, everybody, parts))
    return cases


def convene(
    engine: Engine, holdings: Holdings, clusters: list[tuple[np.ndarray, Scored]], smallest: int = 3
) -> list[Case]:
    """Cases of the clusters less the members that take no part: belonging is not enough to be accused.

    A member takes part if at least one of its exchanges, and at least ``PART`` of the share that is usual in its cluster,
    is built from a wording that marks the cluster or reads like training data being made. A declared organisation of several
    accounts is a customer to talk to: it counts as evidence on the others, and is not accused with them.
    """
    pruned = []
    drafts = gather(engine, holdings, clusters)
    seats = engine.rows("case_seats", {})["account"].to_numpy() if drafts else np.zeros(0, np.int32)
    for case in drafts:
        rows = case.tables["case_members"]
        share = rows["taken"].to_numpy() / rows["exchanges"].to_numpy()
        takes = rows["account"].to_numpy()[(share > 0) & (share >= PART * np.median(share))]
        kept = np.setdiff1d(np.intersect1d(case.members, takes), seats)
        pruned.append((kept if len(kept) >= smallest else case.members, case.scored))
    if all(len(kept) == case.size for case, (kept, _) in zip(drafts, pruned)):
        return drafts
    return gather(engine, holdings, pruned)


def by_cluster(rows: pa.Table, clusters: int) -> list[pa.Table]:
    """``rows`` cut by their column ``cluster``."""
    rows = rows.sort_by("cluster")
    at = np.searchsorted(rows["cluster"].to_numpy(), np.arange(clusters + 1))
    return [rows.slice(at[k], at[k + 1] - at[k]) for k in range(clusters)]


def shared(holdings: Holdings, members: np.ndarray, scored: Scored, degrees: np.ndarray) -> tuple[Tie, ...]:
    """What members share by kind, strongest first, each kind measured without the help of its own family."""
    row = np.searchsorted(scored.accounts, members)
    bits, total = scored.bits[row], scored.total[row]
    cap = holdings.cap()
    ties = []
    for k, name in enumerate(KIND_NAMES):
        family = FAMILIES.index(KINDS[name].family)
        tested = members[total - np.maximum(bits[:, family], 0) >= 2.0]
        if len(tested) >= 3:
            ties.append(mark(holdings, tested, k))
            if KINDS[name].cap:
                ties.append(coincidences(holdings, tested, k, cap, degrees))
    return tuple(sorted((t for t in ties if t.tied), key=lambda t: -t.bits))


def mark(holdings: Holdings, members: np.ndarray, kind: int) -> Tie:
    """The one value of a kind that marks ``members`` most: held by far more of them than of the other customers.

    ``bits`` is its binomial log-likelihood ratio less the log2 of the values looked at.
    """
    _, value = holdings.values_of(members)
    distinct, count = np.unique(value[holdings.kind[value] == kind], return_counts=True)
    size, name = len(members), KIND_NAMES[kind]
    if not len(distinct) or count.max() < 3:
        return Tie(name, KINDS[name].family, 0.0, size, 0.0, 0.0, 0, 0)
    rate = np.clip((holdings.holders[distinct] - count + 0.5) / (holdings.n - size + 1), 1e-9, 1 - 1e-9)
    share = np.minimum(count / size, 1 - 1e-9)
    bits = size * (share * np.log2(share / rate) + (1 - share) * np.log2((1 - share) / (1 - rate)))
    bits = np.where(share > rate, bits, 0.0) - np.log2(len(distinct))
    top = int(np.argmax(bits))
    tied, expected = float(count[top]), float(size * rate[top])
    return Tie(name, KINDS[name].family, float(max(0.0, bits[top])), size, tied, expected, int(tied), 1)


def coincidences(holdings: Holdings, members: np.ndarray, kind: int, cap: np.ndarray, degrees: np.ndarray) -> Tie:
    """Coincidences of one kind among ``members`` against chance; the arithmetic is that of ``folds.py``'s coherence."""
    position, value = holdings.values_of(members)
    keep = (holdings.kind[value] == kind) & (holdings.holders[value] <= cap[value])
    position, value = position[keep], value[keep]
    distinct, number, count = np.unique(value, return_inverse=True, return_counts=True)
    tied = float((count - 1).sum())
    covered = len(np.unique(position[count[number] >= 2]))
    size, n = len(members), holdings.n
    common = holdings.holders.astype(float)
    common[distinct] -= count
    rare = (holdings.kind == kind) & (holdings.holders <= cap)
    busier = 1.0
    if KINDS[KIND_NAMES[kind]].table == "facts":
        outside = max(1.0, degrees[:, kind].sum() - degrees[members, kind].sum()) / (n - size + 1)
        busier = max(1.0, degrees[members, kind].mean() / outside)
    mean = busier * size * common[rare] / (n - size + 1)
    expected = float((mean - 1 + np.exp(-mean)).sum())
    if KINDS[KIND_NAMES[kind]].family == "network":
        expected *= concentration(holdings.country, members, n)
    expected = max(1e-3, expected)
    surplus = tied * np.log2(tied / expected) - (tied - expected) / np.log(2) if tied > expected else 0.0
    name = KIND_NAMES[kind]
    return Tie(name, KINDS[name].family, float(surplus), size, tied, expected, covered, int((count >= 2).sum()))


def concentration(country: np.ndarray, members: np.ndarray, n: int) -> float:
    """How much likelier two members share a country than two customers do, at least 1: neighbours share networks."""
    mine = np.bincount(country[members], minlength=country.max() + 1)[1:] / len(members)
    all_ = np.bincount(country, minlength=country.max() + 1)[1:] / n
    return max(1.0, float((mine[all_ > 0] ** 2 / all_[all_ > 0]).sum()))


def capability_shares(case: Case) -> dict[str, float]:
    """Shares of the capabilities over the exchanges that look like extraction."""
    rows = case.tables["case_capabilities"]
    counts = dict(zip(rows["capability"].to_pylist(), rows["exchanges"].to_pylist()))
    total = sum(counts.values())
    return {name: counts[k] / total for k, name in enumerate(CAPABILITIES) if counts.get(k)} if total else {}
