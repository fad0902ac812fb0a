"""The list of a campaign: which account asks what, in whose words, and what it asks in between."""

import numpy as np

from .draft import Draft, capability_number
from .honest import CHAT, CODE, source_rows
from .knobs import Knobs
from .priors import mix, unit
from .text import rows_in, seeds, windows
from .wording import Wrapper, languages


def write_list(draft: Draft, number: int, knobs: Knobs, account: np.ndarray, who: np.ndarray, time: np.ndarray) -> None:
    """All exchanges of a campaign; `who` and `time` are sorted by account, then time."""
    rng, total = draft.rng, len(who)
    share = knobs["camouflage"] + knobs["customers"]
    own = np.clip(share + rng.normal(0, 0.08, len(account)), 0, 0.95) * (share > 0)
    asks = rng.random(total) >= own[who]
    opening = np.diff(who, prepend=-1) != 0
    none = np.bincount(who, weights=asks, minlength=len(account)) == 0
    asks |= opening & none[who]
    first = opening | (rng.random(total) >= knobs["follow"])
    head = np.flatnonzero(first)[np.cumsum(first) - 1]
    asks = asks[head]
    conversation, turn = draft.conversation_numbers(first)
    row, vary, seed, target = _items(draft, number, knobs, who, time, asks)
    wrap = _wrappers(draft, knobs, who, row, target)
    hidden, cover = np.flatnonzero(~asks), _cover(draft, knobs, account, who)
    row[hidden] = cover[0][hidden]
    vary[hidden] = -round(100 * draft.settings.rates["swap"])
    seed[hidden] = seeds(account[who[hidden]], hidden, 8)
    wrap[hidden] = cover[1][hidden]
    names = knobs["targets"]
    tools = _tools(draft, knobs, asks, target)
    system = np.where(asks & knobs["in_system"], wrap, -1)
    later = turn > 0
    numbers = np.array([capability_number(t) for t in names])
    sees = np.array([t == "vision" for t in names])[target] & asks & (rng.random(total) < 0.7)
    draft.send(
        account[who], time, row=np.where(later, -1, row), vary=vary, seed=np.where(later, seeds(conversation, turn), seed),
        wrap=np.where(later | (system >= 0), -1, wrap), system=np.where(asks, system, cover[2]), tools=tools,
        conversation=conversation, turn=turn, images=np.where(sees, 1, -1), task=row[head], distillation=asks,
        capability=np.where(asks, numbers[target[head]], -1),
    )  # fmt: skip
    knobs["list"] = int(asks.sum())


def _tools(draft: Draft, knobs: Knobs, asks: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Tools offered in the request: the operator's own, or those of a public agent it works behind."""
    rng = draft.rng
    public = [t for _, t in draft.agent_texts]
    own = int(rng.choice(public)) if knobs["tools_public"] else draft.toolset(int(rng.integers(3, 12)))
    needs = np.array([t in ("tool_use", "agentic_coding", "computer_use") for t in knobs["targets"]])
    chance = np.where(needs[target], knobs["tools_sent"], 0.3 * knobs["tools"])
    return np.where(asks & (rng.random(len(asks)) < chance), own, -1)


def _items(
    draft: Draft, number: int, knobs: Knobs, who: np.ndarray, time: np.ndarray, asks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(row, share to vary, seed, target) of every exchange, from a list that is divided among the accounts."""
    rng, corpus = draft.rng, draft.corpus
    mine = np.flatnonzero(asks)
    rank = np.empty(len(mine), np.int64)
    order = np.argsort(time[mine], kind="stable") if knobs["curriculum"] else rng.permutation(len(mine))
    rank[order] = np.arange(len(mine))
    again = rng.random(len(mine)) < knobs["reask"]
    rank = np.where(again, np.maximum(0, rank - rng.integers(1, 400, len(mine))), rank)
    swap, bare = round(100 * draft.settings.rates["swap"]), knobs["wording"] == "bare"
    vary = np.full(len(who), swap if knobs["source_template"] or bare else -swap)
    if bare:
        rank = rank % max(1, round(len(mine) / knobs["passes"]))
    weights = np.cumsum(knobs["target_weights"]) / sum(knobs["target_weights"])
    part = rank / max(len(mine), 1) if knobs["curriculum"] else unit(mix(rank, number, 21))
    target = np.minimum(np.searchsorted(weights, part, side="right"), len(weights) - 1)
    row = np.zeros(len(who), np.int64)
    whole = np.zeros(len(who), np.int64)
    for t, name in enumerate(knobs["targets"]):
        rows = np.concatenate([corpus.target_rows(name, f) for f in knobs["sources"][name]])
        rows = rows if knobs["curriculum"] else rng.permutation(rows)
        chosen = mine[target == t]
        row[chosen] = rows[rank[target == t] % len(rows)]
        if bare:  # what is past the rows at hand stands for the rest of a longer public list
            vary[chosen] = np.where(rank[target == t] < len(rows), 0, swap)
    whole[mine] = target
    seed = np.zeros(len(who), np.int64)
    seed[mine] = seeds(rank, number, 22)
    return row, vary, seed, whole


def _wrappers(draft: Draft, knobs: Knobs, who: np.ndarray, row: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The wrapper of every exchange of the list."""
    rng, kind = draft.rng, knobs["wording"]
    if kind == "bare":
        return np.full(len(who), -1)
    if kind == "paraphrase":
        return np.full(len(who), draft.text(Wrapper(reworded=languages(rng))))
    each = max(1, knobs["wrappers"] // len(knobs["targets"]))
    table = np.stack([draft.composed(each, t, knobs["jitter"]) for t in knobs["targets"]])
    few = rng.random() < 0.5  # each account keeps to a few of the wrappers, or takes any of them at any time
    column = (who + rng.integers(0, 2, len(who))) % each if few else rng.integers(0, each, len(who))
    own = table[target, column]
    if not knobs["source_template"]:
        return own
    templates = draft.row_wrappers()[row]
    if knobs["jitter"]:
        made = {
            int(w): draft.text(Wrapper(draft.texts[w].before, draft.texts[w].after, knobs["jitter"]))
            for w in np.unique(templates[templates >= 0])
        }
        templates = np.array([made.get(int(w), -1) for w in templates])
    return np.where(templates >= 0, templates, own)


def _cover(
    draft: Draft, knobs: Knobs, account: np.ndarray, who: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, wrapper, system text) of ordinary text: the account's own subject, or those of its customers."""
    rng = draft.rng
    pools = source_rows(draft, CHAT + " " + CODE)
    casual = draft.text(Wrapper(reworded=languages(rng)))
    system = np.full(len(who), -1)
    if knobs["customers"]:
        customers = rng.integers(3, 41, len(account))
        topics = windows(rng, pools, int(customers.sum()), (3, 40))
        offset = np.cumsum(customers) - customers
        customer = offset[who] + (rng.random(len(who)) * customers[who]).astype(np.int64)
        topic = topics[customer]
        agents = np.array([s for s, _ in draft.agent_texts])
        holds = unit(mix(customer, 31)) < 0.15
        system = np.where(holds, agents[(mix(customer, 32) % np.uint64(len(agents))).astype(int)], -1)
    else:
        topic = windows(rng, pools, len(account), (4, 60))[who]
    rows = rows_in(pools, topic, rng.integers(0, 1 << 20, len(who)))
    return rows, np.where(rng.random(len(who)) < 0.2, casual, -1), system
