"""Known campaigns in what has just arrived: who takes up what marks one is told, who shares only what everybody has is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest

from fixtures_engine import Town, hashed, town
from stillwatch.arrivals import Arrivals, Seats
from stillwatch.cases import Case, convene
from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.intake import Intake
from stillwatch.ledger import NEVER, Ledger
from stillwatch.membership import Rules, belonging, vouched
from stillwatch.recognition import Book, Profile, Seen, keys_of, recognise
from stillwatch.replay import greet
from stillwatch.tables import FACTS, PROFILES
from stillwatch.watch import Watch

Held = dict[str, list[str]]
Asked = list[tuple[str, bool]]


@dataclass
class Known:
    """The planted town, and the profiles of its campaign and its ring (numbers 3 and 5)."""

    town: Town
    holdings: Holdings
    cases: dict[str, Case]
    profiles: dict[str, Profile]
    book: Book


@pytest.fixture(scope="module")
def known() -> Iterator[Known]:
    made = town()
    with made.log.opened() as engine:
        holdings = Holdings.load(engine, len(made.log.accounts))
        clusters = [(made.clusters[n], vouched(holdings, made.clusters[n])) for n in ("campaign", "ring")]
        cases = dict(zip(("campaign", "ring"), convene(engine, holdings, clusters)))
    profiles = {name: Profile.of(holdings, case) for name, case in cases.items()}
    yield Known(made, holdings, cases, profiles, Book.of([(3, profiles["campaign"]), (5, profiles["ring"])]))


def seen(*accounts: tuple[Held, Asked]) -> Seen:
    """Accounts 1000, 1001 and so on: values by kind, and exchanges as (wording, read like training data)."""
    row, kind, keys, asker, wording, elicited = [], [], [], [], [], []
    for k, (held, asked) in enumerate(accounts):
        held = held | {"wording": sorted({w for w, _ in asked if w})}
        for name, values in held.items():
            code = KIND_NAMES.index(name)
            row += [k] * len(values)
            kind += [code] * len(values)
            keys += keys_of(code, np.array([hashed(v) for v in values], np.int64)).tolist()
        asker += [k] * len(asked)
        wording += [hashed(w) if w else 0 for w, _ in asked]
        elicited += [e for _, e in asked]
    number = 1000 + np.arange(len(accounts))
    return Seen(
        number, np.array(row, np.int64), np.array(kind, np.int64), np.array(keys, np.int64), np.array(asker, np.int64),
        np.array(wording, np.int64), np.zeros(len(asker), np.int64), np.array(elicited, bool),
    )  # fmt: skip


def told(book: Book, *accounts: tuple[Held, Asked]) -> dict[int, int]:
    found, which = recognise(book, seen(*accounts), Rules())
    return dict(zip((found - 1000).tolist(), which.tolist()))


THEIRS: Asked = [("campaign wording 0", True), ("campaign wording 1", True), ("campaign wording 2", True)]
COMMON: Asked = [("common 1", False), ("common 2", False)]
NETS: Held = {"net": ["campaign net 1", "campaign net 2"]}


def test_who_takes_up_their_wordings_on_their_networks_is_recognised(known: Known) -> None:
    assert told(known.book, (NETS, THEIRS)) == {0: 3}
    assert told(known.book, ({"card": ["campaign card 1"]}, THEIRS)) == {0: 3}


NOT_THEM: dict[str, tuple[Held, Asked]] = {
    "a common network": ({"net": ["home 7", "home 8"]}, COMMON),
    "one of their networks": ({"net": ["campaign net 1"]}, COMMON),
    "their networks and nothing they ask": (NETS, COMMON),
    "their wordings alone": ({"net": ["home 7"]}, THEIRS),
    "their networks and training data of its own": (NETS, [("own", True)] * 4),
    "nothing": ({}, []),
    "values nobody knows": ({"net": ["new 1"], "card": ["new 2"]}, [("new 3", True)]),
}


@pytest.mark.parametrize("name", NOT_THEM)
def test_who_shares_only_one_trace_or_what_everybody_has_is_not(known: Known, name: str) -> None:
    assert told(known.book, NOT_THEM[name]) == {}


def test_a_mixture_is_recognised_by_the_part_that_is_theirs_if_that_is_as_usual(known: Known) -> None:
    """Camouflage is no proof of innocence; a single exchange among hundreds is no part taken."""
    held: Held = {"net": ["campaign net 1", "campaign net 2", "home 7"]}
    assert told(known.book, (held, THEIRS + COMMON)) == {0: 3}
    assert told(known.book, (held, THEIRS[:1] + COMMON * 100)) == {}


def test_each_account_is_told_for_the_campaign_it_has_most_of(known: Known) -> None:
    ring: Asked = [("ring wording 0", True), ("ring wording 1", True), ("ring wording 2", True)]
    both: Held = {"net": ["ring net 0", "ring net 1", "ring net 2"], "card": ["ring card 1"]}
    accounts = [(both, ring), (NETS, THEIRS), NOT_THEM["a common network"]]
    assert told(known.book, *accounts) == {0: 5, 1: 3}
    backwards = Book.of([(5, known.profiles["ring"]), (3, known.profiles["campaign"])])
    assert told(backwards, *accounts) == {0: 5, 1: 3}


def test_accounts_are_told_alike_alone_and_together(known: Known) -> None:
    accounts = [(NETS, THEIRS), *NOT_THEM.values(), ({"card": ["campaign card 1"]}, THEIRS)]
    together = told(known.book, *accounts)
    assert together == {k: 3 for k, account in enumerate(accounts) if told(known.book, account)}


def test_nothing_known_nobody_recognised(known: Known) -> None:
    assert told(Book.of([]), (NETS, THEIRS)) == {}
    assert not Book.of([]).tells(np.arange(3)).any()
    assert recognise(known.book, seen(), Rules())[0].size == 0


def test_telling_keys_are_those_that_mark_a_campaign_and_no_descriptions(known: Known) -> None:
    net, client = KIND_NAMES.index("net"), KIND_NAMES.index("client")
    words = ["campaign net 1", "ring net 1", "home 7", "new"]
    keys = keys_of(net, np.array([hashed(w) for w in words], np.int64))
    assert known.book.tells(keys).tolist() == [True, True, False, False]
    assert not known.book.tells(keys_of(client, np.array([hashed("campaign net 1")], np.int64))).any()


def test_a_profile_knows_its_own_members_as_the_judgement_did(known: Known) -> None:
    """Members held against the profile: all of them pass, as they pass held against each other."""
    case, holdings = known.cases["campaign"], known.holdings
    position, held = holdings.values_of(case.members)
    keys = keys_of(holdings.kind[held], holdings.value[held])
    scored = known.profiles["campaign"].score(case.members, position, holdings.kind[held], keys)
    assert np.array_equal(scored.members(Rules()), case.members)
    strangers = np.arange(200)
    position, held = holdings.values_of(strangers)
    keys = keys_of(holdings.kind[held], holdings.value[held])
    others = known.profiles["campaign"].score(strangers, position, holdings.kind[held], keys)
    assert len(others.members(Rules())) == 0
    assert others.total.max() < scored.total.min()


def test_keys_of_two_kinds_do_not_meet() -> None:
    values = np.array([hashed(str(k)) for k in range(200)], np.int64)
    keys = np.concatenate([keys_of(k, values) for k in range(len(KIND_NAMES))])
    assert len(np.unique(keys)) == len(keys)


# Greeting


def arrived(planted: Town) -> tuple[Arrivals, pa.Table]:
    """The town's log laid out in time, its wordings and system texts as they are known."""
    blank = dict.fromkeys(FACTS.names)
    facts = pa.Table.from_pylist([blank | r for r in planted.log.facts], schema=FACTS.schema)
    rows = [dict.fromkeys(PROFILES.names) | r for r in planted.log.accounts]
    known = pa.Table.from_pylist(rows, schema=PROFILES.schema)
    intake = Intake(
        facts=facts.drop_columns("wording").combine_chunks().to_batches(),
        sketches=[np.zeros((facts.num_rows, 1), np.uint32)],
    )
    arrivals = Arrivals.of(intake, known)
    arrivals.wording[:] = facts["wording"].fill_null(0).to_numpy()
    return arrivals, known


@pytest.fixture(scope="module")
def later() -> tuple[Town, dict[str, np.ndarray]]:
    """The same town, in which three accounts have come since: one of theirs, a stranger, and an organisation's two."""
    made = town()
    log = made.log
    new = log.account(card="new", mail_domain="free1")
    other = log.account(card="other", mail_domain="free1")
    seats = [log.account(card="seat", org="big") for _ in range(2)]
    log.accounts[seats[1]]["customer"] = seats[0]
    for who in (new, *seats):
        for k in range(6):
            log.exchange(
                who, wording=f"campaign wording {k % 3}", net=f"campaign net {k}", elicitation=0.9, capability=6
            )
    log.exchange(other, 4, wording="common 1", net="home 7", elicitation=0.0, capability=10)
    return made, {"new": np.array([new]), "other": np.array([other]), "seats": np.array(seats)}


def greeted(known: Known, later: tuple[Town, dict[str, np.ndarray]], seats: np.ndarray | None = None) -> Ledger:
    arrivals, _ = arrived(later[0])
    watch = Watch(Ledger.empty(len(later[0].log.accounts)), book=known.book, until=len(arrivals))
    for number, name in ((3, "campaign"), (5, "ring")):
        members = known.cases[name].members
        watch.ledger.join(members, np.full(len(members), number), 10)
    greet(watch, arrivals, arrivals.order, Seats.of(arrivals).by(len(arrivals)) if seats is None else seats, 20)
    return watch.ledger


def test_a_newcomer_of_theirs_is_greeted_and_a_stranger_is_not(
    known: Known, later: tuple[Town, dict[str, np.ndarray]]
) -> None:
    ledger = greeted(known, later)
    who = later[1]
    assert ledger.owner[who["new"]].tolist() == [3]
    assert ledger.flagged_at[who["new"]].tolist() == [20]
    assert ledger.owner[who["other"]].tolist() == [NEVER]
    assert (ledger.owner[:500] == NEVER).all(), "nor is anybody who was there before"
    assert (ledger.flagged_at[known.cases["campaign"].members] == 10).all()


def test_a_declared_organisation_s_seats_are_never_accused(
    known: Known, later: tuple[Town, dict[str, np.ndarray]]
) -> None:
    seats = later[1]["seats"]
    assert (greeted(known, later).owner[seats] == NEVER).all()
    without = greeted(known, later, seats=np.zeros(0, np.int64))
    assert without.owner[seats[0]] == 3, (
        "what they do is what the campaign does: it is the declaration that spares them"
    )


def test_seats_are_known_once_the_second_has_arrived(later: tuple[Town, dict[str, np.ndarray]]) -> None:
    arrivals, _ = arrived(later[0])
    seats = Seats.of(arrivals)
    first, second = later[1]["seats"]
    place = int(np.flatnonzero(arrivals.account[arrivals.order] == second)[0])
    assert (arrivals.account[arrivals.order[:place]] == first).any()
    assert first not in seats.by(place)
    assert first in seats.by(place + 1)
    assert second not in seats.by(len(arrivals)), "one customer, under the number of its first account"


def test_who_was_looked_at_is_looked_at_again_only_with_something_new(
    known: Known, later: tuple[Town, dict[str, np.ndarray]]
) -> None:
    arrivals, _ = arrived(later[0])
    watch = Watch(Ledger.empty(len(later[0].log.accounts)), book=known.book, until=len(arrivals))
    greet(watch, arrivals, arrivals.order, Seats.of(arrivals).by(len(arrivals)), 20)
    first, tried = watch.ledger.owner.copy(), watch.tried
    watch.ledger.owner[:] = NEVER
    greet(watch, arrivals, arrivals.order, Seats.of(arrivals).by(len(arrivals)), 30)
    assert (first != NEVER).any()
    assert (watch.ledger.owner == NEVER).all()
    assert np.array_equal(watch.tried, tried)


def test_only_what_had_arrived_is_looked_at(known: Known, later: tuple[Town, dict[str, np.ndarray]]) -> None:
    """One exchange into its life the newcomer shows one wording and one network; the rest is still to come."""
    arrivals, _ = arrived(later[0])
    new = later[1]["new"]
    mine = np.flatnonzero(arrivals.customer[arrivals.order] == new[0])
    early, late = (arrivals.seen(new, int(until), np.zeros(0, np.int64)) for until in (mine[0] + 1, mine[-1] + 1))
    assert len(early.asker) == 1
    assert len(late.asker) == 6
    assert len(arrivals.seen(new, int(mine[0]), np.zeros(0, np.int64)).asker) == 0
    assert np.isin(early.keys, late.keys).all()


def test_profile_of_a_case_scored_either_way(known: Known) -> None:
    """A profile is worked out from members, whichever score found them."""
    case = known.cases["campaign"]
    other = replace(case, scored=belonging(known.holdings, case.members))
    first, second = Profile.of(known.holdings, case), Profile.of(known.holdings, other)
    assert np.array_equal(first.keys, second.keys)
    assert np.allclose(first.gain, second.gain)
