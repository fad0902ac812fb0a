"""Whether an audit is what was signed: every line, the chain, the tree, the checkpoint, and an older one that was kept."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from stillwatch.entries import CHECKPOINT, LINE_BYTES, LOG, PUBLIC, Chain, Line, lines, moment_text, opened, parse, torn
from stillwatch.errors import Terminal
from stillwatch.merkle import Tree
from stillwatch.notes import BadNote, Checkpoint, Verifier, open_checkpoint

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


class _Check:
    """One check of a log: what it has read so far, and what it found."""

    def __init__(self, folder: Path, key: Verifier, slack_s: float) -> None:
        self._folder, self._key, self._slack = folder, key, timedelta(seconds=slack_s)
        self._tree, self._chain, self._log = Tree(), Chain(), str(folder / LOG)
        self._first: datetime | None = None
        self._faults: list[Fault] = []
        self._remarks: list[str] = []
        self._told: dict[str, str] = {}

    def run(self, since: str | None) -> Verified:
        log = self._folder / LOG
        with opened(log) as file:
            # The checkpoint first: the log may grow meanwhile, and then is longer, never shorter.
            promised = [p for p in (self._promise(since, "--since"), self._standing()) if p]
            roots = {p.size: Tree().root() for _, p in promised}
            for line in _patient_lines(file):
                if len(self._faults) >= FAULTS:
                    self._remark(f"the check stopped at {self._place()}, after {FAULTS} faults")
                    break
                self._look(line)
                if self._tree.size in roots:
                    roots[self._tree.size] = self._tree.root()
        for name, checkpoint in promised:
            self._compare(name, checkpoint, roots[checkpoint.size])
        self._look_at_torn()
        sizes = {name: p.size for name, p in promised}
        if since and CHECKPOINT in sizes and sizes[CHECKPOINT] < sizes.get("--since", 0):
            self._remark("the checkpoint is older than the one given: it was put back from a copy")
        return self._result(sizes.get(CHECKPOINT, 0))

    def _standing(self) -> tuple[str, Checkpoint] | None:
        try:
            note = (self._folder / CHECKPOINT).read_bytes().decode()
        except FileNotFoundError:
            self._fault(str(self._folder / CHECKPOINT), "there is none; every log has one from the first")
            return None
        except (OSError, UnicodeDecodeError) as e:
            self._fault(str(self._folder / CHECKPOINT), f"cannot be read: {e}")
            return None
        return self._promise(note, CHECKPOINT)

    def _promise(self, note: str | None, name: str) -> tuple[str, Checkpoint] | None:
        if note is None:
            return None
        try:
            return name, open_checkpoint(note, self._key)
        except BadNote as e:
            self._fault(str(self._folder / name) if name == CHECKPOINT else name, e.message)
            return None

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
