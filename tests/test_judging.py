"""A log that comes in live, by way of the spool, ends with what replaying it ends with; what breaks off is taken up again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures_engine import weights_of
from fixtures_findings import Written
from stillwatch import replay, results, telling, weighing
from stillwatch.checkpoint import Checkpoint, belonging
from stillwatch.config import Config
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.fingerprints import observe
from stillwatch.intake import Intake, Log
from stillwatch.privacy import Privacy
from stillwatch.progress import Progress
from stillwatch.replay import Plan
from stillwatch.serving import judge_loop, quarantine, spooled
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Judging, Status, Terms, ask_file, status_file
from stillwatch.serving.spooled import Judged, Marks, judge_spool, settled
from stillwatch.simulate import default_world, parse_campaign, simulate
from stillwatch.spool import Spool, fingerprinted
from stillwatch.tables import ACCOUNTS, EXCHANGES
from stillwatch.watch import Schedule
from stillwatch.windows import length_text

KEY = Privacy(b"a key for tests, and for nothing else")
CONFIG = Config(threads=1)
LEAST, SHARE = 700, 4e-5
EVERY = timedelta(hours=1)
TERMS = Terms(every=EVERY, grace=timedelta(minutes=10), retention=timedelta(days=365), share=SHARE)
PARTS = (0.25, 0.5, 0.55, 0.6, 0.8, 1.0)
"""Shares of the log that have come in when it is judged live."""


@pytest.fixture(scope="module", autouse=True)
def quick_to_accuse() -> Iterator[None]:
    """Weights under which a small log has campaigns to follow, judged not too often: these tests are of time alone."""
    weights = weights_of(-1.0, read=4.0, share_card=4.0, share_wording=2.0, org=-8.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weighing, "weights", lambda: weights)
        patch.setattr(Schedule, "LEAST", LEAST)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judging")
    plans = (parse_campaign("balanced_reasoning:30"), parse_campaign("foreign_traces:30"))
    simulate(default_world(6, accounts=300, exchanges=2_000, campaigns=plans), folder)
    return folder


@pytest.fixture(scope="module")
def log(world: Path) -> pa.Table:
    """Two days of a month, stretched to hold all of it: the order of things, and who does them, stay as they are."""
    month = pq.read_table(world / "exchanges").sort_by("time")
    times = month["time"].cast(pa.int64()).to_numpy()
    short = times[0] + (times - times[0]) // 15
    log = month.set_column(month.schema.get_field_index("time"), "time", pa.array(short).cast(month["time"].type))
    (world / "log").mkdir()
    pq.write_table(log, world / "log" / "log.parquet")
    return log


@pytest.fixture(scope="module")
def terms(world: Path) -> Terms:
    return replace(TERMS, accounts=world / "accounts.parquet", models=world / "models.csv")


@pytest.fixture(scope="module")
def replayed(world: Path, log: pa.Table) -> Written:
    given = Log(world / "log", world / "accounts.parquet", world / "models.csv")
    findings, run, history = replay.replay(given, Plan(EVERY, share=SHARE), CONFIG, KEY, Progress(quiet=True))
    results.write(findings, run, world / "replayed", history)
    assert findings.campaigns, "nothing to compare"
    assert len({h["named_at"] for h in history}) > 1
    told = Written(world / "replayed")
    assert len({r["first_flagged_at"] for r in told.accounts if r["first_flagged_at"]}) > 2
    return told


def put(home: Home, rows: pa.Table, pieces: int = 7) -> None:
    """Put rows into the spool of a home, in pieces, in the order they stand in."""
    schema = EXCHANGES.schema
    with Spool(home.spool) as spool:
        for part in np.array_split(np.arange(rows.num_rows), pieces):
            if len(part):
                batch = rows.take(pa.array(part)).select(schema.names).cast(schema).combine_chunks().to_batches()[0]
                spool.put(fingerprinted(batch, KEY))


def judge(home: Home, terms: Terms, now: datetime | None = None) -> Judged:
    return judge_spool(home, terms, CONFIG, KEY, Progress(quiet=True), now)


def cuts(log: pa.Table, shares: Sequence[float] = PARTS) -> list[pa.Table]:
    """The log in pieces that end after these shares of it."""
    ends = [0, *(int(s * log.num_rows) for s in shares)]
    return [log.slice(a, b - a) for a, b in pairwise(ends)]


# As a replay


def test_a_log_that_comes_in_live_ends_as_its_replay(
    replayed: Written, log: pa.Table, terms: Terms, tmp_path: Path
) -> None:
    home, seen = Home(tmp_path), 0
    for part in cuts(log, (0.3, 0.7, 1.0)):
        put(home, part)
        told = judge(home, replace(terms, final_scan="always"))
        seen += part.num_rows
        assert (told.is_new, told.rows, told.new, told.late) == (True, seen, part.num_rows, 0)
    assert Written(home.results).found == replayed.found


@dataclass(frozen=True)
class Live:
    """A log judged as it came in, only as the schedule says, its rows forgotten as soon as that may be."""

    home: Home
    told: list[Judged]
    found: list[tuple[Any, ...]]
    anew: list[int]
    """How often what is told was judged, by part."""


@pytest.fixture(scope="module")
def live(log: pa.Table, terms: Terms, replayed: Written, tmp_path_factory: pytest.TempPathFactory) -> Live:
    home, told_again = Home(tmp_path_factory.mktemp("live")), replay.told_again
    live = Live(home, [], [], [])

    def counted(*given: Any) -> telling.Told:
        live.anew[-1] += 1
        return told_again(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "told_again", counted)
        for part in cuts(log):
            live.anew.append(0)
            put(home, part)
            live.told.append(judge(home, replace(terms, retention=timedelta(seconds=1))))
            live.found.append(Written(home.results).found)
    return live


def test_between_judgements_of_everything_whom_recognition_adds_is_told(live: Live) -> None:
    new = set()
    for accounts, campaigns, _, history in live.found:
        placed = {r["account_id"] for r in accounts if r["campaign_id"]}
        assert placed == {r["account_id"] for r in accounts if r["first_flagged_at"] and not r["cleared_at"]}
        standing = {h["campaign_id"] for h in history if not h["events"][-1]["event"].startswith(("cleared", "merged"))}
        assert {c["campaign_id"] for c in campaigns} == {r["campaign_id"] for r in accounts} - {None} == standing
        for campaign in campaigns:
            mine = [r for r in accounts if r["campaign_id"] == campaign["campaign_id"]]
            assert campaign["accounts"] == len(mine)
            added = [r for r in mine if any("recognised by" in reason["text"] for reason in r["reasons"])]
            assert ("recognised since" in campaign["summary"]) == bool(added)
            assert all(0 < r["risk"] <= min(m["risk"] for m in mine) for r in added)
            new |= {r["account_id"] for r in added}
    assert new, "nobody was recognised: nothing was tested"


def test_what_is_told_is_judged_only_when_the_schedule_has_judged(live: Live) -> None:
    assert set(live.anew) == {0, 1}


def test_what_was_judged_is_forgotten_and_its_names_are_not(
    live: Live, log: pa.Table, terms: Terms, replayed: Written, world: Path
) -> None:
    assert sum(t.forgotten for t in live.told) > 0.5 * log.num_rows
    with Spool(live.home.spool) as spool:
        assert spool.figures().rows == log.num_rows - sum(t.forgotten for t in live.told)
    told = judge(live.home, replace(terms, final_scan="always"))
    assert (told.rows, told.new) == (log.num_rows, 0)
    assert Written(live.home.results).found == replayed.found


def test_names_that_are_lost_are_missed(live: Live, terms: Terms, tmp_path: Path) -> None:
    home = Home(Path(shutil.copytree(live.home.folder, tmp_path / "home")))
    spooled.names_file(home).unlink()
    with pytest.raises(Terminal, match=r"names of .* accounts .* are lacking"):
        judge(home, replace(terms, final_scan="always", grace=timedelta(minutes=11), models=None))


# What breaks off


class Killed(BaseException):
    """Nothing may catch it."""


@pytest.mark.parametrize("place", ["walk", "write_told", "write_json"])
def test_what_breaks_off_is_taken_up_again(
    place: str, replayed: Written, log: pa.Table, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, hasty = Home(tmp_path), replace(terms, retention=timedelta(seconds=1))
    put(home, log.slice(0, 1200))
    calls = iter(range(10**6))

    def killed(*_: Any, **__: Any) -> None:
        if place != "walk" or next(calls) == 20:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(replay if place == "walk" else spooled, "greet" if place == "walk" else place, killed)
        judge(home, hasty)
    put(home, log.slice(1200))
    told = judge(home, replace(hasty, final_scan="always"))
    assert told.rows == log.num_rows
    assert Written(home.results).found == replayed.found


KILLED = """
import os, signal, sys
from pathlib import Path
import test_judging as t
from stillwatch import replay, weighing
from fixtures_engine import weights_of
t.Schedule.LEAST = t.LEAST
weighing.weights = lambda: weights_of(-1.0, read=4.0, share_card=4.0, share_wording=2.0, org=-8.0)
calls, rejudge = iter(range(10**6)), replay.rejudge
def killed(*given):
    if next(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    rejudge(*given)
replay.rejudge = killed
home, world = t.Home(Path(sys.argv[1])), Path(sys.argv[2])
t.judge(home, t.replace(t.TERMS, accounts=world / "accounts.parquet", models=world / "models.csv"))
"""


def test_so_is_what_is_killed(replayed: Written, log: pa.Table, terms: Terms, world: Path, tmp_path: Path) -> None:
    home = Home(tmp_path)
    put(home, log)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(world)]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    judge(home, replace(terms, final_scan="always"))
    assert Written(home.results).found == replayed.found


# A batch that cannot be read


def harm(home: Home, *numbers: int) -> None:
    """Turn a bit of these batches of the spool."""
    with closing(sqlite3.connect(home.spool, isolation_level=None)) as db:
        for number in numbers:
            (whole,) = db.execute("SELECT bytes FROM contents WHERE batch = ?", (number,)).fetchone()
            broken = whole[:-1] + bytes([whole[-1] ^ 1])
            db.execute("UPDATE contents SET bytes = ? WHERE batch = ?", (broken, number))


def test_a_damaged_batch_is_set_aside_and_all_others_are_judged(
    replayed: Written, log: pa.Table, terms: Terms, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    put(home, log.slice(0, 1000), pieces=10)
    harm(home, 3, 7)
    told = judge(home, terms)
    assert told.rows == 800
    assert [p.name for p in quarantine.files(home)] == ["batch-3.json", "batch-7.json"]
    said = json.loads((home.quarantine / "batch-3.json").read_text())
    assert (said["rows"], said["judged"], said["ids_freed"]) == (100, False, 200)
    assert datetime.fromisoformat(said["first"]) == log["time"][200].as_py()
    assert (home.quarantine / "batch-3.bin").stat().st_size > 1000
    # The sender repeats all of it: what was lost is judged, nothing is counted twice.
    put(home, log)
    told = judge(home, replace(terms, final_scan="always"))
    assert told.rows == log.num_rows
    with Spool(home.spool) as spool:
        exchanges = np.concatenate([t["exchange"].to_numpy() for _, t in spool.read()])
    assert len(exchanges) == len(np.unique(exchanges)) == log.num_rows


def test_a_batch_that_is_damaged_after_it_was_judged_does_not_stop_forgetting(
    log: pa.Table, terms: Terms, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    put(home, log.slice(0, 1000), pieces=10)
    first = judge(home, terms)
    assert first.settled > 4
    harm(home, 2)
    put(home, log.slice(1000, 1))
    judge(home, replace(terms, retention=timedelta(seconds=1)))
    assert json.loads((home.quarantine / "batch-2.json").read_text())["judged"] is True
    with Spool(home.spool) as spool:
        assert next(n for n, _ in spool.read()) > first.settled
    put(home, log.slice(0, 1000))
    assert judge(home, terms).rows == 1001, "the state holds them: nothing is counted twice"


def test_setting_aside_that_breaks_off_is_done_again(
    log: pa.Table, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    put(home, log.slice(0, 300), pieces=3)
    harm(home, 2)

    def killed(*_: Any) -> int:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Spool, "take_out", killed)
        judge(home, terms)
    assert judge(home, terms).rows == 200
    assert len(quarantine.files(home)) == 1


# What comes late, and what comes early


def test_late_rows_are_taken_in_counted_and_not_forgotten_before(log: pa.Table, terms: Terms, tmp_path: Path) -> None:
    home, hasty = Home(tmp_path), replace(terms, retention=timedelta(seconds=1))
    held = np.arange(log.num_rows) % 10 == 0
    early, late = log.filter(pa.array(~held)), log.filter(pa.array(held))
    put(home, early.slice(0, 500))
    first = judge(home, hasty)
    assert first.late == 0
    put(home, late.slice(0, 40), pieces=1)
    second = judge(home, hasty)
    assert second.late == 40
    assert second.settled == first.settled, "the state does not have them yet"
    with Spool(home.spool) as spool:
        assert 40 in [t.num_rows for _, t in spool.read()]
    put(home, pa.concat_tables([late.slice(40), early.slice(500)]))
    third = judge(home, hasty)
    assert third.rows == log.num_rows
    assert third.late > 40
    assert third.settled > second.settled


def test_a_sender_whose_clock_is_ahead_ends_no_step(log: pa.Table, terms: Terms, tmp_path: Path) -> None:
    home = Home(tmp_path)
    now = log["time"][500].as_py()
    ahead = log.slice(500, 1)
    future = pa.array([now + timedelta(days=300)]).cast(log["time"].type)
    put(home, log.slice(0, 500))
    put(home, ahead.set_column(log.schema.get_field_index("time"), "time", future))
    judge(home, terms, now)
    manifest = json.loads((home.watch / "state.json").read_text())
    assert manifest["end"] <= telling.micros(now)
    put(home, log.slice(501, 300))
    assert judge(home, terms, log["time"][800].as_py()).late == 0


def test_a_step_is_over_when_something_later_has_come_or_nothing_for_long() -> None:
    hour, minute = 3600 * 10**6, 60 * 10**6
    marks = Marks(since=10 * hour, latest=9 * hour)
    assert marks.passed(TERMS, 10 * hour) == 9 * hour - 10 * minute
    assert marks.passed(TERMS, 10 * hour + 9 * minute) == 9 * hour - 10 * minute, "more of the same hour may come"
    assert marks.passed(TERMS, 11 * hour) == 11 * hour - 10 * minute
    assert Marks(since=10 * hour, latest=90 * hour).passed(TERMS, 10 * hour) == 10 * hour - 10 * minute


def test_batches_are_settled_up_to_the_first_that_the_state_lacks() -> None:
    assert settled(3, [], 100) == 3
    assert settled(3, [(4, 99), (5, None), (7, 98)], 100) == 7
    assert settled(3, [(4, 99), (5, 100), (7, 98)], 100) == 4
    assert settled(3, [(4, 100)], 100) == 3


def test_a_judgement_is_due_when_it_takes_no_more_than_its_share_of_the_time_since_the_last() -> None:
    schedule = Schedule(rows=1000, spent=7.0, at=0)
    enough = int(schedule.cost(1001) / 0.05)
    assert not schedule.due(1001, 0, enough - 100, 0.05)
    assert schedule.due(1001, 0, enough + 100, 0.05)
    assert not schedule.due(1000, 0, enough + 100, 0.05), "nothing has come since"
    assert not schedule.due(1001, 0, enough + 100), "a replay has no such share"
    schedule.done(1001, 3, enough + 100, 0.05)
    assert schedule == Schedule(1001, 3, 7.0, enough + 100), "it is not charged to what is allowed by rows"


# Nothing new


def test_nothing_is_judged_where_nothing_has_come_in(
    log: pa.Table, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log.slice(0, 500)
    home, now = Home(tmp_path), log["time"][-1].as_py()
    assert judge(home, terms, now) == Judged(False, 0, 0, 0, 0, 0, 0)
    assert not home.results.exists()
    put(home, log)
    first = judge(home, terms, now)
    assert first.is_new
    with monkeypatch.context() as patch:
        patch.setattr(spooled, "follow", None)
        for later in (now, now + timedelta(minutes=1)):
            again = judge(home, terms, later)
            assert again == replace(first, is_new=False, new=0)
        put(home, log)
        assert not judge(home, terms, now).is_new, "a row that comes again is no row"
    assert judge(home, terms, now + timedelta(hours=2)).is_new, "the last step is over now"
    assert not judge(home, terms, now + timedelta(hours=3)).is_new
    assert judge(home, replace(terms, models=None), now + timedelta(hours=3)).is_new, "other terms"


def test_a_state_of_other_settings_and_a_home_in_use_are_refused(log: pa.Table, terms: Terms, tmp_path: Path) -> None:
    home = Home(tmp_path)
    put(home, log.slice(0, 300))
    judge(home, terms)
    put(home, log.slice(300, 10))
    with pytest.raises(UsageError, match="another every: 1h"):
        judge(home, replace(terms, every=timedelta(hours=2)))
    with (
        Checkpoint(home.watch, belonging(CONFIG, KEY, length_text(EVERY), SHARE)).held(),
        pytest.raises(Transient, match="another replay is using this state"),
    ):
        judge(home, terms)


# Parts


def test_what_was_told_is_the_same_after_it_was_kept(live: Live) -> None:
    kept = json.loads(spooled.told_file(live.home).read_text())["told"]
    told = telling.as_told(kept)
    assert told.judged.campaigns
    assert telling.plain(told) == kept
    assert all(isinstance(m.first_seen, datetime) for c in told.judged.campaigns for m in c.members)
    assert hash(told.judged.campaigns[0].members[0]), "nouns, not lists"


def test_what_was_said_of_an_account_holds_over_its_file() -> None:
    def table(**columns: list[Any]) -> pa.Table:
        rows = {
            f.name: pa.array(columns.get(f.name, [None] * len(columns["account_id"])), f.type) for f in ACCOUNTS.schema
        }
        return pa.table(rows, schema=ACCOUNTS.schema)

    given = table(account_id=["a", "b"], org_id=["of a", "of b"], plan=["free", None])
    said = table(account_id=["b", "c"], org_id=["now of b", "of c"])
    rows = {r["account_id"]: (r["org_id"], r["plan"]) for r in spooled.latest_of(given, said).to_pylist()}
    assert rows == {"a": ("of a", "free"), "b": ("now of b", None), "c": ("of c", None)}


def test_coverage_counts_what_facts_tell(log: pa.Table, tmp_path: Path) -> None:
    schema = EXCHANGES.schema
    batch = log.slice(0, 200).select(schema.names).cast(schema).combine_chunks().to_batches()[0]
    intake = Intake()
    intake.add(batch["account_id"], batch["model"], observe(batch, KEY))
    coverage = spooled.coverage_of(intake)
    for name in (
        "exchange_id",
        "account_id",
        "ip",
        "prompt",
        "user_agent",
        "end_user",
        "input_tokens",
        "conversation_id",
    ):
        assert coverage[name] == 200 - batch[name].null_count, name
    assert coverage["stop_reason"] == 0, "no fact is kept of it"


# The process


def test_how_it_stands_is_said_whatever_happens(
    log: pa.Table, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    assert Status.read(home) == Status()
    put(home, log.slice(0, 300))
    judge_loop.judge_once(home, terms, CONFIG, KEY, Progress(quiet=True))
    stood = Status.read(home)
    assert (stood.status, stood.rows, stood.new, stood.failures, stood.error) == ("stopped", 300, 300, 0, None)
    assert stood.started < stood.ended == stood.judged
    put(home, log.slice(300, 10))
    for failures in (1, 2):
        with pytest.raises(UsageError):
            judge_loop.judge_once(home, replace(terms, every=timedelta(days=1)), CONFIG, KEY, Progress(quiet=True))
        failed = Status.read(home)
        assert (failed.status, failed.failures, failed.judged) == ("failed", failures, stood.judged)
        assert "another every" in failed.error
        assert failed.hint
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(judge_loop, "judge_spool", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        judge_loop.judge_once(home, terms, CONFIG, KEY, Progress(quiet=True))
    assert (Status.read(home).status, Status.read(home).pid) == ("stopped", None)
    status_file(home).write_text("{")
    assert Status.read(home).status == "failed"


def until(is_so: Callable[[], bool], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def test_a_judge_beside_the_server_is_asked_started_again_and_stopped(log: pa.Table, tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "key").write_bytes(KEY.secret)
    put(home, log.slice(0, 30))
    judging = Judging(home, replace(TERMS, interval=timedelta(hours=1), key=tmp_path / "key"), soonest_s=0.05)
    judging.start()
    try:
        until(lambda: judging.status().status == "waiting")
        assert judging.status().rows == 30
        put(home, log.slice(30, 5))
        judging.ask()
        until(lambda: judging.status().rows == 35 and judging.status().status == "waiting")
        assert not ask_file(home).exists()
        first = judging.overseen()
        assert (first.alive, first.pid, first.deaths) == (True, judging.status().pid, 0)
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: judging.overseen().alive and judging.overseen().pid != first.pid)
        until(lambda: judging.status().pid == judging.overseen().pid and judging.status().status == "waiting")
        assert (judging.overseen().deaths, judging.overseen().code) == (1, -signal.SIGKILL)
    finally:
        judging.stop()
    assert not judging.overseen().alive
    assert judging.status().status == "stopped"
    assert judging.overseen().code == 0


def test_what_a_judge_last_said_is_heard(tmp_path: Path) -> None:
    judging = Judging(Home(tmp_path), replace(TERMS, key=tmp_path / "lacking"), soonest_s=30)
    judging.start()
    until(lambda: judging.overseen().deaths == 1)
    judging.stop(within_s=5)
    assert judging.overseen().code == 2
    assert "the privacy key cannot be read" in judging.overseen().words


def test_terms_come_through_the_command_line(tmp_path: Path) -> None:
    every = timedelta(minutes=30)
    terms = Terms(every, every, every, every, 2 * every, "always", 0.2, *(tmp_path / n for n in ("a", "m", "c", "k")))
    assert terms.options() == [
        "--every=30m", "--interval=30m", "--grace=30m", "--retention=30m", "--horizon=1h", "--final-scan=always",
        "--share=0.2",
        *(f"--{n}={tmp_path / n[0]}" for n in ("accounts", "models", "config", "key")),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="when_due"):
        Terms(final_scan="never")
    with pytest.raises(UsageError, match="horizon 1h is no longer"):
        Terms(every=timedelta(hours=1), horizon=timedelta(hours=1))
    with pytest.raises(UsageError, match="share 2"):
        Terms(share=2)
