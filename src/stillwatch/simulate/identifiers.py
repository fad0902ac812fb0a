"""Names for numbers: identifiers, addresses, TLS prints, and columns of few names for many rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.simulate import pools
from stillwatch.simulate.grammar import U64, mix
from stillwatch.simulate.pools import I64

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def hex_ids(values: U64, prefix: str = "") -> pa.StringArray:
    """``prefix`` and 16 hexadecimal digits of each value."""
    head = np.frombuffer(prefix.encode(), np.uint8)
    nibbles = values.astype(">u8").view(np.uint8).reshape(-1, 8)
    width = len(head) + 16
    text = np.empty((len(values), width), np.uint8)
    text[:, : len(head)] = head
    text[:, len(head) :: 2] = _HEX[nibbles >> 4]
    text[:, len(head) + 1 :: 2] = _HEX[nibbles & 15]
    offsets = np.arange(len(values) + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(text.ravel()))


def ip_strings(addresses: I64) -> pa.StringArray:
    octet = pa.array([str(i) for i in range(256)])
    parts = [octet.take(pa.array((addresses >> shift) & 255)) for shift in (24, 16, 8, 0)]
    return pc.binary_join_element_wise(*parts, ".")


def coded(
    names: pa.Array | tuple[str, ...], index: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Few names for many rows, as a dictionary column that holds only the names in use."""
    used, inverse = np.unique(index, return_inverse=True)
    values = names if isinstance(names, pa.Array) else pa.array(names, pa.string())
    mask = None if valid is None else ~valid
    return pa.DictionaryArray.from_arrays(pa.array(inverse.astype(np.int32), mask=mask), values.take(pa.array(used)))


def hashed(values: U64, prefix: str, valid: npt.NDArray[np.bool_]) -> pa.Array:
    used, inverse = np.unique(values, return_inverse=True)
    return pa.DictionaryArray.from_arrays(pa.array(inverse.astype(np.int32), mask=~valid), hex_ids(used, prefix))


def ja4_names(secret: int) -> tuple[str, ...]:
    """TLS prints of this world, ``JA4_PER_CLIENT`` a client; neighbours share one, as real libraries do."""
    values = mix(np.arange(len(pools.CLIENTS) * pools.JA4_PER_CLIENT, dtype=np.uint64) // 2 + np.uint64(secret % 1009))
    return tuple(f"t13d{1500 + v % 20}h2_{v >> 40:06x}_{v % (1 << 24):06x}" for v in values.tolist())
