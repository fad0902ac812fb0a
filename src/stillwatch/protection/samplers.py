"""Samplers that lean the way a key says: what a watermark does to the next token.

The rule: a coin depends on the key, the window and the token alone, so whoever holds the key finds it again in the text;
and nothing else of the draw is touched, so a row without a key is given back bit for bit.

BERNOULLI is the soft green list of Kirchenbauer et al. (2023) with one independent coin for each pair; GUMBEL is Aaronson's
draw (2022; Kuditipudi et al., 2023): the largest log(u)/p is distributed as p over random keys, and it is the same for the
same window, so a window that stood in the sequence before is drawn without the key, or loops would never end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

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
    # A hash of few windows is hundreds of small steps, which cost NumPy a tenth of what they cost PyTorch.
    hashed = lanes(key.words, windows.cpu().numpy())
    first, second = (torch.from_numpy(lane).to(windows.device) for lane in hashed)
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


def is_fresh(ids: Tensor, written_from: int, width: int) -> Tensor:
    """(rows,): whether no token of ``ids`` (rows, length) from ``written_from`` on stands after the window that ``ids`` ends in.

    Only where the model wrote does a window count as seen: nothing was drawn with the key after one of the prompt's.
    """
    now = ids.shape[1]
    earlier = range(max(written_from, width), now)
    if not earlier:
        return torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    before = ids[:, earlier[0] - width : now - 1].unfold(1, width, 1)
    return ~(before == ids[:, None, now - width :]).all(2).any(1)


def warpers(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> LogitsProcessorList:
    """What ``generate`` does to logits after all processors, for these of its arguments, in its order; 0 and 1.0 are none."""
    found = LogitsProcessorList()
    if temperature != 1.0:
        found.append(TemperatureLogitsWarper(temperature))
    if top_k:
        found.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        found.append(TopPLogitsWarper(top_p))
    return found


class Watermark(LogitsProcessor):
    """For ``model.generate(do_sample=True, logits_processor=[Watermark(...)])``: each row leans by its own key, or not at all.

    ``keys`` has a key or None for each row (with ``num_return_sequences`` or beams: for each of those); ``prompt_length`` is
    the number of columns before the first one written; ``lengths`` how many of them are each row's own, where prompts are
    padded on the left. A row whose window is not whole yet, or that has no key, is given back bit for bit. Nothing is kept
    between calls: what a row has seen stands in its ids, so rows may be reordered.

    ``generate`` of transformers 5 runs processors that are given *before* temperature, top-k and top-p. For BERNOULLI at
    temperature T the lean is therefore delta / T, and a favoured token may come in among the top k. GUMBEL has chosen its
    token before they are applied, so they would not be heard: give the same ones as ``warpers``, and the draw is from what
    they leave. Greedy decoding (``do_sample=False``) carries BERNOULLI where delta outweighs the gap to the best token;
    GUMBEL makes it a draw, and is for sampling. ValueError where rows and keys differ in number.
    """

    def __init__(
        self,
        keys: Sequence[Key | None],
        prompt_length: int,
        lengths: Sequence[int] | None = None,
        warpers: LogitsProcessorList | None = None,
    ) -> None:
        self._keys, self._prompt = tuple(keys), prompt_length
        self._begins = [prompt_length - n for n in lengths] if lengths is not None else [0] * len(self._keys)
        if len(self._begins) != len(self._keys) or min(self._begins, default=0) < 0:
            raise ValueError(f"{len(self._keys)} rows need as many lengths, none above {prompt_length}")
        self._warpers = warpers or LogitsProcessorList()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores, (rows, vocabulary), with the marked rows leant; what is given is not changed."""
        if len(input_ids) != len(self._keys):
            raise ValueError(
                f"{len(input_ids)} rows, but {len(self._keys)} keys: one for each row, None for no watermark"
            )
        marked = self._marked(input_ids.shape[1])
        if not marked:
            return scores
        scores = scores.clone()
        for key, rows in marked.items():
            at = torch.tensor(rows, device=scores.device)
            scores[at] = self._leant(input_ids[at], scores[at], key)
        return scores

    def _marked(self, length: int) -> dict[Key, list[int]]:
        """The rows of each key that have a whole window of their own."""
        marked: dict[Key, list[int]] = {}
        for row, (key, begin) in enumerate(zip(self._keys, self._begins, strict=True)):
            if key is not None and length - begin >= key.scheme.width:
                marked.setdefault(key, []).append(row)
        return marked

    def _leant(self, ids: Tensor, scores: Tensor, key: Key) -> Tensor:
        width = key.scheme.width
        windows = ids[:, -width:]
        if key.scheme.kind is Kind.BERNOULLI:
            return lean(scores, windows, key)
        fresh = is_fresh(ids, self._prompt, width)
        chosen = lean(self._warpers(ids, scores), windows, key)
        return torch.where(fresh[:, None], chosen, scores)
