"""Where states are in tests: a file, and a schema of a real PostgreSQL, started once, on a socket, as nobody of importance.

Its binaries are those in POSTGRES_BIN (make test finds or gets them), else Debian's, else those of the path; without them the
tests that need it are skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from stillwatch.store.places import Address, Place
from stillwatch.store.postgres_sql import definitions
from stillwatch.store.state import State

DEBIAN = Path("/usr/lib/postgresql")


def _binaries() -> Path | None:
    told = [Path(os.environ["POSTGRES_BIN"])] if os.environ.get("POSTGRES_BIN") else []
    found = shutil.which("postgres")
    debian = sorted(DEBIAN.glob("*/bin"), key=lambda p: float(p.parent.name))
    for folder in (*told, *reversed(debian), *([Path(found).resolve().parent] if found else [])):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


BINARIES = _binaries()
WITHOUT = "no PostgreSQL: apt-get install postgresql, or make test, which gets it"


class Server:
    """A PostgreSQL of its own in a temporary folder, which nobody else can reach, and which forgets all at the end."""

    def __init__(self) -> None:
        assert BINARIES is not None
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._as: dict[str, Any] = {"cwd": self.folder}
        if os.getuid() == 0:
            # PostgreSQL refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._as |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._numbers = count(1)
        made = ["-D", "data", "-U", "stillwatch", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        self._run("initdb", *made)
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\nfsync = off\nmax_connections = 60\n"
            )
        hba = self.folder / "data" / "pg_hba.conf"
        hba.write_text("local all locked scram-sha-256\n" + hba.read_text())
        self.start()

    def start(self) -> None:
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def address(self) -> Address:
        """A schema that is not there yet."""
        return Address(f"postgresql://stillwatch@/postgres?host={self.folder}", f"s{next(self._numbers)}")

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """What a superuser is told, beside all of ours."""
        import psycopg

        with psycopg.connect(f"postgresql://stillwatch@/postgres?host={self.folder}", autocommit=True) as db:
            cursor = db.execute(text)
            return cursor.fetchall() if cursor.description else []

    def _run(self, command: str, *given: str) -> None:
        assert BINARIES is not None
        done = subprocess.run([BINARIES / command, *given], capture_output=True, text=True, check=False, **self._as)
        log = self.folder / "log"
        assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server; skips where there is none to be had."""
    if BINARIES is None:
        pytest.skip(WITHOUT)
    server = Server()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a state may be, one after the other: nothing is there yet."""
    if request.param == "sqlite":
        return tmp_path / "state.db"
    server: Server = request.getfixturevalue("postgres")
    return server.address()


def define(state: State, place: Place, sql: str) -> None:
    """Have the database itself do something, in SQLite's words."""
    state.execute(sql if isinstance(place, Path) else definitions(sql))
