"""Campaigns: accounts that look as honest ones do, changed as the knobs say."""

import numpy as np

from .draft import Columns, Draft, gathered
from .knobs import Knobs
from .listing import write_list
from .network import CODES, DAYS, EACH, FOREVER, HOURLY, OFFSETS, WEIGHTS
from .persona import equip, persona, reach
from .priors import DAY, HOUR
from .tempo import balanced, in_runs, lockstep, people, steady

ROTATION = {"forever": FOREVER, "days": DAYS, "hourly": HOURLY, "each": EACH}


def plan_counts(rng: np.random.Generator, campaigns: list[Knobs], most: float) -> list[np.ndarray]:
    """Exchanges of each account of each campaign, scaled down together if they pass `most`."""
    planned = []
    for knobs in campaigns:
        raw = rng.lognormal(np.log(knobs["requests"]), knobs["requests_sigma"], knobs["accounts"])
        planned.append(np.clip(raw, 3, 6) if knobs["class"] == "four_requests" else np.clip(raw, 2, 1_500))
    total = sum(float(p.sum()) for p, k in zip(planned, campaigns) if k["class"] != "four_requests")
    scale = min(1.0, most / max(total, 1.0))
    for knobs, raw in zip(campaigns, planned):
        if knobs["class"] != "four_requests":
            raw *= scale
            knobs["requests"] = round(knobs["requests"] * scale, 1)
    return [np.maximum(1, np.round(p)).astype(np.int64) for p in planned]


def plant(draft: Draft, number: int, knobs: Knobs, counts: np.ndarray, pools: dict[str, np.ndarray]) -> None:
    """One campaign: its accounts, schedule and list. `pools` remembers addresses by campaign."""
    rng, settings, n = draft.rng, draft.settings, len(counts)
    columns = _accounts(draft, knobs, n)
    columns["campaign"] = np.full(n, number)
    low = settings.start + int(knobs["begin"] * (settings.end - settings.start))
    high = min(settings.end, low + int(knobs["span"] * (settings.end - settings.start)))
    _lives(draft, knobs, columns, low, high)
    _cards(draft, knobs, columns)
    _addresses(draft, knobs, columns, pools)
    _manners(draft, knobs, columns)
    account = draft.open(columns)
    begin, until = columns["begin"], columns["until"]
    if knobs["tempo"] == "human":
        operator = int(rng.choice(len(CODES), p=WEIGHTS))
        offset = np.full(n, OFFSETS[operator]) if knobs["hours_of_operator"] else OFFSETS[columns["home"]]
        time, _ = people(rng, counts, begin, until, offset, rng.random(n) < 0.5)
    elif knobs["tempo"] == "clock":
        time = steady(rng, counts, begin, until)
    elif knobs["tempo"] == "balanced":
        time = balanced(rng, counts, begin, until)
    else:
        time = lockstep(rng, counts, begin, until)
    if knobs["tempo"] != "human":
        time = np.minimum(in_runs(rng, counts, time, knobs["run"], knobs["run_gap_s"]), settings.end - 1)
    who = np.repeat(np.arange(n), counts)
    order = np.lexsort((time, who))
    write_list(draft, number, knobs, account, who, time[order])


def _accounts(draft: Draft, knobs: Knobs, n: int) -> Columns:
    """A mixture of honest kinds of holder, in shuffled order."""
    rng = draft.rng
    kinds = rng.choice(["private", "developer", "firm"], n, p=rng.dirichlet([8, 8, 1.5]))
    parts = []
    for kind in np.unique(kinds):
        part = persona(draft, int((kinds == kind).sum()), str(kind), knobs["shape"])
        reach(draft, part, "home" if kind == "private" else "mixed")
        equip(draft, part, "any" if kind == "private" else "sdk")
        parts.append(part)
    columns = gathered(parts)
    order = rng.permutation(n)
    return {name: values[order] for name, values in columns.items()}


def _lives(draft: Draft, knobs: Knobs, columns: Columns, low: int, high: int) -> None:
    """Sign-up and time in use of each account, with successors for those that are banned."""
    rng, n = draft.rng, len(columns["created"])
    generations = min(knobs["generations"], max(1, n // 10))
    heads = -(-n // generations)
    head, generation = np.arange(n) % heads, np.arange(n) // heads
    first = _signups(draft, knobs, n, low, high)
    aged = rng.random(n) < knobs["aged"]
    columns["created"] = np.where(aged, np.minimum(columns["created"], low - HOUR), first)
    wait = np.where(rng.random(n) < 0.5, rng.exponential(2 * HOUR, n), rng.exponential(4 * DAY, n))
    begin = np.maximum(np.maximum(columns["created"], draft.settings.start) + 60_000_000, low) + wait
    begin = np.minimum(begin, np.maximum(columns["created"] + 60_000_000, high - 6 * HOUR))
    if knobs["class"] == "four_requests":
        late = np.maximum(columns["created"] + 60_000_000, low + rng.random(n) * (high - low) * 0.95)
        begin = np.where(aged, late, columns["created"] + 60_000_000 + rng.exponential(3 * HOUR, n))
        begin = np.maximum(begin, draft.settings.start)
        until = begin + HOUR + rng.exponential(DAY, n)
    else:
        brief = rng.random(n) < rng.uniform(0.1, 0.5)
        until = np.where(brief, begin + 2 * HOUR + rng.exponential(4 * DAY, n), high)
    if generations > 1:
        cuts = np.sort(rng.uniform(low, high, (heads, generations - 1)), axis=1)
        edges = np.concatenate([np.full((heads, 1), low), cuts, np.full((heads, 1), high)], axis=1)
        start, stop = edges[head, generation], edges[head, generation + 1]
        opened = start + rng.lognormal(np.log(3 * HOUR), 0.8, n)
        opened = np.minimum(opened, draft.settings.end - 3 * HOUR)
        columns["created"] = np.where(generation > 0, opened, columns["created"]).astype(np.int64)
        begin = np.where(generation > 0, columns["created"] + rng.exponential(HOUR, n), np.minimum(begin, stop - HOUR))
        begin = np.maximum(begin, columns["created"] + 1)
        until = np.maximum(stop, begin + HOUR)
        columns["replaced"] = (generation < generations - 1) & (np.arange(n) + heads < n)
    end = draft.settings.end
    columns["begin"] = np.minimum(np.maximum(begin, draft.settings.start), end - HOUR).astype(np.int64)
    columns["created"] = np.minimum(columns["created"], columns["begin"] - 1).astype(np.int64)
    columns["until"] = np.minimum(np.maximum(until, columns["begin"] + HOUR), end).astype(np.int64)
    columns["generation"] = generation


def _signups(draft: Draft, knobs: Knobs, n: int, low: int, high: int) -> np.ndarray:
    """Opening times of the accounts that are new: in bursts, in batches, or spread over weeks."""
    rng, width = draft.rng, high - low
    if knobs["signups"] == "burst":
        moments = low + rng.uniform(-3 * DAY, 0.4 * width, int(rng.integers(1, 4)))
        return moments[rng.integers(0, len(moments), n)] + rng.exponential(5 * HOUR, n)
    if knobs["signups"] == "batches":
        batch = np.arange(n) // int(rng.integers(10, 61))
        moments = low + rng.uniform(-10 * DAY, 0.6 * width, int(batch.max()) + 1)
        return moments[batch] + rng.exponential(1 * HOUR, n)
    return low + rng.uniform(-25 * DAY, 0.7 * width, n)


def _cards(draft: Draft, knobs: Knobs, columns: Columns) -> None:
    """Cards dealt to several accounts each, where the campaign shares them; more virtual cards."""
    rng, n = draft.rng, len(columns["created"])
    columns["virtual"] = np.full(n, max(knobs["virtual"], draft.settings.rates["virtual_cards"]))
    if knobs["accounts_per_card"] > 1:
        columns["plan"] = np.where((columns["plan"] == "free") & (rng.random(n) < 0.6), "payg", columns["plan"]).astype(
            object
        )
        cards = draft.new_cards(max(1, round(n / knobs["accounts_per_card"])))
        lot = (np.arange(n) * len(cards) // n).clip(0, len(cards) - 1)
        moved = rng.random(n) < 0.2
        columns["card"] = np.where(
            columns["plan"] == "free", -1, cards[np.where(moved, rng.integers(0, len(cards), n), lot)]
        )
    abroad = rng.random(n) < knobs["crossing"]
    other = rng.choice(len(CODES), n, p=WEIGHTS)
    kind = rng.integers(0, 3, n)
    has_phone = columns["phone_country"] >= 0
    columns["phone_country"] = np.where(abroad & (kind == 0) & has_phone, other, columns["phone_country"])
    columns["billing"] = np.where(abroad & (kind == 1), other, columns["billing"])


def _addresses(draft: Draft, knobs: Knobs, columns: Columns, pools: dict[str, np.ndarray]) -> None:
    """Addresses out of the campaign's pool, where it has one; each account has some of them at a time."""
    if not knobs["addresses"]:
        return
    rng, network, n = draft.rng, draft.network, len(columns["created"])
    if knobs["pool_of"] in pools:
        pool = pools[knobs["pool_of"]]
        knobs["addresses"] = int(pool.shape[1])
    else:
        pool = _pool(draft, knobs)
    pools[knobs["campaign_id"]] = pool
    at_a_time = min(knobs["addresses_at_a_time"], pool.shape[1])
    if rng.random() < 0.5:  # addresses of the account's own country where the pool has any
        match = rng.random(n) < 0.8
        columns["home"] = np.where(match, rng.choice(network.as_country[pool[1]], n), columns["home"])
        local = rng.random(n) > knobs["crossing"]
        columns["billing"] = np.where(match & local, columns["home"], columns["billing"])
        phoned = columns["phone_country"] >= 0
        columns["phone_country"] = np.where(match & local & phoned, columns["home"], columns["phone_country"])
    drawn = rng.integers(0, pool.shape[1], n * at_a_time)
    mine = network.add_addresses(pool[0][drawn], pool[1][drawn], np.full(n, at_a_time))
    columns["points"][:, 1], columns["sticky"][:, 1] = columns["points"][:, 0], columns["sticky"][:, 0]
    columns["points"][:, 0], columns["sticky"][:, 0] = mine, ROTATION[knobs["rotation"]]
    weight = knobs["pool_weight"]
    columns["weights"] = np.tile([weight, (1 - weight) * 0.8, (1 - weight) * 0.2], (n, 1))


def _pool(draft: Draft, knobs: Knobs) -> np.ndarray:
    """(address, network) of a proxy pool: some held by honest people too, the rest of a few countries."""
    rng, network, size = draft.rng, draft.network, knobs["addresses"]
    shared = round(size * knobs["pool_with_residents"]) if knobs["pool_kind"] != "hosting" else 0
    known, owner = np.concatenate(network.addresses), np.concatenate(network.owners)
    lines = np.flatnonzero(np.isin(network.as_kind[owner], ["isp", "mobile"]))
    taken = rng.choice(lines, shared)
    if knobs["pool_kind"] == "hosting":
        systems = rng.choice(np.flatnonzero(network.as_kind == "hosting"), size)
    else:
        lands = rng.choice(len(CODES), int(rng.integers(2, 12)), p=WEIGHTS)
        systems = network.system(knobs["pool_kind"], rng.choice(lands, size - shared))
    fresh = network.as_base[systems] + rng.integers(256, 1 << 20, len(systems))
    return np.stack([np.concatenate([known[taken], fresh]), np.concatenate([owner[taken], systems])])


def _manners(draft: Draft, knobs: Knobs, columns: Columns) -> None:
    """Channels, client, models and parameters that the operator sets for all; the rest stays as drawn."""
    rng, settings, n = draft.rng, draft.settings, len(columns["created"])
    names = np.array(knobs["channels"], dtype=object)
    columns["channel"] = names[rng.integers(0, len(names), n)]
    console = rng.random(n) < rng.uniform(0, 0.4)
    columns["channel"] = np.where(console & (columns["channel"] == "api"), "console", columns["channel"]).astype(object)
    if knobs["one_client"]:
        same = rng.random(n) < 0.9
        client = int(draft.client("sdk", 1)[0])
        for name in ("client", "client2"):
            columns[name] = np.where(same, client, columns[name])
    if knobs["one_model"]:
        same = rng.random(n) < 0.8
        columns["model"] = np.where(same, int(rng.choice(4, p=draft.model_weight)), columns["model"])
    columns["new_at"] = (settings.release + rng.random(n) * rng.uniform(1, 8) * HOUR).astype(np.int64)
    columns["new_share"] = np.clip(knobs["pivot"] * rng.uniform(0.7, 1.3, n), 0, 1)
    if knobs["temperature"] is not None:
        columns["temperature"] = np.where(rng.random(n) < 0.7, knobs["temperature"], columns["temperature"])
    if knobs["max_tokens"] is not None:
        columns["max_tokens"] = np.where(rng.random(n) < 0.8, knobs["max_tokens"], columns["max_tokens"])
    if knobs["answers"] is not None:
        columns["several"] = np.where(rng.random(n) < 0.5, knobs["answers"], columns["several"])
    if knobs["logprobs"]:
        columns["logprobs"] = np.where(rng.random(n) < 0.6, 1, columns["logprobs"])
    asks = rng.random(n) < 0.6
    columns["thinking"] = np.where(asks, np.clip(rng.normal(knobs["thinking"], 0.15, n), 0, 1), columns["thinking"])
    columns["length"] = columns["length"] * rng.uniform(0.9, 1.5)
