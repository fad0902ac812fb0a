"""A test written down and signed before it is made: what is tested, on what, for which keys, and what will count.

A key, a probe or a statistic that is chosen once the outcome is known proves nothing. So the registration names all of them
by their hashes and commitments, says how many hypotheses there are and what power the test has, is signed, and its digest is
written into the ledger of keys. A run whose inputs are not the registered ones is refused.

The file is JSON: what is registered, and a signed note (``notes``) over the SHA-256 of its canonical form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from stillwatch.entries import Entry
from stillwatch.errors import InputRejected, UsageError
from stillwatch.notes import BadNote, Signer, Verifier, open_note
from stillwatch.protection.keys import Key, Scheme, commitment_of
from stillwatch.protection.suspects import Form, Material

FORMAT = 2
THRESHOLD = 1e-6
"""Holm-adjusted p at or below which a key fires in the first test of a suspect (``threshold_after``)."""
RESIDUAL, ARGMAX, PAIRS = "residual", "argmax", "pairs"
STATISTICS = {Form.WEIGHTS: (RESIDUAL, ARGMAX), Form.TEXT: (RESIDUAL, PAIRS)}
"""What can be counted of each form (``outcomes.Statistic``), the recommended one first."""
EVENT, MADE = "watermark.test_registered", "watermark.test_made"


class Known(Protocol):
    """A key as the ledger or its owner knows it: ``book.Issued`` or ``keys.Key``."""

    @property
    def key_id(self) -> str: ...
    @property
    def campaign_id(self) -> str: ...
    @property
    def epoch(self) -> str: ...
    @property
    def scheme(self) -> Scheme: ...
    @property
    def commitment(self) -> str: ...


class Records(Protocol):
    """Where the digest of a registration is written: ``book.Book``."""

    def record(self, event: str, subject: str, who: str, facts: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Committed:
    """A key as it is known without its secret. ``licensed``: what use of its campaign's outputs was permitted, or empty."""

    key_id: str
    campaign_id: str
    epoch: str
    scheme: Scheme
    commitment: str
    licensed: str = ""

    def check(self, key: Key) -> None:
        """InputRejected where the key at hand is not the one that was committed to."""
        found = (key.key_id, key.campaign_id, key.epoch, key.scheme, commitment_of(key.secret))
        if found != (self.key_id, self.campaign_id, self.epoch, self.scheme, self.commitment):
            raise InputRejected(
                f"key {key.key_id}: not the one that was registered as {self.key_id}",
                hint="the master secret and the ledger must be those of the registration",
            )


@dataclass(frozen=True, slots=True)
class Registration:
    """A test that is to be made. ``served`` is the text that weights are read on (None for texts), ``reference`` the provider's
    own model, or its unwatermarked texts with the ``tokenizer`` they are read in. ``power`` is what ``power.Expected`` says, by
    suspect and scheme. ``readings``: what limits a reading. ``seed`` deals the text into its two halves."""

    registered_at: str
    who: str
    suspects: tuple[Material, ...]
    served: Material | None
    reference: Material
    tokenizer: Material | None
    keys: tuple[Committed, ...]
    statistics: tuple[str, ...]
    seed: int
    readings: Mapping[str, int]
    power: tuple[Mapping[str, Any], ...]
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        if not self.suspects or not self.keys or not self.statistics:
            raise ValueError("a test has a suspect, a key and a statistic at least")
        for many, what in ((self.keys, "key"), (self.suspects, "suspect"), (self.statistics, "statistic")):
            names = [getattr(m, "key_id", getattr(m, "sha256", m)) for m in many]
            if len(set(names)) < len(names):
                raise ValueError(f"a {what} is named twice")
        if len({s.form for s in self.suspects}) > 1:
            raise ValueError("weights and texts are not tested together")
        if not set(self.statistics) <= set(STATISTICS[self.form]):
            raise ValueError(f"statistics of {self.form} are {', '.join(STATISTICS[self.form])}")
        if self.form is Form.WEIGHTS and (self.served is None or self.reference.form is not Form.WEIGHTS):
            raise ValueError("weights are read on served text, beside the provider's own model")
        if self.form is Form.TEXT and self.reference.form is not Form.TEXT:
            raise ValueError("texts are compared with the provider's own unwatermarked texts")
        if not 0 < self.threshold <= THRESHOLD:
            raise ValueError(f"the threshold is at most {THRESHOLD}")

    @property
    def form(self) -> Form:
        """How all suspects are at hand."""
        return self.suspects[0].form

    @property
    def hypotheses(self) -> int:
        """Keys x suspects x statistics: what Holm's correction is over."""
        return len(self.keys) * len(self.suspects) * len(self.statistics)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("served", "reference", "tokenizer"):
            told[name] = told[name].to_dict() if told[name] else None
        return {
            "format": FORMAT,
            **told,
            "suspects": [s.to_dict() for s in self.suspects],
            "keys": [asdict(k) for k in self.keys],
            "statistics": list(self.statistics),
            "readings": dict(self.readings),
            "power": [dict(p) for p in self.power],
            "hypotheses": self.hypotheses,
        }

    @property
    def digest(self) -> str:
        """SHA-256 over all that is registered."""
        return digest_of(self.plain())


def digest_of(told: Any) -> str:
    """SHA-256 over JSON values in their canonical form: keys sorted, no spaces, ASCII."""
    return hashlib.sha256(canonical(told).encode()).hexdigest()


def canonical(told: Any) -> str:
    """JSON in one form only; ValueError for numbers that JSON lacks."""
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def committed(keys: Iterable[Known], licensed: Mapping[str, str]) -> tuple[Committed, ...]:
    """The keys without their secrets, with what use is licensed by key id. UsageError for a licence on none of them."""
    found = tuple(
        Committed(k.key_id, k.campaign_id, k.epoch, k.scheme, k.commitment, licensed.get(k.key_id, "")) for k in keys
    )
    if unknown := sorted(licensed.keys() - {k.key_id for k in found}):
        raise UsageError(f"licensed, but not tested: {', '.join(unknown)}", hint="name keys that are tested")
    return found


def attempts(recorded: Iterable[Entry], suspects: Iterable[Material]) -> int:
    """How many tests of any of these suspects a ledger has registered already."""
    mine = {s.sha256 for s in suspects}
    return sum(e.deed.event == EVENT and not mine.isdisjoint(e.deed.facts.get("suspects", ())) for e in recorded)


def threshold_after(earlier: int) -> float:
    """The threshold of a test that follows so many of the same suspect: the sum over ever so many is below 1.65 ``THRESHOLD``,
    so that registering again and again until something fires does not help."""
    return THRESHOLD / (1 + earlier) ** 2


def check_recorded(registration: Registration, recorded: Iterable[Entry]) -> None:
    """InputRejected where the ledger does not have this registration."""
    if not any(e.deed.event == EVENT and e.deed.subject == registration.digest for e in recorded):
        raise InputRejected(
            f"the registration {registration.digest[:16]}… is not in the ledger of keys",
            hint="give the home that it was registered in",
        )


def now_text() -> str:
    """This moment in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def register(
    registration: Registration, signer: Signer, book: Records | None, places: Mapping[str, str] | None = None
) -> str:
    """The file's text, signed; its digest is written into the ledger first, where there is one.

    ``places``: where reference, served text and tokenizer lie. They stand beside what is signed and are in no proof: for
    convenience on this machine, since hashes decide.
    """
    if book is not None:
        suspects = [s.sha256 for s in registration.suspects]
        book.record(EVENT, registration.digest, registration.who, {"suspects": suspects, "format": FORMAT})
    return sealed("registration", registration.plain(), signer, {"places": dict(places or {})})


def places_of(path: Path) -> dict[str, str]:
    """Where the material of a registration lay, by what it is; empty where its file does not say. Nothing vouches for it."""
    try:
        told = json.loads(path.read_text(encoding="utf-8")).get("places", {})
        return {str(name): str(place) for name, place in told.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def load(path: Path, verifier: Verifier) -> Registration:
    """What a file has registered. InputRejected where it is damaged, changed, or not signed by this key."""
    told = unsealed(path, "registration", verifier)
    try:
        if told.pop("format") != FORMAT:
            raise InputRejected(f"{path}: registered by another version", hint="run the version that registered it")
        hypotheses = told.pop("hypotheses")
        registration = _registration(told)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise InputRejected(f"{path}: no registration ({e})", hint="give what stillwatch prove register wrote") from e
    if registration.hypotheses != hypotheses:
        raise InputRejected(f"{path}: it says {hypotheses} hypotheses and has {registration.hypotheses}")
    return registration


def _registration(told: dict[str, Any]) -> Registration:
    keys = tuple(Committed(**{**k, "scheme": Scheme(**k["scheme"])}) for k in told.pop("keys"))
    suspects = tuple(map(_material, told.pop("suspects")))
    found: dict[str, Any] = {n: told.pop(n) for n in ("served", "reference", "tokenizer")}
    found = {n: _material(m) if m else None for n, m in found.items()}
    statistics, power = tuple(told.pop("statistics")), tuple(told.pop("power"))
    return Registration(suspects=suspects, keys=keys, statistics=statistics, power=power, **found, **told)


def _material(told: Mapping[str, str]) -> Material:
    return Material(told["name"], Form(told["form"]), told["sha256"])


def sealed(kind: str, told: Mapping[str, Any], signer: Signer, beside: Mapping[str, Any] | None = None) -> str:
    """``told`` as a JSON file with a signed note over the digest of its canonical form, and the key that signed. What stands
    ``beside`` is not signed."""
    note = signer.sign(_text(kind, told))
    whole = {kind: told, "note": note, "signed_by": str(signer.verifier), **(beside or {})}
    return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def unsealed(path: Path, kind: str, verifier: Verifier) -> dict[str, Any]:
    """What was sealed; InputRejected where it cannot be read, was changed since, or was not signed by this key."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
        told, note = dict(whole[kind]), str(whole["note"])
        said = open_note(note, verifier)
    except OSError as e:
        raise UsageError(f"{path}: cannot be read: {e.strerror}", hint="check the path") from e
    except BadNote as e:
        raise InputRejected(f"{path}: {e.message}", hint=e.hint or "give the key that signed it") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise InputRejected(f"{path}: no signed {kind}: {e}", hint="give the file as it was written") from e
    if said != _text(kind, told):
        raise InputRejected(f"{path}: what it says is not what was signed", hint="it was changed; register anew")
    return told


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _text(kind: str, told: Mapping[str, Any]) -> str:
    return f"stillwatch {kind} {FORMAT}\n{digest_of(told)}\n"


def check(registered: Material | None, found: Material | None, what: str) -> None:
    """InputRejected where the material at hand is not what was registered."""
    if registered is None and found is None:
        return
    if registered is None or found is None:
        raise InputRejected(
            f"the {what} {'was not registered' if found else 'is missing'}", hint="register the test anew"
        )
    if (registered.form, registered.sha256) != (found.form, found.sha256):
        raise InputRejected(
            f"{found.name}: not the {what} that was registered ({registered.name}): "
            f"SHA-256 {found.sha256[:16]}…, registered was {registered.sha256[:16]}…",
            hint="give the registered one; another one needs a registration of its own",
        )
