"""Verdicts as people read them: names that hang on members alone, reasons without personal values, a picture, days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest

from fixtures_engine import PLAIN_WEIGHTS, START, Town, hashed, signals, town
from stillwatch import weighing
from stillwatch.campaigns import NODES, Judged, Names, identity, name, ring, sentence, why
from stillwatch.cases import convene
from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.findings import Findings, accounts_table
from stillwatch.ground import Ground
from stillwatch.membership import vouched
from stillwatch.scoring import Verdict, judge
from stillwatch.types import FAMILIES, Alternative, Axis, Campaign, Member, Outcome, Pivot

MOVED = Pivot("model-1", 0.9, 0.1, 0.8, 0.95, 0.6, 0.9)


@dataclass
class Named:
    """A planted town that was judged and named."""

    town: Town
    holdings: Holdings
    verdicts: dict[str, Verdict]
    names: Names
    judged: Judged

    def called(self, planted: str) -> Campaign:
        members = {f"acct-{a}" for a in self.town.clusters[planted].tolist()}
        judged = (*self.judged.campaigns, *self.judged.review, *self.judged.let_go)
        return next(c for c in judged if {m.account_id for m in c.members} == members)


@pytest.fixture(scope="module")
def named() -> Iterator[Named]:
    planted = town()
    accounts = len(planted.log.accounts)
    with planted.log.opened() as engine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(weighing, "weights", lambda: PLAIN_WEIGHTS)
        holdings = Holdings.load(engine, accounts)
        clusters = [(members, vouched(holdings, members)) for members in planted.clusters.values()]
        verdicts = judge(convene(engine, holdings, clusters), Ground.load(engine, holdings), signals())
    names = Names(pa.array([f"acct-{a}" for a in range(accounts)]), ["model-1"])
    judged = name(verdicts, holdings, names, {0: MOVED}, START)
    yield Named(planted, holdings, dict(zip(planted.clusters, verdicts)), names, judged)


def test_every_verdict_is_told_once_by_its_outcome_largest_first(named: Named) -> None:
    parts = (named.judged.campaigns, named.judged.review, named.judged.let_go)
    for outcome, part in zip((Outcome.CAMPAIGN, Outcome.REVIEW, Outcome.LET_GO), parts):
        expected = sorted((v.case.size for v in named.verdicts.values() if v.outcome is outcome), reverse=True)
        assert [len(c.members) for c in part] == expected
        assert all(c.outcome is outcome for c in part)
    assert all(parts), "the town has some of each"
    assert all((c.detected_at == START) == (c.outcome is Outcome.CAMPAIGN) for part in parts for c in part)
    assert len({c.campaign_id for part in parts for c in part}) == len(named.verdicts)


def member(account: str, risk: float = 0.5) -> Member:
    return Member(account, risk, 1, START, START)


def test_a_name_hangs_on_the_members_alone() -> None:
    made = identity((member("a", 0.9), member("b", 0.1)))
    assert made == identity((member("b", 0.2), member("a", 0.3)))
    assert made != identity((member("a"), member("c")))
    assert identity((member("ab"), member("c"))) != identity((member("a"), member("bc")))
    assert made.startswith("SW-")


def test_the_same_verdicts_in_another_order_give_the_same_campaigns(named: Named) -> None:
    again = name(list(named.verdicts.values())[::-1], named.holdings, named.names, {}, START)
    for before, after in zip((named.judged.campaigns, named.judged.review), (again.campaigns, again.review)):
        assert [c.campaign_id for c in before] == [c.campaign_id for c in after]
        assert [c.members for c in before] == [c.members for c in after]


def test_members_come_riskiest_first_and_have_their_own_traffic(named: Named) -> None:
    campaign = named.called("campaign")
    order = [(-m.risk, m.account_id) for m in campaign.members]
    assert order == sorted(order)
    assert all(0.5 < m.risk <= campaign.confidence for m in campaign.members)
    assert all(m.exchanges == 6 for m in campaign.members)
    assert all(campaign.first_seen <= m.first_seen <= m.last_seen <= campaign.last_seen for m in campaign.members)
    assert campaign.exchanges == sum(m.exchanges for m in campaign.members)


def test_every_accused_has_reasons_of_two_families_strongest_first(named: Named) -> None:
    for accused in named.called("campaign").members:
        bits = [r.bits for r in accused.reasons]
        assert bits == sorted(bits, reverse=True)
        assert len({r.family for r in accused.reasons}) == len(bits) >= 2
        assert min(bits) >= 1
        assert any("payment instrument" in r.text for r in accused.reasons)


def test_reasons_tell_kinds_and_counts_and_only_of_families_that_speak() -> None:
    bits = np.array([{"identity": 5.0, "template": 7.0, "network": 0.9}.get(f, 0.0) for f in FAMILIES])
    shared = np.array([{"card": 1, "wording": 2, "net": 4}.get(k, 0) for k in KIND_NAMES])
    reasons = why(bits, shared)
    assert [(r.family, r.bits) for r in reasons] == [("template", 7.0), ("identity", 5.0)]
    assert [r.text for r in reasons] == [
        "shares with other members: fixed wrapper of its prompts (2)",
        "shares with other members: payment instrument (1)",
    ]
    assert why(np.zeros(len(FAMILIES)), shared) == ()


def test_no_sentence_names_a_value_and_only_members_carry_a_name(named: Named) -> None:
    """Hashes too: what is written leaves the house."""
    campaign = named.called("campaign")
    values = {str(hashed(f"campaign {kind} {k}")) for kind in ("card", "net") for k in range(40)}
    values |= {
        *(str(hashed(f"campaign wording {k}")) for k in range(3)),
        str(hashed("far")),
        *(str(hashed(f"free{k}")) for k in range(3)),
    }
    text = str(replace(campaign, members=())) + str([m.reasons for m in campaign.members])
    assert not [v for v in values if v in text]
    told = (
        campaign.summary
        + str(campaign.exhibits)
        + str(campaign.alternatives)
        + str([m.reasons for m in campaign.members])
    )
    assert "acct-" not in told


def test_the_picture_lies_in_its_frame_and_its_lines_end_in_dots(named: Named) -> None:
    for campaign in (named.called("campaign"), named.called("ring"), named.called("text alone")):
        assert 0 < len(campaign.nodes) <= NODES
        assert all(0 <= n.x <= 1 and 0 <= n.y <= 1 for n in campaign.nodes)
        assert len({n.key for n in campaign.nodes}) == len(campaign.nodes)
        inner = [n.kind != "account" for n in campaign.nodes]
        assert all(inner[a] and not inner[b] for a, b in campaign.edges), "from a value to an account"
        held = [n.weight for n in campaign.nodes if n.kind != "account"]
        assert held == sorted(held, reverse=True)


def test_a_line_is_drawn_for_each_value_an_account_holds(named: Named) -> None:
    campaign = named.called("campaign")
    for k, node in enumerate(campaign.nodes):
        if node.kind != "account":
            assert sum(a == k for a, _ in campaign.edges) == node.weight, "all forty members are in the picture"


@pytest.mark.parametrize("of", [0, 1, 7, 104])
def test_a_ring_stays_in_the_frame(of: int) -> None:
    for radius in (0.22, 0.46):
        dots = [ring(k, of, radius, "net", "a network", 3) for k in range(max(1, of))]
        assert all(0 <= d.x <= 1 and 0 <= d.y <= 1 for d in dots)
        assert len({(round(d.x, 9), round(d.y, 9)) for d in dots}) == len(dots)


def test_days_models_capabilities_and_pivot(named: Named) -> None:
    campaign = named.called("campaign")
    assert sum(d.exchanges for d in campaign.days) == sum(d.distillation for d in campaign.days) == campaign.exchanges
    assert [d.day for d in campaign.days] == sorted({d.day for d in campaign.days})
    assert campaign.models == ("model-1",)
    assert campaign.capabilities == {"math_reasoning": 1.0}
    assert campaign.pivot == MOVED, "pivots go by case number"
    assert named.called("ring").pivot is None
    assert sum(d.distillation for d in named.called("chatty").days) == 240, "their wording marks them"


def test_sentences(named: Named) -> None:
    verdict = named.verdicts["campaign"]
    shares = {"math_reasoning": 0.6, "coding": 0.3, "grading": 0.05, "other": 0.05}
    held = replace(verdict, evidence={"template": 9.0, "identity": 12.0, "network": 2.0})
    assert sentence(held, shares, 240) == (
        "40 accounts with one hidden operator made 240 exchanges, after math reasoning and coding; "
        "evidence: identity, template."
    )
    weak = {Axis.COORDINATION: 30.0, Axis.EXTRACTION: 1.0, Axis.CONCEALMENT: 2.0}
    looked = replace(held, outcome=Outcome.REVIEW, bits=weak, alternatives=())
    assert sentence(looked, {}, 240) == "40 accounts belong together; too little speaks for extraction to act."
    reasons = (Alternative("one payer", False, "not this"), Alternative("one site", True, "one network carries 80%"))
    explained = replace(held, outcome=Outcome.LET_GO, alternatives=reasons)
    assert sentence(explained, shares, 240) == "40 accounts belong together but are explained: one network carries 80%."


@pytest.mark.parametrize("planted", ["payer", "site", "company", "course", "bound"])
def test_the_summary_of_what_is_let_go_says_why(named: Named, planted: str) -> None:
    assert "are explained" in named.called(planted).summary


def test_findings_hold_the_contract(named: Named) -> None:
    judged = named.judged
    rows = accounts_table(named.names.accounts, judged.campaigns, judged.review)
    Findings(judged.campaigns, judged.review, judged.let_go, rows)
    told = {r["account_id"]: r for r in rows.to_pylist()}
    assert list(told) == named.names.accounts.to_pylist(), "one row for every account seen"
    campaign, review = named.called("campaign"), judged.review[0]
    for m in campaign.members:
        assert told[m.account_id]["campaign_id"] == campaign.campaign_id
        assert told[m.account_id]["risk"] == pytest.approx(m.risk, abs=1e-6)
        assert len(told[m.account_id]["reasons"]) == len(m.reasons)
    assert {told[m.account_id]["campaign_id"] for m in review.members} == {None}
    assert told["acct-0"] == {
        "account_id": "acct-0", "campaign_id": None, "risk": 0.0, "first_flagged_at": None, "reasons": [],
    }  # fmt: skip
    assert {told[m.account_id]["risk"] for c in judged.let_go for m in c.members} == {0.0}


def test_nothing_judged_is_nothing_named(named: Named) -> None:
    assert name([], named.holdings, named.names, {}, START) == Judged((), (), ())
