"""Campaigns over time: names stay, parts and mergers are noted, nobody is flagged twice for the first time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.ledger import NEVER, Entry, Ledger

ACCOUNTS = 60


def group(*spans: tuple[int, int]) -> np.ndarray:
    return np.concatenate([np.arange(a, b) for a, b in spans])


def told(*steps: list[tuple[str, np.ndarray]]) -> tuple[Ledger, list[list[int]]]:
    """A ledger after these judgements, at times 10, 20 and so on, and the numbers each gave."""
    ledger = Ledger.empty(ACCOUNTS)
    return ledger, [ledger.record(found, 10 * (k + 1)) for k, found in enumerate(steps)]


def events(entry: Entry) -> list[tuple[int, str, int]]:
    return [e for e in entry.history if e[1] not in ("now", "grown")]


def test_a_name_stays_as_members_come_and_go() -> None:
    spans = [(0, 10), (2, 14), (6, 20), (10, 26)]
    ledger, numbers = told(*([(f"SW-{k}", group(s))] for k, s in enumerate(spans)))
    assert numbers == [[0]] * 4
    entry = ledger.entries[0]
    assert (entry.campaign_id, entry.named_at) == ("SW-0", 10)
    assert [n for _, _, n in entry.history if n > 0] == [10, 12, 14, 16], "how many they were, each time"
    assert np.flatnonzero(ledger.owner == 0).tolist() == list(range(10, 26))
    assert not ledger.entries[1:]


def test_a_campaign_of_others_is_another() -> None:
    ledger, numbers = told([("SW-a", group((0, 10)))], [("SW-a", group((0, 10))), ("SW-b", group((20, 30)))])
    assert numbers == [[0], [0, 1]]
    assert ledger.entries[1].predecessors == []


def test_less_than_half_in_common_is_another_campaign() -> None:
    ledger, numbers = told([("SW-a", group((0, 20)))], [("SW-b", group((15, 35)))])
    assert numbers == [[0], [1]]
    assert ledger.entries[1].predecessors == []
    assert ("cleared", 0) in [e[1:] for e in ledger.entries[0].history]


def test_of_two_parts_the_larger_keeps_the_name_and_the_other_says_where_it_came_from() -> None:
    parts = [("SW-b", group((0, 8))), ("SW-c", group((8, 20)))]
    ledger, numbers = told([("SW-a", group((0, 20)))], parts)
    assert numbers == [[0], [1, 0]]
    small = ledger.entries[1]
    assert (small.campaign_id, small.predecessors, small.named_at) == ("SW-b", ["SW-a"], 20)
    assert (20, "split: SW-b") in [e[:2] for e in ledger.entries[0].history]
    assert ledger.entries[0].merged_into is None


def test_two_that_become_one_merge_into_the_one_that_keeps_its_name() -> None:
    ledger, numbers = told(
        [("SW-a", group((0, 12))), ("SW-b", group((12, 20)))],
        [("SW-c", group((0, 20)))],
    )
    assert numbers == [[0, 1], [0]]
    a, b = ledger.entries
    assert (a.predecessors, a.merged_into) == (["SW-b"], None)
    assert b.merged_into == "SW-a"
    assert b.history[-1] == (20, "merged into SW-a", 0)
    assert (ledger.cleared_at == NEVER).all(), "nobody was let go"


def test_who_is_in_none_any_more_is_cleared_and_who_comes_back_is_not() -> None:
    ledger, _ = told([("SW-a", group((0, 20)))], [("SW-a", group((0, 15)))])
    assert np.flatnonzero(ledger.cleared_at == 20).tolist() == list(range(15, 20))
    ledger.record([("SW-a", group((0, 18)))], 30)
    assert np.flatnonzero(ledger.cleared_at != NEVER).tolist() == [18, 19]
    assert (ledger.cleared_at[18:20] == 20).all(), "the time is when it was first so"
    assert (ledger.flagged_at[:20] == 10).all()


def test_a_campaign_that_is_no_more_is_cleared_with_all_its_accounts() -> None:
    ledger, _ = told([("SW-a", group((0, 20)))], [])
    assert (ledger.owner == NEVER).all()
    assert (ledger.cleared_at[:20] == 20).all()
    assert events(ledger.entries[0])[-1] == (20, "cleared", 0)


def test_between_judgements_accounts_join_under_the_time_they_did() -> None:
    ledger, _ = told([("SW-a", group((0, 10)))])
    ledger.join(np.array([10, 11, 3]), np.array([0, 0, 0]), 15)
    assert ledger.flagged_at[[3, 10, 11]].tolist() == [10, 15, 15]
    ledger.record([("SW-z", group((0, 12)))], 20)
    assert ledger.flagged_at[[3, 10, 11]].tolist() == [10, 15, 15]
    assert ledger.entries[0].history[-1][2] == 12


def test_names_are_never_given_twice() -> None:
    """The same members, cleared and told again, would have the same name; what became of the first stays readable."""
    ledger, numbers = told([("SW-a", group((0, 20)))], [], [("SW-a", group((0, 20)))])
    assert numbers == [[0], [], [1]]
    assert len({e.campaign_id for e in ledger.entries}) == 2
    assert (ledger.flagged_at[:20] == 10).all(), "first flagged is first flagged"
    assert (ledger.cleared_at == NEVER).all()


def test_the_order_campaigns_are_found_in_changes_no_name() -> None:
    first = [("SW-a", group((0, 12))), ("SW-b", group((12, 20))), ("SW-c", group((30, 40)))]
    then = [("SW-d", group((0, 5))), ("SW-e", group((5, 20))), ("SW-f", group((31, 42)))]
    names = []
    for turn in (1, -1):
        ledger, numbers = told(first[::turn], then[::turn])
        names.append([ledger.entries[n].campaign_id for n in numbers[1]][::turn])
    assert names[0] == names[1]


partitions = st.lists(st.integers(-1, 3), min_size=ACCOUNTS, max_size=ACCOUNTS).map(np.array)


@settings(max_examples=150, deadline=None)
@given(st.lists(partitions, min_size=1, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_whatever_is_found_the_ledger_is_of_one_piece(found: list[np.ndarray], joins: list[bool]) -> None:
    ledger, at = Ledger.empty(ACCOUNTS), 0
    first = np.full(ACCOUNTS, NEVER)
    for label, grows in zip(found, joins):
        at += 10
        groups = [(f"SW-{at}-{k}", np.flatnonzero(label == k)) for k in range(4) if (label == k).any()]
        known = len(ledger.entries)
        before = ledger.owner.copy()
        numbers = ledger.record(groups, at)
        # Each campaign found has a number of its own, and its members and nobody else are in it.
        assert len(set(numbers)) == len(numbers) == len(groups)
        for n, (_, members) in zip(numbers, groups):
            assert np.array_equal(np.flatnonzero(ledger.owner == n), members)
        assert np.array_equal(ledger.owner == NEVER, label == -1)
        first = np.where((first == NEVER) & (label >= 0), at, first)
        # An old campaign that was not found again was merged or cleared, and says so now.
        for old in range(known):
            if old in before and old not in numbers:
                assert ledger.entries[old].history[-1][0] == at
        assert all(n < known or ledger.entries[n].named_at == at for n in numbers)
        if grows and numbers:
            free = np.flatnonzero(ledger.owner == NEVER)[:3]
            ledger.join(free, np.full(len(free), numbers[0]), at + 5)
            first[free] = np.where(first[free] == NEVER, at + 5, first[free])
        assert np.array_equal(ledger.flagged_at, first), "the first time never moves"
        flagged, inside, cleared = (a != NEVER for a in (ledger.flagged_at, ledger.owner, ledger.cleared_at))
        assert np.array_equal(flagged, inside | cleared)
        assert not (inside & cleared).any()
        assert (ledger.cleared_at[cleared] > ledger.flagged_at[cleared]).all()
    names = [e.campaign_id for e in ledger.entries]
    assert len(set(names)) == len(names)
    assert ledger.owner.max(initial=NEVER) < len(names)
    for e in ledger.entries:
        assert set(e.predecessors) | ({e.merged_into} if e.merged_into else set()) <= set(names) - {e.campaign_id}
        assert [t for t, _, _ in e.history] == sorted(t for t, _, _ in e.history)
