"""Whether a home is well: a line on each thing that can be wrong, and what to do about it. Nothing is changed.

May be run beside the server; what the server holds, it is not asked for again.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stillwatch.audit import Verifier, public_key, verify
from stillwatch.entries import CHECKPOINT, LOG, Chain, parse
from stillwatch.errors import StillwatchError, UsageError
from stillwatch.notes import KEY_VARIABLE as AUDIT_VARIABLE
from stillwatch.notes import open_checkpoint
from stillwatch.policy import load as load_policy
from stillwatch.privacy import KEY_VARIABLE, Privacy
from stillwatch.protection.book import Ledger
from stillwatch.secret import secret_from
from stillwatch.serving import custody, newest, quarantine, snapshot
from stillwatch.serving.access import Access, Role
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Status
from stillwatch.serving.services import derived
from stillwatch.serving.settings import Settings, load
from stillwatch.serving.watermarks import unmarked
from stillwatch.store.copies import faults_of
from stillwatch.store.places import Address, Place
from stillwatch.store.state import State

OK, WARN, FAIL = "ok", "warn", "fail"
WHOLE_BYTES, TAIL_LINES = 16 << 20, 10_000
"""An audit of up to so many bytes is checked whole; of a larger one its last so many lines."""
QUICK_BYTES = 2 << 30
"""A database of up to so many bytes is read whole."""
CLOCK_SLACK_S, ANSWER_S = 5.0, 3.0
SOON = timedelta(days=14)
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, ``ok``, ``warn`` or ``fail``, what was seen, and what to do; ``str()`` is its line."""

    name: str
    level: str
    said: str
    hint: str = ""

    def to_dict(self) -> dict[str, str]:
        """As JSON values."""
        return {"check": self.name, "level": self.level, "said": self.said, "hint": self.hint}

    def __str__(self) -> str:
        line = f"{self.level:<4}  {self.name:<11} {self.said}"
        return f"{line}\n      hint: {self.hint}" if self.hint and self.level != OK else line


@dataclass(frozen=True, slots=True)
class Patient:
    """A home to look at, with its settings and secret as far as they could be read."""

    home: Home
    settings: Settings
    privacy: Privacy | None


def examine(home: Home, config: Path | None = None, key: Path | None = None) -> list[Check]:
    """All checks, in the order in which what is wrong is best mended. UsageError where there is no home at all."""
    if not home.folder.is_dir():
        raise UsageError(f"{home.folder}: there is no such folder", hint="give the folder that serve was given")
    settings, about_settings = _settings(home, config)
    privacy, about_key = _key(home, key)
    patient = Patient(home, settings, privacy)
    checks: list[Callable[[Patient], Iterator[Check]]] = [
        _permissions, _disk, _clock, _port, _policy, _state, _spool, _audit, _tokens, _snapshot, _judge, _results,
        _watermarks,
    ]  # fmt: skip
    found = [about_settings, about_key]
    for check in checks:
        name = check.__name__.removeprefix("_")
        try:
            found += check(patient)
        except StillwatchError as e:
            found.append(Check(name, FAIL, e.message, e.hint))
        except OSError as e:
            found.append(Check(name, FAIL, f"{e.filename}: {e.strerror}", "check its owner and permissions"))
    return found


def _settings(home: Home, config: Path | None) -> tuple[Settings, Check]:
    file = config or (home.settings if home.settings.exists() else None)
    try:
        return load(file), Check("settings", OK, str(file) if file else "the defaults, there is no serve.toml")
    except UsageError as e:
        return Settings(), Check("settings", FAIL, e.message, e.hint)


def _key(home: Home, key: Path | None) -> tuple[Privacy | None, Check]:
    try:
        if key is None and os.environ.get(KEY_VARIABLE, "").strip():
            privacy = Privacy.load(None)
            return privacy, Check("key", OK, f"key {privacy.key_id}, from {KEY_VARIABLE}")
        file = key or home.privacy_key
        if key is None and not file.exists():
            if home.spool.exists():
                hint = "put the one back that the home was made with; hashes under another one join with nothing"
                return None, Check("key", FAIL, f"{file}: the key for keyed hashes is not there", hint)
            return None, Check("key", OK, "none yet: the first start makes one")
        secret_from(file)
        privacy = Privacy.load(file)
        return privacy, Check("key", OK, f"key {privacy.key_id}, from {file}")
    except UsageError as e:
        return None, Check("key", FAIL, e.message, e.hint)


def _permissions(patient: Patient) -> Iterator[Check]:
    folder = patient.home.folder
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Check("permissions", FAIL, f"{folder}: cannot be read and written", f"chown it to {os.getuid()}")
        return
    loose = [p for p in (folder, *folder.glob("keys/*")) if p.stat().st_mode & OTHERS]
    if loose:
        names = ", ".join(map(str, loose))
        yield Check("permissions", WARN, f"others may look into {names}", f"chmod go= {' '.join(map(str, loose))}")
    else:
        yield Check("permissions", OK, f"{folder} is its owner's alone")


def _disk(patient: Patient) -> Iterator[Check]:
    usage, least = shutil.disk_usage(patient.home.folder), patient.settings.disk_free_bytes
    said = f"{usage.free:,} of {usage.total:,} bytes are free"
    if usage.free < least // 10:
        yield Check("disk", FAIL, said, "free some: what comes in and the audit can soon no longer be written")
    elif usage.free < least:
        yield Check("disk", WARN, f"{said}, below disk_free_bytes = {least:,}", "free some, or lower [judge] retention")
    else:
        yield Check("disk", OK, said)


def _clock(patient: Patient) -> Iterator[Check]:
    now = time.time()
    files = [p for p in (patient.home.in_force, patient.home.audit / LOG, patient.home.state) if p.exists()]
    ahead = max((p.stat().st_mtime - now for p in files), default=0.0)
    if ahead > CLOCK_SLACK_S:
        said = f"the clock is {ahead:.0f} s behind what was written here"
        yield Check("clock", FAIL, said, "set the clock: actions begin and end by it")
    else:
        yield Check("clock", OK, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")


def _port(patient: Patient) -> Iterator[Check]:
    host, port = patient.settings.host, patient.settings.port
    if patient.home.lock.exists() and patient.home.is_held():
        yield from _answers(host, port)
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as e:
            yield Check("port", FAIL, f"{host} port {port}: {e.strerror}", "choose another host or port in serve.toml")
            return
    yield Check("port", OK, f"{host} port {port} is free; no server is running")


def _answers(host: str, port: int) -> Iterator[Check]:
    """Whether the server that has this home answers where the settings say; with TLS or without."""
    to = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    for context in (None, _trusting()):
        try:
            plain = socket.create_connection((to, port), timeout=ANSWER_S)
            with context.wrap_socket(plain) if context else plain as line:
                line.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                if line.recv(64).split(b" ")[1:2] == [b"200"]:
                    yield Check("port", OK, f"the server answers on {host} port {port}")
                    return
        except (OSError, ssl.SSLError):
            continue
    hint = "was it started with another --host or --port? if not, look at its log"
    yield Check("port", WARN, f"a server has this home, but none answers on {host} port {port}", hint)


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _policy(patient: Patient) -> Iterator[Check]:
    file = patient.home.policy
    if not file.exists():
        hint = "stillwatch policy explain shows the default one; put yours into policy.toml"
        yield Check("policy", WARN, "no policy.toml: the default policy stands in shadow, nothing is done", hint)
        return
    try:
        policy = load_policy(file)
    except UsageError as e:
        hint = "mend it: until then no rule stands, and what is in force goes on to its end"
        yield Check("policy", FAIL, str(e), hint)
        return
    live = sum(not r.shadow for r in policy.rules)
    yield Check("policy", OK, f"{file}: {len(policy.rules)} rules, {live} of them not in shadow")


def _state(patient: Patient) -> Iterator[Check]:
    place = custody.place_in(patient.home, patient.settings)
    if isinstance(place, Address):
        yield _elsewhere(place)
    else:
        yield from _database("state", place)


def _elsewhere(address: Address) -> Check:
    from stillwatch.store.postgres import examine  # noqa: PLC0415  # an extra

    seen = examine(address)
    said = f"PostgreSQL {seen.version} at {address}: {seen.bytes:,} bytes"
    if not seen.is_forced:
        hint = "set fsync and full_page_writes to on: what is said to be on disk may be lost"
        return Check("state", FAIL, f"{said}, but it does not force what it writes to disk", hint)
    if seen.missing:
        return Check("state", OK, f"{said}; the next start makes {', '.join(seen.missing)}")
    held = "a server has it" if seen.is_held else "no server has it"
    return Check("state", OK, f"{said}; {held}; a backup copies its rows, its own backups are for pg_dump")


def _spool(patient: Patient) -> Iterator[Check]:
    yield from _database("spool", patient.home.spool)
    if lost := quarantine.files(patient.home):
        hint = "each says when it came: have senders repeat that, look at the disk, then remove the files"
        yield Check("spool", WARN, f"{len(lost)} batches could not be read and lie in {lost[0].parent}", hint)


def _database(name: str, file: Path) -> Iterator[Check]:
    if not file.exists():
        yield Check(name, OK, f"no {file.name} yet: the first start makes it")
        return
    size = file.stat().st_size
    if size > QUICK_BYTES:
        yield Check(name, OK, f"{file.name}: {size:,} bytes, too many to be read whole here; a backup reads them")
    elif faults := faults_of(file, quick=True):
        hint = "stop the server and restore a backup: stillwatch restore"
        yield Check(name, FAIL, f"{file}: damaged: {faults[0]}", hint)
    else:
        yield Check(name, OK, f"{file.name}: {size:,} bytes, sound")


def _audit(patient: Patient) -> Iterator[Check]:
    folder, log = patient.home.audit, patient.home.audit / LOG
    if not log.exists() and not (folder / CHECKPOINT).exists():
        yield Check("audit", OK, "none yet: the first start begins it")
        return
    if not os.environ.get(AUDIT_VARIABLE) and not patient.home.audit_key.exists():
        hint = f"put it back, or set {AUDIT_VARIABLE}"
        yield Check("audit", FAIL, f"{patient.home.audit_key}: the key that signs the audit is not there", hint)
    key = public_key(folder)
    if log.stat().st_size > WHOLE_BYTES:
        yield _tail(folder, key)
        return
    found = verify(folder, key)
    if not found.is_sound:
        hint = "stillwatch audit verify says where; keep the folder as it is, it is evidence"
        yield Check("audit", FAIL, f"{found.faults[0]}", hint)
    elif found.remarks:
        yield Check("audit", WARN, f"{found.entries:,} entries, sound; {found.remarks[0]}", "stillwatch audit verify")
    else:
        yield Check("audit", OK, f"{found.entries:,} entries, sound, {found.signed:,} signed")


def _tail(folder: Path, key: Verifier) -> Check:
    """The last lines alone: that each follows on the one before, and that the checkpoint is ours."""
    signed = open_checkpoint((folder / CHECKPOINT).read_text(encoding="utf-8"), key).size
    with (folder / LOG).open("rb") as log:
        lines = deque((line for line in log if line.endswith(b"\n")), TAIL_LINES)
    chain: Chain | None = None
    for line in lines:
        try:
            entry = parse(line.removesuffix(b"\n"))
            faults = list(chain.faults(entry)) if chain else []
        except ValueError as e:
            faults = [str(e)]
        if faults:
            return Check("audit", FAIL, f"{folder / LOG}: {faults[0]}", "stillwatch audit verify says where")
        chain = chain or Chain()
        chain.follow(entry)
    said = f"the last {len(lines):,} entries are sound, {signed:,} are signed; stillwatch audit verify reads all"
    return Check("audit", OK, said)


def _tokens(patient: Patient) -> Iterator[Check]:
    hint = "stillwatch token new HOME NAME --role ROLE"
    place = custody.place_in(patient.home, patient.settings)
    if not _is_made(place):
        yield Check("tokens", WARN, "none yet: nobody can ask anything", hint)
        return
    now = datetime.now(UTC)
    with State(place) as state:
        held = [t for t in Access(state).tokens() if t.holds(now)]
    if not held:
        yield Check("tokens", WARN, "none holds: nobody can ask anything", hint)
        return
    soon = [t for t in held if t.expires_at - now < SOON and not any(o.replaces == t.token_id for o in held)]
    lacking = [r for r in (Role.ADMIN, Role.INGEST, Role.GATEWAY) if not any(t.role is r for t in held)]
    if soon:
        names = ", ".join(f"{t.name} ({t.role}, {t.expires_at:%Y-%m-%d})" for t in soon[:5])
        yield Check(
            "tokens", WARN, f"these end soon: {names}", "stillwatch token rotate; a gateway's that ends locks it out"
        )
    if lacking:
        yield Check("tokens", WARN, f"none with the role {', '.join(lacking)}", hint)
    if not soon and not lacking:
        yield Check("tokens", OK, f"{len(held)} hold")


def _is_made(place: Place) -> bool:
    """Whether there is a state there, of this version: opening it then changes nothing."""
    if isinstance(place, Path):
        return place.exists()
    from stillwatch.store.postgres import examine  # noqa: PLC0415  # an extra

    return not examine(place).missing


def _snapshot(patient: Patient) -> Iterator[Check]:
    if not patient.home.in_force.exists() or patient.privacy is None:
        yield Check("in force", OK, "nothing was ever told to gateways")
        return
    known = snapshot.load(patient.home.in_force, derived(patient.privacy, "in force"))
    if known.faults:
        hint = "start the server: it writes what is in force anew from the state"
        yield Check("in force", FAIL, known.faults[0], hint)
    else:
        yield Check("in force", OK, f"{len(known.table)} accounts, told {known.written_at:%Y-%m-%d %H:%M:%S} UTC")


def _judge(patient: Patient) -> Iterator[Check]:
    status = Status.read(patient.home)
    if status.status == "failed":
        yield Check(
            "judge", FAIL, status.error or "the last judgement failed", status.hint or "look at the judge's log"
        )
    elif status.judged is None:
        yield Check("judge", WARN, "nothing was judged yet", "start the server, or stillwatch judge HOME --once")
    else:
        age = datetime.now(UTC) - status.judged
        said = f"{status.status}; last judged {status.judged:%Y-%m-%d %H:%M:%S} UTC, {status.rows:,} exchanges"
        stale = patient.home.is_held() and age.total_seconds() > patient.settings.stale_after_s
        yield Check(
            "judge", WARN if stale else OK, said, "it has not judged for longer than stale_after_s" if stale else ""
        )


def _watermarks(patient: Patient) -> Iterator[Check]:
    folder, now = patient.home.watermarks, datetime.now(UTC)
    if not (folder / LOG).exists():
        yield Check("watermarks", OK, "no key was ever issued")
        return
    found = verify(folder, public_key(folder))
    if not found.is_sound:
        hint = "stillwatch audit verify HOME/watermarks says where; keep the folder as it is, it is evidence"
        yield Check("watermarks", FAIL, f"{found.faults[0]}", hint)
        return
    without: list[str] = []
    if patient.privacy is not None:
        without = unmarked(snapshot.load(patient.home.in_force, derived(patient.privacy, "in force")).table)
    if without:
        hint = "stillwatch watermark issue HOME CAMPAIGN --text FILE"
        yield Check("watermarks", WARN, f"answers are unmarked, no key for {', '.join(without[:10])}", hint)
    else:
        ledger = Ledger.read(folder)
        used = ledger.currents(now)
        yield Check("watermarks", OK, f"{len(ledger.issued)} keys, {len(used)} campaigns have one now")


def _results(patient: Patient) -> Iterator[Check]:
    result = newest.read(patient.home.results)
    if result is None:
        yield Check("results", OK, "none yet")
    else:
        yield Check("results", OK, f"{len(result.campaigns)} campaigns, {len(result.review)} for review")
