"""What software sent a request and how it was set up: client, TLS, settings, tools, channel, customer's own user."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.fingerprints import Fingerprint, Values, column
from stillwatch.privacy import Privacy

SETTINGS = ("max_tokens", "temperature", "n", "logprobs", "thinking", "stream", "batch")
HASHED = {
    "channel": "channel", "end_user": "end_user", "client": "user_agent", "tls": "ja4",
    "conversation": "conversation_id",
}  # fmt: skip
"""Fact column and the exchange column it is the keyed hash of."""
_ABSENT = np.uint64(0x5DEECE66D)
_PRIME = np.uint64(0x9E3779B97F4A7C15)

Words = npt.NDArray[np.uint64]


def observe(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    """Keyed hashes, 0 where a trait is absent."""
    found: dict[str, Values] = {k: privacy.hash_strings(column(batch, v), k) for k, v in HASHED.items()}
    return found | {"settings": hash_settings(batch, privacy), "tools": hash_tools(batch, privacy)}


def mix(words: Words) -> Words:
    """Spreads 64-bit words over all bits; a bijection."""
    words = words ^ (words >> np.uint64(33))
    words = words * np.uint64(0xFF51AFD7ED558CCD)
    words = words ^ (words >> np.uint64(33))
    words = words * np.uint64(0xC4CEB9FE1A85EC53)
    return words ^ (words >> np.uint64(33))


def hash_settings(batch: pa.RecordBatch, privacy: Privacy) -> npt.NDArray[np.int64]:
    """One hash of the request parameters taken together; 0 where none was given."""
    total = np.full(batch.num_rows, privacy.seed("settings"), np.uint64)
    given = np.zeros(batch.num_rows, bool)
    for name in SETTINGS:
        values = column(batch, name, pa.float32())
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        bits = values.fill_null(0).to_numpy(zero_copy_only=False).view(np.uint32).astype(np.uint64)
        total = mix(total * _PRIME + np.where(valid, bits, _ABSENT))
        given |= valid
    return np.where(given, total.view(np.int64), 0)


def hash_tools(batch: pa.RecordBatch, privacy: Privacy) -> npt.NDArray[np.int64]:
    """One hash of the names of tools offered, in any order; 0 where none was."""
    tools = column(batch, "tools", pa.list_(pa.string()))
    names = tools.flatten().dictionary_encode()
    counts = tools.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    # Sums of mixed hashes do not depend on order; a cumulative sum may wrap, its differences stay right.
    marks = mix(privacy.hash_strings(names, "tool").view(np.uint64))
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(marks, dtype=np.uint64)])
    ends = np.cumsum(counts)
    total = mix(running[ends] - running[ends - counts] + np.uint64(privacy.seed("tools")))
    return np.where(counts > 0, total.view(np.int64), 0)


FINGERPRINT = Fingerprint(
    name="client",
    meaning="what software sent a request and how it was set up",
    needs=("user_agent",),
    kinds={
        "channel": "the channel: api, console, a cloud, a reseller",
        "end_user": "the customer's own user",
        "client": "the client software",
        "tls": "the TLS client fingerprint",
        "conversation": "the conversation",
        "settings": "the request parameters taken together",
        "tools": "the set of names of tools offered",
    },
    columns=("channel", "end_user", "client", "tls", "settings", "conversation", "tools"),
    observe=observe,
)
