"""vLLM leans by the key whose id the gateway has put into a request: a custom logits processor of the engine.

    STILLWATCH_WATERMARK_KEYS=watermark-keys.json \\
        vllm serve MODEL --logits-processors stillwatch.protection.vllm:Watermarks

The file is what ``stillwatch watermark export`` writes; it is read again when it changes. The id stands in the request's
``vllm_xargs.stillwatch_key``, which vLLM hands over as ``SamplingParams.extra_args``. An id that is not in the file is served
*unmarked*, counted and logged: a watermark never breaks serving. At the start a file that cannot be read is refused.

The interface is that of the V1 engine's first model runner (``vllm.v1.sample.logits_processor``). Later versions of vLLM have
a second one with an interface of its own, to which this processor does not speak: there, set ``VLLM_USE_V2_MODEL_RUNNER=0``.
It runs before penalties, temperature, top-k, top-p and min-p. For BERNOULLI the lean is delta / temperature. GUMBEL's draw is
by the key from what temperature, top-k, top-p and min-p of the request leave, and penalties are not heard; a greedy request
draws nothing and stays unmarked.

Nothing of vLLM is needed to import this module, and no GPU.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation.logits_process import MinPLogitsWarper

from stillwatch.errors import StillwatchError, UsageError
from stillwatch.protection.engine_keys import read_keys
from stillwatch.protection.keys import Key, Kind
from stillwatch.protection.samplers import lean, warpers
from stillwatch.responders.protect import XARG
from stillwatch.store.state import file_mark

KEYS_VARIABLE = "STILLWATCH_WATERMARK_KEYS"
LOOK_S = 1.0
"""How often, at most, the file of keys is looked at, in seconds."""
GREEDY = 1e-5
"""The temperature below which vLLM takes the best token."""
TOLD = 100
"""Unknown ids that are logged each by itself; all are counted."""

log = logging.getLogger(__name__)


def _base() -> type:
    """vLLM's class, which it asks for when it loads a processor; where there is no vLLM, none."""
    try:
        return importlib.import_module("vllm.v1.sample.logits_processor").LogitsProcessor
    except ImportError:
        return object


@dataclass(slots=True)
class Marked:
    """A request that is to carry a key: the end of its prompt, the engine's own list of what was written, and for GUMBEL how its
    logits are warped and the windows a token was drawn after."""

    key: Key
    prompt: tuple[int, ...]
    written: Sequence[int]
    warped: LogitsProcessorList
    seen: set[tuple[int, ...]] = field(default_factory=set)
    counted: int = 0

    def window(self, at: int) -> tuple[int, ...]:
        """The tokens before the ``at``-th that is written; empty where they are not a whole window, or not all known yet."""
        width = self.key.scheme.width
        own = tuple(self.written[max(0, at - width) : at])
        found = (self.prompt[len(self.prompt) - (width - len(own)) :] if len(own) < width else ()) + own
        return found if len(found) == width and min(found) >= 0 else ()

    def is_fresh(self) -> bool:
        """Whether no token was drawn after the window that what is written ends in."""
        if len(self.written) < self.counted:
            self.seen, self.counted = set(), 0
        for at in range(self.counted, len(self.written)):
            self.seen.add(self.window(at))
        self.counted = len(self.written)
        return self.window(self.counted) not in self.seen


class Keys:
    """The keys in a file, as they stand there now; one that cannot be read is told, and the last ones go on."""

    def __init__(self, path: Path) -> None:
        self._path, self._mark, self._looked = path, file_mark(path), time.monotonic()
        self._held = read_keys(path)

    def get(self, key_id: str) -> Key | None:
        """The key of this id, None where there is none."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._look()
        return self._held.get(key_id)

    def _look(self) -> None:
        self._looked, mark = time.monotonic(), file_mark(self._path)
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._held = read_keys(self._path)
        except StillwatchError as e:
            log.error("%s; the keys known so far go on", e.message)


class Watermarks(_base()):  # type: ignore[misc]
    """The processor, as vLLM makes one in each worker. ``counts``: requests ``marked``, and of ``unknown`` ids.

    UsageError where STILLWATCH_WATERMARK_KEYS names no file of keys.
    """

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Any request will do: what has no known key is served without one."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        path = os.environ.get(KEYS_VARIABLE, "")
        if not path:
            raise UsageError(f"no file of keys: the variable {KEYS_VARIABLE} is not set", hint="watermark export")
        self._keys, self._device = Keys(Path(path)), device
        self._rows: dict[int, Marked] = {}
        self.counts: Counter[str] = Counter()
        self._told: set[str] = set()

    def is_argmax_invariant(self) -> bool:
        """False: it may change which token is best, and must run where greedy requests do."""
        return False

    def needs_output_token_ids(self) -> bool:
        """True: a window is what was written last."""
        return True

    def update_state(self, batch_update: Any) -> None:
        """Follow the batch: what has left it, then what has come, then what has moved; None where nothing has."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, prompt, written in batch_update.added:
            self._put(index, self._marked(params, prompt, written))
        for one, other, direction in batch_update.moved:
            # By name, so that vLLM's class need not be at hand.
            stays = self._rows.pop(other, None) if direction.name == "SWAP" else None
            self._put(other, self._rows.pop(one, None))
            self._put(one, stays)

    def apply(self, logits: Tensor) -> Tensor:
        """The logits, (requests, vocabulary), with marked rows leant, in place."""
        rows: dict[Key, list[int]] = {}
        for index, row in self._rows.items():
            if row.window(len(row.written)):
                rows.setdefault(row.key, []).append(index)
        for key, indices in rows.items():
            self._lean(logits, key, indices)
        return logits

    def _lean(self, logits: Tensor, key: Key, indices: list[int]) -> None:
        if key.scheme.kind is Kind.GUMBEL:
            indices = [i for i in indices if self._rows[i].is_fresh()]
        if not indices:
            return
        at = torch.tensor(indices, device=logits.device)
        windows = torch.tensor([self._window(i) for i in indices], device=logits.device)
        given = logits[at]
        if key.scheme.kind is Kind.GUMBEL:
            none = torch.empty(1, 0, dtype=torch.int64, device=logits.device)
            given = torch.cat([self._rows[i].warped(none, row[None]) for i, row in zip(indices, given, strict=True)])
        logits[at] = lean(given, windows, key)

    def _window(self, index: int) -> tuple[int, ...]:
        row = self._rows[index]
        return row.window(len(row.written))

    def _put(self, index: int, row: Marked | None) -> None:
        if row is None:
            self._rows.pop(index, None)
        else:
            self._rows[index] = row

    def _marked(self, params: Any, prompt: Sequence[int] | None, written: Sequence[int]) -> Marked | None:
        key_id = (getattr(params, "extra_args", None) or {}).get(XARG)
        if key_id is None:
            return None
        key = self._keys.get(key_id) if isinstance(key_id, str) else None
        if key is None:
            self._tell(str(key_id)[:64])
            return None
        draws = key.scheme.kind is Kind.GUMBEL
        if draws and _number(params, "temperature", 1.0) < GREEDY:
            return None
        self.counts["marked"] += 1
        warped = _warpers(params) if draws else LogitsProcessorList()
        return Marked(key, tuple((prompt or ())[-key.scheme.width :]), written, warped)

    def _tell(self, key_id: str) -> None:
        self.counts["unknown"] += 1
        if key_id not in self._told and len(self._told) < TOLD:
            self._told.add(key_id)
            log.warning("no watermark key %r: the answer is unmarked; stillwatch watermark export", key_id)


def _warpers(params: Any) -> LogitsProcessorList:
    """What vLLM does to the logits of such a request after processors, but for penalties."""
    top_k = int(_number(params, "top_k", 0))
    found = warpers(_number(params, "temperature", 1.0), max(top_k, 0), _number(params, "top_p", 1.0))
    if (least := _number(params, "min_p", 0.0)) > 0:
        # vLLM takes what is improbable away before it looks at top-k and top-p.
        found.insert(1 if _number(params, "temperature", 1.0) != 1.0 else 0, MinPLogitsWarper(least))
    return found


def _number(params: Any, name: str, usual: float) -> float:
    value = getattr(params, name, None)
    return usual if value is None else float(value)
