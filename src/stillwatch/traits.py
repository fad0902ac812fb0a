"""What a group of accounts is like: a row of numbers that tell an operator's accounts from people who merely have
something in common.

Each trait asks one question of the group, against what the other customers do. None decides; ``weighing.py`` weighs them. The
questions are about the group's *practice*: the exchanges built from wordings that mark it, so that ordinary traffic mixed in
says nothing either way.

*Dispatch* is the trait nobody fakes cheaply. An operator's accounts are workers that draw from one queue, so who asks what
is a matter of chance: the counts of (account, wording) scatter as a multinomial would. People, even of one company or class, have
work of their own.
"""

from __future__ import annotations

import igraph
import numpy as np

from stillwatch.evidence import KIND_NAMES
from stillwatch.ground import MEASURES, SIDES, SUMS, Ground

ALIKE = ("client", "tls", "tools", "settings", "signup_day", "signup_tls")
"""Kinds of which is asked how far one value is common to the group and to nobody else."""
SHARING = ("card", "phone", "net", "signup_net", "prompt", "wording", "system")
"""Kinds of which is asked how many members share a value with another, beyond chance."""
TRACED = {"card": 0, "phone": 0, "net": 1, "signup_net": 1, "prompt": 2, "wording": 2, "system": 2}
"""Which trace each of ``SHARING`` is of: whom it takes to leave it."""
UNTOLD = 6.0
"""``dispatch`` of a group with nothing to deal out; the most it can be."""
SURELY = 1.645
"""Standard errors above what was measured, below which the truth lies in 19 of 20 cases."""
MARKERS = 40
"""Marking wordings that are looked at, those most members use."""


def traits(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """The traits of one group, by name."""
    marks, rare = markers(ground, members), rare_of(ground, members)
    return {
        "size": float(np.log2(len(members))),
        **practice(ground, members, marks),
        **whole(ground, members),
        **sharing(ground, members, *rare),
        **linked(ground, members, *rare),
        **alike(ground, members),
        **declared(ground, members),
        **rhythm(ground, members),
    }


def markers(ground: Ground, members: np.ndarray) -> np.ndarray:
    """Positions in ``ground.wordings`` of the wordings and system texts that mark the group: at least 3 of it use
    them, far more than others do."""
    h = ground.holdings
    _, held = h.values_of(members)
    held = held[np.isin(h.kind[held], (KIND_NAMES.index("wording"), KIND_NAMES.index("system")))]
    values, inside = np.unique(held, return_counts=True)
    outside = (h.holders[values] - inside + 0.5) / (h.n - len(members) + 1)
    keep = (inside >= 3) & (inside >= 0.01 * len(members)) & (inside / len(members) >= 8 * outside)
    values = values[keep][np.argsort(-inside[keep], kind="stable")][:MARKERS]
    return np.searchsorted(ground.wordings, h.value[values])


def practice(ground: Ground, members: np.ndarray, marks: np.ndarray) -> dict[str, float]:
    """What is asked in the wordings that mark the group, and how it is dealt out."""
    uses = ground.at[marks + 1] - ground.at[marks]
    rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(ground.at[m], ground.at[m + 1]) for m in marks)])
    which = np.repeat(np.arange(len(marks)), uses)
    mine = np.isin(ground.account[rows], members)
    exclusive = mine.mean() if len(mine) else 0.0
    rows, which = rows[mine], which[mine]
    n, tasks = ground.practice["n"][rows], ground.practice["tasks"][rows]
    total, all_ = n.sum(), ground.totals["n"]
    base = {m: ground.measures[m].usual(members) for m in MEASURES}
    share = {m: ground.practice[m][rows].sum() / total if total else base[m] for m in MEASURES}
    user = np.searchsorted(members, ground.account[rows])
    per_user = np.bincount(user, n, len(members))
    by = {m: np.bincount(user, ground.practice[m][rows], len(members)) for m in ("read", "aimed", *SUMS)}
    return {
        "exclusive": float(exclusive),
        "owned": owned(np.bincount(which, minlength=len(marks)), uses),
        "practising": float((per_user > 0).mean()),
        "practice": float(total / max(1.0, all_[members].sum())),
        "practice_even": float(np.log1p(_spread(per_user[per_user > 0] / all_[members][per_user > 0]))),
        "read": _more(share["read"], base["read"], 0.02),
        "marked": _more(share["marked"], base["marked"], 0.01),
        "aimed": share["aimed"] - base["aimed"],
        "single": share["single"] - base["single"],
        "appetite": share["appetite"] - base["appetite"],
        "repeats": float(np.log2(max(1.0, tasks.sum()) / max(1, len(rows)))),
        "dispatch": dispatch(user, which, tasks),
        "variety": variety(user, which, tasks),
        "uneven_length": uneven(per_user, (by["length"], by["squares"])),
        "uneven_chars": uneven(per_user, (by["chars"], by["chars_squares"])),
        "uneven_aimed": uneven(per_user, (by["aimed"], by["aimed"])),
        "uneven_read": uneven(per_user, (by["read"], by["read_squares"])),
        "uneven_meaning": uneven(per_user, *((by[side], by[side]) for side in SIDES)),
        "again": again(total, by["prompts"]),
    }


def owned(mine: np.ndarray, uses: np.ndarray) -> float:
    """Of each wording, log2 of the members that use it to the others, averaged over the members' uses; -4 where there is none."""
    return float(np.average(np.log2((mine + 1) / (uses - mine + 1)), weights=mine)) if len(mine) else -4.0


def uneven(n: np.ndarray, *measures: tuple[np.ndarray, np.ndarray]) -> float:
    """How much more accounts differ in measures than their exchanges do, at most: log2 of F of a one-way analysis of variance and
    ``SURELY`` standard errors of it, clipped to -1..4; 4 where it cannot be told. Workers who draw from one queue differ by
    chance alone, and F is 1; but so it may be, by luck, among few who do not.

    ``n`` is exchanges by account; each measure is its sum over them and that of its squares, by account. Several measures are
    pooled: the variance between accounts of all together, over that within them.
    """
    keep = n > 0
    n, total, accounts = n[keep], n.sum(), keep.sum()
    if accounts < 3 or total - accounts < 10:
        return 4.0
    between = within = 0.0
    for sums, squares in measures:
        means = (sums[keep] ** 2 / n).sum()
        between += means - sums.sum() ** 2 / total
        within += squares.sum() - means
    if within <= 1e-6 * total:
        return 4.0
    error = np.sqrt(2 / len(measures) * (1 / (accounts - 1) + 1 / (total - accounts))) / np.log(2)
    told = np.log2(max(1e-9, between / (accounts - 1)) / (within / (total - accounts)))
    return float(np.clip(told + SURELY * error, -1, 4))


def again(asked: float, prompts: np.ndarray) -> float:
    """How often an account asks the same thing word for word, log2 of exchanges to prompts: a queue deals out each once."""
    return float(np.log2(max(1.0, asked) / max(1.0, prompts.sum())))


def variety(user: np.ndarray, which: np.ndarray, n: np.ndarray) -> float:
    """How many different wordings an account uses, as a share of how many it would if they were dealt out: 0..1.5, 0 where
    there is nothing to deal out.

    Expected by rarefaction (Hurlbert 1971) from what all of them use.
    """
    user, which, n = _of_busy(user, which, n)
    if not len(n):
        return 0.0
    pool = np.bincount(which, n)
    pool = pool[pool > 0] / n.sum()
    if len(pool) < 2:
        return 0.0
    _, asked = np.unique(user, return_inverse=True)
    each = np.bincount(asked, n)
    sizes, at = np.unique(np.minimum(each, 1000), return_inverse=True)
    due = (1 - (1 - pool[None, :]) ** sizes[:, None]).sum(axis=1)[at]
    found = np.bincount(asked)
    more = (due - 1).sum()
    return float(np.clip((found - 1).sum() / more, 0, 1.5)) if more > 0.5 else 0.0


def whole(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """What all of their exchanges are like, whatever marks them."""
    t, measures = ground.totals, ground.measures
    n = t["n"][members].astype(float)
    share = {m: measures[m].of(members) for m in ("read", "marked", "aimed", "single", "day", "weekend")}
    base = {m: measures[m].usual(members) for m in share}
    mine = ground.aims[members].sum(axis=0) + 0.5
    others = ground.all_aims - mine + 1.5
    p, q = mine / mine.sum(), others / others.sum()
    return {
        "whole_read": _more(share["read"], base["read"], 0.02),
        "whole_marked": _more(share["marked"], base["marked"], 0.01),
        "whole_aimed": share["aimed"] - base["aimed"],
        "whole_single": share["single"] - base["single"],
        "narrow": float((p * np.log2(p / q)).sum()),
        "whole_length": uneven(n, (t["length"][members], t["squares"][members])),
        "whole_chars": uneven(n, (t["chars"][members], t["chars_squares"][members])),
        "whole_reading": uneven(n, (n * t["read"][members], t["read_squares"][members])),
        "whole_meaning": uneven(n, *((t[side][members], t[side][members]) for side in SIDES)),
        "whole_again": again(n.sum(), t["prompts"][members]),
        "day": share["day"] - base["day"] if (n >= 8).any() else 0.0,
        "weekend": share["weekend"] - base["weekend"],
    }


def dispatch(user: np.ndarray, which: np.ndarray, n: np.ndarray) -> float:
    """How like chance it is who uses which wording: log2 of chi-square over its degrees of freedom, clipped to -1..6; 6 where
    there is nothing to deal out."""
    user, which, n = _of_busy(user, which, n)
    if not len(n):
        return UNTOLD
    users, kinds, total = np.bincount(user, n), np.bincount(which, n), n.sum()
    freedom = ((users > 0).sum() - 1) * ((kinds > 0).sum() - 1)
    if freedom < 5:
        return UNTOLD
    chi = total * (n**2 / (users[user] * kinds[which])).sum() - total
    return float(np.clip(np.log2(max(chi, 1e-9) / freedom), -1, UNTOLD))


def rare_of(ground: Ground, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that members hold and few others do, as pairs (position in ``members``, value)."""
    h = ground.holdings
    position, held = h.values_of(members)
    values, number, inside = np.unique(held, return_inverse=True, return_counts=True)
    rare = h.rare_beside(values, inside)[number]
    return position[rare], held[rare]


def sharing(ground: Ground, members: np.ndarray, position: np.ndarray, held: np.ndarray) -> dict[str, float]:
    """Of each kind, the share of members that hold a rare value with another of them, and the bits beyond chance per member."""
    h = ground.holdings
    found, traces = {}, np.zeros((len(members), 3), bool)
    for name in SHARING:
        keep = h.kind[held] == KIND_NAMES.index(name)
        values, number, count = np.unique(held[keep], return_inverse=True, return_counts=True)
        outside = (h.holders[values] - count + 0.5) / (h.n - len(members) + 1)
        lift = np.where(count >= 2, np.log2(np.maximum(1.0, (count - 1) / len(members) / outside)), 0.0)
        best = np.zeros(len(members))
        np.maximum.at(best, position[keep], lift[number])
        found[f"share_{name}"] = float((best >= 2).mean())
        found[f"bits_{name}"] = float(np.minimum(best, 12).mean())
        traces[:, TRACED[name]] |= best >= 2
    return {**found, "share_two": float((traces.sum(axis=1) >= 2).mean())}


def linked(ground: Ground, members: np.ndarray, position: np.ndarray, held: np.ndarray) -> dict[str, float]:
    """Share of the members that hang together through rare cards and phones, and through rare networks."""
    kind = ground.holdings.kind[held]
    found = {}
    for name, kinds in (("paid", ("card", "phone")), ("networked", ("net", "signup_net"))):
        keep = np.isin(kind, [KIND_NAMES.index(k) for k in kinds])
        _, number = np.unique(held[keep], return_inverse=True)
        graph = igraph.Graph(
            n=len(members) + int(number.max(initial=-1)) + 1,
            edges=np.column_stack([position[keep], number + len(members)]),
        )
        part = np.asarray(graph.connected_components().membership)[: len(members)]
        most = np.bincount(part).max()
        found[f"linked_{name}"] = float(most / len(members)) if most > 1 else 0.0
    return found


def alike(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """Of each kind, p log2(p / q) for the value that sets the group apart most: p of its members hold it, q of the others."""
    h = ground.holdings
    _, held = h.values_of(members)
    values, count = np.unique(held, return_counts=True)
    p = count / len(members)
    q = (h.holders[values] - count + 1) / (h.n - len(members) + 2)
    bits = np.where(p > q, p * np.log2(p / q), 0.0)
    found = {}
    for name in ALIKE:
        mine = bits[h.kind[values] == KIND_NAMES.index(name)]
        found[f"alike_{name}"] = float(mine.max(initial=0.0))
    found["alike_issuer"] = _alike(ground.declared["issuer"], members, h.n)
    return found


def _alike(values: np.ndarray, members: np.ndarray, customers: int) -> float:
    """As ``alike``, of one column by customer, 0 where unknown."""
    mine = values[members]
    distinct, count = np.unique(mine[mine != 0], return_counts=True)
    if not len(distinct):
        return 0.0
    top = distinct[np.argmax(count)]
    p, q = count.max() / len(members), ((values == top).sum() - count.max() + 1) / (customers - len(members) + 2)
    return float(max(0.0, p * np.log2(p / q)))


def declared(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """Who they say they are, who pays, and whether that fits together."""
    d = ground.declared
    cards = d["card"][members]
    paying = cards[cards != 0]
    domains = d["mail_domain"]
    mine = domains[members][domains[members] != 0]
    names, count = np.unique(mine, return_counts=True)
    top = names[np.argmax(count)] if len(names) else 0
    sites, carried = np.unique(ground.site[members], return_inverse=True)
    return {
        "payers": len(np.unique(paying)) / len(paying) if len(paying) else 1.0,
        "one_payer": float(np.unique(paying, return_counts=True)[1].max() / len(members)) if len(paying) else 0.0,
        "one_domain": float(count.max() / len(members) * count.max() / (domains == top).sum()) if len(names) else 0.0,
        "one_site": float(np.bincount(carried, ground.site_share[members]).max(initial=0) / len(members)) if len(sites) else 0.0,
        "org": float((d["org"][members] != 0).mean()),
        "vouched": float(d["vouched"][members].mean()),
        "taught": float(d["taught"][members].mean()),
        "crossing": ground.measures["crossing"].of(members) - ground.measures["crossing"].usual(members),
    }  # fmt: skip


def rhythm(ground: Ground, members: np.ndarray) -> dict[str, float]:
    """How alike they are in time: how much they do, when they began, whether they work in the same hours, whether they moved."""
    h, t = ground.holdings, ground.totals
    volume = t["volume"][members]
    _, held = h.values_of(members)
    slots = held[h.kind[held] == KIND_NAMES.index("slot")]
    _, count = np.unique(slots, return_counts=True)
    worked = count.sum()
    due = worked**2 * ground.slots + worked
    new = ground.moved[members].sum() / max(1.0, ground.asked[members].sum())
    others = (ground.moved.sum() - ground.moved[members].sum()) / max(
        1.0, ground.asked.sum() - ground.asked[members].sum()
    )
    began = np.sort(t["began"][members].astype(float))
    return {
        "volume_even": float(np.log(max(0.05, volume.std()) / max(0.05, ground.volume_spread))),
        "began": float(np.log((6 + began[int(0.8 * len(began))] - began[int(0.2 * len(began))]) / 6)),
        "hours": float(np.log2(max(1.0, (count.astype(float) ** 2).sum()) / max(1.0, due))),
        "moved": float((new - others) * min(1.0, ground.asked[members].sum() / 50)),
    }


def _spread(values: np.ndarray) -> float:
    """Standard deviation over mean."""
    return float(values.std() / values.mean()) if len(values) and values.mean() > 0 else 0.0


def _more(share: float, base: float, floor: float) -> float:
    """How many times as much a share is as its base, as log2; both raised by ``floor``, below which little is told."""
    return float(np.log2((share + floor) / (base + floor)))


def _of_busy(user: np.ndarray, which: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of accounts with at least two exchanges: of one alone it cannot be said whether it was dealt out."""
    keep = np.bincount(user, n)[user] >= 2
    return user[keep], which[keep], n[keep]
