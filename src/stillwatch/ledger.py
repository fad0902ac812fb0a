"""Campaigns over time: a name stays while its accounts come and go; parts, mergers and clearings are kept as data.

A campaign found at one step is the one it shares most members with from before, if they make up half of either. Of two
that claim the same old one the larger keeps the name and the other is noted as split off from it; an old one that lost its
claim, but half of whose members are in a new one, has merged into that. Accounts of which nothing but this is left are in no
campaign's size and are not cleared: they are kept aside (``Absent``) until they come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

NEVER = -1
"""In place of a time or of a campaign's number: none."""


@dataclass(slots=True)
class Entry:
    """One campaign: its name, when it was first told (us since 1970), what it came from, and what became of it."""

    campaign_id: str
    named_at: int
    predecessors: list[str] = field(default_factory=list)
    merged_into: str | None = None
    history: list[tuple[int, str, int]] = field(default_factory=list)
    """(time, what happened, accounts at that time): named, grown, split, merged, cleared."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Accounts of which no exchange is held any more, by keyed hashes of their names: as what they were known then."""

    account: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    owner: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    flagged_at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    cleared_at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    carried: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


@dataclass(slots=True)
class Ledger:
    """Who is in which campaign now, since when, and until when. Arrays are by number of the customer.

    ``carried`` marks who was counted to a campaign by exchanges that this ledger was never shown, and by none since.
    """

    owner: np.ndarray
    flagged_at: np.ndarray
    cleared_at: np.ndarray
    entries: list[Entry] = field(default_factory=list)
    carried: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if len(self.carried) != len(self.owner):
            self.carried = np.zeros(len(self.owner), bool)

    @classmethod
    def empty(cls, accounts: int) -> Ledger:
        """Of as many customers, none flagged."""
        owner, flagged, cleared = np.full((3, accounts), NEVER, np.int64)
        return cls(owner, flagged, cleared)

    def record(self, found: Sequence[tuple[str, np.ndarray]], at: int, *, keep_carried: bool = False) -> list[int]:
        """Enter what a judgement of everything found, as pairs (name it would have, members); the numbers they have now.

        Accounts that were flagged and are in none of them are cleared; with ``keep_carried`` not those that are carried.
        """
        before = self.owner.copy()
        sizes = np.bincount(before[before >= 0], minlength=len(self.entries))
        order = sorted(range(len(found)), key=lambda k: (-len(found[k][1]), found[k][0]))
        numbers, taken = [NEVER] * len(found), set[int]()
        split = dict[int, int]()
        for k in order:
            old, shared = _closest(before[found[k][1]])
            related = old >= 0 and 2 * shared >= min(len(found[k][1]), sizes[old])
            if related and old not in taken:
                numbers[k] = old
                taken.add(old)
            elif related:
                split[k] = old
        for k in order:
            if numbers[k] == NEVER:
                numbers[k] = self._name(found[k][0], at)
                if k in split:
                    self._split(split[k], numbers[k], at)
        self.owner[:] = NEVER
        for k, (_, members) in enumerate(found):
            self.join(members, np.full(len(members), numbers[k]), at)
        self._carry_on(before, keep=keep_carried)
        self._close(before, sizes, taken, at)
        for number in numbers:
            size = int((self.owner == number).sum())
            history = self.entries[number].history
            if history[-1][2] != size:
                history.append((at, "now", size))
        return numbers

    def note_absent(self, absent: Absent, at: int) -> None:
        """Say of campaigns all of whose accounts are absent that they are forgotten, but for their names."""
        for number in np.unique(absent.owner[absent.owner != NEVER]):
            history = self.entries[number].history
            if not (self.owner == number).any() and history[-1][1] != "forgotten":
                history.append((at, "forgotten", 0))

    def _carry_on(self, before: np.ndarray, *, keep: bool) -> None:
        """Who was found is no longer carried; with ``keep`` whoever else is stays where it was, and otherwise nobody is."""
        self.carried &= (self.owner == NEVER) & (before != NEVER) & keep
        self.owner[self.carried] = before[self.carried]

    def join(self, accounts: np.ndarray, numbers: np.ndarray, at: int) -> None:
        """Count ``accounts`` to the campaigns ``numbers`` from now on."""
        self.owner[accounts] = numbers
        self.cleared_at[accounts] = NEVER
        fresh = accounts[self.flagged_at[accounts] == NEVER]
        self.flagged_at[fresh] = at

    def _name(self, campaign_id: str, at: int) -> int:
        known = {e.campaign_id for e in self.entries}
        name, turn = campaign_id, 2
        while name in known:
            name, turn = f"{campaign_id}-{turn}", turn + 1
        self.entries.append(Entry(name, at, history=[(at, "named", 0)]))
        return len(self.entries) - 1

    def _split(self, old: int, new: int, at: int) -> None:
        self.entries[new].predecessors.append(self.entries[old].campaign_id)
        self.entries[old].history.append((at, f"split: {self.entries[new].campaign_id}", NEVER))

    def _close(self, before: np.ndarray, sizes: np.ndarray, taken: set[int], at: int) -> None:
        """Say what became of campaigns that no longer stand, and of accounts no longer in any."""
        cleared = (before >= 0) & (self.owner == NEVER)
        unseen = cleared & (self.flagged_at == at)
        self.cleared_at[cleared] = at
        # Flagged and taken back within one step: nobody could have acted on it.
        self.flagged_at[unseen] = self.cleared_at[unseen] = NEVER
        for old in np.flatnonzero(sizes):
            if int(old) in taken:
                continue
            entry = self.entries[old]
            if (self.owner[before == old] == old).any():
                # Nobody of it was found, some are carried on.
                continue
            into, shared = _closest(self.owner[before == old])
            if into >= 0 and 2 * shared >= sizes[old]:
                entry.merged_into = self.entries[into].campaign_id
                self.entries[into].predecessors.append(entry.campaign_id)
                entry.history.append((at, f"merged into {entry.merged_into}", 0))
            else:
                entry.history.append((at, "cleared", 0))


def _closest(owners: np.ndarray) -> tuple[int, int]:
    """The campaign most of these accounts are in, and how many are; (-1, 0) where none is in any."""
    inside = owners[owners >= 0]
    if not len(inside):
        return NEVER, 0
    counts = np.bincount(inside)
    return int(np.argmax(counts)), int(counts.max())
