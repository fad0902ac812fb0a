"""A replay that is broken off and taken up again ends as one without a break; a state that does not fit is refused."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
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

from fixtures_engine import weights_of
from fixtures_findings import Written
from stillwatch import __version__, checkpoint, cli, replay, weighing
from stillwatch.checkpoint import Checkpoint, Hashes, Saved, belonging, packed, resumed
from stillwatch.config import Config
from stillwatch.intake import Taken, digest_of
from stillwatch.ledger import NEVER, Ledger
from stillwatch.privacy import Privacy
from stillwatch.recognition import Book, Profile
from stillwatch.simulate import default_world, parse_campaign, simulate
from stillwatch.watch import Schedule, Watch

PLANTED = ("balanced_reasoning:50", "foreign_traces:50")
EVERY = "2d"
KEY = Privacy(b"a key for tests, and for nothing else")


@dataclass(frozen=True)
class Told(Written):
    """What a replay left: its files, exit code, and what it said."""

    code: int
    said: str

    @property
    def flagged(self) -> list[dict[str, Any]]:
        return [r for r in self.accounts if r["first_flagged_at"]]


Run = Callable[..., Told]


@pytest.fixture(scope="module", autouse=True)
def quick_to_accuse() -> Iterator[None]:
    """Weights under which a small log has campaigns to follow, and saves that come often: these tests are of time alone."""
    weights = weights_of(-1.0, read=4.0, share_card=4.0, share_wording=2.0, org=-8.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weighing, "weights", lambda: weights)
        patch.setattr(checkpoint, "LEAST", 500)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "key").write_bytes(KEY.secret)
    plans = tuple(parse_campaign(c) for c in PLANTED)
    simulate(default_world(4, accounts=600, exchanges=8_000, campaigns=plans), folder / "world")
    return folder


@pytest.fixture(scope="module")
def log(base: Path) -> pa.Table:
    return pq.read_table(base / "world" / "exchanges").sort_by("time")


@pytest.fixture(scope="module")
def run(base: Path) -> Run:
    count = iter(range(100))

    def through_the_command_line(*more: str, log: Path | None = None, key: str = "key") -> Told:
        out, world = base / f"result-{next(count)}", base / "world"
        arguments = ["replay", str(log or world / "exchanges"), "--out", str(out), "--key", str(base / key), "--quiet"]
        arguments += ["--accounts", str(world / "accounts.parquet"), "--models", str(world / "models.csv"), *more]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(arguments if "--every" in more else [*arguments, "--every", EVERY])
            return Told(out, code=code, said=said.getvalue())

    return through_the_command_line


@pytest.fixture(scope="module")
def whole(run: Run) -> Told:
    told = run()
    assert told.json("campaigns.json"), "nothing to compare"
    assert len({r["first_flagged_at"] for r in told.flagged}) > 1, "somebody was flagged between the first and the last"
    return told


def at(log: pa.Table, share: float) -> datetime:
    """The time by which this share of the log has arrived."""
    return log["time"][int(share * log.num_rows)].as_py()


# Cut and taken up


def test_a_run_cut_twice_is_as_one_without_a_break(whole: Told, run: Run, log: pa.Table, base: Path) -> None:
    state = str(base / "twice")
    for share in (0.35, 0.7):
        until = at(log, share)
        part = run("--state", state, "--until", until.isoformat())
        rows = part.json("run.json")["rows"]
        assert 0 < rows["exchanges_later"] < log.num_rows
        assert rows["exchanges_kept"] + rows["exchanges_later"] == log.num_rows
        assert rows["exchanges_rejected"] == 0
        last = datetime.fromisoformat(part.json("run.json")["last_time"])
        assert until - timedelta(days=2) < last < until + timedelta(days=2)
    ended = run("--state", state)
    assert ended.found == whole.found
    assert ended.code == whole.code
    assert ended.json("run.json")["taken_up_rows"] == rows["exchanges_kept"]
    again = run("--state", state)
    assert again.found == whole.found, "nothing has been added"
    figures = again.json("run.json")
    assert figures["settings"]["every"] == EVERY
    assert figures["state_bytes"] == sum(p.stat().st_size for p in Path(state).iterdir())
    assert f"{figures['taken_up_rows']:,} exchanges taken up" in " ".join(again.said.split())


def test_so_is_one_whose_first_rows_stay_as_they_were_judged(
    run: Run, log: pa.Table, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond ``SMALL`` arrivals only the newest rows get their wordings anew."""
    monkeypatch.setattr(replay, "SMALL", 2000)
    monkeypatch.setattr(replay, "RECENT_ROWS", 1000)
    unbroken = run()
    for share in (0.3, 0.6):
        state = str(base / f"large-{share}")
        run("--state", state, "--until", at(log, share).isoformat())
        assert run("--state", state).found == unbroken.found


def test_an_interrupted_run_is_taken_up_from_the_end_of_its_step(
    whole: Told, run: Run, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, greet, calls = base / "interrupted", replay.greet, iter(range(1000))

    def interrupted(*given: Any) -> None:
        if next(calls) == 6:
            signal.raise_signal(signal.SIGTERM)
        greet(*given)

    with monkeypatch.context() as patch:
        patch.setattr(replay, "greet", interrupted)
        told = run("--state", str(state))
    assert told.code == 130
    assert not told.folder.exists() or not list(told.folder.iterdir())
    assert next(calls) == 7, "no step after the one that was under way"
    manifest = json.loads((state / "state.json").read_text())
    assert 0 < manifest["log"]["rows"] < whole.json("run.json")["rows"]["exchanges_kept"]
    ended = run("--state", str(state))
    assert ended.json("run.json")["taken_up_rows"] == manifest["log"]["rows"]
    assert ended.found == whole.found


def test_a_run_that_breaks_leaves_the_state_before_it(run: Run, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, step, calls = base / "broken", replay.step, iter(range(1000))

    def broken(*given: Any) -> None:
        step(*given)
        if next(calls) == 7:
            raise KeyError("a fault in the midst of a step")

    monkeypatch.setattr(replay, "step", broken)
    assert run("--state", str(state)).code == 70
    rows = json.loads((state / "state.json").read_text())["log"]["rows"] if (state / "state.json").exists() else 0
    monkeypatch.setattr(replay, "step", step)
    assert run("--state", str(state)).json("run.json")["taken_up_rows"] == rows


def folder_of(base: Path, name: str, *parts: pa.Table) -> Path:
    folder = base / name
    folder.mkdir(exist_ok=True)
    for part in parts:
        pq.write_table(part, folder / f"day-{len(list(folder.iterdir()))}.parquet")
    return folder


def test_a_log_that_grows_goes_on_where_it_was(whole: Told, run: Run, log: pa.Table, base: Path) -> None:
    """The files end in the midst of a step, which is taken anew when the rest of it is there."""
    grown = folder_of(base, "grown", log[:4001])
    first = run("--state", str(base / "growing"), log=grown)
    assert first.json("run.json")["rows"]["exchanges_kept"] == 4001
    folder_of(base, "grown", log[4001:])
    second = run("--state", str(base / "growing"), log=grown)
    figures = second.json("run.json")
    assert 0 < figures["taken_up_rows"] < 4001
    assert figures["late_rows"] == 0
    assert second.found == whole.found


def test_rows_that_come_late_are_taken_in_and_counted(run: Run, log: pa.Table, base: Path) -> None:
    held = pa.array(np.arange(log.num_rows) % 10 == 0)
    early, late = log.filter(pc.invert(held)), log.filter(held)
    growing, state = folder_of(base, "late", early[:4000]), base / "late-state"
    run("--state", str(state), log=growing)
    manifest = json.loads((state / "state.json").read_text())
    end = datetime.fromtimestamp(manifest["end"] / 1e6, UTC)
    folder_of(base, "late", pa.concat_tables([late, early[4000:]]))
    told = run("--state", str(state), log=growing)
    figures = told.json("run.json")
    missed = late.filter(pc.less(late["time"], pa.scalar(end, late["time"].type)))
    assert figures["late_rows"] == missed.num_rows > 100
    assert figures["rows"]["exchanges_kept"] == log.num_rows
    assert "came late" in told.said
    counted_once = run("--state", str(state), log=growing)
    assert counted_once.json("run.json")["late_rows"] == missed.num_rows
    assert counted_once.found == told.found


# What is told of it


@pytest.fixture(scope="module")
def cut(run: Run, log: pa.Table, base: Path) -> Path:
    """A state of the first third of the log."""
    run("--state", str(base / "cut"), "--until", at(log, 0.3).isoformat())
    return base / "cut"


@pytest.fixture
def state(cut: Path, tmp_path: Path) -> Path:
    """A state to do harm to."""
    return Path(shutil.copytree(cut, tmp_path / "state"))


def test_a_state_names_what_it_belongs_to(state: Path) -> None:
    manifest = json.loads((state / "state.json").read_text())
    assert manifest["format"] == checkpoint.FORMAT
    assert manifest["version"] == __version__
    assert manifest["key_id"] == KEY.key_id
    assert manifest["every"] == EVERY
    assert manifest["settings"] == {"engine": "duckdb", "detectors": {}}
    assert set(manifest["log"]) == {"rows", "last_exchange", "digest"}
    assert {p.name for p in state.iterdir()} == {"state.json", ".lock", *manifest["files"]}, "no other file is left"


def test_memory_and_threads_may_differ() -> None:
    assert belonging(Config(memory="1GB", threads=3), KEY, EVERY) == belonging(Config(), KEY, EVERY)


@pytest.mark.parametrize(
    ("what", "options", "key"),
    [
        ("every", ("--every", "1d"), "key"),
        ("key id", (), "other"),
        ("settings", ("--config", "CONFIG"), "key"),
    ],
)
def test_a_state_of_other_settings_is_refused(
    what: str, options: tuple[str, ...], key: str, run: Run, state: Path, base: Path
) -> None:
    (base / "other").write_text("another key for tests, and for nothing else")
    (base / "detectors.toml").write_text("[detectors.shared_payment]\nmax_holders = 7\n")
    told = run("--state", str(state), *(o.replace("CONFIG", str(base / "detectors.toml")) for o in options), key=key)
    assert told.code == 2
    assert f"the state is of another {what}" in told.said
    assert "hint:" in told.said
    assert not told.folder.exists()


def written_by(state: Path, **changes: Any) -> None:
    manifest = json.loads((state / "state.json").read_text()) | changes
    del manifest["sha256"]
    manifest["sha256"] = checkpoint._sha256_of(manifest)
    (state / "state.json").write_text(json.dumps(manifest))


def test_a_state_of_another_format_is_refused(run: Run, state: Path) -> None:
    written_by(state, format=1)
    told = run("--state", str(state))
    assert told.code == 2
    assert "another format: 1, not" in told.said


def test_a_state_of_another_version_and_the_same_format_is_taken_up(whole: Told, run: Run, state: Path) -> None:
    written_by(state, version="0.0.1", settings={"engine": "duckdb", "a setting that was": 7})
    assert run("--state", str(state)).found == whole.found
    assert json.loads((state / "state.json").read_text())["version"] == __version__


def test_a_state_in_many_files_is_written_anew_as_one(
    whole: Told, run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name for p in state.iterdir() if p.name.startswith("part-")}
    monkeypatch.setattr(checkpoint, "PARTS", 0)
    ended = run("--state", str(state))
    assert ended.found == whole.found
    assert before and not before & {p.name for p in state.iterdir()}
    monkeypatch.setattr(checkpoint, "PARTS", 64)
    assert run("--state", str(state)).found == whole.found, "digest and all"


def test_another_log_is_refused(run: Run, log: pa.Table, state: Path, base: Path) -> None:
    for name, other, why in (
        ("lacking", log[5:], "lacks 5 of the"),
        ("moved", log.set_column(log.schema.get_field_index("time"), "time", moved(log)), "another time or account"),
    ):
        told = run("--state", str(state), log=folder_of(base, name, other))
        assert told.code == 2
        assert why in told.said
        assert "hint:" in told.said


def moved(log: pa.Table) -> pa.Array:
    """The times of the log, the first of them a second later."""
    times = log["time"].cast(pa.int64()).to_numpy().copy()
    times[0] += 10**6
    return pa.array(times).cast(log["time"].type)


def test_an_end_before_that_of_the_state_is_refused(run: Run, log: pa.Table, state: Path) -> None:
    told = run("--state", str(state), "--until", at(log, 0.1).isoformat())
    assert told.code == 2
    assert "later than --until" in told.said


def test_a_state_needs_a_key_that_lasts(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STILLWATCH_KEY", raising=False)
    said = io.StringIO()
    arguments = ["replay", str(base / "world" / "exchanges"), "--out", str(base / "o"), "--state", str(base / "s")]
    with contextlib.redirect_stderr(said):
        assert cli.main(arguments) == 2
    assert "a key that lasts" in said.getvalue()


def test_every_file_that_is_damaged_is_named(run: Run, cut: Path, tmp_path: Path) -> None:
    for name in sorted(p.name for p in cut.iterdir() if p.name != ".lock"):
        for harm in (truncated, changed, Path.unlink):
            if name == "state.json" and harm is Path.unlink:
                continue
            shutil.copytree(cut, tmp_path / "state", dirs_exist_ok=True)
            harm(tmp_path / "state" / name)
            told = run("--state", str(tmp_path / "state"))
            assert told.code == 5, (name, harm, told.said)
            assert name in told.said
            assert "hint:" in told.said


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def changed(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)


def test_two_runs_do_not_share_a_state(run: Run, state: Path) -> None:
    with Checkpoint(state, belonging(Config(), KEY, EVERY)).held():
        told = run("--state", str(state))
    assert told.code == 5
    assert "another replay is using this state" in told.said


# Parts


def a_watch() -> Watch:
    ledger = Ledger.empty(4)
    ledger.record([("SW-1", np.array([1, 3]))], 10)
    ledger.record([("SW-1", np.array([3]))], 20)
    profile = Profile(
        np.array([5, 9]), np.array([1.5, -np.inf]), np.array([0, 1]), -3.25, np.zeros(2), np.array([7]), 0.125
    )
    return Watch(
        ledger, Schedule(30, 4, 0.1), Book.of([(0, profile)]), tried=np.array([[3, 77], [2, -5]]), until=40, end=50,
        unexplained=6, late=2,
    )  # fmt: skip


def test_a_watch_is_the_same_after_accounts_were_numbered_anew() -> None:
    watch = a_watch()
    arrays, plain = packed(watch, Hashes(np.array([40, 10, 30, 20]), np.array([1])))
    taken = Taken(pa.table({"exchange": pa.array([1])}), np.zeros((1, 1), np.uint32), (), 0)  # type: ignore[arg-type]
    saved = Saved(taken, np.zeros(1), np.zeros(1), 50, arrays, json.loads(json.dumps(plain)))
    now = np.array([99, 40, 98, 10, 30, 20])
    back = resumed(saved, Hashes(now, np.array([1])), np.array([0, 1, 0, 3, 4, 5]))
    assert back.ledger.owner.tolist() == [NEVER, NEVER, NEVER, NEVER, NEVER, 0]
    assert back.ledger.flagged_at.tolist() == [NEVER, NEVER, NEVER, 10, NEVER, 10]
    assert back.ledger.cleared_at.tolist() == [NEVER, NEVER, NEVER, 20, NEVER, NEVER]
    assert back.ledger.entries == watch.ledger.entries
    assert back.schedule == watch.schedule
    assert back.tried.tolist() == [[5, 77], [4, -5]]
    assert (back.until, back.end, back.unexplained, back.late) == (40, 50, 6, 2)
    assert np.array_equal(back.book.telling, watch.book.telling)
    for name in ("keys", "gain", "kind", "prior", "lacking", "markers", "share"):
        assert np.array_equal(getattr(back.book.profiles[0], name), getattr(watch.book.profiles[0], name))


def test_the_digest_of_rows_hangs_on_each_of_them_and_on_no_order() -> None:
    rows = np.random.default_rng(1).integers(-(2**62), 2**62, (3, 50))
    order = np.random.default_rng(2).permutation(50)
    assert (
        digest_of(*rows) == digest_of(*rows[:, order]) == (digest_of(*rows[:, :20]) + digest_of(*rows[:, 20:])) % 2**64
    )
    for k in range(3):
        other = rows.copy()
        other[k, 7] += 1
        assert digest_of(*other) != digest_of(*rows)
    assert digest_of(*rows[:, :0]) == 0
