"""Traits of groups, each against what a hand-made log must give; finite for any group, and hanging on no number or order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures_engine import START, SmallLog, Town, town
from stillwatch.evidence import Holdings
from stillwatch.ground import Ground
from stillwatch.traits import dispatch, markers, traits, uneven, variety
from stillwatch.weighing import TRAITS, weights

# Dispatch


def dealt(seed: int, users: int, kinds: int, each: int) -> np.ndarray:
    """Counts (users, kinds) of a queue that all draw from."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(each, rng.dirichlet(np.full(kinds, 3.0)), size=users)


def own_work(seed: int, users: int, kinds: int, each: int) -> np.ndarray:
    """Counts of people who have a wording or two of their own each."""
    rng = np.random.default_rng(seed)
    return np.array([rng.multinomial(each, rng.dirichlet(np.full(kinds, 0.1))) for _ in range(users)])


def of_counts(counts: np.ndarray) -> float:
    user, which = np.nonzero(counts)
    return dispatch(user, which, counts[user, which].astype(float))


sizes = st.tuples(st.integers(0, 10_000), st.integers(20, 60), st.integers(6, 12), st.integers(20, 120))


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_what_one_queue_deals_out_scatters_as_chance_does(size: tuple[int, int, int, int]) -> None:
    assert abs(of_counts(dealt(*size))) < 0.9


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_people_have_work_of_their_own(size: tuple[int, int, int, int]) -> None:
    assert of_counts(own_work(*size)) > 1.5
    assert of_counts(own_work(*size)) > of_counts(dealt(*size)) + 1


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 1000))
def test_dispatch_hangs_on_no_number_and_no_order(size: tuple[int, int, int, int], seed: int) -> None:
    counts, rng = own_work(*size), np.random.default_rng(seed)
    other = counts[rng.permutation(len(counts))][:, rng.permutation(counts.shape[1])]
    assert of_counts(other) == pytest.approx(of_counts(counts))
    user, which = np.nonzero(counts)
    order = rng.permutation(len(user))
    again = dispatch(user[order], which[order], counts[user, which][order].astype(float))
    assert again == pytest.approx(of_counts(counts))


def test_an_account_for_each_wording_is_no_queue_however_many() -> None:
    assert of_counts(np.eye(30, dtype=int) * 40) == pytest.approx(np.log2(40), abs=0.2)


@pytest.mark.parametrize(
    "counts",
    [np.zeros((0, 3), int), np.ones((30, 1), int) * 9, np.ones((1, 30), int) * 9, np.eye(30, dtype=int)],
    ids=["nobody", "one wording", "one account", "one exchange each"],
)
def test_nothing_to_deal_out_is_no_queue(counts: np.ndarray) -> None:
    assert of_counts(counts) == 6.0


# A log by hand

TEN = np.arange(10)
OTHERS = 90


def by_hand() -> SmallLog:
    """Ten accounts of which all is known, and ninety others."""
    log = SmallLog()
    for k in range(10):
        who = log.account(
            card="company" if k < 6 else f"own {k}" if k < 8 else 0,
            org=f"org {k}" if k < 3 else 0,
            mail_domain="acme" if k < 8 else "free",
            verification="contract" if k < 2 else "none",
            programme="education" if k < 4 else None,
            issuer="bank" if k < 9 else "other",
            billing_country="here",
            phone_country="there" if k < 5 else "here",
            created_at=START,
        )
        net = "office" if k < 6 else f"home {k}"
        log.exchange(who, 3, net=net, wording="theirs", elicitation=0.9, capability=5, turn=1, prompt=f"p{k}")
        log.exchange(who, 1, net=f"away {k}", wording=f"own {k % 3}", elicitation=0.0, capability=10, prompt=f"q{k}")
    for k in range(OTHERS):
        who = log.account(card=f"card {k}", mail_domain="acme" if k < 2 else "free", created_at=START, issuer="other")
        log.exchange(who, 4, net=f"net {k}", wording=f"own {k % 3}", elicitation=0.0, capability=10, prompt=f"r{k}")
    return log


@pytest.fixture(scope="module")
def hand() -> Iterator[Ground]:
    log = by_hand()
    with log.opened() as engine:
        yield Ground.load(engine, Holdings.load(engine, len(log.accounts)))


MEASURED = {
    "size": np.log2(10),
    "one_payer": 0.6,
    "payers": 3 / 8,
    "org": 0.3,
    "vouched": 0.2,
    "taught": 0.4,
    "one_domain": 0.8 * 8 / 10,
    "one_site": 6 * 0.75 / 10,
    "crossing": 0.5,
    "exclusive": 1.0,
    "practising": 1.0,
    "practice": 0.75,
    "practice_even": 0.0,
    "repeats": np.log2(3),
    "owned": np.log2(11),
    "share_two": 0.6,
    "linked_paid": 0.6,
    "linked_networked": 0.6,
    "variety": 0.0,
    "whole_aimed": 30 / 40,
    "share_card": 0.6,
    "share_net": 0.6,
    "share_wording": 1.0,
    "share_system": 0.0,
    "share_phone": 0.0,
    "moved": 0.0,
}


@pytest.mark.parametrize("name", MEASURED)
def test_a_trait_is_what_can_be_counted_by_hand(hand: Ground, name: str) -> None:
    assert traits(hand, TEN)[name] == pytest.approx(MEASURED[name], abs=1e-6)


def test_what_they_practise_is_measured_on_the_wordings_that_mark_them(hand: Ground) -> None:
    """A quarter of what they ask is everybody's, and says nothing either way; others ask none of it."""
    found = traits(hand, TEN)
    assert found["read"] == pytest.approx(np.log2((0.9 + 0.02) / 0.02))
    assert found["aimed"] == pytest.approx(1)
    assert len(markers(hand, TEN)) == 1


def test_a_large_group_is_held_against_others_and_not_against_itself(hand: Ground) -> None:
    large = np.arange(0, 90)
    read = hand.measures["read"]
    assert read.of(large) == pytest.approx(30 * 0.9 / 360)
    assert read.usual(large) == 0
    assert read.usual(np.arange(10, 100)) == pytest.approx(30 * 0.9 / 40)
    assert read.usual(np.arange(100)) == 0, "beside everybody there is nobody"
    assert read.usual(np.arange(8)) == pytest.approx(30 * 0.9 / 400), "a small one against all, whoever is taken in"


@pytest.mark.parametrize(("told", "tasks"), [
    (lambda k, step: {"conversation": f"c {k} {step // 5}", "turn": step % 5 * 2}, 2),
    (lambda k, step: {"conversation": f"c {k} {step // 5}"}, 2),
    (lambda k, step: {"conversation": "one for all of them", "turn": 0}, 10),
    (lambda k, step: {}, 10),
], ids=["conversations", "without turns", "one name for all, which is anybody's to choose", "no conversations"])  # fmt: skip
def test_an_agent_s_steps_are_one_task(told: Callable[[int, int], dict[str, object]], tasks: int) -> None:
    """What is dealt out are tasks, however many steps each takes."""
    log = SmallLog()
    for k in range(60):
        who = log.account()
        for step in range(10):
            log.exchange(who, wording="theirs" if k < 10 else f"other {k % 3}", prompt=f"{k} {step}", **told(k, step))
    with log.opened() as engine:
        ground = Ground.load(engine, Holdings.load(engine, 60))
    assert set(ground.practice["tasks"]) == {tasks}
    assert traits(ground, TEN)["repeats"] == pytest.approx(np.log2(tasks))


def test_workers_of_one_queue_differ_by_chance_alone() -> None:
    """F of a one-way analysis of variance is near 1 where lengths are drawn from one pool, and large where each has its own."""
    rng = np.random.default_rng(4)
    who = np.repeat(np.arange(40), 25)

    def of(lengths: np.ndarray) -> float:
        n, sums = np.bincount(who).astype(float), np.bincount(who, lengths)
        return uneven(n, (sums, np.bincount(who, lengths**2)))

    dealt = rng.normal(5, 1, len(who))
    assert abs(of(dealt)) < 0.6
    assert of(dealt + rng.normal(0, 1, 40)[who]) > 3


def test_measures_are_pooled_by_how_much_of_each_there_is() -> None:
    """Eight coins alike for all beside one in which accounts differ: it is diluted, not lost; alone it is plain."""
    rng = np.random.default_rng(6)
    who = np.repeat(np.arange(30), 20)
    n = np.bincount(who).astype(float)
    fair = [np.bincount(who, rng.random(len(who)) < 0.5) for _ in range(8)]
    own = np.bincount(who, rng.random(len(who)) < np.where(who % 2, 0.9, 0.1))
    alone, among, none = (uneven(n, *((m, m) for m in ms)) for ms in ([own], [own, *fair], fair))
    assert alone > among + 0.5 > none + 1
    assert abs(none) < 0.5


@pytest.mark.parametrize("prompts", [True, False], ids=["told", "content missing"])
def test_a_queue_deals_out_each_prompt_once_and_people_ask_again(prompts: bool) -> None:
    log = SmallLog()
    for k in range(60):
        who = log.account()
        for step in range(8):
            asked = {"prompt": f"{k} {step % 4 if k < 10 else step}"} if prompts else {}
            log.exchange(who, wording="theirs" if k < 10 else f"other {k % 3}", **asked)
    with log.opened() as engine:
        ground = Ground.load(engine, Holdings.load(engine, 60))
    expected = 1.0 if prompts else 0.0
    assert traits(ground, TEN)["again"] == traits(ground, TEN)["whole_again"] == expected
    assert traits(ground, np.arange(20, 40))["whole_again"] == 0.0


def test_accounts_that_ask_each_about_something_else_differ_in_meaning() -> None:
    rng = np.random.default_rng(7)
    log = SmallLog()
    for k in range(80):
        who = log.account()
        for _ in range(12):
            code = rng.integers(1, 2**62) if k < 20 else hash_of(k) ^ (1 << int(rng.integers(64)) % 62)
            log.exchange(who, wording="dealt" if k < 20 else "own" if k < 40 else f"w{k % 3}", meaning=int(code))
    with log.opened() as engine:
        ground = Ground.load(engine, Holdings.load(engine, 80))
    dealt, own = (traits(ground, members) for members in (np.arange(20), np.arange(20, 40)))
    for name in ("uneven_meaning", "whole_meaning"):
        assert abs(dealt[name]) < 0.5
        assert own[name] > 3


def hash_of(k: int) -> int:
    """A number of 62 bits that looks drawn."""
    return int(np.random.default_rng(k).integers(1, 2**62))


def test_how_lengths_differ_is_not_told_of_two_accounts_or_of_equal_lengths() -> None:
    assert uneven(np.array([9.0, 9.0]), (np.array([9.0, 18.0]), np.array([20.0, 40.0]))) == 4.0
    assert uneven(np.full(9, 9.0), (np.full(9, 18.0), np.full(9, 36.0))) == 4.0


def test_people_use_fewer_wordings_than_dealing_out_would_give_them() -> None:
    rng = np.random.default_rng(5)
    dealt = rng.multinomial(20, np.full(15, 1 / 15), size=30)
    own = np.zeros((30, 15), int)
    own[np.arange(30), np.arange(30) % 15] = 18
    own[np.arange(30), (np.arange(30) + 1) % 15] = 2
    found = []
    for counts in (dealt, own):
        user, which = np.nonzero(counts)
        found.append(variety(user, which, counts[user, which].astype(float)))
    assert 0.9 < found[0] < 1.1
    assert found[1] < 0.2


def test_a_mail_domain_of_everybody_is_no_company(hand: Ground) -> None:
    assert traits(hand, np.arange(20, 40))["one_domain"] == pytest.approx(20 / 90)


def test_others_have_little_of_what_sets_the_ten_apart(hand: Ground) -> None:
    ten, others = traits(hand, TEN), traits(hand, np.arange(40, 60))
    assert len(markers(hand, np.arange(40, 60))) == 0
    for name in ("read", "marked", "aimed", "exclusive", "practising", "share_card", "share_net"):
        assert others[name] < ten[name], name


def test_what_many_share_is_rare_among_the_others() -> None:
    """A network that eighty of two hundred accounts come from is an operator's where these are its own, and a carrier's for
    whoever is a part of those who come from it."""
    log = SmallLog()
    for k in range(200):
        log.exchange(log.account(), 3, net="one" if k < 80 else f"own {k}")
    with log.opened() as engine:
        ground = Ground.load(engine, Holdings.load(engine, 200))
    assert traits(ground, np.arange(80))["share_net"] == 1.0
    assert traits(ground, np.arange(20))["share_net"] == 0.0


def test_who_moves_to_a_new_model_within_a_day() -> None:
    log = SmallLog()
    for k in range(60):
        who = log.account()
        log.exchange(who, 10, wording="one", model=0)
        # The ten turn to the new model at once, others stay.
        log.exchange(who, 10, wording="one", model=1 if k < 10 else 0)
    released = START + timedelta(minutes=5)
    with log.opened() as engine:
        engine.append("models", pa.table({
            "model": pa.array([1], pa.int32()), "released_at": pa.array([released], pa.timestamp("us", "UTC")),
        }))  # fmt: skip
        ground = Ground.load(engine, Holdings.load(engine, 60))
    assert traits(ground, TEN)["moved"] > 0.4
    assert traits(ground, np.arange(20, 30))["moved"] <= 0


# Any group


@pytest.fixture(scope="module")
def planted() -> Iterator[tuple[Town, Ground]]:
    made = town()
    with made.log.opened() as engine:
        yield made, Ground.load(engine, Holdings.load(engine, len(made.log.accounts)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_traits_are_numbers_for_any_group(planted: tuple[Town, Ground], data: st.DataObject) -> None:
    made, ground = planted
    some = data.draw(st.sets(st.integers(0, len(made.log.accounts) - 1), min_size=1, max_size=60))
    cluster = data.draw(st.sampled_from(sorted(made.clusters)))
    members = np.union1d(np.array(sorted(some)), made.clusters[cluster] if data.draw(st.booleans()) else [])
    found = traits(ground, members.astype(np.int64))
    assert set(found) >= set(TRAITS)
    assert all(np.isfinite(v) for v in found.values()), found
    assert all(-1e-9 <= found[f"share_{k}"] <= 1 for k in ("card", "phone", "net", "prompt", "wording", "system"))
    for name in (
        "exclusive",
        "practising",
        "practice",
        "one_payer",
        "one_domain",
        "one_site",
        "org",
        "vouched",
        "taught",
    ):
        assert -1e-9 <= found[name] <= 1 + 1e-9, name
    assert np.isfinite(weights().total(found))


def test_everybody_is_a_group_too(planted: tuple[Town, Ground]) -> None:
    made, ground = planted
    assert all(np.isfinite(v) for v in traits(ground, np.arange(len(made.log.accounts))).values())


def test_a_log_without_wordings_cards_or_networks_has_traits() -> None:
    log = SmallLog()
    for _ in range(20):
        log.exchange(log.account(), 3)
    with log.opened() as engine:
        ground = Ground.load(engine, Holdings.load(engine, 20))
    for members in (np.arange(8), np.arange(20), np.arange(1)):
        found = traits(ground, members)
        assert all(np.isfinite(v) for v in found.values()), found
        assert (found["owned"], found["practising"], found["dispatch"], found["one_payer"]) == (-4, 0, 6, 0)


def test_accounts_that_ask_nothing_are_members_like_others() -> None:
    """The accounts file may list more than the log shows."""
    log = by_hand()
    silent = [log.account(card="company") for _ in range(3)]
    with log.opened() as engine:
        ground = Ground.load(engine, Holdings.load(engine, len(log.accounts)))
    found = traits(ground, np.r_[TEN, silent])
    assert all(np.isfinite(v) for v in found.values())
    assert found["one_payer"] == pytest.approx(9 / 13)


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_in_another_order_give_the_same_traits(planted: tuple[Town, Ground], seed: int) -> None:
    made, ground = planted
    with made.log.opened(seed) as engine:
        again = Ground.load(engine, Holdings.load(engine, len(made.log.accounts)))
    for members in made.clusters.values():
        assert traits(again, members) == pytest.approx(traits(ground, members))


def test_accounts_under_other_numbers_have_the_same_traits(hand: Ground) -> None:
    log = by_hand()
    to = np.random.default_rng(4).permutation(len(log.accounts))
    other = SmallLog()
    numbered = sorted(zip(to.tolist(), log.accounts))
    other.accounts = [row | {"account": n, "customer": n} for n, row in numbered]
    other.facts = [row | {"account": int(to[row["account"]])} for row in log.facts]
    with other.opened() as engine:
        again = Ground.load(engine, Holdings.load(engine, len(other.accounts)))
    for members in (TEN, np.arange(5, 30), np.arange(40, 60)):
        assert traits(again, np.sort(to[members])) == pytest.approx(traits(hand, members))


def test_an_organisation_s_accounts_are_one_customer() -> None:
    """Seats carry the number of their first account; what they ask is its."""
    log = by_hand()
    seats = [log.account(org="big", card="big card") for _ in range(4)]
    for s in seats:
        log.accounts[s]["customer"] = seats[0]
        log.exchange(s, 2, wording="theirs", net="big net", elicitation=0.9, capability=5)
    with log.opened() as engine:
        ground = Ground.load(engine, Holdings.load(engine, len(log.accounts)))
    assert ground.totals["n"][seats].tolist() == [8, 0, 0, 0]
    assert traits(ground, np.r_[TEN, seats[0]])["org"] == pytest.approx(4 / 11)


@pytest.mark.parametrize("more", [1, 400])
def test_accounts_that_have_not_been_seen_yet_change_no_trait(planted: tuple[Town, Ground], more: int) -> None:
    """A replay numbers all accounts of a log at once; what it judges is what has arrived."""
    made, ground = planted
    with made.log.opened() as engine:
        wider = Ground.load(engine, Holdings.load(engine, len(made.log.accounts) + more))
    for members in made.clusters.values():
        expected, found = traits(ground, members), traits(wider, members)
        assert {n: found[n] for n in expected if found[n] != pytest.approx(expected[n])} == {}
