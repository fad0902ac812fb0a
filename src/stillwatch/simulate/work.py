"""Lines of work: what is asked in one, and who does how much of it.

An activity is one kind of exchange (private chat in German, tickets of one product, an operator's grading prompt). A
stream is an account's share of time in an activity. Everything after this module treats honest and other streams alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from stillwatch.simulate.grammar import U64, Grammar, mix
from stillwatch.simulate.pools import AGENT, API, CONSOLE, COUNTRIES, HARNESSES, I64, TOOLSETS, choose
from stillwatch.types import CAPABILITIES


@dataclass(frozen=True, slots=True)
class Activity:
    """``first``, ``more``, ``answer`` and ``system`` name sections of the grammar, empty for none.

    ``owner`` seeds the wording that belongs to it, 0 for each account's own. ``variants`` counts the wordings in use, 0
    for a new one each time. ``listed`` is the length of the list that first questions come from, 0 for no list;
    ``in_order`` walks through it. ``talks`` is the share of sessions that are conversations, ``systems`` how often the
    system text is sent. ``words`` and ``context`` are mean logs of output and of further input tokens.
    """

    first: str
    more: str = "more.chat"
    answer: str = "answer.chat"
    system: str = ""
    capability: str = ""
    owner: int = 0
    variants: int = 1
    listed: int = 0
    in_order: bool = False
    talks: float = 0.1
    systems: float = 1.0
    tools: int = 0
    images: float = 0.03
    words: float = 5.5
    context: float = 4.0
    batch: float = 0.0
    is_code: bool = False


@dataclass(slots=True)
class Catalogue:
    """All activities of a world; ``add`` gives the number of a new one."""

    rows: list[Activity] = field(default_factory=list)

    def add(self, activity: Activity) -> int:
        self.rows.append(activity)
        return len(self.rows) - 1

    def column(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
        return np.array([getattr(a, name) for a in self.rows], dtype)

    def sections(self, name: str, grammar: Grammar) -> npt.NDArray[np.int32]:
        return np.array([grammar.symbol(getattr(a, name)) if getattr(a, name) else -1 for a in self.rows], np.int32)

    def capabilities(self) -> I64:
        return np.array([CAPABILITIES.index(a.capability) if a.capability else -1 for a in self.rows], np.int64)


@dataclass(slots=True)
class Streams:
    """Who does what: parallel columns, a row a stream. NaN leaves a matter to the account's own habits.

    ``share`` weighs a stream against the account's others. A ``mixed`` stream takes another everyday activity every
    session, as a reseller's customers do. ``relay`` numbers the queue a stream is dealt from, -1 for none.
    """

    account: list[I64] = field(default_factory=list)
    activity: list[I64] = field(default_factory=list)
    columns: dict[str, list[npt.NDArray[np.float64]]] = field(default_factory=dict)
    NAMES = ("share", "mixed", "end_users", "session", "gap_s", "rhythm", "adopts", "adopts_share", "relay")
    DEFAULTS = (1.0, 0.0, 0.0, np.nan, np.nan, np.nan, np.nan, np.nan, -1.0)

    def add(self, accounts: I64, activity: npt.ArrayLike, **columns: npt.ArrayLike) -> None:
        self.account.append(np.asarray(accounts, np.int64))
        self.activity.append(np.broadcast_to(np.asarray(activity, np.int64), len(accounts)))
        for name, default in zip(self.NAMES, self.DEFAULTS):
            values = np.broadcast_to(np.asarray(columns.get(name, default), float), len(accounts))
            self.columns.setdefault(name, []).append(values)

    def table(self) -> dict[str, npt.NDArray[np.generic]]:
        out = {name: np.concatenate(parts) for name, parts in self.columns.items()}
        return {"account": np.concatenate(self.account), "activity": np.concatenate(self.activity), **out}


@dataclass(frozen=True, slots=True)
class Everyday:
    """What people do anyway, by interface, with how often; ``chats`` by country; ``harness`` of each agent client."""

    activities: tuple[I64, I64, I64]
    shares: tuple[npt.NDArray[np.float64], ...]
    chats: I64
    harness: I64

    def pick(self, rng: np.random.Generator, interface: I64, country: I64, client: I64) -> I64:
        """An everyday activity for each account."""
        out = np.zeros(len(interface), np.int64)
        for kind in (CONSOLE, API, AGENT):
            here = interface == kind
            out[here] = self.activities[kind][choose(rng, self.shares[kind], int(here.sum()))]
        plain = out == self.activities[CONSOLE][0]
        out = np.where(plain & (rng.random(len(out)) < 0.6), self.chats[country], out)
        agentic = out == self.activities[AGENT][0]
        return np.where(agentic, self.harness[(client + (rng.random(len(out)) < 0.15)) % HARNESSES], out)


CHAT = Activity("ask.chat", talks=0.8, systems=0.1, system="sys.personal", words=5.4)
AGENTIC = Activity(
    "ask.agentic_coding", "more.agent", "answer.agent", "harness", talks=0.95, words=5.6, context=8.2, is_code=True
)
PROJECT = Activity("ask.chat", system="sys.project", systems=0.8, talks=0.35, words=5.5, context=5)
CONSOLE_WORK = (
    (34, CHAT), (11, replace(CHAT, first="ask.writing", more="more.writing", answer="answer.long", words=6.2)),
    (13, replace(CHAT, first="ask.coding", more="more.coding", answer="answer.code", words=6.2, is_code=True)),
    (8, replace(CHAT, first="ask.education", more="more.education", answer="answer.long", words=5.9)),
    (6, replace(CHAT, first="ask.math", more="more.math", answer="answer.math", words=6)),
    (4, replace(CHAT, first="ask.translation", words=5)),
    (4, replace(CHAT, first="ask.roleplay", more="more.roleplay", words=5.3)),
    (6, replace(CHAT, first="ask.data_analysis", more="more.data", answer="answer.data", words=6.1, context=6)),
    (5, replace(CHAT, first="ask.vision", more="more.vision", images=0.9, words=5.2, context=7)),
)  # fmt: skip
API_WORK = (
    (16, PROJECT), (9, replace(PROJECT, first="ask.rag", context=6.5, talks=0.1)),
    (9, replace(PROJECT, first="ask.coding", more="more.coding", answer="answer.code", words=6.3, is_code=True)),
    (8, replace(PROJECT, first="ask.data_analysis", more="more.data", answer="answer.data", words=6.2, context=6)),
    (8, replace(PROJECT, first="ask.tool_use", more="more.tool", answer="answer.tool", tools=7, talks=0.6, words=5)),
    (5, replace(PROJECT, first="ask.translation", talks=0.03, words=5)),
    (5, replace(PROJECT, first="ask.math", more="more.math", answer="answer.long", systems=0.3, words=6.4, talks=0.1)),
    (4, replace(PROJECT, first="ask.computer_use", more="more.computer", tools=8, images=0.4, talks=0.7, context=7)),
    (4, replace(PROJECT, first="ask.vision", more="more.vision", images=0.95, talks=0.05, context=7)),
    (10, replace(PROJECT, first="ask.writing", answer="answer.long", talks=0.15, words=6.4)),
    (16, Activity("ask.batch", "more.product", "answer.label", systems=0, talks=0.02, words=4.8, context=4.5)),
    (10, replace(CHAT, talks=0.2, systems=0)),
)  # fmt: skip
_TONGUES = {"DE": "de", "FR": "fr", "JP": "ja", "SG": "zh", "HK": "zh", "PL": "ru"}


def everyday(catalogue: Catalogue, rng: np.random.Generator) -> Everyday:
    """Adds what people do anyway."""
    console = [catalogue.add(a) for _, a in CONSOLE_WORK]
    api = [catalogue.add(a) for _, a in API_WORK]
    toolsets = rng.permutation(np.array([1, 2, 3, 10, 1, 2, 3]))[:HARNESSES]
    agents = [
        catalogue.add(replace(AGENTIC, owner=int(rng.integers(1, 2**62)), tools=int(t))) for t in toolsets.tolist()
    ]
    tongues = {t: catalogue.add(replace(CHAT, first=f"ask.chat.{t}", more=f"more.chat.{t}"))
               for t in sorted(set(_TONGUES.values()))}  # fmt: skip
    spanish = catalogue.add(replace(CHAT, first="ask.chat.es", more="more.chat.es"))
    chats = np.array([tongues.get(_TONGUES.get(c, ""), spanish if c == "BR" else console[0]) for c in COUNTRIES])
    shares = tuple(np.array([w for w, _ in work], float) for work in (CONSOLE_WORK, API_WORK))
    agentic = np.array([agents[0], console[2], console[0]])
    return Everyday(
        (np.array(console), np.array(api), agentic), (*shares, np.array([78.0, 14, 8])), chats, np.array(agents)
    )


def owner_seeds(owner: I64, account_key: U64) -> U64:
    """The seed of the wording of each stream: the activity's owner, or the account itself."""
    return np.where(owner == 0, mix(account_key), mix(owner.astype(np.uint64)))


__all__ = ["TOOLSETS", "Activity", "Catalogue", "Everyday", "Streams", "everyday", "owner_seeds"]
