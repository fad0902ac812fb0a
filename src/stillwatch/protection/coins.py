"""Keyed coins: for each (window, token) a number that nobody without the key can tell from chance, the same on every device.

A window is the ``width`` tokens before a token. SipHash-2-4 (Aumasson and Bernstein, 2012) turns key and window into two
words that no number of observed coins turns back into the key; the finalizer of SplitMix64 (Steele, Lea and Flood, 2014),
twice, turns them and the token into the coin. One coin per pair, independent of all others under a random key: so the
number of favoured tokens among distinct pairs is exactly binomial where the key had no part in the text.

All arithmetic is on signed 64-bit integers that wrap, by operators that NumPy arrays and PyTorch tensors have alike: what
is drawn on one device is the same on every other, bit for bit.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

KEY_BYTES = 32
BITS = 53
"""Random bits of a coin: as many as a double holds."""

Array = Any
"""An int64 array of NumPy, or an int64 tensor of PyTorch on any device."""


def _signed(word: int) -> int:
    """The word with the same 64 bits as a signed integer."""
    return word - (1 << 64) if word >= 1 << 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_SIP = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


@dataclass(frozen=True, slots=True)
class Words:
    """A secret as four signed words; it never shows."""

    values: tuple[int, int, int, int]

    @classmethod
    def of(cls, secret: bytes) -> Words:
        """The words of a secret of 32 bytes; ValueError for any other length."""
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(secret)}")
        return cls(struct.unpack("<4q", secret))

    def __repr__(self) -> str:
        return "Words(hidden)"


def lanes(words: Words, windows: Array) -> tuple[Array, Array]:
    """Two words for each window; ``windows`` is (..., width) of token ids, what is given is (...)."""
    k0, k1, k2, k3 = words.values
    columns = [windows[..., i] for i in range(windows.shape[-1])]
    return _sip(k0, k1, columns), _sip(k2, k3, columns)


def drawn(first: Array, second: Array, tokens: Array) -> Array:
    """The coins, whole numbers below 2**53, of ``tokens`` after windows with these lanes; shapes broadcast."""
    return _shifted(_mixed(_mixed((tokens * _GOLDEN) ^ first) + second), 64 - BITS)


def coins(words: Words, windows: Array, tokens: Array) -> Array:
    """The coin of each token after its window: ``windows`` (..., width), ``tokens`` (...)."""
    return drawn(*lanes(words, windows), tokens)


def threshold(share: float) -> int:
    """The coins below this are favoured, ``share`` of all."""
    if not 0 < share < 1:
        raise ValueError(f"the share of favoured tokens must lie between 0 and 1, not be {share}")
    return round(share * (1 << BITS))


def uniform(coin: Array) -> Array:
    """Coins (a NumPy array) as float64 in (0, 1), never at its ends: 52 of the 53 bits count, and half a step more is exact."""
    return ((coin >> 1) + 0.5) * 2.0 ** (1 - BITS)


def _shifted(x: Array, bits: int) -> Array:
    """Shifted right by ``bits``, with zeros coming in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _turned(x: Array, bits: int) -> Array:
    return (x << bits) | _shifted(x, 64 - bits)


def _mixed(x: Array) -> Array:
    x = (x ^ _shifted(x, 30)) * _MIX[0]
    x = (x ^ _shifted(x, 27)) * _MIX[1]
    return x ^ _shifted(x, 31)


def _sip(k0: int, k1: int, columns: list[Array]) -> Array:
    """SipHash-2-4 of 8-byte words, one for each token of the window, least first."""
    nothing = columns[0] ^ columns[0]
    v = [nothing + _signed(c ^ (k & (1 << 64) - 1)) for c, k in zip(_SIP, (k0, k1, k0, k1), strict=True)]
    last = nothing + _signed(((8 * len(columns)) & 0xFF) << 56)
    for word in (*columns, last):
        v[3] = v[3] ^ word
        _round(v)
        _round(v)
        v[0] = v[0] ^ word
    v[2] = v[2] ^ 0xFF
    for _ in range(4):
        _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _round(v: list[Array]) -> None:
    a, b, c, d = v
    a = a + b
    b = _turned(b, 13) ^ a
    a = _turned(a, 32)
    c = c + d
    d = _turned(d, 16) ^ c
    a = a + d
    d = _turned(d, 21) ^ a
    c = c + b
    b = _turned(b, 17) ^ c
    c = _turned(c, 32)
    v[:] = [a, b, c, d]
