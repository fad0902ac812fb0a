"""The table of what is in force: strictest wins, what expired does not count, no damage raises a rung or forgets one."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.responders import Buckets
from stillwatch.serving import snapshot
from stillwatch.serving.belonging import Belongings
from stillwatch.serving.decisions import Decisions, Table
from stillwatch.serving.gateways import hashed
from stillwatch.serving.marks import Marks
from stillwatch.types import InForce, Part, Rung

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
KEY = b"a key that only the server has"
MARKS = Marks(KEY)


def held(rung: Rung, who: str = "acme", *, ends_in_h: float = 1, **settings: Any) -> InForce:
    return InForce(who, rung, f"act-{who}-{rung}", "camp-1", NOW + timedelta(hours=ends_in_h), settings)


class Clock:
    """A monotonic clock that a test sets; it can do what a real one must not."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# What is asked


def test_who_is_unknown_passes_and_is_counted() -> None:
    decisions = Decisions(Table({"acme": held(Rung.SUSPEND)}))
    assert decisions.ask("other", "", "", NOW) is None
    assert (decisions.counts.asked, sum(decisions.counts.in_force.values())) == (1, 0)


def test_the_strictest_of_account_key_and_end_user_wins() -> None:
    table = Table(
        {"acme": held(Rung.PROTECT)},
        {MARKS.key("k"): held(Rung.SUSPEND, "by key")},
        {MARKS.end_user("acme", "eve"): held(Rung.THROTTLE, "by end user")},
    )
    decisions = Decisions(table, marks=MARKS)
    assert decisions.ask("acme", "", "", NOW).rung is Rung.PROTECT
    assert decisions.ask("acme", "", "eve", NOW).rung is Rung.THROTTLE
    assert decisions.ask("acme", "k", "eve", NOW).rung is Rung.SUSPEND
    assert decisions.counts.in_force[Rung.SUSPEND] == 1


def test_an_account_that_is_named_by_its_key_is_found_by_the_key() -> None:
    key = hashed("sk-1")
    decisions = Decisions(
        Table({key: held(Rung.SUSPEND, key, ends_in_h=1)}, {MARKS.key(key): held(Rung.PROTECT, key, ends_in_h=3)}),
        marks=MARKS,
    )
    assert decisions.ask("whoever pays", key, "", NOW).rung is Rung.SUSPEND
    assert decisions.ask("whoever pays", key, "", NOW + timedelta(hours=2)).rung is Rung.PROTECT
    assert decisions.ask("whoever pays", hashed("sk-2"), "", NOW) is None
    # What is no digest is no key: an account is not reached by way of a key that is called as it is.
    assert Decisions(Table({"acme": held(Rung.SUSPEND)})).ask("other", "acme", "", NOW) is None
    shadowed = Decisions(Table(shadows={key: held(Rung.SUSPEND, key)}))
    assert shadowed.ask("whoever pays", key, "", NOW) is None
    assert shadowed.counts.shadow[Rung.SUSPEND] == 1


def test_an_end_user_is_one_of_its_account_and_nobody_elses() -> None:
    suspended = held(Rung.SUSPEND, "by end user")
    table = Table(
        end_users={MARKS.end_user("acme", "eve"): suspended, MARKS.end_user(hashed("sk-1"), "bob"): suspended}
    )
    decisions = Decisions(table, marks=MARKS)
    assert decisions.ask("acme", "", "eve", NOW) is suspended
    for others in (("other", "", "eve"), ("acme", "", "adam"), ("acme", "", ""), ("", "", "eve"), ("acmee", "", "ve")):
        assert decisions.ask(*others, NOW) is None, others
    # Where the log names accounts by their keys, an end user is one of the key's.
    assert decisions.ask("team", hashed("sk-1"), "bob", NOW) is suspended
    assert Decisions(table, marks=Marks(b"another")).ask("acme", "", "eve", NOW) is None


def test_who_is_known_by_key_or_end_user_alone_is_asked_for_by_account(tmp_path: Path) -> None:
    key, slow = hashed("sk-1"), held(Rung.THROTTLE, "by end user")
    known = Belongings(tmp_path / "b.jsonl", MARKS)
    table = Table({"acme": held(Rung.SUSPEND)}, end_users={MARKS.end_user("calm", "cec"): slow})
    decisions = Decisions(table, marks=MARKS, owner=known.owner)
    assert decisions.ask("", key, "", NOW) is None
    known.learn_keys([("acme", key), ("calm", hashed("sk-2"))])
    known.learn([exchanges([("acme", "eve"), ("calm", "cec"), ("acme", "both"), ("calm", "both"), ("calm", None)])])
    assert decisions.ask("", key, "", NOW).rung is Rung.SUSPEND
    assert decisions.ask("", "", "eve", NOW).rung is Rung.SUSPEND
    assert decisions.ask("", "", "cec", NOW) is slow
    assert decisions.ask("", "", "both", NOW) is None, "of two accounts is of none"
    assert decisions.ask("calm", key, "", NOW) is None, "the account that is named is believed"
    assert decisions.ask("", hashed("sk-2"), "eve", NOW) is None, "the key says whose it is, the end user then does not"
    assert (len(known), known.shared) == (5, 1)


def exchanges(pairs: list[tuple[str, str | None]]) -> pa.RecordBatch:
    accounts, end_users = zip(*pairs)
    return pa.RecordBatch.from_pydict(
        {"account_id": pa.array(accounts, pa.string()), "end_user": pa.array(end_users, pa.string())}
    )


def test_whose_they_are_outlives_a_restart_in_a_file_of_marks(tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    known = Belongings(file, MARKS)
    known.write()
    assert not file.exists()
    known.learn([exchanges([("acme", "eve-4711")])])
    known.write()
    known.learn([exchanges([("other", "eve-4711"), ("acme", "adam")])])
    known.learn_keys([("acme", hashed("sk-1"))])
    known.write()
    known.write()
    assert len(file.read_text().splitlines()) == 4
    assert "4711" not in file.read_text() and hashed("sk-1") not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open("a") as torn:
        torn.write('["cut o')
    again = Belongings(file, MARKS)
    assert [again.owner("", "eve-4711"), again.owner("", "adam"), again.owner(hashed("sk-1"), "")] == [
        "",
        "acme",
        "acme",
    ]
    assert (len(again), again.shared) == (3, 1)
    assert file.read_text().endswith("\n") and len(file.read_text().splitlines()) == 3
    assert Belongings(file, Marks(b"another")).owner("", "adam") == ""


def test_what_is_known_of_belongings_is_bounded_and_kept_where_it_cannot_be_written(tmp_path: Path) -> None:
    known = Belongings(tmp_path / "none" / "b.jsonl", MARKS, most=3)
    known.learn([exchanges([(f"a{n}", f"u{n}") for n in range(3)])])
    known.learn([exchanges([("a9", "u9"), ("a9", "x" * 1000), ("a9", "")])])
    assert (len(known), known.forgotten) == (3, 1)
    with pytest.raises(Transient, match="cannot be written"):
        known.write()
    (tmp_path / "none").mkdir()
    known.write()
    assert Belongings(tmp_path / "none" / "b.jsonl", MARKS).owner("", "u9") == "a9"


def test_of_two_throttles_the_slower_one_wins() -> None:
    slow, fast = held(Rung.THROTTLE, requests_per_minute=5), held(Rung.THROTTLE, "k", requests_per_minute=50)
    k = MARKS.key("k")
    assert Decisions(Table({"acme": slow}, {k: fast}), marks=MARKS).ask("acme", "k", "", NOW) is slow
    assert Decisions(Table({"acme": fast}, {k: slow}), marks=MARKS).ask("acme", "k", "", NOW) is slow


def test_what_has_expired_does_not_count_even_where_it_is_stricter() -> None:
    table = Table({"acme": held(Rung.SUSPEND)}, {MARKS.key("k"): held(Rung.PROTECT, ends_in_h=3)})
    decisions = Decisions(table, marks=MARKS)
    later = NOW + timedelta(hours=1)
    assert decisions.ask("acme", "k", "", later - timedelta(seconds=1)).rung is Rung.SUSPEND
    assert decisions.ask("acme", "k", "", later).rung is Rung.PROTECT
    assert decisions.ask("acme", "k", "", later + timedelta(hours=2)) is None


def test_no_name_asks_nothing_even_if_something_is_held_under_no_name() -> None:
    assert Decisions(Table({"": held(Rung.SUSPEND)})).ask("", "", "", NOW) is None


def test_a_shadow_is_counted_and_never_answered() -> None:
    decisions = Decisions(Table({"acme": held(Rung.OBSERVE)}, shadows={"acme": held(Rung.SUSPEND)}))
    assert decisions.ask("acme", "", "", NOW).rung is Rung.OBSERVE
    assert Decisions(Table(shadows={"acme": held(Rung.SUSPEND)})).ask("acme", "", "", NOW) is None
    assert decisions.counts.shadow[Rung.SUSPEND] == 1
    assert decisions.counts.in_force[Rung.SUSPEND] == 0
    decisions.ask("acme", "", "", NOW + timedelta(hours=2))
    assert decisions.counts.shadow[Rung.SUSPEND] == 1, "an expired shadow was counted"


def test_an_end_without_a_zone_is_refused_when_the_table_comes_not_when_it_is_asked() -> None:
    naive = InForce("acme", Rung.SUSPEND, "act", "camp", datetime(2026, 1, 1))
    with pytest.raises(UsageError, match="act"):
        Decisions(Table({"acme": naive}))


@given(st.lists(st.tuples(st.sampled_from(list(Rung)), st.integers(-3, 3)), min_size=3, max_size=3))
def test_the_answer_is_what_a_plain_maximum_says(held_by: list[tuple[Rung, int]]) -> None:
    account, key, end_user = (held(rung, f"w{i}", ends_in_h=h) for i, (rung, h) in enumerate(held_by))
    table = Table({"a": account}, {MARKS.key("k"): key}, {MARKS.end_user("a", "e"): end_user})
    answer = Decisions(table, marks=MARKS).ask("a", "k", "e", NOW)
    alive = [i for i in (account, key, end_user) if i.expires_at > NOW]
    assert (answer.rung.height if answer else -1) == max((i.rung.height for i in alive), default=-1)


def test_a_question_never_sees_half_a_table() -> None:
    tables = [Table({"acme": held(rung)}, {MARKS.key("k"): held(rung)}) for rung in (Rung.PROTECT, Rung.SUSPEND)]
    decisions, stop, torn = Decisions(tables[0]), threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            if decisions.ask("acme", "k", "", NOW) is None:
                torn.append("nothing held")

    asking = threading.Thread(target=ask)
    asking.start()
    for i in range(2000):
        decisions.replace(tables[i % 2])
    stop.set()
    asking.join()
    assert not torn


# When tables stop coming


def test_a_stale_table_goes_on_being_answered_from_with_one_alarm() -> None:
    clock, alarms = Clock(), []
    decisions = Decisions(Table({"acme": held(Rung.SUSPEND)}), stale_after_s=60, clock=clock, alarm=alarms.append)
    clock.now += 60
    assert not decisions.is_stale()
    decisions.ask("acme", "", "", NOW)
    clock.now += 1
    assert decisions.ask("acme", "", "", NOW).rung is Rung.SUSPEND
    assert decisions.ask("other", "", "", NOW) is None
    assert (decisions.counts.stale, decisions.counts.alarms, len(alarms)) == (2, 1, 1)
    decisions.replace(decisions.table)
    assert not decisions.is_stale()
    decisions.ask("acme", "", "", NOW)
    assert decisions.counts.stale == 2


def test_a_stale_time_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="stale_after"):
        Decisions(stale_after_s=0)


# Buckets


def passes(buckets: Buckets, who: str = "acme", per_minute: float = 60, burst: float = 3) -> bool:
    return not buckets.take(who, per_minute, burst)[1]


def test_a_bucket_lets_a_burst_pass_then_the_rate() -> None:
    clock = Clock()
    buckets = Buckets(clock=clock)
    assert [passes(buckets) for _ in range(5)] == [True, True, True, False, False]
    assert passes(buckets, "other")
    assert buckets.take("acme", 60, 3) == (0, pytest.approx(1))
    clock.now += 1
    assert [passes(buckets) for _ in range(2)] == [True, False]
    clock.now += 1000
    assert buckets.take("acme", 60, 3) == (2, 0)


def test_over_an_hour_a_bucket_lets_the_rate_pass_and_no_more() -> None:
    clock = Clock()
    buckets = Buckets(clock=clock)
    passed = 0
    for _ in range(36_000):
        clock.now += 0.1
        passed += passes(buckets, per_minute=6, burst=1)
    assert passed == pytest.approx(360, rel=0.01)


@settings(deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), max_size=40))
def test_a_clock_that_jumps_neither_floods_nor_locks_out(jumps: list[float]) -> None:
    clock = Clock()
    buckets = Buckets(clock=clock)
    for jump in jumps:
        clock.now += jump
        assert sum(passes(buckets, burst=5) for _ in range(8)) <= 5
    clock.now += 1.001
    assert passes(buckets, burst=5)


def test_a_clock_that_goes_back_takes_nothing_and_makes_nobody_wait_longer() -> None:
    clock = Clock()
    buckets = Buckets(clock=clock)
    assert passes(buckets)
    clock.now -= 1e6
    assert [passes(buckets) for _ in range(3)] == [True, True, False]
    assert buckets.take("acme", 60, 3)[1] == pytest.approx(1)


def test_buckets_are_bounded_and_the_longest_unused_goes() -> None:
    buckets = Buckets(most=3, clock=Clock())
    for who in ("a", "b", "c", "a", "d"):
        passes(buckets, who, burst=2)
    assert len(buckets) == 3
    assert not passes(buckets, "a", burst=2), "the one in use was thrown away"
    assert [passes(buckets, "b", burst=2) for _ in range(2)] == [True, True]


# On disk

TABLE = Table(
    {f"acct-{i}": held(list(Rung)[i % 6], f"acct-{i}", requests_per_minute=i) for i in range(40)},
    {"ab" * 16: replace(held(Rung.SUSPEND, "bad key"), part=Part.KEY, mark="ab" * 16)},
    {"cd" * 16: replace(held(Rung.THROTTLE, 'a "quoted" ünïcode'), part=Part.END_USER, mark="cd" * 16)},
    {"shady": held(Rung.RESTRICT, "shady")},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in_force.json"
    snapshot.save(path, TABLE, NOW, KEY)
    return path


def parts(table: Table) -> list[Mapping[str, InForce]]:
    return [table.accounts, table.keys, table.end_users, table.shadows]


def test_what_is_saved_is_what_is_read(file: Path) -> None:
    read = snapshot.load(file, KEY)
    assert parts(read.table) == parts(TABLE)
    assert (read.written_at, read.faults) == (NOW, ())


def test_no_file_is_an_empty_table_and_no_fault(tmp_path: Path) -> None:
    assert snapshot.load(tmp_path / "none.json", KEY) == snapshot.Snapshot(Table(), None)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8, 0.999])
def test_a_file_cut_off_keeps_every_entry_before_the_cut(file: Path, share: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    read = snapshot.load(file, KEY)
    kept = sum(len(p) for p in parts(read.table))
    assert kept == whole[: int(len(whole) * share)].count(b"\n    }")
    assert all(TABLE.accounts[who] == answer for who, answer in read.table.accounts.items())
    assert read.faults and str(file) in read.faults[0]


def test_an_overwritten_page_costs_the_entries_on_it_alone(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\0" * 512 + whole[4608:])
    read = snapshot.load(file, KEY)
    assert 35 <= sum(len(p) for p in parts(read.table)) < 43
    assert "damaged" in read.faults[0]


@settings(max_examples=60, deadline=None)  # each is forced to disk
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=9))
def test_no_damage_raises_a_rung_or_an_error(tmp_path_factory: pytest.TempPathFactory, at: int, what: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.json"
    snapshot.save(file, TABLE, NOW, KEY)
    whole = file.read_bytes()
    at %= len(whole)
    file.write_bytes(whole[:at] + what + whole[at + len(what) :])
    read = snapshot.load(file, KEY)
    for before, after in zip(parts(TABLE), parts(read.table)):
        assert all(before[who] == answer for who, answer in after.items())
    assert read.faults or parts(read.table) == parts(TABLE)


def forged(file: Path, **changes: Any) -> None:
    whole = json.loads(file.read_text())
    whole["entries"][0].update(changes)
    file.write_text(json.dumps(whole, indent=2))


def test_who_can_only_write_the_file_cannot_have_an_account_suspended(file: Path) -> None:
    forged(file, who="victim", rung="suspend")
    read = snapshot.load(file, KEY)
    assert "victim" not in read.table.accounts
    assert len(read.table.accounts) == 39
    assert read.faults


def test_an_entry_taken_away_is_found(file: Path) -> None:
    whole = json.loads(file.read_text())
    del whole["entries"][5]
    file.write_text(json.dumps(whole, indent=2))
    read = snapshot.load(file, KEY)
    assert len(read.table.accounts) == 39
    assert read.faults


def test_another_key_proves_nothing_and_is_named(file: Path) -> None:
    read = snapshot.load(file, b"another key")
    assert parts(read.table) == parts(Table())
    assert "another key" in read.faults[0]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", "[" * 100_000, '{"format": "stillwatch in force 1"}', "\0" * 99]
)
def test_what_is_no_snapshot_is_a_fault_and_an_empty_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "in_force.json"
    path.write_text(text)
    read = snapshot.load(path, KEY)
    assert parts(read.table) == parts(Table())
    assert read.faults


def test_entries_that_say_nothing_of_ours_are_left_out_even_with_the_right_digest(tmp_path: Path) -> None:
    path = tmp_path / "in_force.json"
    snapshot.save(path, Table({"acme": held(Rung.SUSPEND)}), NOW)
    for change in ({"rung": "expel"}, {"until": "tomorrow"}, {"until": "2026-01-01"}, {"part": "planets"}, {"who": []}):
        whole = json.loads(path.read_text())
        entry = {k: v for k, v in {**whole["entries"][0], **change}.items() if k != "mac"}
        whole["entries"][0] = {**entry, "mac": snapshot._mac(entry, b"")}
        whole["mac"] = snapshot._seal(whole["written_at"], whole["entries"], b"")
        broken = tmp_path / "broken.json"
        broken.write_text(json.dumps(whole))
        read = snapshot.load(broken)
        assert (len(read.table), len(read.faults)) == (0, 1), change


def test_settings_that_are_no_json_leave_the_old_file(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(Terminal, match=r"in_force\.json"):
        snapshot.save(file, Table({"a": held(Rung.SUSPEND, why=object())}), NOW, KEY)
    with pytest.raises(Terminal):
        snapshot.save(file, Table({"a": held(Rung.SUSPEND, rate=float("nan"))}), NOW, KEY)
    assert file.read_bytes() == before


def test_a_restart_from_a_damaged_file_keeps_known_bad_accounts_and_counts_as_stale(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:3000])
    alarms: list[str] = []
    read = snapshot.load(file, KEY)
    decisions = Decisions(alarm=alarms.append)
    decisions.replace(read.table, stale=bool(read.faults))
    assert decisions.ask("acct-5", "", "", NOW).rung is Rung.SUSPEND
    assert decisions.ask("acct-39", "", "", NOW) is None
    assert (decisions.counts.stale, len(alarms)) == (2, 1)
