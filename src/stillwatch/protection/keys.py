"""Keys of watermarks: one for each campaign and epoch, derived from a master secret, committed to before any test.

A key is HMAC-SHA256 of the master secret over campaign, epoch, scheme and attempt: no two are related, none need be kept,
and who holds one learns nothing of the others. Its *commitment* names it without showing it, so that a key cannot be
chosen once a suspect is known. A key that by bad luck favours what everybody writes is not issued (``vetting``): it would
lean the same way on every innocent model.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from stillwatch.protection.coins import Array, Words, threshold
from stillwatch.secret import Secret

PURPOSE = b"stillwatch watermark 1"
LEAST_MASTER = 32
"""Characters that a master secret has at least."""


class Kind(StrEnum):
    """How a sampler leans. BERNOULLI adds to the logits of favoured tokens, which bends what is said a little; GUMBEL picks by
    the key alone from the distribution as it is, which bends nothing on average but answers the same request the same way."""

    BERNOULLI = "bernoulli"
    GUMBEL = "gumbel"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a key is used. ``width``: tokens of a window; ``share`` of tokens that are favoured; ``delta`` added to their logits,
    in nats (BERNOULLI alone). A pair is favoured in tests of GUMBEL where its coin is above 1 - ``share``."""

    kind: Kind = Kind.BERNOULLI
    width: int = 1
    share: float = 0.25
    delta: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.kind))
        threshold(self.share)
        if not 1 <= self.width <= 16:
            raise ValueError(f"a window has 1 to 16 tokens, not {self.width}")
        if not 0 < self.delta <= 20:
            raise ValueError(f"delta lies above 0 and at most at 20 nats, not {self.delta}")

    def favours(self, coin: Array) -> Array:
        """Whether a coin, or each of many, is one that this scheme leans to."""
        if self.kind is Kind.BERNOULLI:
            return coin < threshold(self.share)
        return coin >= threshold(1 - self.share)

    def text(self) -> str:
        """Canonical JSON, which a key is derived from."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Key:
    """A key and what it was issued for; the secret never shows. ``key_id`` is opaque: it names neither campaign nor secret."""

    key_id: str
    campaign_id: str
    epoch: str
    scheme: Scheme
    attempt: int
    commitment: str
    secret: bytes = field(repr=False)

    @property
    def words(self) -> Words:
        """The secret, for ``coins``."""
        return Words.of(self.secret)


def derive(master: Secret, campaign_id: str, epoch: str, scheme: Scheme, attempt: int = 0) -> Key:
    """The key of a campaign in an epoch (such as ``2026-11``); equal arguments give the same key. ``attempt`` counts keys that
    vetting has turned down. ValueError for a short master secret or an empty name."""
    if len(master.reveal()) < LEAST_MASTER:
        raise ValueError(f"a master secret has at least {LEAST_MASTER} characters")
    if not campaign_id or not epoch:
        raise ValueError("a key is issued for a campaign and an epoch")
    told = json.dumps([campaign_id, epoch, scheme.text(), attempt], ensure_ascii=True).encode()
    secret = _keyed(master, b"secret", told)
    return Key(
        _keyed(master, b"id", told).hex()[:16], campaign_id, epoch, scheme, attempt, commitment_of(secret), secret
    )


def commitment_of(secret: bytes) -> str:
    """SHA-256 over the purpose and the secret, in hex."""
    return hashlib.sha256(PURPOSE + b" commitment\0" + secret).hexdigest()


def _keyed(master: Secret, use: bytes, told: bytes) -> bytes:
    return hmac.digest(master.reveal().encode(), PURPOSE + b"\0" + use + b"\0" + told, "sha256")
