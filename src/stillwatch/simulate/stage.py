"""A finished world, ready to be written down: everything a slice of the timeline is looked up in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.simulate.grammar import Grammar
from stillwatch.simulate.networks import Addresses
from stillwatch.simulate.people import People
from stillwatch.simulate.pools import F64, I64, Settings
from stillwatch.simulate.sessions import Stream
from stillwatch.simulate.traces import Rhythms
from stillwatch.simulate.work import Catalogue


@dataclass(frozen=True, slots=True)
class Stage:
    """All that is needed to turn a slice of the timeline into rows."""

    secret: int
    start_us: int
    people: People
    account_ids: pa.StringArray
    streams: Stream
    catalogue: Catalogue
    grammar: Grammar
    addresses: Addresses
    settings: Settings
    rhythms: Rhythms


@dataclass(slots=True)
class Sheets:
    """Activities as columns."""

    first: npt.NDArray[np.int32]
    more: npt.NDArray[np.int32]
    answer: npt.NDArray[np.int32]
    system: npt.NDArray[np.int32]
    owner: I64
    variants: I64
    listed: I64
    in_order: npt.NDArray[np.bool_]
    systems: F64
    tools: I64
    images: F64
    words: F64
    context: F64
    batch: F64
    is_code: npt.NDArray[np.bool_]
    capability: I64


def sheets(catalogue: Catalogue, grammar: Grammar) -> Sheets:
    c: Any = catalogue.column
    first, more, answer, system = (catalogue.sections(name, grammar) for name in ("first", "more", "answer", "system"))
    return Sheets(
        first, more, answer, system, c("owner", np.int64), c("variants", np.int64), c("listed", np.int64),
        c("in_order", bool), c("systems", float), c("tools", np.int64),
        c("images", float), c("words", float), c("context", float), c("batch", float), c("is_code", bool),
        catalogue.capabilities(),
    )  # fmt: skip
