"""From streams to exchanges: how many, in which sessions, when, and of which model. Numbers only, no text yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stillwatch.simulate.people import FOREVER, NIGHT, ROUND, People, hours_of
from stillwatch.simulate.pools import F64, I64
from stillwatch.simulate.town import Town
from stillwatch.simulate.traces import Rhythms, draw

I32 = npt.NDArray[np.int32]
DAY_US = 86_400_000_000
NEW_MODEL = 3


@dataclass(frozen=True, slots=True)
class Timeline:
    """One entry an exchange, in order of time. ``time_us`` counts from the log's start; ``turn`` from 0; ``session``
    numbers sessions, ``talk`` says whether the session is one conversation."""

    time_us: I64
    account: I32
    activity: I32
    stream: I32
    session: I32
    position: I32
    talk: npt.NDArray[np.bool_]
    model: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.time_us)


@dataclass(frozen=True, slots=True)
class Stream:
    """Streams as plain columns, ``count`` exchanges each."""

    account: I64
    activity: I64
    count: I64
    mixed: npt.NDArray[np.bool_]
    end_users: F64
    session: F64
    gap_s: F64
    rhythm: I64
    adopts: F64
    adopts_share: F64
    relay: I64


def count_streams(t: Town, requests: F64) -> Stream:
    """Deals each account's exchanges (``requests``, a mean) to its streams; every account has at least one."""
    table: dict[str, Any] = t.streams.table()
    p = t.people
    account, share = table["account"].astype(np.int64), table["share"].astype(float)
    total = np.bincount(account, share, len(p))
    wanted = requests[account] * share / total[account]
    count = np.floor(wanted + t.rng.random(len(wanted))).astype(np.int64)
    idle = np.bincount(account, count, len(p)) == 0
    heaviest = np.lexsort((-share, account))
    heaviest = heaviest[np.unique(account[heaviest], return_index=True)[1]]
    count[heaviest[idle[account[heaviest]]]] = 1
    keep = count > 0

    def own(name: str, habit: F64 | I64) -> F64:
        values = table[name].astype(float)
        return np.where(np.isnan(values), habit[account].astype(float), values)[keep]

    return Stream(
        account[keep], table["activity"].astype(np.int64)[keep], count[keep], table["mixed"].astype(bool)[keep],
        table["end_users"].astype(float)[keep], own("session", p.session), own("gap_s", p.gap_s),
        own("rhythm", p.rhythm).astype(np.int64), own("adopts", p.adopts), own("adopts_share", p.adopts_share),
        table["relay"].astype(np.int64)[keep],
    )  # fmt: skip


def lay_out(t: Town, s: Stream, rhythms: Rhythms) -> Timeline:
    """Sessions and exchanges of all streams, sorted by time."""
    stream = np.repeat(np.arange(len(s.count)), s.count)
    opens = t.rng.random(len(stream)) < 1 / s.session[stream]
    opens[np.concatenate([[0], np.cumsum(s.count)[:-1]])] = True
    session = np.cumsum(opens) - 1
    head = np.flatnonzero(opens)
    owner = stream[head]
    begins_us = _beginnings(t, s, owner, rhythms)
    position = np.arange(len(stream)) - head[session]
    gap = draw(rhythms.gap, t.rng.random(len(stream))) * s.gap_s[stream] * 1e6
    gap[head] = 0
    passed = np.cumsum(gap)
    passed = (passed - passed[head][session]).astype(np.int64)
    # A session that would outlast the log begins earlier, though not before its account; none is cut.
    tail = np.concatenate([head[1:], [len(passed)]]) - 1
    end = int(t.days * DAY_US) - 1
    over = np.maximum(begins_us + passed[tail] - end + t.rng.integers(0, DAY_US // 20, len(head)), 0)
    birth = (t.people.created[s.account[owner]].clip(0) * DAY_US).astype(np.int64) + 1_000_000
    begins_us = np.maximum(begins_us - over, np.minimum(birth, end))
    time = np.minimum(begins_us[session] + passed, end)
    activity = s.activity[stream]
    mixed = s.mixed[stream]
    if mixed.any():
        every = np.concatenate([*t.everyday.activities, t.everyday.chats, t.everyday.harness])
        activity = np.where(mixed, t.rng.choice(every, len(head))[session], activity)
    talks = t.catalogue.column("talks", float).astype(float)[activity[head]]
    talk = (t.rng.random(len(head)) < talks)[session]
    model = _models(t.rng, t.people, s, stream, session, time, t.release)
    order = np.argsort(time, kind="stable")
    return Timeline(
        time[order], s.account[stream][order].astype(np.int32), activity[order].astype(np.int32),
        stream[order].astype(np.int32), session[order].astype(np.int32), position[order].astype(np.int32),
        talk[order], model[order],
    )  # fmt: skip


def _beginnings(t: Town, s: Stream, owner: I64, rhythms: Rhythms) -> I64:
    """When each session begins, in microseconds from the log's start."""
    p, account = t.people, s.account[owner]
    rhythm = s.rhythm[owner]
    u = t.rng.random((5, len(owner)))
    day = p.start[account] + u[0] * (p.stop[account] - p.start[account])
    hour = hours_of(rhythm, p.slot_hour[account], p.country[account], u[1], u[2])
    hour = np.where(rhythm == ROUND, draw(rhythms.hours, u[3]) + u[4] - 0.5, hour)
    when = np.floor(day) + hour / 24
    # Short lives keep their own moments: an hour drawn outside the span falls back to the moment drawn first.
    when = np.where((when < p.start[account]) | (when > p.stop[account]), day, when)
    weekend = ((np.floor(when).astype(np.int64) + t.weekday) % 7) >= 5
    idle = weekend & p.week_days[account] & (rhythm != NIGHT) & (when - 2 > p.start[account])
    when = np.where(idle, when - 2, when)
    for queue in np.unique(s.relay[s.relay >= 0]).tolist():
        these = np.flatnonzero(s.relay[owner] == queue)
        when[these] = _relay(t.rng, p, account[these])
    return (when * DAY_US).astype(np.int64).clip(0)


def _relay(rng: np.random.Generator, p: People, account: I64) -> F64:
    """Sessions dealt evenly over the whole queue's life, with shared pauses; accounts take turns within their spans."""
    first, last = p.start[account].min(), p.stop[account].max()
    ticks = first + (last - first) * (np.arange(len(account)) + rng.random(len(account))) / len(account)
    pauses = rng.uniform(first, last, 4)
    for pause in pauses.tolist():
        ticks = np.where((ticks > pause) & (ticks < pause + 0.15), ticks + 0.15, ticks)
    middle = np.clip((p.start[account] + p.stop[account]) / 2, first, last)
    reach = (p.stop[account] - p.start[account]) / 2
    order = np.argsort(middle + reach * rng.uniform(-1, 1, len(account)))
    out = np.empty(len(account))
    out[order] = np.sort(ticks)
    return out.clip(p.created[account] + 0.01, None)


def _models(
    rng: np.random.Generator, p: People, s: Stream, stream: I64, session: I64, time: I64, release: float
) -> npt.NDArray[np.int8]:
    """Old model of the account, or the new one once it is out and adopted; decided by session."""
    adopts = np.maximum(s.adopts, release)
    ready = (s.adopts[stream] < FOREVER) & (time >= adopts[stream] * DAY_US)
    chosen = (rng.random(int(session[-1]) + 1 if len(session) else 0))[session] < s.adopts_share[stream]
    return np.where(ready & chosen, NEW_MODEL, p.model[s.account[stream]]).astype(np.int8)
