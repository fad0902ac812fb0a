"""From accounts to requests: how many, when, from where, by what model, about which item and with which parameters."""

from __future__ import annotations

import numpy as np

from strangers.network import mixed
from strangers.people import CHANNELS, DAY, Block, World

Rows = dict[str, np.ndarray]
CAPABILITIES = ("agentic_coding", "tool_use", "coding", "data_analysis", "computer_use", "vision", "math_reasoning",
                "cot_elicitation", "grading", "sensitive_rewrite")  # fmt: skip
TOOLS = np.array(["bash", "read_file", "edit_file", "search", "browser", "python", "sql", "calendar", "mail", "weather",
                  "translate", "calculator", "fetch", "click", "screenshot", "kb_lookup", "order_status", "todo"])  # fmt: skip
WITH_TOOLS = ("tool_use", "agentic_coding", "computer_use")


def counts(w: World, a: Block) -> np.ndarray:
    """Requests of each account: drawn volumes scaled to the size of the world, except where they are exact."""
    exact = a["exact"]
    wish = np.minimum(a["volume"], np.quantile(a["volume"], 0.9995))
    scale = (w.exchanges - wish[exact].sum()) / wish[~exact].sum()
    n = w.rng.poisson(np.minimum(wish * scale, w.exchanges * 0.03))
    n = np.where(exact, a["volume"].astype(int), np.maximum(n, 1))
    return np.where(a["start"] < w.days * DAY - 60, n, 0)


def sessions(w: World, a: Block, n: np.ndarray) -> Rows:
    """Rows by account and session."""
    account = np.repeat(np.arange(len(n)), n)
    new = w.rng.random(len(account)) < a["fresh"][account]
    new[np.flatnonzero(np.diff(account, prepend=-1))] = True
    session = np.cumsum(new) - 1
    return {"account": account, "session": session, "new": new}


def clock(w: World, a: Block, who: np.ndarray) -> np.ndarray:
    """Moments (s) at which sessions of these accounts begin."""
    rng, n = w.rng, len(who)
    kind, start, span = a["kind"][who], a["start"][who], np.maximum(a["end"][who] - a["start"][who], 600)
    t = start + rng.random(n) ** a["ramp"][who] * span
    east = np.array(w.knobs["east"])[a["home"][who]]
    hour = np.where(rng.random(n) < 0.8, rng.normal(a["peak"][who], a["width"][who]), rng.uniform(7, 24, n)) - east
    hour = np.where(kind == 3, rng.normal(a["peak"][who] + 11, 0.4), hour) % 24
    human = np.floor(t / DAY) * DAY + hour * 3_600
    weekday = (np.floor(human / DAY).astype(int) + w.knobs["weekday"]) % 7
    human = np.where((weekday >= 5) & (rng.random(n) < a["weekend"][who]), human + rng.choice((2, -2), n) * DAY, human)
    t = np.where((kind == 0) | (kind == 3), human, t)
    app = np.flatnonzero(kind == 2)
    for donor in np.unique(a["trace"][who[app]]):
        mine = app[a["trace"][who[app]] == donor]
        begin, edges = w.traces.arrivals[donor]
        at = begin[np.searchsorted(edges, rng.random(len(mine))).clip(0, len(begin) - 1)]
        week = rng.integers(0, max(1, int(w.days // 7)), len(mine)) * 7 * DAY
        t[mine] = at + week + rng.uniform(0, 600, len(mine)) - east[mine] * 3_600
    return start + (t - start) % span


def times(w: World, a: Block, r: Rows) -> None:
    """When each request arrives: its session's beginning and real pauses after it."""
    rng, n = w.rng, len(r["account"])
    first = np.flatnonzero(r["new"])
    begin = clock(w, a, r["account"][first])
    pace = np.where(np.isin(a["kind"], (1, 3)), 0.3 * a["pace"], a["pace"])[r["account"]]
    gap = rng.choice(w.traces.gaps, n) * pace
    gap[first] = 0
    passed = np.cumsum(gap)
    t = begin[r["session"]] + passed - passed[first][r["session"]]
    start, end = a["start"][r["account"]], np.minimum(a["end"][r["account"]], w.days * DAY - 1)
    end = np.maximum(end, start + 1)
    r["time"] = np.minimum(start + (t - start) % np.maximum(end - start, 60), w.days * DAY - 1)
    order = np.argsort(r["time"], kind="stable")
    for name in list(r):
        r[name] = r[name][order]


def turns(r: Rows) -> np.ndarray:
    """The place of each row in its session."""
    order = np.lexsort((r["time"], r["session"]))
    s = r["session"][order]
    first = np.flatnonzero(np.diff(s, prepend=-1))
    place = np.empty(len(s), dtype=np.int64)
    place[order] = np.arange(len(s)) - np.repeat(first, np.diff(np.append(first, len(s))))
    return place


def contents(w: World, a: Block, r: Rows) -> None:
    """The stream, item and wrapper of each row, and the person (taste) who wrote it."""
    rng, n = w.rng, len(r["account"])
    r["source"], r["item"], r["variant"] = np.zeros(n, int), np.zeros(n, int), np.full(n, -1)
    u_session, u_row = (mixed(r["session"], w.next_id) >> np.uint64(11)).astype(float) / 2.0**53, rng.random(n)
    plan = a["plan_no"][r["account"]]
    order = np.argsort(plan, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(plan[order])) + 1):
        streams, edges, by_row = w.plans[plan[rows[0]]]
        u = u_row[rows] if by_row else u_session[rows]
        r["source"][rows] = streams[np.searchsorted(edges, u).clip(0, len(streams) - 1)]
    crowd = a["crowd"][r["account"]]
    r["taste"] = np.where(crowd, (mixed(r["session"], 5) >> np.uint64(34)).astype(np.int64), a["taste"][r["account"]])
    order = np.argsort(r["source"], kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(r["source"][order])) + 1):
        s = w.streams[r["source"][rows[0]]]
        r["item"][rows] = s.choose(r["account"][rows], r["taste"][rows], rng)
        r["variant"][rows] = s.variants(r["account"][rows], rng)
    personal = np.array([s.personal for s in w.streams])[r["source"]]
    r["turn"] = np.where(personal, turns(r), 0)
    r["planted"] = np.array([s.planted for s in w.streams])[r["source"]]


def addresses(w: World, a: Block, r: Rows) -> None:
    """The address of each row: carrier, pool or own, the choice kept for a session unless the account hops."""
    rng, net, who = w.rng, w.net, r["account"]
    key = np.where(a["hop"][who], np.arange(len(who)) + (1 << 40), r["session"])
    u = (mixed(key, 17) >> np.uint64(11)).astype(float) / 2.0**53
    lease = (mixed(key, 23) % (1 + mixed(key, 29) % a["leases"][who].astype(np.uint64))).astype(np.int64)
    provider = a["provider"][who]
    ip, at = net.own(provider, mixed(a["keys"][who], lease)), provider.copy()
    spot = np.where(
        a["rotating"][who], mixed(key, 31), mixed(a["keys"][who], mixed(key, 37) % a["spots"][who].astype(np.uint64))
    )
    mobile = u < a["mobile"][who]
    pool = np.where(mobile, np.array(net.carriers)[_carrier(a, who, len(net.carriers))], a["pool"][who])
    pooled = mobile | ((a["pool"][who] >= 0) & (u >= 1 - a["pool_share"][who]))
    for one in np.unique(pool[pooled]):
        rows = np.flatnonzero(pooled & (pool == one))
        values, providers = net.pools[one]
        index = (spot[rows] % np.uint64(len(values))).astype(np.int64)
        ip[rows], at[rows] = values[index], providers[index]
    r["ip"], r["at"] = ip, at
    r["client"] = np.where(rng.random(len(who)) < 0.8, a["client"][who], a["client2"][who])


def _carrier(a: Block, who: np.ndarray, many: int) -> np.ndarray:
    half = many // 2
    return a["home"][who] % half + half * (a["keys"][who] % 3 == 0)


def parameters(w: World, a: Block, r: Rows) -> None:
    """Model, lengths and request parameters, all habits of the account."""
    rng, who = w.rng, r["account"]
    n = len(who)
    releases = np.array(w.releases)
    old = np.where(rng.random(n) < a["loyal"][who], a["base"][who], a["base2"][who])
    newest = np.searchsorted(releases, np.minimum(a["switch"][who], 1e12), side="right") - 1
    moved = (r["time"] >= a["switch"][who]) & (rng.random(n) < a["moved"][who])
    r["model"] = np.where(moved, newest, old)
    out, context = np.ones(n), np.ones(n)
    for style in range(3):
        rows = np.flatnonzero(a["style"][who] == style)
        pick = rng.integers(0, len(w.traces.answers[style]), len(rows))
        out[rows], context[rows] = w.traces.answers[style][pick], w.traces.contexts[style][pick]
    out = np.maximum(out * a["length"][who] * rng.lognormal(0, 0.2, n), 1)
    limit = np.where(a["max_tokens"][who] > 0, a["max_tokens"][who], 32_000)
    r["cut"], r["output_tokens"] = out > limit, np.minimum(out, limit).astype(np.int32)
    r["extra"] = a["overhead"][who] + r["turn"] * np.minimum(context, 4_000) * 0.3
    for name in ("thinking", "stream", "batch"):
        r[name] = rng.random(n) < a[name][who]
    r["reasoning_tokens"] = np.where(r["thinking"], rng.lognormal(6, 1.1, n), 0).astype(np.int32)
    bad = w.knobs["failures"]
    r["status"] = rng.choice((200, 429, 400, 500, 529), n, p=(1 - bad, bad * 0.5, bad * 0.15, bad * 0.15, bad * 0.2))


def requests(w: World, a: Block) -> Rows:
    """All requests of the world, in order of time."""
    home = np.where(a["provider"] < 0, w.net.home_in(w.rng, a["home"]), a["provider"])
    a["provider"] = home
    r = sessions(w, a, counts(w, a))
    times(w, a, r)
    contents(w, a, r)
    addresses(w, a, r)
    parameters(w, a, r)
    return r


def shared(w: World, a: Block, r: Rows, campaign: dict) -> list[str]:
    """Which of wording, cards and addresses at least half of a campaign's accounts share with another of it."""
    members = np.flatnonzero(a["campaign_id"] == campaign["campaign_id"])
    inside = np.zeros(len(a["created"]), dtype=bool)
    inside[members] = True
    rows = np.flatnonzero(inside[r["account"]])
    mine = rows[r["planted"][rows]]
    stream = w.streams[campaign["stream"]]
    found = {
        "wording": _half(r["account"][mine], r["variant"][mine], len(members)) if stream.wrappers else False,
        "cards": _half(
            members, np.array([hash_or(v, i) for i, v in enumerate(a["payment_hash"][members])]), len(members)
        ),
        "addresses": _half(r["account"][rows], r["ip"][rows], len(members)),
    }
    if len(stream.system) == 1:
        found["wording"] = True
    return [name for name, yes in found.items() if yes]


def hash_or(value: str | None, i: int) -> int:
    """A number for a value; a number of its own for none."""
    return -1 - i if value is None else int(value[1:], 16)


def _half(account: np.ndarray, value: np.ndarray, of: int) -> bool:
    pairs = np.unique(np.stack([account.astype(np.int64), value.astype(np.int64)], axis=1), axis=0)
    _, place, many = np.unique(pairs[:, 1], return_inverse=True, return_counts=True)
    return len(np.unique(pairs[many[place] > 1, 0])) * 2 >= of


def channel_names(a: Block) -> np.ndarray:
    """The channel of each account."""
    return np.array(CHANNELS, dtype=object)[a["channel"]]
