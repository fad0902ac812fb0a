"""Coins: the published SipHash, independence, and the same on NumPy and PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stillwatch.protection.coins import BITS, Words, _sip, coins, threshold, uniform

SECRET = Words.of(bytes(range(32)))


def test_the_hash_of_windows_is_siphash_2_4() -> None:
    """Vectors of the reference implementation: key 00..0f, messages 00..(8n-1)."""
    published = {1: 0x93F5F5799A932462, 2: 0x3F2ACC7F57C29BDB, 3: 0xB8AD50C6F649AF94}
    for words, told in published.items():
        message = np.frombuffer(bytes(range(8 * words)), "<i8")
        k0, k1 = (int(x) for x in np.frombuffer(bytes(range(16)), "<i8"))
        got = _sip(k0, k1, [np.array([w]) for w in message])
        assert int(got[0]) & (1 << 64) - 1 == told


def test_a_secret_does_not_show() -> None:
    assert "hidden" in repr(SECRET)
    with pytest.raises(ValueError, match="32 bytes"):
        Words.of(b"short")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_a_share_lies_between_none_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold(share)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_favoured_tokens_are_as_many_as_chance_gives(width: int) -> None:
    """Over tokens of a window, windows of a token, and keys: each count is binomial."""
    rng = np.random.default_rng(width)
    windows = rng.integers(0, 200_000, (400, 1, width))
    favoured = coins(SECRET, windows, np.arange(1000)[None, :]) < threshold(0.25)
    for axis in (0, 1):
        counts = favoured.sum(axis=axis)
        n = favoured.shape[axis]
        z = (counts - 0.25 * n) / math.sqrt(n * 0.25 * 0.75)
        assert abs(z.mean()) < 4 / math.sqrt(z.size) * 1.5
        assert 0.85 < z.std() < 1.15
    u = uniform(coins(SECRET, windows, np.arange(1000)[None, :]))
    assert u.min() > 0 and u.max() < 1
    ends = uniform(np.array([0, (1 << BITS) - 1]))
    assert ends[0] > 0 and ends[1] < 1
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * u.size)


def test_keys_that_are_alike_share_nothing() -> None:
    """The fault of `key * token` schemes: k and 2k agree on tokens 2t and t, and all keys on token 0."""
    windows = np.arange(500)[:, None, None]
    tokens = np.arange(500)[None, :]

    def lists(secret: bytes, step: int = 1) -> np.ndarray:
        return coins(Words.of(secret), windows * step, tokens) < threshold(0.5)

    one = (12345).to_bytes(32, "little")
    for other in (24690).to_bytes(32, "little"), (12346).to_bytes(32, "little"), one[::-1], bytes(32):
        for step in (1, 2):
            agreement = (lists(one) == lists(other, step)).mean()
            assert abs(agreement - 0.5) < 0.01
    assert not (lists(one)[0] == lists(bytes(32))[0]).all(), "token 0 as a window says nothing of all keys alike"


def test_a_window_is_an_order_of_tokens_not_a_set() -> None:
    tokens = np.arange(2000)
    there, back = (coins(SECRET, np.tile([w], (2000, 1)), tokens) for w in ([3, 5], [5, 3]))
    assert (there != back).mean() > 0.99


def test_numpy_is_not_warned_of_wrapping() -> None:
    with np.errstate(all="raise"):
        assert coins(SECRET, np.full((3, 2), 2**40), np.full(3, 2**40)).max() < 1 << BITS
