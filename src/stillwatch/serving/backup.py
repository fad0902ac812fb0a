"""A home in one file, and back: databases as of one moment, results and the watch whole, the audit not behind the state.

The order keeps the parts consistent while the server runs. The spool is copied before the watch, so a row on its way from
one to the other is in at least one of them; the state before the audit, which is written first, so nothing in the state is
missing from the audit. Keys are not copied: whoever holds the file must not be able to sign, or to undo pseudonyms.

A state in PostgreSQL goes in as a copy of its rows at one moment, in the file that an embedded one would be. Putting a backup
back never writes to a database: the home then has its state in that file, which ``stillwatch state move`` brings over.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa

from stillwatch import __version__
from stillwatch.audit import public_key, verify
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.serving.custody import copy_to_file, place_told
from stillwatch.serving.home import Home
from stillwatch.store.copies import copy_database, faults_of, raise_numbers
from stillwatch.store.places import Address, Place
from stillwatch.store.state import atomic, sha256_of

FORMAT = 1
MANIFEST = "manifest.json"
COMPRESSIONS = {".tar.zst": "zstd", ".tar.gz": "gzip"}
TRIES, PAUSE_S = 50, 0.1
"""How often a folder that changes under the copy is tried again, and the pause between, in seconds."""
PLAIN = ("in_force.json", "serve.toml", "policy.toml", "belongings.jsonl")
"""Files of the home copied as they are: each is replaced whole, or only added to, by lines of which a half one is passed over."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A backup that was made or put back: its files, their size before compression, and when the copy was taken."""

    file: Path
    files: int
    bytes: int
    at: datetime


def backup(home: Home, file: Path, config: Path | None = None) -> Copy:
    """Write the home to ``file`` (.tar.zst or .tar.gz), whole or not at all; a server may be running.

    UsageError where the home is none or the name is of no kind we write; Transient where it would not hold still.
    """
    compression = _compression(file)
    place = place_told(home, config)
    if isinstance(place, Path) and not place.exists():
        raise UsageError(f"{home.folder}: is no home: it has no state.db", hint="give the folder that serve was given")
    with _private(), tempfile.TemporaryDirectory(prefix=".backup-", dir=file.absolute().parent) as staging:
        folder = Path(staging)
        _copy(home, place, folder)
        manifest = _manifest(folder)
        with atomic(file) as temporary, pa.output_stream(str(temporary), compression=compression) as out:
            _pack(folder, manifest, out)
    return Copy(file, len(manifest["files"]), _size(manifest), datetime.fromisoformat(manifest["at"]))


def restore(file: Path, home: Home, *, force: bool = False) -> Copy:
    """Make ``home`` what it was when ``file`` was written. A home that is there is refused, or with ``force`` kept beside
    under another name. Everything is verified before anything is put in place.

    UsageError where the home is in use or in the way; Terminal where the file is damaged.
    """
    compression = _compression(file)
    target = home.folder.absolute()
    in_the_way = target.exists() and any(target.iterdir())
    if in_the_way and not force:
        raise UsageError(f"{home.folder}: is not empty", hint="--force keeps what is there under another name")
    if in_the_way and home.is_held():
        raise UsageError(f"{home.folder}: a server is using it", hint="stop it first")
    with _private():
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.restore-", dir=target.parent))
        try:
            manifest = _unpack(file, compression, staging)
            _check_databases(staging, file)
            _check_audit(staging, file)
            _put_in_place(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Copy(file, len(manifest["files"]), _size(manifest), datetime.fromisoformat(manifest["at"]))


def _compression(file: Path) -> str:
    for ending, name in COMPRESSIONS.items():
        if file.name.endswith(ending):
            return name
    raise UsageError(f"{file}: what kind of file?", hint=f"end its name in {' or '.join(COMPRESSIONS)}")


@contextmanager
def _private() -> Iterator[None]:
    """Files made meanwhile are their owner's alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


# Out


def _copy(home: Home, place: Place, folder: Path) -> None:
    """All parts of a home, in the order that keeps them consistent."""
    if home.spool.exists():
        copy_database(home.spool, folder / home.spool.name)
    if isinstance(place, Address):
        copy_to_file(place, folder / home.state.name)
    else:
        copy_database(place, folder / home.state.name)
    if home.watch.exists():
        _copy_still(home.watch, folder / home.watch.name, "state.json", may_lack=True)
    if home.results.exists():
        _copy_still(home.results, folder / home.results.name, "run.json", may_lack=False)
    for name in PLAIN:
        if (home.folder / name).exists():
            shutil.copyfile(home.folder / name, folder / name)
    if home.appeals.exists():
        shutil.copytree(home.appeals, folder / home.appeals.name, ignore=shutil.ignore_patterns(".*"))
    for log in (home.audit, home.watermarks):
        if log.exists():
            _copy_audit(log, folder / log.name)
    _keep_numbers(folder)


def _keep_numbers(folder: Path) -> None:
    """Have the copied spool give no number to a new batch that the watch, copied after it, takes for one it has judged."""
    marks = folder / "watch" / "marks.json"
    if marks.exists() and (folder / "spool.db").exists():
        told = json.loads(marks.read_text(encoding="utf-8"))
        raise_numbers(folder / "spool.db", "batches", max(int(told[name]) for name in ("settled", "newest")))


def _copy_still(source: Path, target: Path, closing: str, *, may_lack: bool) -> None:
    """A folder whose file ``closing`` is replaced last: copied again until that was the same before and after. Without it the
    folder is young, or, where it may not lack, in the midst of a change."""
    for _ in range(TRIES):
        before = _mark(source / closing)
        try:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*"))
        except (FileNotFoundError, shutil.Error):
            before = (0, 0)
        settled = before is not None or may_lack or not any(target.iterdir())
        if before == _mark(source / closing) and settled:
            return
        time.sleep(PAUSE_S)
    raise Transient(f"{source}: changes all the time", hint="try again, or stop the server for the backup")


def _mark(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _copy_audit(source: Path, target: Path) -> None:
    """The audit: its signed heads first, then the log, which only grows and may be longer; a half-written line is left out."""
    target.mkdir()
    files = sorted((f for f in source.rglob("*") if f.is_file()), key=lambda f: (f.suffix == ".jsonl", f.name))
    for file in files:
        if file.name.startswith(".") or _is_secret(file):
            continue
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        if file.suffix == ".jsonl":
            _cut(copy)


def _cut(file: Path) -> None:
    """Drop what follows the last line's end."""
    with file.open("r+b") as log:
        size = log.seek(0, os.SEEK_END)
        back = size
        while back:
            step = min(back, 1 << 16)
            log.seek(back - step)
            at = log.read(step).rfind(b"\n")
            if at >= 0:
                log.truncate(back - step + at + 1)
                return
            back -= step
        log.truncate(0)


def _is_secret(file: Path) -> bool:
    return file.suffix in (".key", ".pem") or file.name in ("key", "secret")


def _manifest(folder: Path) -> dict[str, Any]:
    files = {
        f.relative_to(folder).as_posix(): {"bytes": f.stat().st_size, "sha256": sha256_of(f)}
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }
    return {"format": FORMAT, "version": __version__, "at": datetime.now(UTC).isoformat(), "files": files}


def _size(manifest: Mapping[str, Any]) -> int:
    return sum(f["bytes"] for f in manifest["files"].values())


def _pack(folder: Path, manifest: Mapping[str, Any], out: IO[bytes]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    with tarfile.open(fileobj=out, mode="w|") as packed:
        for name in (MANIFEST, *manifest["files"]):
            packed.add(folder / name, arcname=name, recursive=False, filter=_nobody)


def _nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names of this machine's people."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o600
    return entry


# Back


def _unpack(file: Path, compression: str, folder: Path) -> dict[str, Any]:
    """Write the files that the manifest names to ``folder``, each with the digest it must have."""
    try:
        with (
            pa.input_stream(str(file), compression=compression) as stream,
            tarfile.open(fileobj=stream, mode="r|") as packed,
        ):
            manifest = _read_manifest(file, packed)
            missing = dict(manifest["files"])
            while (entry := packed.next()) is not None:
                _take(file, packed, entry, missing, folder)
    except FileNotFoundError as e:
        raise UsageError(f"{file}: is not there") from e
    except (tarfile.TarError, OSError, EOFError, pa.ArrowException) as e:
        raise Terminal(f"{file}: is damaged or no backup: {e}", hint="take another backup; nothing was changed") from e
    if missing:
        raise Terminal(f"{file}: lacks {', '.join(sorted(missing))}", hint="take another backup; nothing was changed")
    return manifest


def _read_manifest(file: Path, packed: tarfile.TarFile) -> dict[str, Any]:
    first = packed.next()
    content = packed.extractfile(first) if first is not None and first.name == MANIFEST else None
    if content is None:
        raise Terminal(f"{file}: is no backup: it does not begin with {MANIFEST}")
    try:
        manifest: dict[str, Any] = json.loads(content.read())
        kind = manifest["format"]
        wrong = [n for n in manifest["files"] if not _is_inside(n)]
    except (ValueError, KeyError, TypeError) as e:
        raise Terminal(f"{file}: its {MANIFEST} cannot be read: {e}") from e
    if kind != FORMAT:
        raise UsageError(f"{file}: is of format {kind}, this version reads {FORMAT}", hint="update stillwatch")
    if wrong:
        raise Terminal(f"{file}: names files outside of a home: {', '.join(wrong)}")
    return manifest


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and name == path.as_posix()


def _take(file: Path, packed: tarfile.TarFile, entry: tarfile.TarInfo, missing: dict[str, Any], folder: Path) -> None:
    told = missing.pop(entry.name, None)
    content = packed.extractfile(entry) if told is not None and entry.isreg() else None
    if told is None or content is None:
        raise Terminal(f"{file}: holds {entry.name!r}, which its {MANIFEST} does not name")
    place = folder / entry.name
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as out:
        shutil.copyfileobj(content, out)
        out.flush()
        os.fsync(out.fileno())
    if place.stat().st_size != told["bytes"] or sha256_of(place) != told["sha256"]:
        raise Terminal(f"{file}: {entry.name} is not what its {MANIFEST} says", hint="take another backup")


def _check_databases(folder: Path, file: Path) -> None:
    for database in sorted(folder.glob("*.db")):
        if found := faults_of(database):
            raise Terminal(f"{file}: {database.name} is damaged: {found[0]}", hint="take another backup")


def _check_audit(folder: Path, file: Path) -> None:
    """Terminal where the audit, or the ledger of watermarks, is not what was signed, by the key that lies beside it."""
    for log, name in ((folder / "audit", "audit"), (folder / "watermarks", "ledger of watermarks")):
        if log.exists() and not (found := verify(log, public_key(log))).is_sound:
            what = found.faults[0].what
            raise Terminal(f"{file}: the {name} in it is not what was signed: {what}", hint="take another backup")


def _put_in_place(staging: Path, target: Path) -> None:
    """Rename: the old home first, under a name that says when."""
    if target.exists() and any(target.iterdir()):
        os.rename(target, target.with_name(f"{target.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"))
    os.rename(staging, target)
