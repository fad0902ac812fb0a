"""Tokens: who is who, what each role may do, and that no secret is ever kept or shown."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import statistics
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillwatch import cli
from stillwatch.audit import Audit as AuditLog
from stillwatch.audit import entries, load_signer, public_key, verify
from stillwatch.errors import StillwatchError, Terminal, Transient, UsageError
from stillwatch.secret import Secret, secret_from
from stillwatch.serving import access as module
from stillwatch.serving.access import MACHINES, PEOPLE, RIGHTS, Access, Caller, Issued, Right, Role, meaning
from stillwatch.serving.orders import carry_out
from stillwatch.store.places import Place
from stillwatch.store.state import State
from test_actions import Paper

START = datetime(2026, 11, 26, 12, tzinfo=UTC)


@dataclass
class Clock:
    """Time that passes when told to, for both clocks."""

    now: float = 0.0
    asked: list[str] = field(default_factory=list)

    def utc(self) -> datetime:
        return START + timedelta(seconds=self.now)

    def ticks(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(place: Place) -> Iterator[State]:
    with State(place) as opened:
        yield opened


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def access(state: State, clock: Clock, paper: Paper) -> Access:
    return Access(state, clock.utc, clock.ticks, paper)


def bearer(issued: Issued) -> str:
    return f"Bearer {issued.secret.reveal()}"


def other_secret(issued: Issued) -> str:
    """The header of a token of the same id with a wrong secret."""
    text = bearer(issued)
    return text[:-1] + ("0" if text[-1] != "0" else "1")


# Rights

#                   viewer analyst approver admin | ingest gateway partner metrics
MATRIX = """
    read_summary       x      x       x       x   |   .      .       .       .
    read_campaigns     x      x       x       x   |   .      .       .       .
    read_metrics       x      x       x       x   |   .      .       .       x
    read_accounts      .      x       x       x   |   .      .       .       .
    read_actions       .      x       x       x   |   .      .       .       .
    read_policy        .      x       x       x   |   .      .       .       .
    unmask             .      x       x       x   |   .      .       .       .
    judge              .      x       x       x   |   .      .       .       .
    propose            .      x       x       x   |   .      .       .       .
    file_appeal        .      x       x       x   |   .      x       .       .
    export             .      .       x       x   |   .      .       .       .
    sign               .      .       x       x   |   .      .       .       .
    undo               .      .       x       x   |   .      .       .       .
    decide_appeal      .      .       x       x   |   .      .       .       .
    read_audit         .      .       x       x   |   .      .       .       .
    write_policy       .      .       .       x   |   .      .       .       .
    manage_tokens      .      .       .       x   |   .      .       .       .
    ingest             .      .       .       .   |   x      .       .       .
    ask_gateway        .      .       .       .   |   .      x       .       .
    read_shared        .      .       .       .   |   .      .       x       .
"""


def test_each_role_may_do_what_the_table_says_and_nothing_else() -> None:
    wanted = {}
    for name, *marks in (line.replace("|", " ").split() for line in MATRIX.strip().splitlines()):
        assert len(marks) == len(Role)
        wanted |= {(role, Right(name)): mark == "x" for role, mark in zip(Role, marks)}
    assert len(wanted) == len(Role) * len(Right)
    assert {(role, right): Caller("n", role, "id").may(right) for role in Role for right in Right} == wanted


def test_people_climb_a_ladder_and_machines_stand_beside_it() -> None:
    for lower, higher in pairwise(PEOPLE):
        assert RIGHTS[lower] < RIGHTS[higher]
    assert {*PEOPLE, *MACHINES} == set(Role) == set(RIGHTS)
    for machine in MACHINES:
        assert not RIGHTS[machine] & {Right.SIGN, Right.UNMASK, Right.MANAGE_TOKENS, Right.WRITE_POLICY, Right.EXPORT}


def test_every_right_has_a_line_of_meaning_and_somebody_who_has_it() -> None:
    assert all(len(meaning(right)) > 15 for right in Right)
    assert set().union(*RIGHTS.values()) == set(Right)
    with pytest.raises(TypeError):
        RIGHTS[Role.VIEWER] = frozenset(Right)  # type: ignore[index]


# Who


@pytest.mark.parametrize("role", Role)
def test_a_token_says_who_and_what_its_holder_is(access: Access, role: Role) -> None:
    issued = access.issue("ann", role, "root")
    assert issued.secret.reveal().startswith(f"sw_{role}_{issued.token.token_id}_")
    assert access.who(bearer(issued)) == Caller("ann", role, issued.token.token_id)
    assert access.who(f"bearer   {issued.secret.reveal()} ") == Caller("ann", role, issued.token.token_id)


def test_whatever_is_not_the_token_is_nobody(access: Access) -> None:
    issued = access.issue("ann", Role.VIEWER, "root")
    text = issued.secret.reveal()
    token_id = issued.token.token_id
    wrong = [
        None, "", "Bearer", "Bearer ", text, f"Basic {text}", f"Bearer {text}x", f"Bearer {text[:-1]}", f"Bearer {text} x",
        f"Bearer {text}\n{text}", f"Bearer {text.replace('viewer', 'admin')}", f"Bearer {text.upper()}", "Bearer sw_",
        f"Bearer {text.replace(token_id, '0' * 12)}", f"Bearer {text.replace(token_id, '')}", "Bearer " + "sw_" * 10_000,
        f"Bearer sw_viewer_{token_id}_" + "é" * 43, f"Bearer sw_viewer_{token_id}_" + "'" * 43, other_secret(issued),
    ]  # fmt: skip
    assert [access.who(header) for header in wrong] == [None] * len(wrong)
    assert access.who(bearer(issued)) is not None


@given(st.text(max_size=60), st.integers(0, 80), st.sampled_from(["", "Bearer ", "Bearer sw_admin_"]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_is_an_open_door(access: Access, text: str, cut: int, head: str) -> None:
    whole = bearer(access.issue("ann", Role.ADMIN, "root"))
    for header in (head + text, whole[:cut] + text + whole[cut:], whole[:cut]):
        assert access.who(header) is None or header.split() == whole.split()


def test_secrets_are_long_and_never_the_same(access: Access) -> None:
    made = {access.issue(f"n{n}", Role.INGEST, "root").secret.reveal().split("_")[3] for n in range(50)}
    assert len(made) == 50
    assert {len(secret) for secret in made} == {43}
    assert module._base62(b"\xff" * 32) != module._base62(b"\xff" * 31 + b"\xfe")
    assert module._base62(bytes(32)) == "0" * 43


def test_a_token_ends_when_it_expires(access: Access, clock: Clock) -> None:
    issued = access.issue("ann", Role.VIEWER, "root", timedelta(hours=1))
    assert access.who(bearer(issued)) is not None
    clock.now = 3599
    assert access.who(bearer(issued)) is not None
    clock.now = 3600
    assert access.who(bearer(issued)) is None


def test_a_revoked_token_is_nobody_at_once(access: Access, clock: Clock) -> None:
    issued, kept = access.issue("ann", Role.VIEWER, "root"), access.issue("bo", Role.VIEWER, "root")
    assert access.who(bearer(issued)) is not None
    ended = access.revoke(issued.token.token_id, "carl")
    assert (ended.revoked_at, ended.revoked_by) == (START, "carl")
    assert access.who(bearer(issued)) is None
    assert access.who(bearer(kept)) is not None
    clock.now = 50
    assert access.revoke(issued.token.token_id, "dora") == ended
    with pytest.raises(UsageError, match="no token 'none'"):
        access.revoke("none", "carl")


def test_a_revocation_by_another_process_is_seen_within_five_seconds(place: Place, clock: Clock) -> None:
    with State(place) as here, State(place) as there:
        access, other = Access(here, clock.utc, clock.ticks, Paper()), Access(there, audit=Paper())
        issued = access.issue("ann", Role.VIEWER, "root")
        assert access.who(bearer(issued)) is not None
        other.revoke(issued.token.token_id, "carl")
        clock.now = 5.0
        assert access.who(bearer(issued)) is None
        assert access.who(bearer(other.issue("bo", Role.ADMIN, "root"))) is not None, "a new one is known at once"


def test_answers_come_from_memory_after_the_first_time(
    access: Access, state: State, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = access.issue("ann", Role.VIEWER, "root")
    asked: list[str] = []
    plain = State.execute
    monkeypatch.setattr(State, "execute", lambda s, sql, *v: asked.append(sql) or plain(s, sql, *v))
    assert access.who(bearer(issued)) is not None
    asked.clear()
    for _ in range(100):
        assert access.who(bearer(issued)) is not None
        assert access.who(other_secret(issued)) is None
    assert asked == []
    clock.now = 4.5
    assert access.who(bearer(issued)) is not None
    assert len(asked) == 1


def test_memory_is_bounded(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN", 5)
    many = [access.issue(f"n{n}", Role.INGEST, "root") for n in range(12)]
    for _ in range(2):
        assert all(access.who(bearer(issued)) for issued in many)
        assert len(access._known) <= 5
    for n in range(50):
        assert access.who(f"Bearer sw_admin_{n:012x}_" + "a" * 43) is None
    assert len(access._failures) <= 5


def test_a_state_that_cannot_be_read_is_an_error_and_no_answer(access: Access, state: State, clock: Clock) -> None:
    issued = access.issue("ann", Role.ADMIN, "root")
    assert access.who(bearer(issued)) is not None
    clock.now = 10
    state.execute("ALTER TABLE tokens RENAME TO elsewhere")
    with pytest.raises(StillwatchError):
        access.who(bearer(issued))
    state.execute("ALTER TABLE elsewhere RENAME TO tokens")
    assert access.who(bearer(issued)) is not None


def test_a_row_that_was_tampered_with_opens_nothing(access: Access, state: State, clock: Clock) -> None:
    weak, strong = access.issue("ann", Role.VIEWER, "root"), access.issue("bo", Role.ADMIN, "root")
    state.execute("UPDATE tokens SET role = 'admin' WHERE token_id = ?", weak.token.token_id)
    assert access.who(bearer(weak)) is None
    state.execute("UPDATE tokens SET role = 'emperor' WHERE token_id = ?", weak.token.token_id)
    clock.now += 5
    assert access.who(bearer(weak)) is None
    mine = state.execute("SELECT digest FROM tokens WHERE token_id = ?", weak.token.token_id)[0]["digest"]
    state.execute("UPDATE tokens SET digest = ? WHERE token_id = ?", mine, strong.token.token_id)
    text = weak.secret.reveal().replace(weak.token.token_id, strong.token.token_id).replace("viewer", "admin")
    assert access.who(f"Bearer {text}") is None
    with pytest.raises(Terminal, match="damaged"):
        access.tokens()


# Guessing


def test_guesses_wait_longer_and_longer(access: Access, clock: Clock) -> None:
    issued = access.issue("ann", Role.VIEWER, "root")
    for _ in range(module.FREE_FAILURES):
        assert access.who(other_secret(issued)) is None
    assert access.who(bearer(issued)) is None, "even the right one waits, where it was not seen before"
    clock.now += 1.1
    assert access.who(other_secret(issued)) is None
    clock.now += 1.1
    assert access.who(bearer(issued)) is None
    clock.now += 1.0
    assert access.who(bearer(issued)) is not None
    assert access.who(other_secret(issued)) is None
    assert access.who(bearer(issued)) is not None
    assert not access._failures, "who is let in begins afresh"


def test_nobody_is_locked_out_by_strangers_who_know_an_id(access: Access, clock: Clock) -> None:
    issued = access.issue("litellm", Role.GATEWAY, "root")
    assert access.who(bearer(issued)) is not None
    for _ in range(100):
        assert access.who(other_secret(issued)) is None
    assert access.who(bearer(issued)) is not None
    clock.now += 5
    assert access.who(bearer(issued)) is not None


def test_a_wait_is_bounded_and_forgotten(access: Access, clock: Clock) -> None:
    issued = access.issue("ann", Role.VIEWER, "root")
    for _ in range(50):
        access.who(other_secret(issued))
        clock.now += module.LONGEST_WAIT_S
    assert access.who(bearer(issued)) is not None
    other = access.issue("bo", Role.VIEWER, "root")
    for _ in range(module.FREE_FAILURES - 1):
        access.who(other_secret(other))
    clock.now += module.FORGET_S + 1
    access.who(other_secret(other))
    assert access.who(bearer(other)) is not None


def test_a_wrong_secret_takes_as_long_as_an_unknown_id(access: Access) -> None:
    """Both hash and compare once; held against each other loosely, for a shared machine."""
    issued = access.issue("ann", Role.VIEWER, "root")
    access.who(bearer(issued))
    unknown = bearer(issued).replace(issued.token.token_id, "0" * 12)

    def median_s(header: str) -> float:
        times = []
        for _ in range(200):
            began = time.perf_counter()
            access.who(header)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    median_s(unknown)
    assert median_s(other_secret(issued)) < 20 * median_s(bearer(issued))
    compared: list[tuple[bytes, bytes]] = []
    plain = module.hmac.compare_digest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or plain(a, b))
        access._failures.clear()
        access.who(unknown)
        access.who(other_secret(issued))
    assert [(len(a), len(b)) for a, b in compared] == [(32, 32), (32, 32)]


# Use, rotation


def test_the_last_use_is_written_at_most_once_a_minute(access: Access, state: State, clock: Clock) -> None:
    issued = access.issue("ann", Role.VIEWER, "root")
    assert access.tokens()[0].last_used_at is None
    seen = []
    for now in (0, 1, 30, 59, 61, 62, 130):
        clock.now = now
        access.who(bearer(issued))
        seen.append((access.tokens()[0].last_used_at - START).total_seconds())
    assert seen == [0, 0, 0, 0, 61, 61, 130]
    clock.now = 140
    access.who(bearer(issued))
    access.write_uses()
    assert access.tokens()[0].last_used_at == clock.utc()
    access.who(other_secret(issued))
    access.write_uses()
    assert access.tokens()[0].last_used_at == clock.utc()


def test_a_busy_state_keeps_nobody_waiting(place: Place, access: Access, clock: Clock) -> None:
    issued = access.issue("ann", Role.VIEWER, "root")
    with State(place) as writer, writer.transaction():
        began = time.perf_counter()
        assert access.who(bearer(issued)) is not None
        assert time.perf_counter() - began < 1
    assert access.tokens()[0].last_used_at is None
    clock.now = 61
    access.who(bearer(issued))
    assert access.tokens()[0].last_used_at == clock.utc()


def test_a_rotated_token_lives_on_for_its_grace(access: Access, clock: Clock) -> None:
    old = access.issue("litellm", Role.GATEWAY, "root", timedelta(days=30))
    clock.now = 86_400
    fresh = access.rotate(old.token.token_id, "ann", timedelta(hours=1))
    assert (fresh.token.name, fresh.token.role, fresh.token.replaces) == ("litellm", Role.GATEWAY, old.token.token_id)
    assert fresh.token.expires_at - fresh.token.created_at == timedelta(days=30)
    assert access.who(bearer(old)) == Caller("litellm", Role.GATEWAY, old.token.token_id)
    assert access.who(bearer(fresh)) is not None
    clock.now += 3600
    assert access.who(bearer(old)) is None
    assert access.who(bearer(fresh)) is not None
    with pytest.raises(UsageError, match="expired"):
        access.rotate(old.token.token_id, "ann")
    third = access.rotate(fresh.token.token_id, "ann", timedelta(0))
    assert access.who(bearer(fresh)) is None
    assert access.who(bearer(third)) is not None
    assert [t.token_id for t in access.tokens()] == [i.token.token_id for i in (old, fresh, third)]


def test_rotation_never_lengthens_a_life(access: Access) -> None:
    old = access.issue("x", Role.GATEWAY, "root", timedelta(minutes=1))
    access.rotate(old.token.token_id, "ann", timedelta(days=9))
    assert access.tokens()[0].expires_at == old.token.expires_at


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 65, " ann", "\u202eann"])
def test_names_that_could_mislead_are_refused(access: Access, name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        access.issue(name, Role.VIEWER, "root")
    assert access.tokens() == []


def test_a_lifetime_is_never_negative_or_without_end(access: Access) -> None:
    for lifetime in (timedelta(days=-1), timedelta.max):
        with pytest.raises(UsageError):
            access.issue("ann", Role.VIEWER, "root", lifetime)


# Nothing shows


def test_no_secret_lies_in_the_state_or_comes_out_of_it(access: Access, state: State, place: Place) -> None:
    issued = [access.issue(f"n{n}", role, "root") for n, role in enumerate(Role)]
    issued.append(access.rotate(issued[0].token.token_id, "ann"))
    for one in issued:
        access.who(bearer(one))
    access.revoke(issued[1].token.token_id, "ann")
    shown = repr(access.tokens()) + json.dumps([t.to_dict() for t in access.tokens()]) + repr(issued) + repr(access)
    shown += repr(vars(access)) + str(access.who(bearer(issued[2])))
    stored = repr(state.execute("SELECT * FROM tokens")).encode()
    if isinstance(place, Path):
        state.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        stored = b"".join(p.read_bytes() for p in place.parent.glob("state.db*"))
    assert issued[0].token.token_id.encode() in stored
    for one in issued:
        secret = one.secret.reveal().split("_")[3]
        assert secret not in shown
        assert secret.encode() not in stored


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret("canary-in-the-mine")
    stream = io.StringIO()
    logger = logging.Logger("t")
    logger.addHandler(logging.StreamHandler(stream))
    logger.warning("%s %r", secret, secret)
    logger.warning("%s", {"deep": [secret, Issued.__name__]})
    said = [stream.getvalue(), f"{secret}", f"{secret:>40}", str([secret]), repr(secret), str(vars(Secret).keys())]
    try:
        raise ValueError(secret)
    except ValueError as e:
        said.append("".join(traceback.TracebackException.from_exception(e, capture_locals=True).format()))
    assert not any("canary-in-the-mine" in text for text in said)
    for leak in (pickle.dumps, copy.deepcopy, json.dumps, hash):
        with pytest.raises(TypeError):
            leak(secret)
    assert secret == Secret("canary-in-the-mine")
    assert secret != Secret("canary")
    assert secret != "canary-in-the-mine"
    assert secret.reveal() == "canary-in-the-mine"
    assert not Secret("")


def test_a_secret_is_read_from_a_file_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_text("  of the file\n")
    path.chmod(0o600)
    monkeypatch.setenv("SOME_SECRET", "of the environment")
    assert secret_from(path, "SOME_SECRET").reveal() == "of the file"
    assert secret_from(None, "SOME_SECRET").reveal() == "of the environment"


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602, 0o666])
def test_a_secret_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text("canary")
    path.chmod(mode)
    with pytest.raises(UsageError, match="chmod 600") as e:
        secret_from(path)
    assert "canary" not in str(e.value)
    path.chmod(0o640)
    assert secret_from(path).reveal() == "canary"


def test_a_missing_or_empty_secret_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SECRET", raising=False)
    (tmp_path / "empty").touch(0o600)
    (tmp_path / "bytes").write_bytes(b"\xff\xfecanary")
    (tmp_path / "bytes").chmod(0o600)
    wanted: list[tuple[Callable[[], object], str]] = [
        (lambda: secret_from(None, "NO_SECRET"), "NO_SECRET"),
        (lambda: secret_from(tmp_path / "none"), "none: the secret cannot be read"),
        (lambda: secret_from(tmp_path / "empty"), "empty: there is no secret"),
        (lambda: secret_from(tmp_path / "bytes"), "bytes: the secret is not UTF-8"),
        (lambda: secret_from(tmp_path), "cannot be read"),
    ]
    for read, message in wanted:
        with pytest.raises(UsageError, match=message) as e:
            read()
        assert "canary" not in str(e.value) + repr(e.value.__cause__)


def test_tokens_may_be_made_while_others_ask(place: Place) -> None:
    """Two processes' worth of states on one place: no error, nobody lost."""
    path, errors, made = place, list[BaseException](), list[Issued]()
    State(path).close()

    def make() -> None:
        try:
            with State(path) as state:
                made.extend(Access(state, audit=Paper()).issue(f"n{n}", Role.INGEST, "root") for n in range(20))
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    with State(path) as state:
        access = Access(state)
        while any(t.is_alive() for t in threads):
            assert all(access.who(bearer(issued)) for issued in list(made)[-3:])
        for thread in threads:
            thread.join()
        assert not errors
        assert len(access.tokens()) == 40
        assert all(access.who(bearer(issued)) for issued in made)


# The commands


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def run(capsys: pytest.CaptureFixture[str], *tokens: str) -> tuple[int, str, str]:
    code = cli.main(["token", *tokens])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_token_is_made_listed_and_revoked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "new", str(home), "ann", "--role", "analyst", "--expires", "2h")
    text = out.strip()
    assert code == 0
    assert text not in err
    with State(home / "state.db") as state:
        caller = Access(state).who(f"Bearer {text}")
    assert caller is not None
    assert (caller.name, caller.role) == ("ann", Role.ANALYST)
    code, out, _ = run(capsys, "list", str(home))
    assert caller.token_id in out
    assert "ann" in out
    assert text.split("_")[3] not in out
    code, out, _ = run(capsys, "list", str(home), "--json")
    (listed,) = json.loads(out)
    assert (listed["token_id"], listed["role"], listed["revoked_at"]) == (caller.token_id, "analyst", None)
    assert listed["created_by"].startswith("cli:")
    assert run(capsys, "revoke", str(home), caller.token_id)[0] == 0
    with State(home / "state.db") as state:
        assert Access(state).who(f"Bearer {text}") is None
    assert "revoked" in run(capsys, "list", str(home))[1]


def test_a_token_is_rotated_by_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = json.loads(run(capsys, "new", str(home), "litellm", "--role", "gateway", "--json")[1])
    fresh = json.loads(run(capsys, "rotate", str(home), old["token_id"], "--grace", "1h", "--json")[1])
    assert (fresh["name"], fresh["replaces"]) == ("litellm", old["token_id"])
    with State(home / "state.db") as state:
        assert all(Access(state).who(f"Bearer {t['token']}") for t in (old, fresh))


def test_wrong_uses_of_the_command_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for tokens, said in (
        (["new", str(home), "ann", "--role", "god"], "no role is called 'god'"),
        (["new", str(home), "ann", "--role", "admin", "--expires", "soon"], "'soon'"),
        (["new", str(home), "a\tb", "--role", "admin"], "name"),
        (["new", str(home / "none"), "ann", "--role", "admin"], "no such folder"),
        (["revoke", str(home), "f" * 12], "no token"),
    ):
        code, out, err = run(capsys, *tokens)
        assert (code, out) == (2, "")
        assert said in err


def test_the_command_writes_to_the_audit_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = home / "keys" / "audit.key"
    code, out, err = run(capsys, "new", str(home), "ann", "--role", "admin")
    assert (code, "audit" in err) == (0, False)
    token_id = out.split("_")[2]
    fresh = json.loads(run(capsys, "rotate", str(home), token_id, "--json")[1])["token_id"]
    assert run(capsys, "revoke", str(home), fresh)[0] == 0
    found = [(e.deed.event, e.deed.subject, e.deed.role, e.deed.facts.get("token")) for e in entries(home / "audit")]
    assert found == [
        ("token.issue", "ann", "admin", token_id), ("token.rotate", token_id, "admin", fresh),
        ("token.revoke", fresh, "admin", None),
    ]  # fmt: skip
    assert verify(home / "audit", public_key(home / "audit")).is_sound
    key.unlink()
    code, out, err = run(capsys, "new", str(home), "carl", "--role", "admin")
    assert (code, out) == (2, "")
    assert "the key that signs the audit" in err
    assert not key.exists()
    with State(home / "state.db") as state:
        assert [t.name for t in Access(state).tokens()] == ["ann", "ann"]


def test_where_the_audit_is_held_and_nobody_answers_no_token_is_made(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillwatch.serving.office.WITHIN_S", 0.2)
    (home / "serve.toml").write_text("loop_every_s = 0.05\n")
    with AuditLog(home / "audit", load_signer(home / "keys" / "audit.key")):
        code, out, err = run(capsys, "new", str(home), "ann", "--role", "admin")
    assert (code, out) == (5, "")
    assert "nothing was done" in err
    with State(home / "state.db") as state:
        assert Access(state).tokens() == []
        assert [o["outcome"] for o in state.execute("SELECT outcome FROM token_orders")] == ["withdrawn"]
        assert carry_out(Access(state, audit=Paper()), state, datetime.now(UTC)) == 0
    assert list(entries(home / "audit")) == []


# The audit first


def test_no_token_holds_that_is_not_in_the_audit(access: Access, state: State, paper: Paper) -> None:
    issued = access.issue("ann", Role.VIEWER, "root")
    before = state.execute("SELECT * FROM tokens")
    paper.is_full = True
    for making in (
        lambda: access.issue("bo", Role.ADMIN, "root"),
        lambda: access.rotate(issued.token.token_id, "root"),
        lambda: access.revoke(issued.token.token_id, "root"),
    ):
        with pytest.raises(Transient, match="audit is full"):
            making()
        with pytest.raises(Terminal, match="for reading alone"):
            Access(state).issue("bo", Role.ADMIN, "root")
    assert state.execute("SELECT * FROM tokens") == before
    paper.is_full = False
    access.revoke(issued.token.token_id, "root")
    access.revoke(issued.token.token_id, "root")
    assert [(event, who, role) for event, who, role, _, _ in paper.entries] == [
        ("token.issue", "root", "admin"), ("token.revoke", "root", "admin"),
    ]  # fmt: skip
