"""What honest groups have in common: classes, hackathons, companies, agencies, families, migrators."""

from collections.abc import Callable

import numpy as np

from .draft import Columns, Draft
from .network import CODES, DAYS, FOREVER, HOURLY, WEIGHTS
from .persona import mail
from .priors import DAY, HOUR


def numbers(rng: np.random.Generator, n: int, size: tuple[int, int]) -> np.ndarray:
    """A group number for each of n accounts, group sizes log-uniform in [low, high)."""
    found: list[int] = []
    group = 0
    while len(found) < n:
        k = int(np.exp(rng.uniform(np.log(size[0]), np.log(size[1]))))
        found += [group] * max(1, k)
        group += 1
    return np.array(found[:n])


def countries(rng: np.random.Generator, group: np.ndarray) -> np.ndarray:
    """One country a group."""
    return rng.choice(len(CODES), int(group.max()) + 1, p=WEIGHTS)[group]


def _each(draft: Draft, group: np.ndarray, low: float, high: float) -> np.ndarray:
    """One number a group, dealt to its accounts."""
    return draft.rng.uniform(low, high, int(group.max()) + 1)[group]


def _offices(
    draft: Draft, columns: Columns, group: np.ndarray, exits: np.ndarray, weight: np.ndarray, kind: str
) -> None:
    """Each group gets some exits; each account goes out of one of them with a weight against its home."""
    rng, k = draft.rng, int(group.max()) + 1
    first = np.concatenate([[0], np.cumsum(exits)[:-1]])
    owner = np.repeat(np.arange(k), exits)
    country = np.zeros(k, np.int64)
    country[group] = columns["billing"]
    pools = draft.network.add(draft.network.system(kind, country[owner]), rng.integers(1, 4, len(owner)))
    chosen = pools[first[group] + (rng.random(len(group)) * exits[group]).astype(int)]
    columns["points"][:, 1], columns["sticky"][:, 1] = chosen, HOURLY
    columns["weights"][:, 1] = weight
    columns["weights"] /= columns["weights"].sum(axis=1, keepdims=True)


def _open_together(draft: Draft, columns: Columns, group: np.ndarray, spread: float) -> None:
    """A group signs up within a spread of time of one moment; half of the groups inside the log."""
    rng, settings, k = draft.rng, draft.settings, int(group.max()) + 1
    inside = settings.start + rng.random(k) * 0.75 * (settings.end - settings.start)
    moment = np.where(rng.random(k) < 0.5, inside, settings.start - rng.exponential(120 * DAY, k) - DAY)
    made = (moment[group] + rng.exponential(1.0, len(group)) * spread).astype(np.int64)
    columns["created"] = np.minimum(made, settings.end - 12 * HOUR)
    columns["begin"] = np.maximum(columns["created"] + 60_000_000, settings.start)
    columns["until"] = np.maximum(np.minimum(columns["begin"] + 1, settings.end), settings.end)


def _school(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """One NAT, sign-up within the hour of a lesson, one mail domain for half of the schools."""
    rng, k = draft.rng, int(group.max()) + 1
    _open_together(draft, columns, group, 0.4 * HOUR)
    _offices(draft, columns, group, np.ones(k, int), rng.uniform(0.5, 8, len(group)), "office")
    programme = np.where(rng.random(k) < 0.5, "education", "none").astype(object)
    columns["programme"] = programme[group]
    _one_domain(draft, columns, group, 0.5)


def _hackathon(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """Sign-up on one evening, a referrer, the same two days, the venue's network."""
    rng, k = draft.rng, int(group.max()) + 1
    _open_together(draft, columns, group, 3 * HOUR)
    named = rng.random(k) < 0.8
    columns["referrer"] = np.where(
        named[group], np.array([f"event-{i}" for i in range(k)], dtype=object)[group], columns["referrer"]
    )
    last = columns["begin"] + (_each(draft, group, 1.0, 4.0) * DAY).astype(np.int64)
    columns["until"] = np.minimum(last, draft.settings.end)
    _offices(draft, columns, group, rng.integers(1, 3, k), rng.uniform(0.2, 5, len(group)), "office")


def _seats(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """A declared organisation: one card, one domain, its offices."""
    rng, k = draft.rng, int(group.max()) + 1
    columns["org"] = draft.orgs + group
    draft.orgs += k
    cards = draft.new_cards(k)
    columns["card"] = np.where(rng.random(len(group)) < 0.9, cards[group], columns["card"])
    columns["plan"] = np.where(rng.random(k) < 0.6, "enterprise", "payg").astype(object)[group]
    _one_domain(draft, columns, group, 1.0)
    _offices(draft, columns, group, rng.integers(1, 5, k), rng.uniform(0.5, 6, len(group)), "office")


def _undeclared(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """A company without a declared organisation: several cards, several exits, opened over weeks, common hours."""
    rng, settings, k = draft.rng, draft.settings, int(group.max()) + 1
    _open_together(draft, columns, group, 20 * DAY)
    late = columns["created"] >= settings.end - 13 * HOUR
    columns["created"][late] = settings.start - rng.integers(1, 90, int(late.sum())) * DAY
    columns["begin"] = np.maximum(columns["created"] + 60_000_000, settings.start)
    _one_domain(draft, columns, group, 0.5)
    held = np.maximum(1, (np.bincount(group, minlength=k) * rng.uniform(0.1, 0.9, k)).astype(int))
    cards = draft.new_cards(int(held.sum()))
    first = np.concatenate([[0], np.cumsum(held)[:-1]])
    columns["card"] = cards[first[group] + (rng.random(len(group)) * held[group]).astype(int)]
    columns["plan"] = np.where(columns["plan"] == "free", "payg", columns["plan"]).astype(object)
    _offices(draft, columns, group, rng.integers(2, 8, k), rng.uniform(1, 15, len(group)), "office")
    columns["client"] = draft.client("sdk", k)[group]
    _switch_together(draft, columns, group, 0.3)


def _agency(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """One card pays for several clients, who otherwise have nothing in common."""
    columns["card"] = draft.new_cards(int(group.max()) + 1)[group]


def _family(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """One card, one line."""
    rng, k = draft.rng, int(group.max()) + 1
    columns["card"] = np.where(rng.random(len(group)) < 0.75, draft.new_cards(k)[group], columns["card"])
    home = np.zeros(k, np.int64)
    home[group] = columns["points"][:, 0]
    columns["points"][:, 0], columns["sticky"][:, 0] = home[group], DAYS


def _router(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """A reseller sells on under its own name and passes its users on or not."""
    n = len(group)
    names = np.array([f"reseller:{w}" for w in ("hubline", "modelmart", "anyroute", "tokenbay")], dtype=object)
    columns["channel"] = np.where(draft.rng.random(n) < 0.7, names[draft.rng.integers(0, 4, n)], "api")
    columns["sticky"][:, 2] = FOREVER


def _migrators(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """People and companies who move on the first day; a company changes one line of its configuration."""
    rng, settings, n = draft.rng, draft.settings, len(group)
    columns["new_at"] = (settings.release + rng.random(n) * DAY).astype(np.int64)
    columns["new_share"] = rng.uniform(0.6, 1.0, n)
    columns["begin"] = np.minimum(columns["begin"], np.maximum(columns["created"] + 1, settings.release))
    columns["until"] = np.maximum(columns["until"], np.minimum(settings.release + 2 * DAY, settings.end))
    columns["begin"] = np.minimum(columns["begin"], columns["until"] - HOUR)
    columns["begin"] = np.maximum(columns["begin"], columns["created"] + 1)
    columns["until"] = np.maximum(columns["until"], columns["begin"] + HOUR)
    _switch_together(draft, columns, group, 0.7)


def _contract(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """Permitted generation: a contract or a programme is on file."""
    rng, n = draft.rng, len(group)
    held = rng.random(n) < 0.6
    columns["verification"] = np.where(held, "contract", "id").astype(object)
    columns["programme"] = np.where(held, "none", rng.choice(["research", "startup"], n)).astype(object)
    columns["org"] = np.where(rng.random(n) < 0.6, draft.orgs + group, -1)
    draft.orgs += int(group.max()) + 1


def _graders(draft: Draft, columns: Columns, group: np.ndarray) -> None:
    """Declared as research by some."""
    declared = (draft.rng.random(int(group.max()) + 1) < 0.3)[group]
    columns["programme"] = np.where(declared, "research", columns["programme"]).astype(object)


def _one_domain(draft: Draft, columns: Columns, group: np.ndarray, share: float) -> None:
    """A mail domain of its own for a share of the groups; public mail otherwise."""
    k = int(group.max()) + 1
    own = draft.rng.random(k) < share
    domains = mail(draft, np.full(k, "own", dtype=object))
    public = mail(draft, np.full(len(group), "public", dtype=object))
    columns["email"] = np.where(own[group], domains[group], public)


def _switch_together(draft: Draft, columns: Columns, group: np.ndarray, share: float) -> None:
    """Some groups move to the new model at one moment."""
    rng, settings, k = draft.rng, draft.settings, int(group.max()) + 1
    moves = (rng.random(k) < share)[group]
    moment = (settings.release + rng.exponential(0.6, k) * DAY).astype(np.int64)[group]
    columns["new_at"] = np.where(moves, moment, columns["new_at"])
    columns["new_share"] = np.where(moves, 1.0, columns["new_share"])


SHAPES: dict[str, Callable[[Draft, Columns, np.ndarray], None]] = {
    "school_class": _school,
    "hackathon": _hackathon,
    "company_seats": _seats,
    "undeclared_company": _undeclared,
    "agency": _agency,
    "family": _family,
    "router": _router,
    "first_day_migrator": _migrators,
    "synthetic_permitted": _contract,
    "eval_vendor": _graders,
}
