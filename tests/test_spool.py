"""The spool: what was acknowledged is there once, whatever becomes of the process, the disk or the sender.

Run as a program it is the writer that the crash test kills: ``python tests/test_spool.py SPOOL``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch import spool as spool_module
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.fingerprints import observe
from stillwatch.privacy import Privacy
from stillwatch.spool import (
    ACCOUNT_EVENTS,
    SPOOLED,
    DamagedBatch,
    Dead,
    Limits,
    Overload,
    Spool,
    Stored,
    fingerprinted,
    observed,
)
from stillwatch.tables import ACCOUNTS, EXCHANGES, SKETCH_WIDTH

START = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ROUNDS = int(os.environ.get("STILLWATCH_KILL_ROUNDS", "10"))


def rows(ids: list[int], at: datetime = START) -> pa.Table:
    """Rows of the spool with these exchanges; of the rest, what is cheap to make."""
    count = len(ids)
    given = {
        "account_id": pa.array([f"a{i % 7}" for i in ids], pa.string()),
        "model": pa.array(["m"] * count, pa.string()),
        "time": pa.array([at] * count, pa.timestamp("us", "UTC")),
        "exchange": pa.array(ids, pa.int64()),
        "sketch": pa.array([[i % 2**32] * SKETCH_WIDTH for i in ids], SPOOLED.field("sketch").type),
    }
    return pa.Table.from_arrays([given.get(f.name, pa.nulls(count, f.type)) for f in SPOOLED], schema=SPOOLED)


def held(spool: Spool, after: int = 0) -> list[int]:
    return [e for _, batch in spool.read(after) for e in batch["exchange"].to_pylist()]


def words(*said: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(said), schema=ACCOUNT_EVENTS.schema)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    with Spool(path) as opened:
        yield opened


def exchanges(count: int) -> pa.RecordBatch:
    given = {
        "exchange_id": pa.array([f"e{i}" for i in range(count)]),
        "time": pa.array([START + timedelta(seconds=i) for i in range(count)], pa.timestamp("us", "UTC")),
        "account_id": pa.array([f"a{i % 3}" for i in range(count)]),
        "model": pa.array(["m"] * count),
        "prompt": pa.array([f"Explain step by step why {i} is prime, and show your reasoning." for i in range(count)]),
        "system": pa.array(["You are a helpful assistant that writes long answers."] * count),
        "ip": pa.array(["198.51.100.7"] * count),
    }
    columns = [given.get(f.name, pa.nulls(count, f.type)) for f in EXCHANGES.schema]
    return pa.RecordBatch.from_arrays(columns, schema=EXCHANGES.schema)


def test_what_was_observed_comes_back_as_it_was(spool: Spool) -> None:
    privacy, batch = Privacy(b"a key for this test only"), exchanges(40)
    seen = observe(batch, privacy)
    assert spool.put(fingerprinted(batch, privacy)) == Stored(40, 0, 0)
    ((number, back),) = spool.read()
    assert number == 1
    assert back["account_id"].to_pylist() == batch["account_id"].to_pylist()
    again = observed(back)
    assert again.facts.equals(seen.facts)
    assert (again.sketch == seen.sketch).all() and seen.sketch.any()
    assert (again.system_sketch == seen.system_sketch).all() and seen.system_sketch.any()


def test_nothing_a_person_wrote_is_on_disk(path: Path) -> None:
    privacy, batch = Privacy(b"a key for this test only"), exchanges(5)
    with Spool(path) as spool:
        spool.put(fingerprinted(batch, privacy), [Dead("no account id", "exchanges:3", 77)], "exchanges")
        packed = b"".join(f.read_bytes() for f in path.parent.iterdir())
        kept = b"".join(batch.serialize().to_pybytes() for _, t in spool.read() for batch in t.to_batches())
    for secret in (b"Explain step", b"198.51.100.7", b"helpful assistant"):
        assert secret not in packed and secret not in kept


def test_no_rows_at_all(spool: Spool) -> None:
    assert spool.put(rows([])) == Stored(0, 0, 0)
    assert observed(rows([])).sketch.shape == (0, SKETCH_WIDTH)
    assert list(spool.read()) == []
    figures = spool.figures()
    assert (figures.rows, figures.oldest, figures.newest, figures.last) == (0, None, None, 0)


def test_an_exchange_is_held_once(path: Path) -> None:
    extreme = [-(2**63), 2**63 - 1, 1, 1, -1]
    with Spool(path) as spool:
        assert spool.put(rows(extreme)) == Stored(4, 1, 0)
        assert spool.put(rows([1, 5, 5])) == Stored(1, 2, 0)
    with Spool(path) as spool:
        assert spool.put(rows([*extreme, 5, 6])) == Stored(1, 6, 0)
        assert sorted(held(spool)) == sorted({*extreme, 5, 6})


def test_the_first_of_equal_exchanges_stays(spool: Spool) -> None:
    spool.put(pa.concat_tables([rows([3], START), rows([3], START + DAY)]))
    spool.put(rows([3], START + 2 * DAY))
    ((_, back),) = spool.read()
    assert back["time"].to_pylist() == [START]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=8))
def test_any_order_and_cut_of_puts_gives_each_exchange_once(puts: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, Spool(Path(folder) / "s.db", Limits(join_s=0)) as spool:
        told = [f.result() for f in [spool.submit(rows(ids)) for ids in puts]]
        everything = [i for ids in puts for i in ids]
        assert Counter(held(spool)) == Counter(set(everything))
        assert sum(t.new for t in told) == len(set(everything))
        assert [t.new + t.duplicates for t in told] == list(map(len, puts))


def test_many_threads_at_once_share_commits(path: Path) -> None:
    with Spool(path) as spool, ThreadPoolExecutor(16) as pool:
        # Every id is sent by two threads.
        sent = [[k % 200 * 10 + i for i in range(10)] for k in range(400)]
        told = list(pool.map(lambda ids: spool.put(rows(ids)), sent))
        assert sum(t.new for t in told) == 2000
        assert Counter(held(spool)) == Counter(range(2000))
        assert spool.figures().batches < 200


def test_waiting_puts_are_one_commit(spool: Spool, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        futures = [spool.submit(rows([k])) for k in range(250)]
        other.execute("ROLLBACK")
    assert sum(f.result().new for f in futures) == 250
    # One begun before the others came, one of at most 200, and the rest.
    assert 2 <= spool.figures().batches <= 3


def test_a_lone_put_does_not_wait_for_company(path: Path) -> None:
    with Spool(path, Limits(join_s=5)) as spool:
        began = time.monotonic()
        spool.put(rows([1]))
        assert time.monotonic() - began < 4


def test_reading_goes_on_after_a_number_and_sees_what_came_meanwhile_the_next_time(spool: Spool) -> None:
    spool.put(rows([1]))
    reading = spool.read()
    assert next(reading)[0] == 1
    spool.put(rows([2]))
    assert list(reading) == []
    ((number, batch),) = spool.read(1)
    assert (number, batch["exchange"].to_pylist()) == (2, [2])
    assert list(spool.read(2)) == []


def test_reading_beside_a_writer_in_commit_order(spool: Spool) -> None:
    def write() -> None:
        for k in range(60):
            spool.put(rows([2 * k, 2 * k + 1]))

    thread = threading.Thread(target=write)
    thread.start()
    seen: list[int] = []
    after = 0
    while thread.is_alive() or after < spool.figures().last:
        for number, batch in spool.read(after):
            after = number
            seen += batch["exchange"].to_pylist()
    thread.join()
    assert seen == list(range(120))


def test_no_room_on_disk_is_an_overload_and_room_is_made_by_forgetting(path: Path) -> None:
    with Spool(path, Limits(bytes=600_000)) as spool:
        ids = iter(range(10**9))
        with pytest.raises(Overload, match="the spool holds") as caught:
            while True:
                spool.put(rows([next(ids) for _ in range(500)]))
        assert caught.value.wait_s > 0 and caught.value.hint
        kept = held(spool)
        assert len(kept) >= 500
        assert spool.forget(START + DAY) == len(kept)
        # The WAL is still as long as it was; it is folded in and begun anew.
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        spool.forget(START + DAY)
        assert spool.put(rows([next(ids)])).new == 1
        assert spool.figures().bytes <= 600_000


def test_too_much_waiting_is_an_overload(path: Path) -> None:
    with Spool(path, Limits(waiting_bytes=400_000)) as spool:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = []
            with pytest.raises(Overload, match="wait to be written") as caught:
                for k in range(1000):
                    waiting.append(spool.submit(rows(list(range(k * 100, k * 100 + 100)))))
            assert 1 <= caught.value.wait_s <= 60
            assert spool.figures().waiting == 100 * len(waiting)
            other.execute("ROLLBACK")
        assert sum(f.result().new for f in waiting) == 100 * len(waiting)
        assert spool.figures().waiting == 0


def test_too_many_waiting_puts_are_an_overload(path: Path) -> None:
    with Spool(path, Limits(waiting_puts=3)) as spool, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = []
        with pytest.raises(Overload):
            waiting += [spool.submit(rows([k])) for k in range(210)]
        other.execute("ROLLBACK")


def test_a_busy_file_is_transient_and_nothing_of_it_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "BUSY_S", 0.05)
    with Spool(path) as spool, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Transient, match="another process is writing"):
            spool.put(rows([1]))
        other.execute("ROLLBACK")
        assert held(spool) == []
        assert spool.put(rows([1])) == Stored(1, 0, 0)


def test_it_opens_and_is_read_while_another_process_writes(path: Path) -> None:
    with Spool(path) as spool:
        spool.put(rows([1]))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Spool(path) as spool:
            assert held(spool) == [1] and spool.figures().rows == 1
        other.execute("ROLLBACK")


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_spool import Spool, Transient, held, rows
with Spool(Path(sys.argv[1])) as spool:
    spool.put(rows(list(range(100))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
    acked = 100
    try:
        while True:
            spool.put(rows(list(range(acked, acked + 500))))
            acked += 500
    except Transient as e:
        print(type(e).__name__, e.message)
    assert held(spool) == list(range(acked)), "reading goes on"
    print(acked)
"""


def test_a_full_disk_is_transient_nothing_is_half_written_and_reading_goes_on(path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    kind, acked = done.stdout.strip().splitlines()
    assert kind.startswith("Transient") and "could not be written" in kind
    assert int(acked) > 500
    with Spool(path) as spool:
        assert held(spool) == list(range(int(acked)))
        assert spool.put(rows([int(acked)])).new == 1
        assert spool.figures().rows == int(acked) + 1


def test_a_file_that_may_not_grow_is_transient(path: Path) -> None:
    with Spool(path) as spool:
        spool.put(rows([1]))
        spool_connect = spool._connect

        def narrow() -> sqlite3.Connection:
            db = spool_connect()
            db.execute("PRAGMA max_page_count = 1")
            return db

        spool._connect = narrow  # type: ignore[method-assign]
    with Spool(path) as spool:
        spool._connect = narrow  # type: ignore[method-assign]
        with pytest.raises(Transient, match="full"):
            spool.put(rows(list(range(2, 3000))))
        assert held(spool) == [1]


@pytest.mark.parametrize("hurt", ["header", "no database", "schema"])
def test_a_damaged_file_is_said_to_be_one(path: Path, hurt: str) -> None:
    with Spool(path) as spool:
        spool.put(rows(list(range(2000))))
    content = bytearray(path.read_bytes())
    if hurt == "header":
        content[:100] = os.urandom(100)
    elif hurt == "schema":
        content[100:4096] = b"\x99" * 3996
    path.write_bytes(b"not a database at all, but long enough to look at" if hurt == "no database" else content)
    with pytest.raises(Terminal, match="damaged") as caught:
        Spool(path)
    assert str(path) in str(caught.value) and caught.value.hint


def test_a_damaged_batch_is_named_and_can_be_passed_over(spool: Spool, path: Path) -> None:
    for k in range(3):
        spool.put(rows([k]))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        (whole,) = db.execute("SELECT bytes FROM contents WHERE batch = 2").fetchone()
        db.execute("UPDATE contents SET bytes = ? WHERE batch = 2", (whole[:-1] + bytes([whole[-1] ^ 1]),))
    with pytest.raises(Terminal, match="batch 2 is damaged") as caught:
        held(spool)
    assert "on from 2" in caught.value.hint
    assert held(spool, 2) == [2]


@pytest.mark.parametrize(
    "harm",
    ["UPDATE contents SET bytes = zeroblob(40) WHERE batch = 2", "DELETE FROM contents WHERE batch = 2",
     "UPDATE batches SET size = 7 WHERE batch = 2"],
)  # fmt: skip
def test_a_damaged_batch_is_taken_out_and_what_it_brought_may_come_again(spool: Spool, path: Path, harm: str) -> None:
    for ids in ([1, 2], [3, 4, 5], [6]):
        spool.put(rows(ids))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(harm)
    with pytest.raises(DamagedBatch) as caught:
        held(spool)
    assert caught.value.number == 2
    kept = spool.damaged(2)
    assert (kept.number, kept.rows, kept.first <= kept.last) == (2, 3, True)
    assert (kept.bytes is None) == harm.startswith("DELETE")
    assert spool.take_out(2) == 3
    assert held(spool) == [1, 2, 6]
    assert spool.figures().rows == 3
    assert spool.put(rows([1, 2, 3, 4, 5, 6])) == Stored(3, 3, 0), "lost ones come again, others are known"
    assert held(spool) == [1, 2, 6, 3, 4, 5]
    with pytest.raises(Terminal, match="no batch 2"):
        spool.damaged(2)
    assert spool.take_out(2) == 0


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="unable to open"):
        Spool(tmp_path)


def test_a_newer_spool_is_left_alone(path: Path) -> None:
    Spool(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("INSERT INTO migrations VALUES ('later', '2030')")
    with pytest.raises(UsageError, match="the spool has been changed by another version: it knows spool, later"):
        Spool(path)


def test_rows_of_an_earlier_version_are_read_in_todays_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = SPOOLED.remove(SPOOLED.get_field_index("meaning")).append(pa.field("gone", pa.int8()))
    earlier = earlier.set(earlier.get_field_index("turn"), pa.field("turn", pa.int8()))
    old = pa.Table.from_arrays(
        [rows([4])[f.name].cast(f.type) if f.name in SPOOLED.names else pa.nulls(1, f.type) for f in earlier],
        schema=earlier,
    )
    monkeypatch.setattr(spool_module, "SPOOLED", earlier)
    with Spool(path) as spool:
        spool.put(old)
    monkeypatch.undo()
    with Spool(path) as spool:
        spool.put(rows([5]))
        batches = [b for _, b in spool.read()]
    assert [b["exchange"].to_pylist() for b in batches] == [[4], [5]]
    assert all(b.schema.equals(SPOOLED) for b in batches)


def test_dead_letters_add_up_and_are_bounded(path: Path) -> None:
    with Spool(path, Limits(dead_letters=5)) as spool:
        poison = Dead("no account id", "litellm:3", -5, 2, "name it in a map")
        assert spool.put(rows([1]), [poison], "litellm") == Stored(1, 0, 2)
        assert spool.put(rows([1]), [poison], "litellm") == Stored(0, 1, 2)
        (letter,) = spool.dead_letters()
        assert (letter.source, letter.reason, letter.place, letter.record) == (
            "litellm",
            poison.reason,
            "litellm:3",
            -5,
        )
        assert letter.count == 4 and letter.hint == poison.hint
        assert abs(datetime.now(UTC) - letter.at) < timedelta(minutes=1)
        spool.put(rows([]), [Dead("broken JSON", f"x:{k}", k) for k in range(9)], "x")
        assert [d.record for d in spool.dead_letters(3)] == [8, 7, 6]
        assert len(spool.dead_letters()) == 5
        assert spool.figures().dead == 13


def test_what_would_fail_for_all_is_refused_at_the_door(spool: Spool) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        Dead("r", "p", 2**63)
    with pytest.raises(ValueError, match="whole Unicode"):
        Dead("\ud800", "p", 0)
    with pytest.raises(ValueError, match="SPOOLED"):
        spool.put(rows([1]).select(["exchange"]))
    with pytest.raises(ValueError, match="need an exchange"):
        spool.put(rows([1]).set_column(3, SPOOLED.field(3), pa.nulls(1, pa.int64())))
    with pytest.raises(ValueError, match="whole Unicode"):
        spool.put(rows([1]), source="\ud800")
    with pytest.raises(ValueError, match="ACCOUNT_EVENTS"):
        spool.put(rows([1]), accounts=pa.table({"account_id": ["a"]}))
    assert spool.put(rows([1])).new == 1


def test_the_writer_survives_what_it_cannot_foresee(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(spool, "_append", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        spool.put(rows([1]), [Dead("r", "p", 1)])
    monkeypatch.undo()
    assert spool.figures().dead == 0
    assert spool.put(rows([1])) == Stored(1, 0, 0)


def test_the_latest_word_on_an_account_holds_column_by_column(path: Path) -> None:
    with Spool(path) as spool:
        spool.put(rows([]), accounts=words({"at": START, "account_id": "a", "plan": "free", "created_at": START - DAY}))
        spool.put(rows([]), accounts=words({"at": START + DAY, "account_id": "a", "plan": "payg"},
                                           {"at": START, "account_id": "b"}))  # fmt: skip
        spool.put(rows([]), accounts=words({"at": START - DAY, "account_id": "a", "plan": "none", "org_id": "o"}))
    with Spool(path) as spool:
        table = spool.accounts()
        assert spool.figures().accounts == 2
    assert table.schema.equals(ACCOUNTS.schema)
    assert [{k: v for k, v in r.items() if v is not None} for r in table.to_pylist()] == [
        {"account_id": "a", "plan": "payg", "org_id": "o", "created_at": START - DAY},
        {"account_id": "b"},
    ]


@settings(max_examples=30, deadline=None)
@given(st.permutations([(t, a, p) for t in range(3) for a in "ab" for p in ("free", "payg")]), st.integers(0, 11))
def test_the_order_of_words_on_accounts_does_not_matter(said: list[tuple[int, str, str]], cut: int) -> None:
    made = [{"at": START + t * DAY, "account_id": a, "plan": p} for t, a, p in said]
    with tempfile.TemporaryDirectory() as folder, Spool(Path(folder) / "s.db", Limits(join_s=0)) as spool:
        for part in (made[:cut], made[cut:]):
            spool.put(rows([]), accounts=words(*part))
        assert spool.accounts()["plan"].to_pylist() == ["payg", "payg"]


def test_forgetting_drops_what_is_wholly_older_and_its_ids(spool: Spool) -> None:
    spool.put(rows([1, 2], START))
    spool.put(pa.concat_tables([rows([3], START), rows([4], START + 2 * DAY)]))
    spool.put(rows([5], START + 3 * DAY))
    with pytest.raises(ValueError, match="zone"):
        spool.forget(datetime(2026, 11, 2))
    assert spool.forget(START) == 0
    assert spool.forget(START + DAY) == 2
    assert held(spool) == [3, 4, 5]
    assert spool.put(rows([1, 3])) == Stored(1, 1, 0)
    assert [n for n, _ in spool.read()] == [2, 3, 4]
    figures = spool.figures()
    assert (figures.rows, figures.batches, figures.last) == (4, 3, 4)
    assert (figures.oldest, figures.newest) == (START, START + 3 * DAY)


def test_a_number_is_not_given_again_when_all_is_forgotten(path: Path) -> None:
    with Spool(path) as spool:
        spool.put(rows([1]))
        assert spool.forget(START + DAY) == 1
    with Spool(path) as spool:
        spool.put(rows([2]))
        assert [n for n, _ in spool.read(1)] == [2]


def test_forgetting_gives_the_disk_back_while_puts_go_on(path: Path) -> None:
    with Spool(path) as spool:
        ids = np.random.default_rng(1).integers(0, 2**62, (60, 400))
        for some in ids:
            spool.put(rows(some.tolist()))
        before = spool.figures().bytes
        with ThreadPoolExecutor(1) as pool:
            dropped = pool.submit(spool.forget, START + DAY)
            assert spool.put(rows(list(range(50)), START + 2 * DAY)).new == 50
            assert dropped.result() == ids.size
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA freelist_count").fetchone()[0] == 0
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert path.stat().st_size < before / 4
        assert held(spool) == list(range(50))


def test_a_closed_spool_has_written_all_and_takes_no_more(path: Path) -> None:
    spool = Spool(path, Limits(join_s=30))
    futures = [spool.submit(rows([k])) for k in range(20)]
    spool.close()
    assert all(f.result(0).new == 1 for f in futures)
    with pytest.raises(Terminal, match="closed"):
        spool.put(rows([99]))
    assert sorted(held(spool)) == list(range(20))


def test_it_is_durable_by_its_settings(path: Path) -> None:
    with Spool(path) as spool, closing(spool._connect()) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert db.execute("PRAGMA auto_vacuum").fetchone()[0] == 2


# Crashes


def load(path: Path, out: int, seed: int) -> None:
    """Put without end from four threads, each put with ids of its own and some sent before; print ids once acknowledged."""
    with Spool(path) as spool:

        def put(thread: int) -> None:
            chance = random.Random(seed * 10 + thread)
            base = (seed * 10 + thread) * 10**6
            number = 0
            while True:
                size = chance.choice((1, 3, 40))
                mine = [base + number + k for k in range(size)]
                again = [chance.randrange(10, seed * 10 + 4) * 10**6 + chance.randrange(200) for _ in range(3)]
                spool.put(rows(mine + again), [Dead("r", "p", thread)], "load")
                os.write(out, (json.dumps(mine + again) + "\n").encode())
                number += size

        threads = [threading.Thread(target=put, args=(k,), daemon=True) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def rounds(path: Path) -> None:
    """For each number of milliseconds on standard input: load a fresh process, kill it that long after its first
    acknowledgement, print what it had acknowledged. The modules are loaded once."""
    for seed, line in enumerate(sys.stdin, 1):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            load(path, writing, seed)
        os.close(writing)
        acked = os.read(reading, 1 << 16)
        time.sleep(float(line) / 1000)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(reading, 1 << 20):
            acked += more
        os.close(reading)
        whole = acked[: acked.rfind(b"\n")].decode().split("\n")
        print(json.dumps(sorted({i for text in whole for i in json.loads(text)})), flush=True)


def test_killed_at_any_moment_what_was_acknowledged_is_there_once(path: Path) -> None:
    chance = random.Random()
    acked: set[int] = set()
    command = [sys.executable, __file__, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        for _ in range(ROUNDS):
            writer.stdin.write(f"{chance.uniform(0, 120)}\n")
            writer.stdin.flush()
            acked |= set(json.loads(writer.stdout.readline()))
            with Spool(path) as spool:
                count = Counter(held(spool))
                assert not acked - count.keys(), "acknowledged, and not there"
                assert max(count.values()) == 1, "there twice"
                with closing(sqlite3.connect(path)) as db:
                    ids = {i for (i,) in db.execute("SELECT exchange FROM exchanges")}
                    assert ids == set(count), "an id without its row, or a row without its id"
        writer.stdin.close()
    assert len(acked) > 20 * ROUNDS


if __name__ == "__main__":
    rounds(Path(sys.argv[1]))
