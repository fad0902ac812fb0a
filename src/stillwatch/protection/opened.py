"""Reading a suspect whose weights are at hand: what it and the provider's own model would say next, on the same served text.

Both are given the text as it stands, never their own words, and asked at each position for the distribution of the next
token (teacher forcing). Differences are averaged over the positions of a window. Only positions whose window stands
nowhere earlier in its sequence are read (``differences``): what a model has before it there was chosen by coins of other
windows, so it says nothing of this window's.

Memory: of a position only the ``Limits.tokens`` largest differences are kept, where all of them would not fit. Which those
are follows from the two models and the text alone, and not from the coins of the window: what is left out makes the sum
another sum of terms that are independent of the coins, and so leaves the null as it is. It costs power, and little.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from stillwatch.errors import InputRejected
from stillwatch.protection.differences import Differences, Floats, fresh, weights_of
from stillwatch.protection.keys import Key
from stillwatch.protection.samplers import lean
from stillwatch.protection.sequences import Ints, Pairs, Sequences, numbered, windows_at

Tell = Callable[[int], None]
"""Is told how many more positions were read."""

KEPT = 0.999
"""Part of the squares of all differences that is kept: the rest is a multitude of entries that weigh nothing."""
LATER = 1 << 22
"""Entries that wait to be added up, at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``context``: tokens a model is given at once, at most; ``cells``: probabilities held at once; ``tokens`` kept of a
    position where not all fit; ``entries`` kept in all, about."""

    context: int = 512
    cells: int = 1 << 24
    tokens: int = 64
    entries: int = 1 << 25


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that can be read, and its tokenizer where it came with one."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None


def load(folder: Path) -> Opened:
    """The model in a folder that ``suspects.check_folder`` has let pass: local files, safetensors, no code of its own is run.
    InputRejected where it cannot be loaded."""
    local = {"local_files_only": True, "trust_remote_code": False}
    logging.disable_progress_bar()  # how far a test has come, it says itself
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **local)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local) if (folder / "tokenizer.json").exists() else None
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise InputRejected(
            f"{folder}: the model cannot be loaded: {str(e).splitlines()[0] if str(e) else type(e).__name__}",
            hint="a causal language model as transformers' save_pretrained writes it",
        ) from e
    return Opened(model.eval(), tokenizer)


def of_models(
    suspect: PreTrainedModel,
    reference: PreTrainedModel,
    served: Sequences,
    width: int,
    limits: Limits = Limits(),
    tell: Tell | None = None,
) -> Differences:
    """The differences of two models of one vocabulary on served text. InputRejected where the text has a token that one of
    them has not."""
    size = min(_vocabulary(suspect), _vocabulary(reference))
    _check(served, size)
    at = fresh(served, width)
    sums = _Sums(served, at, width, size, limits)
    for asked in _batches(served, at, _context(limits, suspect, reference), limits.cells // size):
        texts, columns = _own(served, asked)
        there, here = (_said(m, texts, columns)[:, :size] for m in (suspect, reference))
        sums.add(there - here)
        if tell:
            tell(len(here))
    return sums.differences()


def leant(
    model: PreTrainedModel,
    served: Sequences,
    key: Key,
    limits: Limits = Limits(),
    tell: Tell | None = None,
) -> tuple[Differences, float]:
    """What a model that leans fully by ``key`` would say more than ``model``: the differences of a perfect student, which power
    is worked out from. And the entropy of ``model`` at the positions read, mean, in nats: without it nothing can lean."""
    size, width = _vocabulary(model), key.scheme.width
    _check(served, size)
    at = fresh(served, width)
    windows = torch.from_numpy(windows_at(served, at, width))
    sums, entropy, done = _Sums(served, at, width, size, limits), 0.0, 0
    for asked in _batches(served, at, _context(limits, model), limits.cells // size):
        said = _said(model, *_own(served, asked))
        logs = said.clamp_min(1e-30).log()
        sums.add(lean(logs, windows[done : done + len(said)], key).softmax(1) - said)
        entropy -= float((said * logs).sum())
        done += len(said)
        if tell:
            tell(len(said))
    return sums.differences(), entropy / max(done, 1)


def choices(model: PreTrainedModel, served: Sequences, at: Ints, limits: Limits = Limits()) -> Ints:
    """The token that the model thinks likeliest at each of the positions, which are in order."""
    size = _vocabulary(model)
    _check(served, size)
    batches = _batches(served, at, _context(limits, model), limits.cells // size)
    found = [_said(model, *_own(served, asked)).argmax(1).numpy() for asked in batches]
    return np.concatenate(found).astype(np.int64) if found else np.empty(0, np.int64)


def argmaxes(suspect: PreTrainedModel, served: Sequences, width: int, limits: Limits = Limits()) -> Pairs:
    """Distinct pairs of a window of served text and what the suspect would write after it (the reading mode of Sander et al.
    2024), for ``outcomes.argmax_pairs``; windows that stand earlier in their sequence are left out."""
    at = fresh(served, width)
    rows = np.column_stack([windows_at(served, at, width), choices(suspect, served, at, limits)])
    found, counts = np.unique(rows, axis=0, return_counts=True)
    return Pairs(found[:, :-1], found[:, -1], counts.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Aligned:
    """What was left where the suspect reads text in tokens of its own. Of ``positions``, ``read`` were read; ``apart``: no
    token of the suspect's begins there; ``unreadable``: the text is no text to one of the tokenizers; ``beyond`` what the
    suspect can have before it. ``shared`` tokens are the same text in both vocabularies, of the provider's ``vocabulary``."""

    positions: int
    read: int
    apart: int
    unreadable: int
    beyond: int
    shared: int
    vocabulary: int


def same_vocabulary(a: PreTrainedTokenizerBase, b: PreTrainedTokenizerBase) -> bool:
    """Whether a number means the same token to both."""
    return bool(a.get_vocab() == b.get_vocab())


def of_translated(
    suspect: Opened,
    reference: Opened,
    served: Sequences,
    width: int,
    limits: Limits = Limits(),
    tell: Tell | None = None,
) -> tuple[Differences, Aligned]:
    """The differences where the suspect has a tokenizer of its own, in the provider's tokens: at positions where a token
    begins in both, over the tokens that are the same text in both, each model's shares made to add up to one there.
    InputRejected where one has no tokenizer that tells its tokens' text, or they share no token."""
    theirs, ours = _Texts(suspect), _Texts(reference)
    shared = [(ours.number[t], theirs.number[t]) for t in ours.number.keys() & theirs.number.keys()]
    if not shared:
        raise InputRejected("the suspect's tokenizer shares no token with the provider's", hint="test it on its text")
    pairs = torch.tensor(sorted(shared))
    size = _vocabulary(reference.model)
    _check(served, size)
    at = fresh(served, width)
    lost = {"apart": 0, "unreadable": 0, "beyond": 0}
    kept, batches = [], []
    for asked in _batches(served, at, _context(limits, reference.model), limits.cells // size):
        met = [m for piece in asked if (m := _met(served, piece, ours, theirs, _context(limits, suspect.model), lost))]
        kept += [m[0].wanted for m in met]
        batches.append(met)
    sums = _Sums(served, np.concatenate(kept) if kept else at[:0], width, size, limits)
    for met in filter(None, batches):
        here = _said(reference.model, *_own(served, [m[0] for m in met]))[:, pairs[:, 0]]
        there = _said(suspect.model, [m[1] for m in met], [m[2] for m in met])[:, pairs[:, 1]]
        whole = torch.zeros(len(here), size)
        whole[:, pairs[:, 0]] = _to_one(there) - _to_one(here)
        sums.add(whole)
        if tell:
            tell(len(here))
    return sums.differences(), Aligned(len(at), sum(map(len, kept)), **lost, shared=len(pairs), vocabulary=size)


def _to_one(shares: Tensor) -> Tensor:
    return shares / shares.sum(1, keepdim=True).clamp_min(1e-12)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text that is given to a model at once, from ``begin`` to ``end``, and the positions in it that are asked for."""

    begin: int
    end: int
    wanted: Ints


def _pieces(served: Sequences, at: Ints, context: int) -> Iterator[_Piece]:
    """Sequences longer than a model's context are read in pieces that overlap by half: each position has at least half a
    context before it, or all there is."""
    owner = np.searchsorted(served.ends, at, side="right")
    for number, group in groupby(range(len(at)), key=lambda i: int(owner[i])):
        begin, wanted = int(served.begins[number]), at[list(group)]
        half = max(context // 2, 1)
        piece = np.maximum((wanted - begin - context) // half + 1, 0)
        for k in np.unique(piece):
            inside = wanted[piece == k]
            yield _Piece(begin + int(k) * half, int(inside[-1]) + 1, inside)


def _batches(served: Sequences, at: Ints, context: int, rows: int) -> Iterator[list[_Piece]]:
    """Pieces in order, as many at once as ask for about ``rows`` tokens."""
    batch: list[_Piece] = []
    longest = 0
    for piece in _pieces(served, at, context):
        longest = max(longest, piece.end - piece.begin)
        if batch and longest * (len(batch) + 1) > max(rows, 1):
            yield batch
            batch, longest = [], piece.end - piece.begin
        batch.append(piece)
    if batch:
        yield batch


def _own(served: Sequences, asked: Sequence[_Piece]) -> tuple[list[Ints], list[Ints]]:
    """The tokens of each piece as they stand, and the columns asked for."""
    return [served.tokens[p.begin : p.end] for p in asked], [p.wanted - p.begin for p in asked]


@torch.inference_mode()
def _said(model: PreTrainedModel, texts: Sequence[Ints], columns: Sequence[Ints]) -> Tensor:
    """The distribution of the token in each of the columns, given all before it: (columns in all, vocabulary), float32."""
    longest = max(len(t) for t in texts)
    tokens = torch.stack([pad(torch.from_numpy(t), (0, longest - len(t))) for t in texts])
    there = torch.stack([torch.arange(longest) < len(t) for t in texts]).long()
    logits = model(input_ids=tokens.to(model.device), attention_mask=there.to(model.device), use_cache=False).logits
    row = torch.cat([torch.full((len(c),), i) for i, c in enumerate(columns)])
    column = torch.from_numpy(np.concatenate(columns))
    return logits[row.to(logits.device), column.to(logits.device) - 1].float().softmax(1).cpu()


class _Sums:
    """Sums of differences by (window, token), of positions that come in order: all of them where they fit, else the largest."""

    def __init__(self, served: Sequences, at: Ints, width: int, size: int, limits: Limits) -> None:
        rows = windows_at(served, at, width)
        self._number = numbered(rows)
        self._windows = rows[np.unique(self._number, return_index=True)[1]]
        self._size, self._done = size, 0
        cells = len(self._windows) * size
        self._whole = torch.zeros(len(self._windows), size, dtype=torch.float64) if cells <= limits.cells else None
        self._most = max(min(limits.tokens, size, limits.entries // max(len(at), 1)), 1)
        self._entry: Ints = np.empty(0, np.int64)
        self._sum: Floats = np.empty(0, np.float64)
        self._later: list[tuple[Ints, Floats]] = []

    def add(self, difference: Tensor) -> None:
        """Differences (positions, vocabulary) of the next positions."""
        number = self._number[self._done : self._done + len(difference)]
        self._done += len(difference)
        if self._whole is not None:
            self._whole.index_add_(0, torch.from_numpy(number), difference.double())
            return
        token = difference.abs().topk(self._most, dim=1).indices
        entry: Ints = (torch.from_numpy(number)[:, None] * self._size + token).flatten().numpy()
        self._later.append((entry, difference.gather(1, token).flatten().double().numpy()))
        if sum(len(e) for e, _ in self._later) > LATER:
            self._add_up()

    def _add_up(self) -> None:
        entry = np.concatenate([self._entry, *(e for e, _ in self._later)])
        values = np.concatenate([self._sum, *(v for _, v in self._later)])
        self._entry, at = np.unique(entry, return_inverse=True)
        self._sum = np.bincount(at, values, minlength=len(self._entry)).astype(np.float64)
        self._later = []

    def differences(self) -> Differences:
        """What was added, as means by window with their weights."""
        if self._whole is not None:
            sums = self._whole.numpy().ravel()
            self._entry, self._sum = np.flatnonzero(sums), sums[np.flatnonzero(sums)]
        else:
            self._add_up()
        seen = np.bincount(self._number, minlength=len(self._windows))
        index, token = self._entry // self._size, self._entry % self._size
        weights = weights_of(seen)
        value = self._sum / seen[index] * weights[index]
        kept = _heaviest(value)
        return Differences(self._windows, weights, index[kept], token[kept], value[kept], self._done)


def _heaviest(value: Floats) -> Ints:
    """Where the values stand that have ``KEPT`` of all squares, in order."""
    order = np.argsort(-np.abs(value), kind="stable")
    squares = np.cumsum(value[order] ** 2)
    most = int(np.searchsorted(squares, KEPT * squares[-1])) + 1 if len(squares) else 0
    return np.sort(order[:most])


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)


def _context(limits: Limits, *models: PreTrainedModel) -> int:
    held = [getattr(m.config.get_text_config(), "max_position_embeddings", None) for m in models]
    return min([limits.context, *(int(h) for h in held if h)])


def _check(served: Sequences, size: int) -> None:
    most = int(served.tokens.max()) if len(served.tokens) else 0
    if most >= size:
        raise InputRejected(
            f"the served text has the token {most}, and the model's vocabulary ends at {size - 1}",
            hint="the suspect needs its own tokenizer.json in its folder, or the text was made with another one",
        )


class _Texts:
    """The text of each token of a tokenizer, in bytes: no two tokenizers cut the same text alike, but bytes are bytes."""

    def __init__(self, opened: Opened) -> None:
        if opened.tokenizer is None or not getattr(opened.tokenizer, "is_fast", False):
            raise InputRejected(
                "a model has no tokenizer.json", hint="another vocabulary can be read only with its tokenizer"
            )
        self.tokenizer = opened.tokenizer
        special = set(opened.tokenizer.all_special_ids)
        told = json.loads(opened.tokenizer.backend_tokenizer.to_str())
        decoder = json.dumps(told.get("decoder"), ensure_ascii=False)
        if "ByteLevel" in decoder:
            text = _of_bytes
        elif "\u2581" in decoder or "Metaspace" in decoder:
            text = _of_pieces
        else:
            raise InputRejected(
                "a tokenizer does not tell the text of its tokens", hint="byte-level BPE or SentencePiece"
            )
        size = _vocabulary(opened.model)
        self.bytes = {n: b"" if n in special else text(t) for t, n in opened.tokenizer.get_vocab().items() if n < size}
        self.number = {t: n for n, t in sorted(self.bytes.items(), reverse=True) if t}

    def begins(self, tokens: Ints) -> tuple[bytes, Ints]:
        """The text of the tokens, and the byte at which each begins."""
        parts = [self.bytes.get(int(t), b"") for t in tokens]
        return b"".join(parts), np.cumsum([0, *map(len, parts)])[:-1].astype(np.int64)


def _of_bytes(token: str) -> bytes:
    try:
        return bytes(_BYTE[c] for c in token)
    except KeyError:
        return token.encode()


def _of_pieces(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


def _bytes_by_letter() -> dict[str, int]:
    """Byte-level BPE writes printable Latin-1 as it is, and every other byte as the next letter from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE = _bytes_by_letter()


def _met(
    served: Sequences, piece: _Piece, ours: _Texts, theirs: _Texts, context: int, lost: dict[str, int]
) -> tuple[_Piece, Ints, Ints] | None:
    """The piece with those positions at which both tokenizers begin a token, the suspect's tokens, and its columns for them."""
    text, begins = ours.begins(served.tokens[piece.begin : piece.end])
    readable = _readable(text)
    tokens = np.asarray(theirs.tokenizer(readable.decode())["input_ids"], np.int64)
    told, at = theirs.begins(tokens)
    lead = len(told) - len(readable)
    if not told or lead not in (0, 1) or told[lead:] != readable or (lead and told[:1] != b" "):
        lost["unreadable"] += len(piece.wanted)
        return None
    # Special tokens have no text, so several tokens may begin at one byte: the last of them has it.
    column_at = {int(b) - lead: j for j, b in enumerate(at)}
    wanted: dict[int, int] = {}
    for position in piece.wanted.tolist():
        byte = int(begins[position - piece.begin])
        column = column_at.get(byte)
        why = (
            "unreadable" if byte >= len(readable) else "apart" if not column else "beyond" if column >= context else ""
        )
        if why:
            lost[why] += 1
        else:
            wanted[position] = column or 0
    if not wanted:
        return None
    columns = np.fromiter(wanted.values(), np.int64)
    kept = _Piece(piece.begin, piece.end, np.fromiter(wanted, np.int64))
    return kept, tokens[: int(columns.max()) + 1], columns


def _readable(text: bytes) -> bytes:
    """The text up to where it stops being UTF-8, as where an answer was cut off."""
    try:
        text.decode()
    except UnicodeDecodeError as e:
        return text[: e.start]
    return text
