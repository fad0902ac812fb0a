"""Samplers that lean the way a key says: what a watermark does to the next token.

The rule: a coin depends on the key, the window and the token alone, so whoever holds the key finds it again in the text;
and nothing else of the draw is touched, so a row without a key is given back bit for bit.

BERNOULLI is the soft green list of Kirchenbauer et al. (2023) with one independent coin for each pair; GUMBEL is Aaronson's
draw (2022; Kuditipudi et al., 2023): the largest log(u)/p is distributed as p over random keys, and it is the same for the
same window, so a window that stood in the sequence before is drawn without the key, or loops would never end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stillwatch.protection.coins import BITS, drawn, lanes, threshold
from stillwatch.protection.keys import Key, Kind

CELLS = 1 << 23
"""Coins drawn at once: what bounds the memory (about 64 MB a step of the arithmetic)."""


def lean(logits: Tensor, windows: Tensor, key: Key, fresh: Tensor | None = None) -> Tensor:
    """The logits to draw from, at temperature 1 and with nothing after them, for the text to carry the key.

    ``logits`` (rows, vocabulary), floats, as they would be drawn from without the key; ``windows`` (rows, width) int64;
    ``fresh`` (rows,): whether the row's window did not stand in its sequence before (None: all are). BERNOULLI adds
    delta to favoured tokens; it needs no ``fresh``. GUMBEL leaves one token that is not -inf where fresh, and changes
    nothing where not. What is given is not changed. ValueError for windows of another width than the key's.
    """
    if windows.shape != (len(logits), key.scheme.width):
        raise ValueError(f"windows of shape {tuple(windows.shape)} for {len(logits)} rows of width {key.scheme.width}")
    step = max(1, CELLS // max(1, logits.shape[1]))
    turned = _boosted if key.scheme.kind is Kind.BERNOULLI else _picked
    parts = [turned(logits[i : i + step], windows[i : i + step], key) for i in range(0, len(logits), step)]
    leant = torch.cat(parts) if parts else logits.clone()
    return leant if fresh is None or turned is _boosted else torch.where(fresh[:, None], leant, logits)


def _coins(windows: Tensor, vocabulary: int, key: Key) -> Tensor:
    """(rows, vocabulary): the coin of every token after each window."""
    first, second = lanes(key.words, windows)
    return drawn(first[:, None], second[:, None], torch.arange(vocabulary, device=windows.device)[None])


def _boosted(logits: Tensor, windows: Tensor, key: Key) -> Tensor:
    favoured = _coins(windows, logits.shape[1], key) < threshold(key.scheme.share)
    return torch.where(favoured, logits + key.scheme.delta, logits)


def _picked(logits: Tensor, windows: Tensor, key: Key) -> Tensor:
    # In doubles, and half a step off both ends: in single precision a coin near its top would be 1, and win whatever p is.
    u = ((_coins(windows, logits.shape[1], key) >> 1).double() + 0.5) * 2.0 ** (1 - BITS)
    # The largest log(u)/p is the largest log(p) - log(-log(u)); what is common to a row does not matter.
    chosen = (logits.double() - torch.log(-torch.log(u))).argmax(1, keepdim=True)
    alone = torch.full_like(logits, -torch.inf)
    return alone.scatter(1, chosen, logits.gather(1, chosen))
