"""Cases to verdicts: bits on three axes, honest alternatives with the numbers that reject them, false-discovery control.

Coordination adds the strongest evidence of each family, each measured on members that the *other* families picked.
Extraction is judged on the exchanges that mark the cluster. Concealment asks who they say they are. A case is a campaign
only if all three hold, no alternative explains it, and it survives Benjamini-Hochberg over all cases (1995).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from stillwatch.alternatives import PLAIN, consider
from stillwatch.cases import Case
from stillwatch.evidence import Holdings
from stillwatch.kinds import KINDS
from stillwatch.membership import TRACES
from stillwatch.types import FAMILIES, Alternative, Axis, Exhibit, Outcome

FAMILY_CEILING = 20.0
"""Bits a family can give to a case, whatever the size of the cluster: independence is an approximation."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a case needs to be a campaign; below it goes to review where it is at least worth a look."""

    smallest: int = 8
    coordination_bits: float = 16.0
    families: int = 2
    extraction_bits: float = 3.0
    concealment_bits: float = 2.0
    q_value: float = 0.01
    cover: float = 0.15
    lift: float = 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided of a case, and why. ``risk`` is by member, in the order of ``case.members``."""

    case: Case
    outcome: Outcome
    confidence: float
    q_value: float
    bits: dict[Axis, float]
    evidence: dict[str, float]
    exhibits: tuple[Exhibit, ...]
    alternatives: tuple[Alternative, ...]
    risk: np.ndarray = field(repr=False)


def judge(cases: list[Case], holdings: Holdings, signals: pa.Table, rules: Rules = Rules()) -> list[Verdict]:
    """A verdict for every case, in their order."""
    drafts = [draft(case, holdings, signals, rules) for case in cases]
    q_values = adjusted([chance_of(d.bits[Axis.COORDINATION], len(cases), holdings.n) for d in drafts])
    return [settle(d, q, rules) for d, q in zip(drafts, q_values)]


def draft(case: Case, holdings: Holdings, signals: pa.Table, rules: Rules) -> Verdict:
    """The axes, exhibits and alternatives of one case, before it is compared with the others."""
    exhibits = (
        *coordination(case, rules), *signalled(case, holdings, signals), *extraction(case), *concealment(case)
    )  # fmt: skip
    evidence = strongest(exhibits, Axis.COORDINATION)
    bits = {
        Axis.COORDINATION: sum(evidence.values()),
        Axis.EXTRACTION: sum(e.bits for e in exhibits if e.axis is Axis.EXTRACTION),
        Axis.CONCEALMENT: sum(e.bits for e in exhibits if e.axis is Axis.CONCEALMENT),
    }
    evidence |= {"content": max(0.0, bits[Axis.EXTRACTION]) + evidence.get("content", 0.0)}
    alternatives = consider(case, bits[Axis.EXTRACTION], holdings)
    return Verdict(case, Outcome.REVIEW, 0.0, 1.0, bits, evidence, exhibits, alternatives, np.zeros(case.size))


def coordination(case: Case, rules: Rules) -> list[Exhibit]:
    """One exhibit for each kind of value the members share beyond chance, with an effect worth naming."""
    exhibits = []
    for tie in case.ties:
        cover = tie.covered / tie.tested
        if cover < rules.cover or tie.tied < rules.lift * tie.expected or tie.tied < 2:
            continue
        text = (
            f"{tie.covered} of {tie.tested} accounts picked without {tie.family} evidence share {KINDS[tie.kind].noun} "
            f"with another of them; by chance {tie.expected:.1f} would coincide"
        )
        bits = min(FAMILY_CEILING, tie.bits)
        exhibits.append(
            Exhibit(Axis.COORDINATION, tie.family, tie.kind, bits, text, tie.covered, tie.tested, tie.expected)
        )
    return exhibits


def signalled(case: Case, holdings: Holdings, signals: pa.Table) -> list[Exhibit]:
    """Signals that members give far more often than other customers do."""
    exhibits = []
    account = signals["account"].to_numpy()
    detectors = np.asarray(signals["detector"].to_pylist())
    families = dict(zip(signals["detector"].to_pylist(), signals["family"].to_pylist()))
    for name, family in sorted(families.items()):
        given = np.unique(account[detectors == name])
        inside = int(np.isin(case.members, given).sum())
        rate = (len(given) - inside + 1) / (holdings.n - case.size + 2)
        share = inside / case.size
        if share < 2 * rate or inside < 3 or family == "content":
            continue
        other = (1 - share) * np.log2((1 - share) / (1 - rate)) if share < 1 else 0.0
        bits = min(FAMILY_CEILING / 2, case.size * (share * np.log2(share / rate) + other))
        text = f"{inside} of {case.size} accounts give the signal '{name}'; of the others {rate:.1%} do"
        exhibits.append(
            Exhibit(Axis.COORDINATION, family, name, float(bits), text, inside, len(given), rate * case.size)
        )
    return exhibits


def extraction(case: Case) -> list[Exhibit]:
    """Is what marks the cluster training data being made?"""
    t = case.totals
    part = "worded" if t["worded"] >= max(20.0, 0.05 * t["exchanges"]) else "exchanges"
    read = case.share("worded_elicited", "worded") if part == "worded" else case.share("elicited", "exchanges")
    aimed = case.share("worded_targeted", "worded") if part == "worded" else case.share("targeted", "exchanges")
    others = max(1.0, case.everybody["exchanges"] - t["exchanges"])
    base = max(0.0, (case.everybody["elicited"] or 0.0) * case.everybody["exchanges"] - t["elicited"]) / others
    base_aimed = case.everybody["targeted"] or 0.0
    whose = "exchanges built from the wordings that mark them" if part == "worded" else "exchanges"
    exhibits = [
        Exhibit(
            Axis.EXTRACTION, "content", "elicitation", float(np.clip(np.log2((read + 0.002) / (base + 0.01)), -4, 6)),
            f"{read:.0%} of the {whose} read like training data being made; of everybody else's {base:.1%} do",
        ),
        Exhibit(
            Axis.EXTRACTION, "content", "capability", float(np.clip(3 * (aimed - base_aimed), -2, 2)),
            f"{aimed:.0%} of the {whose} aim at a capability worth copying; of everybody's {base_aimed:.0%} do",
        ),
    ]  # fmt: skip
    if part == "worded":
        distinct = case.share("worded_distinct", "worded")
        exhibits.append(
            Exhibit(
                Axis.EXTRACTION, "content", "sweep", float(np.clip(4 * (distinct - 0.6), -3, 1.5)),
                f"{distinct:.0%} of those exchanges fill the wording with something not asked before",
            )
        )  # fmt: skip
    return exhibits


def concealment(case: Case) -> list[Exhibit]:
    """Do they pretend to be different customers?"""
    rows = case.tables["case_accounts"]
    cards = rows["card"].to_numpy(zero_copy_only=False)
    cards = cards[cards != 0]
    exhibits = []
    if len(cards) >= 3:
        payers = len(np.unique(cards))
        top = np.unique(cards, return_counts=True)[1].max() / len(cards)
        exhibits.append(
            Exhibit(
                Axis.CONCEALMENT, "identity", "payers",
                2.0 if payers >= 3 and top < 0.5 else 1.0 if top < 0.7 else -3.0,
                f"{len(cards)} accounts pay with {payers} instruments, the commonest pays for {top:.0%}",
            )
        )  # fmt: skip
    declared = sum(1 for org in rows["org"].to_pylist() if org)
    exhibits.append(
        Exhibit(
            Axis.CONCEALMENT, "identity", "declared", 1.0 if declared <= 0.2 * case.size else -3.0,
            f"{declared} of {case.size} accounts declare an organisation",
        )
    )  # fmt: skip
    return exhibits


def strongest(exhibits: tuple[Exhibit, ...], axis: Axis) -> dict[str, float]:
    """By family, the bits of its strongest exhibit on ``axis``: detectors of one family read the same trace."""
    found: dict[str, float] = {}
    for e in exhibits:
        if e.axis is axis and e.bits > 0:
            found[e.family] = max(e.bits, found.get(e.family, 0.0))
    return found


def chance_of(bits: float, cases: int, customers: int) -> float:
    """A p-value from a likelihood ratio: P(ratio >= 2^bits | chance) <= 2^-bits (Markov); capped at 1."""
    return float(min(1.0, 2.0 ** -max(0.0, bits - np.log2(max(2, customers / max(1, cases))))))


def adjusted(p_values: list[float]) -> list[float]:
    """Benjamini-Hochberg q-values, in the order given."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    q = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    out = np.empty(len(p))
    out[order] = np.minimum(q, 1.0)
    return [float(x) for x in out]


def settle(draft: Verdict, q_value: float, rules: Rules) -> Verdict:
    """The outcome: explained, campaign, or review."""
    case, bits = draft.case, draft.bits
    explained = any(a.explains for a in draft.alternatives)
    tied = {TRACES[f] for f in FAMILIES if draft.evidence.get(f, 0) >= 3 and f not in ("migration", "content")}
    passes = (
        case.size >= rules.smallest
        and len(tied) >= rules.families
        and bits[Axis.COORDINATION] >= rules.coordination_bits
        and bits[Axis.EXTRACTION] >= rules.extraction_bits
        and bits[Axis.CONCEALMENT] >= rules.concealment_bits
        and q_value <= rules.q_value
    )
    worth = bits[Axis.COORDINATION] >= rules.coordination_bits and bits[Axis.EXTRACTION] > 0
    if explained:
        outcome = Outcome.REVIEW if passes and bits[Axis.EXTRACTION] >= PLAIN else Outcome.LET_GO
    elif passes:
        outcome = Outcome.CAMPAIGN
    else:
        outcome = Outcome.REVIEW if worth else Outcome.LET_GO
    margin = min(
        bits[Axis.COORDINATION] - rules.coordination_bits,
        2 * (bits[Axis.EXTRACTION] - rules.extraction_bits),
        2 * (bits[Axis.CONCEALMENT] - rules.concealment_bits),
    )
    confidence = float(1 / (1 + 2.0 ** -(margin + 4))) if outcome is Outcome.CAMPAIGN else 0.0
    return Verdict(
        case, outcome, confidence, q_value, bits, draft.evidence, draft.exhibits, draft.alternatives,
        member_risk(case, confidence),
    )  # fmt: skip


def member_risk(case: Case, confidence: float) -> np.ndarray:
    """Risk of each member: the campaign's confidence times the probability that the account belongs to it."""
    total = case.scored.total[np.searchsorted(case.scored.accounts, case.members)]
    return confidence / (1 + np.exp2(-np.clip(total, -40, 40)))
