"""The network that is trained, and its training. What it computes is ``_lexicon.add_up`` and ``_reader.logits``, in PyTorch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from stillwatch.fingerprints._lexicon import BLOCK, EDGE, UNIT, WIDTH
from stillwatch.fingerprints._reader import CLASSES, marks
from stillwatch.fingerprints._scan import listed
from stillwatch.fingerprints._tokens import count_all
from stillwatch.privacy import spans
from stillwatch.types import CAPABILITIES
from training.corpus import Fillers, Prompt, filled

PEAKS, HIDDEN, MARKS = 32, 64, 8
LONGEST = 24
"""Blocks of a text that are read in training: three quarters from its head, the rest from its tail."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how hard to train. ``hold`` keeps vectors near the teacher's, ``meaning`` weighs agreement with it,
    ``forget`` drops this share of tokens, ``merged`` writes a system text into the user's turn, ``surrounded`` puts other text
    before or after a prompt: what is asked may stand anywhere."""

    epochs: int = 8
    rate: float = 2e-3
    hold: float = 0.05
    meaning: float = 3.0
    forget: float = 0.3
    merged: float = 0.35
    surrounded: float = 0.25
    batch: int = 64
    seed: int = 0


class Network(nn.Module):
    """Sums over blocks of tokens, then the reader's few layers."""

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag.from_pretrained(torch.tensor(vectors), freeze=False, mode="sum", padding_idx=0)
        self.peak = nn.Linear(WIDTH, PEAKS)
        size = 4 * WIDTH + PEAKS + MARKS
        self.hidden, self.out = nn.Linear(size, HIDDEN), nn.Linear(HIDDEN, len(CLASSES), bias=False)
        self.skip, self.drop = nn.Linear(size, len(CLASSES)), nn.Dropout(0.25)

    def sums(self, ids: torch.Tensor, row: torch.Tensor, rows: int) -> tuple[torch.Tensor, ...]:
        """Whole, head, tail and peaks of each row; ``ids`` has a line for each block, ``row`` says whose it is."""
        blocks = self.vectors(ids)
        first = torch.searchsorted(row, torch.arange(rows))
        last = torch.searchsorted(row, torch.arange(rows), right=True) - 1
        at = torch.arange(len(row))
        zeros = torch.zeros(rows, WIDTH)
        whole = zeros.index_add(0, row, blocks)
        head = zeros.index_add(0, row, blocks * (at - first[row] < EDGE)[:, None])
        tail = zeros.index_add(0, row, blocks * (last[row] - at < EDGE)[:, None])
        follows = torch.zeros_like(blocks)
        follows[:-1] = blocks[1:] * (row[1:] == row[:-1])[:, None]
        ends = (at == last[row]) & (first[row] != last[row])
        peaks = functional.relu(self.peak(unit(blocks + follows))) * ~ends[:, None]
        best = torch.zeros(rows, PEAKS).scatter_reduce(0, row[:, None].expand(-1, PEAKS), peaks, "amax")
        return whole, head, tail, best

    def forward(self, prompt: Any, system: Any, shape: torch.Tensor) -> torch.Tensor:
        rows = len(shape)
        whole, head, tail, peaks = self.sums(*prompt, rows)
        over, top, _, more = self.sums(*system, rows)
        parts = [unit(whole + over), unit(head), unit(tail), unit(top), torch.maximum(peaks, more)]
        seen = self.drop(torch.cat([*parts, shape], 1))
        return self.out(functional.relu(self.hidden(seen))) + self.skip(seen)


def unit(sums: torch.Tensor) -> torch.Tensor:
    return UNIT * functional.normalize(sums, dim=1, eps=1e-6)


class Tokens:
    """Texts as lines of blocks of token numbers (0: unknown)."""

    def __init__(self, tokens: npt.NDArray[np.uint64]) -> None:
        self.tokens = tokens

    def blocks(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        flat, bounds = listed(spans(pa.array(texts, pa.large_string())))
        at = np.minimum(np.searchsorted(self.tokens, flat), len(self.tokens) - 1)
        ids = np.where(self.tokens[at] == flat, at + 1, 0)
        return [_blocked(ids[bounds[i] : bounds[i + 1]]) for i in range(len(texts))]


def _blocked(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    padded = np.zeros(-(-len(ids) // BLOCK) * BLOCK, np.int64)
    padded[: len(ids)] = ids
    lines = padded.reshape(-1, BLOCK)
    kept = LONGEST * 3 // 4
    return lines if len(lines) <= LONGEST else np.concatenate([lines[:kept], lines[kept - LONGEST :]])


def shapes(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Marks of shape of each text, by the package's own scan."""
    return marks(count_all(spans(pa.array(texts, pa.large_string()))))


def targets(prompts: Sequence[Prompt]) -> npt.NDArray[np.float32]:
    """1 where a class holds, by row and CLASSES."""
    y = np.zeros((len(prompts), len(CLASSES)), np.float32)
    for i, p in enumerate(prompts):
        for c in p.capability:
            y[i, CAPABILITIES.index(c)] = 1
        for e in p.elicitation:
            y[i, len(CAPABILITIES) + CLASSES[len(CAPABILITIES) :].index(e)] = 1
    return y


def stacked(
    lines: Sequence[npt.NDArray[np.int64]], drop: np.random.Generator | None, forget: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of several texts one below the other, some tokens forgotten, and whose each is; a text without any has one."""
    lines = [x if len(x) else np.zeros((1, BLOCK), np.int64) for x in lines]
    ids = np.concatenate(lines)
    if drop is not None:
        ids = ids * (drop.random(ids.shape) > forget)
    return torch.tensor(ids), torch.tensor(np.repeat(np.arange(len(lines)), [len(x) for x in lines]))


def train(
    prompts: Sequence[Prompt], found: Fillers, tokens: npt.NDArray[np.uint64], vectors: npt.NDArray[np.float32],
    taught: tuple[Sequence[str], npt.NDArray[np.float32]], how: Settings,
) -> tuple[Network, npt.NDArray[np.float32]]:  # fmt: skip
    """The trained network, and the vectors of all tokens.

    Trains on the prompts, their slots filled anew each epoch, and on the teacher's view of the ``taught`` passages.
    """
    torch.manual_seed(how.seed)
    rng, dice = random.Random(how.seed), np.random.default_rng(how.seed)
    used = _used(prompts, found, taught[0], tokens)
    start = np.concatenate([np.zeros((1, WIDTH), np.float32), vectors[used]])
    reader, net, first = Tokens(tokens[used]), Network(start), torch.tensor(start)
    y, weight = torch.tensor(targets(prompts)), torch.tensor(np.array([p.weight for p in prompts], np.float32))
    passages, views = reader.blocks(taught[0]), torch.tensor(taught[1])
    others = [p for name, p in net.named_parameters() if not name.startswith("vectors")]
    groups = [{"params": net.vectors.parameters(), "weight_decay": 0.0}, {"params": others, "weight_decay": 1e-2}]
    optimiser = torch.optim.AdamW(groups, lr=how.rate)
    total, step = how.epochs * -(-len(prompts) // how.batch), 0
    for _ in range(how.epochs):
        texts, systems = _written(prompts, found, how, rng)
        user, over, shape = reader.blocks(texts), reader.blocks(systems), torch.tensor(shapes(texts))
        order = dice.permutation(len(prompts))
        for b in range(0, len(order), how.batch):
            some = order[b : b + how.batch]
            for group in optimiser.param_groups:
                group["lr"] = how.rate * min(1, (step + 1) / 60) * max(0.02, 1 - step / total)
            step += 1
            asked = stacked([user[i] for i in some], dice, how.forget)
            given = net(asked, stacked([over[i] for i in some], dice, how.forget), shape[some])
            loss = (
                functional.binary_cross_entropy_with_logits(given, y[some], reduction="none").sum(1) * weight[some]
            ).mean()
            met = torch.unique(asked[0])
            loss = loss + how.hold * ((net.vectors.weight[met] - first[met]) ** 2).sum(1).mean()
            if how.meaning:
                loss = loss + how.meaning * _disagreement(net, passages, views, dice)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    learnt = vectors.copy()
    learnt[used] = net.vectors.weight.detach().numpy()[1:]
    return net.eval(), learnt


def _used(
    prompts: Sequence[Prompt], found: Fillers, passages: Sequence[str], tokens: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Places of the tokens that occur in training; the others keep the teacher's vectors."""
    texts = (
        [p.text for p in prompts]
        + [p.system for p in prompts]
        + [t for k in found.values() for ts in k.values() for t in ts]
    )
    flat, _ = listed(spans(pa.array([*texts, *passages], pa.large_string())))
    return np.flatnonzero(np.isin(tokens, flat))


def _disagreement(
    net: Network, passages: Sequence[npt.NDArray[np.int64]], views: torch.Tensor, dice: np.random.Generator
) -> torch.Tensor:
    """How differently net and teacher see which of a few passages are alike."""
    some = dice.integers(0, len(passages), 96)
    ids, row = stacked([passages[i] for i in some], None, 0)
    whole = torch.zeros(len(some), WIDTH).index_add(0, row, net.vectors(ids))
    seen = functional.normalize(whole, dim=1, eps=1e-6)
    return ((seen @ seen.T - views[some] @ views[some].T) ** 2).mean() * 10


def _written(
    prompts: Sequence[Prompt], found: Fillers, how: Settings, rng: random.Random
) -> tuple[list[str], list[str]]:
    """Texts and system texts with their slots filled; some system texts written into the user's turn, some surrounded."""
    texts, systems = [], []
    words = [w for t in found["document"]["en"] + found["task"]["en"] for w in t.split()]
    for p in prompts:
        text, system = filled(p.text, p.language, found, rng), filled(p.system, p.language, found, rng)
        if rng.random() < how.surrounded:
            text = _surrounded(text, found, words, rng)
        join = bool(system) and rng.random() < how.merged
        texts.append(f"{system}\n{text}" if join else text)
        systems.append("" if join else system)
    return texts, systems


def _surrounded(text: str, found: Fillers, words: Sequence[str], rng: random.Random) -> str:
    """The text with a passage, a dialogue, code or words at random before it, after it or both."""

    def piece() -> str:
        if rng.random() < 0.5:
            return " ".join(rng.choices(words, k=rng.randint(4, 80)))
        kind = rng.choice(("document", "answer", "code", "dialogue", "sentence"))
        return rng.choice(rng.choice(list(found[kind].values())))

    where = rng.random()
    before, after = piece() if where < 0.7 else "", piece() if where > 0.4 else ""
    return "\n".join(part for part in (before, text, after) if part)


def exported(
    net: Network, tokens: npt.NDArray[np.uint64], vectors: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of ``reader.npz``, not calibrated; vectors as whole numbers with a scale each."""
    scale = np.maximum(np.abs(vectors).max(axis=1), 1e-9) / 127
    plain = {name: p.detach().numpy() for name, p in net.named_parameters()}
    return {
        "tokens": tokens, "vectors": np.rint(vectors / scale[:, None]).astype(np.int8), "scale": scale.astype(np.float16),
        "peak": plain["peak.weight"], "floor": plain["peak.bias"], "hidden": plain["hidden.weight"].T,
        "hidden_bias": plain["hidden.bias"], "out": plain["out.weight"].T, "skip": plain["skip.weight"].T,
        "bias": plain["skip.bias"], "centre": np.zeros(WIDTH, np.float32), "slope": np.ones(len(CLASSES), np.float32),
        "shift": np.zeros(len(CLASSES), np.float32),
    }  # fmt: skip
