"""Keys and end users as they are kept: keyed hashes, from which nobody without the server's key can tell who it was.

About a microsecond each, since a gateway waits for it. A key is known to a gateway by the SHA-256 of its secret, in hex.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

PERSON = b"stillwatch who"
BYTES = 16


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks under one secret; equal secrets give equal marks. Without a secret they only shorten what is marked."""

    secret: bytes = field(default=b"", repr=False)

    def key(self, name: str) -> str:
        """The mark of a key, by the SHA-256 of its secret in hex: 32 hex digits."""
        return self._mark("key", name)

    def end_user(self, account_id: str, name: str) -> str:
        """The mark of an account's own end user: the same name with another account is somebody else."""
        return self._mark("end user", account_id, name)

    def anyone(self, name: str) -> str:
        """The mark of an end user by name alone, whosever it is."""
        return self._mark("anyone", name)

    def _mark(self, *parts: str) -> str:
        text = "\0".join(parts).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=BYTES, key=self.secret, person=PERSON).hexdigest()
