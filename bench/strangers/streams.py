"""Streams: where the text of a request comes from, which item comes next, and how it is worded."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from strangers import wording
from strangers.corpus import Corpus

PRODUCTS = (
    "notes app",
    "shop",
    "clinic",
    "game",
    "school",
    "newsroom",
    "garage",
    "hotel",
    "library",
    "bank",
    "studio",
    "farm",
)


@dataclass
class Stream:
    """One kind of request. ``wrappers`` empty means bare items; ``patterns`` are said anew each time."""

    items: np.ndarray
    order: str = "random"  # random, shard, line
    wrappers: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    personal: bool = False
    by_taste: bool = False
    template: bool = True
    reword: float = 0.0
    place: int = 0
    system: list[str] = field(default_factory=list)
    again: float = 0.0
    sticky: bool = False
    planted: bool = False
    named: bool = False

    def variants(self, account: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which wrapper each row has; -1 for none or one of its own."""
        if not self.wrappers:
            return np.full(len(account), -1)
        drawn = (rng.beta(0.8, 1.6, len(account)) * len(self.wrappers)).astype(int)
        return account * 7 % len(self.wrappers) if self.sticky else drawn

    def choose(self, account: np.ndarray, taste: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The item of each row, rows being in order of time."""
        n, many = len(account), len(self.items)
        if self.order == "line":
            pick = (np.arange(n) + rng.integers(0, many)) % many
        elif self.order == "shard":
            order = np.argsort(account, kind="stable")
            pick = np.empty(n, dtype=np.int64)
            pick[order] = (np.arange(n) + rng.integers(0, many)) % many
        else:
            pick = rng.integers(0, many, n)
        if self.by_taste:
            own = taste + (rng.random(n) < 0.35) * 997
            pick = (own * 7919 + (rng.beta(0.7, 2, n) * max(40, many // 12)).astype(int)) % many
        if self.again:
            repeat = np.flatnonzero(rng.random(n) < self.again)
            pick[repeat] = pick[np.maximum(repeat - rng.geometric(0.05, len(repeat)), 0)]
        return self.items[pick]


def render(
    s: Stream, corpus: Corpus, item: np.ndarray, variant: np.ndarray, taste: np.ndarray, turn: np.ndarray, seed: int
) -> tuple[list[str | None], list[str]]:
    """System texts and prompts of these rows."""
    pick = random.Random(seed)
    rows = zip(item.tolist(), variant.tolist(), taste.tolist(), turn.tolist())
    texts = [_row(s, corpus, i, v, a, t, pick) for i, v, a, t in rows]
    return [t[0] for t in texts], [t[1] for t in texts]


def _row(
    s: Stream, corpus: Corpus, i: int, v: int, taste: int, turn: int, pick: random.Random
) -> tuple[str | None, str]:
    text, template = corpus.prompt[i], corpus.template[i] if s.template else ""
    if s.personal:
        if turn and pick.random() < 0.3:
            return _system(s, corpus, "", taste), wording.follow_up(pick)
        other = corpus.prompt[s.items[pick.randrange(len(s.items))]]
        said = wording.own_words(text, other, pick)
        text = said if len(said) > 24 else text
    if s.reword and pick.random() < s.reword:
        text = wording.reworded(text, pick)
    wrap = s.wrappers[v] if v >= 0 else wording.anew(s.patterns, pick)
    if s.personal and not wrap and taste % 100 < 28:
        wrap = wording.fixed(random.Random(taste + 1), 1 + taste % 3)
    as_system = template if s.place % 2 == 0 and len(template) > 20 else ""
    if template and not as_system and not s.personal:
        text = f"{template}\n\n{text}"
    if wrap:
        text = (f"{wrap}\n\n{text}", f"{text}\n\n{wrap}", f"{wrap}\n---\n{text}\n---")[s.place % 3]
    return _system(s, corpus, as_system if not s.personal else "", taste), text


def _system(s: Stream, corpus: Corpus, template: str, taste: int) -> str | None:
    """The system text: the stream's, the template, a person's own (or a public persona), or none."""
    if s.system:
        text = s.system[taste % len(s.system)]
        shop = f"{wording.SHOP[taste % 13]} {wording.GOODS[taste // 13 % 12]}"
        return f"{text} You work for {shop} {taste % 977}." if s.named else text
    if template:
        return template
    if not s.personal or taste % 5 < 2:
        return None
    if taste % 5 == 2:
        return "You are a helpful assistant."
    own = random.Random(taste)
    if taste % 5 == 3:
        return corpus.prompt[own.choice(corpus.rows["benign_prompts_chat"])][: 60 + taste % 700]
    return f"{wording.fixed(own, 1 + taste % 3)} The product is a {own.choice(PRODUCTS)}."
