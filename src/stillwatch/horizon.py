"""How far back a state of judging goes: what lies beyond is forgotten, but not what was concluded from it.

Forgotten are exchanges, with all that was kept of them, once they are older than the horizon. The names of campaigns, their
histories and who was counted to them stay: the ledger stands under keyed hashes of accounts, so that an account of which
nothing else is left is known again when it comes back, as the member it was, until everything is judged anew. An exchange
older than what was forgotten is not taken in any more, for nobody could tell whether it was before.

State is rewritten for this, so it is done only once a thirtieth of the horizon has gathered beyond it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa

from stillwatch.arrivals import pair_of
from stillwatch.checkpoint import Saved
from stillwatch.intake import Taken, digest_of
from stillwatch.ledger import NEVER

SLACK = 30
"""How many times in a horizon a state is rewritten at most."""


def beyond(saved: Saved, horizon: timedelta) -> int | None:
    """The time (us) before which all is to be forgotten now, None where it is not worth it yet."""
    length = horizon // timedelta(microseconds=1)
    before = saved.end - length
    times = saved.taken.facts["time"].cast(pa.int64()).to_numpy()
    return before if len(times) and int(times.min()) < before - length // SLACK else None


def forget(saved: Saved, before: int) -> Saved:
    """The state without the exchanges before a time (us); what counts rows counts those that are left."""
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
    changed = {
        "schedule": schedule, "until": int(kept.sum()), "floor": before,
        "unexplained": max(0, plain["unexplained"] - _unexplained(saved, gone)),
    }  # fmt: skip
    left = Taken(facts, taken.sketches[kept], _systems(taken, facts), _digest(facts))
    return replace(
        saved, taken=left, wording=saved.wording[kept], system=saved.system[kept], plain={**plain, **changed}
    )


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
