"""What an account looks like from outside: sign-up, plan, card, phone, addresses, client, models, parameters.

Honest people and campaigns are drawn here, by the same functions; campaigns change afterwards what their knobs say.
"""

import numpy as np

from .draft import NEVER, Columns, Draft
from .network import CODES, DAYS, FOREVER, HOURLY, WEIGHTS
from .priors import DAY, HOUR, pick

# plan, verification, mail and programme of each kind of holder: weights
PERSONAS: dict[str, dict[str, dict[str, float]]] = {
    "private": {
        "plan": {"free": 0.4, "payg": 0.58, "enterprise": 0.02},
        "verification": {"none": 0.05, "email": 0.45, "phone": 0.3, "card": 0.2},
        "mail": {"public": 0.95, "own": 0.03, "disposable": 0.02},
        "programme": {"none": 0.99, "education": 0.01},
    },
    "developer": {
        "plan": {"free": 0.15, "payg": 0.8, "enterprise": 0.05},
        "verification": {"none": 0.05, "email": 0.35, "phone": 0.25, "card": 0.32, "domain": 0.03},
        "mail": {"public": 0.8, "own": 0.17, "disposable": 0.03},
        "programme": {"none": 0.95, "startup": 0.03, "research": 0.02},
    },
    "firm": {
        "plan": {"payg": 0.65, "enterprise": 0.35},
        "verification": {"email": 0.15, "card": 0.35, "domain": 0.35, "id": 0.08, "contract": 0.07},
        "mail": {"public": 0.15, "own": 0.85},
        "programme": {"none": 0.9, "startup": 0.1},
    },
    "student": {
        "plan": {"free": 0.6, "payg": 0.4},
        "verification": {"none": 0.05, "email": 0.65, "phone": 0.2, "card": 0.1},
        "mail": {"public": 0.55, "own": 0.45},
        "programme": {"none": 0.6, "education": 0.4},
    },
    "science": {
        "plan": {"free": 0.1, "payg": 0.75, "enterprise": 0.15},
        "verification": {"email": 0.4, "card": 0.25, "domain": 0.3, "id": 0.05},
        "mail": {"public": 0.4, "own": 0.6},
        "programme": {"none": 0.55, "research": 0.35, "education": 0.1},
    },
}
MAIL = {
    "gmail.com": 50,
    "outlook.com": 15,
    "hotmail.com": 8,
    "yahoo.com": 7,
    "icloud.com": 7,
    "qq.com": 4,
    "proton.me": 3,
    "gmx.de": 3,
    "mail.ru": 3,
}
DISPOSABLE = {"mailinator.com": 3, "tempmail.dev": 2, "10minutemail.net": 2}
REFERRERS = {"": 45, "search": 25, "docs": 10, "friend": 6, "social": 6, "blog": 5, "newsletter": 3}
BANKS, VIRTUAL_BANKS = 6, 5
LIMITS = np.array([-1, 256, 512, 1024, 2048, 4096, 8192])


def persona(draft: Draft, n: int, kind: str, population: str, country: np.ndarray | None = None) -> Columns:
    """Accounts of a kind with everything drawn; `country` where a group shares it."""
    rng, rates = draft.rng, draft.settings.rates
    country = rng.choice(len(CODES), n, p=WEIGHTS) if country is None else country
    table = PERSONAS[kind]
    columns: Columns = {name: pick(rng, table[name], n) for name in ("plan", "verification", "programme")}
    columns["email"] = mail(draft, pick(rng, table["mail"], n))
    columns |= {
        "population": np.full(n, population, dtype=object),
        "campaign": np.full(n, -1),
        "generation": np.full(n, -1),
        "replaced": np.zeros(n, bool),
        "org": np.full(n, -1),
        "created": created(draft, n),
        "billing": country,
        "home": country,
        "referrer": pick(rng, REFERRERS, n),
        "channel": np.full(n, "api", dtype=object),
        "virtual": np.full(n, rates["virtual_cards"]),
    }
    _cards_and_phones(draft, columns)
    _requests(draft, columns)
    columns["begin"], columns["until"] = _life(draft, columns["created"])
    return columns


def created(draft: Draft, n: int) -> np.ndarray:
    """Opening times: a growing service, part of it inside the log."""
    rng, settings = draft.rng, draft.settings
    old = settings.start - rng.exponential(200 * DAY, n) - 1
    young = settings.start + rng.random(n) ** 1.1 * (settings.end - settings.start - DAY)
    return np.where(rng.random(n) < settings.rates["new_accounts"], young, old).astype(np.int64)


def mail(draft: Draft, kinds: np.ndarray) -> np.ndarray:
    """Mail domains: public, disposable, or one's own."""
    rng = draft.rng
    own = np.array([f"{a}{b}.{c}" for a, b, c in zip(*(rng.choice(w, len(kinds)) for w in _OWN))], dtype=object)
    public, thrown = pick(rng, MAIL, len(kinds)), pick(rng, DISPOSABLE, len(kinds))
    return np.select([kinds == "public", kinds == "disposable"], [public, thrown], own)


def _cards_and_phones(draft: Draft, columns: Columns) -> None:
    """Own card for who pays, a friend's for some; phone of the same country for most."""
    rng, rates, n = draft.rng, draft.settings.rates, len(columns["created"])
    cards = draft.new_cards(n)
    borrowed = rng.random(n) < rates["card_sharing"]
    cards = np.where(borrowed & (draft.cards > n), rng.integers(0, max(draft.cards - n, 1), n), cards)
    columns["card"] = np.where(columns["plan"] == "free", -1, cards)
    has_phone = (columns["verification"] == "phone") | (rng.random(n) < 0.25)
    columns["phone"] = np.where(has_phone, np.arange(draft.phones, draft.phones + n), -1)
    draft.phones += n
    abroad = rng.random(n) < rates["borders"]
    foreign = rng.choice(len(CODES), n, p=WEIGHTS)
    columns["phone_country"] = np.where(has_phone, np.where(abroad, foreign, columns["billing"]), -1)
    moved = rng.random(n) < rates["borders"]
    columns["home"] = np.where(moved, foreign, columns["billing"])


def _requests(draft: Draft, columns: Columns) -> None:
    """Models and request parameters, as a client has them for all its requests."""
    rng, settings, n = draft.rng, draft.settings, len(columns["created"])
    columns["model"] = rng.choice(4, n, p=draft.model_weight)
    columns["model2"] = rng.choice(4, n, p=draft.model_weight)
    moves = rng.random(n) < settings.rates["uptake"]
    late = settings.release + rng.exponential(settings.rates["uptake_days"] * DAY, n)
    columns["new_at"] = np.where(moves, late, NEVER).astype(np.int64)
    columns["new_share"] = rng.uniform(0.2, 1.0, n)
    columns["temperature"] = rng.choice(
        [np.nan, 0.0, 0.2, 0.3, 0.5, 0.7, 0.8, 1.0], n, p=[0.42, 0.16, 0.06, 0.04, 0.04, 0.16, 0.03, 0.09]
    )
    columns["max_tokens"] = rng.choice(LIMITS, n, p=[0.3, 0.04, 0.08, 0.18, 0.15, 0.2, 0.05])
    columns["several"] = rng.choice([-1, 1, 2, 4], n, p=[0.85, 0.12, 0.015, 0.015])
    columns["logprobs"] = rng.choice([-1, 0, 1], n, p=[0.85, 0.13, 0.02])
    columns["thinking"] = np.where(rng.random(n) < 0.4, rng.random(n), -1.0)
    columns["stream"] = rng.choice([-1, 0, 1], n, p=[0.25, 0.25, 0.5])
    columns["length"] = rng.lognormal(0, 0.5, n)
    columns["keeps"] = rng.random(n) < 0.75
    columns["names_users"] = np.zeros(n, bool)
    columns["swap"] = np.full(n, round(100 * settings.rates["swap"]))


def _life(draft: Draft, opened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From when until when an account is in use within the log; many try it for a few days and leave."""
    rng, settings = draft.rng, draft.settings
    first = np.maximum(opened + 60_000_000, settings.start)
    span = settings.end - first
    brief = rng.random(len(opened)) < 0.45
    begin = first + np.where(rng.random(len(opened)) < 0.35, rng.random(len(opened)) * 0.7 * span, 0)
    length = np.where(brief, rng.exponential(3 * DAY, len(opened)) + 2 * HOUR, 4 * span)
    return begin.astype(np.int64), np.maximum(np.minimum(begin + length, settings.end), begin + HOUR).astype(np.int64)


def reach(draft: Draft, columns: Columns, kind: str) -> None:
    """Up to three points an account comes from: `home`, `cloud`, `mixed`, `mobile`, `vpn` or `relay`."""
    rng, network, n = draft.rng, draft.network, len(columns["created"])
    country, rates = columns["home"], draft.settings.rates
    home = network.homes(country)
    points = np.stack([home, network.of_country("mobile", country), network.of_country("vpn", country)], axis=1)
    roams, hides = rng.random(n) < rates["mobile"], rng.random(n) < rates["vpn"]
    weights = np.stack([np.ones(n), roams * rng.uniform(0.1, 1, n), hides * rng.uniform(0.3, 3, n)], axis=1)
    sticky = np.tile([DAYS, HOURLY, HOURLY], (n, 1))
    if kind in ("cloud", "mixed"):
        server = rng.random(n) < (1.0 if kind == "cloud" else 0.4)
        points[:, 2] = np.where(server, network.servers(n), points[:, 2])
        weights[server] = [0.06, 0.0, 1.0]
        sticky[server, 2] = rng.choice([FOREVER, HOURLY], server.sum())
    elif kind in ("mobile", "vpn", "relay"):
        points[:, 1] = network.of_country(kind, country)
        weights[:, 1] = rng.uniform(2, 20, n)
        sticky[:, 1] = HOURLY if kind != "vpn" else rng.choice([DAYS, HOURLY], n)
    columns["points"], columns["sticky"] = points, sticky
    columns["weights"] = weights / weights.sum(axis=1, keepdims=True)


def equip(draft: Draft, columns: Columns, kind: str) -> None:
    """The client of each account, and for some a second one or a new version from some day on."""
    rng, settings, n = draft.rng, draft.settings, len(columns["created"])
    columns["client"] = draft.client(kind, n)
    columns["client2"] = np.where(rng.random(n) < 0.3, draft.client(kind, n), columns["client"])
    columns["client_at"] = (settings.start + rng.random(n) * (settings.end - settings.start)).astype(np.int64)
    columns["mixes"] = rng.random(n) < 0.3


_OWN = (
    [
        "nord",
        "blue",
        "alpha",
        "green",
        "river",
        "stone",
        "quick",
        "bright",
        "silver",
        "delta",
        "red",
        "data",
        "cloud",
        "open",
        "true",
        "east",
        "west",
        "peak",
        "oak",
        "lake",
    ],
    [
        "works",
        "labs",
        "soft",
        "tech",
        "health",
        "shop",
        "media",
        "bank",
        "school",
        "foods",
        "tools",
        "games",
        "legal",
        "motors",
        "farm",
        "studio",
        "logic",
        "care",
    ],
    ["com", "com", "com", "io", "dev", "co", "net", "org", "de", "in", "co.uk", "com.br", "fr", "ai"],
)
