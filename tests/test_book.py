"""The ledger of keys: written before use, never twice, whole or refused, and verifiable by strangers."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillwatch.audit import verify
from stillwatch.entries import entries
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.notes import BadNote, Signer
from stillwatch.protection import book as books
from stillwatch.protection.book import Book, Ledger, master_secret
from stillwatch.protection.keys import Key, Kind, Scheme, commitment_of
from stillwatch.protection.published import Publication, publish
from stillwatch.protection.sequences import Sequences
from stillwatch.protection.vetting import Vetting
from stillwatch.secret import Secret

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
MASTER = Secret("a master secret of the tests, long enough")
SIGNER = Signer.make("stillwatch/test")
VETTING = Vetting(Sequences.of(np.random.default_rng(0).integers(0, 200, (80, 40))))
SCHEME = Scheme(width=2)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "watermarks"


@pytest.fixture
def book(folder: Path, clock: Clock) -> Any:
    with Book(folder, SIGNER, clock) as book:
        yield book


def issue(book: Book, campaign: str = "C-1", scheme: Scheme = SCHEME, **more: Any) -> Key:
    return book.issue(campaign, scheme, VETTING, MASTER, "ann", **more)


def test_a_key_is_written_down_with_its_commitment_and_how_it_was_vetted(book: Book, folder: Path) -> None:
    key = issue(book)
    (entry,) = entries(folder)
    deed = entry.deed
    assert (deed.event, deed.subject, deed.who) == ("watermark.issued", key.key_id, "ann")
    assert deed.facts["commitment"] == commitment_of(key.secret)
    assert deed.facts["campaign"] == "C-1" and deed.facts["epoch"] == "2026-11"
    assert abs(deed.facts["vetted"]["z"]) <= 1 and deed.facts["vetted"]["pairs"] > 1000
    assert len(deed.facts["vetted"]["turned_down"]) == key.attempt
    found = verify(folder, SIGNER.verifier)
    assert found.is_sound and found.signed == 1
    assert key.secret.hex() not in (folder / "log.jsonl").read_text()


def test_no_key_is_given_out_that_could_not_be_written_down(
    book: Book, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stillwatch.audit._write_all", full)
    with pytest.raises(Transient, match="No space left"):
        issue(book)
    monkeypatch.undo()
    assert not Ledger.read(folder).issued
    assert issue(book).epoch == "2026-11"


def test_the_ledger_is_the_same_when_opened_again(folder: Path, clock: Clock) -> None:
    with Book(folder, SIGNER, clock) as book:
        first, other = issue(book), issue(book, "C-2", Scheme(Kind.GUMBEL, width=4))
        book.rotate("C-1", VETTING, MASTER, "ann")
        book.retire(other.key_id, "ann", "campaign ended")
        told = book.ledger
    with Book(folder, SIGNER, clock) as book:
        assert book.ledger == told == Ledger.read(folder)
        assert list(told.issued)[:2] == [first.key_id, other.key_id]
        assert book.ledger.key(other.key_id, MASTER) == other, "retired, and still at hand as proof"


def test_a_campaign_has_one_key_at_a_time(book: Book, clock: Clock) -> None:
    first = issue(book)
    assert book.ledger.current("C-1", clock()).key_id == first.key_id  # type: ignore[union-attr]
    assert book.ledger.current("C-2", clock()) is None
    with pytest.raises(UsageError, match="already"):
        issue(book)
    second = book.rotate("C-1", VETTING, MASTER, "ann", after=timedelta(minutes=10))
    assert second.epoch == "2026-11.2" and second.scheme == first.scheme and second.secret != first.secret
    turns = book.ledger.turns_at(clock())
    assert turns is not None and turns > clock() + timedelta(minutes=9)
    for now, held in ((clock(), first), (turns, second), (turns - timedelta(seconds=1), first)):
        assert {c: k.key_id for c, k in book.ledger.currents(now).items()} == {"C-1": held.key_id}
    assert {k.key_id for k in book.ledger.living(clock())} == {first.key_id, second.key_id}
    later = turns + books.GRACE + timedelta(minutes=1)
    assert [k.key_id for k in book.ledger.living(later)] == [second.key_id]
    assert book.ledger.turns_at(later) is None


def test_epochs_are_months_and_none_has_two_keys(book: Book, clock: Clock) -> None:
    key = issue(book)
    book.retire(key.key_id, "ann", "over")
    with pytest.raises(UsageError, match="had a key in the epoch"):
        issue(book, epoch="2026-11")
    assert issue(book).epoch == "2026-11.2"
    assert issue(book, "C-2").epoch == "2026-11", "epochs are each campaign's own"
    clock.now = datetime(2026, 12, 3, tzinfo=UTC)
    assert book.rotate("C-1", VETTING, MASTER, "ann").epoch == "2026-12"


def test_a_retired_key_is_carried_by_nothing_any_more(book: Book, clock: Clock) -> None:
    key = issue(book)
    told = book.retire(key.key_id, "bob", "judged innocent")
    assert (told.reason, told.retired_at) == ("judged innocent", told.retired_at)
    assert book.ledger.current("C-1", clock()) is None and not book.ledger.living(clock())
    with pytest.raises(UsageError, match="already"):
        book.retire(key.key_id, "bob", "again")
    with pytest.raises(UsageError, match="no key 'ffff'"):
        book.retire("ffff", "bob", "never was")
    with pytest.raises(UsageError, match="has no key"):
        book.rotate("C-1", VETTING, MASTER, "bob")


def test_another_master_secret_is_noticed(book: Book) -> None:
    key, other = issue(book), Secret("another secret that is long enough too")
    with pytest.raises(Terminal, match="gives another key than was committed to"):
        book.ledger.key(key.key_id, other)
    with pytest.raises(Terminal, match="gives another key"):
        book.issue("C-2", SCHEME, VETTING, other, "ann")
    assert list(book.ledger.issued) == [key.key_id]


def test_two_processes_do_not_write_at_once(book: Book, folder: Path) -> None:
    with pytest.raises(Transient):
        Book(folder, SIGNER)
    issue(book)
    assert len(Ledger.read(folder).issued) == 1, "reading needs no lock"


def test_what_an_engine_is_given_is_written_down(book: Book, folder: Path) -> None:
    keys = [issue(book), issue(book, "C-2")]
    assert book.export(MASTER, "ann", "keys.json") == keys
    said = [e.deed for e in entries(folder) if e.deed.event == "watermark.exported"]
    assert [(d.subject, d.facts["to"]) for d in said] == [(k.key_id, "keys.json") for k in keys]


def test_a_revealed_key_is_retired(book: Book, clock: Clock) -> None:
    key = issue(book)
    assert book.reveal(key.key_id, MASTER, "ann", "for the court").secret == key.secret
    told = book.ledger.get(key.key_id)
    assert told.revealed_at and told.retired_at and not told.holds(clock())
    assert book.reveal(key.key_id, MASTER, "ann", "once more").secret == key.secret


def changed(folder: Path, change: Any) -> None:
    log = folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(change(lines)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda ls: [ls[0].replace(b'"C-1"', b'"C-9"'), *ls[1:]], "hash does not fit"),
        (lambda ls: ls[1:], "lines were removed"),
        (lambda ls: [ls[0], *ls[2:]], "lines were removed"),
        (lambda ls: ls[:2], ""),
        (lambda ls: [*ls[:-1], ls[-1][:40]], "no entry|Expecting|Unterminated"),
    ],
)
def test_damage_is_found(folder: Path, clock: Clock, change: Any, told: str) -> None:
    with Book(folder, SIGNER, clock) as book:
        for campaign in ("C-1", "C-2", "C-3"):
            issue(book, campaign)
    changed(folder, change)
    with pytest.raises(Terminal):
        Book(folder, SIGNER, clock)
    assert not verify(folder, SIGNER.verifier).is_sound
    if told:
        with pytest.raises(Terminal, match=told):
            Ledger.read(folder)


def test_an_entry_that_issues_twice_is_refused_whoever_signed_it(folder: Path, clock: Clock) -> None:
    with Book(folder, SIGNER, clock) as book:
        issue(book)
        (entry,) = entries(folder)
        deed = entry.deed
        book._audit.append(deed.event, deed.who, deed.role, "0123abcd", {**deed.facts, "epoch": "2027-01"})
    with pytest.raises(Terminal, match=r"log.jsonl:2: it issues again"):
        Ledger.read(folder)
    with pytest.raises(Terminal, match="it issues again"):
        Book(folder, SIGNER, clock)


def test_an_entry_on_no_key_and_one_without_sense_are_refused(tmp_path: Path, clock: Clock) -> None:
    for n, (event, facts, told) in enumerate(
        [("watermark.retired", {}, "never issued"), ("watermark.issued", {"campaign": "C-1"}, "can be understood")]
    ):
        with Book(tmp_path / str(n), SIGNER, clock) as book:
            book._audit.append(event, "ann", "admin", "ab", facts)
        with pytest.raises(Terminal, match=told):
            Ledger.read(tmp_path / str(n))


def test_a_publication_is_checked_by_anybody_later(book: Book, folder: Path, clock: Clock) -> None:
    with pytest.raises(UsageError, match="nothing to publish"):
        publish(book, clock())
    keys = [issue(book), issue(book, "C-2")]
    note = publish(book, clock())
    assert "C-1" not in note and keys[0].secret.hex() not in note
    told = Publication.open(note, SIGNER.verifier)
    assert [k.key_id for k in told.keys] == [k.key_id for k in keys]
    issue(book, "C-3")
    assert told.faults(folder) == []
    assert told.opens(keys[0].key_id, keys[0].secret) and not told.opens(keys[0].key_id, keys[1].secret)
    with pytest.raises(UsageError, match="was not published"):
        told.committed("ffff")
    with pytest.raises(BadNote):
        Publication.open(note.replace(keys[0].key_id, keys[1].key_id), SIGNER.verifier)
    with pytest.raises(BadNote):
        Publication.open(note, Signer.make("stillwatch/other").verifier)
    with pytest.raises(BadNote, match="not a publication"):
        Publication.open(book.checkpoint(), SIGNER.verifier)


def test_a_ledger_rewritten_after_publication_does_not_fit_it(tmp_path: Path, clock: Clock) -> None:
    with Book(tmp_path / "a", SIGNER, clock) as book:
        issue(book), issue(book, "C-2")
        told = Publication.open(publish(book, clock()), SIGNER.verifier)
    with Book(tmp_path / "b", SIGNER, clock) as book:  # the same owner, a ledger made anew to fit a suspect
        issue(book), issue(book, "C-9")
    with Book(tmp_path / "c", SIGNER, clock) as book:
        issue(book)
    assert any("not those that were published" in f for f in told.faults(tmp_path / "b"))
    assert any("does not commit" in f for f in told.faults(tmp_path / "b"))
    assert any("it has 1 entries, 2 were published" in f for f in told.faults(tmp_path / "c"))


def test_the_master_secret_is_made_once_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(books.MASTER_VARIABLE, raising=False)
    file = tmp_path / "keys" / "watermark.key"
    made = master_secret(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(made.reveal()) >= 32
    assert master_secret(file) == made
    monkeypatch.setenv(books.MASTER_VARIABLE, MASTER.reveal())
    assert master_secret(file) == MASTER
    monkeypatch.delenv(books.MASTER_VARIABLE)
    file.chmod(0o644)
    with pytest.raises(UsageError, match="others may read"):
        master_secret(file)


def test_what_is_told_of_a_key_is_json_without_its_secret(book: Book) -> None:
    key = issue(book)
    told = json.dumps(book.ledger.get(key.key_id).plain())
    assert key.commitment in told and key.secret.hex() not in told
