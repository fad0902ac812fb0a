"""A home whose state is in PostgreSQL: moved there and back, backed up, looked at, and never taken for another one's."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures_gateways import wait_for
from fixtures_state import Server
from stillwatch import cli
from stillwatch.actions import Actions
from stillwatch.audit import Audit, entries, load_signer, public_key, verify
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.serving import audit_key
from stillwatch.serving.access import Access, Role
from stillwatch.serving.audit_key import change
from stillwatch.serving.backup import backup, restore
from stillwatch.serving.home import Home
from stillwatch.serving.office import open_office
from stillwatch.serving.rounds import Loop
from stillwatch.serving.services import Services, opened
from stillwatch.serving.settings import Settings
from stillwatch.serving.settings import load as load_settings
from stillwatch.store.moves import NAMED, NUMBERED, copy_state
from stillwatch.store.places import PASSWORD_VARIABLE, VARIABLE, Address, Place
from stillwatch.store.state import Judgement, State
from stillwatch.types import Rung, Standing
from test_actions import START, action
from test_serve_cli import Running, started

NOW = datetime.now(UTC)


@pytest.fixture
def address(postgres: Server) -> Address:
    return postgres.address()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").made()


def settings(address: Address) -> str:
    return f'state = "{address.url}&schema={address.schema}"\n'


@contextmanager
def audit_of(home: Home) -> Iterator[Audit]:
    with Audit(home.audit, load_signer(home.audit_key)) as audit:
        yield audit


def fill(state: State, audit: Any) -> None:
    """Some of everything that people and rules make, in every standing."""
    clock = lambda: START
    actions = Actions(state, audit, clock=clock, bulk_suspend=1)
    actions.propose([
        action(0), action(1, "b", needed=1), action(2, "c", Rung.SUSPEND), action(3, "d", Rung.SUSPEND), action(4, "e"),
        action(5, "f", standing=Standing.SHADOW), action(6, "g", needed=1), action(7, "h", starts_at=START + timedelta(days=1)),
    ])  # fmt: skip
    actions.sign(["A-2"], "ann")
    actions.sign(["A-2", "A-3"], "bob")
    actions.refuse(["A-6"], "ann", "no")
    actions.start_due(START)
    actions.undo(["A-4"], "ann", "a mistake")
    case = actions.appeal("c")
    actions.decide_appeal(case, "eve", "overturned", "it was a class")
    actions.appeal("a")
    state.judge(Judgement("c1", "positive", "ann", "cards; ünïcode 'quoted'", NOW))
    access = Access(state, audit=audit)
    first = access.issue("ann", Role.ADMIN, "root")
    access.rotate(first.token.token_id, "root")
    state.end_run(state.begin_run("scan", "in", "out", "1"), 0)
    state.begin_run("scan", "in", "out", "1")


def contents(state: State) -> dict[str, list[dict[str, Any]]]:
    def rows(table: str) -> list[dict[str, Any]]:
        found = state.execute(f"SELECT * FROM {table} ORDER BY {'rowid' if table in NAMED else 'number'}")
        return [{n: v for n, v in row.items() if n != "rowid"} for row in found]

    return {table: rows(table) for table in (*NAMED, *NUMBERED)}


# Copies


def test_a_copy_has_every_table_of_a_state(tmp_path: Path) -> None:
    with State(tmp_path / "s.db") as state:
        tables = {r["name"] for r in state.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables - {"migrations"} == {*NAMED, *NUMBERED}


def test_a_copy_there_and_back_is_the_same_and_goes_on(tmp_path: Path, home: Home, address: Address) -> None:
    with (
        State(tmp_path / "a.db") as one,
        State(address) as two,
        State(tmp_path / "b.db") as three,
        audit_of(home) as audit,
    ):
        fill(one, audit)
        standings = {a["standing"] for a in contents(one)["actions"]}
        assert standings == {"in_force", "pending", "shadow", "due", "undone", "refused"}
        rows = copy_state(one, two)
        assert copy_state(two, three) == rows
        assert contents(one) == contents(two) == contents(three)
        assert rows == sum(map(len, contents(one).values()))
        with pytest.raises(UsageError, match="something in it"):
            copy_state(one, two)
        Actions(two, audit).propose([action(50)])
        two.judge(Judgement("c2", "unsure", "ann", "", NOW))
        assert [a["number"] for a in contents(two)["actions"]] == [*range(1, 9), 9]


def test_a_copy_that_fails_leaves_the_target_empty(tmp_path: Path, home: Home, address: Address) -> None:
    with State(tmp_path / "a.db") as one, State(address) as two, audit_of(home) as audit:
        fill(one, audit)
        # Something that cannot have come about: in force without the signature that it needs.
        one.execute("DROP TRIGGER actions_need_signatures")
        one.execute("UPDATE actions SET standing = 'in_force' WHERE action_id = 'A-1'")
        with pytest.raises(Terminal, match="enough people"):
            copy_state(one, two)
        assert not any(contents(two).values())


# Moves


def test_a_state_is_moved_to_the_database_and_back(
    home: Home, address: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    with audit_of(home) as audit, State(home.state) as state:
        fill(state, audit)
        before = contents(state)
    home.settings.write_text(settings(address))
    with pytest.raises(UsageError, match="which is meant"), opened(home, load(home), judge=False):
        pytest.fail("it was begun anew")
    assert cli.main(["state", "move", str(home.folder)]) == 0
    assert "rows from state.db" in capsys.readouterr().out
    assert not home.state.exists() and len(list(home.folder.glob("state.db.moved-*"))) == 1
    with opened(home, load(home), judge=False) as services:
        assert len(services.door.do_now(Access.tokens)) == 2
        assert services.clerk.do_now(lambda desk: len(desk.actions.standing(Standing.IN_FORCE))) == 1
    with State(address) as state:
        after = contents(state)
        assert {**after, "holders": []} == before and len(after["holders"]) == 1

    home.settings.unlink()
    with pytest.raises(UsageError, match="its state is in PostgreSQL"), opened(home, Settings(), judge=False):
        pytest.fail("it was begun anew")
    assert cli.main(["token", "list", str(home.folder)]) == 2
    assert "its state is in PostgreSQL" in capsys.readouterr().err
    home.settings.write_text(settings(address))
    assert cli.main(["state", "move", str(home.folder), "--back"]) == 0
    home.settings.unlink()
    with opened(home, Settings(), judge=False) as services:
        assert len(services.door.do_now(Access.tokens)) == 2
    with State(home.state) as state:
        assert contents(state) == after
    events = [e.deed.event for e in entries(home.audit)]
    assert events.count("state.moved") == 2


def load(home: Home) -> Settings:
    return load_settings(home.settings if home.settings.exists() else None)


def test_a_move_asks_for_a_database_and_an_empty_one(
    home: Home, address: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    with audit_of(home) as audit, State(home.state) as state:
        fill(state, audit)
    assert cli.main(["state", "move", str(home.folder)]) == 2
    assert "name no database" in capsys.readouterr().err
    home.settings.write_text(settings(address))
    with State(address) as state:
        state.judge(Judgement("c", "unsure", "ann", "", NOW))
    assert cli.main(["state", "move", str(home.folder)]) == 2
    assert "something in it already" in capsys.readouterr().err
    assert home.state.exists()


# Whose it is


def test_a_second_server_is_refused_while_one_has_the_state(tmp_path: Path, home: Home, address: Address) -> None:
    other = Home(tmp_path / "other").made()
    told = Settings(state=f"{address.url}&schema={address.schema}")
    with (
        opened(home, told, judge=False),
        pytest.raises(Transient, match="another server"),
        opened(other, told, judge=False),
    ):
        pytest.fail("two servers")
    with pytest.raises(Terminal, match="another audit"), opened(other, told, judge=False):
        pytest.fail("another audit")
    with opened(home, told, judge=False):
        pass


def test_an_old_copy_of_the_audit_is_refused_and_another_one_only_adopted(
    tmp_path: Path, home: Home, address: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    home.settings.write_text(settings(address))
    with opened(home, load(home), judge=False):
        pass
    old = backup(home, tmp_path / "b.tar.gz").file
    with audit_of(home) as audit, State(address) as state:
        Actions(state, audit).propose([action(0)])
    early = Home(tmp_path / "early")
    restore(old, early)
    early.state.unlink()
    (early.folder / "keys").mkdir()
    early.audit_key.write_bytes(home.audit_key.read_bytes())
    early.audit_key.chmod(0o600)
    said = "speaks of entry 0 of the audit, but the audit here has 0"
    with pytest.raises(Terminal, match=said), opened(early, load(home), judge=False):
        pytest.fail("an old audit")

    other = Home(tmp_path / "other").made()
    other.settings.write_text(settings(address))
    assert cli.main(["state", "adopt", str(other.folder), "--reason", "the disk is gone"]) == 0
    with opened(other, load(other), judge=False) as services:
        services.clerk.do_now(lambda desk: desk.actions.propose([action(1)]))
    with opened(other, load(other), judge=False):
        pass
    (adopted, *_) = entries(other.audit)
    assert adopted.deed.event == "state.adopted" and adopted.deed.facts["reason"] == "the disk is gone"
    with pytest.raises(Terminal, match="another audit"), opened(home, load(home), judge=False):
        pytest.fail("it is no longer this home's")


def test_an_empty_database_is_not_taken_for_the_state_there_was(home: Home, postgres: Server, address: Address) -> None:
    home.settings.write_text(settings(address))
    with opened(home, load(home), judge=False):
        pass
    home.settings.write_text(settings(postgres.address()))
    with (
        pytest.raises(UsageError, match="is empty, but this home's state was at"),
        opened(home, load(home), judge=False),
    ):
        pytest.fail("it was begun anew")


@pytest.fixture
def bound(home: Home, place: Place) -> Home:
    """A home with an action in force, whose state is in either store."""
    if isinstance(place, Address):
        home.settings.write_text(settings(place))
    propose(home, 0)
    return home


def propose(home: Home, n: int) -> None:
    with opened(home, load(home), judge=False) as services:
        services.clerk.do_now(lambda desk: desk.actions.propose([action(n, f"account {n}")]))


def copied(home: Home, to: Path) -> Home:
    """A home as it is now, elsewhere, which knows of the same database."""
    shutil.copytree(home.folder, to)
    return Home(to)


def test_a_state_follows_its_audit_from_key_to_key(bound: Home, place: Place) -> None:
    keys = [public_key(bound.audit)]
    for n in (1, 2):
        assert cli.main(["audit", "rotate", str(bound.folder)]) == 0
        keys.append(public_key(bound.audit))
        propose(bound, n)
    assert len(set(map(str, keys))) == 3 and all(verify(bound.audit, key).is_sound for key in keys)
    with State(place if isinstance(place, Address) else bound.state) as state:
        assert len(state.execute("SELECT * FROM actions")) == 3
        held = [(r["audit"], r["after_event"]) for r in state.execute("SELECT * FROM holders ORDER BY number")]
    # A state in a file is bound to nothing but its home; one in a database still knows which entries it spoke of before.
    assert held == ([(str(key), 0) for key in keys] if isinstance(place, Address) else [])


def test_a_copy_with_the_old_key_is_another_audit_once_the_key_was_changed(
    home: Home, address: Address, tmp_path: Path
) -> None:
    home.settings.write_text(settings(address))
    propose(home, 0)
    copy = copied(home, tmp_path / "copy")
    change(home, "ann")
    # Nothing was done since by which the copy's audit could be known for an old one, but the key.
    with pytest.raises(Terminal, match="another audit"), opened(copy, load(copy), judge=False):
        pytest.fail("two audits")
    with pytest.raises(Terminal, match="another audit"):
        change(copy, "bob")
    assert public_key(copy.audit) != public_key(home.audit)
    assert (
        verify(copy.audit, public_key(copy.audit)).is_sound and not copy.audit_key.with_name("audit.key.next").exists()
    )
    # The log since the change is still told by its length.
    late = copied(home, tmp_path / "late")
    propose(home, 1)
    with pytest.raises(Terminal, match="speaks of entry"), opened(late, load(late), judge=False):
        pytest.fail("an old copy")
    propose(home, 2)


def test_a_key_is_not_changed_while_a_server_elsewhere_has_the_state(
    home: Home, address: Address, postgres: Server, tmp_path: Path
) -> None:
    home.settings.write_text(settings(address))
    propose(home, 0)
    copy, before = copied(home, tmp_path / "copy"), public_key(home.audit)
    with opened(copy, load(copy), judge=False), pytest.raises(Transient, match="another server"):
        change(home, "ann")
    postgres.stop()
    try:
        assert cli.main(["audit", "rotate", str(home.folder)]) == 5
    finally:
        postgres.start()
    assert public_key(home.audit) == before and not home.audit_key.with_name("audit.key.next").exists()


def test_a_state_that_is_away_when_the_key_has_changed_follows_at_the_next_start(
    home: Home, address: Address, postgres: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.settings.write_text(settings(address))
    propose(home, 0)
    plain = audit_key._put_in_place

    def put_in_place(new: Path, key: Path) -> None:
        plain(new, key)
        postgres.stop()

    monkeypatch.setattr(audit_key, "_put_in_place", put_in_place)
    try:
        assert cli.main(["audit", "rotate", str(home.folder)]) == 0
    finally:
        postgres.start()
    assert "learns of the new key at the server's next start" in capsys.readouterr().err
    with State(address) as state:
        assert len(state.execute("SELECT * FROM holders")) == 1
    propose(home, 1)
    with State(address) as state:
        assert state.execute("SELECT audit FROM holders ORDER BY number")[-1]["audit"] == str(public_key(home.audit))


# What a server does


def is_let_in(services: Services, token: str) -> bool:
    return asyncio.run(services.door.who(f"Bearer {token}", is_gateway=True)) is not None


def test_what_is_in_force_outlives_the_database_and_is_found_again(
    home: Home, address: Address, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillwatch.store.postgres.RETRY_S", 0.0)
    home.settings.write_text(settings(address) + "loop_every_s = 0.1\n")
    with opened(home, load(home), judge=False) as services:
        at = datetime.now(UTC)
        made = action(0, proposed_at=at, starts_at=at, expires_at=at + timedelta(days=1))
        services.clerk.do_now(lambda desk: desk.actions.propose([made]))
        loop = Loop(services)
        assert asyncio.run(loop.round()).found == {}
        token = services.door.do_now(Access.issue, "litellm", Role.GATEWAY, "root").secret.reveal()
        assert is_let_in(services, token)

        postgres.stop()
        try:
            assert set(asyncio.run(loop.round()).found) >= {"table", "expire"}
            assert "loop_failing" in services.alarms
            assert services.decisions.ask("a", "", "", datetime.now(UTC)).rung is Rung.THROTTLE
            monkeypatch.setattr("stillwatch.serving.door.FRESH_S", -1.0)
            monkeypatch.setattr("stillwatch.serving.door.RENEW_S", -1.0)
            assert is_let_in(services, token)
        finally:
            postgres.start()
        assert asyncio.run(loop.round()).found == {}
        assert "loop_failing" not in services.alarms
    with opened(home, load(home), judge=False) as services:
        assert services.decisions.ask("a", "", "", datetime.now(UTC)).rung is Rung.THROTTLE


def test_tokens_are_made_beside_a_server_by_the_server(
    home: Home, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio
    import threading

    from stillwatch.serving.rounds import Loop

    home.settings.write_text(settings(address) + "loop_every_s = 0.05\n")
    with open_office(home, None, "cli:ann") as office:
        assert office.audited
        office.issue("before", Role.INGEST, timedelta(days=1))
    with opened(home, load(home), judge=False) as services:
        stop = threading.Event()

        def rounds() -> None:
            loop = Loop(services)
            while not stop.wait(0.02):
                asyncio.run(loop.round())

        running = threading.Thread(target=rounds)
        running.start()
        try:
            with open_office(home, None, "cli:ann") as office:
                assert not office.audited
                issued = office.issue("beside", Role.INGEST, timedelta(days=1))
        finally:
            stop.set()
            running.join()
        assert asyncio.run(services.door.who(f"Bearer {issued.secret.reveal()}")).name == "beside"
    assert [(e.deed.event, e.deed.who, e.deed.subject) for e in entries(home.audit)] == [
        ("token.issue", "cli:ann", "before"), ("token.issue", "cli:ann", "beside"),
    ]  # fmt: skip


@pytest.mark.slow
def test_of_two_real_servers_one_has_the_state_and_what_was_in_force_outlives_a_kill(
    home: Home, address: Address, tmp_path: Path
) -> None:
    """In processes of their own: the second is refused, the first is killed, and comes back to the same actions."""
    home.settings.write_text(settings(address) + "loop_every_s = 0.1\n")
    first = started(home.folder)
    try:
        gateway, analyst, approver = (first.token(r) for r in (Role.GATEWAY, Role.ANALYST, Role.APPROVER))
        wish = {"accounts": ["acme"], "rung": "throttle", "reason": "a ring"}
        (made,) = httpx.post(f"{first.url}/api/actions", json=wish, headers=analyst, timeout=60).json()["proposed"]
        signed = {"actions": [made["action_id"]]}
        assert httpx.post(f"{first.url}/api/actions/sign", json=signed, headers=approver, timeout=60).is_success

        def rung(server: Running) -> Any:
            asked = f"{server.url}/v1/in-force?account=acme"
            return httpx.get(asked, headers=gateway, timeout=60).json()["rung"]

        wait_for(lambda: rung(first) == "throttle", 60)
        other = Home(tmp_path / "other").made()
        other.settings.write_text(settings(address))
        command = [sys.executable, "-m", "stillwatch", "serve", str(other.folder), "--port", "0"]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert refused.returncode == 5 and "another server has this state" in refused.stderr
        assert rung(first) == "throttle"
    finally:
        first.process.kill()
        first.process.communicate()
    again = started(home.folder)
    try:
        assert rung(again) == "throttle"
        with State(address) as state:
            assert Actions(state, None).in_force(datetime.now(UTC))["acme"].action_id == made["action_id"]
    finally:
        assert again.end() == 0
    assert verify(home.audit, public_key(home.audit)).is_sound
    events = [e.deed.event for e in entries(home.audit)]
    assert events.count("token.issue") == 3 and events.count("action.in_force") == 1


# Backups and the doctor


def test_a_backup_holds_a_copy_that_is_moved_into_an_empty_database(
    tmp_path: Path, home: Home, address: Address, postgres: Server
) -> None:
    home.settings.write_text(settings(address))
    with opened(home, load(home), judge=False) as services:
        services.clerk.do_now(lambda desk: fill(desk.state, services.audit))
        made = backup(home, tmp_path / "b.tar.zst")
    with State(address) as state:
        before = contents(state)
    again = Home(tmp_path / "again")
    assert restore(made.file, again).files == made.files
    (again.folder / "keys").mkdir()
    again.audit_key.write_bytes(home.audit_key.read_bytes())
    again.audit_key.chmod(0o600)
    with State(again.state) as state:
        assert contents(state) == before
    with pytest.raises(UsageError, match="which is meant"), opened(again, load(again), judge=False):
        pytest.fail("two states")
    fresh = postgres.address()
    again.settings.write_text(settings(fresh))
    assert cli.main(["state", "move", str(again.folder)]) == 0
    with opened(again, load(again), judge=False) as services:
        assert services.clerk.do_now(lambda desk: contents(desk.state))["actions"] == before["actions"]


def checks(home: Home, capsys: pytest.CaptureFixture[str], name: str) -> list[str]:
    cli.main(["doctor", str(home.folder), "--json"])
    return [f"{c['level']}: {c['said']}" for c in json.loads(capsys.readouterr().out) if c["check"] == name]


def test_the_doctor_looks_at_the_database_and_changes_nothing(
    home: Home, address: Address, postgres: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    home.settings.write_text(settings(address))
    schemas = f"SELECT count(*) FROM pg_namespace WHERE nspname = '{address.schema}'"
    assert "does not force" in checks(home, capsys, "state")[0]
    postgres.sql("ALTER SYSTEM SET fsync = on")
    try:
        postgres.sql("SELECT pg_reload_conf()")
        (said,) = checks(home, capsys, "state")
        assert said.startswith("ok: PostgreSQL") and "the next start makes runs, " in said
        assert checks(home, capsys, "tokens") == ["warn: none yet: nobody can ask anything"]
        assert postgres.sql(schemas) == [(0,)]
        with opened(home, load(home), judge=False):
            assert "a server has it" in checks(home, capsys, "state")[0]
        assert "no server has it" in checks(home, capsys, "state")[0]
        assert "none holds" in checks(home, capsys, "tokens")[0]
    finally:
        postgres.sql("ALTER SYSTEM RESET fsync")
        postgres.sql("SELECT pg_reload_conf()")


def test_no_password_is_shown_where_the_database_cannot_be_reached(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, f"postgresql://ann:s3cret@/x?host={tmp_path}")
    assert cli.main(["token", "new", str(home.folder), "ann", "--role", "admin"]) == 5
    cli.main(["doctor", str(home.folder)])
    monkeypatch.setenv(VARIABLE, f"postgresql://ann@/x?host={tmp_path}")
    monkeypatch.setenv(PASSWORD_VARIABLE, "s3cret")
    assert cli.main(["serve", str(home.folder), "--port", "0"]) == 5
    home.settings.write_text('state = "postgresql://ann:s3cret@db/x"\n')
    monkeypatch.delenv(VARIABLE)
    assert cli.main(["token", "list", str(home.folder)]) == 2
    said = capsys.readouterr()
    assert "s3cret" not in said.out + said.err
    assert PASSWORD_VARIABLE in said.err


def test_a_missing_extra_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "stillwatch.store.postgres", None)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "stillwatch.store.postgres")
    with pytest.raises(UsageError, match="needs psycopg"):
        State(Address("postgresql://x@/y"))
