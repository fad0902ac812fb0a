"""The one door for personal values: addresses, client names, user names, payment marks come out as keyed hashes.

A value becomes SipHash-2-4 under a 128-bit key that HMAC-SHA256 derives from the run's secret and a *purpose*, so equal
values agree within a purpose and say nothing across purposes or runs with another secret. The secret never appears in a
repr, a message or an output; ``key_id`` names it (in ``run.json``). To rotate, give the next run another secret: what was kept
under the old key id can still be compared with its like, not with what is new. 0 stands for "nothing to hash" and is never
a hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from stillwatch.errors import UsageError

KEY_VARIABLE = "STILLWATCH_KEY"
MIN_SECRET_BYTES = 16

Ints = npt.NDArray[np.int64]
Strings: TypeAlias = pa.Array | pa.ChunkedArray


@dataclass(frozen=True)
class Privacy:
    """A secret and what may be derived from it. Equal secrets give equal hashes; ``repr`` shows the key id only."""

    secret: bytes = field(repr=False)
    key_id: str = field(default="", compare=False)
    lasts: bool = field(default=True, compare=False, kw_only=True)
    """Whether another run can have this secret too."""

    def __post_init__(self) -> None:
        if len(self.secret) < MIN_SECRET_BYTES:
            raise UsageError(
                f"the privacy key is shorter than {MIN_SECRET_BYTES} bytes",
                hint=f"make one: head -c 32 /dev/urandom | base64 > key; export {KEY_VARIABLE}=$(cat key)",
            )
        object.__setattr__(self, "key_id", self._derive("key id", 4).hex())

    @classmethod
    def random(cls) -> Privacy:
        """A secret for this run alone: its hashes cannot be joined with any other run's."""
        return cls(secrets.token_bytes(32), lasts=False)

    @classmethod
    def load(cls, path: Path | None = None) -> Privacy:
        """The secret in ``path``, else in the environment variable STILLWATCH_KEY, else a random one."""
        if path is not None:
            try:
                return cls(path.read_bytes().strip())
            except OSError as e:
                raise UsageError(f"{path}: the privacy key cannot be read: {e.strerror}") from e
        value = os.environ.get(KEY_VARIABLE, "").strip()
        return cls(value.encode()) if value else cls.random()

    def _derive(self, purpose: str, size: int) -> bytes:
        return hmac.digest(self.secret, purpose.encode(), hashlib.sha256)[:size]

    def seed(self, purpose: str) -> int:
        """An unsigned 64-bit seed for this purpose."""
        return int.from_bytes(self._derive(purpose, 8), "little")

    def keys(self, purpose: str) -> npt.NDArray[np.uint64]:
        """The 128-bit SipHash key of this purpose, as two words; its first word is ``seed(purpose)``."""
        return np.frombuffer(self._derive(purpose, 16), dtype="<u8").astype(np.uint64)

    def hash_strings(self, values: Strings, purpose: str) -> Ints:
        """Keyed 64-bit hash of each value; 0 for null and empty. Any string type, dictionaries hashed once."""
        return _by_value(values, lambda a: _hash_all(*spans(a), self.keys(purpose)))

    def hash_address(self, values: Strings, purpose: str = "address") -> Ints:
        """Keyed hash of each network address however it is spelt; text that is no address is hashed as it stands."""
        return _by_value(values, lambda a: _hash_ips(*spans(a), self.keys(purpose), 32, 128, True))

    def hash_prefix(self, values: Strings, purpose: str = "net") -> Ints:
        """Keyed hash of the /24 (IPv4) or /48 (IPv6) of each address; 0 where it is no address."""
        return _by_value(values, lambda a: _hash_ips(*spans(a), self.keys(purpose), 24, 48, False))


def _by_value(values: Strings, hashed: Any) -> Ints:
    """Applies ``hashed`` to a plain array, to each chunk of a chunked one, to the dictionary of an encoded one."""
    if isinstance(values, pa.ChunkedArray):
        return np.concatenate([np.zeros(0, np.int64)] + [_by_value(c, hashed) for c in values.chunks])
    if isinstance(values, pa.DictionaryArray):
        entries = np.append(_by_value(values.dictionary, hashed), 0)
        indices = values.indices.fill_null(len(entries) - 1).to_numpy(zero_copy_only=False)
        return entries[indices.astype(np.int64)]
    result: Ints = hashed(values)
    return result


def spans(values: pa.Array) -> tuple[npt.NDArray[np.uint8], Ints, Ints]:
    """The bytes of a string array, and where each value starts and ends in them; nulls have no length."""
    if pa.types.is_null(values.type):
        zeros = np.zeros(len(values), np.int64)
        return _frozen(np.zeros(1, np.uint8)), zeros, zeros
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        values = values.cast(pa.large_string())
    wide = pa.types.is_large_string(values.type)
    _, offsets, text = values.buffers()
    data = np.frombuffer(text, np.uint8) if text is not None and text.size else np.zeros(1, np.uint8)
    if offsets is None or not len(values):
        return _frozen(data), np.zeros(0, np.int64), np.zeros(0, np.int64)
    bounds = np.frombuffer(offsets, np.int64 if wide else np.int32)[values.offset : values.offset + len(values) + 1]
    starts, ends = bounds[:-1].astype(np.int64), bounds[1:].astype(np.int64)
    if values.null_count:
        # A null may sit over bytes of any length; it must read as empty.
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        ends = np.where(valid, ends, starts)
    return _frozen(data), starts, ends


def _frozen(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Read-only in every case, so that a compiled kernel sees one type."""
    data = data.view()
    data.flags.writeable = False
    return data


@njit(cache=True, nogil=True, inline="always")
def sip_round(v: Any) -> None:
    """One SipRound on the four words of ``v``, in place."""
    v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
    v0 += v1
    v1 = (v1 << np.uint64(13)) | (v1 >> np.uint64(51))
    v1 ^= v0
    v0 = (v0 << np.uint64(32)) | (v0 >> np.uint64(32))
    v2 += v3
    v3 = (v3 << np.uint64(16)) | (v3 >> np.uint64(48))
    v3 ^= v2
    v0 += v3
    v3 = (v3 << np.uint64(21)) | (v3 >> np.uint64(43))
    v3 ^= v0
    v2 += v1
    v1 = (v1 << np.uint64(17)) | (v1 >> np.uint64(47))
    v1 ^= v2
    v2 = (v2 << np.uint64(32)) | (v2 >> np.uint64(32))
    v[0], v[1], v[2], v[3] = v0, v1, v2, v3


@njit(cache=True, nogil=True)
def sip_start(v: Any, keys: Any) -> None:
    """Puts a fresh SipHash state for ``keys`` into ``v``."""
    v[0] = keys[0] ^ np.uint64(0x736F6D6570736575)
    v[1] = keys[1] ^ np.uint64(0x646F72616E646F6D)
    v[2] = keys[0] ^ np.uint64(0x6C7967656E657261)
    v[3] = keys[1] ^ np.uint64(0x7465646279746573)


@njit(cache=True, nogil=True)
def sip_end(v: Any, rounds: int) -> Any:
    """The hash of a SipHash state after ``rounds`` closing rounds, as a signed integer that is never 0."""
    v[2] ^= np.uint64(0xFF)
    for _ in range(rounds):
        sip_round(v)
    h = np.int64(v[0] ^ v[1] ^ v[2] ^ v[3])
    return h if h != 0 else np.int64(1)


@njit(cache=True, nogil=True)
def _sip(data: Any, start: int, end: int, keys: Any, v: Any) -> int:
    """SipHash-2-4 of ``data[start:end]``."""
    sip_start(v, keys)
    i = start
    while i <= end:
        word = np.uint64(0)
        take = min(8, end - i)
        for j in range(take):
            word |= np.uint64(data[i + j]) << np.uint64(8 * j)
        if take < 8:
            word |= np.uint64(end - start) << np.uint64(56)
        v[3] ^= word
        sip_round(v)
        sip_round(v)
        v[0] ^= word
        i += 8
    return sip_end(v, 4)


@njit(cache=True, nogil=True)
def _hash_all(data: Any, starts: Any, ends: Any, keys: Any) -> Any:
    out = np.zeros(len(starts), np.int64)
    v = np.empty(4, np.uint64)
    for i in range(len(starts)):
        if ends[i] > starts[i]:
            out[i] = _sip(data, starts[i], ends[i], keys, v)
    return out


@njit(cache=True, nogil=True)
def _digit(c: int) -> int:
    """Value of a hexadecimal digit, or 16."""
    if 48 <= c <= 57:
        return c - 48
    if 97 <= (c | 32) <= 102:
        return (c | 32) - 87
    return 16


@njit(cache=True, nogil=True)
def _parse4(data: Any, start: int, end: int, out: Any, at: int) -> bool:
    """Reads dotted IPv4 into four bytes of ``out``; False if it is none."""
    value, digits, part = 0, 0, 0
    for i in range(start, end + 1):
        c = 46 if i == end else data[i]
        if c == 46:
            if digits == 0 or digits > 3 or value > 255 or part > 3:
                return False
            out[at + part] = value
            value, digits, part = 0, 0, part + 1
        elif 48 <= c <= 57:
            value, digits = value * 10 + (c - 48), digits + 1
        else:
            return False
    return part == 4


@njit(cache=True, nogil=True)
def _parse6(data: Any, start: int, end: int, out: Any) -> bool:
    """Reads IPv6 (``::`` and a dotted tail allowed, a zone dropped) into 16 bytes of ``out``; False if it is none."""
    out[:] = 0
    at, gap, i = 0, -1, start
    while i < end and data[i] != 37:
        if data[i] == 58 and i + 1 < end and data[i + 1] == 58:
            if gap >= 0:
                return False
            gap, i = at, i + 2
            continue
        if data[i] == 58:
            if at == 0 or i + 1 >= end:
                return False
            i += 1
        first, value = i, 0
        while i < end and _digit(data[i]) < 16 and i - first < 5:
            value, i = value * 16 + _digit(data[i]), i + 1
        if i < end and data[i] == 46:
            if at > 12 or not _parse4(data, first, end, out, at):
                return False
            at, i = at + 4, end
            break
        if i == first or i - first > 4 or at > 14:
            return False
        out[at], out[at + 1] = value >> 8, value & 255
        at += 2
    if gap >= 0 and at < 16:
        moved = at - gap
        for j in range(moved):
            out[15 - j] = out[at - 1 - j]
            out[at - 1 - j] = 0
        at = 16
    return at == 16


@njit(cache=True, nogil=True)
def _parse(data: Any, start: int, end: int, out: Any) -> int:
    """Reads an address into 16 bytes of ``out``, IPv4 into the last four; gives 4, 6, or 0 if it is none."""
    colon = False
    for i in range(start, min(end, start + 5)):
        colon |= data[i] == 58
    if not colon:
        out[:] = 0
        return 4 if _parse4(data, start, end, out, 12) else 0
    if not _parse6(data, start, end, out):
        return 0
    mapped = out[10] == 255 and out[11] == 255
    for i in range(10):
        mapped &= out[i] == 0
    if mapped:
        out[10], out[11] = 0, 0
    return 4 if mapped else 6


@njit(cache=True, nogil=True)
def _hash_ips(data: Any, starts: Any, ends: Any, keys: Any, bits4: int, bits6: int, other: bool) -> Any:
    """Hashes the first ``bits4`` or ``bits6`` bits of each address; other text as it stands if ``other``, else 0."""
    out = np.zeros(len(starts), np.int64)
    v = np.empty(4, np.uint64)
    packed = np.zeros(17, np.uint8)
    for i in range(len(starts)):
        if ends[i] <= starts[i]:
            continue
        version = _parse(data, starts[i], ends[i], packed[:16])
        if version:
            kept = 96 + bits4 if version == 4 else bits6
            for j in range(16):
                keep = min(8, max(0, kept - 8 * j))
                packed[j] &= np.uint8((0xFF00 >> keep) & 0xFF)
            packed[16] = version
            out[i] = _sip(packed, 0, 17, keys, v)
        elif other:
            out[i] = _sip(data, starts[i], ends[i], keys, v)
    return out
