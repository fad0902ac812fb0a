"""A state in a real PostgreSQL: what is different there, and what its tables refuse that a file's need not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fixtures_state import Server
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.secret import Secret
from stillwatch.store import postgres as module
from stillwatch.store.migrations import MIGRATIONS
from stillwatch.store.places import PASSWORD_VARIABLE, VARIABLE, Address, place_of
from stillwatch.store.postgres import Postgres
from stillwatch.store.postgres_sql import definitions
from stillwatch.store.state import State

HOLDERS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"


@pytest.fixture
def address(postgres: Server) -> Address:
    return postgres.address()


def end_connections(server: Server) -> None:
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stillwatch'")
    time.sleep(0.1)


# Addresses


def test_an_address_shows_its_password_to_nobody() -> None:
    for text in (
        "postgresql://ann:s3cret@db/x",
        "postgres://ann@db/x?password=s3cret",
        "postgresql://ann:s%33cret@db/x",
    ):
        found = Address.parse(text)
        assert found.password == Secret("s3cret")
        assert found.url == "postgresql://ann@db/x"
        assert "s3cret" not in repr(found) + str(found)


def test_an_address_keeps_what_else_it_says() -> None:
    found = Address.parse("postgresql://ann@[::1]:5433/x?schema=two&sslmode=verify-full&host=%2Ftmp%2Fa", Secret("p"))
    assert (found.url, found.schema) == ("postgresql://ann@[::1]:5433/x?sslmode=verify-full&host=%2Ftmp%2Fa", "two")
    assert found.password == Secret("p")
    assert "two" in str(found)


STRANGE = (
    "mysql://s3cret@db/x", "s3cret", "postgresql://s3cret@db", "postgresql://db:s3cret/x", "postgresql://db/x?schema=Big-",
    "postgresql://db/x?s3cret", "postgresql://[s3cret/x",
)  # fmt: skip


@pytest.mark.parametrize("text", STRANGE)
def test_what_is_no_address_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(UsageError) as e:
        Address.parse(text)
    assert "s3cret" not in str(e.value) + repr(e.value.__context__)


def test_the_password_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, setting = tmp_path / "state.db", "postgresql://ann@db/x"
    kept = tmp_path / "state.password"
    assert place_of(file, "", kept) == file
    for held in (
        "postgresql://ann:s3cret@db/x",
        "postgresql://db/x?password=s3cret",
        "postgresql://db/x?passfile=s3cret",
    ):
        with pytest.raises(UsageError, match=PASSWORD_VARIABLE) as e:
            place_of(file, held)
        assert "s3cret" not in str(e.value)

    def password(setting: str = setting) -> str | None:
        found = place_of(file, setting, kept)
        assert isinstance(found, Address)
        return found.password.reveal() if found.password else None

    assert password() is None
    kept.write_text("of the file\n")
    kept.chmod(0o600)
    assert password() == "of the file"
    monkeypatch.setenv(PASSWORD_VARIABLE, "of the environment")
    assert password() == "of the environment"
    monkeypatch.setenv(VARIABLE, "postgresql://bob:s3cret@db/y")
    assert password("") == "s3cret"
    assert str(place_of(file, setting)) == "postgresql://bob@db/y"


# The database


def test_a_password_is_asked_for_and_never_told(postgres: Server) -> None:
    postgres.sql("CREATE ROLE locked LOGIN PASSWORD 's3cret'; GRANT CREATE ON DATABASE postgres TO locked")
    url = f"postgresql://locked@/postgres?host={postgres.folder}&schema=of_locked"
    for wrong in (None, Secret("n0tit")):
        with pytest.raises(Transient, match="password") as e:
            State(Address.parse(url, wrong))
        assert "n0tit" not in str(e.value) + repr(e.value.__cause__)
    with State(Address.parse(url, Secret("s3cret"))) as state:
        assert state.runs() == []


def test_a_role_that_may_not_make_tables_may_still_read_what_is_there(postgres: Server, address: Address) -> None:
    State(address).close()
    postgres.sql(
        f"CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA {address.schema} TO reader; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {address.schema} TO reader"
    )
    with State(Address(address.url.replace("stillwatch@", "reader@"), address.schema)) as state:
        assert state.runs() == []
        with pytest.raises(Terminal, match="permission denied"):
            state.begin_run("scan", "", "", "")


@pytest.mark.parametrize("table", ["judgements", "actions", "action_events", "appeals"])
def test_nothing_is_emptied_at_once(postgres: Server, address: Address, table: str) -> None:
    State(address).close()
    import psycopg

    with pytest.raises(psycopg.errors.RaiseException, match="never deleted"):
        postgres.sql(f"TRUNCATE {address.schema}.{table}")


def test_each_migration_is_made_whole_or_not_at_all(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (*MIGRATIONS, ("broken", "CREATE TABLE fine (a TEXT) STRICT; CREATE INDEX bad ON nowhere (a);"))
    monkeypatch.setattr(module, "MIGRATIONS", broken)
    with pytest.raises(Terminal, match="nowhere"):
        State(address)
    monkeypatch.setattr(module, "MIGRATIONS", MIGRATIONS)
    with State(address) as state:
        assert len(state.execute("SELECT * FROM migrations")) == len(MIGRATIONS)
        with pytest.raises(Terminal, match="fine"):
            state.execute("SELECT * FROM fine")


def test_what_is_not_understood_of_a_migration_is_refused() -> None:
    for strange in (
        "CREATE VIEW v AS SELECT 1;",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;",
        "DROP TABLE a;",
    ):
        with pytest.raises(ValueError, match="not known"):
            definitions(strange)


def test_a_commit_is_on_disk_whatever_the_database_is_set_to(postgres: Server, address: Address) -> None:
    postgres.sql("ALTER DATABASE postgres SET synchronous_commit = off")
    try:
        with State(address) as state:
            assert state.execute("SELECT current_setting('synchronous_commit') AS s") == [{"s": "on"}]
    finally:
        postgres.sql("ALTER DATABASE postgres RESET synchronous_commit")


def test_a_transaction_in_which_a_statement_failed_is_never_taken_for_kept(address: Address) -> None:
    with State(address) as state:
        with pytest.raises(Terminal, match="not kept"), state.transaction():
            state.begin_run("scan", "", "", "")
            with pytest.raises(Terminal):
                state.execute("SELECT nothing")
        assert state.runs() == []
        state.begin_run("scan", "", "", "")


# Connections that break


def test_a_connection_that_broke_while_idle_is_made_anew(postgres: Server, address: Address) -> None:
    with State(address) as state:
        state.begin_run("scan", "", "", "")
        end_connections(postgres)
        assert len(state.runs()) == 1
        end_connections(postgres)
        state.begin_run("scan", "", "", "")
        end_connections(postgres)
        with state.transaction():
            state.begin_run("scan", "", "", "")
        assert len(state.runs()) == 3


def test_a_connection_that_breaks_within_a_transaction_leaves_nothing_of_it(postgres: Server, address: Address) -> None:
    with State(address) as state:
        with pytest.raises(Transient), state.transaction():
            state.begin_run("scan", "", "", "")
            end_connections(postgres)
            state.begin_run("scan", "", "", "")
        assert state.runs() == []


def test_a_database_that_is_down_is_told_at_once_and_found_again(
    postgres: Server, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.3)
    with State(address) as state:
        state.begin_run("scan", "", "", "")
        postgres.stop()
        try:
            with pytest.raises(Transient):
                state.runs()
            began = time.perf_counter()
            for _ in range(1000):
                with pytest.raises(Transient):
                    state.runs()
            assert time.perf_counter() - began < 1.0
        finally:
            postgres.start()
        time.sleep(0.4)
        assert len(state.runs()) == 1


def test_a_database_that_does_not_answer_in_time_is_not_waited_for_again_and_again(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.5)
    with State(address, 0.2) as state:
        began = time.perf_counter()
        with pytest.raises(Transient, match="timeout"):
            state.execute("SELECT pg_sleep(20)")
        for _ in range(1000):
            with pytest.raises(Transient, match="timeout"):
                state.runs()
        assert time.perf_counter() - began < 5
        time.sleep(0.6)
        assert state.runs() == []
        with pytest.raises(Transient, match="timeout"), state.transaction():
            state.begin_run("scan", "", "", "")
            state.execute("SELECT pg_sleep(20)")
        time.sleep(0.6)
        with pytest.raises(Terminal, match="not kept"), state.transaction():
            state.begin_run("scan", "", "", "")
            with pytest.raises(Transient, match="timeout"):
                state.execute("SELECT pg_sleep(20)")
        time.sleep(0.6)
        assert state.runs() == []
        state.begin_run("scan", "", "", "")


# Two servers


def test_one_server_at_a_time_has_a_state(address: Address) -> None:
    with State(address, holds=True) as state:
        with pytest.raises(Transient, match="another server"):
            State(address, holds=True)
        with State(address) as beside:
            beside.begin_run("scan", "", "", "")
        assert len(state.runs()) == 1
    State(address, holds=True).close()


def test_whoever_lost_the_state_writes_no_more(
    postgres: Server, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    with State(address, holds=True) as first:
        first.begin_run("scan", "", "", "")
        end_connections(postgres)
        with State(address, holds=True) as second:
            with pytest.raises(Transient, match="another server"):
                first.begin_run("scan", "", "", "")
            with pytest.raises(Transient, match="another server"), first.transaction():
                pytest.fail("a transaction was begun")
            assert len(second.runs()) == 1
        first.begin_run("scan", "", "", "")
        assert len(first.runs()) == 2


def test_it_is_seen_whether_a_server_has_the_state(address: Address) -> None:
    beside = Postgres(address, 1.0)
    other = Postgres(Address(address.url, address.schema + "_other"), 1.0, holds=True)
    assert not beside.is_held()
    with State(address, holds=True):
        assert beside.is_held()
    deadline = time.monotonic() + 5
    while beside.is_held():
        assert time.monotonic() < deadline
    beside.close()
    other.close()
