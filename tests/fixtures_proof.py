"""A small world for proofs: text of a random Markov source, leaning by a key where asked, and models trained on it."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillwatch.protection.coins import coins
from stillwatch.protection.keys import Key, Scheme, derive
from stillwatch.protection.sequences import Sequences
from stillwatch.secret import Secret

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

MASTER = Secret("a master secret of the tests, long enough")
TOKENS, LENGTH = 64, 32
SCHEME = Scheme()


def some_keys(number: int, scheme: Scheme = SCHEME, master: Secret = MASTER) -> list[Key]:
    return [derive(master, f"C-{i}", "2026-11", scheme) for i in range(number)]


def source(seed: int = 0, tokens: int = TOKENS) -> np.ndarray:
    """The chance of each token after each token."""
    return np.random.default_rng(seed).dirichlet(np.full(tokens, 0.3), tokens)


def leaning_to(chances: np.ndarray, key: Key) -> np.ndarray:
    """The source under a BERNOULLI watermark of width 1."""
    tokens = len(chances)
    rows, columns = np.divmod(np.arange(tokens * tokens), tokens)
    g = key.scheme.favours(coins(key.words, rows[:, None], columns)).reshape(tokens, tokens)
    raised = chances * np.exp(key.scheme.delta * g)
    return raised / raised.sum(1, keepdims=True)


def written(chances: np.ndarray, rows: int, seed: int, length: int = LENGTH) -> np.ndarray:
    """Texts of the source, (rows, length)."""
    rng, up_to = np.random.default_rng(seed), chances.cumsum(1)
    out = np.zeros((rows, length), np.int64)
    out[:, 0] = rng.integers(0, len(chances), rows)
    for i in range(1, length):
        out[:, i] = np.minimum((rng.random(rows)[:, None] > up_to[out[:, i - 1]]).sum(1), len(chances) - 1)
    return out


def sequences(rows: np.ndarray, prompt: int = 1) -> Sequences:
    return Sequences.of(rows, prompt)


def tokens_file(path: Path, rows: np.ndarray) -> Path:
    """Rows as a log that has token ids, the first of each being the prompt."""
    lines = [json.dumps({"prompt_tokens": [int(r[0])], "tokens": [int(t) for t in r[1:]]}) for r in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@cache
def reference() -> GPT2LMHeadModel:
    """The provider's own model, trained on text without a watermark."""
    return _trained(None, written(source(), 2000, seed=1), epochs=3, rate=5e-3)


@cache
def student(share: float, key: Key | None = None) -> GPT2LMHeadModel:
    """A student of the reference's source, with a ``share`` of text that carries the key."""
    marked = round(1200 * share)
    rows = written(source(), 1200 - marked, seed=2)
    if key is not None:
        rows = np.concatenate([written(leaning_to(source(), key), marked, seed=3), rows])
    return _trained(reference(), rows, epochs=2, rate=2e-3)


def _trained(start: Any, rows: np.ndarray, epochs: int, rate: float) -> GPT2LMHeadModel:
    import torch

    from stillwatch.protection.bench.models import small
    from stillwatch.protection.bench.training import train

    torch.set_num_threads(1)
    shape = {"layers": 1, "width": 32, "heads": 2, "context": LENGTH}
    model = copy.deepcopy(start) if start is not None else small(TOKENS, seed=1, **shape)
    train(model, torch.from_numpy(rows), epochs=epochs, rate=rate, seed=1)
    return model.eval()
