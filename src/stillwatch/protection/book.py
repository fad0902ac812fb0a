"""Which key was issued for which campaign, and when: written down before the key is used, in a log that cannot be rewritten.

The ledger is an audit (``stillwatch.audit``) in a folder of its own: a chain of entries under a signed tree. An entry names a
key's id, campaign, epoch, scheme and *commitment*, and how it was vetted; no secret is in it. Secrets are derived again from
the master secret, and are the right ones if they fit their commitments.

The rules that keep it right: the entry is on disk before the key is given out; a campaign has one key at a time; no key, id
or epoch of a campaign is issued twice; nothing is taken out, so keys that were retired still prove what was learnt from them.
``Ledger`` is what the entries say, and needs no secret; ``Book`` also writes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stillwatch.audit import Audit
from stillwatch.entries import LOG, Chain, Deed, Entry, entries, moment_text
from stillwatch.errors import Terminal, UsageError
from stillwatch.notes import Signer, Verifier
from stillwatch.protection.keys import Key, Scheme, commitment_of, derive
from stillwatch.protection.vetting import Vetted, Vetting
from stillwatch.secret import Secret, secret_from, write_new

MASTER_VARIABLE, LEDGER_VARIABLE = "STILLWATCH_WATERMARK_KEY", "STILLWATCH_WATERMARK_LEDGER_KEY"
ISSUED, RETIRED, REVEALED, EXPORTED = (f"watermark.{what}" for what in ("issued", "retired", "revealed", "exported"))
ROLE = "admin"
GRACE = timedelta(hours=1)
"""How long an engine is still given a key that another has followed: requests under way were told its id."""
SOON = timedelta(minutes=10)
"""When a key that follows another one begins: time enough for engines to be given it first."""


def master_secret(file: Path) -> Secret:
    """The secret that keys are derived from: in STILLWATCH_WATERMARK_KEY, else in the file, made at first use for its owner."""
    if os.environ.get(MASTER_VARIABLE, "").strip():
        return secret_from(variable=MASTER_VARIABLE)
    if not file.exists():
        write_new(file, secrets.token_urlsafe(48), MASTER_VARIABLE)
    return secret_from(file)


@dataclass(frozen=True, slots=True)
class Issued:
    """A key as the ledger knows it. It is in use from ``starts_at`` until another follows (``ends_at``) or it is retired.

    ``number`` and ``digest`` are those of the entry that commits to it.
    """

    key_id: str
    campaign_id: str
    epoch: str
    scheme: Scheme
    attempt: int
    commitment: str
    issued_at: datetime
    starts_at: datetime
    number: int
    digest: str
    vetted: Vetted
    ends_at: datetime | None = None
    retired_at: datetime | None = None
    reason: str = ""
    revealed_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether answers carry it at this moment."""
        ended = self.ends_at is not None and self.ends_at <= now
        return self.starts_at <= now and not ended and self.retired_at is None

    def plain(self) -> dict[str, Any]:
        """As JSON values; times are ISO 8601."""
        told = {
            n: getattr(self, n) for n in ("key_id", "campaign_id", "epoch", "attempt", "commitment", "number", "digest")
        }
        times = ("issued_at", "starts_at", "ends_at", "retired_at", "revealed_at")
        moments = {n: moment_text(at) if (at := getattr(self, n)) else None for n in times}
        return {**told, **moments, "reason": self.reason, "scheme": asdict(self.scheme), "vetted": asdict(self.vetted)}


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the entries say, by key id, oldest first."""

    issued: Mapping[str, Issued] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """From the log in ``folder``, nothing where there is none: Terminal where an entry is damaged, does not follow on the one
        before, or says what cannot be. Whether all of it is what was signed, ``stillwatch.verification.verify`` says."""
        if not (folder / LOG).exists():
            return cls()
        return cls.of(entries(folder), str(folder / LOG))

    @classmethod
    def of(cls, found: Iterable[Entry], place: str) -> Ledger:
        """From entries; Terminal, naming the ``place`` and the line, as ``read`` says."""
        issued: dict[str, Issued] = {}
        chain = Chain()
        for line, entry in enumerate(found, 1):
            faults = [*chain.faults(entry), *_faults(entry, issued)]
            if faults:
                hint = "stillwatch audit verify FOLDER says what else is wrong; put it back as it was"
                raise Terminal(f"{place}:{line}: {faults[0]}", hint=hint)
            chain.follow(entry)
            _take(entry, issued)
        return cls(issued)

    def current(self, campaign_id: str, now: datetime) -> Issued | None:
        """The key that answers to a campaign carry now; None where it has none."""
        return next((k for k in self.issued.values() if k.campaign_id == campaign_id and k.holds(now)), None)

    def currents(self, now: datetime) -> dict[str, Issued]:
        """The key of each campaign that has one now."""
        return {k.campaign_id: k for k in self.issued.values() if k.holds(now)}

    def turns_at(self, now: datetime) -> datetime | None:
        """When a key next begins or ends, without anybody doing anything; None for never."""
        times = [at for k in self.issued.values() if k.retired_at is None for at in (k.starts_at, k.ends_at) if at]
        return min((at for at in times if at > now), default=None)

    def living(self, now: datetime) -> list[Issued]:
        """Keys that an engine must know: in use, soon to be, or followed by another one not long ago."""
        since = now - GRACE
        return [k for k in self.issued.values() if not k.retired_at and (k.ends_at is None or k.ends_at > since)]

    def open(self, campaign_id: str) -> Issued | None:
        """The last key of a campaign, if it has neither been retired nor followed."""
        mine = [k for k in self.issued.values() if k.campaign_id == campaign_id and not k.retired_at and not k.ends_at]
        return mine[-1] if mine else None

    def get(self, key_id: str) -> Issued:
        """One of the keys; UsageError for an id that was never issued."""
        if key_id not in self.issued:
            raise UsageError(f"no key {key_id!r} was issued", hint="stillwatch watermark list HOME shows them")
        return self.issued[key_id]

    def key(self, key_id: str, master: Secret) -> Key:
        """A key with its secret, retired or not; Terminal where the master secret is not the one it was derived from."""
        told = self.get(key_id)
        key = derive(master, told.campaign_id, told.epoch, told.scheme, told.attempt)
        if (key.key_id, key.commitment) != (told.key_id, told.commitment):
            raise Terminal(
                f"key {key_id}: the master secret at hand gives another key than was committed to",
                hint=f"give the one it was issued under, in keys/watermark.key or {MASTER_VARIABLE}",
            )
        return key

    def epoch(self, campaign_id: str, now: datetime) -> str:
        """The next epoch of a campaign that no key has yet: the month, with a number from the second one on."""
        taken = {k.epoch for k in self.issued.values() if k.campaign_id == campaign_id}
        month = f"{now.astimezone(UTC):%Y-%m}"
        return next(e for e in (month, *(f"{month}.{n}" for n in range(2, len(taken) + 3))) if e not in taken)


class Book:
    """The ledger in ``folder``, held by this process until ``close``; what a method returns from is on disk and signed for.

    Opening reads all of it: Terminal where it is not what was signed, Transient where another process has it.
    """

    def __init__(self, folder: Path, signer: Signer, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._folder, self._signer, self._clock = folder, signer, clock
        self._audit = Audit(folder, signer, clock=clock)
        try:
            self.ledger = Ledger.read(folder)
        except BaseException:
            self._audit.close()
            raise

    @property
    def verifier(self) -> Verifier:
        """The public key that its checkpoints are signed with."""
        return self._signer.verifier

    def issue(
        self, campaign_id: str, scheme: Scheme, vetting: Vetting, master: Secret, who: str, *, epoch: str = ""
    ) -> Key:
        """A new key for a campaign that has none, in use at once. UsageError where it has one, or had one in that epoch."""
        if held := self.ledger.open(campaign_id):
            raise UsageError(
                f"campaign {campaign_id!r} has the key {held.key_id} already", hint="stillwatch watermark rotate"
            )
        return self._issue(campaign_id, scheme, vetting, master, who, epoch, self._clock())

    def rotate(
        self,
        campaign_id: str,
        vetting: Vetting,
        master: Secret,
        who: str,
        *,
        scheme: Scheme | None = None,
        epoch: str = "",
        after: timedelta = SOON,
    ) -> Key:
        """The campaign's next key, in use ``after`` a while, when the one it has ends. UsageError where it has none."""
        held = self.ledger.open(campaign_id)
        if held is None:
            raise UsageError(f"campaign {campaign_id!r} has no key", hint="stillwatch watermark issue")
        starts = max(self._clock(), held.starts_at) + after
        return self._issue(campaign_id, scheme or held.scheme, vetting, master, who, epoch, starts)

    def retire(self, key_id: str, who: str, reason: str) -> Issued:
        """Have a key in use no more; it still proves. UsageError where that has been done."""
        self._check_living(key_id)
        return self._write(RETIRED, key_id, who, {"reason": reason})

    def reveal(self, key_id: str, master: Secret, who: str, reason: str) -> Key:
        """A key whose secret is to be shown to somebody, such as a court; written down, and in use no more from then on."""
        key = self.ledger.key(key_id, master)
        if not self.ledger.get(key_id).retired_at:
            self._write(RETIRED, key_id, who, {"reason": f"to be revealed: {reason}"})
        self._write(REVEALED, key_id, who, {"reason": reason})
        return key

    def export(self, master: Secret, who: str, to: str) -> list[Key]:
        """The keys that an engine must know now; that they were given ``to`` it is written down first."""
        keys = [self.ledger.key(k.key_id, master) for k in self.ledger.living(self._clock())]
        self._audit.append_all([Deed(EXPORTED, who, ROLE, k.key_id, {"to": to}) for k in keys])
        return keys

    def record(self, event: str, subject: str, who: str, facts: Mapping[str, Any]) -> None:
        """Write down something that is on no single key, such as a test that is to be made; it is on disk when this returns."""
        self._audit.append(event, who, ROLE, subject, facts)
        self.ledger = Ledger.read(self._folder)

    def checkpoint(self) -> str:
        """The signed note on all entries until now."""
        return self._audit.checkpoint()

    def sign(self, text: str) -> str:
        """A text signed with the ledger's key."""
        return self._signer.sign(text)

    def close(self) -> None:
        """Let the folder go."""
        self._audit.close()

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _issue(
        self, campaign_id: str, scheme: Scheme, vetting: Vetting, master: Secret, who: str, epoch: str, starts: datetime
    ) -> Key:
        epoch = epoch or self.ledger.epoch(campaign_id, self._clock())
        if any((k.campaign_id, k.epoch) == (campaign_id, epoch) for k in self.ledger.issued.values()):
            raise UsageError(f"campaign {campaign_id!r} had a key in the epoch {epoch!r}", hint="an epoch has one key")
        if self.ledger.issued:
            # One ledger has one master secret: with two, nobody could say later which proves what.
            self.ledger.key(next(iter(self.ledger.issued)), master)
        key, vetted = vetting.first(lambda attempt: derive(master, campaign_id, epoch, scheme, attempt))
        facts = {
            "campaign": campaign_id, "epoch": epoch, "scheme": asdict(scheme), "attempt": key.attempt,
            "commitment": key.commitment, "starts_at": moment_text(starts), "vetted": asdict(vetted),
        }  # fmt: skip
        self._write(ISSUED, key.key_id, who, facts)
        return key

    def _check_living(self, key_id: str) -> None:
        if self.ledger.get(key_id).retired_at:
            raise UsageError(f"key {key_id} has been retired already", hint="stillwatch watermark list HOME --all")

    def _write(self, event: str, key_id: str, who: str, facts: Mapping[str, Any]) -> Issued:
        self._audit.append(event, who, ROLE, key_id, facts)
        self.ledger = Ledger.read(self._folder)
        return self.ledger.get(key_id)


# From entries


def _faults(entry: Entry, issued: Mapping[str, Issued]) -> list[str]:
    """What an entry says that cannot be, whoever signed it."""
    deed = entry.deed
    if deed.event == ISSUED:
        try:
            new = _issued(entry)
        except (KeyError, TypeError, ValueError) as e:
            return [f"it issues no key that can be understood ({e})"]
        twice = [k for k in issued.values() if k.key_id == new.key_id or k.commitment == new.commitment]
        same = [k for k in issued.values() if (k.campaign_id, k.epoch) == (new.campaign_id, new.epoch)]
        return [f"it issues again what was issued as {k.key_id}" for k in (*twice, *same)]
    if deed.event in (RETIRED, REVEALED, EXPORTED) and deed.subject not in issued:
        return [f"it is on a key that was never issued, {deed.subject[:80]!r}"]
    return []


def _take(entry: Entry, issued: dict[str, Issued]) -> None:
    deed, at = entry.deed, entry.at
    if deed.event == ISSUED:
        new = _issued(entry)
        for key_id, k in issued.items():
            if k.campaign_id == new.campaign_id and k.ends_at is None and k.retired_at is None:
                issued[key_id] = replace(k, ends_at=new.starts_at)
        issued[new.key_id] = new
    elif deed.event == RETIRED:
        held = issued[deed.subject]
        issued[held.key_id] = replace(held, retired_at=held.retired_at or at, reason=str(deed.facts.get("reason", "")))
    elif deed.event == REVEALED:
        issued[deed.subject] = replace(issued[deed.subject], revealed_at=at)


def _issued(entry: Entry) -> Issued:
    """KeyError, TypeError or ValueError where the facts are not those of a key."""
    facts, key_id = entry.deed.facts, entry.deed.subject
    scheme, vetted, commitment = Scheme(**facts["scheme"]), facts["vetted"], str(facts["commitment"])
    if len(commitment) != len(commitment_of(b"")) or not key_id:
        raise ValueError("its commitment is no SHA-256")
    turned_down = tuple(float(z) for z in vetted["turned_down"])
    return Issued(
        key_id,
        str(facts["campaign"]),
        str(facts["epoch"]),
        scheme,
        int(facts["attempt"]),
        commitment,
        entry.at,
        datetime.fromisoformat(facts["starts_at"]),
        entry.number,
        entry.hash,
        Vetted(int(vetted["pairs"]), int(vetted["favoured"]), float(vetted["z"]), str(vetted["text"]), turned_down),
    )
