"""Sealed references to reasoning: what a client hands back on its next turn, which only we can read, and only where it was given.

A reference holds a trace under AES-256-GCM. Tenant, session, model and end are bound to it as associated data: handed in
for another of these it does not open, so that traces can be neither collected nor carried from one session into another.
The rule that keeps it right: nothing of what is sealed is used before everything has been checked, and every check is made,
whatever the others said.

Form: ``swr1.<key id>.<base64url of head, mac and box>``. The head has the salt, when it was sealed and ends (seconds since
1970) and a salted, keyed mark of each of tenant, session and model. The marks are there to say *why* a reference is refused;
that it is refused rests on the associated data. Each reference has a key of its own, from the salt, so that random nonces never
run out under one key (the plan of XAES-256-GCM, c2sp.org/XAES-256-GCM, with HMAC-SHA256 to derive).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stillwatch.errors import Terminal, UsageError
from stillwatch.secret import Secret, secret_from

PREFIX = "swr1"
REFERENCE = re.compile(r"swr1\.[0-9a-f]{8}\.[A-Za-z0-9_-]+")
"""What a reference looks like within a text."""
KEY_BYTES, SALT, MARK, MAC, TAG = 32, 24, 16, 16, 16
"""Sizes in bytes."""
_HEAD = struct.Struct(f">{SALT}sQQ{MARK}s{MARK}s{MARK}s")
_PURPOSE = b"stillwatch reasoning 1 "
_RETIRED = "retired"


class Refused(Terminal):
    """A reference that is not opened. ``reason`` is for our own figures; ``told`` is what the caller may know of it, which is
    the same for all that could tell one tenant something of another."""

    reason: ClassVar[str] = "refused"
    told: ClassVar[str] = "This reference to reasoning is not valid here."

    def __init__(self) -> None:
        super().__init__(self.told, hint="leave it out of the request, or begin a new session")


class Malformed(Refused):
    """It has not the form of a reference: cut, or never one."""

    reason = "malformed"


class TooLarge(Refused):
    """It is longer than any that we seal."""

    reason = "too_large"


class UnknownKey(Refused):
    """It names a key that we never had."""

    reason = "unknown_key"


class RetiredKey(Refused):
    """Its key has been retired."""

    reason = "retired_key"
    told = "This reference to reasoning has ended."


class Altered(Refused):
    """It has been changed, or is none of ours."""

    reason = "altered"


class OtherTenant(Refused):
    """It was given to another tenant."""

    reason = "other_tenant"


class OtherSession(Refused):
    """It was given in another session."""

    reason = "other_session"


class OtherModel(Refused):
    """It is another model's."""

    reason = "other_model"


class Expired(Refused):
    """Its end has come."""

    reason = "expired"
    told = "This reference to reasoning has ended."


class NotYet(Refused):
    """It was sealed later than now, by more than clocks may differ."""

    reason = "not_yet"


REASONS = tuple(c.reason for c in (Malformed, TooLarge, UnknownKey, RetiredKey, Altered, OtherTenant, OtherSession,
                                   OtherModel, Expired, NotYet))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a reference holds. A name that is empty binds nothing: ValueError."""

    tenant: str
    session: str
    model: str

    def __post_init__(self) -> None:
        if not (self.tenant and self.session and self.model):
            raise ValueError("a reference is bound to a tenant, a session and a model")

    def parts(self) -> tuple[bytes, bytes, bytes]:
        """The three names in bytes; whatever JSON can say has some."""
        return tuple(n.encode("utf-8", "surrogatepass") for n in (self.tenant, self.session, self.model))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Keyring:
    """Keys of references, by id: ``current`` seals, all in ``keys`` open, of the ``retired`` the names alone are remembered.

    As text, a line each: ``<id> <base64 of 32 bytes>``, the current one first, and ``retired <id>``. Rotate by ``rotated``;
    retire a key once the references it sealed have ended.
    """

    current: str
    keys: Mapping[str, bytes] = field(repr=False)
    retired: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.current not in self.keys:
            raise ValueError(f"the current key {self.current!r} is not on the ring")
        if both := self.retired & self.keys.keys():
            raise ValueError(f"these keys are retired and on the ring: {', '.join(sorted(both))}")
        for name, key in self.keys.items():
            if not re.fullmatch("[0-9a-f]{8}", name) or len(key) != KEY_BYTES:
                raise ValueError(f"a key has an id of 8 hex digits and {KEY_BYTES} bytes: {name!r}")

    @classmethod
    def made(cls) -> Keyring:
        """A ring with one key, drawn now."""
        name = secrets.token_hex(4)
        return cls(name, {name: secrets.token_bytes(KEY_BYTES)})

    @classmethod
    def parse(cls, secret: Secret) -> Keyring:
        """The ring of its text; UsageError, which shows no key, where it is none."""
        keys, retired = dict[str, bytes](), set[str]()
        for number, line in enumerate(secret.reveal().splitlines(), 1):
            first, _, second = line.strip().partition(" ")
            if first == _RETIRED:
                retired.add(second)
            elif first:
                keys[first] = _key_of(second, number)
        try:
            return cls(next(iter(keys), ""), keys, frozenset(retired))
        except ValueError as e:
            raise UsageError(f"these are no keys of reasoning: {e}", hint="a line each: <id> <base64 key>") from None

    @classmethod
    def load(cls, path: Path) -> Keyring:
        """The ring in a file that is its owner's alone."""
        return cls.parse(secret_from(path))

    def text(self) -> str:
        """The ring as text, which is as secret as its keys."""
        order = sorted(self.keys, key=lambda name: name != self.current)
        lines = [f"{name} {base64.b64encode(self.keys[name]).decode()}" for name in order]
        return "\n".join([*lines, *(f"{_RETIRED} {name}" for name in sorted(self.retired))])

    def rotated(self, keep: int = 1) -> Keyring:
        """A new current key; of the older ones the ``keep`` newest still open references, the others are retired."""
        made = Keyring.made()
        olds = sorted(self.keys, key=lambda name: name != self.current)
        kept = {name: self.keys[name] for name in olds[:keep]}
        return Keyring(made.current, {**made.keys, **kept}, self.retired | set(olds[keep:]))


def _key_of(text: str, line: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise UsageError(f"line {line} of the keys of reasoning has no base64", hint="<id> <base64 key>") from None


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a reference holds, by how much clocks of our machines may differ, and the longest trace in bytes."""

    lifetime: timedelta = timedelta(hours=24)
    skew: timedelta = timedelta(seconds=60)
    most: int = 2 << 20

    def __post_init__(self) -> None:
        if self.lifetime <= timedelta(0) or self.skew < timedelta(0) or self.most < 1:
            raise ValueError("a lifetime is positive, a skew not negative, and a trace has at least a byte")


class References:
    """Seals traces and opens them again, from any thread. ``refused`` counts by reason, ``opened`` and ``sealed`` what went well.

    A reference may be opened as often as its session needs: every turn hands back all that came before.
    """

    def __init__(
        self, ring: Keyring, bounds: Bounds = Bounds(), clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._ring, self._bounds, self._clock = ring, bounds, clock
        self._guard = threading.Lock()
        self.refused: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.opened = self.sealed = 0

    @property
    def most(self) -> int:
        """The longest trace that is sealed, in bytes."""
        return self._bounds.most

    def turn(self, ring: Keyring) -> None:
        """Use another ring from now on."""
        self._ring = ring

    def seal(self, trace: bytes, binding: Binding) -> str:
        """The reference to a trace; TooLarge for one over the bound."""
        if len(trace) > self._bounds.most:
            raise TooLarge
        ring, salt, parts = self._ring, secrets.token_bytes(SALT), binding.parts()
        keys = _Keys.of(ring.keys[ring.current], salt)
        now = self._now()
        head = _HEAD.pack(salt, now, now + int(self._bounds.lifetime.total_seconds()), *keys.marks(parts))
        named = f"{PREFIX}.{ring.current}".encode()
        box = AESGCM(keys.box).encrypt(salt[12:], trace, _bound(named + head, parts))
        with self._guard:
            self.sealed += 1
        return f"{named.decode()}.{_written(head + keys.mac(named + head) + box)}"

    def open(self, reference: str, binding: Binding) -> bytes:
        """The trace; a ``Refused`` of the reason's own class where it is not for here and now, which is counted."""
        try:
            trace = self._open(reference, binding)
        except Refused as e:
            with self._guard:
                self.refused[e.reason] += 1
            raise
        with self._guard:
            self.opened += 1
        return trace

    def _open(self, reference: str, binding: Binding) -> bytes:
        key_id, raw = _read(reference, self._bounds.most)
        ring, named = self._ring, f"{PREFIX}.{key_id}".encode()
        if key_id not in ring.keys:
            raise RetiredKey if key_id in ring.retired else UnknownKey
        head, mac, box = raw[: _HEAD.size], raw[_HEAD.size : _HEAD.size + MAC], raw[_HEAD.size + MAC :]
        salt, begins, ends, *marks = _HEAD.unpack(head)
        keys, parts = _Keys.of(ring.keys[key_id], salt), binding.parts()
        # All of it is worked out whatever comes first: how long it takes tells only the length.
        is_whole = hmac.compare_digest(mac, keys.mac(named + head))
        fits = [hmac.compare_digest(mark, own) for mark, own in zip(marks, keys.marks(parts), strict=True)]
        trace = _opened(keys.box, salt, box, _bound(named + head, parts))
        now, skew = self._now(), int(self._bounds.skew.total_seconds())
        checks = (
            (is_whole, Altered),
            (fits[0], OtherTenant),
            (fits[1], OtherSession),
            (fits[2], OtherModel),
            (trace is not None, Altered),
            (now >= begins - skew, NotYet),
            (now < ends + skew, Expired),
        )
        for holds, fault in checks:
            if not holds:
                raise fault
        assert trace is not None
        return trace

    def _now(self) -> int:
        return int(self._clock().timestamp())


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of one reference, from its salt."""

    box: bytes
    mark: bytes

    @classmethod
    def of(cls, key: bytes, salt: bytes) -> _Keys:
        return cls(*(hmac.digest(key, _PURPOSE + use + b"\0" + salt, "sha256") for use in (b"box", b"mark")))

    def marks(self, parts: tuple[bytes, bytes, bytes]) -> tuple[bytes, ...]:
        return tuple(hmac.digest(self.mark, b"%d\0" % i + part, "sha256")[:MARK] for i, part in enumerate(parts))

    def mac(self, head: bytes) -> bytes:
        return hmac.digest(self.mark, b"head\0" + head, "sha256")[:MAC]


def _bound(head: bytes, parts: tuple[bytes, bytes, bytes]) -> bytes:
    """The associated data: the head, which has the end in it, then each name behind its length."""
    return head + b"".join(struct.pack(">Q", len(part)) + part for part in parts)


def _opened(key: bytes, salt: bytes, box: bytes, bound: bytes) -> bytes | None:
    try:
        return AESGCM(key).decrypt(salt[12:], box, bound)
    except InvalidTag:
        return None


def _written(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _read(reference: str, most: int) -> tuple[str, bytes]:
    """Key id and bytes of a reference that has the form of one, and is written in the one way that we write it."""
    smallest = _HEAD.size + MAC + TAG
    if len(reference) > 16 + (smallest + most + 2) * 4 // 3:
        raise TooLarge
    if not REFERENCE.fullmatch(reference):
        raise Malformed
    _, key_id, text = reference.split(".")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except binascii.Error:
        raise Malformed from None
    if len(raw) < smallest or _written(raw) != text:
        raise Malformed
    return key_id, raw
