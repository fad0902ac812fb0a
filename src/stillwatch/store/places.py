"""Where a state is: a file of SQLite's, or the address of a PostgreSQL database.

An address never shows its password, which comes from the environment or a file; a URL of the settings that holds one is refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from stillwatch.errors import Transient, UsageError
from stillwatch.secret import Secret, secret_from

VARIABLE, PASSWORD_VARIABLE = "STILLWATCH_STATE", "STILLWATCH_STATE_PASSWORD"
SCHEMES = ("postgresql", "postgres")
SCHEMA = "stillwatch"
"""The schema of the database that holds a state, where the address names no other with ``?schema=``."""
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SECRETS = ("password", "passfile", "sslpassword")
"""Parameters of a URL that are secrets, or say where one is; only the first may come by the environment."""


class Held(Transient):
    """Another server has the state."""


@dataclass(frozen=True, slots=True)
class Address:
    """A PostgreSQL database: its URL without a password, the schema that holds the state, and the password apart.

    Without a password the client's own ways hold (PGPASSWORD, a ``.pgpass``, a socket that knows who asks).
    """

    url: str
    schema: str = SCHEMA
    password: Secret | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _SCHEMA.fullmatch(self.schema):
            raise UsageError(
                f"no schema can be called {self.schema[:80]!r}",
                hint="small letters, digits and _, such as ?schema=stillwatch",
            )

    @classmethod
    def parse(cls, text: str, password: Secret | None = None, *, from_file: bool = False) -> Address:
        """The address in a URL. UsageError where it is none of PostgreSQL's, or holds a password and is ``from_file``."""
        parts, given = _split(text)
        named = [n for n, _ in given if n in _SECRETS]
        if (parts.password is not None or named) and from_file:
            hint = f"put it into {PASSWORD_VARIABLE}, or the home's keys/state.password"
            raise UsageError("the address of the state holds a password, or where to find one", hint=hint)
        found = parts.password or dict(given).get("password")
        kept = [(n, v) for n, v in given if n not in ("schema", "password")]
        host = parts.netloc.rpartition("@")
        user = host[0].partition(":")[0]
        netloc = f"{user}@{host[2]}" if user else host[2]
        url = urlunsplit(("postgresql", netloc, parts.path, urlencode(kept, quote_via=quote), ""))
        return cls(url, dict(given).get("schema", SCHEMA), Secret(unquote(found)) if found else password)

    def __str__(self) -> str:
        return self.url if self.schema == SCHEMA else f"{self.url} (schema {self.schema})"


Place: TypeAlias = Path | Address


def place_of(file: Path, setting: str = "", password: Path | None = None) -> Place:
    """Where the state is: the address in the environment or the settings, else ``file``, an embedded database.

    The password is in the environment, or in the file ``password``. UsageError for an address that is none.
    """
    told = os.environ.get(VARIABLE, "").strip()
    if not (told or setting):
        return file
    try:
        return Address.parse(told or setting, _password(password), from_file=not told)
    except UsageError as e:
        raise UsageError(f"{VARIABLE if told else 'state'}: {e.message}", hint=e.hint) from e


def _password(file: Path | None) -> Secret | None:
    if os.environ.get(PASSWORD_VARIABLE, "").strip():
        return secret_from(variable=PASSWORD_VARIABLE)
    return secret_from(file) if file is not None and file.exists() else None


def _split(text: str) -> tuple[SplitResult, list[tuple[str, str]]]:
    try:
        parts = urlsplit(text)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        is_one = parts.scheme in SCHEMES and bool(parts.path.strip("/")) and (parts.port or 1) > 0
    except ValueError:
        is_one = False
    if not is_one:
        # The text itself is not shown: it may hold a password.
        hint = "such as postgresql://stillwatch@db.internal/stillwatch"
        raise UsageError("is no address of a PostgreSQL database", hint=hint)
    return parts, given
