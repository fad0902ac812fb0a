"""What was done and by whom, written before it is done, in a log in which every later change shows.

``log.jsonl`` holds one line of canonical JSON an entry, each with the hash of the one before; ``checkpoint`` the root of the
Merkle tree over all lines (RFC 6962), signed (c2sp.org/tlog-checkpoint); ``key.pub`` the public key. What ``append`` has
returned from is on disk. The rule that keeps it right: lines are only added, the log is on disk before a checkpoint says so,
and a line that a crash left unfinished is set aside, in sight, only where no checkpoint covers it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TextIO

from stillwatch.entries import (
    BEFORE_ALL,
    CHECKPOINT,
    KEY_CHANGED,
    LOG,
    PUBLIC,
    TORN,
    VOUCHED,
    Chain,
    Deed,
    Entry,
    Line,
    entries,
    lines,
    parse,
    select,
    torn,
    vouched,
    written,
)
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.merkle import Tree
from stillwatch.notes import KEY_VARIABLE, BadNote, Checkpoint, Signer, Verifier, load_signer, open_checkpoint, told_by
from stillwatch.store.state import take_lock, write_text
from stillwatch.verification import Fault, KeyChange, Verified, public_key, verify

__all__ = [
    "KEY_VARIABLE", "Audit", "AuditUnwritable", "Cadence", "Deed", "Entry", "Fault", "Signer", "Verified", "Verifier", "entries",
    "load_signer", "public_key", "select", "verify",
]  # fmt: skip

LOCK = ".lock"
TORN_MARK, KEY_MARK = b'"event":"audit.torn"', f'"event":"{KEY_CHANGED}"'.encode()
SYSTEM = "stillwatch"
"""Who has written what the log says of itself."""


class AuditUnwritable(Transient):
    """Nothing could be written to the audit; whatever needed it must not be done now."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """A checkpoint is signed with an entry once so many ``entries`` wait for it, or the last is ``seconds`` old (0: never so)."""

    entries: int = 1
    seconds: float = 0.0


class Audit:
    """The log in ``folder``, held by this process until ``close``. Methods may be called from any thread.

    Opening reads the whole log: Terminal where it is not what was signed, Transient where another process holds it. A
    checkpoint that cannot be written does not undo entries that are on disk; it is made up for before the next ones.
    """

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        cadence: Cadence = Cadence(),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder, self._signer, self._cadence, self._clock = folder, signer, cadence, clock
        self._guard = threading.RLock()
        self._tree, self._previous = Tree(), BEFORE_ALL
        self._end = 0
        self._signed, self._signed_at = 0, time.monotonic()
        self._is_clean = True
        self._was_by_old_key = False
        self._former: dict[int, str] = {}
        """Old keys, by the number of the entry that names the next one."""
        self._fault: AuditUnwritable | None = None
        self._log = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _hold(folder)
            try:
                self._open()
            except BaseException:
                # What is not known to be whole is not signed.
                self._let_go()
                raise
        except OSError as e:
            raise AuditUnwritable(f"{folder}: {e.strerror}", hint="check the disk and the folder's owner") from e

    @property
    def size(self) -> int:
        """Entries in the log; the number of the next one."""
        return self._tree.size

    @property
    def signed(self) -> int:
        """Entries that the checkpoint on disk covers."""
        return self._signed

    @property
    def root(self) -> bytes:
        """Root of the tree over all entries."""
        return self._tree.root()

    @property
    def verifier(self) -> Verifier:
        """The public key that its checkpoints are signed with."""
        return self._signer.verifier

    @property
    def former(self) -> tuple[str, ...]:
        """Public keys that its checkpoints were signed with before, as text, oldest first."""
        return tuple(self._former.values())

    @property
    def fault(self) -> AuditUnwritable | None:
        """Why nothing could be written the last time, until something could."""
        return self._fault

    def append(self, event: str, who: str, role: str, subject: str, facts: Mapping[str, Any]) -> int:
        """Write one entry; its number. AuditUnwritable where it is not on disk: then it is not in the log either."""
        return self.append_all([Deed(event, who, role, subject, facts)])[0]

    def append_all(self, deeds: Sequence[Deed]) -> range:
        """Write entries in one go, all or none; their numbers. AuditUnwritable where they are not on disk."""
        with self._guard:
            self._check_open()
            self._sign_what_failed()
            tree, previous, block = self._tree.copy(), self._previous, bytearray()
            for deed in deeds:
                line, previous = written(tree.size, self._clock(), deed, previous)
                tree.add(line)
                block += line + b"\n"
            numbers = range(self._tree.size, tree.size)
            if numbers:
                self._write(block)
                self._tree, self._previous, self._fault = tree, previous, None
                self._sign_if_due()
            return numbers

    def checkpoint(self) -> str:
        """Sign what is in the log now; the note, which is on disk too. AuditUnwritable where it is not."""
        with self._guard:
            self._check_open()
            note = self._signer.sign(Checkpoint(self._signer.name, self._tree.size, self._tree.root()).text())
            try:
                write_text(self._folder / CHECKPOINT, note)
            except OSError as e:
                self._fail(f"{self._folder / CHECKPOINT}: the checkpoint cannot be written", e)
            self._signed, self._signed_at, self._fault = self._tree.size, time.monotonic(), None
            return note

    def change_key(self, new: Signer, who: str, role: str, keep: Callable[[], None]) -> Checkpoint:
        """Sign with another key from now on; the old key's last checkpoint, which vouches for the new one and is kept in the
        folder. ``keep`` puts the new key where the next opening finds it; it is called once the old one has vouched.

        An entry names both keys, so the new one is part of what the old one has signed. AuditUnwritable where any of it is not on
        disk, at whichever point: what was done until then can be done again. UsageError for a key of another log.
        """
        with self._guard:
            self._check_open()
            if new.name != self._signer.name or new.verifier == self.verifier:
                raise UsageError(
                    f"{new.verifier} is no new key of the log {self._signer.name}", hint="a key has the name of its log"
                )
            keys = KeyChange(self.verifier, new.verifier)
            self.append(KEY_CHANGED, who, role, LOG, keys.facts())
            note = self.checkpoint()
            try:
                write_text(self._folder / f"{VOUCHED}{self._tree.size}", note)
                keep()
            except OSError as e:
                self._fail(f"{self._folder}: the key cannot be changed", e)
            old, self._signer = open_checkpoint(note, self.verifier), new
            self._former[old.size - 1] = str(keys.old)
            self.checkpoint()
            write_text(self._folder / PUBLIC, f"{self.verifier}\n")
            return old

    def close(self) -> None:
        """Sign what is not signed yet, and let the folder go. What cannot be signed now is told at the next opening."""
        with self._guard:
            if self._lock.closed:
                return
            if self._tree.size > self._signed:
                with suppress(AuditUnwritable):
                    self.checkpoint()
            self._let_go()

    def _let_go(self) -> None:
        if self._log >= 0:
            os.close(self._log)
        self._lock.close()

    def _check_open(self) -> None:
        if self._lock.closed:
            raise Terminal(f"{self._folder}: the audit is closed")

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sign_if_due(self) -> None:
        waiting = self._tree.size - self._signed
        aged = 0 < self._cadence.seconds <= time.monotonic() - self._signed_at
        if waiting >= self._cadence.entries or (waiting and aged):
            with suppress(AuditUnwritable):
                self.checkpoint()

    def _sign_what_failed(self) -> None:
        """Sign what could not be signed when it was due; AuditUnwritable where it still cannot be."""
        if self._fault is not None and self._tree.size > self._signed:
            self.checkpoint()

    def _write(self, block: bytes | bytearray) -> None:
        """Put ``block`` at the end of the log and on disk; after an error the log is as long as it was."""
        try:
            if not self._is_clean:
                self._shorten()
            self._check_untouched()
            self._is_clean = False
            _write_all(self._log, block)
            os.fsync(self._log)
        except OSError as e:
            with suppress(OSError):
                self._shorten()
            self._fail(f"{self._folder / LOG}: the audit cannot be written", e)
        self._end += len(block)
        self._is_clean = True

    def _shorten(self) -> None:
        """Take off what a failed write left behind."""
        os.ftruncate(self._log, self._end)
        os.fsync(self._log)
        self._is_clean = True

    def _check_untouched(self) -> None:
        """Terminal where the log is not the file, or not of the length, that was left."""
        held = os.fstat(self._log)
        try:
            named = os.stat(self._folder / LOG)
        except FileNotFoundError:
            named = None
        if named is None or (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino) or held.st_size != self._end:
            raise Terminal(
                f"{self._folder / LOG}: somebody else has changed, moved or removed the log",
                hint="put it back as it was; stillwatch audit verify says what is missing",
            )

    def _fail(self, what: str, error: OSError) -> NoReturn:
        hint = "free the disk or check the folder's owner; nothing that must be written down is done until then"
        self._fault = AuditUnwritable(f"{what}: {error.strerror or error}", hint=hint)
        raise self._fault from error

    # Opening

    def _open(self) -> None:
        path = self._folder / LOG
        checkpoint = self._read_checkpoint()
        if checkpoint and checkpoint.size and not path.exists():
            raise Terminal(f"{path}: the log is missing, {checkpoint.size:,} entries are signed", hint="put it back")
        self._log = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
        told = self._read(checkpoint)
        if self._was_by_old_key:
            self.checkpoint()
        self._take_back()
        if checkpoint is None:
            # The order matters: with a checkpoint from the first, a log without one has lost it.
            if self._tree.size:
                raise Terminal(
                    f"{self._folder / CHECKPOINT}: the log has {self._tree.size:,} entries, but no checkpoint",
                    hint="put it back; without it nobody can tell whether the log is whole",
                )
            os.fsync(self._log)
            self.checkpoint()
        write_text(self._folder / PUBLIC, f"{self.verifier}\n")
        self._tell_torn(told)

    def _read_checkpoint(self) -> Checkpoint | None:
        path = self._folder / CHECKPOINT
        try:
            note = path.read_text(encoding="utf-8")
            if (old := self._old_key(note)) is not None:
                self._was_by_old_key = True
                return open_checkpoint(note, old)
            return open_checkpoint(note, self.verifier)
        except FileNotFoundError:
            return None
        except (BadNote, UnicodeDecodeError) as e:
            message = e.message if isinstance(e, BadNote) else "not text"
            raise Terminal(f"{path}: {message}", hint="the key it was signed with, or the file as it was") from e

    def _old_key(self, note: str) -> Verifier | None:
        """The key that has vouched for ours in this very note, where a change of keys broke off after that; else None."""
        path = next(reversed(vouched(self._folder)), None)
        if path is None or path.read_text(encoding="utf-8") != note:
            return None
        with (self._folder / LOG).open("rb") as file:
            last = next(islice(lines(file), told_by(note).size - 1, None), None)
        with suppress(ValueError, UsageError):
            change = KeyChange.of(parse(last.text if last else b""))
            return change.old if change.new == self.verifier else None
        return None

    def _take_back(self) -> None:
        """A change of keys that broke off before the new key was in place is none: we still sign with the old one."""
        sizes = {int(p.name.removeprefix(VOUCHED)): p for p in vouched(self._folder)}
        for number, old in list(self._former.items()):
            if number + 1 not in sizes or old == str(self.verifier):
                del self._former[number]
                if number + 1 in sizes:
                    sizes[number + 1].unlink()

    def _read(self, checkpoint: Checkpoint | None) -> dict[str, str]:
        """Follow the log to its end; the digests, by name, of what it says was set aside."""
        told, signed = dict[str, str](), checkpoint.size if checkpoint else 0
        with (self._folder / LOG).open("rb") as file:
            found = lines(file)
            for line in islice(found, signed):
                self._take(line, told, is_last=self._tree.size == signed - 1)
            if self._tree.size < signed:
                self._refuse(f"the log ends, but {signed:,} entries are signed")
            if checkpoint and self._tree.root() != checkpoint.root:
                self._refuse(f"the first {signed:,} entries are not those that were signed")
            self._signed = signed
            self._read_unsigned(found, told)
        return told

    def _take(self, line: Line, told: dict[str, str], is_last: bool) -> None:
        """One of the signed lines, which the root speaks for: only what is needed of it is read."""
        if not line.is_whole:
            self._refuse("the line has no end, but is signed")
        self._tree.add(line.text)
        self._end = line.start + len(line.text) + 1
        if is_last or TORN_MARK in line.text or KEY_MARK in line.text:
            with suppress(ValueError):
                entry = parse(line.text)
                self._previous = entry.hash
                told |= _told(entry)
                self._note_key(entry)

    def _read_unsigned(self, found: Iterator[Line], told: dict[str, str]) -> None:
        chain = Chain(self._tree.size, self._previous)
        for line in found:
            try:
                entry = _next(line, chain)
            except ValueError as e:
                self._set_aside(str(e), line, found)
                return
            self._tree.add(line.text)
            self._end, self._previous = line.start + len(line.text) + 1, entry.hash
            chain.follow(entry)
            told |= _told(entry)
            self._note_key(entry)

    def _note_key(self, entry: Entry) -> None:
        with suppress(ValueError, UsageError):
            self._former[entry.number] = str(KeyChange.of(entry).old)

    def _set_aside(self, fault: str, line: Line, rest: Iterable[Line]) -> None:
        """Move what a crash left at the end of the log to a file of its own. Terminal where it can be no such thing."""
        if (line.is_whole and _is_entry(line)) or any(map(_is_entry, rest)):
            self._refuse(fault)
        with (self._folder / LOG).open("rb") as file:
            file.seek(line.start)
            tail = file.read()
        # A crash may have come between this and what follows: then it lies there already.
        if not any(path.read_bytes() == tail for path in torn(self._folder)):
            number = 1 + max((int(p.name.removeprefix(TORN)) for p in torn(self._folder)), default=0)
            _write_file(self._folder / f"{TORN}{number}", tail)
        self._shorten()

    def _refuse(self, fault: str) -> NoReturn:
        hint = "no crash leaves this: put the log back as it was; stillwatch audit verify says more"
        raise Terminal(f"{self._folder / LOG}:{self._tree.size + 1}: {fault}", hint=hint)

    def _tell_torn(self, told: Mapping[str, str]) -> None:
        """Write down what was set aside and not told yet, and entries that were found without a signature."""
        deeds = [_torn_deed(p, self._tree.size) for p in torn(self._folder) if p.name not in told]
        if unsigned := self._tree.size - self._signed:
            facts = {"from": self._signed, "entries": unsigned}
            deeds.insert(0, Deed("audit.unsigned", SYSTEM, "system", LOG, facts))
        if deeds:
            self.append_all(deeds)
        if self._tree.size > self._signed:
            self.checkpoint()


def _hold(folder: Path) -> TextIO:
    lock = take_lock(folder / LOCK)
    if lock is None:
        raise Transient(f"{folder}: another process is writing this audit", hint="let it end, or ask it")
    return lock


def _write_all(handle: int, block: bytes | bytearray) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _write_file(path: Path, block: bytes) -> None:
    """A file of bytes, on disk, its name too."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        _write_all(handle, block)
        os.fsync(handle)
    finally:
        os.close(handle)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _next(line: Line, chain: Chain) -> Entry:
    """The entry of a line; ValueError where it is none, or not the next one."""
    if not line.is_whole:
        raise ValueError("the line has no end")
    entry = parse(line.text)
    for fault in chain.faults(entry):
        raise ValueError(fault)
    return entry


def _told(entry: Entry) -> dict[str, str]:
    """The digest, by name, of what the entry says was set aside."""
    return {entry.deed.subject: str(entry.deed.facts.get("sha256"))} if entry.deed.event == "audit.torn" else {}


def _is_entry(line: Line) -> bool:
    try:
        parse(line.text)
    except ValueError:
        return False
    return True


def _torn_deed(path: Path, number: int) -> Deed:
    tail = path.read_bytes()
    facts = {"bytes": len(tail), "sha256": hashlib.sha256(tail).hexdigest(), "before": number}
    return Deed("audit.torn", SYSTEM, "system", path.name, facts)
