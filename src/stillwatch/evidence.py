"""Observations held as two compressed indices, value -> holders and account -> values.

Customers and values are dense numbers here; a *value* is one ``(kind, value)``. Everything downstream of the
detectors (clusters, membership, judgement) asks this one object who holds what and how common that is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stillwatch.kinds import KINDS
from stillwatch.store import Engine

KIND_NAMES = tuple(KINDS)


@dataclass(frozen=True, slots=True)
class Holdings:
    """Who holds what.

    ``kind``, ``value``, ``holders`` describe the V values. ``by_value[value_at[v]:value_at[v+1]]`` are the customers
    that hold value v; ``by_account[account_at[a]:account_at[a+1]]`` the values customer a holds. ``n`` is the number of
    customers in the log.
    """

    n: int
    kind: np.ndarray
    value: np.ndarray
    holders: np.ndarray
    value_at: np.ndarray
    by_value: np.ndarray
    account_at: np.ndarray
    by_account: np.ndarray
    country: np.ndarray

    @classmethod
    def load(cls, engine: Engine, accounts: int) -> Holdings:
        """Read ``observations``, ``accounts`` and ``homes``; ``accounts`` is one more than the largest account number."""
        table = engine.rows("SELECT account, kind, value FROM observations", {})
        kind = kind_codes(table["kind"])
        value = table["value"].to_numpy()
        account = table["account"].to_numpy().astype(np.int64)
        order = np.lexsort((account, value, kind))
        kind, value, account = kind[order], value[order], account[order]
        first = np.ones(len(kind), bool)
        first[1:] = (kind[1:] != kind[:-1]) | (value[1:] != value[:-1])
        if len(kind):
            # By who holds them, not by their hash: what is found must not hang on the key. Nor on accounts yet to come, among
            # which those that are there are numbered.
            number = np.cumsum(first) - 1
            there = np.sort(engine.rows("SELECT account FROM accounts", {})["account"].to_numpy())
            order = np.lexsort((account, number, signature(np.searchsorted(there, account), number)[number], kind))
            kind, value, account = kind[order], value[order], account[order]
            first[1:] = (kind[1:] != kind[:-1]) | (value[1:] != value[:-1])
        number = np.cumsum(first) - 1
        values = int(number[-1]) + 1 if len(number) else 0
        value_at = np.append(np.flatnonzero(first), len(kind)).astype(np.int64)
        by_account_order = np.argsort(account, kind="stable")
        homes = engine.rows("SELECT account, country FROM homes", {})
        country = np.zeros(accounts, np.int64)
        country[homes["account"].to_numpy()] = homes["country"].to_numpy()
        customers = engine.rows("SELECT customers FROM population", {})["customers"][0].as_py()
        return cls(
            n=int(customers),
            kind=kind[first],
            value=value[first],
            holders=np.diff(value_at) if values else np.zeros(0, np.int64),
            value_at=value_at,
            by_value=account,
            account_at=np.searchsorted(account[by_account_order], np.arange(accounts + 1)),
            by_account=number[by_account_order],
            country=np.unique(np.append(0, country), return_inverse=True)[1][1:],
        )

    def holders_of(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Customers holding any of ``values``, as pairs (position in ``values``, customer)."""
        return ranges(self.value_at, self.by_value, values)

    def values_of(self, accounts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values held by any of ``accounts``, as pairs (position in ``accounts``, value)."""
        return ranges(self.account_at, self.by_account, accounts)

    def cap(self, values: slice | np.ndarray = slice(None)) -> np.ndarray:
        """For each of ``values``, the largest number of holders with which it still is rare evidence (0: never)."""
        share = np.array([KINDS[k].cap for k in KIND_NAMES])[self.kind[values]]
        return np.where(share > 0, np.maximum(50, share * self.n), 0)

    def rare_beside(self, values: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Whether each of ``values`` is rare evidence about a group of whom ``inside`` hold it, by who else does: what thousands
        of an operator's accounts share is common because of them."""
        return np.asarray(self.holders[values] - inside <= self.cap(values))

    def degrees(self) -> np.ndarray:
        """Rare values per customer and kind, (accounts, kinds)."""
        rare = self.holders <= self.cap()
        account = np.repeat(np.arange(len(self.account_at) - 1), np.diff(self.account_at))
        keep = rare[self.by_account]
        flat = account[keep] * len(KIND_NAMES) + self.kind[self.by_account[keep]]
        return np.bincount(flat, minlength=(len(self.account_at) - 1) * len(KIND_NAMES)).reshape(-1, len(KIND_NAMES))


def signature(account: np.ndarray, number: np.ndarray) -> np.ndarray:
    """For each dense ``number`` one uint64 that depends on the set of its accounts alone."""
    word = (account.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    found = np.zeros(int(number.max(initial=-1)) + 1, np.uint64)
    np.add.at(found, number, word ^ (word >> np.uint64(32)))
    return found


def ranges(starts: np.ndarray, items: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The concatenated slices ``items[starts[w]:starts[w+1]]`` for w in ``wanted``, with each item's position in it."""
    low, size = starts[wanted], starts[wanted + 1] - starts[wanted]
    position = np.repeat(np.arange(len(wanted)), size)
    offset = np.arange(len(position)) - np.repeat(np.cumsum(size) - size, size)
    return position, items[low[position] + offset]


def kind_codes(names: pa.ChunkedArray) -> np.ndarray:
    """Number of each kind in the declared order, int8."""
    encoded = names.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = np.array([KIND_NAMES.index(k) for k in encoded.dictionary.to_pylist()], np.int8)
    return codes[encoded.indices.to_numpy()] if len(encoded) else np.zeros(0, np.int8)
