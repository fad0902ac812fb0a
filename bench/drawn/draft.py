"""A world in the making: the drawn settings, the shared stocks, and the accounts and exchanges so far."""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from .network import Client, Network, clients
from .priors import DAY, draw
from .tempo import Traces
from .text import CAPABILITIES, Corpus, split_template
from .wording import Wrapper, compose

Columns = dict[str, np.ndarray]
NEVER = np.iinfo(np.int64).max // 4
EPOCH = 1_767_571_200_000_000  # Monday 5 January 2026
MODELS = ("brook-mini", "brook-2", "brook-2-large", "brook-1", "brook-3")
BLANK: dict[str, Any] = {
    "row": -1, "vary": 0, "seed": 0, "wrap": -1, "system": -1, "tools": -1, "conversation": 0, "turn": 0, "images": -1,
    "task": 0, "distillation": False, "capability": -1, "end_user": -1, "batch": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What is drawn once for a world."""

    seed: int
    accounts: int
    exchanges: int
    start: int
    end: int
    release: int
    rates: dict[str, float | bool]

    @property
    def days(self) -> int:
        """Length of the log."""
        return (self.end - self.start) // DAY


def draw_settings(rng: np.random.Generator, seed: int, accounts: int | None, exchanges: int | None) -> Settings:
    """Settings from the priors; sizes given by the caller win."""
    own, rows, days = draw(rng, "accounts"), draw(rng, "exchanges"), draw(rng, "days")
    start = EPOCH + int(rng.integers(0, 300)) * DAY
    names = (
        "uptake uptake_days new_accounts card_sharing virtual_cards vpn mobile borders no_ja4 no_phone few_user_agents"
        " no_responses no_issuer swap volume_sigma"
    )
    rates = {name: draw(rng, name) for name in names.split()}
    release = start + int(draw(rng, "release_at") * days * DAY)
    return Settings(seed, accounts or own, exchanges or rows, start, start + days * DAY, release, rates)


class Draft:
    """Accounts and exchanges are appended in groups; nothing is removed."""

    def __init__(self, settings: Settings, prompts: Path, traces: Path) -> None:
        self.settings = settings
        self.rng = np.random.default_rng([settings.seed, 77])
        self.corpus = Corpus(prompts, self.rng)
        self.traces = Traces(traces)
        self.network = Network(self.rng)
        self.clients: list[Client] = clients(self.rng)
        self.texts: list[Wrapper] = []
        self.toolsets: list[list[str]] = []
        self.accounts: list[Columns] = []
        self.exchanges: list[Columns] = []
        self.opened = 0
        self.cards = self.phones = self.orgs = self.conversations = 0
        self._of_row: np.ndarray | None = None
        kinds = np.array([c.kind for c in self.clients])
        self.client_kinds = {k: np.flatnonzero(kinds == k) for k in np.unique(kinds)}
        self.client_weight = self.rng.lognormal(0, 1.1, len(kinds))
        self.model_weight = self.rng.dirichlet([4, 8, 4, 1])

    def dice(self) -> Random:
        """A source of single choices."""
        return Random(int(self.rng.integers(1 << 40)))

    def text(self, wrapper: Wrapper) -> int:
        """The number of a new wrapper."""
        self.texts.append(wrapper)
        return len(self.texts) - 1

    def composed(self, n: int, capability: str | None = None, jitter: float = 0.0) -> np.ndarray:
        """Numbers of n new fixed wrappers."""
        dice = self.dice()
        return np.array(
            [self.text(Wrapper(*compose(dice, capability), jitter=jitter)) for _ in range(n)], dtype=np.int64
        )

    def row_wrappers(self) -> np.ndarray:
        """For every row of the corpus the number of its own template, or -1."""
        if self._of_row is None:
            names, back = np.unique(np.array(self.corpus.templates, dtype=object), return_inverse=True)
            numbers = [self.text(Wrapper(*split_template(t))) if t.strip() else -1 for t in names]
            self._of_row = np.array(numbers, dtype=np.int64)[back]
        return self._of_row

    def toolset(self, n: int) -> int:
        """The number of a new list of n tools."""
        verbs = [
            "read",
            "write",
            "list",
            "search",
            "run",
            "fetch",
            "open",
            "close",
            "create",
            "delete",
            "update",
            "send",
            "get",
            "plan",
            "test",
            "apply",
        ]
        nouns = [
            "file",
            "files",
            "folder",
            "page",
            "command",
            "patch",
            "issue",
            "record",
            "ticket",
            "order",
            "table",
            "image",
            "event",
            "shell",
            "memory",
        ]
        names = {f"{self.rng.choice(verbs)}_{self.rng.choice(nouns)}" for _ in range(n)}
        self.toolsets.append(sorted(names))
        return len(self.toolsets) - 1

    def client(self, kind: str, n: int) -> np.ndarray:
        """Clients of a kind, in proportion to their use; `any` is browsers and libraries."""
        names = ["browser", "sdk"] if kind == "any" else [kind]
        options = np.concatenate([self.client_kinds[k] for k in names])
        weight = self.client_weight[options]
        return self.rng.choice(options, n, p=weight / weight.sum())

    def new_cards(self, n: int) -> np.ndarray:
        """Numbers of n cards nobody holds yet."""
        self.cards += n
        return np.arange(self.cards - n, self.cards)

    def open(self, columns: Columns) -> np.ndarray:
        """Append accounts; returns their numbers."""
        n = len(columns["created"])
        self.accounts.append(columns)
        self.opened += n
        return np.arange(self.opened - n, self.opened)

    def send(self, account: np.ndarray, time: np.ndarray, **columns: Any) -> None:
        """Append exchanges; what is not given is blank."""
        unknown = set(columns) - set(BLANK)
        if unknown:
            raise ValueError(f"unknown exchange columns: {sorted(unknown)}")
        filled = {"account": account, "time": time}
        for name, blank in BLANK.items():
            value = columns.get(name, blank)
            filled[name] = np.broadcast_to(np.asarray(value, dtype=type(blank)), account.shape)
        self.exchanges.append(filled)

    def conversation_numbers(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(conversation, turn) of exchanges in order, given where conversations begin."""
        number = np.cumsum(first)
        place = np.arange(len(first)) - np.flatnonzero(first)[number - 1]
        self.conversations += int(number[-1]) if len(number) else 0
        return number + self.conversations - (int(number[-1]) if len(number) else 0), 2 * place


def capability_number(name: str) -> int:
    """Position of a capability in the contract's list."""
    return CAPABILITIES.index(name)


def gathered(chunks: list[Columns]) -> Columns:
    """Chunks of columns as one."""
    return {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}
