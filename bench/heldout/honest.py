"""The honest customers: who they are, what ties them together, what they write.

A class is a `Class` row; a group maker turns its accounts into customers that share what such people
share (a classroom's address, a company's templates, an agency's card).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .people import DAY, SLOTS, Ledger, World, domains, individuals, pick_addresses, style_slots
from .texts import AGENT_TOOLS, CHAT, CODE, GENERATION, HARNESS, JUDGING, LESSONS, Book
from .wording import coin, compose

PERSON = {"browser": 5, "sdk": 3, "agent": 0.6, "framework": 0.6, "script": 1.2}
MACHINE = {"browser": 0.3, "sdk": 4, "framework": 2, "script": 2.2}
CODER = {"agent": 6, "sdk": 1.5, "browser": 1, "framework": 0.5}


@dataclass(frozen=True, slots=True)
class Class:
    """Size as a weight, median volume, spread, client mix, group size and hours of an honest class."""

    weight: float
    median: float
    spread: float
    client: dict[str, float]
    group: tuple[int, int]
    profile: int | None  # 0 office, 1 evening, 2 any hour, 3 night batch, 4 student


CLASSES: dict[str, Class] = {
    "chat": Class(22, 6, 1.2, PERSON, (1, 1), None),
    "agent_developer": Class(13, 16, 1.2, CODER, (1, 1), None),
    "backend": Class(5, 40, 1.3, MACHINE, (1, 2), 2),
    "nightly_batch": Class(2, 60, 1.0, MACHINE, (1, 1), 3),
    "benchmark_researcher": Class(3.5, 35, 1.1, MACHINE, (1, 1), None),
    "judge_vendor": Class(2, 45, 1.1, MACHINE, (1, 4), 2),
    "synthetic_contract": Class(0.5, 90, 1.0, MACHINE, (2, 12), 2),
    "synthetic_small": Class(1, 22, 1.0, MACHINE, (1, 1), None),
    "school_class": Class(6, 6, 0.8, PERSON, (14, 36), 4),
    "hackathon": Class(2.5, 14, 1.0, CODER, (20, 70), 2),
    "company_seats": Class(6, 14, 1.1, PERSON, (5, 90), 0),
    "company_undeclared": Class(10, 16, 1.1, PERSON | {"sdk": 6}, (10, 150), 0),
    "generation_kit": Class(2.5, 14, 0.9, MACHINE, (200, 800), None),
    "agency": Class(1.6, 22, 1.0, PERSON, (3, 12), 0),
    "family": Class(3, 5, 1.0, PERSON, (2, 5), 1),
    "router": Class(3, 60, 1.3, MACHINE, (1, 60), 2),
    "vpn_user": Class(4, 8, 1.2, PERSON, (1, 1), None),
    "carrier_nat": Class(5, 6, 1.1, PERSON, (60, 200), 1),
    "first_day_migrator": Class(2.5, 18, 1.1, CODER, (1, 1), None),
    "viral": Class(3, 4, 0.9, PERSON, (30, 160), 1),
    "tutor": Class(2, 14, 1.0, PERSON, (1, 1), 4),
    "rag_vendor": Class(1.6, 45, 1.1, MACHINE, (1, 2), 2),
    "translator": Class(2, 16, 1.1, PERSON, (1, 1), 0),
}


Group = Callable[[World, Book, dict[str, np.ndarray], int], None]


def _choose(book: Book, names: list[str]) -> str:
    """One of the names."""
    return names[int(book.rng.integers(len(names)))]


def _researcher(book: Book) -> list[int]:
    """Public harness prompts, whole or in part, with or without their template."""
    u = book.rng.random()
    kind = "plain" if u < 0.5 else "inline"
    return [book.source(kind, _choose(book, HARNESS), 0.3 + 0.7 * u) for _ in range(2)]


def _judge(book: Book) -> list[int]:
    """A public judging template and one of the vendor's own."""
    kind = _choose(book, ["kit", "inline"])
    return [book.source(kind, _choose(book, JUDGING)), *book.house(coin(book.random), 1, "lore")]


def _synthetic(book: Book) -> list[int]:
    """Public generation templates with own seeds, and an own template."""
    made = [book.source("kit", _choose(book, GENERATION)) for _ in range(2)] + book.house(coin(book.random), 1, "lore")
    return made[int(book.rng.integers(2)) :]


def _rag(book: Book) -> list[int]:
    """Retrieved context under a popular template."""
    template = book.lib.template[int(book.lib.pool("benign_xquad_rag")[0])]
    return [book.source("varied", "benign_xquad_rag", system=template)]


WRITERS: dict[str, Callable[[Book], list[int]]] = {
    "chat": lambda book: book.chatty() if book.rng.random() < 0.9 else book.coder(),
    "agent_developer": Book.coder,
    "backend": lambda book: book.house(coin(book.random), int(book.rng.integers(1, 3))),
    "nightly_batch": lambda book: book.house(coin(book.random), int(book.rng.integers(1, 3))),
    "benchmark_researcher": _researcher,
    "judge_vendor": _judge,
    "synthetic_small": _synthetic,
    "tutor": lambda book: [*book.tutor, book.chat[0]],
    "translator": lambda book: [*book.translate, book.translate[0], book.chat[1]],
    "rag_vendor": _rag,
}


def _one_nat(world: World, c: dict[str, np.ndarray], kind: str, share: float, exits: int = 1) -> None:
    """Most of a group behind one place's addresses."""
    n = len(c["country"])
    c["country"][:] = c["country"][0]
    place = world.net.addresses(kind, np.full(exits, c["country"][0]))
    shared = pick_addresses(world, place, n, min(exits, SLOTS))
    at = world.rng.random((n, SLOTS)) < share
    c["ips"] = np.where(at, shared, c["ips"])
    joined = world.rng.random(n) < share * 0.6
    c["signup_ip"] = np.where(joined, shared[:, 0], c["signup_ip"])


def _one_card(world: World, c: dict[str, np.ndarray], cards: int) -> None:
    """The group pays with a few cards."""
    n = len(c["country"])
    pool = world.token(cards, 16)
    c["payment_hash"] = np.where(c["payment_hash"] == None, None, pool[world.rng.integers(0, cards, n)])  # noqa: E711
    c["billing_country"][:] = c["billing_country"][0]


def school(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """A class: one address, one set of homework, signed up in the same week."""
    rng, start = world.rng, world.rng.random() * 0.6 * world.end_s
    _one_nat(world, c, "office", 0.6)
    c["created"] = np.where(
        rng.random(n) < 0.5, np.minimum(c["created"], start), start - rng.exponential(0.12, n) * DAY
    )
    c["start"] = np.maximum(c["created"], start) + rng.random(n) * 2 * DAY
    c["end"] = np.minimum(c["start"] + DAY * (3 + rng.random(n) * 14), world.end_s)
    work = rng.choice(book.lib.pool(*LESSONS), int(rng.integers(6, 24)), replace=False).astype(np.int32)
    plain, own = book.add("plain", work), book.add("varied", work, conversation="session", history=200.0)
    c["styles"] = style_slots([[plain, own, own, book.chat[0], own] for _ in range(n)])
    c["programme"][:] = "education" if rng.random() < 0.4 else None


def hackathon(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """A weekend: new accounts within two days, one hall, one starter kit."""
    rng, day = world.rng, world.rng.random() * 0.8 * world.end_s
    _one_nat(world, c, "office", 0.75, 2)
    c["created"] = np.where(rng.random(n) < 0.7, day - rng.exponential(0.2, n) * DAY, np.minimum(c["created"], day))
    c["start"], c["end"] = day + rng.random(n) * 0.4 * DAY, np.full(n, min(day + 2.5 * DAY, world.end_s))
    head, _ = compose(book.random, "work", coin(book.random))
    starter = book.add(
        "varied", book.lib.pool(*CODE, *CHAT), system=head, tools=AGENT_TOOLS[4], conversation="session", history=800.0
    )
    c["styles"] = style_slots([[starter, starter, *book.coder()[:2]] for _ in range(n)])


def company(world: World, book: Book, c: dict[str, np.ndarray], n: int, declared: bool = False) -> None:
    """A firm: its templates, some cards, a few egress networks; it may switch models as one."""
    rng, brand = world.rng, coin(book.random)
    _one_nat(world, c, "office" if rng.random() < 0.7 else "vpn", rng.uniform(0.35, 0.9), int(rng.integers(1, 6)))
    _one_card(world, c, max(1, int(n / rng.uniform(3, 14))))
    own, agent = book.house(brand, int(rng.integers(2, 7))), book.coder()[0]
    mix = [[own[k] for k in rng.integers(0, len(own), 3)] + [agent if u < 0.4 else book.chat[0]] for u in rng.random(n)]
    c["styles"] = style_slots([row + book.chatty()[:1] for row in mix])
    domain = domains(world, 1)[0]
    if declared or rng.random() < 0.5:
        c["email_domain"] = np.where(rng.random(n) < 0.9, domain, c["email_domain"])
    if declared:
        c["org_id"][:], c["plan"][:] = world.token(1, 12, "org_")[0], rng.choice(["enterprise", "payg"])
    if rng.random() < 0.25:
        c["switch"] = world.release_s + rng.random(n) * rng.uniform(0.1, 3) * DAY
    hired = rng.random() * world.end_s * 0.7
    if rng.random() < 0.4:
        c["created"] = np.where(
            rng.random(n) < 0.8, hired + rng.exponential(0.1, n) * DAY, np.minimum(c["created"], hired)
        )
    kept = rng.random(n) < 0.6
    c["temperature"][kept], c["max_tokens"][kept] = c["temperature"][0], c["max_tokens"][0]


def seats(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """A firm that declared its organisation."""
    company(world, book, c, n, declared=True)


def kit(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """Strangers who run the same public kit: its templates, their own seeds, its client."""
    name = GENERATION[int(world.rng.integers(len(GENERATION)))]
    styles = [book.source("kit", name), book.source("inline", name)]
    c["styles"] = style_slots([[styles[0], styles[0], styles[0], styles[1], book.chatty()[0]] for _ in range(n)])
    agent, print_ = world.client(np.full(1, "framework"))
    at = world.rng.random(n) < 0.7
    c["agent"][at], c["ja4"][at] = agent[0], print_[0]
    c["kit"] = np.full(n, name, object)


def agency(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """One card and office, an account for each client with that client's templates."""
    _one_nat(world, c, "office", 0.7)
    _one_card(world, c, 1)
    c["styles"] = style_slots([book.house(coin(book.random), 2) + book.chatty()[:1] for _ in range(n)])


def family(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """One home, one card."""
    _one_nat(world, c, "home", 0.8)
    _one_card(world, c, 1)
    c["styles"] = style_slots([book.chatty() + book.tutor[:1] for _ in range(n)])


def router(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """A reseller: its own egress, many end users behind each account."""
    _one_nat(world, c, "hosting", 0.97, int(world.rng.integers(1, 8)))
    if world.rng.random() < 0.6:
        _one_card(world, c, max(1, n // 15))
    c["channel"][:] = f"reseller:{coin(book.random, 2)}" if world.rng.random() < 0.7 else "api"
    c["styles"] = style_slots(
        [book.chatty()[:3] + book.coder()[:2] + book.house(coin(book.random), 1) for _ in range(n)]
    )
    c["end_users"] = world.rng.integers(3, 60, n).astype(np.int32)


def carrier(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """Phone users behind a carrier's few addresses."""
    _one_nat(world, c, "mobile", 0.9, int(world.rng.integers(4, 30)))
    c["styles"] = style_slots([book.chatty() for _ in range(n)])


def viral(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """Strangers who all try a prompt that went round."""
    meme = book.add(
        "plain", world.rng.choice(book.lib.pool("benign_prompts_chat"), int(world.rng.integers(1, 4))).astype(np.int32)
    )
    c["styles"] = style_slots([[meme, *book.chatty()] for _ in range(n)])
    day = world.rng.random() * 0.8 * world.end_s
    c["start"] = np.maximum(day, np.maximum(c["created"], 0)) + world.rng.exponential(DAY, n)
    c["end"] = np.minimum(c["start"] + world.rng.gamma(1.0, 4, n) * DAY + DAY / 4, world.end_s)


def contract(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """A permitted maker of synthetic data."""
    company(world, book, c, n, declared=True)
    c["styles"] = style_slots([_synthetic(book)] * n)
    c["plan"][:], c["verification"][:] = "enterprise", "contract"


def vpn(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """Someone behind a VPN, often abroad."""
    away = world.rng.integers(0, 20, n)
    c["ips"] = pick_addresses(world, world.vpn_exits, n)
    c["ips"][:, 0] = world.net.addresses("vpn", away)
    c["styles"] = style_slots([book.chatty() for _ in range(n)])


def migrator(world: World, book: Book, c: dict[str, np.ndarray], n: int) -> None:
    """Tries a new model the day it is out."""
    c["switch"] = world.release_s + world.rng.exponential(0.35 * DAY, n)
    c["styles"] = style_slots([book.coder() for _ in range(n)])


GROUPS: dict[str, Group] = {
    "school_class": school,
    "hackathon": hackathon,
    "company_seats": seats,
    "company_undeclared": company,
    "generation_kit": kit,
    "agency": agency,
    "family": family,
    "router": router,
    "carrier_nat": carrier,
    "viral": viral,
    "synthetic_contract": contract,
    "vpn_user": vpn,
    "first_day_migrator": migrator,
}


def populate(world: World, book: Book, ledger: Ledger, total: int) -> dict[str, int]:
    """Add all honest classes, about `total` accounts; returns the sizes."""
    rng, sizes = world.rng, {}
    weights = {k: c.weight * rng.uniform(0.6, 1.6) for k, c in CLASSES.items()}
    scale = total / sum(weights.values())
    for name, cls in CLASSES.items():
        left = max(int(weights[name] * scale), cls.group[0])
        left = min(left, cls.group[1]) if name == "generation_kit" else left
        sizes[name] = left
        while left > 0:
            grouped = name in GROUPS and cls.group[1] > 1
            chunk = int(np.exp(rng.uniform(*np.log(cls.group)))) if grouped else left
            chunk = left if name == "generation_kit" or left - chunk < cls.group[0] else min(chunk, left)
            _add_group(world, book, ledger, name, chunk)
            left -= chunk
    return sizes


def _add_group(world: World, book: Book, ledger: Ledger, name: str, n: int) -> None:
    """One group of a class."""
    cls = CLASSES[name]
    columns = individuals(world, n, world.rng.lognormal(np.log(cls.median), cls.spread, n), cls.client)
    columns["population"][:] = name
    if cls.profile is not None:
        columns["profile"] = np.where(world.rng.random(n) < 0.8, cls.profile, columns["profile"])
    if name in GROUPS:
        GROUPS[name](world, book, columns, n)
    else:
        columns["styles"] = style_slots([WRITERS[name](book) for _ in range(n)])
    if cls.client is MACHINE and name != "router":
        hosted = world.rng.random(n) < 0.6
        columns["ips"][hosted] = world.net.addresses("hosting", columns["country"][hosted])[:, None]
    columns["start"] = np.clip(np.maximum(columns["start"], columns["created"]), 0, world.end_s - 7200)
    columns["end"] = np.clip(columns["end"], columns["start"] + 3600, world.end_s)
    ledger.add(n, columns)
