"""The campaigns: what an operator decides, and the accounts that follow from it.

Whatever is habit rather than decision (volume, hours, lengths, plan, verification, age) is borrowed from
a random honest account, the donor, so that no single column tells a campaign from a customer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .people import (
    COUNTRIES,
    COUNTRY_WEIGHTS,
    DAY,
    PUBLIC_MAIL,
    SLOTS,
    THROWAWAY,
    Ledger,
    World,
    domains,
    own_addresses,
    pick_addresses,
    style_slots,
)
from .texts import OTHER_TASKS, SOURCES, SPOKEN, Book
from .wording import compose, listed

DONORS = listed(
    "chat agent_developer backend nightly_batch benchmark_researcher tutor translator vpn_user carrier_nat "
    "first_day_migrator company_undeclared generation_kit synthetic_small"
)
TALKERS = ("chat", "agent_developer", "tutor", "translator", "vpn_user", "carrier_nat")
SIZES = {
    "shares": (50, 2500),
    "proxy": (40, 500),
    "four_requests": (800, 4000),
    "purpose_only": (60, 600),
    "public_list": (60, 800),
    "small": (5, 14),
}


@dataclass(slots=True)
class Campaign:
    """The knobs of one campaign, its accounts and its styles."""

    campaign_id: str
    shape: str
    knobs: dict[str, object]
    accounts: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    styles: list[int] = field(default_factory=list)
    weights: np.ndarray = field(default_factory=lambda: np.ones(1))


def draw_shapes(rng: np.random.Generator) -> list[str]:
    """Four to eight campaigns: one that shares something, others without repeats first, then any."""
    others = [str(s) for s in rng.permutation([s for s in SIZES if s != "shares"])]
    count = int(rng.integers(4, 9))
    more = rng.choice(["shares", "shares", "purpose_only", "public_list", "small", "proxy"], 4)
    return ["shares", *others[: min(count - 1, int(rng.integers(3, 6)))], *map(str, more)][:count]


def draw_knobs(world: World, shape: str, room: int) -> dict[str, object]:
    """Everything an operator decides, from wide priors."""
    rng = world.rng
    low, high = SIZES[shape]
    high = min(high, max(low + 1, room))
    caps = list(SPOKEN if shape in ("purpose_only", "public_list") else SOURCES)
    mix = rng.choice(caps, int(rng.integers(2, 7) if shape == "public_list" else rng.integers(1, 5)), replace=False)
    start = rng.uniform(0, 0.45) * world.days
    knobs: dict[str, object] = {
        "shape": shape,
        "accounts": int(np.exp(rng.uniform(np.log(low), np.log(high)))),
        "capabilities": dict(zip(map(str, mix), rng.dirichlet(np.full(len(mix), 1.5)).round(3).tolist(), strict=True)),
        "wording": str(rng.choice(["template", "composed", "several"], p=[0.4, 0.4, 0.2])),
        "variants": int(rng.choice([1, 2, 4, 8, 20])),
        "accounts_per_card": round(float(rng.choice([1, 1, np.exp(rng.uniform(0.7, 2.5))])), 1),
        "cards_shared": round(float(rng.uniform(0.6, 1)), 2),
        "addresses": str(rng.choice(["own", "pool", "exits"], p=[0.4, 0.4, 0.2])),
        "accounts_per_address": round(float(np.exp(rng.uniform(0.3, 3.2))), 1),
        "camouflage": round(float(rng.uniform(0, 0.6)), 2),
        "customers": 0.0,
        "start_day": round(start, 2),
        "end_day": round(start + rng.choice([rng.uniform(0.4, 1), 1]) * (world.days - start), 2),
        "tempo": round(float(np.exp(rng.normal(0.1, 0.35))), 2),
        "signups": str(rng.choice(["burst", "batches", "spread"])),
        "channels": str(rng.choice(["api", "as_others", "cloud"], p=[0.4, 0.5, 0.1])),
        "aged_stock": round(float(rng.choice([0, rng.uniform(0.1, 0.8)], p=[0.3, 0.7])), 2),
        "pivot": round(float(rng.uniform(0.45, 0.9)), 2) if rng.random() < 1 / 3 else 0.0,
        "mismatch": round(float(rng.choice([0, 0, rng.uniform(0.2, 0.9)])), 2),
        "curriculum": bool(rng.random() < 0.3),
        "reasks": round(float(rng.choice([0, rng.uniform(0.02, 0.4)])), 2),
        "parameters": str(rng.choice(["as_others", "common"])),
        "client": str(rng.choice(["own_script", "popular_sdk", "mixed"])),
        "countries": int(rng.choice([0, rng.integers(2, 10)])),  # 0: as customers are spread
        "bans": int(rng.integers(1, 3)) if shape == "shares" and rng.random() < 0.35 else 0,
        "banned_share": round(float(rng.uniform(0.4, 1)), 2),
    }
    knobs.update(_shape_knobs(rng, shape, knobs, world))
    if knobs["pivot"]:
        knobs["start_day"] = min(knobs["start_day"], round(world.release_s / DAY * 0.6, 2))
        knobs["end_day"] = max(knobs["end_day"], round(min(world.release_s / DAY + 3, world.days), 2))
    return knobs


def _shape_knobs(rng: np.random.Generator, shape: str, knobs: dict[str, object], world: World) -> dict[str, object]:
    """What the shape itself demands of the knobs."""
    caps = {c: s for c, s in knobs["capabilities"].items() if c in SPOKEN} or {"math_reasoning": 1.0}
    part = lambda low, high: round(float(rng.uniform(low, high)), 2)
    found: dict[str, object] = {}
    if shape == "shares" and rng.random() < 0.3:
        found = {"wording": "paraphrased", "accounts_per_card": part(2.5, 12), "capabilities": caps}
    elif shape == "proxy":
        found = {"addresses": str(rng.choice(["pool", "exits"], p=[0.75, 0.25])), "client": "mixed"}
        found |= {
            "channels": "as_others",
            "customers": part(0.6, 0.8),
            "bans": int(rng.integers(1, 4)),
            "camouflage": 0.0,
        }
    elif shape == "four_requests":
        end = min(knobs["start_day"] + part(1, 8), world.days)
        found = {"camouflage": part(0, 0.2), "end_day": round(end, 2), "curriculum": False}
    elif shape == "purpose_only":
        found = {"wording": "paraphrased", "accounts_per_card": 1.0, "addresses": "own", "client": "mixed"}
        found |= {"reasks": 0.0, "camouflage": part(0.5, 0.7), "parameters": "as_others"}
    elif shape == "public_list":
        found = {"wording": "none", "accounts_per_card": 1.0, "addresses": "own", "tempo": part(0.3, 1)}
    elif shape == "small":
        found = {"tempo": round(float(np.exp(rng.normal(0.9, 0.4))), 2)}
    return found


def distill_styles(book: Book, knobs: dict[str, object]) -> tuple[list[int], np.ndarray]:
    """The styles of a campaign, and how its exchanges divide over them."""
    rng, styles, weights = book.rng, [], []
    for capability, share in knobs["capabilities"].items():
        spoken = knobs["wording"] in ("paraphrased", "none")
        names = (SPOKEN if spoken else SOURCES)[capability]
        names = rng.choice(names, int(rng.integers(1, len(names) + 1)), replace=False)
        tasks = OTHER_TASKS if capability == "other" else (capability,)
        names = list((SPOKEN if spoken else SOURCES)[capability]) if knobs["wording"] == "none" else names
        pool = book.lib.planted(names, tasks, english=knobs["wording"] == "paraphrased")
        if not len(pool):
            pool = book.lib.planted((SPOKEN if spoken else SOURCES)[capability], tasks, english=False)
        if spoken:
            pool = np.array([i for i in pool if book.lib.bare(int(i))], np.int32)
            share = share * len(pool)
        if len(pool) > 400 and knobs["wording"] != "none":
            pool = pool[rng.random(len(pool)) < rng.uniform(0.5, 1)]
        traits: dict[str, object] = {"capability": capability, "image_share": 0.9 * (capability == "vision")}
        if capability in ("agentic_coding", "tool_use", "computer_use") and rng.random() < 0.4:
            traits["tools"] = book.toolbox()
        traits["conversation"] = str(rng.choice(["none", "single", "session"]))
        made = _styles_of(book, knobs, pool.astype(np.int32), traits)
        styles += made
        weights += [share / len(made)] * len(made)
    if spoken:
        total = sum(weights)
        knobs["capabilities"] = {c: round(w / total, 3) for c, w in zip(knobs["capabilities"], weights, strict=True)}
    return styles, np.array(weights) / sum(weights)


def _styles_of(book: Book, knobs: dict[str, object], pool: np.ndarray, traits: dict[str, object]) -> list[int]:
    """One or two styles on a pool of items, as the campaign words them."""
    wording = knobs["wording"]
    if wording in ("paraphrased", "none"):
        return [book.add("paraphrased" if wording == "paraphrased" else "plain", pool, **traits)]
    made = []
    framed = np.array([i for i in pool if len(book.lib.template[i]) > 40], np.int32)
    if wording in ("template", "several") and len(framed) > 30:
        made.append(book.add("as_system" if book.rng.random() < 0.4 else "inline", framed, **traits))
    if wording in ("composed", "several") or not made:
        pairs = [compose(book.random, "lore") for _ in range(knobs["variants"])]
        heads, tails = tuple(h for h, _ in pairs), tuple(t for _, t in pairs if t)
        if book.rng.random() < 0.35:
            made.append(book.add("wrapped", pool, system=heads[0], tails=tails, **traits))
        else:
            made.append(book.add("wrapped", pool, heads=heads, tails=tails, **traits))
    return made


def enlist(world: World, book: Book, ledger: Ledger, honest: dict[str, np.ndarray], campaign: Campaign) -> None:
    """Open the campaign's accounts, head by head and ban by ban."""
    rng, knobs = world.rng, campaign.knobs
    campaign.styles, campaign.weights = distill_styles(book, knobs)
    n = knobs["accounts"]
    donors = np.flatnonzero(np.isin(honest["population"].astype(str), DONORS))
    donor = rng.choice(donors, n)
    c = {k: v[donor].copy() for k, v in honest.items()}
    c["kit"][:], c["org_id"][:], c["campaign"][:], c["population"][:] = None, None, campaign.campaign_id, campaign.shape
    talkers = np.flatnonzero(np.isin(honest["population"].astype(str), TALKERS))
    c["styles"] = honest["styles"][rng.choice(talkers, n)]
    share = knobs["customers"] or knobs["camouflage"]
    c["distill"] = 1 - np.clip(rng.beta(share * 60 + 0.01, (1 - share) * 60 + 0.01, n), 0, 1)
    c["volume"] *= knobs["tempo"]
    if campaign.shape == "four_requests":
        c["volume"], c["fixed"][:] = rng.integers(3, 7, n).astype(float), True
    if campaign.shape == "proxy":
        c["styles"] = style_slots(
            [book.chatty()[:3] + book.coder()[:2] + book.house("", 1)[: rng.integers(2)] for _ in range(n)]
        )
        c["end_users"] = np.where(rng.random() < 0.5, rng.integers(2, 40, n), 0).astype(np.int32)
    _identity(world, c, knobs, n)
    _addresses(world, c, knobs, n)
    _software(world, c, knobs, n)
    _schedule(world, c, knobs, n)
    campaign.accounts = ledger.add(n, c)


def _identity(world: World, c: dict[str, np.ndarray], knobs: dict[str, object], n: int) -> None:
    """Cards, phones and mail of the heads."""
    rng = world.rng
    codes = np.array(COUNTRIES, object)
    if knobs["countries"]:
        chosen = rng.choice(
            len(COUNTRIES), knobs["countries"], replace=False, p=COUNTRY_WEIGHTS / COUNTRY_WEIGHTS.sum()
        )
        weights = COUNTRY_WEIGHTS[chosen] ** rng.uniform(0.2, 1)
        c["country"] = rng.choice(chosen, n, p=weights / weights.sum())
    cards = world.token(n, 16)
    if knobs["accounts_per_card"] > 1:
        few = cards[rng.integers(0, max(1, int(n / knobs["accounts_per_card"])), n)]
        cards = np.where(rng.random(n) < knobs["cards_shared"], few, cards)
        c["plan"] = np.where((c["plan"] == "free") & (rng.random(n) < 0.8), "payg", c["plan"])
        c["payment_issuer"] = np.where(c["plan"] == "free", None, c["payment_issuer"])
    c["payment_hash"] = np.where(c["plan"] == "free", None, cards)
    c["phone_hash"] = np.where(c["phone_hash"] == None, None, world.token(n, 16))  # noqa: E711
    for name in ("billing_country", "phone_country"):
        away = rng.random(n) < max(knobs["mismatch"], 0.08)
        c[name] = np.where(away, codes[rng.integers(0, len(COUNTRIES), n)], codes[c["country"]])
    public, junk = rng.choice(np.array(PUBLIC_MAIL, object), n), rng.choice(np.array(THROWAWAY, object), n)
    u = rng.random(n)
    c["email_domain"] = np.where(u < 0.66, public, np.where(u < 0.72, junk, domains(world, n)))


def _addresses(world: World, c: dict[str, np.ndarray], knobs: dict[str, object], n: int) -> None:
    """Where the heads send from, and where they signed up."""
    rng = world.rng
    kind = str(rng.choice(["home", "hosting", "vpn"], p=[0.5, 0.3, 0.2]))
    if knobs["addresses"] == "own":
        c["ips"] = own_addresses(world, c["country"], "home" if kind == "vpn" else kind)
    elif knobs["addresses"] == "pool":
        size = max(2, int(n / knobs["accounts_per_address"]))
        pool = world.net.addresses(kind, rng.choice(c["country"], size))
        c["ips"] = pick_addresses(world, pool, n, int(rng.integers(1, SLOTS + 1)))
        stray = rng.random((n, SLOTS)) < rng.uniform(0, 0.35)
        c["ips"] = np.where(stray, own_addresses(world, c["country"]), c["ips"])
    else:
        stray = rng.random((n, SLOTS)) < rng.uniform(0.2, 0.7)
        c["ips"] = np.where(stray, own_addresses(world, c["country"]), pick_addresses(world, world.vpn_exits, n))
    fresh = world.net.addresses("home", c["country"])
    c["signup_ip"] = np.where(rng.random(n) < 0.7, c["ips"][:, 0], fresh)
    c["signup_ja4"] = world.client(np.full(n, "browser"))[1]


def _software(world: World, c: dict[str, np.ndarray], knobs: dict[str, object], n: int) -> None:
    """Channel, client and request parameters."""
    rng = world.rng
    if knobs["channels"] != "as_others":
        cloud = rng.choice(np.array(["cloud:stratus", "cloud:meridian", "api"], object), n)
        moved = rng.random(n) < rng.uniform(0.3, 1)
        c["channel"] = np.where(moved, "api" if knobs["channels"] == "api" else cloud, c["channel"])
    web = c["channel"] == "console"
    client, kind = knobs["client"], "script" if knobs["client"] == "own_script" else "sdk"
    if client != "mixed":
        agent, print_ = world.client(np.full(3, kind))
        which = np.zeros(n, int) if client == "own_script" else rng.integers(0, 3, n)
        other = web | (rng.random(n) > rng.uniform(0.35, 0.8 if n < 500 else 0.5))
        c["agent"], c["ja4"] = np.where(other, c["agent"], agent[which]), np.where(other, c["ja4"], print_[which])
    if knobs["parameters"] == "common":
        usual = rng.integers(0, n)
        for name in ("temperature", "max_tokens", "stream", "thinking"):
            c[name][rng.random(n) < rng.uniform(0.3, 0.75)] = c[name][usual]
    if knobs["pivot"]:
        moved = rng.random(n) < knobs["pivot"]
        c["switch"] = np.where(moved, world.release_s + rng.random(n) * 0.8 * DAY, c["switch"])
    if knobs["shape"] == "purpose_only":
        c["profile"] = rng.choice([0, 1, 4], n, p=[0.45, 0.4, 0.15])


def _schedule(world: World, c: dict[str, np.ndarray], knobs: dict[str, object], n: int) -> None:
    """Sign-ups, first and last day; bans cut heads off and replacements follow within hours."""
    rng = world.rng
    first, last = knobs["start_day"] * DAY, knobs["end_day"] * DAY
    born, centres = c["created"], 1 if knobs["signups"] == "burst" else int(rng.integers(3, 9))
    if knobs["signups"] != "spread":
        usable = born[born < last - DAY]
        anchor = rng.choice(usable if len(usable) else np.array([first - DAY]), centres)
        width = max(rng.uniform(0.1, 1.5), n / centres / 500)
        fresh = anchor[rng.integers(0, centres, n)] + rng.gamma(1.5, width, n) * DAY
        born = np.where(rng.random(n) < knobs["aged_stock"], born, fresh)
    born = np.where(born > last - 0.3 * DAY, first - rng.random(n) * 3 * DAY, born)
    c["created"] = born
    begin = (
        np.maximum(first, born + 600) + rng.exponential(0.25 * min(2.0, knobs["end_day"] - knobs["start_day"]), n) * DAY
    )
    c["start"] = np.minimum(begin, last - 0.1 * DAY)
    own = (c["end"] - c["start"] > 0) & (rng.random(n) < 0.3)
    c["end"] = np.where(own, np.minimum(c["end"], last), last - rng.random(n) * 0.15 * (last - c["start"]))
    c["generation"][:] = 0
    if knobs["bans"]:
        _replace_heads(world, c, knobs, n)
    c["start"] = np.clip(np.maximum(c["start"], c["created"]), 0, world.end_s - 7200)
    c["end"] = np.clip(c["end"], c["start"] + 3600, world.end_s)


def _replace_heads(world: World, c: dict[str, np.ndarray], knobs: dict[str, object], n: int) -> None:
    """Split the accounts into generations; each ban wave ends heads whose successors start within hours."""
    rng = world.rng
    first, last = knobs["start_day"] * DAY, knobs["end_day"] * DAY
    waves = first + (last - first) * (np.arange(knobs["bans"]) + rng.uniform(0.6, 1.3, knobs["bans"])) / (
        knobs["bans"] + 1
    )
    heads = max(2, int(n / (1 + knobs["bans"] * knobs["banned_share"])))
    live, free = list(range(heads)), list(range(heads, n))
    for generation, wave in enumerate(np.sort(waves), start=1):
        rng.shuffle(live)
        size = min(int(len(live) * knobs["banned_share"]), len(free))
        gone, new = np.array(live[:size], int), np.array(free[:size], int)
        moment = wave + rng.exponential(2.0, size) * 3600
        c["end"][gone] = np.minimum(moment, last)
        c["replaced"][gone] = True
        aged = rng.random(size) < 0.3
        c["created"][new] = np.where(
            aged, np.minimum(c["created"][new], moment), moment + rng.uniform(0.1, 2, size) * 3600
        )
        c["start"][new] = moment + rng.uniform(0.5, 9, size) * 3600
        c["end"][new] = last
        c["generation"][new] = generation
        live, free = live[size:] + free[:size], free[size:]
