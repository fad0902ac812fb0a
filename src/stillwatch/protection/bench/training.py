"""Training small models, and sampling from them, with a watermark or without: seeded, on one thread, in batches.

Equal arguments give equal results on one machine and one version of PyTorch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from stillwatch.protection.keys import Key
from stillwatch.protection.samplers import is_fresh, lean

WARMING = 0.05
"""Share of the steps in which the rate rises; after it, it falls as half a cosine (Loshchilov and Hutter, 2017)."""
CLIP = 1.0


def train(
    model: PreTrainedModel,
    sequences: Tensor,
    *,
    epochs: int,
    batch: int = 64,
    rate: float = 1e-3,
    seed: int,
    weigh: Tensor | None = None,
    shares: Tensor | None = None,
) -> list[float]:
    """Train in place on next tokens by AdamW (Loshchilov and Hutter, 2019); gives the mean loss of each epoch, nats a token.

    ``sequences`` is (n, length) of token ids; ``weigh`` of the same shape is how much foretelling each token counts (0 or False
    for prompts and padding), None for all alike. With ``shares`` (n, length, vocabulary) each token is learnt as this
    distribution, not as the token that stands there (Hinton et al., 2015); the loss is the cross-entropy with it, which is its
    KL divergence and a constant. Each epoch sees the sequences in another order, drawn from ``seed``.
    """
    torch.set_num_threads(1)
    order = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(sequences) / batch)
    slope = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    course = torch.optim.lr_scheduler.LambdaLR(slope, lambda step: _rate(step, steps))
    model.train()
    losses = []
    for _ in range(epochs):
        told, counted = 0.0, 0.0
        for rows in torch.randperm(len(sequences), generator=order).split(batch):
            loss, weight = _loss(
                model,
                sequences[rows],
                None if weigh is None else weigh[rows],
                None if shares is None else shares[rows],
            )
            slope.zero_grad(set_to_none=True)
            (loss / weight).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            slope.step()
            course.step()
            told, counted = told + float(loss.detach()), counted + weight
        losses.append(told / max(counted, 1.0))
    model.eval()
    return losses


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Tensor,
    length: int,
    *,
    key: Key | None = None,
    temperature: float = 1.0,
    seed: int,
    batch: int = 512,
) -> Tensor:
    """Each prompt with ``length`` sampled tokens behind it, (n, p + length), leaning by ``key`` where one is given; the model
    keeps keys and values of what it has read. ValueError where a prompt is shorter than the key's window."""
    if key is not None and prompts.shape[1] < key.scheme.width:
        raise ValueError(f"a prompt of {prompts.shape[1]} tokens holds no window of {key.scheme.width}")
    torch.set_num_threads(1)
    chance = torch.Generator().manual_seed(seed)
    model.eval()
    return torch.cat([_written(model, rows, length, key, temperature, chance) for rows in prompts.split(batch)])


@torch.no_grad()
def nll(model: PreTrainedModel, sequences: Tensor, starts: int | Tensor, *, batch: int = 256) -> float:
    """Mean negative log-likelihood, nats a token, of the tokens from ``starts`` on: one place for all rows, or one a row."""
    torch.set_num_threads(1)
    places = torch.arange(sequences.shape[1])
    weigh = (places[None, :] >= torch.as_tensor(starts).reshape(-1, 1)).expand(sequences.shape).float()
    model.eval()
    told = [_loss(model, s, w) for s, w in zip(sequences.split(batch), weigh.split(batch), strict=True)]
    return float(sum(float(loss) for loss, _ in told) / sum(weight for _, weight in told))


def _rate(step: int, steps: int) -> float:
    rising = max(1, round(WARMING * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))


def _loss(
    model: PreTrainedModel, rows: Tensor, weigh: Tensor | None, shares: Tensor | None = None
) -> tuple[Tensor, float]:
    """The weighted sum of the losses of all tokens but the first, and the sum of their weights (never 0)."""
    logits = model(input_ids=rows, use_cache=False).logits[:, :-1]
    wanted = rows[:, 1:].flatten() if shares is None else shares[:, 1:].flatten(0, 1)
    each = nn.functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="none")
    if weigh is None:
        return each.sum(), float(each.numel())
    counted = weigh[:, 1:].flatten().to(each.dtype)
    return (each * counted).sum(), max(float(counted.sum()), 1e-9)


def _written(
    model: PreTrainedModel, rows: Tensor, length: int, key: Key | None, temperature: float, chance: torch.Generator
) -> Tensor:
    kept = DynamicCache(config=model.config)
    ahead = rows
    for _ in range(length):
        logits = model(ahead, kept, use_cache=True).logits[:, -1] / temperature
        if key is not None:
            width = key.scheme.width
            logits = lean(logits, rows[:, -width:], key, is_fresh(rows, 0, width))
        ahead = _picked(logits, chance)
        rows = torch.cat([rows, ahead], 1)
    return rows


def _picked(logits: Tensor, chance: torch.Generator) -> Tensor:
    """One token a row, drawn at temperature 1, by one uniform number a row."""
    reached = logits.softmax(1, dtype=torch.float64).cumsum(1)
    drawn = torch.rand((len(logits), 1), generator=chance, dtype=torch.float64) * reached[:, -1:]
    return torch.searchsorted(reached, drawn, right=True)


@torch.no_grad()
def rewritten(model: PreTrainedModel, sequences: Tensor, replaced: Tensor, *, seed: int, batch: int = 512) -> Tensor:
    """The sequences with the tokens at ``replaced`` (n, length, of bool) drawn anew by the model, from left to right, each given
    what stands before it by then. The first token stays."""
    torch.set_num_threads(1)
    chance = torch.Generator().manual_seed(seed)
    model.eval()
    told = []
    for rows, there in zip(sequences.split(batch), replaced.split(batch), strict=True):
        rows, kept = rows.clone(), DynamicCache(config=model.config)
        for place in range(1, rows.shape[1]):
            logits = model(rows[:, place - 1 : place], kept, use_cache=True).logits[:, -1]
            rows[:, place : place + 1] = torch.where(
                there[:, place : place + 1], _picked(logits, chance), rows[:, place : place + 1]
            )
        told.append(rows)
    return torch.cat(told)
