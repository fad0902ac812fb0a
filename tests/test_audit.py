"""The audit: what is acknowledged is there, what is there is proved, and whatever is changed afterwards is found."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillwatch import audit as audit_module
from stillwatch import cli, notes
from stillwatch import verification as check
from stillwatch.audit import (
    Audit,
    AuditUnwritable,
    Cadence,
    Deed,
    Signer,
    Verified,
    Verifier,
    entries,
    load_signer,
    public_key,
    select,
    verify,
)
from stillwatch.entries import parse, written
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.merkle import EMPTY, Tree, leaf_hash, node_hash
from stillwatch.notes import BadNote, Checkpoint, open_checkpoint, open_note
from stillwatch.secret import Secret
from stillwatch.serving import audit_key
from stillwatch.serving.home import Home

SIGNER = Signer.make("stillwatch.example/log")
AT_ONCE, NEVER = Cadence(), Cadence(10**9)

# The example that every implementation of c2sp.org/signed-note is tried on: Go's sumdb/note.
FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SETTLE_S", 0.001)


def deed(number: int = 0) -> Deed:
    return Deed("action.proposed", "ann", "analyst", f"acct-{number}", {"rung": "throttle", "requests": number})


def filled(folder: Path, count: int, cadence: Cadence = AT_ONCE) -> Path:
    with Audit(folder, SIGNER, cadence) as audit:
        audit.append_all([deed(n) for n in range(count)])
    return folder


def checked(folder: Path, since: str | None = None) -> Verified:
    return verify(folder, SIGNER.verifier, since)


def numbers(folder: Path) -> list[int]:
    return [e.number for e in entries(folder)]


# The tree and the note


def slow_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    cut = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(slow_root(leaves[:cut]), slow_root(leaves[cut:]))


def test_the_frontier_gives_the_root_of_the_rfc_at_every_size() -> None:
    tree, leaves = Tree(), []
    assert tree.root() == EMPTY
    for n in range(130):
        leaves.append(str(n).encode() * (n % 5))
        tree.add(leaves[-1])
        assert tree.root() == slow_root(leaves)
        assert len(tree.frontier) == (n + 1).bit_count()


def test_the_tree_of_a_public_vector() -> None:
    """The eight leaves that implementations of RFC 6962 are tried on."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    tree = Tree()
    for leaf in leaves:
        tree.add(bytes.fromhex(leaf))
    assert tree.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_a_note_of_another_implementation_is_read() -> None:
    key = Verifier.parse(FOO)
    assert str(key) == FOO
    assert open_note(FOO_NOTE, key) == "This is an example message.\n"
    with pytest.raises(BadNote, match="does not fit"):
        open_note(FOO_NOTE.replace("example message", "exemple message"), key)


def test_the_example_of_the_specification_has_its_form() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert Checkpoint.parse(text).text() == text
    assert Checkpoint.parse(text).size == 20852163


def test_a_signed_note_can_be_read_with_any_ed25519() -> None:
    note = SIGNER.sign("one\n\ntwo\n")
    text, _, line = note.rpartition("\n\n")
    dash, name, encoded = line.rstrip("\n").split(" ")
    raw = base64.b64decode(encoded)
    assert (dash, name) == ("\u2014", SIGNER.name)
    assert raw[:4] == hashlib.sha256(SIGNER.name.encode() + b"\n\x01" + SIGNER.verifier.public).digest()[:4]
    assert SIGNER.verifier.holds(text + "\n", raw[4:])
    assert open_note(note, SIGNER.verifier) == "one\n\ntwo\n"


def test_signatures_of_strangers_are_passed_over_but_ours_must_be_there() -> None:
    other = Signer.make("witness.example/w")
    cosigned = SIGNER.sign("text\n") + other.sign("text\n").rpartition("\n\n")[2]
    assert open_note(cosigned, SIGNER.verifier) == open_note(cosigned, other.verifier) == "text\n"
    with pytest.raises(BadNote, match=r"signed by witness.example/w.*, not by stillwatch.example"):
        open_note(other.sign("text\n"), SIGNER.verifier)
    namesake = Signer.make(SIGNER.name)
    with pytest.raises(BadNote, match="not by"):
        open_note(namesake.sign("text\n"), SIGNER.verifier)


@pytest.mark.parametrize(
    "text",
    ["", "a\n1\n", "a\n01\n" + "A" * 43 + "=\n", "a\n-1\n" + "A" * 43 + "=\n", "a\n1\n" + "A" * 43 + "=\nextra\n"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BadNote):
        Checkpoint.parse(text)


def test_a_checkpoint_of_another_log_under_our_key_is_refused() -> None:
    note = SIGNER.sign(Checkpoint("other.example/log", 0, EMPTY).text())
    with pytest.raises(BadNote, match=r"other.example/log"):
        open_checkpoint(note, SIGNER.verifier)


# The key


def test_a_key_is_made_at_first_use_for_its_owner_alone_and_never_shows(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.key"
    made = load_signer(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_signer(path).verifier == made.verifier
    hidden = path.read_text().strip().split("+", 4)[-1]
    assert hidden not in repr(made) + repr(made.text()) + str(made.verifier)
    assert [p.name for p in path.parent.iterdir()] == ["audit.key"]


def test_a_key_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notes.KEY_VARIABLE, SIGNER.text().reveal())
    assert load_signer(tmp_path / "none").verifier == SIGNER.verifier
    assert not (tmp_path / "none").exists()


def test_a_key_that_is_none_or_lies_open_is_refused_without_being_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    load_signer(path)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        load_signer(path)
    whole = SIGNER.text().reveal()
    for wrong in (
        whole[:-4],
        whole.replace("PRIVATE", "PUBLIC"),
        whole.replace("stillwatch", "other"),
        "hunter2hunter2",
    ):
        with pytest.raises(UsageError, match="no private key") as e:
            Signer.parse(Secret(wrong), "audit.key")
        assert wrong[-20:] not in str(e.value)
        assert e.value.__cause__ is None


@pytest.mark.parametrize(
    "wrong", ["", "a+b", FOO.replace("530d903a", "530d903b"), FOO.replace("Aeky", "Beky"), "a+b+c"]
)
def test_a_damaged_public_key_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError):
        Verifier.parse(wrong)


# Entries


def test_an_entry_reads_as_it_was_written(tmp_path: Path) -> None:
    at = datetime(2026, 11, 26, 12, 0, 0, 5, tzinfo=UTC)
    facts = {"text": 'quote " and \n and é', "n": 3, "x": 0.1, "yes": True, "none": None, "list": [1, {"hash": "b"}]}
    with Audit(tmp_path, SIGNER, clock=lambda: at) as audit:
        assert audit.append("campaign.judged", "ann", "analyst", "C-1", facts) == 0
        assert audit.append("action.signed", "bo", "approver", "A-1", {}) == 1
        assert audit.append_all([deed(1), deed(2)]) == range(2, 4)
        assert audit.append_all([]) == range(4, 4)
    first, second = list(entries(tmp_path))[:2]
    assert (first.at, first.deed.facts, first.previous) == (at, facts, "0" * 64)
    assert second.previous == first.hash
    line = (tmp_path / "log.jsonl").read_bytes().split(b"\n")[0]
    fields = json.loads(line)
    assert fields["at"] == "2026-11-26T12:00:00.000005+00:00"
    assert list(fields) == sorted(fields)
    digest = fields.pop("hash")
    plain = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(plain.encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("facts", "place"),
    [
        ({"prompt": "x" * 1001}, "facts.prompt"),
        ({"a": {"b": [b"bytes"]}}, r"facts.a.b\[0\]"),
        ({"a": float("nan")}, "facts.a"),
        ({"a": 2**53}, "facts.a"),
        ({"a": {"b": {"c": {"d": {"e": 1}}}}}, "facts.a.b.c.d"),
        ({3: "x"}, "a key"),
        ({"a": {1, 2}}, "facts.a"),
        ({str(n): "x" * 900 for n in range(30)}, "bytes in all"),
    ],
)
def test_facts_that_could_be_content_or_are_no_json_are_refused(tmp_path: Path, facts: dict, place: str) -> None:
    with Audit(tmp_path, SIGNER) as audit:
        with pytest.raises(Terminal, match=place):
            audit.append("a", "b", "c", "d", facts)
        assert audit.append_all([deed()]) == range(0, 1)


@pytest.mark.parametrize(
    "changed",
    [
        lambda line: line.replace(b'":', b'": ', 1),
        lambda line: line + b" ",
        lambda line: line.replace(b'{"at"', b'{"at":"2026","at"', 1),
        lambda line: line.replace(b"ann", b"\\u0061nn"),
        lambda line: line.decode().encode("utf-16"),
        lambda line: b"[" + line + b"]",
        lambda line: b"[" * 100_000,
        lambda line: b"",
    ],
)
def test_a_line_says_a_thing_in_one_way_only(changed: Callable[[bytes], bytes]) -> None:
    line, _ = written(0, datetime(2026, 1, 1, tzinfo=UTC), deed(), "0" * 64)
    assert parse(line).deed == deed()
    with pytest.raises(ValueError, match=r"entry|written|hash|JSON|value|decode|codec"):
        parse(changed(line))


def test_who_and_what_must_be_named() -> None:
    for event, who in (("", "ann"), ("judged", "")):
        with pytest.raises(Terminal, match="names its event"):
            Deed(event, who, "analyst", "s")
    with pytest.raises(Terminal, match="subject"):
        Deed("e", "w", "r", "s" * 257)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=3), st.text(min_size=1, max_size=9))
@settings(max_examples=100, deadline=None)
def test_any_entry_that_is_taken_is_read_back(facts: dict, name: str) -> None:
    try:
        given_ = Deed(name, name, name, name, facts)
    except Terminal:
        return
    line, digest = written(7, datetime(2026, 1, 1, tzinfo=UTC), given_, "f" * 64)
    assert b"\n" not in line
    entry = parse(line)
    assert (entry.number, entry.hash, entry.previous) == (7, digest, "f" * 64)
    assert repr(entry.deed.facts) == repr(json.loads(json.dumps(given_.facts, sort_keys=True)))


def test_entries_are_selected_by_event_subject_and_person(tmp_path: Path) -> None:
    with Audit(tmp_path, SIGNER) as audit:
        audit.append_all([Deed("action.signed", "bo", "approver", "A"), Deed("actionable", "bo", "x", "B"), deed(5)])
    found = list(entries(tmp_path))
    assert [e.number for e in select(found, event="action")] == [0, 2]
    assert [e.number for e in select(found, subject="acct-5")] == [2]
    assert [e.number for e in select(found, event="action.signed", who="ann")] == []


# Writing


def test_every_entry_is_signed_at_once_or_as_told(tmp_path: Path) -> None:
    with Audit(tmp_path / "a", SIGNER) as audit:
        for n in range(3):
            audit.append_all([deed(n)])
            assert audit.signed == audit.size == n + 1
            standing = open_checkpoint((tmp_path / "a" / "checkpoint").read_text(), SIGNER.verifier)
            assert (standing.size, standing.root) == (n + 1, audit.root)
    with Audit(tmp_path / "b", SIGNER, Cadence(3)) as audit:
        signed = []
        for n in range(7):
            audit.append_all([deed(n)])
            signed.append(audit.signed)
    assert signed == [0, 0, 3, 3, 3, 6, 6]
    assert checked(tmp_path / "b").signed == 7
    with Audit(tmp_path / "c", SIGNER, Cadence(100, seconds=0.01)) as audit:
        time.sleep(0.02)
        audit.append_all([deed()])
        assert audit.signed == 1


def test_a_log_goes_on_where_it_was_left(tmp_path: Path) -> None:
    for n in range(9):
        with Audit(tmp_path, SIGNER) as audit:
            assert audit.append_all([deed(n)]) == range(n, n + 1)
    found = checked(tmp_path)
    assert (found.faults, found.remarks, found.entries) == ((), (), 9)
    assert public_key(tmp_path) == SIGNER.verifier


def test_one_process_holds_the_folder(tmp_path: Path) -> None:
    with Audit(tmp_path, SIGNER), pytest.raises(Transient, match="another process"):
        Audit(tmp_path, SIGNER)
    with Audit(tmp_path, SIGNER) as audit:
        pass
    for closed in (audit.checkpoint, lambda: audit.append_all([deed()])):
        with pytest.raises(Terminal, match="closed"):
            closed()


def test_a_log_under_another_key_is_not_gone_on_with(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    with pytest.raises(Terminal, match="not by"):
        Audit(tmp_path, Signer.make(SIGNER.name))
    assert checked(tmp_path).is_sound


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """Files may not grow beyond ``most`` bytes: writes are cut short and then fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 100, 700])
def test_a_full_disk_takes_all_entries_or_none(tmp_path: Path, room: int) -> None:
    filled(tmp_path, 20)
    log = tmp_path / "log.jsonl"
    before = log.read_bytes()
    with Audit(tmp_path, SIGNER) as audit:
        with small_disk(len(before) + room):
            for _ in range(2):
                with pytest.raises(AuditUnwritable, match="cannot be written"):
                    audit.append_all([deed(n) for n in range(5)])
            assert audit.fault is not None
        assert log.read_bytes() == before
        assert audit.append_all([deed()]) == range(20, 21)
        assert audit.fault is None
    assert checked(tmp_path).is_sound
    assert numbers(tmp_path) == list(range(21))


def test_what_the_disk_did_not_confirm_is_not_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Audit(tmp_path, SIGNER) as audit:
        audit.append_all([deed(0)])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            with pytest.raises(AuditUnwritable, match="No space"):
                audit.append_all([deed(1)])
            with pytest.raises(AuditUnwritable):
                audit.append_all([deed(2)])
        assert audit.append_all([deed(3)]) == range(1, 2)
    assert [e.deed.subject for e in entries(tmp_path)] == ["acct-0", "acct-3"]
    assert checked(tmp_path).is_sound


def add(log: Path, tail: bytes) -> None:
    with log.open("ab") as file:
        file.write(tail)


def failing(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_entries_wait_for_a_checkpoint_that_failed_but_no_more_come_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Audit(tmp_path, SIGNER) as audit:
        with monkeypatch.context() as patch:
            patch.setattr("stillwatch.audit.write_text", failing)
            assert audit.append_all([deed(0)]) == range(0, 1)
            assert (audit.signed, audit.size) == (0, 1)
            assert audit.fault is not None
            with pytest.raises(AuditUnwritable, match="checkpoint"):
                audit.append_all([deed(1)])
            with pytest.raises(AuditUnwritable):
                audit.checkpoint()
        assert audit.append_all([deed(2)]) == range(1, 2)
        assert audit.signed == 2
    assert checked(tmp_path).is_sound


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditUnwritable, match="file/audit"):
        Audit(tmp_path / "file" / "audit", SIGNER)


@pytest.mark.parametrize("change", ["append", "remove", "replace", "truncate"])
def test_nothing_is_written_behind_a_strangers_change(tmp_path: Path, change: str) -> None:
    log = tmp_path / "log.jsonl"
    with Audit(tmp_path, SIGNER) as audit:
        audit.append_all([deed(n) for n in range(3)])
        before = log.read_bytes()
        if change == "append":
            add(log, b"x")
        elif change == "truncate":
            os.truncate(log, 5)
        else:
            log.rename(tmp_path / "moved")
            if change == "replace":
                log.write_bytes(before)
        with pytest.raises(Terminal, match="somebody else"):
            audit.append_all([deed()])


def test_threads_share_a_log(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Audit(tmp_path, SIGNER, NEVER) as audit, ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda n: audit.append("e", "w", "r", str(n), {}), range(60)))
    assert sorted(got) == list(range(60))
    assert {e.deed.subject: e.number for e in entries(tmp_path)} == {str(n): g for n, g in enumerate(got)}
    assert checked(tmp_path).is_sound


# Crashes


CRASH = """
import sys
from pathlib import Path
from stillwatch.audit import Audit, Cadence, load_signer
folder = Path(sys.argv[1])
audit = Audit(folder / "audit", load_signer(folder / "key"), Cadence(3))
print("open", flush=True)
while True:
    print(audit.append("e", "w", "r", "s", {"n": audit.size}), flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    acknowledged = -1
    for round_ in range(3):
        with subprocess.Popen([sys.executable, "-c", CRASH, tmp_path], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            time.sleep(0.03 + 0.02 * round_)
            child.send_signal(signal.SIGKILL)
            told = [int(line) for line in child.stdout.read().splitlines()]
        assert told
        acknowledged = max(told)
        with Audit(tmp_path / "audit", load_signer(tmp_path / "key")) as audit:
            assert audit.size > acknowledged
        found = verify(tmp_path / "audit", public_key(tmp_path / "audit"))
        assert found.is_sound, found.faults
    assert numbers(tmp_path / "audit") == list(range(found.entries))


def unsigned(folder: Path, signed: int, more: int) -> bytes:
    """A log with ``more`` entries after its checkpoint, as a crash leaves it; the log."""
    with Audit(folder, SIGNER, NEVER) as audit:
        audit.append_all([deed(n) for n in range(signed)])
        audit.checkpoint()
        note = (folder / "checkpoint").read_bytes()
        audit.append_all([deed(n) for n in range(more)])
    (folder / "checkpoint").write_bytes(note)
    return (folder / "log.jsonl").read_bytes()


def test_entries_that_a_crash_left_unsigned_are_kept_and_told(tmp_path: Path) -> None:
    unsigned(tmp_path, 3, 2)
    assert checked(tmp_path).remarks == ("2 entries after the checkpoint are not signed yet",)
    with Audit(tmp_path, SIGNER) as audit:
        assert (audit.size, audit.signed) == (6, 6)
    last = list(entries(tmp_path))[-1].deed
    assert (last.event, last.facts) == ("audit.unsigned", {"from": 3, "entries": 2})
    assert checked(tmp_path) == checked(tmp_path)
    assert checked(tmp_path).remarks == ()


@pytest.mark.parametrize("cut", [1, 2, 50])
def test_a_torn_last_line_is_set_aside_and_told(tmp_path: Path, cut: int) -> None:
    whole = unsigned(tmp_path, 3, 1)
    log = tmp_path / "log.jsonl"
    log.write_bytes(whole[:-cut])
    torn = whole[:-cut].rpartition(b"\n")[2]
    assert not checked(tmp_path).is_sound
    with Audit(tmp_path, SIGNER) as audit:
        assert audit.size == 4
    assert (tmp_path / "torn-1").read_bytes() == torn
    told = list(entries(tmp_path))[-1].deed
    facts = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest(), "before": 3}
    assert (told.event, told.subject, told.facts) == ("audit.torn", "torn-1", facts)
    assert checked(tmp_path).faults == checked(tmp_path).remarks == ()
    (tmp_path / "torn-1").write_bytes(b"other")
    assert "not what was set aside" in str(checked(tmp_path).faults[0])
    (tmp_path / "torn-1").unlink()
    assert "is gone" in checked(tmp_path).remarks[0]


def test_a_crash_while_setting_aside_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.jsonl"
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(unsigned(tmp_path, 3, 1)[:-9])
    for moment in ("_shorten", "_tell_torn"):
        with monkeypatch.context() as patch:
            patch.setattr(Audit, moment, lambda *_: failing())
            with pytest.raises(AuditUnwritable):
                Audit(tmp_path, SIGNER)
        assert (tmp_path / "torn-1").exists()
    assert "does not say so yet" in checked(tmp_path).remarks[0]
    for n in range(3):
        with Audit(tmp_path, SIGNER) as audit:
            audit.append_all([deed(n)])
    assert [p.name for p in tmp_path.glob("torn-*")] == ["torn-1"]
    assert [e.deed.event for e in entries(tmp_path)].count("audit.torn") == 1
    add(log, b"\0" * 512)
    Audit(tmp_path, SIGNER).close()
    assert (tmp_path / "torn-2").read_bytes() == b"\0" * 512
    assert checked(tmp_path).faults == ()


def test_what_no_crash_leaves_stops_the_log_and_is_left_as_it_is(tmp_path: Path) -> None:
    whole = unsigned(tmp_path, 3, 3)
    lines = whole.splitlines(keepends=True)
    wrong = {
        "a signed line is torn": b"".join(lines[:2]) + lines[2][:-1],
        "a signed line is missing": b"".join(lines[:2]),
        "a signed line is changed": whole.replace(b"acct-1", b"acct-9", 1),
        "an unsigned line is missing": b"".join(lines[:3] + lines[4:]),
        "a bad line before a good one": b"".join([*lines[:3], b"garbage\n", *lines[4:]]),
        "an unsigned line twice": whole + lines[-1],
    }
    note = (tmp_path / "checkpoint").read_bytes()
    for what, bad in wrong.items():
        (tmp_path / "log.jsonl").write_bytes(bad)
        with pytest.raises(Terminal, match=r"log.jsonl:\d"):
            Audit(tmp_path, SIGNER)
            pytest.fail(what)
        assert (tmp_path / "log.jsonl").read_bytes() == bad, what
        assert (tmp_path / "checkpoint").read_bytes() == note, what
        assert not checked(tmp_path).is_sound, what
    assert not list(tmp_path.glob("torn-*"))


def test_a_log_that_was_cut_off_says_where(tmp_path: Path) -> None:
    log = filled(tmp_path, 3) / "log.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(Terminal, match=r"log.jsonl:3: the log ends, but 3 entries are signed"):
        Audit(tmp_path, SIGNER)


@pytest.mark.parametrize("gone", ["log.jsonl", "checkpoint"])
def test_a_log_without_its_checkpoint_or_the_other_way_round_is_refused(tmp_path: Path, gone: str) -> None:
    filled(tmp_path, 2)
    (tmp_path / gone).unlink()
    with pytest.raises(Terminal, match=gone):
        Audit(tmp_path, SIGNER)
    assert not (tmp_path / gone).exists()


def test_a_start_that_was_killed_before_the_first_checkpoint_is_a_first_start(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"")
    assert filled(tmp_path, 1) and checked(tmp_path).is_sound


# Checking


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A log of twelve entries, and the checkpoint it had at five."""
    folder = tmp_path_factory.mktemp("kept")
    with Audit(folder, SIGNER) as audit:
        audit.append_all([deed(n) for n in range(5)])
        early = (folder / "checkpoint").read_text()
        audit.append_all([deed(n) for n in range(5, 12)])
    assert verify(folder, SIGNER.verifier, early).is_sound
    return folder, early


def copied(kept: tuple[Path, str], folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(kept[0], folder)


def mutate(draw: st.DrawFn, log: bytes) -> bytes:
    lines = log.splitlines(keepends=True)
    here, there = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
    match draw(st.sampled_from(["byte", "drop byte", "add byte", "edit", "delete", "double", "swap", "cut", "forge"])):
        case "byte":
            at = draw(st.integers(0, len(log) - 1))
            return log[:at] + bytes([draw(st.integers(0, 255))]) + log[at + 1 :]
        case "drop byte":
            at = draw(st.integers(0, len(log) - 1))
            return log[:at] + log[at + 1 :]
        case "add byte":
            at = draw(st.integers(0, len(log)))
            return log[:at] + bytes([draw(st.integers(0, 255))]) + log[at:]
        case "edit":
            lines[here] = lines[here].replace(b"throttle", b"suspends")
        case "delete":
            del lines[here]
        case "double":
            lines.insert(there, lines[here])
        case "swap":
            lines[here], lines[there] = lines[there], lines[here]
        case "cut":
            return log[: draw(st.integers(0, len(log) - 1))]
        case "forge":
            # All from here on written anew, with hashes that fit: only the signature can tell.
            previous = json.loads(lines[here])["previous"]
            for n in range(here, len(lines)):
                line, previous = written(n, datetime(2026, 1, 1, tzinfo=UTC), deed(n + 100), previous)
                lines[n] = line + b"\n"
    return b"".join(lines)


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_tampering_is_found(kept: tuple[Path, str], tmp_path: Path, data: st.DataObject) -> None:
    folder = copied(kept, tmp_path / "copy")
    log = folder / "log.jsonl"
    before = log.read_bytes()
    log.write_bytes(after := mutate(data.draw, before))
    found = checked(folder)
    assert found.is_sound == (after == before)
    if after == before:
        return
    assert str(folder) in found.faults[0].place
    if after.startswith(before) and not after.endswith(b"}\n"):
        # Nothing that was signed is touched: it might be what a crash left, and is set aside in sight.
        Audit(folder, SIGNER).close()
        assert (folder / "torn-1").read_bytes() == after.removeprefix(before)
        assert log.read_bytes().startswith(before)
        assert checked(folder).is_sound
        return
    with pytest.raises(Terminal):
        Audit(folder, SIGNER)
    assert log.read_bytes() == after


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_change_of_the_checkpoint_is_found(kept: tuple[Path, str], tmp_path: Path, data: st.DataObject) -> None:
    folder = copied(kept, tmp_path / "copy")
    note = folder / "checkpoint"
    before = note.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    byte = data.draw(st.sampled_from([b"", b"A", b"0", b"\n", b" ", b"=", b"\xff"]))
    after = before[:at] + byte + before[at + data.draw(st.integers(0, 1)) :]
    note.write_bytes(after)
    assert checked(folder).is_sound == (after == before)


def test_the_place_of_a_fault_is_told(kept: tuple[Path, str], tmp_path: Path) -> None:
    folder = copied(kept, tmp_path / "copy")
    log = folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines).replace(b"acct-3", b"acct-4"))
    assert str(checked(folder).faults[0]) == f"{log}:4: its hash does not fit what it says"
    log.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert f"{log}:4: entry 4 stands where 3 belongs" in str(checked(folder).faults[0])
    log.write_bytes(b"".join(lines[:10]))
    assert str(checked(folder).faults[0]).startswith(f"{log}:11: the log ends here, but 12 entries are signed")


def test_another_key_and_a_missing_checkpoint_are_found(kept: tuple[Path, str], tmp_path: Path) -> None:
    folder = copied(kept, tmp_path / "copy")
    assert "not by" in verify(folder, Signer.make(SIGNER.name).verifier).faults[0].what
    (folder / "checkpoint").unlink()
    assert "there is none" in checked(folder).faults[0].what
    with pytest.raises(Terminal, match="cannot be read"):
        checked(tmp_path / "nowhere")


def test_a_log_that_was_replaced_as_a_whole_is_found_by_an_older_checkpoint(
    kept: tuple[Path, str], tmp_path: Path
) -> None:
    with Audit(tmp_path / "new", SIGNER) as audit:
        audit.append_all([deed(n + 1) for n in range(12)])
    assert checked(tmp_path / "new").is_sound
    found = checked(tmp_path / "new", kept[1])
    assert "first 5 entries as they were signed (--since)" in found.faults[0].what
    filled(tmp_path / "short", 3)
    assert "5 entries are signed (--since)" in checked(tmp_path / "short", kept[1]).faults[0].what
    assert "cut off" in checked(tmp_path / "short", "nonsense").faults[0].what + "cut off"
    assert not checked(tmp_path / "short", "nonsense").is_sound


def test_a_checkpoint_put_back_from_a_copy_is_told(kept: tuple[Path, str], tmp_path: Path) -> None:
    folder = copied(kept, tmp_path / "copy")
    late = (folder / "checkpoint").read_text()
    (folder / "checkpoint").write_text(kept[1])
    found = checked(folder, late)
    assert found.is_sound
    assert found.signed == 5
    assert any("older than the one given" in r for r in found.remarks)


def test_a_clock_that_was_set_back_is_told_and_no_fault(tmp_path: Path) -> None:
    moments = iter([0, 10, 9, 3, 100])
    start = datetime(2026, 11, 26, tzinfo=UTC)
    with Audit(tmp_path, SIGNER, clock=lambda: start + timedelta(seconds=next(moments))) as audit:
        audit.append_all([deed(n) for n in range(5)])
    found = checked(tmp_path)
    assert found.is_sound
    assert found.remarks == (f"{tmp_path / 'log.jsonl'}:4: 6.0 s before the entry before it: the clock was set back",)
    assert (found.first, found.last) == (start, start + timedelta(seconds=100))


class Growing:
    """A log whose end comes only after it has been asked for so many ``times``."""

    def __init__(self, whole: bytes, times: int) -> None:
        self.parts = [*whole[:-30].splitlines(keepends=True), *[b""] * times, whole[-30:]]

    def readline(self, most: int) -> bytes:
        return self.parts.pop(0) if self.parts else b""


def test_a_log_may_be_checked_while_it_is_written(tmp_path: Path) -> None:
    whole = unsigned(tmp_path, 2, 1)
    for times, ends in ((0, True), (2, True), (3, False)):
        found = list(check._patient_lines(Growing(whole, times)))  # type: ignore[arg-type]
        assert [line.is_whole for line in found[:3]] == [True, True, ends]
        assert not ends or b"\n".join(line.text for line in found) + b"\n" == whole


def test_many_faults_do_not_fill_the_memory(tmp_path: Path) -> None:
    filled(tmp_path, 80)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"throttle", b"suspends") + b"x" * 100_000)
    found = checked(tmp_path)
    assert check.FAULTS <= len(found.faults) <= check.FAULTS + 2
    assert "stopped" in found.remarks[0]


# The commands


@pytest.fixture
def home(tmp_path: Path) -> Path:
    filled(tmp_path / "audit", 3)
    return tmp_path


def test_the_verify_command_says_what_it_found_and_exits_with_it(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    key = tmp_path / "log.pub"
    key.write_text(f"{SIGNER.verifier}\n")
    since = tmp_path / "since"
    shutil.copy(home / "audit" / "checkpoint", since)
    assert cli.main(["audit", "verify", str(home), "--key", str(key), "--since", str(since)]) == 0
    assert "3 entries" in capsys.readouterr().out
    assert cli.main(["audit", "verify", str(home / "audit"), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["sound"], out["entries"], out["signed"], out["faults"]) == (True, 3, 3, [])
    log = home / "audit" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"acct-1", b"acct-2"))
    assert cli.main(["audit", "verify", str(home)]) == 1
    assert f"{log}:2: its hash does not fit" in capsys.readouterr().out
    assert cli.main(["audit", "verify", str(home), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["faults"][0]["place"] == f"{log}:2"


def test_the_verify_command_says_whose_key_it_took(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "verify", str(home)]) == 0
    said = capsys.readouterr()
    assert str(SIGNER.verifier) in said.out
    assert "--key" in said.err
    (home / "other.pub").write_text(str(Signer.make("x").verifier))
    assert cli.main(["audit", "verify", str(home), "--key", str(home / "other.pub")]) == 1
    assert cli.main(["audit", "verify", str(home), "--key", str(home / "none")]) == 2
    assert cli.main(["audit", "verify", str(home / "none")]) == 2


def test_the_show_command_shows_entries(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "show", str(home), "--subject", "acct-1"]) == 0
    out = capsys.readouterr().out
    assert "acct-1" in out
    assert "acct-2" not in out
    assert cli.main(["audit", "show", str(home), "--json", "--last", "2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(e["number"], e["subject"]) for e in lines] == [(1, "acct-1"), (2, "acct-2")]
    assert lines[0] == next(e.plain() for e in entries(home / "audit") if e.number == 1)


# Another key


def rotated(home: Path) -> tuple[Verifier, Verifier]:
    done = audit_key.change(Home(home), "ann")
    return done.old, done.new


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A home whose audit has a few entries, by a key in its file."""
    home = Home(tmp_path / "home").made()
    with Audit(home.audit, load_signer(home.audit_key)) as audit:
        audit.append_all([deed(n) for n in range(3)])
    return home.folder


def test_an_old_key_vouches_for_the_new_one_and_whoever_trusts_either_is_led_to_the_newest(own: Path) -> None:
    folder = own / "audit"
    first_note = (folder / "checkpoint").read_text()
    keys = [*rotated(own)]
    with Audit(folder, load_signer(Home(own).audit_key)) as audit:
        assert audit.former == (str(keys[0]),)
        audit.append_all([deed(n) for n in range(2)])
    keys.append(rotated(own)[1])
    assert public_key(folder) == keys[2]
    assert len(set(map(str, keys))) == 3 and len({k.name for k in keys}) == 1
    for key in keys:
        for since in (None, first_note):
            found = verify(folder, key, since)
            assert found.is_sound, found.faults
            assert found.entries == found.signed == 7
            assert any("changed 2 times" in r for r in found.remarks)
    assert [e.deed.event for e in entries(folder)].count("audit.key") == 2
    assert not Home(own).audit_key.with_name("audit.key.next").exists()
    stranger = verify(folder, Signer.make(keys[0].name).verifier)
    assert not stranger.is_sound, "a key that is none of them is not led anywhere"


@pytest.mark.parametrize("harm", ["gone", "forged", "other", "old key again"])
def test_a_broken_chain_of_keys_is_found(own: Path, harm: str) -> None:
    folder = own / "audit"
    old_signer = load_signer(Home(own).audit_key)
    old, new = rotated(own)
    (voucher,) = folder.glob("vouched-*")
    if harm == "gone":
        voucher.unlink()
        assert verify(folder, new).is_sound, "the newest key has signed all of it itself"
    elif harm == "forged":
        text = voucher.read_text().partition("\n\n")[0] + "\n"
        voucher.write_text(Signer.make(old.name).sign(text))
    elif harm == "other":
        voucher.rename(folder / "vouched-2")
        (folder / "vouched-2").write_text(old_signer.sign(Checkpoint(old.name, 2, b"x" * 32).text()))
    else:
        (folder / "checkpoint").write_text(voucher.read_text())
    found = verify(folder, old)
    assert not found.is_sound
    assert {"forged": "vouches for no key", "other": "vouches for no key"}.get(harm, "not by") in str(found.faults[0])


@pytest.mark.parametrize("step", ["append", "vouch", "keep", "sign", "public"])
def test_a_change_of_keys_that_breaks_off_is_done_again_or_never_was(
    own: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = own / "audit", public_key(own / "audit")

    class Killed(BaseException):
        """Nothing may catch it."""

    text, checkpoint, put = audit_module.write_text, Audit.checkpoint, audit_key._put_in_place
    after = {"vouch": "vouched-", "public": "key.pub"}.get(step)
    signed = iter(range(100))

    def writes(path: Path, told: str) -> None:
        if after and path.name.startswith(after) and "vouched-5" not in path.name and (step != "public" or changed()):
            raise Killed
        text(path, told)

    def changed() -> bool:
        return any(folder.glob("vouched-*"))

    def signs(audit: Audit) -> str:
        if ((step == "append" and audit.size == 4) or (step == "sign" and changed())) and next(signed) == 0:
            raise Killed
        return checkpoint(audit)

    def puts(new: Path, key: Path) -> None:
        if step == "keep":
            raise Killed
        put(new, key)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(audit_module, "write_text", writes)
        patch.setattr(Audit, "checkpoint", signs)
        patch.setattr(audit_key, "_put_in_place", puts)
        rotated(own)
    # A server that starts meanwhile goes on with the key that is in place, and all is sound.
    with Audit(folder, load_signer(Home(own).audit_key)) as audit:
        audit.append_all([deed(9)])
        assert (str(audit.verifier) == str(before)) == (step not in ("sign", "public"))
    for key in (before, public_key(folder)):
        assert verify(folder, key).is_sound, verify(folder, key).faults
    assert rotated(own)[1] == public_key(folder)
    for key in (before, public_key(folder)):
        assert verify(folder, key).is_sound, verify(folder, key).faults


def test_the_verb_that_changes_the_key(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = public_key(own / "audit")
    with Home(own).held():
        assert cli.main(["audit", "rotate", str(own)]) == 5
    assert public_key(own / "audit") == old
    assert cli.main(["audit", "rotate", str(own), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["old"], told["new"]) == (str(old), str(public_key(own / "audit")))
    (own / "old.pub").write_text(f"{old}\n")
    assert cli.main(["audit", "verify", str(own), "--key", str(own / "old.pub")]) == 0
    assert cli.main(["audit", "rotate", str(own / "none")]) == 2
    Home(own).audit_key.unlink()
    assert cli.main(["audit", "rotate", str(own)]) == 2
