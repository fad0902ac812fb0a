"""A judge that runs for years: it forgets beyond its horizon, outlives its own format, and tells what it has on the way."""
# ruff: noqa: F811  # fixtures of another module are asked for by their names

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fixtures_findings import Written
from stillwatch import checkpoint, replay
from stillwatch.checkpoint import Checkpoint, belonging
from stillwatch.horizon import SLACK, Customers, beyond, forget
from stillwatch.ledger import NEVER
from stillwatch.progress import Progress
from stillwatch.replay import Along
from stillwatch.serving import judge_loop, newest, rebuilding, spooled
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Status, Terms
from stillwatch.serving.spooled import judge_spool
from stillwatch.telling import micros
from stillwatch.windows import length_text
from test_judging import (  # noqa: F401  # fixtures, found by their names
    CONFIG,
    EVERY,
    KEY,
    SHARE,
    Killed,
    cuts,
    judge,
    log,
    put,
    quick_to_accuse,
    replayed,
    terms,
    world,
)

HORIZON = timedelta(hours=12)
HOUR = timedelta(hours=1)


def state_of(home: Home) -> checkpoint.Saved:
    saved = Checkpoint(home.watch, belonging(CONFIG, KEY, length_text(EVERY), SHARE)).load()
    assert saved is not None
    return saved


def names_of(home: Home) -> set[str]:
    names = pq.read_table(spooled.names_file(home))
    return set(names.filter(pc.equal(names["what"], "account"))["name"].to_pylist())


def flagged(home: Home) -> dict[str, datetime]:
    """Accounts that are in a campaign by the results, and when they were first flagged."""
    rows = pq.read_table(home.results / "accounts.parquet").to_pylist()
    return {r["account_id"]: r["first_flagged_at"] for r in rows if r["campaign_id"]}


def history_of(home: Home) -> dict[str, Any]:
    return {h["campaign_id"]: h for h in json.loads((home.results / "history.json").read_text())}


# The horizon


@pytest.fixture
def old(log: pa.Table, terms: Terms, tmp_path: Path) -> tuple[Home, Terms, dict[str, datetime]]:
    """A home that has judged two days with a horizon of half a day; its terms, and everybody who was ever told."""
    home, short, told = Home(tmp_path / "home"), _short(terms), dict[str, datetime]()
    for part in cuts(log, (0.25, 0.5, 0.8, 1.0)):
        put(home, part)
        judge(home, short)
        told = flagged(home) | told
    return home, short, told


def _short(terms: Terms) -> Terms:
    values = {n: getattr(terms, n) for n in Terms.__dataclass_fields__}
    return Terms(**{**values, "horizon": HORIZON, "retention": timedelta(seconds=1)})


def test_what_is_beyond_the_horizon_is_forgotten_and_what_was_concluded_is_not(
    log: pa.Table,
    old: tuple[Home, Terms, dict[str, datetime]],
) -> None:
    home, short, told = old
    known, ids = history_of(home), set(history_of(home))
    assert told and ids
    # A day in which but one account calls: of all others only what was concluded is left.
    last = log["time"][-1].as_py()
    quiet = log.slice(log.num_rows - 1, 1)
    for k in range(4):
        rows = _again(quiet, f"quiet-{k}", last + timedelta(hours=8 * (k + 1)))
        put(home, rows, pieces=1)
        judged = judge(home, short)
    saved = state_of(home)
    floor = saved.plain["floor"]
    times = saved.taken.facts["time"].cast(pa.int64()).to_numpy()
    assert micros(last) < floor <= times.min(), "nothing is left of what is beyond it"
    assert (judged.rows, judged.too_late) == (len(times) + judged.new - 1, 0) or judged.rows < 10
    quiet_account = quiet["account_id"][0].as_py()
    assert names_of(home) == {quiet_account}, "names of accounts of which nothing is held are gone"
    seen = pq.read_table(home.results / "accounts.parquet")["account_id"].to_pylist()
    assert seen == [quiet_account]
    now = history_of(home)
    assert set(now) == ids, "campaigns keep their names"
    ended = {n: h["events"][-1]["event"] for n, h in now.items()}
    standing = [n for n, h in known.items() if not h["events"][-1]["event"].startswith(("cleared", "merged"))]
    assert standing and all(ended[n] in ("forgotten", "now") for n in standing)
    owners = saved.arrays["ledger.owner"]
    members = set(saved.arrays["ledger.customer"][owners != NEVER].tolist())
    hashed = dict(zip(told, KEY.hash_strings(pa.array(list(told)), "account").tolist()))
    assert members & set(hashed.values()), "who was in one is known by a keyed hash"

    # One of them comes back: flagged when it was, and not cleared for what nobody holds any more.
    back = next(a for a in sorted(told) if a != quiet_account and hashed[a] in members)
    row = log.filter(pc.equal(log["account_id"], back)).slice(0, 1)
    put(home, _again(row, "back", last + timedelta(hours=33)), pieces=1)
    for scan in ("when_due", "always"):
        judge(home, replace(short, final_scan=scan))
        rows = {r["account_id"]: r for r in pq.read_table(home.results / "accounts.parquet").to_pylist()}
        assert (rows[back]["first_flagged_at"], rows[back]["cleared_at"]) == (told[back], None)
        assert set(history_of(home)) == ids
    result = newest.read(home.results)
    assert result is not None
    assert not result.newest([back]).elsewhere, "what is in force for it goes on"


def each_its_own(saved: checkpoint.Saved) -> Customers:
    accounts = pc.unique(saved.taken.facts["account"]).to_numpy()
    return Customers(accounts, np.arange(len(accounts)))


def test_members_of_whom_nothing_is_held_are_carried_for_a_horizon(
    old: tuple[Home, Terms, dict[str, datetime]],
) -> None:
    saved = state_of(old[0])
    length = HORIZON // timedelta(microseconds=1)
    everybody = each_its_own(saved)
    members = saved.arrays["ledger.owner"] != NEVER
    assert members.any()
    for ago in (length // 2, length // 20, 0):
        left = forget(saved, saved.end - ago, everybody)
        held = np.isin(saved.arrays["ledger.customer"], left.taken.facts["account"].to_numpy())
        absent = members & ~held
        assert (left.arrays["ledger.carried"] == saved.arrays["ledger.carried"] | absent).all()
        until = saved.end + ago if absent.any() else 0
        assert left.plain["carried_until"] == max(saved.plain["carried_until"], until)
    assert absent.any(), "of nobody anything is left"


def test_a_customer_stands_under_an_account_that_is_held() -> None:
    known = Customers(np.array([50, 10, 40, 20, 30]), np.array([0, 1, 0, 3, 1]))
    asked, held = np.array([50, 10, 20, 99]), np.array([40, 10, 30])
    assert known.held_by(asked, held).tolist() == [40, 10, 20, 99]
    assert known.held_by(asked, np.array([], np.int64)).tolist() == asked.tolist()


def _again(row: pa.Table, exchange_id: str, at: datetime) -> pa.Table:
    names = row.schema.names
    row = row.set_column(names.index("exchange_id"), "exchange_id", pa.array([exchange_id]))
    return row.set_column(names.index("time"), "time", pa.array([at]).cast(row["time"].type))


def test_what_comes_from_beyond_the_horizon_is_counted_and_not_judged(
    log: pa.Table,
    old: tuple[Home, Terms, dict[str, datetime]],
) -> None:
    home, short, _ = old
    put(home, _again(log.slice(0, 1), "one more", log["time"][-1].as_py() + 2 * HOUR), pieces=1)
    before = judge(home, short)
    floor = state_of(home).plain["floor"]
    assert floor > micros(log["time"][100].as_py())
    put(home, log.slice(0, 100), pieces=2)
    told = judge(home, short)
    assert (told.new, told.too_late) == (0, 100), "they were judged and forgotten, once"
    assert told.rows <= before.rows
    put(home, _again(log.slice(0, 1), "never seen", log["time"][0].as_py()), pieces=1)
    assert judge(home, short).too_late == 101
    put(home, _again(log.slice(0, 1), "and on", log["time"][-1].as_py() + 4 * HOUR), pieces=1)
    assert judge(home, short).too_late == 101


def test_a_state_is_cut_where_it_is_worth_it_and_counts_what_is_left(
    old: tuple[Home, Terms, dict[str, datetime]],
) -> None:
    saved = state_of(old[0])
    times = saved.taken.facts["time"].cast(pa.int64()).to_numpy()
    span = timedelta(microseconds=int(saved.end - times.min()))
    assert beyond(saved, span) is None
    assert beyond(saved, span * (SLACK + 0.5) / (SLACK + 1)) is None
    assert beyond(saved, span * 0.9) == saved.end - (span * 0.9) // timedelta(microseconds=1)
    middle = int(np.median(times))
    left = forget(saved, middle, each_its_own(saved))
    kept = times >= middle
    assert len(left.taken) == left.plain["until"] == kept.sum() == len(left.wording) == len(left.taken.sketches)
    assert left.plain["schedule"]["rows"] == kept[: saved.plain["schedule"]["rows"]].sum()
    assert 0 <= left.plain["unexplained"] <= saved.plain["unexplained"]
    account, text, _ = left.taken.systems
    facts = left.taken.facts
    used = {(a, s) for a, s in zip(facts["account"].to_pylist(), facts["system"].to_pylist()) if s}
    assert set(zip(account.tolist(), text.tolist())) == used


def test_forgetting_that_breaks_off_is_done_again(
    log: pa.Table,
    old: tuple[Home, Terms, dict[str, datetime]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, short, _ = old
    put(home, _again(log.slice(0, 1), "one more", log["time"][-1].as_py() + 9 * HOUR), pieces=1)
    calls = iter(range(10))
    write = spooled.write_names

    def killed(*given: Any) -> None:
        if next(calls) == 1:
            raise Killed
        write(*given)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(spooled, "write_names", killed)
        judge(home, short)
    again = judge(home, short)
    assert again.rows == len(state_of(home).taken) or again.rows >= 1
    assert micros(log["time"][0].as_py()) < state_of(home).plain["floor"]


# Another format


def written_by_another_format(home: Home) -> dict[str, Any]:
    manifest = json.loads((home.watch / "state.json").read_text()) | {"format": 1, "version": "0.0.9"}
    del manifest["sha256"]
    manifest["sha256"] = checkpoint._sha256_of(manifest)
    (home.watch / "state.json").write_text(json.dumps(manifest))
    return manifest


def test_a_state_of_another_format_is_begun_anew_from_the_spool_and_campaigns_go_on(
    log: pa.Table,
    terms: Terms,
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    put(home, log.slice(0, 1500))
    first = judge(home, terms)
    known, members = history_of(home), flagged(home)
    assert members
    manifest = written_by_another_format(home)
    put(home, log.slice(1500))
    told = judge(home, terms)
    assert told.rows == log.num_rows > first.rows, "all that the spool holds"
    assert set(known) <= set(history_of(home)), "under the names they had"
    now = flagged(home)
    assert all(now[a] == at for a, at in members.items() if a in now), "flagged when they were"
    (said,) = json.loads(home.rebuilt.read_text())
    assert (said["from_format"], said["from_version"], said["campaigns_carried"]) == (1, "0.0.9", len(known))
    assert said["exchanges_of_the_old_state"] == manifest["log"]["rows"]
    assert said["accounts_carried"] == len(members)
    aside = Path(said["old_state"])
    assert {p.name for p in aside.iterdir()} >= {"state.json", *manifest["files"]}, "nothing of the old state is lost"
    put(home, _again(log.slice(0, 1), "one more", log["time"][-1].as_py() + HOUR), pieces=1)
    judge(home, terms)
    assert not (home.watch / "carried.json").exists(), "the state has it now"
    assert len(json.loads(home.rebuilt.read_text())) == 1


def test_who_was_in_a_campaign_is_not_cleared_by_what_the_spool_has_forgotten(
    log: pa.Table,
    terms: Terms,
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    values = {n: getattr(terms, n) for n in Terms.__dataclass_fields__}
    hasty = Terms(**{**values, "retention": timedelta(seconds=1)})
    put(home, log.slice(0, 1500))
    judge(home, hasty)
    members = flagged(home)
    written_by_another_format(home)
    put(home, log.slice(1500))
    judge(home, hasty)
    rows = {r["account_id"]: r for r in pq.read_table(home.results / "accounts.parquet").to_pylist()}
    seen = [a for a in members if a in rows]
    assert seen
    assert all(rows[a]["first_flagged_at"] == members[a] and rows[a]["cleared_at"] is None for a in seen)
    assert any(rows[a]["campaign_id"] is None for a in seen) or len(seen) == len(members)
    result = newest.read(home.results)
    assert result is not None
    assert not result.newest(list(members)).elsewhere & set(members)


def test_beginning_anew_that_breaks_off_is_done_again(
    log: pa.Table,
    terms: Terms,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = Home(tmp_path)
    put(home, log.slice(0, 1500))
    judge(home, terms)
    known = history_of(home)
    manifest = written_by_another_format(home)
    put(home, log.slice(1500, 10))
    replace_, calls = os.replace, iter(range(1000))

    def killed(source: Any, target: Any) -> None:
        if "format-1" in str(target) and next(calls) == 2:
            raise Killed
        replace_(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(rebuilding.os, "replace", killed)
        judge(home, terms)
    assert judge(home, terms).rows == 1510
    assert set(known) <= set(history_of(home))
    kept = {p.name for p in home.watch.glob("format-1-*/*")}
    assert kept >= {"state.json", *manifest["files"]}


# On the way


def test_results_are_told_on_the_way_and_change_nothing_of_the_end(
    replayed: Written,
    log: pa.Table,
    terms: Terms,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Along, "is_due", lambda _: True)
    home, told = Home(tmp_path), list[tuple[Any, Any, Any]]()
    put(home, log)

    def seen(judged: spooled.Judged) -> None:
        result = newest.read(home.results)
        assert result is not None
        told.append((judged, result, len(pq.read_table(home.results / "accounts.parquet"))))

    values = {n: getattr(terms, n) for n in Terms.__dataclass_fields__}
    judge_spool(home, Terms(**{**values, "final_scan": "always"}), CONFIG, KEY, Progress(quiet=True), along=seen)
    assert Written(home.results).found == replayed.found
    assert len(told) >= 2
    rows = [judged.rows for judged, _, _ in told]
    assert rows == sorted(rows) and rows[-1] < log.num_rows
    for judged, result, accounts in told:
        assert result.exchanges == judged.rows
        assert result.run["settings"]["on_the_way_to"] == log.num_rows
        arrived = log.slice(0, judged.rows)["account_id"]
        assert accounts == len(pc.unique(arrived)), "nobody is told of before it has arrived"
    assert [r for _, r, _ in told if r.campaigns], "campaigns on the way"


def test_telling_on_the_way_takes_a_twentieth_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(replay.time, "monotonic", lambda: now[0])
    along = Along(lambda *_: None, every_s=60.0)
    assert along.is_due(), "the first at once: what is there is old"
    for took, rest in ((1.0, 60.0), (10.0, 190.0)):
        began = now[0]
        now[0] += took
        along.told(began)
        now[0] += rest - 0.1
        assert not along.is_due()
        now[0] += 0.2
        assert along.is_due()


def test_what_is_told_on_the_way_is_said_of_the_judging(
    log: pa.Table,
    terms: Terms,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Along, "is_due", lambda _: True)
    home, stood = Home(tmp_path), list[Status]()
    put(home, log.slice(0, 1500))
    say: Callable[[Home, Status], None] = judge_loop._say

    def noted(home: Home, status: Status) -> None:
        say(home, status)
        stood.append(status)

    monkeypatch.setattr(judge_loop, "_say", noted)
    before = datetime.now(UTC)
    judge_loop.judge_once(home, terms, CONFIG, KEY, Progress(quiet=True))
    on_the_way = [s for s in stood if s.status == "judging" and s.judged]
    assert on_the_way and all(s.judged and s.judged >= before and s.newest == 0 for s in on_the_way)
    assert stood[-1].newest == 7
