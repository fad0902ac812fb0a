"""Verdicts on planted cases: what is a campaign, what goes to review, what is let go, and which honest thing explains it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures_engine import Town, signals, town
from stillwatch.alternatives import PLAIN, one_domain, one_payer, one_programme, one_site, public_tool
from stillwatch.cases import Case, Tie, capability_shares, convene, gather
from stillwatch.evidence import Holdings
from stillwatch.membership import Scored, vouched
from stillwatch.scoring import (
    FAMILY_CEILING,
    Rules,
    Verdict,
    adjusted,
    chance_of,
    coordination,
    judge,
    settle,
    signalled,
)  # fmt: skip
from stillwatch.store import Engine
from stillwatch.types import Alternative, Axis, Exhibit, Outcome

NONE = signals()


@dataclass
class Court:
    """A planted town, its engine, and the case and verdict of each cluster by name."""

    town: Town
    engine: Engine
    holdings: Holdings
    cases: dict[str, Case]
    verdicts: dict[str, Verdict]


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    planted = town()
    with planted.log.opened() as engine:
        holdings = Holdings.load(engine, len(planted.log.accounts))
        clusters = [(members, vouched(holdings, members)) for members in planted.clusters.values()]
        cases = convene(engine, holdings, clusters)
        verdicts = judge(cases, holdings, NONE)
        yield Court(
            planted, engine, holdings, dict(zip(planted.clusters, cases)), dict(zip(planted.clusters, verdicts))
        )


OUTCOMES = {
    "campaign": Outcome.CAMPAIGN,
    "ring": Outcome.CAMPAIGN,
    "chatty": Outcome.LET_GO,
    "text alone": Outcome.LET_GO,
    "payer": Outcome.LET_GO,
    "site": Outcome.LET_GO,
    "company": Outcome.LET_GO,
    "course": Outcome.LET_GO,
    "bound": Outcome.LET_GO,
    "declared": Outcome.REVIEW,
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcome_of_a_planted_cluster(court: Court, name: str) -> None:
    verdict = court.verdicts[name]
    assert verdict.outcome is OUTCOMES[name], (verdict.bits, verdict.evidence, verdict.alternatives)


MISSING = {"chatty": Axis.EXTRACTION, "text alone": Axis.COORDINATION, "declared": Axis.CONCEALMENT}


@pytest.mark.parametrize("name", MISSING)
def test_the_axis_that_was_left_out_is_the_one_that_is_missing(court: Court, name: str) -> None:
    needed = {Axis.COORDINATION: 16.0, Axis.EXTRACTION: 3.0, Axis.CONCEALMENT: 2.0}
    bits = court.verdicts[name].bits
    assert {axis for axis in Axis if bits[axis] < needed[axis]} == {MISSING[name]}, bits


EXPLAINED = {
    "payer": ("one payer", one_payer),
    "site": ("one site", one_site),
    "company": ("one company", one_domain),
    "course": ("verified or taught", one_programme),
    "bound": ("verified or taught", one_programme),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_each_honest_reason_explains_its_own_and_not_the_campaign(court: Court, name: str) -> None:
    called, look = EXPLAINED[name]
    assert [a.name for a in court.verdicts[name].alternatives if a.explains] == [called]
    campaign = look(court.cases["campaign"], 6.0, court.holdings)
    assert campaign is None or not campaign.explains


def sited(case: Case, shares: list[float]) -> Case:
    """The case, were its members' traffic spread over networks like this."""
    share = [case.size * s for s in shares]
    rows = pa.table(
        {"cluster": [0] * len(share), "net": list(range(len(share))), "share": pa.array(share, pa.float64())}
    )
    return replace(case, tables=case.tables | {"case_sites": rows})


SITES: list[tuple[str, list[float], float, bool]] = [
    ("campaign", [0.5, 0.2, 0.2, 0.1], PLAIN + 1, True),
    ("campaign", [0.4, 0.3, 0.2, 0.1], PLAIN - 1, True),
    ("campaign", [0.4, 0.3, 0.2, 0.1], PLAIN, False),
    ("campaign", [0.1] * 10, 0.0, False),
    ("ring", [0.34, 0.33, 0.33], 0.0, False),
    ("ring", [0.6, 0.2, 0.2], 0.0, True),
]


@pytest.mark.parametrize(("name", "shares", "extraction", "explains"), SITES)
def test_what_a_site_is(court: Court, name: str, shares: list[float], extraction: float, explains: bool) -> None:
    """One network with half of it always; several for a crowd that asks nothing plain. Ten people on three are no crowd."""
    found = one_site(sited(court.cases[name], shares), extraction, court.holdings)
    assert found is not None
    assert found.explains is explains


def test_a_ring_on_the_networks_it_rents_is_not_explained_by_them(court: Court) -> None:
    assert not [a for a in court.verdicts["ring"].alternatives if a.explains]


def with_accounts(case: Case, **columns: int) -> Case:
    """The case, had all its accounts this value in a column."""
    rows = case.tables["case_accounts"]
    for name, value in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array([value] * rows.num_rows, pa.int64()))
    return replace(case, tables=case.tables | {"case_accounts": rows})


def test_a_mail_domain_that_everybody_uses_is_no_company(court: Court) -> None:
    case = with_accounts(court.cases["company"], mail_domain=court.town.log.accounts[0]["mail_domain"])
    found = one_domain(case, 0.0, court.holdings)
    assert found is not None
    assert not found.explains


def test_alternatives_need_something_to_go_by(court: Court) -> None:
    bare = with_accounts(court.cases["campaign"], card=0, mail_domain=0)
    assert [look(bare, 0.0, court.holdings) for look in (one_payer, one_domain, one_programme)] == [None] * 3
    assert one_site(sited(bare, []), 0.0, court.holdings) is None


def test_a_public_tool_is_told_and_explains_nothing_by_itself(court: Court) -> None:
    found = public_tool(court.cases["campaign"], 0.0, court.holdings)
    assert found is not None
    assert "100%" in found.text
    assert not found.explains


# Cases


def test_a_case_counts_its_own_exchanges(court: Court) -> None:
    case = court.cases["campaign"]
    rows = [r for r in court.town.log.facts if r["account"] in set(case.members.tolist())]
    assert case.totals["exchanges"] == len(rows) == 240
    assert case.totals["worded"] == case.totals["taken"] == case.totals["elicited"] == 240
    assert case.totals["worded_distinct"] == 240
    assert case.totals["taken_output"] == pytest.approx(900)
    assert case.totals["targeted"] == 240
    assert capability_shares(case) == {"math_reasoning": 1.0}
    assert capability_shares(court.cases["chatty"]) == {"other": 1.0}
    sites = case.tables["case_sites"]["share"].to_numpy()
    assert sites.sum() == pytest.approx(case.size), "each member's traffic counts one, however much it is"


def test_common_wordings_mark_nobody(court: Court) -> None:
    """Strangers taken for a cluster: what they use, everybody uses."""
    strangers = np.arange(60)
    case = gather(court.engine, court.holdings, [(strangers, vouched(court.holdings, strangers))])[0]
    assert case.totals["worded"] == 0
    verdict = judge([case], court.holdings, NONE)[0]
    assert verdict.outcome is Outcome.LET_GO
    assert verdict.bits[Axis.COORDINATION] < 8


def test_a_member_that_takes_no_part_is_not_accused(court: Court) -> None:
    members = np.r_[court.town.clusters["campaign"], [3, 4]]
    cluster = [(members, vouched(court.holdings, members))]
    assert gather(court.engine, court.holdings, cluster)[0].size == 42
    assert (
        convene(court.engine, court.holdings, cluster)[0].members.tolist() == court.town.clusters["campaign"].tolist()
    )


def test_each_kind_is_measured_on_members_that_the_other_families_picked(court: Court) -> None:
    ties = {t.kind: t for t in court.cases["campaign"].ties if t.values > 1}
    assert ties["card"].tested == 40
    assert ties["card"].tied == 30
    assert ties["card"].covered == 40
    assert ties["card"].values == 10
    assert ties["card"].expected < 3
    assert not [t for t in court.cases["text alone"].ties if t.family == "template"], (
        "nobody speaks for them but the text"
    )


def test_no_clusters_no_cases_no_verdicts(court: Court) -> None:
    assert convene(court.engine, court.holdings, []) == []
    assert judge([], court.holdings, NONE) == []


# Scoring, by hand


def hand(size: int = 20, ties: tuple[Tie, ...] = ()) -> Case:
    members = np.arange(size)
    scored = Scored(members, np.zeros((size, 6)), np.linspace(2, 12, size))
    return Case(0, members, scored, ties, {}, {}, {})


GOOD: dict[str, Any] = {
    "bits": {Axis.COORDINATION: 30.0, Axis.EXTRACTION: 6.0, Axis.CONCEALMENT: 3.0},
    "evidence": {"identity": 15.0, "template": 15.0, "content": 6.0},
}


def drafted(case: Case, alternatives: tuple[Alternative, ...] = (), **changes: Any) -> Verdict:
    given = GOOD | changes
    bits = GOOD["bits"] | given["bits"]
    nothing: tuple[Exhibit, ...] = ()
    return Verdict(
        case, Outcome.REVIEW, 0.0, 1.0, bits, given["evidence"], nothing, alternatives, np.zeros(case.size)
    )  # fmt: skip


EXPLAINS = (Alternative("one payer", True, "x"),)
SETTLED: list[tuple[str, dict[str, Any], Outcome]] = [
    ("all three axes", {}, Outcome.CAMPAIGN),
    ("one member too few", {"size": 7}, Outcome.REVIEW),
    ("just enough members", {"size": 8}, Outcome.CAMPAIGN),
    ("no extraction", {"bits": {Axis.EXTRACTION: -1.0}}, Outcome.LET_GO),
    ("little extraction", {"bits": {Axis.EXTRACTION: 2.9}}, Outcome.REVIEW),
    ("no concealment", {"bits": {Axis.CONCEALMENT: 0.0}}, Outcome.REVIEW),
    ("little coordination", {"bits": {Axis.COORDINATION: 15.9}}, Outcome.LET_GO),
    ("text only", {"evidence": {"template": 20.0, "content": 16.0}}, Outcome.REVIEW),
    ("text and a migration", {"evidence": {"template": 20.0, "migration": 10.0}}, Outcome.REVIEW),
    ("a weak second trace", {"evidence": {"template": 20.0, "identity": 2.9}}, Outcome.REVIEW),
    ("not told from chance", {"q_value": 0.02}, Outcome.REVIEW),
    ("explained", {"alternatives": EXPLAINS, "bits": {Axis.EXTRACTION: 4.9}}, Outcome.LET_GO),
    ("explained, but plain", {"alternatives": EXPLAINS, "bits": {Axis.EXTRACTION: 5.0}}, Outcome.REVIEW),
    ("explained, plain, open", {"alternatives": EXPLAINS, "bits": {Axis.CONCEALMENT: 0.0}}, Outcome.LET_GO),
    ("an explanation rejected", {"alternatives": (Alternative("one site", False, "x"),)}, Outcome.CAMPAIGN),
]


@pytest.mark.parametrize(("change", "outcome"), [(c, o) for _, c, o in SETTLED], ids=[n for n, _, _ in SETTLED])
def test_what_is_missing_decides(change: dict[str, Any], outcome: Outcome) -> None:
    change = dict(change)
    case, q_value = hand(change.pop("size", 20)), change.pop("q_value", 0.001)
    verdict = settle(drafted(case, **change), q_value, Rules())
    assert verdict.outcome is outcome
    assert (verdict.confidence > 0.9) == (verdict.risk.max() > 0.5) == (outcome is Outcome.CAMPAIGN)
    assert ((verdict.risk >= 0) & (verdict.risk <= verdict.confidence)).all()


def test_more_evidence_more_confidence_and_more_risk_to_those_who_belong_more() -> None:
    settled = [
        settle(drafted(hand(), bits={Axis.EXTRACTION: x}), 0.001, Rules()) for x in (3.0, 3.5, 5.0)
    ]  # fmt: skip
    assert [v.confidence for v in settled] == sorted({v.confidence for v in settled})
    assert (np.diff(settled[0].risk) > 0).all()


@given(st.lists(st.floats(0, 1), max_size=30))
def test_adjusted_is_benjamini_and_hochberg_s(p: list[float]) -> None:
    """q of a p is the least, over all p' at least as large, of p' m / #(p'' <= p')."""
    slow = [min(1.0, *(b * len(p) / sum(c <= b for c in p) for b in p if b >= a)) for a in p]
    assert adjusted(p) == pytest.approx(slow)


@given(st.floats(-10, 200), st.floats(0, 50), st.integers(1, 500), st.integers(2, 10**6))
def test_chance_is_a_probability_that_falls_with_evidence(bits: float, more: float, cases: int, customers: int) -> None:
    less, most = (chance_of(b, cases, customers) for b in (bits, bits + more))
    assert 0 <= most <= less <= 1
    assert chance_of(bits, cases, 2 * customers) >= less, "more customers, more chances"


def tie(kind: str, family: str, **changes: Any) -> Tie:
    strong = Tie(kind, family, bits=500.0, tested=100, tied=60.0, expected=2.0, covered=80, values=20)
    return replace(strong, **changes)


def test_a_family_gives_no_more_than_its_ceiling() -> None:
    case = hand(ties=(tie("card", "identity"), tie("net", "network", bits=7.0)))
    assert [e.bits for e in coordination(case, Rules())] == [FAMILY_CEILING, 7.0]


@pytest.mark.parametrize("change", [{"covered": 14}, {"expected": 21.0}, {"tied": 1.0, "expected": 0.1}])
def test_bits_without_an_effect_worth_naming_are_no_exhibit(change: dict[str, float]) -> None:
    assert not coordination(hand(ties=(tie("card", "identity", **change),)), Rules())


def test_signals_count_where_members_give_them_far_more_than_others(court: Court) -> None:
    case, members = court.cases["campaign"], court.town.clusters["campaign"].tolist()
    given = [(a, "lockstep", "tempo") for a in members[:30]] + [(a, "lockstep", "tempo") for a in range(20)]
    common = [(a, "pivot", "migration") for a in members[:10]] + [(a, "pivot", "migration") for a in range(200)]
    text = [(a, "focus", "content") for a in members]
    exhibits = signalled(case, court.holdings, signals(*given, *common, *text))
    assert [(e.detector, e.family, e.members, e.holders) for e in exhibits] == [("lockstep", "tempo", 30, 50)]
    assert 0 < exhibits[0].bits <= FAMILY_CEILING / 2
    assert signalled(case, court.holdings, NONE) == []


def test_a_signal_given_twice_by_an_account_is_one_holder(court: Court) -> None:
    members = court.town.clusters["campaign"].tolist()
    twice = [(a, "lockstep", "tempo") for a in members[:30]] * 2
    exhibit = signalled(court.cases["campaign"], court.holdings, signals(*twice))[0]
    assert (exhibit.members, exhibit.holders) == (30, 30)
