"""What outlives a run: result files that are whole or absent, and the state people make, in SQLite or PostgreSQL.

A file is written under another name, forced to disk, and renamed; a folder of results is moved in with its ``run.json``
last, so where there is a ``run.json``, everything beside it is of that run. The state keeps what cannot be worked out
again; its judgements are only ever added to, and the newest on a subject holds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.errors import UsageError
from stillwatch.store.places import Place
from stillwatch.store.sqlite import Sqlite

BUSY_S = 10.0
"""How long the state waits for another writer before it gives up, in seconds."""
NO_TEXT = "a text holds half a character, and cannot be kept"
ANSWER_S = 60.0
"""How long a database elsewhere may take to answer, in seconds."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, which becomes ``path`` at the end; after any error it is as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    # The system applies the umask: to ask for it is to change it, for all threads.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        yield temporary
        _force(temporary)
        os.replace(temporary, path)
        _force(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write ``table`` as one Parquet file, whole or not at all."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, whole or not at all; NaN and infinity, which JSON lacks, are a ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold back Ctrl-C and a polite kill to the end of the block, which must not be left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


FileMark = tuple[int, int, int]


def file_mark(path: Path) -> FileMark | None:
    """What changes where a file is another one, or is written to: inode, time and size; None where there is none to be had."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def take_lock(path: Path) -> TextIO | None:
    """The file at ``path``, open and held against other processes until it is closed; None where one of them holds it."""
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


class Staging:
    """A folder to write results into, moved to ``out`` file by file when its ``with`` ends well.

    The old result's ``last`` file goes first and the new one comes last. After an error, an interrupt or a full disk
    nothing has been moved, and the result that was there still stands.
    """

    def __init__(self, out: Path, last: str = "run.json") -> None:
        self._out, self._last = out, last

    def __enter__(self) -> Path:
        self._out.mkdir(parents=True, exist_ok=True)
        # Inside ``out``, not beside it: a rename must not cross a mount.
        self._folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=self._out))
        return self._folder

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._move_in()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _move_in(self) -> None:
        files = sorted(self._folder.iterdir(), key=lambda f: (f.name == self._last, f.name))
        for file in files:
            _force(file)
        with undisturbed():
            (self._out / self._last).unlink(missing_ok=True)
            _force(self._out)
            for file in files:
                if file.name == self._last:
                    _force(self._out)
                os.replace(file, self._out / file.name)
            _force(self._out)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A person's verdict (positive, negative, unsure) on a subject: a campaign, or ``account/account`` for a pair."""

    subject: str
    verdict: str
    judge: str
    reason: str
    at: datetime

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError(f"judgement on {self.subject!r}: its time has no zone")


class Database(Protocol):
    """What a state stands on: ``store.sqlite`` or ``store.postgres``. SQL is in SQLite's words, as ``postgres_sql`` has it."""

    @property
    def in_transaction(self) -> bool: ...

    def begin(self) -> None:
        """Begin a transaction that other writers wait for; Transient where one of them takes too long."""

    def begin_reading(self) -> None:
        """Begin a transaction that sees one moment and changes nothing; nobody waits for it."""

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def execute(self, sql: str, values: Sequence[object] = ()) -> list[dict[str, Any]]: ...

    def patience(self, wait_s: float) -> AbstractContextManager[None]:
        """Meanwhile wait only so long for other writers."""

    def number_on(self, table: str) -> None:
        """Have new rows of a table get numbers above all that are there."""

    def close(self) -> None: ...


def connected(place: Place, answer_s: float = ANSWER_S, *, holds: bool = False) -> Database:
    """The database at a place; UsageError where its packages are missing."""
    if isinstance(place, Path):
        return Sqlite(place, BUSY_S)
    from stillwatch.store.postgres import Postgres  # noqa: PLC0415  # an extra: loads on first use

    return Postgres(place, BUSY_S, answer_s, holds=holds)


class State:
    """The transactional store. What a method has returned from is on disk.

    ``place`` is a file or the address of a database, which may take ``answer_s`` seconds to answer. A server ``holds`` a state in
    a database against other servers, which is Transient where one has it; the home's lock does that for a file.
    """

    def __init__(self, place: Place, answer_s: float = ANSWER_S, *, holds: bool = False) -> None:
        self.place = place
        self._db = connected(place, answer_s, holds=holds)

    def begin_run(self, command: str, source: str, out: str, version: str) -> str:
        """Record that a run has begun; its id."""
        run_id = uuid4().hex
        self.execute(
            "INSERT INTO runs (run_id, command, input, out, version, started_at) VALUES (?, ?, ?, ?, ?, ?)",
            run_id, command, source, out, version, _now(),
        )  # fmt: skip
        return run_id

    def end_run(self, run_id: str, exit_code: int) -> None:
        """Record how a run ended."""
        self.execute("UPDATE runs SET ended_at = ?, exit_code = ? WHERE run_id = ?", _now(), exit_code, run_id)

    def runs(self) -> list[dict[str, Any]]:
        """All runs, oldest first. One without ``ended_at`` is under way or was killed."""
        return self.execute(
            "SELECT run_id, command, input, out, version, started_at, ended_at, exit_code FROM runs ORDER BY started_at, rowid"
        )

    def judge(self, judgement: Judgement) -> None:
        """Add a judgement; it outdates those before it on the same subject."""
        self.execute(
            "INSERT INTO judgements (subject, verdict, judge, at, reason) VALUES (?, ?, ?, ?, ?)",
            judgement.subject,
            judgement.verdict,
            judgement.judge,
            judgement.at.astimezone(UTC).isoformat(),
            judgement.reason,
        )

    def judgements(self) -> dict[str, Judgement]:
        """The judgement that holds on each subject: the last one added."""
        rows = self.execute("SELECT subject, verdict, judge, reason, at FROM judgements ORDER BY number")
        return {r["subject"]: Judgement(**{**r, "at": datetime.fromisoformat(r["at"])}) for r in rows}

    @contextmanager
    def transaction(self) -> Iterator[State]:
        """All that is done within it, or after any error nothing; other writers wait. Within one it is the same one."""
        with self._within(self._db.begin):
            yield self

    @contextmanager
    def reading(self) -> Iterator[State]:
        """All that is read within it is of one moment; other writers need not wait."""
        with self._within(self._db.begin_reading):
            yield self

    @contextmanager
    def _within(self, begin: Callable[[], None]) -> Iterator[State]:
        if self._db.in_transaction:
            yield self
            return
        begin()
        try:
            yield self
            self._db.commit()
        except BaseException:
            if self._db.in_transaction:
                self._db.rollback()
            raise

    def execute(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """One statement with its values, and the rows it gives; errors as ours. UsageError for a text that cannot be kept."""
        try:
            return self._db.execute(sql, values)
        except UnicodeEncodeError as e:
            raise UsageError(NO_TEXT, hint="send it as it should be read") from e

    def patience(self, wait_s: float) -> AbstractContextManager[None]:
        """Meanwhile wait only so many seconds for other writers."""
        return self._db.patience(wait_s)

    def number_on(self, table: str) -> None:
        """Have new rows of a table get numbers above all that are there: after rows with numbers were put in."""
        self._db.number_on(table)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _force(path: Path) -> None:
    """Have the system put a file, or a folder's names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
