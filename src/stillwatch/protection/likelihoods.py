"""How likely a suspect with open weights finds each name at a canary's place: scores for ``canaries.rank``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch.nn.functional import log_softmax, pad
from transformers import PreTrainedTokenizerBase

from stillwatch.errors import InputRejected
from stillwatch.protection.canaries import Issued, lead_for, prompt_for
from stillwatch.protection.opened import Opened

ROWS = 64


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Log-likelihoods of names, in nats, of a suspect; with a ``reference``, another model, how much more than it finds them.

    A reference takes out what any model thinks of the words, which makes the test find more; its p-values are exact with any.
    """

    suspect: Opened
    reference: Opened | None = None

    def __call__(self, issued: Issued, names: Sequence[str]) -> list[float]:
        """As ``canaries.Score`` has it."""
        scores = _said(self.suspect, issued, names)
        return (scores - _said(self.reference, issued, names) if self.reference else scores).tolist()


def _said(opened: Opened, issued: Issued, names: Sequence[str]) -> torch.Tensor:
    if opened.tokenizer is None:
        raise InputRejected("a model is asked in words, and came without tokenizer.json", hint="save its tokenizer too")
    before = _begun(opened.tokenizer, issued)
    start = _ids(opened.tokenizer, before)
    rows = [_ids(opened.tokenizer, before + name) for name in names]
    # The last piece before a name may be written otherwise once the name is there: then it is scored too.
    shared = min(_shared(start, row) for row in rows)
    if not shared:
        raise InputRejected("a name cannot be asked for: nothing of the question is left before it in these tokens")
    most = getattr(opened.model.config, "max_position_embeddings", None) or 1 << 30
    cut = max(0, max(map(len, rows)) - most)
    if cut >= shared:
        raise InputRejected(f"the model reads {most} tokens at most, too few to be asked")
    return _behind(opened, [row[cut:] for row in rows], shared - cut)


def _begun(tokenizer: PreTrainedTokenizerBase, issued: Issued) -> str:
    """The question, in the form of the model's own turns where it has one, and how the answer begins."""
    asked = prompt_for(issued)
    if getattr(tokenizer, "chat_template", None):
        turns = [{"role": "user", "content": asked}]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)) + lead_for(issued)
    return f"{asked}\n\n{lead_for(issued)}"


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _shared(start: Sequence[int], row: Sequence[int]) -> int:
    """How many tokens at the head are the same."""
    return next((i for i, (a, b) in enumerate(zip(start, row, strict=False)) if a != b), min(len(start), len(row)))


@torch.inference_mode()
def _behind(opened: Opened, rows: Sequence[list[int]], shared: int) -> torch.Tensor:
    """Sums of log-likelihoods of what stands behind the first ``shared`` tokens, which are the same in all rows and read once."""
    before, read = shared - 1, None
    if before:
        said = opened.model(input_ids=torch.tensor([rows[0][:before]]), use_cache=True)
        read = next((said[name] for name in ("cache", "past_key_values") if name in said), None)
    if not hasattr(read, "batch_repeat_interleave"):
        # A model that keeps what it read in another form reads the question with each name: the same for all, so no rank changes.
        before, read = 0, None
    parts = [rows[at : at + ROWS] for at in range(0, len(rows), ROWS)]
    return torch.cat([_batch(opened, [row[before:] for row in part], read, before) for part in parts])


def _batch(opened: Opened, rows: Sequence[list[int]], read: Any, before: int) -> torch.Tensor:
    """Sums for what stands behind the first token of each row, with ``before`` tokens ``read`` already."""
    longest = max(map(len, rows))
    ids = torch.stack([pad(torch.tensor(row), (0, longest - len(row))) for row in rows])
    own = torch.stack([torch.arange(longest) < len(row) for row in rows])
    given: dict[str, Any] = {}
    if read is not None:
        # Reading on writes into what was read. Newer versions of transformers give it another name.
        kept = copy.deepcopy(read)
        kept.batch_repeat_interleave(len(rows))
        given["cache" if "cache" in signature(opened.model.forward).parameters else "past_key_values"] = kept
    mask = torch.cat([torch.ones(len(rows), before, dtype=torch.long), own.long()], 1)
    logits = (
        opened.model(input_ids=ids, attention_mask=mask, use_cache=read is not None, **given).logits[:, :-1].float()
    )
    told = log_softmax(logits, -1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return (told.double() * own[:, 1:]).sum(-1)
