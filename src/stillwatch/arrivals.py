"""A log laid out in event time, so that at any moment what had arrived is a slice.

Rows that a log holds late belong to the time they happened, unless that step is over. Everything here is an index into the log
as read: nothing is copied but the columns that recognition looks at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stillwatch.evidence import KIND_NAMES
from stillwatch.intake import Intake, system_families
from stillwatch.kinds import KINDS
from stillwatch.membership import KIND_TELLS
from stillwatch.recognition import Seen, keys_of

RECENT = 2000
"""Exchanges of one account that are looked at to recognise it: the newest."""
ROW_KINDS = [
    k for k, name in enumerate(KIND_NAMES) if KINDS[name].table == "facts" and name not in ("wording", "system")
]
TRAITS = [k for k, name in enumerate(KIND_NAMES) if KINDS[name].table == "accounts"]
WORDING, SYSTEM = KIND_NAMES.index("wording"), KIND_NAMES.index("system")


@dataclass(slots=True)
class Arrivals:
    """The log by event time. ``order`` are its rows as they arrived, ``times`` (us) when; the rest is by row as read.

    ``wording`` and ``system`` are families as known so far, 0 where none; they change as the log goes on.
    """

    facts: pa.Table
    sketches: np.ndarray
    order: np.ndarray
    times: np.ndarray
    account: np.ndarray
    customer: np.ndarray
    wording: np.ndarray
    system: np.ndarray
    elicited: np.ndarray
    columns: dict[int, np.ndarray]
    traits: dict[int, np.ndarray]
    starts: np.ndarray
    by_customer: np.ndarray
    """Places in ``order`` of each customer's rows, ascending: customer c's are ``by_customer[starts[c]:starts[c + 1]]``."""

    @classmethod
    def of(cls, intake: Intake, profiles: pa.Table, settled: int = 0, since: int = 0) -> Arrivals:
        """Lay out what ``take_in`` left; the intake's facts and sketches stay where they are.

        The first ``settled`` rows arrived before ``since`` (us), in the order they stand in; no other did, whenever it
        happened.
        """
        facts = pa.Table.from_batches(intake.facts)
        moment = facts["time"].cast(pa.int64()).to_numpy()
        later = settled + np.lexsort((facts["exchange"].to_numpy()[settled:], moment[settled:]))
        order = np.concatenate([np.arange(settled), later])
        times = np.concatenate([np.full(settled, since - 1), np.maximum(moment[later], since)])
        customers = profiles["customer"].to_numpy()
        account = facts["account"].to_numpy()
        customer = customers[account]
        lined = customer[order]
        columns = {k: facts[KINDS[KIND_NAMES[k]].column].fill_null(0).to_numpy().astype(np.int64) for k in ROW_KINDS}
        first = np.zeros(len(customers), np.int64)
        first[customers[::-1]] = np.arange(len(customers))[::-1]
        traits = {
            k: profiles[KINDS[KIND_NAMES[k]].column].fill_null(0).to_numpy().astype(np.int64)[first] for k in TRAITS
        }
        elicited = facts["elicitation"].fill_null(0).to_numpy() >= 0.5
        return cls(
            facts, np.concatenate(intake.sketches), order, times, account, customer,
            np.zeros(len(order), np.int64), facts["system"].fill_null(0).to_numpy().copy(), elicited, columns, traits,
            np.searchsorted(np.sort(lined), np.arange(len(customers) + 1)), np.argsort(lined, kind="stable"),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.order)

    def telling(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys that could mark a campaign in these rows, with the customer of each; traits of their accounts included."""
        held = [(k, c[rows]) for k, c in self.columns.items() if KIND_TELLS[k]]
        held += [(WORDING, self.wording[rows]), (SYSTEM, self.system[rows])]
        customers = self.customer[rows]
        found = [(keys_of(k, v[v != 0]), customers[v != 0]) for k, v in held]
        who = np.unique(customers)
        found += [(keys_of(k, t[who][t[who] != 0]), who[t[who] != 0]) for k, t in self.traits.items() if KIND_TELLS[k]]
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def seen(self, customers: np.ndarray, until: int, shared: np.ndarray) -> Seen:
        """What these customers were seen with among the first ``until`` arrivals; of values, those in ``shared`` (sorted)."""
        ends = self.starts[customers + 1]
        spans = [self.by_customer[s:e] for s, e in zip(self.starts[customers], ends)]
        spans = [span[: np.searchsorted(span, until)][-RECENT:] for span in spans]
        asker = np.repeat(np.arange(len(customers)), [len(s) for s in spans])
        rows = self.order[np.concatenate(spans)] if spans else np.zeros(0, np.int64)
        held = [(k, c[rows], asker) for k, c in self.columns.items()]
        held += [(WORDING, self.wording[rows], asker), (SYSTEM, self.system[rows], asker)]
        held += [(k, t[customers], np.arange(len(customers))) for k, t in self.traits.items()]
        row = np.concatenate([at[v != 0] for _, v, at in held])
        kind = np.concatenate([np.full(int((v != 0).sum()), k) for k, v, _ in held])
        keys = np.concatenate([keys_of(k, v[v != 0]) for k, v, _ in held])
        if len(shared):
            known = shared[np.minimum(np.searchsorted(shared, keys), len(shared) - 1)] == keys
            row, kind, keys = row[known], kind[known], keys[known]
        _, first = np.unique(pair_of(row, keys), return_index=True)
        return Seen(
            customers,
            row[first],
            kind[first],
            keys[first],
            asker,
            self.wording[rows],
            self.system[rows],
            self.elicited[rows],
        )


@dataclass(frozen=True, slots=True)
class Systems:
    """System texts by account: who used which (``text``), with its sketch, and its first place among the arrivals."""

    account: np.ndarray
    text: np.ndarray
    sketch: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, intake: Intake, arrivals: Arrivals) -> Systems:
        """From the intake's, one row for each account and text."""
        account = np.concatenate([s[0] for s in intake.systems])
        text = np.concatenate([s[1] for s in intake.systems])
        sketch = np.concatenate([s[2] for s in intake.systems])
        pairs, first = np.unique(np.column_stack([account, text]), axis=0, return_index=True)
        raw = arrivals.facts["system"].fill_null(0).to_numpy()[arrivals.order]
        lined = np.column_stack([arrivals.account[arrivals.order], raw])[raw != 0]
        _, at = np.unique(lined, axis=0, return_index=True)
        return cls(pairs[:, 0], pairs[:, 1], sketch[first], np.flatnonzero(raw)[at])

    def between(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Account, text and sketch of those first seen among the arrivals from ``start`` to before ``end``."""
        seen = (self.place >= start) & (self.place < end)
        return self.account[seen], self.text[seen], self.sketch[seen]

    def families(self, until: int) -> tuple[np.ndarray, np.ndarray]:
        """As ``system_families``, of the texts among the first ``until`` arrivals."""
        return system_families([self.between(0, until)])


@dataclass(frozen=True, slots=True)
class Seats:
    """Customers of several accounts, which are declared and not accused, and the place at which the second arrived."""

    customer: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, arrivals: Arrivals) -> Seats:
        """Of all that will arrive."""
        _, place = np.unique(arrivals.account[arrivals.order], return_index=True)
        customer = arrivals.customer[arrivals.order[place]]
        lined = np.lexsort((place, customer))
        customers, start, accounts = np.unique(customer[lined], return_index=True, return_counts=True)
        return cls(customers[accounts > 1], place[lined][start[accounts > 1] + 1])

    def by(self, until: int) -> np.ndarray:
        """Those known as such among the first ``until`` arrivals, sorted."""
        return self.customer[self.place < until]


def pair_of(account: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """One int64 for each (account, key)."""
    mixed = (account.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
    return np.bitwise_xor(keys, (mixed ^ (mixed >> np.uint64(32))).view(np.int64))
