"""Hypotheses to groups: no account in two, the better version stands, and what is left over is weighed on its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures_engine import PLAIN_WEIGHTS, START, SmallLog, Town, town, weights_of
from stillwatch.evidence import Holdings
from stillwatch.ground import Ground
from stillwatch.grouping import (
    PRICE,
    PROMISING,
    SMALLEST,
    Group,
    apart,
    completed,
    disjoint,
    groups,
    improved,
    plainly,
    purged,
    weighed,
    worth,
)
from stillwatch.hypotheses import hypotheses
from stillwatch.membership import Rules, belonging
from stillwatch.weighing import probability, weights

RULES = Rules()


@pytest.fixture(scope="module")
def planted() -> Iterator[tuple[Town, Ground]]:
    made = town()
    with made.log.opened() as engine:
        yield made, Ground.load(engine, Holdings.load(engine, len(made.log.accounts)))


def group(members: np.ndarray, bits: float) -> Group:
    return Group(members, {}, bits)


# What a group is worth


@given(st.floats(-60, 60), st.floats(0, 20), st.integers(5, 1000))
def test_worth_rises_with_the_odds_and_turns_where_one_wrong_undoes_so_many(
    bits: float, more: float, size: int
) -> None:
    low, high = (worth(group(np.arange(size), b)) for b in (bits, bits + more))
    assert -PRICE * size <= low <= high <= size
    assert (low > 0) == (probability(bits) > PRICE / (1 + PRICE))
    twice = worth(group(np.arange(2 * size), bits))
    assert twice == pytest.approx(2 * low)


# Groups


def assert_of_one_piece(found: list[Group]) -> None:
    everybody = np.concatenate([np.zeros(0, np.int64), *(g.members for g in found)])
    assert len(np.unique(everybody)) == len(everybody), "no account in two groups"
    for g in found:
        assert len(g.members) >= SMALLEST
        assert (np.diff(g.members) > 0).all()
        assert g.bits >= PROMISING
    keys = [(-max(0.0, worth(g)), -g.bits) for g in found]
    assert keys == sorted(keys), "weightiest first"


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_proposed_no_account_is_in_two_groups(planted: tuple[Town, Ground], data: st.DataObject) -> None:
    made, ground = planted
    names = sorted(made.clusters)
    proposals = []
    for _ in range(data.draw(st.integers(0, 4))):
        parts = [made.clusters[n] for n in data.draw(st.lists(st.sampled_from(names), max_size=3))]
        strangers = np.array(sorted(data.draw(st.sets(st.integers(0, 499), max_size=20))), np.int64)
        whole = np.unique(np.concatenate([strangers, *parts]))
        if len(whole) >= SMALLEST:
            proposals.append(whole[: data.draw(st.integers(SMALLEST, len(whole)))])
    found = groups(ground, proposals, PLAIN_WEIGHTS, RULES)
    assert_of_one_piece(found)
    for g in found:
        assert g.bits == pytest.approx(weighed(ground, g.members, PLAIN_WEIGHTS).bits), "as it stands, not as proposed"


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_hypotheses_changes_nothing(planted: tuple[Town, Ground], seed: int) -> None:
    made, ground = planted
    proposals = [*made.clusters.values(), np.arange(30), np.r_[np.arange(100, 110), made.clusters["campaign"][:30]]]
    order = np.random.default_rng(seed).permutation(len(proposals))
    first, second = (
        groups(ground, p, PLAIN_WEIGHTS, RULES) for p in (proposals, [proposals[k] for k in order])
    )  # fmt: skip
    assert [g.members.tolist() for g in first] == [g.members.tolist() for g in second]


def test_a_planted_campaign_stands_and_strangers_proposed_with_it_do_not(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    campaign = made.clusters["campaign"]
    for shipped in (weights(), PLAIN_WEIGHTS):
        found = groups(ground, [np.r_[np.arange(6), campaign]], shipped, RULES)
        assert [g.members.tolist() for g in found] == [campaign.tolist()]


def test_what_the_proposal_left_out_joins(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    campaign = made.clusters["campaign"]
    found = groups(ground, [campaign[5:]], PLAIN_WEIGHTS, RULES)
    assert [g.members.tolist() for g in found] == [campaign.tolist()]


def test_the_whole_way_from_values_finds_the_campaign_as_one_group(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    campaign = made.clusters["campaign"]
    found = groups(ground, hypotheses(ground.holdings), PLAIN_WEIGHTS, RULES)
    assert_of_one_piece(found)
    best = max(len(np.intersect1d(g.members, campaign)) / len(np.union1d(g.members, campaign)) for g in found)
    assert best >= 0.9


# Groups that are sure are completed

SURELY = replace(PLAIN_WEIGHTS, standing=(1.0, 0.0, 40.0))
UNSURE = replace(PLAIN_WEIGHTS, standing=(1.0, 0.0, -80.0))


def standing_of(ground: Ground, *parts: np.ndarray) -> list[Group]:
    return [weighed(ground, np.sort(p), PLAIN_WEIGHTS) for p in parts]


def test_whoever_likely_belongs_to_a_sure_group_joins_it_and_strangers_do_not(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    campaign = made.clusters["campaign"]
    found = completed(ground, standing_of(ground, campaign[8:]), SURELY, RULES)
    assert [g.members.tolist() for g in found] == [campaign.tolist()]
    assert found[0].bits == pytest.approx(weighed(ground, campaign, PLAIN_WEIGHTS).bits)


def test_nobody_joins_a_group_that_is_not_sure(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    most = made.clusters["campaign"][8:]
    found = completed(ground, standing_of(ground, most), UNSURE, RULES)
    assert [g.members.tolist() for g in found] == [most.tolist()]


def test_nobody_joins_a_group_whose_wordings_others_use_as_much(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    half = made.clusters["campaign"][::2]
    found = completed(ground, standing_of(ground, half), SURELY, RULES)
    assert [g.members.tolist() for g in found] == [half.tolist()]


def test_nobody_joins_who_would_make_a_group_less_sure(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    most = made.clusters["campaign"][8:]
    doubting = replace(SURELY, standing=(1.0, -60.0, 400.0))
    assert doubting.odds(weighed(ground, most, PLAIN_WEIGHTS).traits) >= 2
    found = completed(ground, standing_of(ground, most), doubting, RULES)
    assert [g.members.tolist() for g in found] == [most.tolist()]


@pytest.fixture(scope="module")
def crowd() -> Iterator[Ground]:
    """Thirty of one operator, three of them without a card that another has, use its wording and a public one; eight strangers
    use the public one, and so do some of all others."""
    log = SmallLog()
    for k in range(1500):
        who = log.account(card=f"pool {k // 9}" if k < 27 else f"own {k}", created_at=START)
        if k < 30:
            log.exchange(who, 3, wording="theirs", net=f"home {k}")
        log.exchange(who, 3, wording="public" if k < 38 or k % 20 == 0 else f"common {k % 9}", net=f"home {k}")
    with log.opened() as engine:
        yield Ground.load(engine, Holdings.load(engine, 1500))


def test_strangers_who_use_one_of_an_operator_s_wordings_are_left_out(crowd: Ground) -> None:
    together = np.arange(38)
    assert plainly(crowd.holdings, together, RULES).tolist() == list(range(27))
    sharing = weights_of(-3.0, share_two=6.0)
    assert purged(crowd, weighed(crowd, together, sharing), sharing, RULES).members.tolist() == list(range(27))


def test_who_shows_less_stays_where_they_would_be_an_operator_s_by_themselves(crowd: Ground) -> None:
    everybody = weights_of(3.0, share_two=6.0)
    whole = weighed(crowd, np.arange(38), everybody)
    assert purged(crowd, whole, everybody, RULES).members.tolist() == list(range(38))
    assert improved(crowd, whole, everybody, RULES).members.tolist() == list(range(38))
    sharing = weights_of(-3.0, share_two=6.0)
    assert improved(crowd, whole, sharing, RULES).members.tolist() == list(range(27))


def test_two_pieces_of_one_campaign_become_one_and_another_group_stays(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    campaign, others = made.clusters["campaign"], made.clusters["company"]
    pieces = standing_of(ground, campaign[8:], campaign[:8], others)
    found = completed(ground, pieces, SURELY, RULES)
    assert sorted(g.members.tolist() for g in found) == sorted([campaign.tolist(), others.tolist()])


def test_strangers_are_no_group(planted: tuple[Town, Ground]) -> None:
    _, ground = planted
    assert groups(ground, [np.arange(40), np.arange(100, 130)], PLAIN_WEIGHTS, RULES) == []
    assert groups(ground, [], PLAIN_WEIGHTS, RULES) == []


def test_what_weighs_too_little_does_not_stand(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    light = weights_of(PROMISING - 0.1)
    assert groups(ground, list(made.clusters.values()), light, RULES) == []
    just = replace(light, start=PROMISING)
    assert groups(ground, [made.clusters["campaign"]], just, RULES) != []


# Apart


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(5, 40), st.floats(PROMISING, 12)), max_size=5))
def test_what_two_claim_stays_with_the_weightier(
    planted: tuple[Town, Ground], claims: list[tuple[int, int, float]]
) -> None:
    _, ground = planted
    standing = [group(np.arange(a, a + size), bits) for a, size, bits in claims]
    found = apart(ground, standing, weights_of(2.0))
    everybody = np.concatenate([np.zeros(0, np.int64), *(g.members for g in found)])
    assert len(np.unique(everybody)) == len(everybody)
    if standing:
        best = max(standing, key=lambda g: (max(0.0, worth(g)), g.bits, len(g.members), -int(g.members[0])))
        assert any(g is best for g in found), "the weightiest keeps all its members"
    for g in found:
        assert len(g.members) >= SMALLEST
        assert any(np.isin(g.members, s.members).all() for s in standing)


def test_what_is_left_of_a_group_must_still_be_a_group(planted: tuple[Town, Ground]) -> None:
    _, ground = planted
    heavy, light = group(np.arange(20), 9.0), group(np.arange(10, 24), 8.0)
    assert apart(ground, [light, heavy], weights_of(2.0)) == [heavy], "four are too few"
    wide = group(np.arange(10, 30), 8.0)
    found = apart(ground, [wide, heavy], weights_of(2.0))
    assert [g.members.tolist() for g in found] == [list(range(20)), list(range(20, 30))]
    assert found[1].bits == pytest.approx(2.0), "weighed again without what it lost"
    assert apart(ground, [wide, heavy], weights_of(PROMISING - 1)) == [heavy], "and no longer heavy enough"


# With others


def test_clusters_found_another_way_are_kept_where_no_group_has_taken_them(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    holdings = ground.holdings
    campaign, site = made.clusters["campaign"], made.clusters["site"]
    standing = [weighed(ground, campaign, PLAIN_WEIGHTS)]
    scored = belonging(holdings, site)
    mixed, mostly = np.r_[campaign[:20], np.sort(site)[:20]], np.r_[campaign[:5], site]
    others = [(site, scored), (np.sort(mixed), scored), (np.sort(mostly), scored), (campaign[:30], scored)]
    found = [members.tolist() for members, _ in disjoint(holdings, [], standing, others)]
    assert sorted(map(len, found)) == sorted((len(site), len(campaign))), "what was taken is not told again"
    assert found.count(site.tolist()) == found.count(campaign.tolist()) == 1
    assert [len(m) for m in found] == sorted((len(m) for m in found), reverse=True)
    for members, s in disjoint(holdings, [], standing, others):
        assert np.isin(members, s.accounts).all()


def test_nothing_stands_and_nothing_else_was_found(planted: tuple[Town, Ground]) -> None:
    assert disjoint(planted[1].holdings, [], [], []) == []
