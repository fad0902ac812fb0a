"""Signed notes and checkpoints as c2sp.org/signed-note and c2sp.org/tlog-checkpoint have them, so that public tools read them.

A note is a text that ends in a newline, an empty line, and signature lines ``— <name> <base64 of key id and signature>``. A
checkpoint is a note of three lines: the log's origin, its size, the root of its tree. Keys are Ed25519 and are written as
Go's ``sumdb/note`` writes them: ``<name>+<key id>+<base64>`` for the public one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from stillwatch.errors import StillwatchError, UsageError
from stillwatch.secret import Secret, secret_from, write_new

KEY_VARIABLE = "STILLWATCH_AUDIT_KEY"
ED25519 = b"\x01"
"""The signature type, before the key in its text form and in its id."""
PRIVATE = "PRIVATE+KEY"
KEY_ID, SIGNATURE = 4, 64
"""Sizes in bytes."""
MAX_SIGNATURES = 64
_DASH = "\u2014 "


class BadNote(StillwatchError):
    """A note that is not well formed, or that nobody known has signed."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key, by name. ``str()`` is its text form."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public) != 32:
            raise ValueError(f"the public key of {self.name!r} has {len(self.public)} bytes, not 32")

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell the keys of one name apart; no proof of anything."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:KEY_ID]

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """The key of its text form; UsageError where that is not one."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            key = base64.b64decode(encoded, validate=True)
            verifier = cls(name, key[1:])
        except ValueError as e:
            raise UsageError(f"this is no verifier key: {text.strip()[:80]!r}", hint="<name>+<hash>+<base64>") from e
        if key[:1] != ED25519 or verifier.key_id.hex() != key_id:
            raise UsageError(f"the verifier key of {name!r} is damaged or not Ed25519", hint="copy it again, whole")
        return verifier

    def holds(self, text: str, signature: bytes) -> bool:
        """Whether ``signature`` is this key's, of ``text``."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, by name; it never shows."""

    name: str
    _key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def make(cls, name: str) -> Signer:
        """A new key."""
        check_name(name)
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, secret: Secret, place: str) -> Signer:
        """The key of its text form, ``PRIVATE+KEY+<name>+<key id>+<base64>``; UsageError naming ``place``, never the key."""
        marks, rest = secret.reveal()[: len(PRIVATE)], secret.reveal()[len(PRIVATE) + 1 :].split("+", 2)
        try:
            name, key_id, encoded = rest
            seed = base64.b64decode(encoded, validate=True)
            signer = cls(check_name(name), Ed25519PrivateKey.from_private_bytes(seed[1:]))
            sound = marks == PRIVATE and seed[:1] == ED25519 and signer.verifier.key_id.hex() == key_id
        except ValueError:
            sound = False
        if not sound:
            raise UsageError(
                f"{place}: this is no private key of a log",
                hint=f"it begins with {PRIVATE}+; without one a key is made at the first start",
            )
        return signer

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self._key.public_key().public_bytes_raw())

    def text(self) -> Secret:
        """The key in the form ``parse`` reads."""
        encoded = base64.b64encode(ED25519 + self._key.private_bytes_raw()).decode()
        return Secret(f"{PRIVATE}+{self.name}+{self.verifier.key_id.hex()}+{encoded}")

    def sign(self, text: str) -> str:
        """``text`` as a signed note."""
        check_text(text)
        signature = base64.b64encode(self.verifier.key_id + self._key.sign(text.encode())).decode()
        return f"{text}\n{_DASH}{self.name} {signature}\n"


def load_signer(path: Path, variable: str = KEY_VARIABLE) -> Signer:
    """The key in the environment ``variable`` if it is set, else in the file ``path``, made at first use for its owner alone."""
    if os.environ.get(variable):
        return Signer.parse(secret_from(variable=variable), variable)
    if not path.exists():
        write_new(path, Signer.make(f"stillwatch/{secrets.token_hex(4)}").text().reveal(), variable)
    return Signer.parse(secret_from(path), str(path))


def check_name(name: str) -> str:
    """The name itself; ValueError where it could not stand in a signature line."""
    if not name or re.search(r"[\s+\x00-\x1f]", name):
        raise ValueError(f"a key's name is not empty and has no space and no plus: {name!r}")
    return name


def check_text(text: str) -> None:
    """ValueError where ``text`` cannot be signed as a note."""
    if not text.endswith("\n") or re.search(r"[\x00-\x09\x0b-\x1f]", text):
        raise ValueError("a note's text ends in a newline and has no other control characters")


def open_note(note: str, verifier: Verifier) -> str:
    """The text of a note that ``verifier`` has signed; BadNote otherwise. Signatures of others are passed over."""
    text, gap, signatures = note.rpartition("\n\n")
    text += "\n"
    lines = signatures.removesuffix("\n").split("\n")
    if not gap or not note.endswith("\n") or len(lines) > MAX_SIGNATURES:
        raise BadNote("not a signed note", hint="it may have been cut off")
    try:
        check_text(text)
        found = [_signature(line) for line in lines]
    except ValueError as e:
        raise BadNote(f"not a signed note: {e}") from e
    ours = [s[KEY_ID:] for name, s in found if name == verifier.name and s[:KEY_ID] == verifier.key_id]
    if not ours:
        signers = ", ".join(f"{name}+{s[:KEY_ID].hex()}" for name, s in found)
        raise BadNote(f"signed by {signers}, not by {verifier.name}+{verifier.key_id.hex()}", hint="is it another key?")
    if not all(verifier.holds(text, s) for s in ours):
        raise BadNote(f"the signature of {verifier.name} does not fit the text")
    return text


def _signature(line: str) -> tuple[str, bytes]:
    """Name, and key id with signature, of a signature line; ValueError where it is none."""
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH):
        raise ValueError("a signature line begins otherwise")
    try:
        signature = base64.b64decode(encoded, validate=True)
    except binascii.Error as e:
        raise ValueError("a signature is not base64") from e
    # Base64 with bits left over would let one signature be written in several ways.
    if len(signature) <= KEY_ID or base64.b64encode(signature).decode() != encoded:
        raise ValueError("a signature is too short or oddly encoded")
    return check_name(name), signature


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log promises: that its first ``size`` lines have this ``root``, for ever."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text of its note."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Of the text of a note; BadNote where it is no checkpoint. Extension lines are not understood, and refused."""
        found = re.fullmatch(r"([^\n]+)\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n", text)
        if found is None:
            raise BadNote("not a checkpoint: three lines are expected, origin, size and root")
        checkpoint = cls(found[1], int(found[2]), base64.b64decode(found[3]))
        if checkpoint.text() != text:
            raise BadNote("the checkpoint's root is oddly encoded")
        return checkpoint


def told_by(note: str) -> Checkpoint:
    """The checkpoint that a note says, whoever has signed it; BadNote where it is none. No proof of anything."""
    text, gap, _ = note.rpartition("\n\n")
    if not gap:
        raise BadNote("not a signed note", hint="it may have been cut off")
    return Checkpoint.parse(text + "\n")


def open_checkpoint(note: str, verifier: Verifier) -> Checkpoint:
    """The checkpoint in a note that ``verifier`` has signed as the log of its name; BadNote otherwise."""
    checkpoint = Checkpoint.parse(open_note(note, verifier))
    if checkpoint.origin != verifier.name:
        raise BadNote(f"a checkpoint of the log {checkpoint.origin!r}, not of {verifier.name!r}")
    return checkpoint
