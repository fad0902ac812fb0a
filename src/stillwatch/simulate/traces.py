"""Rhythms: gaps within sessions and lengths of answers, built in or read from real traces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stillwatch.errors import UsageError
from stillwatch.simulate.pools import F64


@dataclass(frozen=True, slots=True)
class Rhythms:
    """Sorted samples to draw from by rank. ``gap`` is relative to an account's usual gap (median 1); the lengths are
    relative to an activity's usual length; ``hours`` are hours of day, UTC, of services that run round the clock."""

    gap: F64
    chat_length: F64
    code_length: F64
    hours: F64


def built_in(rng: np.random.Generator, size: int = 20_000) -> Rhythms:
    """Log-normal gaps with a tail of long thoughts, log-normal lengths, even hours."""
    gap = np.where(rng.random(size) < 0.12, rng.lognormal(1.8, 0.9, size), rng.lognormal(-0.1, 0.7, size))
    return Rhythms(
        np.sort(gap), np.sort(rng.lognormal(0, 0.8, size)), np.sort(rng.lognormal(-0.1, 1.0, size)),
        np.sort(24 * rng.random(size)),
    )  # fmt: skip


def read_rhythms(folder: Path) -> Rhythms:
    """Rhythms of real services, from the files of one folder.

    Raises ``UsageError`` where a file or column that is needed is not there.
    """
    try:
        sessions = pq.read_table(folder / "claude_code_sessions_a.parquet", columns=["session_id", "agent", "t_seconds",
                                                                                     "output_tokens"])  # fmt: skip
        chat = pq.read_table(folder / "azure_llm_2023_conv.parquet", columns=["output_tokens"])
        arrivals = pq.read_table(folder / "servegen_m_mid_arrivals.parquet", columns=["window_start_s", "rate_rps"])
    except (OSError, KeyError, ValueError) as fault:
        raise UsageError(f"cannot read traces: {fault}", hint=f"{folder} must hold the trace files") from fault
    gaps = np.diff(sessions["t_seconds"].to_numpy())
    same = sessions["session_id"].to_numpy()
    gaps = gaps[(same[1:] == same[:-1]) & (gaps > 0.2) & (gaps < 7200)]
    rate = np.bincount(
        (arrivals["window_start_s"].to_numpy() // 3600 % 24).astype(int), arrivals["rate_rps"].to_numpy(), 24
    )
    return Rhythms(
        _relative(gaps), _relative(chat["output_tokens"].to_numpy()), _relative(sessions["output_tokens"].to_numpy()),
        np.sort(np.repeat(np.arange(24), np.round(rate / rate.sum() * 20_000).astype(int)) + 0.5),
    )  # fmt: skip


def _relative(values: F64) -> F64:
    known = values[np.isfinite(values) & (values > 0)]
    return np.sort(known / np.median(known)).clip(0.01, 60)


def draw(sample: F64, u: F64) -> F64:
    """Values of a sorted sample at these ranks in [0, 1)."""
    return sample[(u * len(sample)).astype(np.int64)]
