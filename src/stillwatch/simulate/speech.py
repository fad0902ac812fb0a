"""The text columns: which section each row opens with, and the seeds that decide what it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.simulate.grammar import U64, Seeds, mix
from stillwatch.simulate.pools import I64
from stillwatch.simulate.sessions import Timeline
from stillwatch.simulate.stage import Sheets, Stage
from stillwatch.simulate.work import owner_seeds

_PARAPHRASES = 24
"""Sentence plans a paraphrasing operator uses; the words in them are drawn anew each time."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Bytes of prompt and system, and whether the exchange failed."""

    read: I64
    failed: npt.NDArray[np.bool_]


def write_texts(
    stage: Stage, sheet: Sheets, line: Timeline, begin: int, rng: np.random.Generator
) -> tuple[dict[str, pa.Array], Spent]:
    """System, prompt and response columns, and what they cost."""
    activity, rows = line.activity, len(line)
    own = mix(np.arange(begin, begin + rows, dtype=np.uint64) ^ np.uint64(stage.secret ^ 0xABCDEF))
    owner = owner_seeds(sheet.owner[activity], stage.people.key[line.account])
    opening = ~line.talk | (line.position == 0)
    row = np.where((sheet.listed[activity] > 0) & opening, _item(stage, sheet, line, own), own)
    talk = mix(line.session.astype(np.uint64) + np.uint64(stage.secret))
    talk = np.where(line.talk, talk, row)
    seeds = Seeds(row, talk, *_variant(sheet.variants[activity], owner, own))
    prompt = stage.grammar.render(np.where(opening, sheet.first[activity], sheet.more[activity]), seeds)
    failed = rng.random(rows) < 0.012
    silent = failed | (rng.random(rows) < 0.2)
    answer = np.where(silent, -1, sheet.answer[activity]).astype(np.int32)
    response = stage.grammar.render(answer, Seeds(own ^ np.uint64(1), talk, owner, owner))
    system, bytes_read = _system(stage, sheet, line, owner)
    bytes_read = bytes_read + pc.binary_length(prompt).to_numpy()
    return {"system": system, "prompt": prompt, "response": response}, Spent(bytes_read, failed)


def _item(stage: Stage, sheet: Sheets, line: Timeline, own: U64) -> U64:
    """Seed of the item of the list that a row asks: in order from a place of the account's own, or anywhere."""
    activity = line.activity
    size = np.maximum(sheet.listed[activity], 1).astype(np.uint64)
    walk = stage.people.key[line.account] % size + line.session.astype(np.uint64) * np.uint64(31)
    step = np.where(sheet.in_order[activity], walk + line.position.astype(np.uint64), own >> np.uint64(9))
    return mix(sheet.owner[activity].astype(np.uint64) + step % size)


def _variant(variants: I64, owner: U64, own: U64) -> tuple[U64, U64]:
    """Owner and variant seeds: sentences change with every fourth variant, words with each."""
    pick = (own >> np.uint64(5)) % np.maximum(variants, 1).astype(np.uint64)
    plan = np.where(variants == 0, (own >> np.uint64(13)) % np.uint64(_PARAPHRASES), pick // np.uint64(4))
    sentences = np.where((variants == 1) | (plan == 0), owner, mix(owner + plan))
    words = np.where(variants == 0, own, np.where(pick == 0, owner, mix(owner + np.uint64(9_000) + pick)))
    return sentences, words


def _system(stage: Stage, sheet: Sheets, line: Timeline, owner: U64) -> tuple[pa.Array, I64]:
    """System texts, each rendered once, and their bytes by row."""
    activity = line.activity
    u = (mix(line.session.astype(np.uint64) + np.uint64(991)) >> np.uint64(11)).astype(float) / 2.0**53
    section = np.where(u < sheet.systems[activity], sheet.system[activity], -1)
    key = np.where(section >= 0, mix(owner ^ mix(section.astype(np.uint64))), np.uint64(0))
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    seed = owner[first]
    texts = stage.grammar.render(section[first].astype(np.int32), Seeds(seed, seed, seed, seed))
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
    column = pa.DictionaryArray.from_arrays(
        pa.array(inverse.astype(np.int32), mask=section < 0), pc.fill_null(texts, "")
    )
    return column, sizes[inverse].astype(np.int64)
