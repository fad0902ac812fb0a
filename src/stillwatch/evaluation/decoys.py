"""Decoys: the log itself with its links shuffled, in which there is no operator. What is found there is found by chance.

What an account is seen with is dealt out anew, in parts that belong together: who pays, which phone, where it signed up,
from where it asks, what it asks. Every value keeps how many rows have it and every account how many rows it has (the
configuration model, Molloy and Reed 1995), within strata that honest accounts have in common: kinds of account, countries,
days. When an account was made and when it asks stay as they were. Each part is dealt for itself, so nothing any two
accounts share in two parts is more than chance.

Honest groups are dealt apart too: decoys say how often chance makes a campaign, not how often a company looks like one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stillwatch.config import Config
from stillwatch.evaluation.again import again
from stillwatch.evaluation.families import READ
from stillwatch.findings import Findings
from stillwatch.intake import Log
from stillwatch.privacy import Privacy

Parts = Mapping[tuple[str, ...], tuple[str, ...]]
"""By columns that are dealt out together, the columns that say within which stratum."""

KIND_OF_ACCOUNT = ("programme", "plan", "verification")
ACCOUNTS: Parts = {
    ("card", "issuer", "billing_country"): KIND_OF_ACCOUNT,
    ("phone", "phone_country"): KIND_OF_ACCOUNT,
    ("signup_net", "signup_tls", "referrer"): KIND_OF_ACCOUNT,
    ("mail_domain",): KIND_OF_ACCOUNT,
}
FACTS: Parts = {
    tuple(c for c in READ["network"]["facts"] if c != "country"): ("country", "day"),
    (*READ["template"]["facts"], *READ["content"]["facts"]): ("day",),
}


@dataclass(frozen=True, slots=True)
class Decoys:
    """What was found in ``logs`` shuffled logs together: campaigns, accounts in them, cases for review, and the highest risk."""

    logs: int
    campaigns: int
    accounts: int
    review: int
    highest_risk: float

    @property
    def expected_false(self) -> float:
        """Campaigns that chance makes in one log."""
        return self.campaigns / self.logs


def decoys(
    log: Log, logs: int, config: Config, privacy: Privacy, seed: int = 1, judged: Callable[[int], None] = lambda _: None
) -> Decoys:
    """How much is found in so many shuffled copies of a log, which is read once; ``judged`` is told how many are done."""
    found = []
    for findings in judged_decoys(log, logs, config, privacy, seed):
        found.append(findings)
        judged(len(found))
    risks = [float(f.accounts["risk"].to_numpy().max(initial=0.0)) for f in found]
    return Decoys(
        logs, sum(len(f.campaigns) for f in found), sum(len(c.members) for f in found for c in f.campaigns),
        sum(len(f.review) for f in found), max(risks, default=0.0),
    )  # fmt: skip


def judged_decoys(log: Log, logs: int, config: Config, privacy: Privacy, seed: int) -> Iterator[Findings]:
    """What is found in each shuffled copy."""
    rng = np.random.default_rng(seed)
    with again(log, config, privacy) as read:
        for _ in range(logs):
            for table, parts in (("facts", FACTS), ("accounts", ACCOUNTS)):
                dealt = shuffled(read.engine.rows(f"whole_{table}"), parts, rng)
                read.engine.step(table, f"SELECT * FROM whole_{table} WHERE 1 = 0", {})
                read.engine.append(table, dealt)
            yield read.judged()


def shuffled(rows: pa.Table, parts: Parts, rng: np.random.Generator) -> pa.Table:
    """The rows with the columns of each part dealt out anew among those of one stratum."""
    for columns, within in parts.items():
        take = pa.array(dealt(strata(rows, within), rng))
        for name in columns:
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(at, rows.schema.field(name), rows[name].take(take))
    return rows


def strata(rows: pa.Table, within: tuple[str, ...]) -> np.ndarray:
    """The number of each row's stratum; ``day`` is that of its time."""
    number = np.zeros(len(rows), np.int64)
    for name in within:
        column = rows["time"].cast(pa.timestamp("us")).cast(pa.date32(), safe=False) if name == "day" else rows[name]
        codes = column.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
        _, number = np.unique(number * (codes.max(initial=0) + 1) + codes, return_inverse=True)
    return number


def dealt(number: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row another one of its stratum, each exactly once."""
    take = np.empty(len(number), np.int64)
    take[np.argsort(number, kind="stable")] = np.lexsort((rng.random(len(number)), number))
    return take
