"""Distillation from one end to the other, with our own models alone: teacher, prompts, answers, data set, student.

The rule: everything follows from size and seed. A ``Lab`` is one provider (vocabulary, teacher, prompts, keys) and whoever
learns from it (a base model of other texts, fine-tuned on answers). Another seed deals the texts out anew, and starts every
model, key and draw anew. What is dear is kept in a folder that the caller gives, under names that hold all it depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from stillwatch.errors import UsageError
from stillwatch.protection.bench.corpus import Corpus, corpus, rows
from stillwatch.protection.bench.models import small, vocabulary_of
from stillwatch.protection.bench.training import generate, train
from stillwatch.protection.keys import Key, Scheme, derive
from stillwatch.protection.sequences import Sequences
from stillwatch.secret import Secret

SHARES = (0.45, 0.2, 0.2, 0.15)
"""Of the corpus: the teacher's texts, the base model's, the prompts', and those of a suspect of another family."""
AS_SERVED = Scheme()
VERSION = 1
"""Of what is kept: raised when the same size and seed come to give something else."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large provider and suspect are. ``length`` of a sequence in tokens, of which ``prompt`` are the prompt; ``pool``:
    answers bought by who distils; ``*_epochs`` over the texts, or over the answers."""

    vocabulary: int = 1024
    layers: int = 2
    width: int = 96
    heads: int = 4
    length: int = 64
    prompt: int = 8
    teacher_epochs: int = 6
    base_epochs: int = 5
    pool: int = 4096
    student_epochs: int = 2

    @property
    def answer(self) -> int:
        """Tokens of an answer."""
        return self.length - self.prompt


FULL = Size()
SMALL = Size(vocabulary=512, layers=1, width=64, pool=1536, teacher_epochs=3, base_epochs=2, student_epochs=3)
TINY = Size(vocabulary=512, layers=1, width=32, heads=2, pool=512, teacher_epochs=3, base_epochs=2)
"""For suspects by the thousand: a second or two each."""

Mix = Sequence[tuple[Key, float]]
"""Campaigns' keys, and each one's share of the answers that somebody learns from; the rest carries no watermark."""


def chance(*words: object) -> int:
    """A seed that no other words give."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, words)).encode()).digest()[:7], "big")


class Lab:
    """One provider and whoever learns from it. ``folder`` is where what is dear is kept; None keeps nothing."""

    def __init__(self, size: Size, seed: int, folder: Path | None = None) -> None:
        self.size, self.seed, self.folder = size, seed, folder

    @cached_property
    def texts(self) -> Corpus:
        """All there is to train on."""
        return corpus()

    @cached_property
    def parts(self) -> list[tuple[str, ...]]:
        """The texts of teacher, base, prompts and another family, disjoint by module."""
        return self.texts.parts(SHARES, self.seed)

    @cached_property
    def vocabulary(self) -> PreTrainedTokenizerFast:
        """The provider's tokens."""
        return vocabulary_of(self.parts[0], self.size.vocabulary)

    @cached_property
    def prompts(self) -> Tensor:
        """(n, prompt): pieces of texts that neither teacher nor base saw, in a drawn order; the first ``pool`` are asked by who
        distils, those behind are left for tests."""
        found = rows(self.parts[2], self.vocabulary, self.size.prompt)
        if len(found) < self.size.pool:
            raise UsageError(f"the corpus has {len(found):,} prompts, and {self.size.pool:,} are asked for")
        return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(chance("prompts", self.seed)))]

    @cached_property
    def held_out(self) -> Tensor:
        """(n, length): texts that no model of this lab was trained on."""
        return rows(self.parts[2], self.vocabulary, self.size.length)

    @cached_property
    def teacher(self) -> PreTrainedModel:
        """The provider's model, which never saw a watermark: the reference of the tests too."""
        return self._model("teacher", 0, self.size.teacher_epochs)

    @cached_property
    def base(self) -> PreTrainedModel:
        """What who distils begins with: another model, of other texts."""
        return self._model("base", 1, self.size.base_epochs)

    def key(self, campaign: str, scheme: Scheme = AS_SERVED) -> Key:
        """The key of a campaign: the same for the same lab, campaign and scheme. As it comes: none is turned down."""
        master = hashlib.sha256(f"bench {self.seed}".encode()).hexdigest()  # no secret: anybody may run this again
        return derive(Secret(master), campaign, "bench", scheme)

    def untrained(self, *words: object) -> PreTrainedModel:
        """A new model of the lab's size."""
        s = self.size
        return small(
            s.vocabulary,
            layers=s.layers,
            width=s.width,
            heads=s.heads,
            context=s.length,
            seed=chance(self.seed, *words),
        )

    def answers(self, key: Key | None = None) -> Tensor:
        """(pool, length): the prompts of who distils with the teacher's answers behind them, watermarked or not."""
        name = f"answers {'-' if key is None else key.key_id}"
        return self._kept(name, lambda: self.asked(self.prompts[: self.size.pool], key, name))

    def asked(self, prompts: Tensor, key: Key | None, *words: object) -> Tensor:
        """The teacher's answers to other prompts; other ``words``, other draws."""
        return generate(self.teacher, prompts, self.size.answer, key=key, seed=chance(self.seed, *words))

    def data_set(self, mix: Mix = ()) -> Tensor:
        """(pool, length): what somebody bought who got each key's share of the answers, and the rest without a watermark; each
        prompt once."""
        counts = [round(share * self.size.pool) for _, share in mix]
        order = torch.randperm(self.size.pool, generator=torch.Generator().manual_seed(chance("bought", self.seed)))
        if sum(counts) > len(order):
            raise ValueError(f"shares add up to more than 1: {[share for _, share in mix]}")
        dealt = order.split([*counts, len(order) - sum(counts)])
        return torch.cat([self.answers(key)[at] for key, at in zip([*(k for k, _ in mix), None], dealt, strict=True)])

    def student(self, mix: Mix = (), *words: object) -> PreTrainedModel:
        """The base model, fine-tuned on the answers of ``data_set(mix)``; other ``words``, another order of them."""
        name = " ".join(["student", *(f"{k.key_id} {share:g}" for k, share in mix), *map(str, words)])
        return self._trained(name, lambda: self.taught(self.base, self.data_set(mix), name))

    def taught(self, begin: PreTrainedModel, answers: Tensor, *words: object) -> PreTrainedModel:
        """A copy of a model, fine-tuned on answers; prompts do not count."""
        model = self._copied(begin)
        weigh = torch.zeros_like(answers, dtype=torch.bool)
        weigh[:, self.size.prompt :] = True
        train(model, answers, epochs=self.size.student_epochs, seed=chance(self.seed, *words), weigh=weigh)
        return model

    def later(self, model: PreTrainedModel, texts: Tensor, epochs: int, *words: object) -> PreTrainedModel:
        """A copy of a model, trained further on whole texts."""
        copy = self._copied(model)
        train(copy, texts, epochs=epochs, seed=chance(self.seed, *words))
        return copy

    def sequences(self, written: Tensor) -> Sequences:
        """Answers with their prompts as the tests read them."""
        return Sequences.of(written.numpy(), self.size.prompt)

    def _model(self, name: str, part: int, epochs: int) -> PreTrainedModel:
        def made() -> PreTrainedModel:
            model = self.untrained(name)
            texts = rows(self.parts[part], self.vocabulary, self.size.length)
            train(model, texts, epochs=epochs, seed=chance(self.seed, name, "order"))
            return model

        return self._trained(name, made)

    def _copied(self, model: PreTrainedModel) -> PreTrainedModel:
        copy = self.untrained("copy")
        copy.load_state_dict(model.state_dict())
        return copy

    def _trained(self, name: str, make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        model = self.untrained("kept")
        model.load_state_dict(self._kept(name, lambda: make().state_dict()))
        return model.eval()

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        if self.folder is None:
            return make()
        told = [VERSION, torch.__version__, asdict(self.size), self.seed, self.texts.digest, name]
        path = self.folder / f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]}.pt"
        if path.exists():
            return torch.load(path, weights_only=True)
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        torch.save(made, new)
        os.replace(new, path)
        return made
