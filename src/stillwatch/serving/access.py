"""Who may do what: tokens, the roles they carry, and the rights of a role.

A token is ``sw_<role>_<id>_<secret>``. Its secret is 32 random bytes, so what is stored is a keyed hash that is quick (BLAKE2b,
keyed by the id): a slow one protects secrets that can be guessed, and here would only let strangers keep the server busy. A
token that is malformed, unknown, expired or revoked is nobody; so is any token while the state cannot be read, by an error.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from stillwatch.actions import Audit
from stillwatch.errors import StillwatchError, Terminal, UsageError
from stillwatch.secret import Secret, secret_from
from stillwatch.store.state import BUSY_S, State

__all__ = [
    "MACHINES", "PEOPLE", "RIGHTS", "Access", "Caller", "Draft", "Issued", "Right", "Role", "Secret", "Token", "draft", "meaning",
    "secret_from",
]  # fmt: skip

FRESH_S = 4.0
"""How long what was read of a token is believed, in seconds: a revocation elsewhere is seen within five."""
KNOWN = 10_000
"""Most tokens, and most ids with failures, that are kept in memory."""
USES_S = 60.0
"""How often the last use of tokens is written down, in seconds."""
FREE_FAILURES, LONGEST_WAIT_S, FORGET_S = 5, 60.0, 900.0
"""Wrong secrets for an id before it must wait; the longest wait; how long after it all is forgotten."""
LIFETIME, GRACE = timedelta(days=90), timedelta(days=1)
"""How long a token lives, and one that another replaces, where nothing else is said."""
NAME = 64
"""Longest name of a person or machine, in characters."""

_DIGITS = string.digits + string.ascii_letters
_TOKEN = re.compile(r"sw_([a-z]{1,16})_([0-9a-f]{12})_[0-9A-Za-z]{43}")
_BEARER = re.compile(r"bearer +(\S{1,128})", re.IGNORECASE)
_NOBODY = secrets.token_bytes(32)
"""What a token is compared with where there is none of its id, so that this takes as long."""


class Role(StrEnum):
    """What a token is for. People's roles are a ladder: each has the rights of those before it."""

    VIEWER = "viewer"
    ANALYST = "analyst"
    APPROVER = "approver"
    ADMIN = "admin"
    INGEST = "ingest"
    GATEWAY = "gateway"
    PARTNER = "partner"
    METRICS = "metrics"


PEOPLE = (Role.VIEWER, Role.ANALYST, Role.APPROVER, Role.ADMIN)
MACHINES = (Role.INGEST, Role.GATEWAY, Role.PARTNER, Role.METRICS)


class Right(StrEnum):
    """What can be done; ``meaning`` says it in a line."""

    READ_SUMMARY = "read_summary"
    READ_CAMPAIGNS = "read_campaigns"
    READ_METRICS = "read_metrics"
    READ_ACCOUNTS = "read_accounts"
    READ_ACTIONS = "read_actions"
    READ_POLICY = "read_policy"
    UNMASK = "unmask"
    JUDGE = "judge"
    PROPOSE = "propose"
    EXPORT = "export"
    SIGN = "sign"
    UNDO = "undo"
    DECIDE_APPEAL = "decide_appeal"
    READ_AUDIT = "read_audit"
    WRITE_POLICY = "write_policy"
    MANAGE_TOKENS = "manage_tokens"
    INGEST = "ingest"
    ASK_GATEWAY = "ask_gateway"
    FILE_APPEAL = "file_appeal"
    READ_SHARED = "read_shared"


# The right, what it means, the first role of people that has it (None: nobody's), the machines that have it.
_TABLE: tuple[tuple[Right, str, Role | None, tuple[Role, ...]], ...] = (
    (Right.READ_SUMMARY, "see how many campaigns, accounts and actions there are", Role.VIEWER, ()),
    (Right.READ_CAMPAIGNS, "see campaigns and their evidence, accounts masked", Role.VIEWER, ()),
    (Right.READ_METRICS, "read the server's figures", Role.VIEWER, (Role.METRICS,)),
    (Right.READ_ACCOUNTS, "see single accounts, and why they are suspected", Role.ANALYST, ()),
    (Right.READ_ACTIONS, "see actions, their signatures and appeals", Role.ANALYST, ()),
    (Right.READ_POLICY, "see the policy in force, and what another one would do", Role.ANALYST, ()),
    (Right.UNMASK, "see what is masked, for a reason that is written down", Role.ANALYST, ()),
    (Right.JUDGE, "say of a campaign or a pair that it is one operator, or is not", Role.ANALYST, ()),
    (Right.PROPOSE, "propose an action on an account", Role.ANALYST, ()),
    (Right.EXPORT, "take campaigns and accounts away as files", Role.APPROVER, ()),
    (Right.SIGN, "sign or refuse an action that needs signatures", Role.APPROVER, ()),
    (Right.UNDO, "end an action before it expires", Role.APPROVER, ()),
    (Right.DECIDE_APPEAL, "decide an appeal against an action that others signed", Role.APPROVER, ()),
    (Right.READ_AUDIT, "see who did what, and check it", Role.APPROVER, ()),
    (Right.WRITE_POLICY, "put another policy in force, pause acting, start it again", Role.ADMIN, ()),
    (Right.MANAGE_TOKENS, "make, replace and revoke tokens", Role.ADMIN, ()),
    (Right.INGEST, "send exchanges and account events in", None, (Role.INGEST,)),
    (Right.ASK_GATEWAY, "ask what is in force for an account", None, (Role.GATEWAY,)),
    (Right.FILE_APPEAL, "hand in an account's appeal", Role.ANALYST, (Role.GATEWAY,)),
    (Right.READ_SHARED, "fetch what is shared with partners", None, (Role.PARTNER,)),
)


def _has(role: Role, first: Role | None, machines: tuple[Role, ...]) -> bool:
    climbs = first is not None and role in PEOPLE and PEOPLE.index(role) >= PEOPLE.index(first)
    return climbs or role in machines


RIGHTS: Mapping[Role, frozenset[Right]] = MappingProxyType(
    {role: frozenset(right for right, _, first, machines in _TABLE if _has(role, first, machines)) for role in Role}
)
"""What each role may do. Nothing else gives anybody a right."""

_MEANINGS = {right: text for right, text, _, _ in _TABLE}


def meaning(right: Right) -> str:
    """What a right lets its holder do, in a line."""
    return _MEANINGS[right]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose token holds: ``name`` is who, in the audit and among signatures."""

    name: str
    role: Role
    token_id: str

    def may(self, right: Right) -> bool:
        """Whether this caller's role has the right."""
        return right in RIGHTS[self.role]


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token, without its secret. Times are UTC; ``replaces`` is the id of the one it was rotated from."""

    token_id: str
    name: str
    role: Role
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    replaces: str | None = None

    def __post_init__(self) -> None:
        if (
            not self.name.strip()
            or len(self.name) > NAME
            or not self.name.isprintable()
            or self.name != self.name.strip()
        ):
            raise ValueError(f"a token's name has 1 to {NAME} characters that can be seen: {self.name[:NAME]!r}")
        if self.created_at > self.expires_at:
            raise ValueError(f"token {self.token_id!r} would expire before it is made")

    @property
    def caller(self) -> Caller:
        """Whoever shows it."""
        return Caller(self.name, self.role, self.token_id)

    def holds(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and now < self.expires_at

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "token_id": self.token_id,
            "name": self.name,
            "role": self.role.value,
            "created_at": self.created_at.isoformat(),
            "created_by": self.created_by,
            "expires_at": self.expires_at.isoformat(),
            "last_used_at": self.last_used_at.isoformat() if self.last_used_at else None,
            "revoked_at": self.revoked_at.isoformat() if self.revoked_at else None,
            "revoked_by": self.revoked_by,
            "replaces": self.replaces,
        }


@dataclass(frozen=True, slots=True)
class Issued:
    """A token just made, with the one chance to see it."""

    token: Token
    secret: Secret


@dataclass(slots=True)
class _Known:
    """A token as it was last read. ``is_proven``: its holder has shown the secret to this process."""

    token: Token
    digest: bytes
    read_at: float
    is_proven: bool = False


@dataclass(frozen=True, slots=True)
class Remembered:
    """Whose token this was when it was last read, ``age_s`` seconds ago."""

    caller: Caller
    age_s: float


@dataclass(slots=True)
class _Failures:
    count: int = 0
    wait_until: float = 0.0


class Access:
    """The tokens of a state. ``who`` answers from memory but for the first time and every few seconds after.

    An id that many wrong secrets were sent for must wait, longer each time; whoever has shown its right secret before need
    not, so that nobody can be locked out by knowing an id. Methods belong to the thread that opened the state, but for
    ``remembered``.

    Tokens are made, replaced and revoked where there is an ``audit`` alone, which is written first: none ever holds that is not
    in it.
    """

    def __init__(
        self,
        state: State,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        ticks: Callable[[], float] = time.monotonic,
        audit: Audit | None = None,
    ) -> None:
        self._state, self._clock, self._ticks, self._audit = state, clock, ticks, audit
        self._guard = threading.RLock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._uses: dict[str, datetime] = {}
        self._uses_due = -float("inf")

    # Asking

    def who(self, authorization: str | None, within_s: float = FRESH_S) -> Caller | None:
        """Who sends this ``Authorization`` header (``Bearer sw_...``); None where it is nobody we know.

        What was read longer than ``within_s`` seconds ago is read anew. StillwatchError where that is so and it could not be:
        that is no answer, least of all yes.
        """
        parts = _parts(authorization)
        if parts is None:
            return None
        with self._guard:
            return self._who(parts, within_s)

    def remembered(self, authorization: str, within_s: float) -> Remembered | None:
        """Who sends this header, by what was read at most ``within_s`` seconds ago and nothing else: the state is not asked,
        nobody is waited for, and any thread may ask. None where it is not known: only whom ``who`` has let in before is."""
        parts = _parts(authorization)
        known = self._known.get(parts[2]) if parts else None
        if parts is None or known is None or not known.is_proven:
            return None
        age_s = self._ticks() - known.read_at
        if not 0 <= age_s <= within_s or not _fits(parts, known) or not known.token.holds(self._clock()):
            return None
        return Remembered(known.token.caller, age_s)

    def _who(self, parts: re.Match[str], within_s: float) -> Caller | None:
        token_id = parts[2]
        known = self._look_up(token_id, within_s)
        if self._must_wait(token_id) and not (known and known.is_proven):
            return None
        if not _fits(parts, known) or known is None:
            self._fail(token_id)
            return None
        now = self._clock()
        if not known.token.holds(now):
            return None
        known.is_proven = True
        self._failures.pop(token_id, None)
        self._note_use(token_id, now)
        return known.token.caller

    def _look_up(self, token_id: str, within_s: float) -> _Known | None:
        """The token of an id, from memory where that is fresh."""
        known, now = self._known.get(token_id), self._ticks()
        if known is None or not 0 <= now - known.read_at <= within_s:
            known = self._read(token_id, now, bool(known and known.is_proven))
        if known is not None:
            _keep(self._known, token_id, known)
        return known

    def _read(self, token_id: str, now: float, is_proven: bool) -> _Known | None:
        """The token as it is in the state; after an error what was known before is still remembered."""
        rows = self._state.execute("SELECT * FROM tokens WHERE token_id = ?", token_id)
        if rows and rows[0]["role"] in list(Role):
            return _Known(_token(rows[0]), bytes(rows[0]["digest"]), now, is_proven)
        self._known.pop(token_id, None)
        return None

    def _must_wait(self, token_id: str) -> bool:
        failures = self._failures.get(token_id)
        return failures is not None and self._ticks() < failures.wait_until

    def _fail(self, token_id: str) -> None:
        now = self._ticks()
        failures = self._failures.get(token_id)
        if failures is None or now > failures.wait_until + FORGET_S:
            failures = _Failures(wait_until=now)
        failures.count += 1
        if failures.count >= FREE_FAILURES:
            failures.wait_until = now + min(2.0 ** (failures.count - FREE_FAILURES), LONGEST_WAIT_S)
        _keep(self._failures, token_id, failures)

    def _note_use(self, token_id: str, now: datetime) -> None:
        self._uses[token_id] = now
        if self._ticks() >= self._uses_due:
            self._uses_due = self._ticks() + USES_S
            # Nobody is kept waiting, or turned away, for a note: it stays for the next time.
            with suppress(StillwatchError):
                self._write_uses(wait_s=0.0)

    def _write_uses(self, wait_s: float) -> None:
        with self._state.patience(wait_s), self._state.transaction():
            for token_id, at in self._uses.items():
                self._state.execute("UPDATE tokens SET last_used_at = ? WHERE token_id = ?", _text(at), token_id)
        self._uses.clear()

    def write_uses(self) -> None:
        """Write down now when tokens were last used; for a server that stops."""
        with self._guard:
            if self._uses:
                self._write_uses(BUSY_S)

    # Making and revoking

    def issue(self, name: str, role: Role, by: str, lifetime: timedelta = LIFETIME) -> Issued:
        """A new token for a person or machine, made by ``by``. UsageError where the name or the lifetime will not do."""
        made = draft(role)
        return Issued(self.enrol(made.token_id, made.digest, name, role, by, lifetime), made.secret)

    def enrol(self, token_id: str, digest: bytes, name: str, role: Role, by: str, lifetime: timedelta) -> Token:
        """As ``issue``, of a token whose secret somebody else has drawn."""
        with self._guard, self._state.transaction():
            token = self._new(token_id, name, role, by, lifetime)
            self._write_down(
                "token.issue", by, name, role=role.value, lifetime_s=lifetime.total_seconds(), token=token_id
            )
            return self._insert(token, digest)

    def rotate(self, token_id: str, by: str, grace: timedelta = GRACE) -> Issued:
        """A new token of the same name, role and lifetime; the old one lives on for ``grace`` at most."""
        made = draft(self.one(token_id).role)
        return Issued(self.replace(token_id, made.token_id, made.digest, by, grace), made.secret)

    def replace(self, old_id: str, token_id: str, digest: bytes, by: str, grace: timedelta) -> Token:
        """As ``rotate``, by a token whose secret somebody else has drawn."""
        with self._guard, self._state.transaction():
            old, now = self.one(old_id), self._clock()
            if not old.holds(now):
                raise UsageError(f"token {old_id} is revoked or expired", hint="make a new one: stillwatch token new")
            token = self._new(token_id, old.name, old.role, by, old.expires_at - old.created_at, old_id)
            ends = min(old.expires_at, now + max(grace, timedelta(0)))
            self._write_down("token.rotate", by, old_id, grace_s=grace.total_seconds(), token=token_id)
            self._insert(token, digest)
            self._state.execute("UPDATE tokens SET expires_at = ? WHERE token_id = ?", _text(ends), old_id)
            self._known.pop(old_id, None)
            return token

    def revoke(self, token_id: str, by: str) -> Token:
        """End a token now and for ever; one that is revoked already stays as it was. UsageError where there is none."""
        with self._guard, self._state.transaction():
            self._known.pop(token_id, None)
            if self.one(token_id).revoked_at is None:
                self._write_down("token.revoke", by, token_id)
                self._state.execute(
                    "UPDATE tokens SET revoked_at = ?, revoked_by = ? WHERE token_id = ?",
                    _text(self._clock()), by, token_id,
                )  # fmt: skip
            return self.one(token_id)

    def _new(
        self, token_id: str, name: str, role: Role, by: str, lifetime: timedelta, replaces: str | None = None
    ) -> Token:
        now = self._clock()
        try:
            return Token(token_id, name, role, now, by, now + lifetime, replaces=replaces)
        except (ValueError, OverflowError) as e:
            raise UsageError(str(e), hint="such as ann, or litellm-1, and 90d") from e

    def _insert(self, token: Token, digest: bytes) -> Token:
        self._state.execute(
            "INSERT INTO tokens (token_id, name, role, digest, created_at, created_by, expires_at, replaces)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            token.token_id, token.name, token.role.value, digest, _text(token.created_at), token.created_by,
            _text(token.expires_at), token.replaces,
        )  # fmt: skip
        return token

    def _write_down(self, event: str, by: str, subject: str, **facts: Any) -> None:
        """Into the audit, before it is done."""
        if self._audit is None:
            raise Terminal("these tokens are for reading alone", hint="give them an audit to write to")
        self._audit.append(event, by, Role.ADMIN.value, subject, facts)

    def tokens(self) -> list[Token]:
        """All tokens there ever were, oldest first."""
        with self._guard:
            return [_token(row) for row in self._state.execute("SELECT * FROM tokens ORDER BY created_at, rowid")]

    def one(self, token_id: str) -> Token:
        """What is known of a token; UsageError where there is none."""
        rows = self._state.execute("SELECT * FROM tokens WHERE token_id = ?", token_id)
        if not rows:
            raise UsageError(
                f"there is no token {token_id[:NAME]!r}", hint="stillwatch token list HOME shows their ids"
            )
        return _token(rows[0])


@dataclass(frozen=True, slots=True)
class Draft:
    """A token's secret, just drawn, and all that may be kept of it: nobody is let in by it yet."""

    token_id: str
    digest: bytes
    secret: Secret


def draft(role: Role) -> Draft:
    """A secret for a new token of a role."""
    token_id = secrets.token_hex(6)
    text = f"sw_{role}_{token_id}_{_base62(secrets.token_bytes(32))}"
    return Draft(token_id, _digest(text, token_id), Secret(text))


def is_token(authorization: str) -> bool:
    """Whether the header holds what looks like a token of ours: anything else is nobody, and need not be looked for."""
    return _parts(authorization) is not None


def _parts(authorization: str | None) -> re.Match[str] | None:
    """The token of a header: all of it, its role and its id."""
    found = _BEARER.fullmatch((authorization or "").strip())
    return _TOKEN.fullmatch(found[1]) if found else None


def _fits(parts: re.Match[str], known: _Known | None) -> bool:
    """Whether this is the token that is known, which takes as long where none is."""
    fits = hmac.compare_digest(_digest(parts[0], parts[2]), known.digest if known else _NOBODY)
    return fits and known is not None and parts[1] == known.token.role


def _digest(text: str, token_id: str) -> bytes:
    """What is stored of a token, 32 bytes; of no use with another id."""
    return hashlib.blake2b(text.encode(), digest_size=32, key=token_id.encode(), person=b"stillwatch token").digest()


def _base62(value: bytes) -> str:
    """32 bytes as 43 digits and letters: selected by a double click, safe in a URL and a shell."""
    number, digits = int.from_bytes(value), ""
    for _ in range(43):
        number, digit = divmod(number, 62)
        digits += _DIGITS[digit]
    return digits


def _token(row: Mapping[str, Any]) -> Token:
    try:
        return Token(
            token_id=row["token_id"],
            name=row["name"],
            role=Role(row["role"]),
            created_at=datetime.fromisoformat(row["created_at"]),
            created_by=row["created_by"],
            expires_at=datetime.fromisoformat(row["expires_at"]),
            last_used_at=_moment(row["last_used_at"]),
            revoked_at=_moment(row["revoked_at"]),
            revoked_by=row["revoked_by"],
            replaces=row["replaces"],
        )
    except ValueError as e:
        raise Terminal(
            f"token {row['token_id']}: the state's row of it is damaged: {e}", hint="restore a backup"
        ) from e


def _keep(kept: OrderedDict[str, Any], key: str, value: Any) -> None:
    """Put a value in as the newest, and the oldest out where there are too many."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > KNOWN:
        kept.popitem(last=False)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
