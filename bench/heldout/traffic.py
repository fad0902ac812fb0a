"""From accounts to exchanges: sessions, times, items, parameters; as columns, in the order of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .campaigns import Campaign
from .people import DAY, SLOTS, ZONES, World
from .texts import Library, Style

HOURS = np.array([
    [1, 1, 1, 1, 1, 1, 2, 5, 14, 22, 24, 22, 14, 18, 24, 24, 22, 16, 8, 4, 3, 3, 2, 1],
    [4, 2, 1, 1, 1, 1, 2, 4, 6, 6, 7, 8, 9, 8, 7, 8, 9, 11, 15, 20, 24, 24, 18, 10],
    [1] * 24,
    [8, 20, 30, 22, 10, 4, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1, 2, 4],
    [3, 2, 1, 0.5, 0.5, 0.5, 1, 3, 7, 9, 10, 9, 8, 10, 14, 18, 20, 18, 14, 14, 16, 16, 12, 6],
])  # fmt: skip
WEEKEND = np.array([0.85, 0.1, 0.05, 0.1, 0.4])


@dataclass(slots=True)
class Traffic:
    """Exchange columns in time order; `account` and `style` are numbers, text comes later."""

    time: np.ndarray
    account: np.ndarray
    session: np.ndarray
    rank: np.ndarray
    ip: np.ndarray
    style: np.ndarray
    item: np.ndarray
    variant: np.ndarray
    salt: np.ndarray
    distill: np.ndarray
    end_user: np.ndarray
    new_model: np.ndarray
    second: np.ndarray

    def sorted(self) -> Traffic:
        """The same exchanges by time."""
        order = np.argsort(self.time, kind="stable")
        return Traffic(*(getattr(self, name)[order] for name in self.__slots__))


def volumes(rng: np.random.Generator, a: dict[str, np.ndarray], total: int) -> np.ndarray:
    """Exchanges of each account; all but the fixed ones scale to the world's total."""
    free = ~a["fixed"]
    wanted = np.minimum(a["volume"], 4000)
    factor = max(total - wanted[~free].sum(), 1000) / wanted[free].sum()
    count = np.where(free, wanted * factor, wanted)
    count = np.minimum(count, 0.01 * total)
    return np.maximum(np.floor(count + rng.random(len(count))), 1).astype(np.int64)


def session_starts(world: World, a: dict[str, np.ndarray], acc: np.ndarray, weekday0: int) -> np.ndarray:
    """A moment within each account's stay, at an hour of its profile in its own time zone."""
    rng, n = world.rng, len(acc)
    start, end, profile = a["start"][acc], a["end"][acc], a["profile"][acc]
    t = start + rng.random(n) * (end - start)
    zone = ZONES[a["country"][acc]] * 3600.0
    cumulative = np.cumsum(HOURS / HOURS.sum(axis=1, keepdims=True), axis=1)
    hour = (rng.random(n)[:, None] > cumulative[profile]).sum(axis=1)
    day = np.floor((t + zone) / DAY)
    weekend = (day.astype(int) + weekday0) % 7 >= 5
    day -= np.where(weekend & (rng.random(n) < WEEKEND[profile]), rng.integers(1, 5, n), 0)
    local = day * DAY + (hour + rng.random(n)) * 3600 - zone
    return np.where((local >= start) & (local < end), local, t)


def build(
    world: World, lib: Library, styles: list[Style], a: dict[str, np.ndarray], campaigns: list[Campaign], total: int
) -> Traffic:
    """All exchanges of all accounts."""
    rng = world.rng
    count = volumes(rng, a, total)
    sessions = np.maximum(1, np.round(count / a["session"] + 0.2)).astype(np.int64)
    owner = np.repeat(np.arange(len(count)), sessions)
    offset = np.concatenate([[0], np.cumsum(sessions)[:-1]])
    begin = session_starts(world, a, owner, int(rng.integers(0, 7)))
    acc = np.repeat(np.arange(len(count)), count)
    session = np.sort(offset[acc] + (rng.random(len(acc)) * sessions[acc]).astype(np.int64))
    acc, n, per = owner[session], len(acc), len(owner)
    time, rank = _moments(world, a, acc, session, begin)
    distill = (rng.random(per) < a["distill"][owner])[session]
    single = (a["fixed"] | np.isin(a["population"].astype(str), ("proxy", "purpose_only")))[acc]
    distill[single] = (rng.random(n) < a["distill"][acc])[single]
    users = a["end_users"][owner]
    traffic = Traffic(
        time=time,
        account=acc,
        session=session,
        rank=rank,
        ip=a["ips"][owner, rng.integers(0, SLOTS, per)][session],
        style=a["styles"][owner, rng.integers(0, SLOTS, per)][session],
        item=np.zeros(n, np.int32),
        variant=np.zeros(n, np.int32),
        salt=rng.integers(0, 1 << 40, n),
        distill=distill,
        end_user=np.where(users > 0, (rng.random(per) ** 1.5 * users).astype(np.int64), -1)[session],
        new_model=(time >= a["switch"][acc]) & (time >= world.release_s) & (rng.random(n) < 0.9),
        second=rng.random(n) < 0.1,
    ).sorted()
    _honest_items(rng, styles, traffic)
    for campaign in campaigns:
        _hand_out(rng, lib, styles, traffic, campaign)
    return traffic


def _moments(
    world: World, a: dict[str, np.ndarray], acc: np.ndarray, session: np.ndarray, begin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Time of each exchange and its place in its session; none after the account's end."""
    rng, n = world.rng, len(acc)
    first = np.concatenate([[True], session[1:] != session[:-1]])
    place = np.maximum.accumulate(np.where(first, np.arange(n), 0))
    run = np.cumsum(np.where(first, 0, a["gap"][acc] * rng.gamma(0.7, 1.4, n) + 0.3))
    start, end = begin[session], a["end"][acc]
    time = start + run - run[place]
    late = np.flatnonzero(time >= end)
    time[late] = start[late] + rng.random(len(late)) * np.maximum(end - start, 1)[late]
    return np.clip(time, 0, world.end_s - 1e-3), np.arange(n) - place


def _honest_items(rng: np.random.Generator, styles: list[Style], traffic: Traffic) -> None:
    """A random item of the style's pool for every exchange."""
    pools: dict[int, int] = {}
    flat, start, at = [], np.zeros(len(styles), np.int64), 0
    for k, style in enumerate(styles):
        if id(style.pool) not in pools:
            pools[id(style.pool)] = at
            flat.append(style.pool)
            at += len(style.pool)
        start[k] = pools[id(style.pool)]
    size = np.array([len(s.pool) for s in styles])
    where = start[traffic.style] + (rng.random(len(traffic.style)) * size[traffic.style]).astype(np.int64)
    traffic.item[:] = np.concatenate(flat)[where]


def _hand_out(
    rng: np.random.Generator, lib: Library, styles: list[Style], traffic: Traffic, campaign: Campaign
) -> None:
    """Divide the operator's list among the heads: by account, or along time as a curriculum."""
    rows = np.flatnonzero(traffic.distill & np.isin(traffic.account, campaign.accounts))
    knobs = campaign.knobs
    traffic.style[rows] = np.array(campaign.styles)[rng.choice(len(campaign.styles), len(rows), p=campaign.weights)]
    if knobs["curriculum"]:
        by_time = np.linspace(0, len(campaign.styles) - 1e-9, len(rows)).astype(int)
        swept = rng.random(len(rows)) < 0.6
        traffic.style[rows[swept]] = np.array(campaign.styles)[by_time[swept]]
    for number in campaign.styles:
        mine = rows[traffic.style[rows] == number]
        pool = rng.permutation(styles[number].pool)
        if knobs["curriculum"]:
            pool = pool[np.argsort([len(lib.prompt[i]) for i in pool], kind="stable")]
        else:
            mine = mine[np.argsort(traffic.account[mine], kind="stable")]
        place = np.arange(len(mine))
        again = rng.random(len(mine)) < knobs["reasks"]
        place[again] = (rng.random(again.sum()) * len(mine)).astype(int)
        traffic.item[mine] = pool[place % len(pool)]
        traffic.variant[mine] = 0 if knobs["wording"] == "none" else place // len(pool)


def realised_shares(
    lib: Library, styles: list[Style], traffic: Traffic, a: dict[str, np.ndarray], campaign: Campaign
) -> list[str]:
    """What at least half of the accounts really share with another account of the campaign."""
    rows = np.flatnonzero(np.isin(traffic.account, campaign.accounts))
    wrappers: dict[str, int] = {"": 0}
    pairs = set()
    for r in rows[traffic.distill[rows]]:
        style, item, salt = styles[traffic.style[r]], int(traffic.item[r]), int(traffic.salt[r])
        if style.kind in ("inline", "as_system"):
            text = lib.template[item]
        elif style.kind == "wrapped":
            text = (style.system or "") + (style.heads[salt % len(style.heads)] if style.heads else "")
        else:
            text = ""
        pairs.add((int(traffic.account[r]), wrappers.setdefault(text, len(wrappers))))
    worded = np.array([p for p in pairs if p[1] > 0] or np.zeros((0, 2)), dtype=np.int64)
    sent = np.unique(np.stack([traffic.account[rows], traffic.ip[rows]], axis=1), axis=0)
    paid = [(k, c) for k, c in zip(campaign.accounts, a["payment_hash"][campaign.accounts], strict=True) if c]
    number = {c: k for k, c in enumerate({c for _, c in paid})}
    cards = np.array([(k, number[c]) for k, c in paid] or np.zeros((0, 2)), dtype=np.int64)
    found = []
    for name, table in (("wording", worded), ("cards", cards), ("addresses", sent)):
        _, inverse, holders = np.unique(table[:, 1], return_inverse=True, return_counts=True)
        sharing = np.unique(table[holders[inverse] > 1, 0])
        if len(sharing) * 2 >= len(campaign.accounts):
            found.append(name)
    return found
