"""What a walk knows, as people are told it: the ledger's names and times put to what a judgement found.

Between two judgements of everything a campaign keeps what the last one found of it. Whom recognition has added since is a
member too, with the lowest risk of those who were judged; how much its accounts did, and when, is always up to date.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa

from stillwatch.arrivals import Arrivals
from stillwatch.campaigns import Judged
from stillwatch.findings import CLEARED_AT, Findings, accounts_table
from stillwatch.ledger import NEVER, Ledger
from stillwatch.numbering import Numbering
from stillwatch.recognition import Profile
from stillwatch.tables import UTC_US
from stillwatch.types import FAMILIES, Campaign, Member, Reason
from stillwatch.watch import Watch

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Told:
    """What a judgement of everything found, and how many arrivals it judged."""

    rows: int
    judged: Judged


@dataclass(frozen=True, slots=True)
class Met:
    """Exchanges of each account among those that have arrived, and the times (us) of its first and last."""

    exchanges: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, arrivals: Arrivals, until: int, accounts: int) -> Met:
        """Among the first ``until`` arrivals."""
        rows = arrivals.order[:until]
        account, time = arrivals.account[rows], arrivals.facts["time"].cast(pa.int64()).to_numpy()[rows]
        first, last = np.full(accounts, np.iinfo(np.int64).max), np.zeros(accounts, np.int64)
        np.minimum.at(first, account, time)
        np.maximum.at(last, account, time)
        return cls(np.bincount(account, minlength=accounts), first, last)

    def told(self, member: Member, number: int) -> Member:
        """A member with what is known of it now."""
        seen = moment(int(self.first[number])), moment(int(self.last[number]))
        return dataclasses.replace(member, exchanges=int(self.exchanges[number]), first_seen=seen[0], last_seen=seen[1])


def present(told: Told, watch: Watch, arrivals: Arrivals, names: Numbering, customer: np.ndarray) -> Findings:
    """What a judgement found, under the names that the ledger knows, with whom was recognised since; ``customer`` is that of
    each account. A group of which the ledger counts nobody to a campaign is left out."""
    ledger, met = watch.ledger, Met.of(arrivals, watch.until, len(names))
    found = []
    for campaign in told.judged.campaigns:
        numbers = names.find(pa.array([m.account_id for m in campaign.members]))
        owners = ledger.owner[customer[numbers]]
        if (owners == NEVER).all():
            continue
        owner = int(np.bincount(owners[owners != NEVER]).argmax())
        joined = np.setdiff1d(np.flatnonzero(ledger.owner == owner), customer[numbers])
        new = recognised(joined, names.names, campaign, profile_of(watch, owner), watch, arrivals)
        members = [met.told(m, int(n)) for m, n in zip((*campaign.members, *new), (*numbers, *joined))]
        found.append(renamed(grown(campaign, members, len(new)), owner, ledger))
    campaigns = tuple(sorted(found, key=lambda c: (-len(c.members), c.campaign_id)))
    accounts = flagged_accounts(names.names, campaigns, told.judged.review, ledger)
    return Findings(campaigns, told.judged.review, told.judged.let_go, accounts)


def profile_of(watch: Watch, owner: int) -> Profile | None:
    """The profile by which accounts are recognised as a campaign's; None where it has none now."""
    at = np.flatnonzero(watch.book.campaign == owner)
    return watch.book.profiles[int(at[0])] if len(at) else None


def recognised(
    joined: np.ndarray, names: pa.Array, campaign: Campaign, profile: Profile | None, watch: Watch, arrivals: Arrivals
) -> list[Member]:
    """Accounts that were recognised as a campaign's since it was judged, as members of it; counts and times are to be filled."""
    if not len(joined) or profile is None:
        return []
    seen = arrivals.seen(joined, watch.until, watch.shared)
    bits = profile.score(joined, seen.row, seen.kind, seen.keys).bits
    risk = min(m.risk for m in campaign.members)
    begun = campaign.first_seen
    return [Member(names[int(a)].as_py(), risk, 0, begun, begun, why(b)) for a, b in zip(joined, bits)]


def why(bits: np.ndarray) -> tuple[Reason, ...]:
    """Sentences for the families by which an account was recognised, strongest first."""
    text = "recognised by what marks this campaign; judged with it next time"
    order = [f for f in np.argsort(-bits, kind="stable") if bits[f] >= 1]
    return tuple(Reason(FAMILIES[f], float(bits[f]), text) for f in order)


def grown(campaign: Campaign, members: Sequence[Member], new: int) -> Campaign:
    """A campaign with these members, ``new`` of whom have joined since it was judged."""
    more = f" {new} more {'were' if new > 1 else 'was'} recognised since." if new else ""
    return dataclasses.replace(
        campaign, members=tuple(sorted(members, key=lambda m: (-m.risk, m.account_id))),
        exchanges=sum(m.exchanges for m in members), summary=campaign.summary + more,
        first_seen=min(m.first_seen for m in members), last_seen=max(m.last_seen for m in members),
    )  # fmt: skip


def renamed(campaign: Campaign, number: int, ledger: Ledger) -> Campaign:
    """A campaign under the name the ledger has for it, with when it was first told and what it came from."""
    entry = ledger.entries[number]
    return dataclasses.replace(
        campaign, campaign_id=entry.campaign_id, detected_at=moment(entry.named_at),
        predecessors=tuple(entry.predecessors),
    )  # fmt: skip


def flagged_accounts(names: pa.Array, told: Sequence[Campaign], review: Sequence[Campaign], ledger: Ledger) -> pa.Table:
    """``accounts.parquet`` of a replay: with the time each account was first flagged, and when that was taken back."""
    rows = accounts_table(names, told, review)
    flagged = pa.array(ledger.flagged_at, pa.int64(), mask=ledger.flagged_at == NEVER).cast(UTC_US)
    cleared = pa.array(ledger.cleared_at, pa.int64(), mask=ledger.cleared_at == NEVER).cast(UTC_US)
    at = rows.schema.get_field_index("first_flagged_at")
    return rows.set_column(at, rows.schema.field(at), flagged).append_column(CLEARED_AT, cleared)


def history(ledger: Ledger) -> list[dict[str, Any]]:
    """Every campaign ever told, with what became of it: the rows of ``history.json``."""
    return [
        {
            "campaign_id": e.campaign_id,
            "named_at": moment(e.named_at),
            "predecessors": e.predecessors,
            "merged_into": e.merged_into,
            "events": [
                {"at": moment(at), "event": what} | ({"accounts": n} if n > 0 else {}) for at, what, n in e.history
            ],
        }
        for e in ledger.entries
    ]


def moment(us: int) -> datetime:
    """Microseconds since 1970 as a moment in UTC."""
    return _EPOCH + timedelta(microseconds=us)


def micros(at: datetime) -> int:
    """A moment as microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def plain(told: Told) -> dict[str, Any]:
    """What was told as plain values, from which ``as_told`` makes it again."""
    return {"rows": told.rows, "judged": {f: [_plain(c) for c in getattr(told.judged, f)] for f in _OUTCOMES}}


def as_told(values: dict[str, Any]) -> Told:
    """What ``plain`` made plain. KeyError, TypeError or ValueError where the values are of another shape."""
    judged = Judged(*(tuple(_noun(Campaign, c) for c in values["judged"][f]) for f in _OUTCOMES))
    return Told(int(values["rows"]), judged)


_OUTCOMES = ("campaigns", "review", "let_go")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _noun(kind: Any, value: Any) -> Any:
    """A plain value as one of ``kind``: a noun, a moment, a word of a closed list, or a tuple or mapping of such."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _noun(next(k for k in inner if k is not type(None)), value)
    if origin is tuple:
        kinds = repeat(inner[0]) if inner[1:] == (...,) else inner
        return tuple(_noun(k, v) for k, v in zip(kinds, value))
    if origin is Mapping:
        return {_noun(inner[0], k): _noun(inner[1], v) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{n: _noun(hints[n], v) for n, v in value.items()})  # type: ignore[operator]
    return datetime.fromisoformat(value) if kind is datetime else kind(value)
