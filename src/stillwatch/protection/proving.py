"""A registered test, made: each key, suspect and statistic on two halves of the text, each of which must fire.

The rule: nothing is read before all inputs have the hashes, and all keys fit the commitments, that were registered. The p of a
hypothesis is the larger of its halves' (so what a half shows by itself accuses nobody), raised by what vetting of keys may have
done to it (``vetting.FACTOR``), and adjusted by Holm over all that was registered, tested or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from stillwatch.errors import InputRejected, Reject, UsageError
from stillwatch.progress import Progress
from stillwatch.protection import opened, outcomes
from stillwatch.protection.differences import Differences, of_counts, of_text
from stillwatch.protection.keys import Key, Scheme, derive
from stillwatch.protection.opened import Aligned, Limits, Opened
from stillwatch.protection.outcomes import Outcome, Statistic
from stillwatch.protection.power import UPTAKE, expected, leant_counts, least
from stillwatch.protection.registration import Registration, check
from stillwatch.protection.sequences import Pairs, Sequences
from stillwatch.protection.suspects import Form, Material, Text, Texts, material, texts, tokenizer_material
from stillwatch.protection.verdicts import Judged, judge
from stillwatch.protection.vetting import FACTOR
from stillwatch.secret import Secret

LEAST_ROWS = 20
"""Distinct texts below which there is nothing to divide into halves."""
REHEARSAL = Secret("no campaign has a key of this secret")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where the material of a test lies: ``served`` for weights, ``tokenizer`` for texts."""

    suspects: tuple[Path, ...]
    reference: Path
    served: Path | None = None
    tokenizer: Path | None = None

    @classmethod
    def at(
        cls,
        suspects: tuple[Path, ...],
        places: Mapping[str, str],
        reference: Path | None,
        served: Path | None,
        tokenizer: Path | None,
    ) -> Inputs:
        """As given, and where nothing is, in the ``places`` of the registration; UsageError where there is no reference."""
        given = {"reference": reference, "served": served, "tokenizer": tokenizer}
        found = {n: p or (Path(places[n]) if n in places else None) for n, p in given.items()}
        own = found.pop("reference")
        if own is None:
            raise UsageError("no reference given", hint="--reference: what was registered as such")
        return cls(suspects, own, **found)

    @property
    def places(self) -> dict[str, str]:
        """Where all but the suspects lie, as absolute paths."""
        given = {"reference": self.reference, "served": self.served, "tokenizer": self.tokenizer}
        return {n: str(p.resolve()) for n, p in given.items() if p}


@dataclass(frozen=True, slots=True)
class Materials:
    """The same, by what is in it."""

    suspects: tuple[Material, ...]
    reference: Material
    served: Material | None
    tokenizer: Material | None

    @classmethod
    def of(cls, inputs: Inputs) -> Materials:
        """All of it hashed; UsageError or InputRejected where something is not there or must not be loaded."""
        return cls(
            tuple(map(material, inputs.suspects)),
            material(inputs.reference),
            material(inputs.served) if inputs.served else None,
            tokenizer_material(inputs.tokenizer) if inputs.tokenizer else None,
        )

    def check(self, registered: Registration) -> None:
        """InputRejected where any of it is not what was registered."""
        known = {s.sha256: s for s in registered.suspects}
        for suspect in self.suspects:
            check(known.get(suspect.sha256, registered.suspects[0]), suspect, "suspect")
        check(registered.reference, self.reference, "reference")
        check(registered.served, self.served, "served text")
        check(registered.tokenizer, self.tokenizer, "tokenizer")


@dataclass(frozen=True, slots=True)
class Counted:
    """What of a file of texts was used: distinct ``rows``, how many stood there ``repeated``, and what was left out."""

    name: str
    rows: int
    repeated: int
    rejects: tuple[Reject, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        left_out = [{"reason": r.reason, "rows": r.rows, "first": Path(r.place).name} for r in self.rejects]
        return {"name": self.name, "distinct": self.rows, "repeated": self.repeated, "left_out": left_out}


@dataclass(frozen=True, slots=True)
class Half:
    """What was read of a suspect on one half of the text: ``pairs`` where they are counted, ``aligned`` where it has a tokenizer
    of its own. ``tokens`` of the half were written by a model, ``positions`` of them were read."""

    differences: Differences
    pairs: Pairs | None
    aligned: Aligned | None
    tokens: int


@dataclass(frozen=True, slots=True)
class Tested:
    """One hypothesis: a key, a statistic, and both halves. ``log10_p`` is of the weaker half, ``adjusted`` after Holm."""

    suspect: str
    key_id: str
    statistic: Statistic
    halves: tuple[Outcome, Outcome]
    log10_p: float
    adjusted: float = 0.0

    @property
    def z(self) -> float:
        """Of the weaker half."""
        return min(h.z for h in self.halves)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a registered test found, by the SHA-256 of each suspect that was at hand. ``read``: tokens and positions by width of
    window and half; ``counted``: files of texts."""

    tested: Mapping[str, tuple[Tested, ...]]
    judged: Mapping[str, Judged]
    read: Mapping[str, tuple[Mapping[str, Any], ...]]
    counted: tuple[Counted, ...]


@dataclass(slots=True)
class Bench:
    """Material that has been loaded, each once; it is the same for every suspect and width."""

    inputs: Inputs
    form: Form
    seed: int
    limits: Limits
    progress: Progress
    counted: list[Counted] = field(default_factory=list)
    _files: dict[Path, tuple[Sequences, Sequences]] = field(default_factory=dict)
    _models: dict[Path, Opened] = field(default_factory=dict)

    def halves(self, suspect: Path, width: int, statistics: Iterable[str] = (Statistic.RESIDUAL,)) -> tuple[Half, Half]:
        """Both halves of what a suspect shows, for windows of so many tokens. No key has a part in it."""
        read = self._weights if self.form is Form.WEIGHTS else self._text
        first, second = (read(suspect, width, number, set(statistics)) for number in (0, 1))
        return first, second

    def _weights(self, path: Path, width: int, number: int, statistics: set[str]) -> Half:
        suspect, reference, served = self.model(path), self.model(self.inputs.reference), self.served()[number]
        self.progress.stage(f"read {path.name}, half {number + 1} of 2", total=len(served.positions(width)))
        aligned = None
        theirs, ours = suspect.tokenizer, reference.tokenizer
        if theirs is None or ours is None or opened.same_vocabulary(theirs, ours):
            tell = self.progress.advance
            found = opened.of_models(suspect.model, reference.model, served, width, self.limits, tell)
        else:
            found, aligned = opened.of_translated(suspect, reference, served, width, self.limits, self.progress.advance)
        pairs = None
        if Statistic.ARGMAX in statistics:
            if aligned:
                raise InputRejected(
                    f"{path}: argmax needs a suspect with the provider's tokenizer", hint="test the residual"
                )
            pairs = opened.argmaxes(suspect.model, served, width, self.limits)
        return Half(found, pairs, aligned, len(served.positions(width)))

    def _text(self, path: Path, width: int, number: int, statistics: set[str]) -> Half:
        self.progress.stage(f"count {path.name}, half {number + 1} of 2")
        suspect, reference = self._file(path)[number], self._file(self.inputs.reference)[number]
        pairs = outcomes.distinct(suspect, width) if Statistic.PAIRS in statistics else None
        return Half(of_counts(suspect, reference, width), pairs, None, len(suspect.positions(width)))

    def signals(self, key: Key) -> tuple[tuple[Differences, float], tuple[Differences, float]]:
        """What a perfect student would show on each half under a rehearsal key, and the entropy of the reference, in nats."""
        return self._signal(key, 0), self._signal(key, 1)

    def _signal(self, key: Key, number: int) -> tuple[Differences, float]:
        self.progress.stage(f"rehearse, half {number + 1} of 2")
        if self.form is Form.WEIGHTS:
            reference = self.model(self.inputs.reference).model
            return opened.leant(reference, self.served()[number], key, self.limits, self.progress.advance)
        shares = of_text(self._file(self.inputs.reference)[number], key.scheme.width)
        weight = shares.weights[shares.window_index]
        share = shares.value / weight
        return leant_counts(shares, key), float(-(weight**2 * share * np.log(share)).sum() / (shares.weights**2).sum())

    def model(self, folder: Path) -> Opened:
        """A model, loaded at first use."""
        if folder not in self._models:
            self.progress.stage(f"load {folder.name}")
            self._models[folder] = opened.load(folder)
        return self._models[folder]

    def served(self) -> tuple[Sequences, Sequences]:
        """The served text in its two halves."""
        if self.inputs.served is None:
            raise UsageError("no served text given", hint="--served FILE: what the campaign was served")
        return self._file(self.inputs.served)

    def _file(self, path: Path) -> tuple[Sequences, Sequences]:
        if path not in self._files:
            found = texts(path)
            self.counted.append(Counted(path.name, len(found.rows), found.repeated, found.rejects))
            self._files[path] = halved(found, self._tokenizer(), self.seed, path)
        return self._files[path]

    def _tokenizer(self) -> PreTrainedTokenizerBase | None:
        if self.form is Form.WEIGHTS:
            return self.model(self.inputs.reference).tokenizer
        folder = self.inputs.tokenizer
        return None if folder is None else load_tokenizer(folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder; InputRejected where it cannot be loaded."""
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as e:
        raise InputRejected(
            f"{folder}: the tokenizer cannot be loaded: {e}", hint="save it with save_pretrained"
        ) from e
    return found


def halved(
    found: Texts, tokenizer: PreTrainedTokenizerBase | None, seed: int, path: Path
) -> tuple[Sequences, Sequences]:
    """Distinct texts as token sequences, dealt into two halves by ``seed``. InputRejected where there are too few, or where they
    are text and there is no tokenizer."""
    if len(found.rows) < LEAST_ROWS:
        raise InputRejected(
            f"{path}: {len(found.rows)} distinct texts, of {LEAST_ROWS} at least", hint="one text a row"
        )
    if tokenizer is None and any(r.tokens is None for r in found.rows):
        raise InputRejected(
            f"{path}: text, and no tokenizer to read it in", hint="give the provider's, or rows of tokens"
        )
    order = np.random.default_rng(seed).permutation(len(found.rows))
    first, second = (_sequences([found.rows[i] for i in part], tokenizer) for part in (order[::2], order[1::2]))
    return first, second


def _sequences(rows: Sequence[Text], tokenizer: PreTrainedTokenizerBase | None) -> Sequences:
    prompts, answers = [], []
    for row in rows:
        written = row.tokens is not None or tokenizer is None
        prompts.append(list(row.prompt_tokens) if written else _encoded(tokenizer, row.prompt))
        answers.append(list(row.tokens or ()) if written else _encoded(tokenizer, row.text))
    return Sequences.of([p + a for p, a in zip(prompts, answers, strict=True)], [len(p) for p in prompts])


def _encoded(tokenizer: PreTrainedTokenizerBase | None, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if tokenizer and text else []


def foresee(bench: Bench, schemes: Sequence[Scheme], hypotheses: int, threshold: float) -> tuple[dict[str, Any], ...]:
    """What the residual can be expected to find, by suspect and scheme (``power``). No key that is tested has a part in it."""
    told = []
    for scheme in dict.fromkeys(schemes):
        rehearsal = derive(REHEARSAL, "rehearsal", str(bench.seed), scheme)
        signals = bench.signals(rehearsal)
        for suspect in bench.inputs.suspects:
            halves = bench.halves(suspect, scheme.width)
            noise = [float(h.differences.value @ h.differences.value) for h in halves]
            z, perfect = (
                [expected(s, n, rehearsal, uptake) for (s, _), n in zip(signals, noise, strict=True)]
                for uptake in (UPTAKE, 1.0)
            )
            told.append(
                {
                    "suspect": suspect.name,
                    "scheme": scheme.text(),
                    "entropy_nats": round(min(e for _, e in signals), 3),
                    "positions": [h.differences.positions for h in halves],
                    "expected": [e.to_dict() for e in least(z, perfect, threshold, hypotheses)],
                }
            )
    return tuple(told)


def prove(registered: Registration, inputs: Inputs, keys: Sequence[Key], progress: Progress) -> Proof:
    """Make the test. InputRejected, before anything is read, where an input or a key is not what was registered."""
    progress.stage("check")
    found = Materials.of(inputs)
    found.check(registered)
    at_hand = {k.key_id: k for k in keys}
    for known in registered.keys:
        if known.key_id not in at_hand:
            raise InputRejected(
                f"key {known.key_id}: registered, and not at hand", hint="give the ledger it was issued in"
            )
        known.check(at_hand[known.key_id])
    tested_keys = [at_hand[k.key_id] for k in registered.keys]
    bench = Bench(inputs, registered.form, registered.seed, Limits(**registered.readings), progress)
    tested, read = {}, {}
    for path, suspect in zip(inputs.suspects, found.suspects, strict=True):
        tested[suspect.sha256], read[suspect.sha256] = _tested(bench, path, suspect, tested_keys, registered.statistics)
    adjusted = _adjusted(tested, registered.hypotheses)
    judged = {s: _judged(t, registered) for s, t in adjusted.items()}
    return Proof(adjusted, judged, read, tuple(bench.counted))


def _tested(
    bench: Bench, path: Path, suspect: Material, keys: Sequence[Key], statistics: Sequence[str]
) -> tuple[tuple[Tested, ...], tuple[Mapping[str, Any], ...]]:
    tested: list[Tested] = []
    read: list[Mapping[str, Any]] = []
    for width in sorted({k.scheme.width for k in keys}):
        halves = bench.halves(path, width, statistics)
        read += [_read(h, width, number) for number, h in enumerate(halves, 1)]
        mine = [k for k in keys if k.scheme.width == width]
        bench.progress.stage("test", total=len(mine))
        for key in mine:
            for statistic in map(Statistic, statistics):
                first, second = (_outcome(h, key, statistic) for h in halves)
                p = min(max(first.log10_p, second.log10_p) + math.log10(FACTOR), 0.0)
                tested.append(Tested(suspect.sha256, key.key_id, statistic, (first, second), p))
            bench.progress.advance()
    return tuple(tested), tuple(read)


def _outcome(half: Half, key: Key, statistic: Statistic) -> Outcome:
    if statistic is Statistic.RESIDUAL:
        return outcomes.leaning(half.differences, key)
    assert half.pairs is not None  # they are read where a statistic is of them
    test = outcomes.argmax_pairs if statistic is Statistic.ARGMAX else outcomes.text_pairs
    return test(half.pairs, key)


def _read(half: Half, width: int, number: int) -> dict[str, Any]:
    found = half.differences
    told: dict[str, Any] = {
        "width": width, "half": number, "tokens": half.tokens, "positions": found.positions,
        "windows": len(found.windows), "entries": len(found),
    }  # fmt: skip
    if half.aligned:
        a = half.aligned
        told["other_tokenizer"] = {n: getattr(a, n) for n in a.__slots__}
    return told


def _adjusted(tested: Mapping[str, Sequence[Tested]], hypotheses: int) -> dict[str, tuple[Tested, ...]]:
    """Holm over all that was registered: what was not tested counts as p = 1."""
    ps = [t.log10_p for found in tested.values() for t in found]
    after = iter(outcomes.holm(ps + [0.0] * (hypotheses - len(ps))))
    return {
        s: tuple(Tested(t.suspect, t.key_id, t.statistic, t.halves, t.log10_p, next(after)) for t in found)
        for s, found in tested.items()
    }


def _judged(tested: Sequence[Tested], registered: Registration) -> Judged:
    lowest: dict[str, float] = {}
    for t in tested:
        lowest[t.key_id] = min(t.adjusted, lowest.get(t.key_id, 0.0))
    return judge(lowest, registered.keys, math.log10(registered.threshold))
