"""The commitments of a ledger as a text that can be given to anybody: what was issued by when, and nothing of whom.

A signed note (c2sp.org/signed-note) of these lines; a key's line names the entry of the ledger that commits to it:

    stillwatch watermark commitments 1
    <origin of the ledger> <entries> <root of their tree, base64>
    <time of publication, ISO 8601>
    <number of entry> <key id> <commitment> <hash of entry>

Published before a suspect is known, it proves later that a key was not chosen to fit. Campaigns are not named; the hash of
the entry binds the key to its campaign, and the entry can be shown when it matters.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from stillwatch.entries import LOG, lines, moment_text, opened, parse
from stillwatch.errors import UsageError
from stillwatch.merkle import Tree
from stillwatch.notes import BadNote, Verifier, open_note, told_by
from stillwatch.protection.book import ISSUED, Book
from stillwatch.protection.keys import commitment_of

TITLE = "stillwatch watermark commitments 1"
_LINE = re.compile(r"(0|[1-9][0-9]{0,15}) ([0-9a-f]{1,64}) ([0-9a-f]{64}) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Committed:
    """One key's line."""

    number: int
    key_id: str
    commitment: str
    digest: str

    def __str__(self) -> str:
        return f"{self.number} {self.key_id} {self.commitment} {self.digest}"


@dataclass(frozen=True, slots=True)
class Publication:
    """What was published: the ledger as it then was, by its origin, its ``size`` and ``root``, and the keys in it."""

    origin: str
    size: int
    root: bytes
    at: datetime
    keys: tuple[Committed, ...]

    def text(self) -> str:
        """The text of its note."""
        head = f"{self.origin} {self.size} {base64.b64encode(self.root).decode()}"
        return "\n".join([TITLE, head, moment_text(self.at), *map(str, self.keys)]) + "\n"

    @classmethod
    def parse(cls, text: str) -> Publication:
        """Of the text of a note; BadNote where it is none of these."""
        try:
            title, head, at, *rest = text.removesuffix("\n").split("\n")
            origin, size, root = head.split(" ")
            found = [_LINE.fullmatch(line) for line in rest]
            keys = tuple(Committed(int(m[1]), m[2], m[3], m[4]) for m in found if m)
            made = cls(origin, int(size), base64.b64decode(root, validate=True), datetime.fromisoformat(at), keys)
        except ValueError as e:
            raise BadNote("not a publication of commitments", hint="is it the file that publish wrote?") from e
        if title != TITLE or made.text() != text:
            raise BadNote(
                "not a publication of commitments, or oddly written", hint="is it the file that publish wrote?"
            )
        return made

    @classmethod
    def open(cls, note: str, verifier: Verifier) -> Publication:
        """Of a note that the ledger of this name has signed; BadNote otherwise."""
        made = cls.parse(open_note(note, verifier))
        if made.origin != verifier.name:
            raise BadNote(f"commitments of the ledger {made.origin!r}, not of {verifier.name!r}")
        return made

    def committed(self, key_id: str) -> Committed:
        """A key's line; UsageError where it was not published."""
        for key in self.keys:
            if key.key_id == key_id:
                return key
        raise UsageError(
            f"key {key_id!r} was not published here", hint="published: " + ", ".join(k.key_id for k in self.keys)
        )

    def opens(self, key_id: str, secret: bytes) -> bool:
        """Whether a secret that was revealed is the one that was committed to."""
        return hmac.compare_digest(self.committed(key_id).commitment, commitment_of(secret))

    def faults(self, folder: Path) -> list[str]:
        """What of a ledger's log in ``folder`` is not as it was published; nothing where it has only grown."""
        return list(_faults(self, folder))


def publish(book: Book, at: datetime) -> str:
    """The signed note on all keys issued until now. UsageError where none was."""
    if not book.ledger.issued:
        raise UsageError("no key was issued: there is nothing to publish", hint="stillwatch watermark issue")
    signed = told_by(book.checkpoint())
    keys = tuple(Committed(k.number, k.key_id, k.commitment, k.digest) for k in book.ledger.issued.values())
    return book.sign(Publication(signed.origin, signed.size, signed.root, at, keys).text())


def _faults(told: Publication, folder: Path) -> Iterator[str]:
    tree, issued = Tree(), dict[int, Committed]()
    with opened(folder / LOG) as file:
        for line in islice(lines(file), told.size):
            tree.add(line.text)
            try:
                entry = parse(line.text)
            except ValueError as e:
                yield f"{folder / LOG}:{tree.size}: {e}"
                continue
            if entry.deed.event == ISSUED:
                commitment = str(entry.deed.facts.get("commitment"))
                issued[tree.size - 1] = Committed(tree.size - 1, entry.deed.subject, commitment, entry.hash)
    if tree.size < told.size:
        yield f"{folder / LOG}: it has {tree.size:,} entries, {told.size:,} were published"
    elif tree.root() != told.root:
        yield f"{folder / LOG}: its first {told.size:,} entries are not those that were published"
    for key in told.keys:
        if issued.get(key.number) != key:
            yield f"{folder / LOG}:{key.number + 1}: it does not commit to the key {key.key_id} as published"
    if extra := sorted(set(issued) - {k.number for k in told.keys}):
        yield f"{folder / LOG}:{extra[0] + 1}: it issues a key that the publication does not name"
