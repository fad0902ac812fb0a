"""How far back a state of judging goes: what lies beyond is forgotten, but not what was concluded from it.

Forgotten are exchanges, with all that was kept of them, once they are older than the horizon. The names of campaigns, their
histories and who was counted to them stay: the ledger stands under keyed hashes of accounts, so that an account of which
nothing else is left is known again when it comes back, as the member it was. It is carried (``ledger.py``): to find nothing in
what it has sent since clears nobody. A customer stands under one of its accounts, and under another one where that is forgotten.
An exchange older than what was forgotten is not taken in any more, for nobody could tell whether it was before.

State is rewritten for this, so it is done only once a thirtieth of the horizon has gathered beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.arrivals import pair_of
from stillwatch.checkpoint import Saved
from stillwatch.intake import Taken, digest_of, mapped
from stillwatch.ledger import NEVER

SLACK = 30
"""How many times in a horizon a state is rewritten at most."""


def beyond(saved: Saved, horizon: timedelta) -> int | None:
    """The time (us) before which all is to be forgotten now, None where it is not worth it yet."""
    length = horizon // timedelta(microseconds=1)
    before = saved.end - length
    times = saved.taken.facts["time"].cast(pa.int64()).to_numpy()
    return before if len(times) and int(times.min()) < before - length // SLACK else None


@dataclass(frozen=True, slots=True)
class Customers:
    """Accounts that the state knows, as keyed hashes of their names, and the number of the customer of each."""

    account: np.ndarray
    customer: np.ndarray

    def held_by(self, hashed: np.ndarray, held: np.ndarray) -> np.ndarray:
        """For each of these accounts one that is ``held`` of its customer: itself, or another, or itself where none is."""
        is_held, order = np.isin(self.account, held), np.argsort(self.account)
        customers, first = np.unique(self.customer[is_held], return_index=True)
        number = mapped(hashed, self.account[order], self.customer[order])
        other = np.isin(hashed, self.account) & ~np.isin(hashed, held) & np.isin(number, customers)
        left = hashed.copy()
        left[other] = self.account[is_held][first][np.searchsorted(customers, number[other])]
        return left


def forget(saved: Saved, before: int, known: Customers) -> Saved:
    """The state without the exchanges before a time (us); what counts rows counts those that are left, and members of whom none
    is are carried. ``known`` are all accounts that the state has rows of."""
    taken, plain = saved.taken, saved.plain
    kept = taken.facts["time"].cast(pa.int64()).to_numpy() >= before
    facts = taken.facts.filter(pa.array(kept))
    schedule, gone = dict(plain["schedule"]), ~kept
    judged = schedule["rows"]
    schedule["rows"] = int(kept[:judged].sum())
    schedule["spent"] *= float(kept.mean())
    schedule["unexplained"] = max(
        0, schedule["unexplained"] - _unexplained(saved, gone & (np.arange(len(kept)) < judged))
    )
    left = Taken(facts, taken.sketches[kept], _systems(taken, facts), _digest(facts))
    ledger, are_absent = _ledger(saved, facts, known)
    # Until as much has come in again as it was concluded from.
    carried_until = max(plain["carried_until"], 2 * saved.end - before if are_absent else 0)
    changed = {
        "carried_until": carried_until, "schedule": schedule, "until": int(kept.sum()), "floor": before,
        "unexplained": max(0, plain["unexplained"] - _unexplained(saved, gone)),
    }  # fmt: skip
    return replace(
        saved, taken=left, wording=saved.wording[kept], system=saved.system[kept],
        arrays=saved.arrays | ledger, plain={**plain, **changed},
    )  # fmt: skip


def _ledger(saved: Saved, facts: pa.Table, known: Customers) -> tuple[dict[str, np.ndarray], bool]:
    """The ledger's customers under accounts that rows are left of, members of whom none is carried; whether there are such."""
    arrays, held = saved.arrays, pc.unique(facts["account"]).to_numpy()
    customer = known.held_by(arrays["ledger.customer"], held)
    is_absent = (arrays["ledger.owner"] != NEVER) & ~np.isin(customer, held)
    ledger = {"ledger.customer": customer, "ledger.carried": arrays["ledger.carried"] | is_absent}
    return ledger, bool(is_absent.any())


def _unexplained(saved: Saved, gone: np.ndarray) -> int:
    """How many of these rows read like training data and were of no known campaign, as far as the ledger tells."""
    facts, arrays = saved.taken.facts, saved.arrays
    owned = arrays["ledger.customer"][arrays["ledger.owner"] != NEVER]
    elicited = facts["elicitation"].fill_null(0).to_numpy() >= 0.5
    return int((gone & elicited & ~np.isin(facts["account"].to_numpy(), owned)).sum())


def _systems(taken: Taken, facts: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """System texts that one of the rows that are left used, by account."""
    account, text, sketch = taken.systems
    system = facts["system"].fill_null(0).to_numpy()
    used = np.unique(pair_of(facts["account"].to_numpy(), system)[system != 0])
    kept = np.isin(pair_of(account, text), used)
    return account[kept], text[kept], sketch[kept]


def _digest(facts: pa.Table) -> int:
    return digest_of(
        facts["exchange"].to_numpy(), facts["time"].cast(pa.int64()).to_numpy(), facts["account"].to_numpy()
    )
