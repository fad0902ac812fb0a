"""A log walked in event time: it ends where a scan does, and no step knows of what comes later."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures_engine import weights_of
from stillwatch import cli, weighing
from stillwatch.replay import last_step, steps
from stillwatch.simulate import default_world, parse_campaign, simulate
from stillwatch.watch import Schedule

PLANTED = ("balanced_reasoning:50", "foreign_traces:50")
EVERY = timedelta(days=7)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Steps

moments = st.lists(st.integers(0, 10**7), min_size=1, max_size=60).map(lambda t: np.sort(np.array(t, np.int64)))
lengths = st.integers(1, 3 * 10**6).map(lambda us: timedelta(microseconds=us))


@given(moments, lengths)
def test_steps_are_half_open_and_end_where_their_length_divides_time(times: np.ndarray, every: timedelta) -> None:
    width = every // timedelta(microseconds=1)
    found = steps(times, every)
    ends, arrived = [e for e, _ in found], [n for _, n in found]
    assert all(e % width == 0 for e in ends)
    assert ends == sorted(set(ends))
    # Half-open: what happens at the very end of a step belongs to the next one.
    assert arrived == [int((times < e).sum()) for e in ends]
    assert np.diff([0, *arrived]).min() > 0, "only steps in which something arrived"
    assert arrived[-1] == len(times)
    assert ends[-1] == last_step(times, every)


def test_a_moment_at_the_end_of_an_hour_is_in_the_next() -> None:
    hour = 3600 * 10**6
    times = np.array([0, hour - 1, hour, 5 * hour])
    assert steps(times, timedelta(hours=1)) == [(hour, 2), (2 * hour, 3), (6 * hour, 4)]


# Schedule

arrivals = st.lists(st.tuples(st.integers(0, 200_000), st.floats(0, 1)), min_size=1, max_size=80)


@given(arrivals)
def test_all_judgements_together_cost_what_they_may(given_rows: list[tuple[int, float]]) -> None:
    """Rows that arrive by step, and the share of them that nobody explains."""
    schedule, arrived, unexplained, spent = Schedule(), 0, 0, 0.0
    for rows, share in given_rows:
        arrived, unexplained = arrived + rows, unexplained + int(share * rows)
        if schedule.due(arrived, unexplained):
            spent += schedule.cost(arrived)
            schedule.done(arrived, unexplained)
            assert (schedule.rows, schedule.unexplained) == (arrived, unexplained)
        assert schedule.spent == pytest.approx(spent)
        assert spent <= Schedule.ALLOWED + Schedule.ALLOWED_PER_ROW * arrived


def test_a_judgement_is_due_when_enough_has_come_that_nobody_explains() -> None:
    schedule = Schedule()
    assert not schedule.due(Schedule.LEAST - 1, 0)
    assert schedule.due(Schedule.LEAST, 0)
    schedule.done(10_000, 100)
    assert not schedule.due(10_000, 100)
    assert not schedule.due(11_000, 110), "a little more of either"
    assert schedule.due(int(10_000 * (1 + Schedule.GROWTH)), 100)
    assert schedule.due(10_100, int(100 * (1 + Schedule.GROWTH)))
    assert not schedule.due(10_100, 100 - 50), "what was explained is no alarm"


def test_no_judgement_beyond_the_allowance() -> None:
    schedule = Schedule(rows=1000, spent=1e12)
    assert not schedule.due(10**6, 10**6)


# A small month


@dataclass(frozen=True)
class Told:
    """What a replay or a scan left: exit code, campaigns, accounts by id, and the history of a replay."""

    code: int
    folder: Path

    def json(self, name: str) -> list[dict[str, Any]]:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @property
    def accounts(self) -> dict[str, dict[str, Any]]:
        return {r["account_id"]: r for r in pq.read_table(self.folder / "accounts.parquet").to_pylist()}

    @property
    def groups(self) -> set[frozenset[str]]:
        found: dict[str, set[str]] = {}
        for account, row in self.accounts.items():
            if row["campaign_id"]:
                found.setdefault(row["campaign_id"], set()).add(account)
        return {frozenset(g) for g in found.values()}

    @property
    def flags(self) -> dict[str, datetime]:
        return {a: r["first_flagged_at"] for a, r in self.accounts.items() if r["first_flagged_at"]}


Run = Callable[..., Told]


@pytest.fixture(scope="module", autouse=True)
def quick_to_accuse() -> Iterator[None]:
    """Weights under which a small log has campaigns to follow, right ones and wrong ones: these tests are of time alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            weighing, "weights", lambda: weights_of(-1.0, read=4.0, share_card=4.0, share_wording=2.0, org=-8.0)
        )
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replays")
    (folder / "key").write_text("a key for tests, and for nothing else")
    plans = tuple(parse_campaign(c) for c in PLANTED)
    simulate(default_world(4, accounts=600, exchanges=10_000, campaigns=plans), folder / "world")
    return folder


@pytest.fixture(scope="module")
def run(base: Path) -> Run:
    count = iter(range(100))

    def through_the_command_line(command: str, log: Path, *more: str) -> Told:
        out, world = base / f"result-{next(count)}", base / "world"
        arguments = [command, str(log), "--out", str(out), "--key", str(base / "key"), "--quiet", *more]
        arguments += ["--accounts", str(world / "accounts.parquet"), "--models", str(world / "models.csv")]
        with contextlib.redirect_stdout(io.StringIO()):
            return Told(cli.main(arguments), out)

    return through_the_command_line


@pytest.fixture(scope="module")
def whole(base: Path, run: Run) -> Told:
    return run("replay", base / "world" / "exchanges", "--every", "7d")


@pytest.fixture(scope="module")
def scanned(base: Path, run: Run) -> Told:
    return run("scan", base / "world" / "exchanges")


def test_a_replay_ends_with_the_campaigns_of_a_scan(whole: Told, scanned: Told) -> None:
    assert scanned.groups, "nothing to compare"
    assert whole.groups == scanned.groups
    assert whole.code == scanned.code == 1
    for row in scanned.accounts.values():
        mine = whole.accounts[row["account_id"]]
        assert (mine["campaign_id"] is None) == (row["campaign_id"] is None)
        assert mine["risk"] == pytest.approx(row["risk"], abs=1e-6)
    reviewed = [sorted((c["accounts"], c["exchanges"]) for c in t.json("review.json")) for t in (whole, scanned)]
    assert reviewed[0] == reviewed[1]


def test_a_replay_with_a_policy_tells_what_it_would_have_done(whole: Told, base: Path, run: Run) -> None:
    caps = "[caps]\naccounts_per_hour = 9999\ntraffic_share_per_hour = 1.0"
    rules = f'[[rules]]\nname = "hide"\nrung = "protect"\nlasts = "30d"\n{caps}'
    (base / "policy.toml").write_text(rules, encoding="utf-8")
    told = run("replay", base / "world" / "exchanges", "--every", "7d", "--policy", str(base / "policy.toml"))
    assert told.flags == whole.flags
    end = pc.max(pq.read_table(base / "world" / "exchanges", columns=["time"])["time"]).as_py()
    (row,) = json.loads((told.folder / "policy.json").read_text(encoding="utf-8"))["rungs"]
    assert (row["rung"], row["signed"]) == ("protect", 0)
    assert row["without_person"] == sum(t <= end for t in told.flags.values()) > 0
    assert 0 < row["before"] < row["exchanges"]
    assert row["honest"] == len(honest_accounts(base) & {a for a, t in told.flags.items() if t <= end})
    assert not (whole.folder / "policy.json").exists()


def honest_accounts(base: Path) -> set[str]:
    truth = pq.read_table(base / "world" / "truth.parquet")
    return set(truth.filter(pc.is_null(truth["campaign_id"]))["account_id"].to_pylist())


def test_history_tells_every_campaign_there_ever_was(whole: Told) -> None:
    history = {h["campaign_id"]: h for h in whole.json("history.json")}
    campaigns = {c["campaign_id"]: c for c in whole.json("campaigns.json")}
    assert set(campaigns) <= set(history)
    for name, campaign in campaigns.items():
        told = history[name]
        assert datetime.fromisoformat(campaign["detected_at"]) == datetime.fromisoformat(told["named_at"])
        assert told["events"][0]["event"] == "named"
        assert told["merged_into"] is None
        counts = [e["accounts"] for e in told["events"] if "accounts" in e]
        assert counts[-1] == campaign["accounts"]
        times = [datetime.fromisoformat(e["at"]) for e in told["events"]]
        assert times == sorted(times)
        assert all(((t - EPOCH) % EVERY) == timedelta(0) for t in times)
    ended = {h["campaign_id"] for h in history.values() if h["events"][-1]["event"].startswith(("cleared", "merged"))}
    assert ended == set(history) - set(campaigns)


def test_times_of_accounts_hold_together(whole: Told) -> None:
    named = {c["campaign_id"]: datetime.fromisoformat(c["detected_at"]) for c in whole.json("campaigns.json")}
    for row in whole.accounts.values():
        flagged, cleared = row["first_flagged_at"], row["cleared_at"]
        if row["campaign_id"]:
            assert flagged is not None
            assert cleared is None
        elif flagged is not None:
            assert cleared > flagged, "flagged once and in no campaign now"
        else:
            assert cleared is None
        if flagged is not None:
            assert (flagged - EPOCH) % EVERY == timedelta(0)
    for name, at in named.items():
        mine = [r["first_flagged_at"] for r in whole.accounts.values() if r["campaign_id"] == name]
        assert min(mine) <= at <= max(mine), "somebody was flagged when it was named, or in another before"


def test_nobody_is_flagged_before_it_was_seen(whole: Told, base: Path) -> None:
    rows = pq.read_table(base / "world" / "exchanges", columns=["account_id", "time"])
    first = rows.group_by("account_id").aggregate([("time", "min")]).to_pylist()
    seen = {r["account_id"]: r["time_min"] for r in first}
    assert all(at > seen[account] for account, at in whole.flags.items())


@dataclass(frozen=True)
class Cut:
    """The log up to the end of a step, and its replay."""

    log: pa.Table
    at: datetime
    told: Told


@pytest.fixture(scope="module")
def cut(base: Path, run: Run) -> Cut:
    log = pq.read_table(base / "world" / "exchanges")
    at = EPOCH + ((pc.max(log["time"]).as_py() - EPOCH) // EVERY - 1) * EVERY
    short = log.filter(pc.less(log["time"], pa.scalar(at, log["time"].type)))
    pq.write_table(short, base / "short.parquet")
    return Cut(short, at, run("replay", base / "short.parquet", "--every", "7d"))


def test_no_step_knows_of_what_comes_later(whole: Told, cut: Cut) -> None:
    """The log cut off after a step: until then the same accounts were flagged at the same times."""
    before = {a: t for a, t in whole.flags.items() if t < cut.at}
    assert before, "somebody was flagged in the first weeks"
    assert {a: t for a, t in cut.told.flags.items() if t < cut.at} == before
    # The last step judges the whole log, so at its end more may be known than a step would tell.
    assert {a for a, t in whole.flags.items() if t == cut.at} <= {a for a, t in cut.told.flags.items() if t == cut.at}
    assert max(cut.told.flags.values()) <= cut.at


def test_rows_in_any_order_give_the_same_replay(cut: Cut, base: Path, run: Run) -> None:
    folder = base / "shuffled"
    folder.mkdir()
    order = np.random.default_rng(6).permutation(cut.log.num_rows)
    for name, part in zip("ba", np.array_split(order, 2)):
        pq.write_table(cut.log.take(pa.array(part)), folder / f"{name}.parquet")
    told = run("replay", folder, "--every", "7d")
    assert told.groups == cut.told.groups
    assert told.flags == cut.told.flags
    assert told.json("history.json") == cut.told.json("history.json")


@pytest.mark.parametrize("every", ["soon", "0s", "-1h", "400d", "1w", ""])
def test_a_length_that_is_none_is_refused_with_a_hint(
    every: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = cli.main(["replay", str(base / "world" / "exchanges"), "--out", str(out), f"--every={every}", "--quiet"])
    err = capsys.readouterr().err
    assert code == 2
    assert "hint:" in err
    assert repr(every) in err
    assert not out.exists(), "nothing was begun"
