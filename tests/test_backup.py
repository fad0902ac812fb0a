"""A home in one file and back: whole while it is written to, verified before anything is put in place, keys left out."""

from __future__ import annotations

import json
import sqlite3
import tarfile
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from stillwatch.audit import public_key, verify
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.serving import backup as backups
from stillwatch.serving.backup import backup, restore
from stillwatch.serving.home import Home
from stillwatch.serving.ingest import take_in
from stillwatch.serving.services import opened
from stillwatch.serving.settings import Settings
from stillwatch.spool import SPOOLED, Spool
from stillwatch.store.copies import faults_of
from stillwatch.store.state import Judgement, Staging, State, write_text

AT = SPOOLED.get_field_index("exchange")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home somebody has judged in, with results and a key."""
    made = Home(tmp_path / "home").made()
    with State(made.state) as state:
        state.judge(Judgement("c1", "positive", "ann", "cards", datetime.now(UTC)))
    publish(made, "first")
    (made.folder / "keys").mkdir(mode=0o700)
    (made.folder / "keys" / "privacy.key").write_text("a secret nobody else may have")
    write_text(made.folder / "policy.toml", "# ours\n")
    return made


def publish(home: Home, name: str) -> None:
    with Staging(home.results) as staged:
        for file in ("run.json", "campaigns.json"):
            (staged / file).write_text(json.dumps({"of": name}))


def verdicts(home: Home) -> set[str]:
    with State(home.state) as state:
        return {j.verdict for j in state.judgements().values()}


def contents(file: Path) -> dict[str, bytes]:
    kind = "zstd" if file.suffix == ".zst" else "gzip"
    with pa.input_stream(str(file), compression=kind) as stream, tarfile.open(fileobj=stream, mode="r|") as packed:
        return {entry.name: packed.extractfile(entry).read() for entry in packed}  # type: ignore[union-attr]


def repacked(file: Path, change: dict[str, bytes | None]) -> Path:
    """The backup with some files changed, or left out where they are None."""
    whole = contents(file) | change
    changed = file.with_name("changed.tar.gz")
    with tarfile.open(changed, "w:gz") as packed:
        for name, content in whole.items():
            if content is not None:
                source = file.parent / "one"
                source.write_bytes(content)
                packed.add(source, arcname=name)
    return changed


@pytest.mark.parametrize("name", ["b.tar.zst", "b.tar.gz"])
def test_what_went_in_comes_out(home: Home, tmp_path: Path, name: str) -> None:
    made = backup(home, tmp_path / name)
    other = Home(tmp_path / "other")
    done = restore(tmp_path / name, other)
    assert verdicts(other) == {"positive"}
    assert json.loads((other.results / "campaigns.json").read_text()) == {"of": "first"}
    assert (other.folder / "policy.toml").read_text() == "# ours\n"
    assert (done.files, done.at) == (made.files, made.at)
    assert other.folder.stat().st_mode & 0o777 == 0o700


def test_no_key_is_in_it_and_only_its_owner_may_read_it(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    backup(home, file)
    assert not [n for n in contents(file) if "key" in n]
    assert not any(b"a secret nobody else may have" in c for c in contents(file).values())
    assert file.stat().st_mode & 0o077 == 0


def test_a_state_that_is_written_to_is_copied_whole(home: Home, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        with State(home.state) as state:
            for number in range(100_000):
                if stop.is_set():
                    return
                state.judge(Judgement(f"c{number}", "unsure", "bob", "x" * 500, datetime.now(UTC)))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            backup(home, tmp_path / f"{number}.tar.zst")
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        restored = Home(tmp_path / f"home{number}")
        restore(tmp_path / f"{number}.tar.zst", restored)
        assert faults_of(restored.state) == []


def test_results_of_two_runs_are_never_mixed(home: Home, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.02):
            number += 1
            publish(home, str(number))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            backup(home, tmp_path / f"{number}.tar.gz")
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        held = contents(tmp_path / f"{number}.tar.gz")
        assert held["results/run.json"] == held["results/campaigns.json"]


def test_a_folder_that_never_holds_still_is_told(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "TRIES", 2)
    monkeypatch.setattr(backups, "PAUSE_S", 0)
    changes = iter(range(99))
    monkeypatch.setattr(backups, "_mark", lambda file: (next(changes), 0))
    with pytest.raises(Transient, match="changes all the time"):
        backup(home, tmp_path / "b.tar.zst")
    assert not list(tmp_path.glob("b.tar*"))


def test_a_half_written_line_of_the_audit_is_left_out(home: Home, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "log.jsonl").write_bytes(b'{"a": 1}\n{"b": 2}\n{"c"')
    backups._copy_audit(tmp_path / "audit", tmp_path / "copied")
    assert (tmp_path / "copied" / "log.jsonl").read_bytes() == b'{"a": 1}\n{"b": 2}\n'


def test_a_home_that_is_there_is_refused_or_kept_beside(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.zst"
    backup(home, file)
    publish(home, "second")
    with pytest.raises(UsageError, match="is not empty"):
        restore(file, home)
    restore(file, home, force=True)
    assert json.loads((home.results / "run.json").read_text()) == {"of": "first"}
    (before,) = tmp_path.glob("home.before-*")
    assert json.loads((before / "results" / "run.json").read_text()) == {"of": "second"}


def test_a_home_in_use_is_refused_even_with_force(home: Home, tmp_path: Path) -> None:
    backup(home, tmp_path / "b.tar.zst")
    with home.held(), pytest.raises(UsageError, match="a server is using it"):
        restore(tmp_path / "b.tar.zst", home, force=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"results/run.json": b"{}"}, "is not what its manifest.json says"),
        ({"results/run.json": None}, "lacks results/run.json"),
        ({"extra": b"x"}, "which its manifest.json does not name"),
        ({"manifest.json": b"{"}, "cannot be read"),
        ({"manifest.json": b'{"format": 1, "files": {"../x": {}}}'}, "outside of a home"),
        ({"manifest.json": None}, "does not begin with manifest.json"),
    ],
)
def test_a_damaged_file_changes_nothing(home: Home, tmp_path: Path, change: dict[str, bytes | None], said: str) -> None:
    backup(home, tmp_path / "b.tar.zst")
    changed = repacked(tmp_path / "b.tar.zst", change)
    with pytest.raises(Terminal, match=said):
        restore(changed, Home(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".other*"))


def test_a_file_cut_off_is_told(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.zst"
    backup(home, file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(Terminal, match=r"b\.tar\.zst"):
        restore(file, Home(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_newer_format_and_other_names_are_refused(home: Home, tmp_path: Path) -> None:
    backup(home, tmp_path / "b.tar.zst")
    newer = repacked(tmp_path / "b.tar.zst", {"manifest.json": b'{"format": 2, "files": {}}'})
    with pytest.raises(UsageError, match="is of format 2"):
        restore(newer, Home(tmp_path / "other"))
    with pytest.raises(UsageError, match="end its name in"):
        backup(home, tmp_path / "b.zip")
    with pytest.raises(UsageError, match="is no home"):
        backup(Home(tmp_path / "nothing"), tmp_path / "b.tar.gz")
    with pytest.raises(UsageError, match="is not there"):
        restore(tmp_path / "gone.tar.gz", Home(tmp_path / "other"))


def test_a_database_that_is_damaged_is_found(home: Home) -> None:
    with closing(sqlite3.connect(home.state)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(home.state.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    home.state.write_bytes(content)
    assert faults_of(home.state)


@pytest.fixture
def lived_in(tmp_path: Path) -> Home:
    """A home that a server was in: exchanges in its spool, an entry in its audit, an appeal."""
    made = Home(tmp_path / "lived")
    with opened(made, Settings(), judge=False) as services:
        services.audit.append("test", "ann", "admin", "x", {})
        row = {"exchange_id": "e", "time": "2026-11-01T00:00:00Z", "account_id": "a", "model": "m", "prompt": "1+1?"}
        take_in(services, json.dumps(row).encode(), "application/json", "", "exchanges")
    made.appeals.mkdir()
    (made.appeals / "x.txt").write_text("we are a class")
    return made


def test_a_home_of_a_server_goes_on_where_it_was(lived_in: Home, tmp_path: Path) -> None:
    lived_in.watch.mkdir()
    (lived_in.watch / "marks.json").write_text(json.dumps({"settled": 7, "newest": 9}))
    backup(lived_in, tmp_path / "b.tar.zst")
    other = Home(tmp_path / "other")
    restore(tmp_path / "b.tar.zst", other)
    assert (other.appeals / "x.txt").read_text() == "we are a class"
    assert verify(other.audit, public_key(other.audit)).is_sound
    with Spool(other.spool) as spool:
        assert spool.figures().rows == 1
        # What comes in next must not bear a number that the watch has judged already.
        spool.put(next(spool.read())[1].set_column(AT, SPOOLED.field(AT), pa.array([5])), (), "test")
        assert [number for number, _ in spool.read()] == [1, 10]


def test_an_audit_that_is_not_what_was_signed_is_not_put_in_place(lived_in: Home, tmp_path: Path) -> None:
    log = lived_in.audit / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"ann", b"bob"))
    backup(lived_in, tmp_path / "b.tar.gz")
    with pytest.raises(Terminal, match="the audit in it is not what was signed"):
        restore(tmp_path / "b.tar.gz", Home(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
