"""Engines keep one contract, whichever runs; results are whole or absent; the state is added to, never edited."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from stillwatch.errors import EngineError, Terminal, Transient, UsageError
from stillwatch.store import Engine, open_engine
from stillwatch.store.migrations import MIGRATIONS
from stillwatch.store.places import Place
from stillwatch.store.state import Judgement, Staging, State, atomic, write_json, write_parquet
from stillwatch.testing import difference

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENGINES = ["duckdb", pytest.param("spark", marks=pytest.mark.spark)]
UTC_US = pa.timestamp("us", tz="UTC")


def opened(name: str) -> AbstractContextManager[Engine]:
    return open_engine(name, memory="1GB", threads=1)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with opened(request.param) as engine:
        yield engine


def numbers() -> pa.Table:
    return pa.table({
        "account": pa.array([1, 2, 3, None], pa.int32()),
        "kind": ["card", None, "it's", "net"],
        "bits": pa.array([0.5, float("inf"), None, -1.0]),
        "small": pa.array([1, 2, 3, 4], pa.int8()),
        "is_batch": [True, None, False, True],
        "first": pa.array([NOON, NOON + timedelta(microseconds=1), None, NOON], UTC_US),
    })  # fmt: skip


def test_rows_come_back_as_they_went_in(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    engine.append("t", numbers())
    back = engine.rows("t")
    assert back.schema.types == numbers().schema.types
    assert not difference(back, numbers(), 0)


def test_append_goes_by_name_and_fills_gaps(engine: Engine) -> None:
    engine.append("t", numbers().to_batches()[0])
    engine.append("t", pa.table({"kind": ["late"], "account": pa.array([9], pa.int64())}))
    engine.append("t", numbers().slice(0, 0))
    got = engine.rows("SELECT account, kind, bits FROM t WHERE account = 9").to_pylist()
    assert got == [{"account": 9, "kind": "late", "bits": None}]
    assert engine.rows("SELECT count(*) AS n FROM t").to_pylist() == [{"n": 5}]
    with pytest.raises(EngineError, match="'t' failed"):
        engine.append("t", pa.table({"unheard_of": [1]}))


def test_a_slice_is_only_its_rows(engine: Engine) -> None:
    engine.append("t", numbers().slice(1, 2))
    assert sorted(engine.rows("t")["account"].to_pylist()) == [2, 3]


def test_an_empty_table_is_a_table(engine: Engine) -> None:
    engine.append("t", numbers().slice(0, 0))
    engine.step("s", "SELECT account, count(*) AS n FROM t GROUP BY account")
    assert engine.rows("s").to_pylist() == []
    assert engine.rows("SELECT sum(bits) AS b, count(*) AS n FROM t").to_pylist() == [{"b": None, "n": 0}]


def test_a_step_takes_the_place_of_its_table_even_when_it_reads_it(engine: Engine) -> None:
    engine.append("t", numbers())
    engine.step("t", "SELECT account FROM t WHERE account >= $least", {"least": 2, "unread": 7})
    engine.step("t", "SELECT account + 1 AS account FROM t")
    assert sorted(engine.rows("t")["account"].to_pylist()) == [3, 4]
    engine.append("t", pa.table({"account": pa.array([8], pa.int32())}))
    assert sorted(engine.rows("t")["account"].to_pylist()) == [3, 4, 8]


@pytest.mark.parametrize(
    "value",
    [0, -7, 2**40, 0.1, -1e-300, True, None, "", "it's", "a\\'; DROP TABLE t --\n", "$other", NOON, "ünï \\n"],
)
def test_a_parameter_is_a_value_and_nothing_else(engine: Engine, value: object) -> None:
    assert engine.rows("SELECT $v AS v", {"v": value}).to_pylist() == [{"v": value}]  # type: ignore[dict-item]


def test_sums_are_whole_numbers_and_do_not_wrap(engine: Engine) -> None:
    engine.append("t", pa.table({"n": pa.array([2**31 - 1] * 3, pa.int32())}))
    got = engine.rows("SELECT sum(n) AS total, sum(n * 0.5) AS half FROM t")
    assert got.schema.types == [pa.int64(), pa.float64()]
    assert got.to_pylist() == [{"total": 3 * (2**31 - 1), "half": 1.5 * (2**31 - 1)}]
    with pytest.raises(EngineError):
        engine.step("s", "SELECT n + n AS twice FROM t")


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT nope FROM t", {}),
        ("SELECT * FROM nowhere", {}),
        ("SELEC 1", {}),
        ("SELECT $missing AS x", {}),
        ("SELECT 1 / (account - account) AS x FROM t WHERE account = 1", {}),
    ],
)
def test_a_failed_step_names_itself_and_shows_its_sql(engine: Engine, sql: str, params: dict[str, int]) -> None:
    engine.append("t", numbers())
    with pytest.raises(EngineError) as caught:
        engine.step("the_step", sql, params)
    assert "step 'the_step' failed" in str(caught.value) and sql in str(caught.value)
    assert caught.value.__cause__ is not None
    assert len(str(caught.value)) < 3000


def test_engines_do_not_see_each_other_and_leave_nothing(tmp_path: Path) -> None:
    with open_engine("duckdb", "1GB", 1, tmp_path / "spill") as one, open_engine("duckdb", "1GB", 1, tmp_path) as other:
        one.append("t", numbers())
        with pytest.raises(EngineError):
            other.rows("t")
        one.close()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_unknown_engine_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'oracle'"):
        open_engine("oracle")
    with pytest.raises(EngineError, match="does not open"):
        open_engine("duckdb", memory="much")


def test_more_rows_than_memory_go_through_the_disk(tmp_path: Path) -> None:
    """Half a million wide rows are 40 MB, sorted twice that: under a limit of 50 MB a sort must spill, and be right."""
    with open_engine("duckdb", "50MB", 1, tmp_path) as engine:
        engine.step("wide", "SELECT i, md5(i::VARCHAR) || md5((i + 1)::VARCHAR) AS v FROM range(500000) r(i)")
        engine.step("ranked", "SELECT i, v, row_number() OVER (ORDER BY v) AS place FROM wide")
        got = engine.rows("SELECT count(DISTINCT place) AS n, max(place) AS m FROM ranked").to_pylist()
    assert got == [{"n": 500_000, "m": 500_000}]


EXPRESSIONS = (
    "date_diff('hour', s, e)", "date_diff('day', s, e)", "epoch(e)", "epoch_us(e)", "date_trunc('hour', e)",
    "extract(hour FROM e)", "extract(dow FROM e)", "extract(isodow FROM e)", "dayofweek(e)", "isodow(e)", "hour(e)",
    "s + INTERVAL 36 HOUR", "date_diff('minute', s, e + INTERVAL 30 SECOND)",
    "log2(a)", "ln(a)", "exp(-a)", "power(a, b)", "sqrt(a)", "round(x, 1)", "floor(x)", "abs(b)",
    "a / b", "a // b", "a % 3", "a * 1.0 / 3", "1e-6 * a", "b * 0.1 + 0.2", "a / nullif(b - b, 0)",
    "greatest(a, b, n)", "least(x, a)", "coalesce(n, a)", "CASE WHEN n > 1 THEN 1 ELSE 0 END", "n IS NULL",
    "concat(w, '-', n)", "w || n", "upper(w)", "CAST(a AS VARCHAR)", "CAST(x AS BIGINT)", "a IN (1, 2)",
    "a & 6", "n > 1 OR a > 0", "w = 'it''s \\n'", "a = $k", "date_diff('hour', $t, e)", "epoch($t)",
)  # fmt: skip
"""What a step may say, and mean the same by, on every engine: one line for whatever a detector comes to use."""

AGGREGATES = (
    "count(*)", "count(n)", "count(DISTINCT w)", "sum(a)", "avg(a)", "min(e)", "max(w)", "sum(n)", "stddev_samp(a)",
    "count(*) FILTER (WHERE a > 2)", "median(a)", "quantile_cont(x, 0.25)", "bool_or(a > 3)", "arg_max(w, a)",
    "arg_min(w, x)", "sum(a * 1.0) / count(*)",
)  # fmt: skip


def moments() -> pa.Table:
    times = [NOON + timedelta(minutes=m, seconds=0.25) for m in (59, 61, 60 * 24 * 3 + 1, -7)]
    return pa.table({
        "g": pa.array([1, 1, 2, None], pa.int32()),
        "a": pa.array([1, 2, 3, 5], pa.int64()),
        "b": pa.array([2, -3, 7, 4], pa.int32()),
        "n": pa.array([None, 1, 2, None], pa.int32()),
        "x": [0.25, 2.5, -1.25, 1e3],
        "w": ["u", None, "it's \\n", "w"],
        "s": pa.array([NOON] * 4, UTC_US),
        "e": pa.array(times, UTC_US),
    })  # fmt: skip


@pytest.mark.spark
def test_an_expression_means_the_same_on_both_engines() -> None:
    each = "SELECT a, " + ", ".join(f"{e} AS e{k}" for k, e in enumerate(EXPRESSIONS)) + " FROM m"
    grouped = "SELECT g, " + ", ".join(f"{e} AS e{k}" for k, e in enumerate(AGGREGATES)) + " FROM m GROUP BY g"
    ranked = """SELECT a, row_number() OVER (PARTITION BY g ORDER BY n, w DESC, a) AS place,
        rank() OVER (ORDER BY n) AS r, lag(a) OVER (ORDER BY n, a) AS before,
        sum(a) OVER (PARTITION BY g) AS total FROM m"""
    missing = "SELECT a FROM m WHERE n NOT IN (SELECT n FROM m WHERE n IS NOT NULL) OR w IN (SELECT w FROM m)"
    with opened("duckdb") as one, opened("spark") as other:
        for engine in (one, other):
            engine.append("m", moments())
        for sql in (each, grouped, ranked, missing, "SELECT g FROM m UNION SELECT g FROM m WHERE g IS NULL"):
            params = {"k": 3, "t": NOON}
            left, right = one.rows(sql, params), other.rows(sql, params)
            assert left.num_rows
            for name in left.column_names[1:]:
                fault = difference(
                    left.select([left.column_names[0], name]), right.select([left.column_names[0], name])
                )
                assert not fault, f"{name} of {sql}: {fault}"
            assert not difference(left, right)


def test_files_written_at_once_are_as_the_umask_says_and_never_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda _: pytest.fail("all threads would write under it meanwhile"))
            with atomic(tmp_path / "a") as temporary:
                assert stat.S_IMODE(temporary.stat().st_mode) == 0o640
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    finally:
        assert os.umask(before) == 0o027


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.parquet"
    write_parquet(path, numbers())
    write_json(path.with_suffix(".json"), {"a": 1})
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path.with_suffix(".json"), {"a": float("nan")})
    assert pa.parquet.read_table(path).num_rows == 4
    assert json.loads(path.with_suffix(".json").read_text()) == {"a": 1}
    assert sorted(p.name for p in path.parent.iterdir()) == ["t.json", "t.parquet"]


def result(out: Path, word: str, *, fails: bool = False) -> None:
    with Staging(out) as folder:
        (folder / "run.json").write_text(word)
        (folder / "accounts.parquet").write_text(word)
        if fails:
            raise OSError(28, "No space left on device")


def test_an_older_result_is_replaced_whole_or_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space"):
        result(out, "half", fails=True)
    assert list(out.iterdir()) == []
    result(out, "old")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="No space"):
        result(out, "half", fails=True)
    assert [(out / f).read_text() for f in ("run.json", "accounts.parquet")] == ["old", "old"]
    result(out, "new")
    assert [(out / f).read_text() for f in ("run.json", "accounts.parquet", "notes.txt")] == ["new", "new", "mine"]
    assert sorted(p.name for p in out.iterdir()) == ["accounts.parquet", "notes.txt", "run.json"]


def test_there_is_no_run_json_beside_files_of_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result(tmp_path, "old")
    moves = []

    def interrupted(source: Path, target: Path) -> None:
        moves.append(target.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        result(tmp_path, "new")
    assert moves == ["accounts.parquet"]
    assert [p.name for p in tmp_path.iterdir()] == ["accounts.parquet"]


def test_a_killed_run_leaves_the_old_result(tmp_path: Path) -> None:
    result(tmp_path, "old")
    code = f"""
import time
from pathlib import Path
from stillwatch.store.state import Staging
with Staging(Path({str(tmp_path)!r})) as folder:
    (folder / "accounts.parquet").write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert [(tmp_path / f).read_text() for f in ("run.json", "accounts.parquet")] == ["old", "old"]


def test_runs_are_recorded(place: Place) -> None:
    with State(place) as state:
        first = state.begin_run("scan", "log.parquet", "out", "0.1.0")
        second = state.begin_run("scan", "log.parquet", "out", "0.1.0")
        state.end_run(first, 1)
    with State(place) as state:
        runs = {r["run_id"]: r for r in state.runs()}
        assert [r["run_id"] for r in state.runs()] == [first, second]
    assert (runs[first]["exit_code"], runs[second]["ended_at"]) == (1, None)


def test_a_file_is_made_with_its_folder_and_forces_what_is_written(tmp_path: Path) -> None:
    with State(tmp_path / "new" / "state.db") as state:
        assert state.execute("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
        assert state.execute("PRAGMA synchronous") == [{"synchronous": 2}]


def test_the_newest_judgement_holds_and_none_is_edited(place: Place) -> None:
    no = Judgement("c1", "negative", "ana", "a class at a university", NOON)
    yes = Judgement("c1", "positive", "ben", "the same cards again", NOON - timedelta(days=1))
    with State(place) as state:
        state.judge(no)
        state.judge(yes)
        assert state.judgements() == {"c1": yes}
        with pytest.raises(Terminal, match=r"(?i)check"):
            state.judge(Judgement("c1", "guilty", "ana", "", NOON))
        for sql in ("UPDATE judgements SET verdict = 'unsure'", "DELETE FROM judgements"):
            with pytest.raises(Terminal, match="never"):
                state.execute(sql)
        assert state.judgements() == {"c1": yes}
    with pytest.raises(ValueError, match="zone"):
        Judgement("c1", "positive", "ana", "", datetime(2026, 1, 1))


def test_a_state_of_a_newer_version_is_left_alone(place: Place) -> None:
    with State(place) as state:
        state.execute("INSERT INTO migrations (name, applied_at) VALUES ('of_tomorrow', '2030-01-01')")
    with pytest.raises(UsageError, match="of_tomorrow"):
        State(place)


def test_a_busy_state_may_be_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillwatch.store.state.BUSY_S", 0.05)
    started = time.monotonic()
    with State(place) as state:
        with State(place) as other, other.transaction():
            with pytest.raises(Transient, match="another process"):
                state.begin_run("scan", "", "", "")
            assert state.runs() == [], "reading waits for nobody"
        state.begin_run("scan", "", "", "")
    assert time.monotonic() - started < 5


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and long enough to be seen as none" * 20)
    with pytest.raises(Terminal, match="not a database"):
        State(tmp_path / "text")


def test_a_text_that_cannot_be_kept_is_the_senders_fault(place: Place) -> None:
    with State(place) as state:
        with pytest.raises(UsageError, match="half a character"):
            state.judge(Judgement("a\ud800", "unsure", "ann", "", NOON))
        if isinstance(place, Path):
            state.judge(Judgement("a\0b", "unsure", "ann", "", NOON))
        else:
            with pytest.raises(UsageError, match="NUL"):
                state.judge(Judgement("a\0b", "unsure", "ann", "", NOON))
        state.judge(Judgement("ünïcode 😀", "unsure", "ann", "'; DROP TABLE runs; -- %s ? $1", NOON))
        assert state.judgements()["ünïcode 😀"].reason == "'; DROP TABLE runs; -- %s ? $1"


def test_a_transaction_is_whole_or_not_at_all(place: Place) -> None:
    with State(place) as state:
        with pytest.raises(ZeroDivisionError), state.transaction():
            state.begin_run("scan", "", "", "")
            assert len(state.runs()) == 1
            _ = 1 / 0
        assert state.runs() == []
        with state.transaction(), state.transaction():
            state.begin_run("scan", "", "", "")
        assert len(state.runs()) == 1


def test_two_that_add_to_what_they_read_lose_nothing(place: Place) -> None:
    State(place).close()

    def add() -> None:
        with State(place) as state:
            for _ in range(20):
                with state.transaction():
                    row = state.execute("SELECT count(*) AS n FROM judgements")[0]
                    state.judge(Judgement("n", "unsure", "ann", str(row["n"]), NOON))

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with State(place) as state:
        rows = state.execute("SELECT reason FROM judgements ORDER BY number")
        assert [r["reason"] for r in rows] == [str(n) for n in range(60)]


def test_many_that_open_a_new_state_at_once_make_its_tables_once(place: Place) -> None:
    faults: list[BaseException] = []

    def open_() -> None:
        try:
            State(place).close()
        except BaseException as e:
            faults.append(e)

    threads = [threading.Thread(target=open_) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with State(place) as state:
        assert [r["name"] for r in state.execute("SELECT name FROM migrations ORDER BY rowid")] == [
            n for n, _ in MIGRATIONS
        ]
