"""A log that comes in live, by way of the spool, ends with what replaying it ends with; what breaks off is taken up again."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fixtures_engine import weights_of
from stillwatch import replay, results, telling, weighing
from stillwatch.checkpoint import Checkpoint, belonging
from stillwatch.config import Config
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.intake import Log
from stillwatch.privacy import Privacy
from stillwatch.progress import Progress
from stillwatch.replay import Plan
from stillwatch.serving import judge_loop, spooled
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Judging, Status, Terms, ask_file, status_file
from stillwatch.serving.spooled import Judged, Marks, judge_spool, settled
from stillwatch.simulate import default_world, parse_campaign, simulate
from stillwatch.spool import Spool, fingerprinted
from stillwatch.tables import EXCHANGES
from stillwatch.windows import length_text

KEY = Privacy(b"a key for tests, and for nothing else")
CONFIG = Config(threads=1)
EVERY = timedelta(hours=1)
TERMS = Terms(every=EVERY, grace=timedelta(minutes=10), retention=timedelta(days=365))
PARTS = (0.3, 0.62, 0.9, 1.0)
"""Shares of the log that have come in when it is judged."""


@pytest.fixture(scope="module", autouse=True)
def quick_to_accuse() -> Iterator[None]:
    """Weights under which a small log has campaigns to follow: these tests are of time alone."""
    weights = weights_of(-1.0, read=4.0, share_card=4.0, share_wording=2.0, org=-8.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weighing, "weights", lambda: weights)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judging")
    plans = (parse_campaign("balanced_reasoning:30"), parse_campaign("foreign_traces:30"))
    simulate(default_world(4, accounts=300, exchanges=3_000, campaigns=plans), folder)
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


@dataclass(frozen=True)
class Told:
    """What the files of a result say."""

    folder: Path

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @property
    def found(self) -> tuple[Any, ...]:
        accounts = pq.read_table(self.folder / "accounts.parquet").to_pylist()
        return (accounts, *(self.json(f"{n}.json") for n in ("campaigns", "review", "history")))


@pytest.fixture(scope="module")
def replayed(world: Path, log: pa.Table) -> Told:
    given = Log(world / "log", world / "accounts.parquet", world / "models.csv")
    findings, run, history = replay.replay(given, Plan(EVERY), CONFIG, KEY, Progress(quiet=True))
    results.write(findings, run, world / "replayed", history)
    assert len(findings.campaigns) > 0, "nothing to compare"
    assert len({e for h in history for e in [h["named_at"]]}) > 0
    return Told(world / "replayed")


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
    return [log.slice(a, b - a) for a, b in zip(ends, ends[1:])]


def test_a_log_that_comes_in_live_ends_as_its_replay(
    replayed: Told, log: pa.Table, terms: Terms, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    seen = 0
    for part in cuts(log):
        put(home, part)
        told = judge(home, replace(terms, final_scan="always"))
        seen += part.num_rows
        assert (told.is_new, told.rows, told.new, told.late) == (True, seen, part.num_rows, 0)
    assert Told(home.results).found == replayed.found
