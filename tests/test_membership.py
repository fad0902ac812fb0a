"""Who belongs to a cluster: members score on reasons of their own; two operators part, one does not; any order of proposals."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures_engine import holdings_of
from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.kinds import KINDS
from stillwatch.membership import (
    DESCRIBED,
    Rules,
    Scored,
    Tally,
    belonging,
    busier,
    by_family,
    divide,
    match,
    score,
    vouched,
)  # fmt: skip
from stillwatch.parting import split
from stillwatch.refining import refine
from stillwatch.types import FAMILIES

N = 1500
Row = tuple[int, str, str]


def operator(
    accounts: Iterable[int], name: str, *, cards: int = 10, nets: int = 8, wordings: int = 1, wording: str = ""
) -> list[Row]:
    """Accounts that share a few cards, a few networks, and a wording or some."""
    rows = []
    for k, a in enumerate(accounts):
        rows += [(a, "card", f"{name} card {k * 7 % cards}")] if cards else []
        rows += [(a, "net", f"{name} net {(k * 3 + j) % nets}") for j in (0, 1)] if nets else []
        rows += [(a, "wording", wording or f"{name} wording {k % wordings}")]
    return rows


def strangers(seed: int = 1) -> list[Row]:
    """Everybody's traffic: home networks that neighbours share, common wordings, hours and clients."""
    rng = np.random.default_rng(seed)
    rows = []
    for a in range(N):
        rows += [(a, "net", f"home {n}") for n in rng.integers(0, 700, 2)]
        rows += [(a, "wording", f"common {w}") for w in rng.integers(0, 12, 2)]
        rows += [(a, "client", f"client {rng.integers(4)}"), (a, "settings", f"settings {rng.integers(6)}")]
    return rows


EVERYBODY = strangers()


def members_of(holdings: Holdings, proposal: np.ndarray) -> list[int]:
    return vouched(holdings, proposal).members(Rules()).tolist()


def of_account(scored: Scored, account: int) -> dict[str, float]:
    row = int(np.flatnonzero(scored.accounts == account)[0])
    return dict(zip(FAMILIES, scored.bits[row].tolist())) | {"total": float(scored.total[row])}


@pytest.fixture(scope="module")
def planted() -> Holdings:
    return holdings_of(EVERYBODY + operator(range(60), "op"), N)


def test_members_score_above_every_stranger(planted: Holdings) -> None:
    scored = vouched(planted, np.arange(60))
    inside = np.isin(scored.accounts, np.arange(60))
    assert scored.total[inside].min() > Rules().bits
    assert len(scored.total[~inside]) > 20, "strangers that share a home network with a member are looked at"
    assert scored.total[~inside].max() < 0
    assert members_of(planted, np.arange(60)) == list(range(60))


def test_accounts_left_out_of_the_proposal_join_and_strangers_in_it_leave(planted: Holdings) -> None:
    proposal = np.r_[np.arange(10, 60), np.arange(100, 108)]
    assert members_of(planted, proposal) == list(range(60))


def test_what_only_an_account_itself_holds_does_not_speak_for_it() -> None:
    """Account 60 came with a card that one outsider has too; no other member does."""
    rows = EVERYBODY + operator(range(60), "op") + [(60, "card", "own"), (900, "card", "own"), (60, "phone", "mine")]
    scored = score(holdings_of(rows, N), np.arange(61))
    assert of_account(scored, 60)["identity"] <= 0
    assert of_account(scored, 5)["identity"] > 3
    assert of_account(scored, 900)["identity"] <= 2, "one holder among sixty is no pool"


def test_one_home_network_in_common_with_a_big_cluster_is_not_enough() -> None:
    rng = np.random.default_rng(2)
    big = np.arange(400)
    rows = EVERYBODY + [(int(a), "wording", "theirs") for a in big]
    rows += [(int(a), "card", f"card {a % 60}") for a in big]
    rows += [(int(a), "net", f"home {n}") for a in big for n in rng.integers(0, 700, 4)]
    holdings = holdings_of(rows, N)
    scored = vouched(holdings, big)
    neighbours = np.setdiff1d(scored.accounts, big)
    assert len(neighbours) > 900, "next to everybody shares a network with one of them"
    assert members_of(holdings, big) == big.tolist()
    assert scored.bits[np.isin(scored.accounts, neighbours), FAMILIES.index("network")].max() < 2


def test_a_clique_of_wrong_members_cannot_vouch_for_itself() -> None:
    """A family on one card and one phone, swept in with the cluster: nobody else speaks for them."""
    clique = np.arange(200, 206)
    rows = EVERYBODY + operator(range(60), "op")
    rows += [(int(a), kind, "family") for a in clique for kind in ("card", "phone")]
    holdings = holdings_of(rows, N)
    proposal = np.r_[np.arange(60), clique]
    assert of_account(score(holdings, proposal), 200)["identity"] > 1, "unvouched, they speak for each other"
    assert of_account(vouched(holdings, proposal), 200)["identity"] <= 0
    assert members_of(holdings, proposal) == list(range(60))


def test_a_busy_honest_account_does_not_join_for_all_it_holds() -> None:
    """It has every common wording and many networks, as a router's customers have; members are moderately busy."""
    busy = range(300, 310)
    rows = EVERYBODY + operator(range(60), "op")
    rows += [(a, "wording", f"common {w}") for a in range(60) for w in (a % 12, (a + 1) % 12, (a + 5) % 12)]
    rows += [(a, "wording", f"common {w}") for a in busy for w in range(12)]
    rows += [(a, "net", f"home {n}") for a in busy for n in range(a % 7, 700, 7)]
    holdings = holdings_of(rows, N)
    scored = vouched(holdings, np.arange(60))
    assert members_of(holdings, np.arange(60)) == list(range(60))
    assert max(of_account(scored, a)["total"] for a in busy if a in scored.accounts) < 0


def test_text_alone_is_one_trace_and_never_enough() -> None:
    """A public kit's users share its wrapper and its questions word for word."""
    kit = np.arange(60, 120)
    rows = EVERYBODY + [(int(a), "wording", "kit") for a in kit]
    rows += [(int(a), "prompt", f"question {j}") for a in kit for j in range(10)]
    holdings = holdings_of(rows, N)
    scored = score(holdings, kit)
    assert of_account(scored, 60)["template"] > 2
    assert of_account(scored, 60)["total"] > Rules().bits
    assert not np.intersect1d(scored.members(Rules()), kit).size
    assert members_of(holdings, kit) == []


def hand(*rows: dict[str, float]) -> Scored:
    bits = np.array([[r.get(f, 0.0) for f in FAMILIES] for r in rows])
    return Scored(np.arange(len(rows)), bits, bits.sum(axis=1) - 3)


def test_two_traces_must_speak_and_content_is_not_another_than_template() -> None:
    scored = hand(
        {"template": 12, "content": 12},
        {"template": 6, "identity": 6},
        {"identity": 12, "network": 1.9},
        {"content": 6, "network": 6},
        {"identity": 12, "tempo": 1.9, "template": 1.9},
    )
    assert scored.members(Rules()).tolist() == [1, 3]


def test_who_is_in_needs_less_to_stay_than_to_join() -> None:
    scored = hand(
        {"identity": 3.5, "network": 3.5}, {"identity": 3.5, "network": 3.5}, {"identity": 2.4, "network": 2.4}
    )
    assert scored.members(Rules()).tolist() == []
    assert scored.members(Rules(), np.array([1, 2])).tolist() == [1]


def test_kinds_that_only_describe_never_speak_for_an_account() -> None:
    rows = EVERYBODY + [(a, k, "odd") for a in range(60) for k in ("client", "settings", "tls", "tools")]
    rows += [(a, "wording", "theirs") for a in range(60)]
    scored = score(holdings_of(rows, N), np.arange(60))
    assert 0 < of_account(scored, 3)["network"] < Rules().family_bits


@pytest.mark.parametrize("kind", ["net", "card"])
def test_busier_compares_holdings_and_only_of_kinds_that_an_account_holds_several_of(kind: str) -> None:
    rows = [(a, kind, f"v{v}") for a in range(40) for v in range(8 if a < 10 else 2)]
    ratio = busier(holdings_of(rows, 40), np.arange(10))
    expected = 4.0 if KINDS[kind].table == "facts" else 1.0
    assert ratio[KIND_NAMES.index(kind)] == pytest.approx(expected)
    assert (np.delete(ratio, KIND_NAMES.index(kind)) == 1).all()


# Groups that were weighed as a whole


@given(st.lists(st.integers(-40, 40).map(lambda x: x / 2), min_size=1, max_size=40))
def test_divide_parts_values_where_the_two_sides_differ_most(values: list[float]) -> None:
    """Otsu's bound, against every way to part them."""
    bound = divide(np.array(values))
    assert bound in values
    low, high = [v for v in values if v < bound], [v for v in values if v >= bound]
    if len(values) < 4 or len(set(values)) == 1:
        assert not low
        return

    def between(left: list[float], right: list[float]) -> float:
        return len(left) * len(right) * float(np.mean(left) - np.mean(right)) ** 2

    ordered = sorted(values)
    best = max(between(ordered[:k], ordered[k:]) for k in range(1, len(ordered)))
    assert between(low, high) == pytest.approx(best)


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=30), st.floats(-5, 5))
def test_what_is_mixed_in_is_told_from_the_core_within_bounds(totals: list[float], shift: float) -> None:
    bits = np.zeros((len(totals), len(FAMILIES)))
    scored = Scored(np.arange(len(totals)), bits, np.array(totals) + shift)
    low, high = Rules().doubtful
    core = scored.core(Rules(), scored.accounts)
    assert set(np.flatnonzero(scored.total >= high)) <= set(core.tolist()) <= set(np.flatnonzero(scored.total >= low))
    assert not len(core) or scored.total[core].min() >= max(np.delete(scored.total, core), default=-np.inf)


def test_who_stays_shows_a_trace_and_scores_about_as_the_core_does() -> None:
    like, silent, unlike = {"identity": 6, "network": 6}, {"tempo": 1.5, "template": 1.5}, {"network": 2.1}
    scored = hand(*[like] * 20, silent, unlike)
    scored.total[20], scored.total[21] = 9.0, -30.0
    core = np.arange(20)
    assert scored.staying(Rules(), np.arange(22), core).tolist() == list(range(20))


def test_who_joins_has_two_traces_or_wordings_that_hardly_anybody_has() -> None:
    scored = hand(
        {"identity": 6, "network": 6},
        {"identity": 12},
        {"template": Rules().alone + 3},
        {"template": 6.9, "content": 6.9},
    )
    assert scored.joining(Rules(), np.array([], int)).tolist() == [0, 2]
    assert scored.joining(Rules(), np.array([0])).tolist() == [2], "whoever is there already does not join"


def test_who_lacks_what_nearly_all_members_have_loses_by_it(planted: Holdings) -> None:
    """Account 70 is on two of their networks and asks nothing of theirs."""
    rows = EVERYBODY + operator(range(60), "op") + [(70, "net", "op net 1"), (70, "net", "op net 2")]
    holdings = holdings_of(rows, N)
    plainly, whole = score(holdings, np.arange(60)), belonging(holdings, np.arange(60))
    assert of_account(whole, 70)["total"] < of_account(plainly, 70)["total"]
    assert of_account(whole, 5)["total"] == pytest.approx(of_account(plainly, 5)["total"], abs=1)
    assert not np.isin(70, whole.joining(Rules(), np.arange(60)))


def test_a_public_kit_that_few_of_them_use_does_not_vouch_for_its_users() -> None:
    """Three of a hundred use a kit that strangers proposed with them use too: less than a part ``common`` of them."""
    kit = np.arange(200, 203)
    rows = EVERYBODY + operator(range(100), "op")
    rows += [(int(a), "prompt", f"list {j}") for a in [*range(3), *kit] for j in range(5)]
    holdings = holdings_of(rows, N)
    members = np.r_[np.arange(100), kit]
    loose, strict = (of_account(belonging(holdings, members, c), 200)["content"] for c in (0.0, 0.2))
    assert loose > strict
    assert strict <= 0


def test_a_tally_counts_members_and_leaves_out_what_others_have_as_often(planted: Holdings) -> None:
    members = np.arange(60)
    tally = Tally.of(planted, members, np.ones((60, len(FAMILIES)), bool))
    inside = {int(v): int(n) for v, n in zip(tally.values, tally.inside)}
    for value, count in inside.items():
        holders = planted.holders_of(np.array([value]))[1]
        assert count == int((holders < 60).sum())
    wording = [v for v in inside if KIND_NAMES[planted.kind[v]] == "wording" and inside[v] == 60]
    assert len(wording) == 1
    common = np.flatnonzero(planted.holders > 200)
    usual = [
        v for v in common if (planted.holders_of(np.array([v]))[1] < 60).sum() <= 1.2 * planted.holders[v] * 60 / N
    ]
    assert usual
    assert not set(usual) & set(inside)


def test_bits_by_kind_are_none_where_none_is_held_and_families_take_the_strongest(planted: Holdings) -> None:
    members, support = np.arange(60), np.ones((60, len(FAMILIES)), bool)
    candidates, kinds = match(planted, members, Tally.of(planted, members, support), support)
    assert np.isneginf(kinds[:, KIND_NAMES.index("phone")]).all()
    assert kinds[:, KIND_NAMES.index("client")].max() <= DESCRIBED
    found = by_family(kinds)
    assert np.isfinite(found).all()
    held = np.where(np.isneginf(kinds), -np.inf, kinds)
    for f, name in enumerate(FAMILIES):
        mine = [k for k, kind in enumerate(KIND_NAMES) if KINDS[kind].family == name]
        best = held[:, mine].max(axis=1, initial=-np.inf)
        assert np.allclose(found[:, f], np.where(np.isneginf(best), 0, best))
    assert np.array_equal(candidates, np.unique(candidates))


# Parting


def parts(rows: list[Row], members: np.ndarray) -> list[list[int]]:
    return sorted(p.tolist() for p in split(holdings_of(rows, N), members))


def assert_parted(rows: list[Row], *operators: np.ndarray) -> None:
    """One part for each operator; a home network may lead one account in fifty astray until the next round."""
    found = split(holdings_of(rows, N), np.concatenate(operators))
    assert len(found) == len(operators)
    for mine in operators:
        assert max(len(np.intersect1d(mine, part)) for part in found) >= 0.98 * len(mine)


def test_two_operators_with_one_wording_part() -> None:
    left, right = np.arange(70), np.arange(70, 150)
    rows = operator(left, "left", wording="kit") + operator(right, "right", wording="kit")
    assert_parted(EVERYBODY + rows, left, right)


def test_two_operators_with_wordings_of_their_own_part() -> None:
    left, right = np.arange(50), np.arange(50, 110)
    rows = operator(left, "left", wordings=2) + operator(right, "right", wordings=2)
    assert_parted(EVERYBODY + rows, left, right)


def test_one_operator_with_several_wordings_stays_one() -> None:
    members = np.arange(120)
    assert parts(EVERYBODY + operator(members, "op", wordings=4), members) == [members.tolist()]


def test_without_payers_networks_or_sign_ups_a_cluster_is_left_whole() -> None:
    members = np.arange(80)
    rows = operator(members, "op", cards=0, nets=0, wordings=4)
    assert parts(rows, members) == [members.tolist()]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_parting_deals_out_every_member_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    members = np.sort(rng.choice(N, 90, replace=False))
    cut = int(rng.integers(5, 85))
    rows = operator(members[:cut].tolist(), "left", cards=4, wording="kit") + [
        (int(a), kind, f"{kind} {rng.integers(12)}") for a in members[cut:] for kind in ("card", "net", "wording")
    ]
    dealt = split(holdings_of(rows, N), members)
    assert sorted(np.concatenate(dealt).tolist()) == members.tolist()
    assert all(len(p) for p in dealt)


# Refining


@pytest.fixture(scope="module")
def two() -> Holdings:
    rows = EVERYBODY + operator(range(60), "left") + operator(range(60, 100), "right", wordings=2)
    return holdings_of(rows, N)


def refined(holdings: Holdings, proposals: list[np.ndarray]) -> list[list[int]]:
    found = refine(holdings, proposals, Rules())
    for members, scored in found:
        assert np.isin(members, scored.accounts).all()
    return [members.tolist() for members, _ in found]


PROPOSALS = [np.arange(0, 58), np.r_[np.arange(62, 100), np.arange(300, 306)], np.arange(50, 57), np.arange(400, 404)]
HALVES = "known: two halves of one operator count each other among the strangers, and both are lost"
BOTH = [list(range(60)), list(range(60, 100))]


def test_members_join_strangers_leave_and_each_account_is_in_one_cluster(two: Holdings) -> None:
    assert refined(two, PROPOSALS) == BOTH


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
def test_any_order_of_proposals_gives_the_same_clusters(two: Holdings, order: tuple[int, ...]) -> None:
    assert refined(two, [PROPOSALS[k] for k in order]) == BOTH


@pytest.mark.parametrize("cut", [pytest.param(30, marks=pytest.mark.xfail(strict=True, reason=HALVES)), 40, 45])
def test_pieces_of_one_operator_become_one_cluster(two: Holdings, cut: int) -> None:
    """Each half must not count the other among the strangers: together they would both be lost."""
    assert refined(two, [np.arange(cut), np.arange(cut, 60), np.arange(60, 100)]) == BOTH


def test_an_account_that_two_clusters_claim_alike_goes_to_the_same_one_in_any_order() -> None:
    rows, left, right = strangers_from(81), np.arange(40), np.arange(40, 80)
    for name, cluster in (("left", left), ("right", right)):
        rows += operator(cluster, name)
        rows += [(80, kind, f"{name} {kind} 0") for kind in ("card", "wording", "net")]
    holdings = holdings_of(rows, N)
    first, second = refined(holdings, [left, right]), refined(holdings, [right, left])
    assert sum(80 in c for c in first) == 1
    assert first == second


def strangers_from(first: int) -> list[Row]:
    return [row for row in EVERYBODY if row[0] >= first]


def test_nothing_proposed_or_too_little_gives_nothing(two: Holdings) -> None:
    assert refined(two, []) == []
    assert refined(two, [np.arange(2)]) == []
    assert refined(two, [np.arange(500, 540)]) == [], "strangers"
