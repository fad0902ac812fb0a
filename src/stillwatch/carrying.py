"""What is known of campaigns where the state that knew it cannot be taken up: carried over from the results it last gave.

Names and histories go on, and whoever was counted to a campaign stays so: fewer exchanges are held than that was concluded from,
and to find nothing in them clears nobody. Until as much has come in again, only being found anew ends that, or a person's word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.ledger import NEVER, Absent, Entry
from stillwatch.privacy import Privacy
from stillwatch.watch import Watch


@dataclass(frozen=True, slots=True)
class Carried:
    """Campaigns as results tell them, and the accounts flagged in them: rows of ``accounts.parquet``.

    ``until`` is the end of a step (us) from which on nobody is kept in a campaign by this alone.
    """

    entries: tuple[Entry, ...]
    accounts: pa.Table
    until: int

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]], accounts: pa.Table, until: int) -> Carried:
        """From ``history.json`` and ``accounts.parquet``. KeyError, TypeError or ValueError where they are of another shape."""
        columns = ["account_id", "campaign_id", "first_flagged_at", "cleared_at"]
        known = pa.array([told["campaign_id"] for told in history], pa.string())
        in_one = pc.is_in(accounts["campaign_id"], value_set=known)
        return cls(tuple(map(_entry, history)), accounts.filter(in_one).select(columns), until)

    def into(self, watch: Watch, hashes: np.ndarray, customer: np.ndarray, privacy: Privacy) -> None:
        """Enter it into a new watch; ``hashes`` are those of the names of the accounts that are there, ``customer`` their
        customers."""
        watch.carried_until = self.until
        watch.ledger.entries[:] = [dataclasses.replace(e, history=[*e.history]) for e in self.entries]
        account = privacy.hash_strings(self.accounts["account_id"].combine_chunks(), "account")
        ids = pa.array([e.campaign_id for e in self.entries], pa.string())
        owner = pc.index_in(self.accounts["campaign_id"], value_set=ids).to_numpy().astype(np.int64)
        known = {"owner": owner, "carried": np.ones(len(owner), bool)}
        known |= {
            n: _micros(self.accounts[c]) for n, c in (("flagged_at", "first_flagged_at"), ("cleared_at", "cleared_at"))
        }
        order = np.argsort(hashes)
        at = np.minimum(np.searchsorted(hashes, account, sorter=order), max(0, len(hashes) - 1))
        here = hashes[order][at] == account if len(hashes) else np.zeros(len(account), bool)
        numbers = customer[order[at[here]]] if here.any() else np.zeros(0, np.int64)
        for name, values in known.items():
            getattr(watch.ledger, name)[numbers] = values[here]
        watch.absent = Absent(account[~here], **{n: v[~here] for n, v in known.items()})


def _entry(told: Mapping[str, Any]) -> Entry:
    events = [(_us(e["at"]), str(e["event"]), int(e.get("accounts", 0))) for e in told["events"]]
    return Entry(
        str(told["campaign_id"]), _us(told["named_at"]), list(told["predecessors"]), told["merged_into"], events
    )


def _us(text: str) -> int:
    at = datetime.fromisoformat(text)
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 10**6 + 0.5)


def _micros(times: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(times.cast(pa.int64()).fill_null(NEVER).to_numpy(), np.int64)
