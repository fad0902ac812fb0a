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

from fixtures_engine import PLAIN_WEIGHTS, Town, signals, town, weights_of
from stillwatch import weighing
from stillwatch.alternatives import PLAIN, one_domain, one_payer, one_programme, one_site, public_tool
from stillwatch.cases import Case, Tie, capability_shares, convene, gather
from stillwatch.evidence import Holdings
from stillwatch.ground import Ground
from stillwatch.membership import Scored, vouched
from stillwatch.scoring import (
    FAMILY_CEILING,
    Rules,
    Verdict,
    coordination,
    expected_false,
    family_of,
    judge,
    more,
    settle,
    signalled,
    told,
)  # fmt: skip
from stillwatch.store import Engine
from stillwatch.traits import traits
from stillwatch.types import FAMILIES, Alternative, Axis, Exhibit, Outcome
from stillwatch.weighing import TRAITS, probability

NONE = signals()
SHIPPED = weighing.weights()


@dataclass
class Court:
    """A planted town, its engine, and the case and verdict of each cluster by name."""

    town: Town
    engine: Engine
    holdings: Holdings
    ground: Ground
    cases: dict[str, Case]
    verdicts: dict[str, Verdict]


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    planted = town()
    with planted.log.opened() as engine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(weighing, "weights", lambda: PLAIN_WEIGHTS)
        holdings = Holdings.load(engine, len(planted.log.accounts))
        ground = Ground.load(engine, holdings)
        clusters = [(members, vouched(holdings, members)) for members in planted.clusters.values()]
        cases = convene(engine, holdings, clusters)
        verdicts = judge(cases, ground, NONE)
        yield Court(
            planted, engine, holdings, ground, dict(zip(planted.clusters, cases)), dict(zip(planted.clusters, verdicts))
        )


OUTCOMES = {
    "campaign": Outcome.CAMPAIGN,
    "ring": Outcome.CAMPAIGN,
    "chatty": Outcome.LET_GO,
    "text alone": Outcome.REVIEW,
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
    assert verdict.outcome is OUTCOMES[name], (verdict.odds, verdict.q_value, verdict.bits, verdict.alternatives)


LACKING = ("chatty", "text alone", "company", "course", "bound", "declared")


def test_by_the_weights_that_come_with_the_package_a_campaign_is_told_from_what_lacks_one_thing(court: Court) -> None:
    odds = {name: SHIPPED.total(traits(court.ground, case.members)) for name, case in court.cases.items()}
    assert odds["campaign"] > 0
    assert all(odds["campaign"] > odds[name] for name in LACKING), odds


MISSING = {"chatty": Axis.EXTRACTION, "text alone": Axis.COORDINATION, "declared": Axis.CONCEALMENT}


@pytest.mark.parametrize("name", MISSING)
def test_the_axis_that_was_left_out_is_the_one_that_is_missing(court: Court, name: str) -> None:
    needed = {Axis.COORDINATION: 16.0, Axis.EXTRACTION: 3.0, Axis.CONCEALMENT: Rules().concealment}
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
    verdict = judge([case], court.ground, NONE)[0]
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


def test_accounts_that_have_not_been_seen_yet_change_no_tie(court: Court) -> None:
    """A replay numbers all accounts of a log at once; what it judges is what has arrived."""
    members = court.town.clusters["campaign"]
    for later in (1, 400):
        wider = Holdings.load(court.engine, len(court.town.log.accounts) + later)
        case = gather(court.engine, wider, [(members, vouched(wider, members))])[0]
        narrow = gather(court.engine, court.holdings, [(members, vouched(court.holdings, members))])[0]
        for one, other in zip(case.ties, narrow.ties):
            assert one.kind == other.kind
            assert (one.bits, one.expected) == pytest.approx((other.bits, other.expected)), one.kind


def test_no_clusters_no_cases_no_verdicts(court: Court) -> None:
    assert convene(court.engine, court.holdings, []) == []
    assert judge([], court.ground, NONE) == []


# Scoring, by hand


def hand(size: int = 20, ties: tuple[Tie, ...] = ()) -> Case:
    members = np.arange(size)
    scored = Scored(members, np.zeros((size, 6)), np.linspace(2, 12, size))
    return Case(0, members, scored, ties, {}, {}, {})


RULES = Rules()
LONG = RULES.act + 1
GOOD: dict[str, Any] = {
    "odds": LONG,
    "practising": 1.0,
    "traits": {"read": 0.0, "share_two": 1.0, "share_card": 1.0, "share_phone": 0.0, "exclusive": 1.0},
    "bits": {Axis.COORDINATION: 30.0, Axis.EXTRACTION: 6.0, Axis.CONCEALMENT: 3.0},
    "evidence": {"identity": 15.0, "template": 15.0, "content": 6.0},
}


def drafted(case: Case, alternatives: tuple[Alternative, ...] = (), **changes: Any) -> Verdict:
    given = GOOD | changes
    nothing: tuple[Exhibit, ...] = ()
    return Verdict(
        case=case, outcome=Outcome.REVIEW, confidence=probability(given["odds"]), q_value=1.0, exhibits=nothing,
        alternatives=alternatives, risk=np.zeros(case.size), odds=given["odds"], practising=given["practising"],
        more=more(GOOD["traits"] | given["traits"], case.size, RULES),
        bits=GOOD["bits"] | given["bits"], evidence=given["evidence"],
    )  # fmt: skip


ODDS_ALONE = replace(RULES, extraction_bits=99.0)
"""Rules under which no case is proven, so that its odds decide."""
EXPLAINS = (Alternative("one payer", True, "x"),)
SETTLED: list[tuple[str, dict[str, Any], Outcome]] = [
    ("long odds", {}, Outcome.CAMPAIGN),
    ("one member too few", {"size": RULES.smallest - 1}, Outcome.REVIEW),
    ("just enough members", {"size": RULES.smallest, "odds": RULES.act + RULES.few}, Outcome.CAMPAIGN),
    ("a handful, not so sure", {"size": RULES.handful - 1, "odds": RULES.act + RULES.few - 0.01}, Outcome.REVIEW),
    ("more than a handful", {"size": RULES.handful, "odds": RULES.act}, Outcome.CAMPAIGN),
    ("odds too short", {"odds": RULES.act - 0.01}, Outcome.REVIEW),
    ("just worth a look", {"odds": RULES.worth}, Outcome.REVIEW),
    ("not worth a look", {"odds": RULES.worth - 0.01, "evidence": {"template": 9.0}}, Outcome.LET_GO),
    ("proven, whatever the odds", {"odds": RULES.worth - 9, "bits": {Axis.EXTRACTION: 99.0}}, Outcome.REVIEW),
    ("just enough true ones", {"q_value": RULES.q_value}, Outcome.CAMPAIGN),
    ("too many false ones", {"q_value": RULES.q_value + 0.001}, Outcome.REVIEW),
    ("no concealment", {"bits": {Axis.CONCEALMENT: RULES.concealment - 0.1}}, Outcome.REVIEW),
    ("few practise it", {"practising": RULES.practising - 0.01}, Outcome.REVIEW),
    *(
        (name, {"odds": RULES.act + needed + past, "traits": traits, "size": 60}, outcome)
        for name, traits, needed in (
            ("reads like others' work", {"read": -1.1}, RULES.unread),
            ("shares wordings alone", {"share_two": 0.2, "share_card": 0.2}, RULES.alone),
            ("a public wording", {"exclusive": 0.2, "share_card": 0.2}, RULES.public),
            ("a public wording, and cards", {"exclusive": 0.2}, 0.0),
            ("a public wording, and phones", {"exclusive": 0.2, "share_card": 0.0, "share_phone": 0.5}, 0.0),
            (
                "a public wording alone",
                {"exclusive": 0.2, "share_two": 0.0, "share_card": 0.0},
                RULES.alone + RULES.public,
            ),
        )
        for past, outcome in ((-0.01, Outcome.REVIEW), (0.0, Outcome.CAMPAIGN))
    ),
    ("explained", {"alternatives": EXPLAINS, "bits": {Axis.EXTRACTION: PLAIN - 0.1}}, Outcome.LET_GO),
    ("explained, but plain", {"alternatives": EXPLAINS, "bits": {Axis.EXTRACTION: PLAIN}}, Outcome.REVIEW),
    ("explained, plain, short", {"alternatives": EXPLAINS, "odds": RULES.worth + 0.01}, Outcome.LET_GO),
    ("an explanation rejected", {"alternatives": (Alternative("one site", False, "x"),)}, Outcome.CAMPAIGN),
]


@pytest.mark.parametrize(
    ("change", "outcome"), [(c, o) for _, c, o in SETTLED], ids=[f"{n}, {o}" for n, _, o in SETTLED]
)
def test_what_is_missing_decides(change: dict[str, Any], outcome: Outcome) -> None:
    change = dict(change)
    case, q_value = hand(change.pop("size", 20)), change.pop("q_value", 0.001)
    draft = drafted(case, **change)
    verdict = settle(draft, q_value, ODDS_ALONE)
    assert verdict.outcome is outcome
    assert verdict.q_value == q_value
    assert verdict.confidence == (draft.confidence if outcome is Outcome.CAMPAIGN else 0.0)
    assert (verdict.risk.max() > 0.5) == (outcome is Outcome.CAMPAIGN)
    assert ((verdict.risk >= 0) & (verdict.risk <= verdict.confidence)).all()


PROVEN_BITS = {
    Axis.COORDINATION: RULES.coordination_bits, Axis.EXTRACTION: RULES.plain,
    Axis.CONCEALMENT: RULES.concealment_bits,
}  # fmt: skip
TWO_TRACES = {"identity": 3.0, "template": 3.0}


def test_a_case_each_of_whose_axes_is_proven_needs_no_long_odds() -> None:
    proof = {"bits": PROVEN_BITS, "evidence": TWO_TRACES, "odds": RULES.unlikely}
    verdict = settle(drafted(hand(60), **proof), 1.0, RULES)
    assert verdict.outcome is Outcome.CAMPAIGN
    assert verdict.confidence >= 0.9


@pytest.mark.parametrize("axis", list(Axis))
def test_every_axis_must_be_proven(axis: Axis) -> None:
    proof = {"bits": PROVEN_BITS | {axis: PROVEN_BITS[axis] - 0.1}, "evidence": TWO_TRACES, "odds": RULES.unlikely}
    assert settle(drafted(hand(60), **proof), 1.0, RULES).outcome is Outcome.REVIEW


def test_what_odds_speak_against_is_not_proven() -> None:
    proof = {"bits": PROVEN_BITS, "evidence": TWO_TRACES, "odds": RULES.unlikely - 0.1}
    assert settle(drafted(hand(60), **proof), 1.0, RULES).outcome is Outcome.REVIEW


def test_families_that_read_one_trace_prove_nothing() -> None:
    proof = {"bits": PROVEN_BITS, "evidence": {"template": 9.0, "content": 9.0}, "odds": RULES.unlikely}
    assert settle(drafted(hand(60), **proof), 1.0, RULES).outcome is Outcome.REVIEW


def test_longer_odds_more_confidence_and_more_risk_to_those_who_belong_more() -> None:
    odds = [LONG + x for x in (0, 0.5, 2)]
    settled = [settle(drafted(hand(), odds=x), 0.001, RULES) for x in odds]
    assert [v.confidence for v in settled] == sorted({v.confidence for v in settled})
    assert all((v.risk > 0.9 * v.confidence).all() for v in settled), "all of them belong"
    doubted = replace(hand(), scored=replace(hand().scored, total=np.linspace(-9, 3, 20)))
    assert (np.diff(settle(drafted(doubted), 0.001, RULES).risk) > 0).all()


@given(st.lists(st.floats(0, 1), max_size=30))
def test_expected_false_is_the_mean_doubt_of_those_at_least_as_strong(p: list[float]) -> None:
    found = expected_false(p)
    slow = [np.mean([1 - b for b in p if b >= a]) for a in p]
    assert all(0 <= q <= 1 for q in found)
    for q, due, mine in zip(found, slow, p):
        if p.count(mine) == 1:
            assert q == pytest.approx(due)
        assert q <= due + 1e-9


def test_one_strong_case_among_doubtful_ones_keeps_its_q_value() -> None:
    assert expected_false([0.5, 0.99, 0.6])[1] == pytest.approx(expected_false([0.99])[0]) == pytest.approx(0.01)


def test_traits_are_told_where_they_weigh_a_bit_under_a_family_and_the_axis_they_have() -> None:
    weights = weights_of(share_card=3.0, org=-2.0, hours=0.9, read=-2.0)
    exhibits = told(dict.fromkeys(TRAITS, 1.0), weights)
    assert {(e.detector, e.axis, e.family, e.bits) for e in exhibits} == {
        ("share_card", Axis.COORDINATION, "identity", 3.0),
        ("org", Axis.CONCEALMENT, "identity", -2.0),
        ("read", Axis.EXTRACTION, "content", -2.0),
    }
    assert all(TRAITS[e.detector][2] in e.text for e in exhibits)


@pytest.mark.parametrize("trait", TRAITS)
def test_every_trait_has_a_family(trait: str) -> None:
    assert family_of(trait) in FAMILIES


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
