"""Whether an audit is what was signed: every line, the chain, the tree, the checkpoint, and an older one that was kept.

Where the key was changed, the old key's last checkpoint covers, as its last, the entry that names the new one. So whoever trusts
any of the keys follows them to the newest, which must have signed the checkpoint that stands.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from stillwatch.entries import (
    CHECKPOINT,
    KEY_CHANGED,
    LINE_BYTES,
    LOG,
    PUBLIC,
    Chain,
    Entry,
    Line,
    lines,
    moment_text,
    opened,
    parse,
    torn,
    vouched,
)  # fmt: skip
from stillwatch.errors import Terminal, UsageError
from stillwatch.merkle import Tree
from stillwatch.notes import BadNote, Checkpoint, Verifier, open_checkpoint, told_by

SLACK_S = 5.0
"""By how many seconds an entry may seem to be older than the one before it, without that being told."""
FAULTS = 50
"""After so many faults a check stops looking, and so many odd things are told."""
NO_END = "the line has no end: torn by a crash, which the next start sets aside, or cut off"
SETTLE_S = 0.2
"""How long a check waits for a line that is being written, in seconds, three times."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that only tampering, or damage, can have done, and where."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check found. ``root`` is base64, over all ``entries``; ``signed`` of them are under the checkpoint.

    ``faults`` is empty where the log is what was signed; ``remarks`` tell what is odd but no proof of anything.
    """

    entries: int
    signed: int
    root: str
    key: str
    first: datetime | None
    last: datetime | None
    faults: tuple[Fault, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "sound": self.is_sound,
            "entries": self.entries,
            "signed": self.signed,
            "root": self.root,
            "key": self.key,
            "first": moment_text(self.first) if self.first else None,
            "last": moment_text(self.last) if self.last else None,
            "faults": [{"place": f.place, "what": f.what} for f in self.faults],
            "remarks": list(self.remarks),
        }


def public_key(folder: Path) -> Verifier:
    """The key that lies beside the log. Whoever could replace the whole folder could replace it too."""
    path = folder / PUBLIC
    try:
        return Verifier.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise Terminal(f"{path}: the public key cannot be read", hint="give the one you kept with --key") from e


def verify(folder: Path, key: Verifier, since: str | None = None, slack_s: float = SLACK_S) -> Verified:
    """Check the whole log against its checkpoint, and against an older one where the note ``since`` is given.

    Changes nothing, and may run beside the process that writes. Terminal where there is no log to be read.
    """
    return _Check(folder, key, slack_s).run(since)


@dataclass(frozen=True, slots=True)
class _Promise:
    """A checkpoint by the name it is told under, as its note says it; whether somebody has signed that is looked at later."""

    name: str
    note: str
    said: Checkpoint


@dataclass(frozen=True, slots=True)
class KeyChange:
    """That a log is signed with another key from now on: both public keys."""

    old: Verifier
    new: Verifier

    def facts(self) -> dict[str, str]:
        """As an entry has them."""
        return {"from": str(self.old), "to": str(self.new)}

    @classmethod
    def of(cls, entry: Entry) -> KeyChange:
        """Of an entry that names one. ValueError or UsageError where it is none."""
        facts = entry.deed.facts
        if entry.deed.event != KEY_CHANGED:
            raise ValueError(f"it is {entry.deed.event}, not {KEY_CHANGED}")
        return cls(Verifier.parse(str(facts.get("from"))), Verifier.parse(str(facts.get("to"))))


class _Check:
    """One check of a log: what it has read so far, and what it found."""

    def __init__(self, folder: Path, key: Verifier, slack_s: float) -> None:
        self._folder, self._key, self._slack = folder, key, timedelta(seconds=slack_s)
        self._tree, self._chain, self._log = Tree(), Chain(), str(folder / LOG)
        self._first: datetime | None = None
        self._faults: list[Fault] = []
        self._remarks: list[str] = []
        self._told: dict[str, str] = {}
        self._changes: dict[int, Entry] = {}

    def run(self, since: str | None) -> Verified:
        log = self._folder / LOG
        with opened(log) as file:
            # The checkpoint first: the log may grow meanwhile, and then is longer, never shorter.
            promised = [p for p in (self._promise(since, "--since"), self._standing()) if p]
            last = [p for p in map(self._vouched, vouched(self._folder)) if p]
            roots = {p.said.size: Tree().root() for p in (*promised, *last)}
            for line in _patient_lines(file):
                if len(self._faults) >= FAULTS:
                    self._remark(f"the check stopped at {self._place()}, after {FAULTS} faults")
                    break
                self._look(line)
                if self._tree.size in roots:
                    roots[self._tree.size] = self._tree.root()
        keys = self._keys(last)
        for promise in promised:
            # What stands must be by the newest key, an older one that was kept may be by any.
            self._check_signed(promise, keys[-1:] if promise.name == CHECKPOINT else keys)
        for promise in (*promised, *last):
            self._compare(promise.name, promise.said, roots[promise.said.size])
        self._look_at_torn()
        sizes = {p.name: p.said.size for p in promised}
        if since and CHECKPOINT in sizes and sizes[CHECKPOINT] < sizes.get("--since", 0):
            self._remark("the checkpoint is older than the one given: it was put back from a copy")
        return self._result(sizes.get(CHECKPOINT, 0))

    def _keys(self, last: list[_Promise]) -> list[Verifier]:
        """All keys there were, oldest first, where the one that is trusted is among them; else that one alone."""
        keys = list[Verifier]()
        for promise in last:
            try:
                change = KeyChange.of(self._changes[promise.said.size - 1])
                if keys and keys[-1] != change.old:
                    raise ValueError(f"it is by {change.old}, where {keys[-1]} was the key")
                open_checkpoint(promise.note, change.old)
            except (KeyError, ValueError, UsageError, BadNote) as e:
                why = "no change of keys is its last entry" if isinstance(e, KeyError) else getattr(e, "message", e)
                self._fault(str(self._folder / promise.name), f"vouches for no key: {why}")
                continue
            keys = [*(keys or [change.old]), change.new]
        if len(keys) > 1:
            self._remark(f"the key was changed {len(keys) - 1} times; each was vouched for by the one before")
        return keys if self._key in keys else [self._key]

    def _vouched(self, path: Path) -> _Promise | None:
        try:
            return self._promise(path.read_bytes().decode(), path.name)
        except (OSError, UnicodeDecodeError) as e:
            self._fault(str(path), f"cannot be read: {e}")
            return None

    def _standing(self) -> _Promise | None:
        try:
            note = (self._folder / CHECKPOINT).read_bytes().decode()
        except FileNotFoundError:
            self._fault(str(self._folder / CHECKPOINT), "there is none; every log has one from the first")
            return None
        except (OSError, UnicodeDecodeError) as e:
            self._fault(str(self._folder / CHECKPOINT), f"cannot be read: {e}")
            return None
        return self._promise(note, CHECKPOINT)

    def _promise(self, note: str | None, name: str) -> _Promise | None:
        if note is None:
            return None
        try:
            return _Promise(name, note, told_by(note))
        except BadNote as e:
            self._fault(self._place_of(name), e.message)
            return None

    def _check_signed(self, promise: _Promise, keys: list[Verifier]) -> None:
        """That one of these keys, newest first, has signed it."""
        why = ""
        for key in reversed(keys):
            try:
                open_checkpoint(promise.note, key)
                return
            except BadNote as e:
                why = why or e.message
        self._fault(self._place_of(promise.name), why)

    def _place_of(self, name: str) -> str:
        return name if name == "--since" else str(self._folder / name)

    def _look(self, line: Line) -> None:
        place = self._place()
        self._tree.add(line.text)
        try:
            entry = parse(line.text)
        except ValueError as e:
            self._fault(place, str(e) if line.is_whole else NO_END)
            self._chain.skip()
            return
        if not line.is_whole:
            self._fault(place, NO_END)
        for fault in self._chain.faults(entry):
            self._fault(place, fault)
        if (back := self._chain.turned_back_s(entry)) > self._slack.total_seconds():
            self._remark(f"{place}: {back:.1f} s before the entry before it: the clock was set back")
        self._first = self._first or entry.at
        if entry.deed.event == "audit.torn":
            self._told[entry.deed.subject] = str(entry.deed.facts.get("sha256"))
        if entry.deed.event == KEY_CHANGED:
            self._changes[entry.number] = entry
        self._chain.follow(entry)

    def _compare(self, name: str, checkpoint: Checkpoint, root: bytes) -> None:
        if self._tree.size < checkpoint.size and len(self._faults) < FAULTS:
            what = f"the log ends here, but {checkpoint.size:,} entries are signed ({name}): its end was cut off"
            self._fault(self._place(), what)
        elif root != checkpoint.root:
            first = self._faults[0].place if self._faults else f"{self._folder / LOG}:1-{checkpoint.size}"
            self._fault(first, f"not the first {checkpoint.size:,} entries as they were signed ({name})")

    def _look_at_torn(self) -> None:
        for path in torn(self._folder):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if path.name not in self._told:
                self._remark(f"{path}: set aside after a crash, the log does not say so yet")
            elif digest != self._told[path.name]:
                self._fault(str(path), "not what was set aside")
        for name in self._told:
            if not (self._folder / name).exists():
                self._remark(f"{self._folder / name}: what was set aside is gone")

    def _result(self, signed: int) -> Verified:
        if (more := self._tree.size - signed) > 0:
            self._remark(f"{more:,} entries after the checkpoint are not signed yet")
        root = base64.b64encode(self._tree.root()).decode()
        last = self._chain.latest
        found = tuple(self._faults), tuple(self._remarks)
        return Verified(self._tree.size, signed, root, str(self._key), self._first, last, *found)

    def _place(self) -> str:
        return f"{self._log}:{self._tree.size + 1}"

    def _remark(self, what: str) -> None:
        if len(self._remarks) < FAULTS:
            self._remarks.append(what)

    def _fault(self, place: str, what: str) -> None:
        self._faults.append(Fault(place, what))


def _patient_lines(file: BinaryIO) -> Iterator[Line]:
    """Lines of a log that may be being written: the last one is given a moment to be ended."""
    for line in lines(file):
        text, is_whole = line.text, line.is_whole
        for _ in range(3):
            if is_whole or len(text) >= LINE_BYTES:
                break
            time.sleep(SETTLE_S)
            text += file.readline(LINE_BYTES)
            text, is_whole = text.removesuffix(b"\n"), text.endswith(b"\n")
        yield Line(line.start, text, is_whole)
