"""The processor follows vLLM's batches: a faithful stand-in of the published interface, without vLLM and without a GPU."""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

import pytest

from stillwatch.errors import UsageError
from stillwatch.protection.engine_keys import write_keys
from stillwatch.protection.keys import Key, Kind, Scheme, derive
from stillwatch.secret import Secret

pytestmark = pytest.mark.protect
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
torch.set_num_threads(1)

VOCABULARY = 12
"""So few that windows come back."""
MASTER = Secret("a master secret of the tests, long enough")
SCHEMES = (
    Scheme(Kind.BERNOULLI, width=1),
    Scheme(Kind.BERNOULLI, width=3),
    Scheme(Kind.GUMBEL, width=2),
    Scheme(Kind.GUMBEL, width=1),
)
KEYS = [derive(MASTER, f"C-{n}", "2026-11", scheme) for n, scheme in enumerate(SCHEMES)]


class MoveDirectionality(Enum):
    """As vLLM's."""

    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass(frozen=True)
class BatchUpdate:
    """As vLLM's: to be processed in the order removed, added, moved."""

    batch_size: int
    removed: Sequence[int]
    added: Sequence[tuple[int, Any, list[int] | None, list[int]]]
    moved: Sequence[tuple[int, int, MoveDirectionality]]


@dataclass
class SamplingParams:
    """The fields of vLLM's that are looked at."""

    extra_args: dict[str, Any] | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@dataclass
class Request:
    params: SamplingParams
    prompt: list[int] | None
    output: list[int] = field(default_factory=list)


class Batch:
    """The engine's persistent batch: slots of what ends are filled by what comes, then by the last; rows are swapped at will."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.slots = chance, list[Request | None]()

    def step(self, ending: Sequence[int], coming: Sequence[Request]) -> BatchUpdate | None:
        """One step's changes, in the order and with the bookkeeping of vLLM's input batch."""
        for index in ending:
            self.slots[index] = None
        removed, added, moved = sorted(ending, reverse=True), list[Any](), list[Any]()
        for request in coming:
            if removed:
                index = removed.pop()
                self.slots[index] = request
            else:
                index = len(self.slots)
                self.slots.append(request)
            added.append((index, request.params, request.prompt, request.output))
        while removed:
            while self.slots and self.slots[-1] is None:
                self.slots.pop()
            if removed[-1] >= len(self.slots):
                break
            empty, last = removed.pop(), len(self.slots) - 1
            self.slots[empty], self.slots[last] = self.slots[last], None
            moved.append((last, empty, MoveDirectionality.UNIDIRECTIONAL))
        while self.slots and self.slots[-1] is None:
            self.slots.pop()
        for _ in range(self.chance.choice((0, 0, 1, 2)) if len(self.slots) > 1 else 0):
            a, b = self.chance.sample(range(len(self.slots)), 2)
            self.slots[a], self.slots[b] = self.slots[b], self.slots[a]
            moved.append((a, b, MoveDirectionality.SWAP))
        return BatchUpdate(len(self.slots), removed, added, moved) if removed or added or moved else None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_keys(tmp_path / "keys.json", KEYS)
    return tmp_path / "keys.json"


@pytest.fixture
def processor(file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from stillwatch.protection.vllm import KEYS_VARIABLE, Watermarks

    monkeypatch.setenv(KEYS_VARIABLE, str(file))
    return Watermarks(None, torch.device("cpu"), False)


def of(key: Key | str | None, prompt: Sequence[int] = (1, 2, 3, 4), **params: Any) -> Request:
    named = key.key_id if isinstance(key, Key) else key
    return Request(SamplingParams({"stillwatch_key": named} if named else None, **params), list(prompt))


def plainly(request: Request, logits: Any) -> Any:
    """The same for one request, from all of its tokens and nothing remembered."""
    from stillwatch.protection.samplers import lean
    from stillwatch.protection.vllm import _warpers

    named = (request.params.extra_args or {}).get("stillwatch_key")
    key = next((k for k in KEYS if k.key_id == named), None)
    whole, width = [*(request.prompt or []), *request.output], key.scheme.width if key else 0
    if key is None or len(whole) < width:
        return logits
    window, given = whole[-width:], logits[None]
    if key.scheme.kind is Kind.GUMBEL:
        first = len(request.prompt or [])
        before = [whole[at - width : at] for at in range(max(first, width), len(whole))]
        if window in before or request.params.temperature < 1e-5:
            return logits
        given = _warpers(request.params)(torch.empty(1, 0, dtype=torch.int64), given)
    return lean(given, torch.tensor([window]), key)[0]


@pytest.mark.parametrize("seed", range(4))
def test_many_random_updates_end_as_working_each_request_out_by_itself(processor: Any, seed: int) -> None:
    chance, rng = random.Random(seed), torch.Generator().manual_seed(seed)
    batch, leant = Batch(chance), 0
    for _ in range(80):
        ending = [i for i in range(len(batch.slots)) if chance.random() < 0.15]
        coming = [
            Request(
                SamplingParams(
                    chance.choice(
                        [None, {}, {"stillwatch_key": "ffff"}, *({"stillwatch_key": k.key_id} for k in KEYS)]
                    ),
                    temperature=chance.choice((0.0, 0.7, 1.0)),
                    top_k=chance.choice((0, -1, 4)),
                    top_p=chance.choice((1.0, 0.9)),
                    min_p=chance.choice((0.0, 0.05)),
                ),
                chance.choice((None, [], [chance.randrange(VOCABULARY) for _ in range(chance.randrange(6))])),
            )
            for _ in range(chance.choice((0, 0, 1, 3)))
        ]
        processor.update_state(batch.step(ending, coming))
        requests = [r for r in batch.slots if r is not None]
        assert len(requests) == len(batch.slots)
        logits = torch.randn(len(requests), VOCABULARY, generator=rng)
        wanted = [plainly(r, row) for r, row in zip(requests, logits, strict=True)]
        got = processor.apply(logits.clone())
        for n, row in enumerate(wanted):
            assert torch.equal(got[n], row), (n, requests[n])
            leant += not torch.equal(row, logits[n])
        for request in requests:
            request.output.append(chance.randrange(VOCABULARY))
    assert leant > 60
    assert processor.counts["unknown"] > 0 < processor.counts["marked"]


def test_what_replaces_a_row_takes_its_key_away(processor: Any) -> None:
    marked, plain = of(KEYS[0]), of(None)
    logits = torch.randn(2, VOCABULARY)
    processor.update_state(BatchUpdate(1, [], [(0, marked.params, marked.prompt, marked.output)], []))
    assert not torch.equal(processor.apply(logits[:1].clone()), logits[:1])
    processor.update_state(BatchUpdate(1, [], [(0, plain.params, plain.prompt, plain.output)], []))
    assert torch.equal(processor.apply(logits[:1].clone()), logits[:1])
    processor.update_state(BatchUpdate(2, [], [(1, marked.params, marked.prompt, marked.output)], []))
    processor.update_state(BatchUpdate(1, [], [], [(0, 1, MoveDirectionality.UNIDIRECTIONAL)]))
    assert torch.equal(processor.apply(logits.clone()), logits), "a plain row moved over a marked one"
    processor.update_state(None)


def test_a_swap_with_a_row_that_has_no_key_moves_the_key(processor: Any) -> None:
    marked, plain = of(KEYS[0]), of(None)
    added = [(0, marked.params, marked.prompt, marked.output), (1, plain.params, plain.prompt, plain.output)]
    processor.update_state(BatchUpdate(2, [], added, [(0, 1, MoveDirectionality.SWAP)]))
    logits = torch.randn(2, VOCABULARY)
    got = processor.apply(logits.clone())
    assert torch.equal(got[0], logits[0]) and not torch.equal(got[1], logits[1])


def test_an_unknown_id_is_served_unmarked_counted_and_told_once(
    processor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [of("ffff"), of("ffff"), Request(SamplingParams({"stillwatch_key": 7}), [1])]
    with caplog.at_level(logging.WARNING):
        added = [(n, r.params, r.prompt, r.output) for n, r in enumerate(requests)]
        processor.update_state(BatchUpdate(3, [], added, []))
    logits = torch.randn(3, VOCABULARY)
    assert torch.equal(processor.apply(logits.clone()), logits)
    assert processor.counts["unknown"] == 3 and len(caplog.records) == 2
    assert processor.validate_params(requests[0].params) is None


def test_tokens_that_are_not_known_yet_are_no_window(processor: Any) -> None:
    """With asynchronous scheduling vLLM's list ends in -1 until the token has come."""
    request = of(KEYS[0])
    processor.update_state(BatchUpdate(1, [], [(0, request.params, request.prompt, request.output)], []))
    logits = torch.randn(1, VOCABULARY)
    request.output.append(-1)
    assert torch.equal(processor.apply(logits.clone()), logits)
    request.output[-1] = 5
    assert not torch.equal(processor.apply(logits.clone()), logits)


def test_keys_are_read_again_when_the_file_changes(
    file: Path, processor: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from stillwatch.protection import vllm

    monkeypatch.setattr(vllm, "LOOK_S", 0.0)
    new = derive(MASTER, "C-new", "2026-11", SCHEMES[0])
    assert processor._keys.get(new.key_id) is None
    write_keys(file, [*KEYS, new])
    assert processor._keys.get(new.key_id) == processor._keys.get(new.key_id) is not None
    file.write_text("{")
    os.utime(file, (1, 1))
    assert processor._keys.get(new.key_id) is not None, "the last that could be read go on"
    assert "no file of keys" in caplog.text


def test_a_worker_without_keys_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from stillwatch.protection.vllm import KEYS_VARIABLE, Watermarks

    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    with pytest.raises(UsageError, match="no file of keys"):
        Watermarks(None, torch.device("cpu"), False)
    monkeypatch.setenv(KEYS_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="cannot be read"):
        Watermarks(None, torch.device("cpu"), False)


def test_where_vllm_is_the_class_is_one_of_its_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM loads subclasses of its own class alone; here a module of that name, with the published abstract class."""

    class LogitsProcessor(ABC):
        @abstractmethod
        def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None: ...
        @abstractmethod
        def apply(self, logits: Any) -> Any: ...
        @abstractmethod
        def is_argmax_invariant(self) -> bool: ...
        @abstractmethod
        def update_state(self, batch_update: Any) -> None: ...

    from stillwatch.protection import vllm as ours

    theirs = types.ModuleType("vllm.v1.sample.logits_processor")
    theirs.LogitsProcessor = LogitsProcessor  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.v1", "vllm.v1.sample"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    spec = importlib.util.spec_from_file_location("loaded_by_vllm", ours.__file__)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "loaded_by_vllm", loaded)
    spec.loader.exec_module(loaded)
    monkeypatch.setenv(ours.KEYS_VARIABLE, str(file))
    assert issubclass(loaded.Watermarks, LogitsProcessor) and not issubclass(ours.Watermarks, LogitsProcessor)
    assert loaded.Watermarks(None, "cpu", False).is_argmax_invariant() is False
