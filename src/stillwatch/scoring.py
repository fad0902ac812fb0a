"""Cases to verdicts: the odds that a case is one hidden operator, what speaks for it on three axes, and what honest
thing would explain it.

The odds come from the traits of the group (``traits.py``, ``weighing.py``). Exhibits tell a person why: what members
share, measured on members that the *other* families picked; what the exchanges that mark them read like; who they say
they are. A case is a campaign only if its odds are long, no alternative explains it, and few of those at least as
strong are expected to be false.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from stillwatch import weighing
from stillwatch.alternatives import PLAIN, consider
from stillwatch.cases import Case
from stillwatch.evidence import Holdings
from stillwatch.ground import Ground
from stillwatch.kinds import KINDS
from stillwatch.membership import TRACES
from stillwatch.traits import traits
from stillwatch.types import FAMILIES, Alternative, Axis, Exhibit, Outcome
from stillwatch.weighing import TRAITS, Weights

PROVEN = 0.9
"""Confidence in a campaign each of whose axes is proven, and that plainly asks for training data, though its odds are
not long."""
DOUBT = 5.0
"""Bits below nought down to which an account stays in a group it is of one piece with
(``membership.Rules.doubtful``), and one."""
PARTLY, THEIRS = 0.3, 0.25
"""Share of a group from which on a trace is one of the group; and share of its wordings' uses from which on they are its own."""
FAMILY_CEILING = 20.0
"""Bits a family can give to a case, whatever the size of the cluster: independence is an approximation."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a case needs to be a campaign: ``smallest`` accounts, ``act`` bits of odds that it is one operator, and a share
    of false campaigns among those at least as strong of at most ``q_value``.

    What is after training data must be seen: a part ``practising`` of the accounts uses wordings that mark them; and
    so must be who they say they are: ``concealment`` bits. Or each axis is proven by exhibits, and what they ask is
    plain: ``families`` traces of 3 bits and ``coordination_bits``, ``extraction_bits``, ``concealment_bits``.
    More bits are asked of what honest groups look like (``more``): ``unread`` where the wordings that mark them read less than
    half as much like training data as what others ask; ``few`` of less than ``handful`` accounts, since a company of a dozen
    that did not say so is commoner than an operator of a dozen; ``alone`` of those who share wordings and nothing beside, as
    users of a tool do; ``public`` where these are mostly others' and nobody pays for another, as in an undeclared company.
    ``worth`` bits of odds send a case to review, and so do proven axes, whatever the odds. ``cover`` and ``lift`` are what a
    shared value needs to be named.
    """

    smallest: int = 8
    act: float = 2.0
    unread: float = 2.0
    handful: int = 16
    few: float = 2.0
    alone: float = 1.0
    public: float = 2.0
    worth: float = -1.0
    practising: float = 0.2
    concealment: float = 1.0
    families: int = 2
    unlikely: float = 1.0
    plain: float = 4.0
    coordination_bits: float = 16.0
    extraction_bits: float = 3.0
    concealment_bits: float = 2.0
    q_value: float = 0.2
    cover: float = 0.15
    lift: float = 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided of a case, and why. ``odds`` are log2 odds that it is one hidden operator; ``practising`` is the
    share of its accounts that use wordings which mark it, ``more`` the bits asked of it beside what is asked of any;
    ``risk`` is by member, in the order of ``case.members``."""

    case: Case
    odds: float
    practising: float
    more: float
    outcome: Outcome
    confidence: float
    q_value: float
    bits: dict[Axis, float]
    evidence: dict[str, float]
    exhibits: tuple[Exhibit, ...]
    alternatives: tuple[Alternative, ...]
    risk: np.ndarray = field(repr=False)


def judge(cases: list[Case], ground: Ground, signals: pa.Table, rules: Rules = Rules()) -> list[Verdict]:
    """A verdict for every case, in their order."""
    drafts = [draft(case, ground, signals, rules) for case in cases]
    q_values = expected_false([d.confidence for d in drafts])
    return [settle(d, q, rules) for d, q in zip(drafts, q_values)]


def draft(case: Case, ground: Ground, signals: pa.Table, rules: Rules) -> Verdict:
    """The odds, axes, exhibits and alternatives of one case, before it is compared with the others."""
    holdings, weights = ground.holdings, weighing.weights()
    found = traits(ground, case.members)
    measured = (
        *coordination(case, rules), *signalled(case, holdings, signals), *extraction(case), *concealment(case),
    )  # fmt: skip
    exhibits = (*measured, *told(found, weights))
    evidence = strongest(measured, Axis.COORDINATION)
    bits = {
        Axis.COORDINATION: sum(evidence.values()),
        Axis.EXTRACTION: sum(e.bits for e in measured if e.axis is Axis.EXTRACTION),
        Axis.CONCEALMENT: sum(e.bits for e in measured if e.axis is Axis.CONCEALMENT),
    }
    evidence |= {"content": max(0.0, bits[Axis.EXTRACTION]) + evidence.get("content", 0.0)}
    odds = weights.odds(found)
    alternatives = consider(case, bits[Axis.EXTRACTION], holdings, found)
    return Verdict(
        case, odds, found["practising"], more(found, case.size, rules), Outcome.REVIEW, weighing.probability(odds), 1.0,
        bits, evidence, exhibits, alternatives, np.zeros(case.size),
    )  # fmt: skip


def more(found: dict[str, float], size: int, rules: Rules) -> float:
    """Bits asked of a group with these traits beside what is asked of any."""
    paid = max(found["share_card"], found["share_phone"]) >= PARTLY
    asked = (
        (found["read"] < -1, rules.unread),
        (size < rules.handful, rules.few),
        (found["share_two"] < PARTLY, rules.alone),
        (found["exclusive"] < THEIRS and not paid, rules.public),
    )
    return sum(bits for looks_so, bits in asked if looks_so)


def told(found: dict[str, float], weights: Weights) -> list[Exhibit]:
    """The traits that weigh at least a bit, for or against: what the group is like beside what groups of customers are like."""
    exhibits = []
    for name, bits in zip(weights.names, weights.each(found)):
        if abs(bits) >= 1:
            _, axis, asks = TRAITS[name]
            text = f"{asks}: {found[name]:.2f}, where {weights.centre[weights.names.index(name)]:.2f} is usual"
            exhibits.append(Exhibit(axis, family_of(name), name, float(bits), text))
    return exhibits


def family_of(trait: str) -> str:
    """The family of evidence a trait is told under."""
    kind = trait.partition("_")[2]
    if kind in KINDS and trait.partition("_")[0] in ("share", "bits", "alike"):
        return KINDS[kind].family
    return {"moved": "migration", "hours": "tempo", "began": "tempo", "volume_even": "tempo"}.get(
        trait, "identity" if TRAITS[trait][1] is Axis.CONCEALMENT else "content"
    )


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


def expected_false(probabilities: list[float]) -> list[float]:
    """For each case the expected share of false ones among those at least as strong: the mean of one less their
    probabilities, a local false discovery rate averaged (Efron 2001)."""
    p = np.asarray(probabilities, float)
    order = np.argsort(-p, kind="stable")
    out = np.empty(len(p))
    out[order] = np.cumsum(1 - p[order]) / np.arange(1, len(p) + 1)
    return [float(x) for x in out]


def settle(draft: Verdict, q_value: float, rules: Rules) -> Verdict:
    """The outcome: explained, campaign, or review."""
    case = draft.case
    seen = draft.practising >= rules.practising and draft.bits[Axis.CONCEALMENT] >= rules.concealment
    weighty = draft.odds >= rules.act + draft.more and q_value <= rules.q_value and seen
    plain = proven(draft, rules) and draft.bits[Axis.EXTRACTION] >= rules.plain and not doubted(draft, rules)
    passes = case.size >= rules.smallest and (weighty or plain)
    if any(a.explains for a in draft.alternatives):
        outcome = Outcome.REVIEW if passes and draft.bits[Axis.EXTRACTION] >= PLAIN else Outcome.LET_GO
    elif passes:
        outcome = Outcome.CAMPAIGN
    else:
        outcome = Outcome.REVIEW if draft.odds >= rules.worth or proven(draft, rules) else Outcome.LET_GO
    confidence = max(draft.confidence, PROVEN if plain else 0.0) if outcome is Outcome.CAMPAIGN else 0.0
    return replace(draft, outcome=outcome, confidence=confidence, q_value=q_value, risk=member_risk(case, confidence))


def proven(draft: Verdict, rules: Rules) -> bool:
    """Whether each axis is proven on its own, by exhibits measured on members that other families picked."""
    tied = {TRACES[f] for f in FAMILIES if draft.evidence.get(f, 0) >= 3 and f not in ("migration", "content")}
    return (
        len(tied) >= rules.families
        and draft.bits[Axis.COORDINATION] >= rules.coordination_bits
        and draft.bits[Axis.EXTRACTION] >= rules.extraction_bits
        and draft.bits[Axis.CONCEALMENT] >= rules.concealment_bits
    )


def doubted(draft: Verdict, rules: Rules) -> bool:
    """Whether the odds speak against a case so far that no proof of its axes makes up for it."""
    return draft.odds < rules.unlikely + draft.more


def member_risk(case: Case, confidence: float) -> np.ndarray:
    """Risk of each member: the campaign's confidence times the probability that the account belongs to it, which was told from
    those it resembles least by ``DOUBT`` bits at least."""
    total = case.scored.total[np.searchsorted(case.scored.accounts, case.members)]
    return confidence / (1 + np.exp2(-np.clip(total + DOUBT, -40, 40)))
