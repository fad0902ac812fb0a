"""When requests arrive: sessions of people, clocks, products, and the schedules of operators.

Every function returns times in microseconds, one for each exchange, grouped by account, inside [begin, end).
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from .priors import DAY, HOUR


class Traces:
    """What is taken from the public traces: think times, arrival rates of products, answer lengths."""

    def __init__(self, folder: Path) -> None:
        sessions = pq.read_table(folder / "claude_code_sessions_a.parquet", columns=["think_time_s"])
        think = sessions["think_time_s"].drop_null().to_numpy()
        self.think_s = np.clip(think[think > 0.5], 0.5, 3_600)
        self.answers = {}
        for name in ("code", "conv"):
            table = pq.read_table(folder / f"azure_llm_2023_{name}.parquet", columns=["output_tokens"])
            self.answers[name] = np.maximum(table["output_tokens"].to_numpy(), 1)
        rates = pq.read_table(
            folder / "servegen_m_mid_arrivals.parquet", columns=["client_id", "window_start_s", "rate_rps"]
        )
        who, when, rate = (rates[c].to_numpy() for c in ("client_id", "window_start_s", "rate_rps"))
        self.rates = []
        for client in np.unique(who):
            mine = who == client
            if mine.sum() >= 200:
                self.rates.append((when[mine].astype(np.float64), np.cumsum(rate[mine]) / rate[mine].sum()))


def people(
    rng: np.random.Generator,
    counts: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    offset_h: np.ndarray,
    working: np.ndarray,
    gaps_s: np.ndarray | None = None,
    length: float = 3.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Times and session numbers: sessions at a person's own hours, pauses to read and think within."""
    account = np.repeat(np.arange(len(counts)), counts)
    total = len(account)
    first = np.diff(account, prepend=-1) != 0
    own_length = np.maximum(1.05, rng.lognormal(np.log(length), 0.8, len(counts)))
    new = first | (rng.random(total) < 1 / own_length[account])
    session = np.cumsum(new) - 1
    who = account[new]
    peak = np.where(working, rng.normal(13, 1.5, len(counts)), rng.normal(17, 4, len(counts)))
    spread = rng.uniform(1.5, 4, len(counts))
    day = np.floor((begin[who] + rng.random(len(who)) * (end - begin)[who]) / DAY)
    # 1970-01-01 was a Thursday: (day + 3) % 7 is 5 on Saturday, 6 on Sunday.
    day -= np.where(
        working[who] & ((day + 3) % 7 >= 5) & (rng.random(len(who)) < 0.85), rng.integers(1, 4, len(who)), 0
    )
    hour = (peak[who] + rng.normal(0, 1, len(who)) * spread[who]) % 24 - offset_h[who]
    start = day * DAY + hour * HOUR
    gap = rng.lognormal(np.log(75), 1.2, total) if gaps_s is None else rng.choice(gaps_s, total)
    gap[new] = 0
    within = np.cumsum(gap)
    within -= within[np.flatnonzero(new)][session]
    return inside(rng, start[session] + within * 1e6, begin[account], end[account]), session


def steady(
    rng: np.random.Generator, counts: np.ndarray, begin: np.ndarray, end: np.ndarray, shake: float = 0.3
) -> np.ndarray:
    """The clock: even gaps with a little shake, day and night."""
    account, place = np.repeat(np.arange(len(counts)), counts), order_within(counts)
    share = (place + 0.5 + shake * (rng.random(len(account)) - 0.5)) / counts[account]
    return (begin[account] + share * (end - begin)[account]).astype(np.int64)


def nightly(rng: np.random.Generator, counts: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """One run a day at a fixed minute, requests a few seconds apart."""
    account, place = np.repeat(np.arange(len(counts)), counts), order_within(counts)
    days = np.maximum(1, ((end - begin) // DAY).astype(np.int64))
    runs = np.minimum(days, rng.integers(3, 40, len(counts)))
    run, within = place % runs[account], place // runs[account]
    hour = rng.integers(0, 24 * 60, len(counts)) * (HOUR // 60)
    day = np.floor(begin / DAY)[account] + np.floor(run * days[account] / runs[account])
    gap = rng.lognormal(np.log(4), 1, len(counts))[account]
    time = day * DAY + hour[account] + (within * gap + rng.exponential(1, len(account))) * 1e6
    return inside(rng, time, begin[account], end[account])


def product(
    rng: np.random.Generator, traces: Traces, counts: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """The hours of somebody else's customers: arrival rates of a real client of a public trace."""
    times = []
    for n, low, high, client in zip(counts, begin, end, rng.integers(0, len(traces.rates), len(counts))):
        when, share = traces.rates[client]
        drawn = when[np.searchsorted(share, rng.random(n)).clip(0, len(when) - 1)] + rng.random(n) * 600
        first_week = np.floor(low / (7 * DAY)) * 7 * DAY
        time = first_week + drawn * 1e6 + rng.integers(0, 5, n) * 7 * DAY
        times.append(inside(rng, time, np.full(n, low), np.full(n, high)))
    return np.concatenate(times) if times else np.zeros(0, np.int64)


def balanced(rng: np.random.Generator, counts: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """One queue for all: a smooth stream that is dealt to the accounts that are open at the time."""
    account = np.repeat(np.arange(len(counts)), counts)
    wave = 0.35 * np.sin(np.linspace(0, 2 * np.pi, 24, endpoint=False) + rng.uniform(0, 6)) + 1
    time = begin[account] + rng.random(len(account)) * (end - begin)[account]
    keep = rng.random(len(account)) < wave[((time // HOUR) % 24).astype(int)] / wave.max()
    again = begin[account] + rng.random(len(account)) * (end - begin)[account]
    return np.where(keep, time, again).astype(np.int64)


def lockstep(rng: np.random.Generator, counts: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """All pause and all resume together."""
    account = np.repeat(np.arange(len(counts)), counts)
    time = begin[account] + rng.random(len(account)) * (end - begin)[account]
    on, off = rng.uniform(2, 6) * HOUR, rng.uniform(1, 5) * HOUR
    phase = np.floor(time / (on + off))
    return inside(rng, phase * (on + off) + rng.random(len(account)) * on, begin[account], end[account])


def in_runs(rng: np.random.Generator, counts: np.ndarray, time: np.ndarray, length: float, gap_s: float) -> np.ndarray:
    """The same load, but each account takes about `length` requests in a row before the next has its turn."""
    account = np.repeat(np.arange(len(counts)), counts)
    time = time[np.lexsort((time, account))]
    new = (np.diff(account, prepend=-1) != 0) | (rng.random(len(time)) < 1 / max(length, 1.0))
    gap = np.where(new, 0, rng.lognormal(np.log(gap_s), 0.7, len(time)) * 1e6)
    within, run = np.cumsum(gap), np.cumsum(new) - 1
    return (time[new][run] + within - within[np.flatnonzero(new)][run]).astype(np.int64)


def inside(rng: np.random.Generator, time: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Times outside are moved by whole days where that helps, else drawn anew."""
    time = np.where(time < begin, time + DAY * np.ceil((begin - time) / DAY), time)
    time = np.where(time >= end, time - DAY * np.ceil((time - end + 1) / DAY), time)
    lost = (time < begin) | (time >= end)
    return np.where(lost, begin + rng.random(len(time)) * (end - begin), time).astype(np.int64)


def order_within(counts: np.ndarray) -> np.ndarray:
    """0, 1, 2 ... for each account."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
