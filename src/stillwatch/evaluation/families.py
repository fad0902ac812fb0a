"""A log judged again with one family of evidence taken out: what does that family contribute?

The columns it is read from are blank, so nobody sees its kinds: no detector, no coherence, no hypothesis, no honest
explanation. Its detectors do not run. Traits that are told under it are weighed as usual in a group, so that what they
show of blank columns (or of the time of an exchange, which nothing works without) speaks neither way. Accounts of one
declared organisation stay one customer: that says who is counted, not who belongs together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from stillwatch import weighing
from stillwatch.config import Config
from stillwatch.findings import Findings, accounts_table
from stillwatch.intake import Log, keep, open_log, take_in
from stillwatch.pipeline import blindness, judge
from stillwatch.plugins import discover
from stillwatch.privacy import Privacy
from stillwatch.progress import Progress
from stillwatch.scoring import family_of
from stillwatch.store import Engine, open_engine
from stillwatch.tables import FACTS, PROFILES
from stillwatch.weighing import TRAITS, Weights

WHOLE = "nothing"
"""What is taken out where everything is judged."""

READ: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "identity": {
        "accounts": ("card", "issuer", "phone", "mail_domain", "referrer", "created_at", "signup_day", "signup_tls", "org",
                     "programme", "plan", "verification", "billing_country", "phone_country"),
    },
    "network": {"facts": ("address", "net", "asn", "country", "tls"), "accounts": ("signup_net",)},
    "template": {
        "facts": ("wording", "system", "tools", "client", "settings", "max_tokens", "n", "temperature", "logprobs",
                  "thinking", "batch"),
    },
    "content": {
        "facts": ("prompt", "prompt_chars", "capability", "capabilities", "elicitation", "elicitation_kind",
                  "elicitation_kinds", "meaning", "response_chars", "response_trace", "appetite", "turn", "images",
                  "input_tokens", "output_tokens", "reasoning_tokens"),
    },
    "tempo": {"facts": ("slot",)},
    "migration": {"models": ("released_at",)},
}  # fmt: skip
"""By family and table of the engine, the columns its evidence is read from."""

TOLD = {
    "template": ("exclusive", "owned", "practising", "practice_even", "repeats", "dispatch", "variety"),
    "network": ("one_site", "linked_networked"),
    "identity": ("linked_paid",),
    "tempo": ("day", "weekend"),
}
"""Traits by family, where ``scoring.family_of`` tells them under another for brevity."""
OF_NONE = ("size", "share_two")
"""Traits that hang on no single family."""


@dataclass(frozen=True, slots=True)
class Muted(Weights):
    """Weights to which the ``silent`` traits always are as usual: on the line that is worth nothing."""

    silent: tuple[str, ...] = ()

    def row(self, traits: Mapping[str, float]) -> np.ndarray:
        """The traits in the order of ``names``, the silent ones at their centre."""
        return np.where(np.isin(self.names, self.silent), self.centre, Weights.row(self, traits))


def traits_of(family: str) -> tuple[str, ...]:
    """The traits that are evidence of this family."""
    told = {name: of for of, names in TOLD.items() for name in names}
    return tuple(t for t in TRAITS if t not in OF_NONE and told.get(t, family_of(t)) == family)


def muted(weights: Weights, family: str) -> Weights:
    """The weights, deaf to this family."""
    return Muted(**{f.name: getattr(weights, f.name) for f in fields(Weights)}, silent=traits_of(family))


@contextmanager
def deaf(family: str) -> Iterator[None]:
    """While it lasts, groups are weighed without the traits of this family."""
    whole = weighing.weights()
    silent = whole if family == WHOLE else muted(whole, family)
    with patch.object(weighing, "weights", lambda: silent):
        yield


def blank(engine: Engine, family: str) -> None:
    """Have the engine's ``facts``, ``accounts`` and ``models`` hold all but the columns of this family, or all of them."""
    for table in ("facts", "accounts", "models"):
        engine.step(table, emptied(table, READ.get(family, {}).get(table, ())), {})


def emptied(table: str, columns: Sequence[str]) -> str:
    """A SELECT of all of ``whole_TABLE`` with some columns unknown: 0 where they hold hashes or numbers of days, else null."""
    if table == "models":
        return "SELECT model, released_at FROM whole_models" + (" WHERE 1 = 0" if columns else "")
    schema = (FACTS if table == "facts" else PROFILES).schema
    unknown = {n: f"nullif({n}, {n})" for n in columns}
    unknown |= {n: f"coalesce({unknown[n]}, 0)" for n in columns if pa.types.is_int64(schema.field(n).type)}
    listed = ", ".join(f"{unknown.get(n, n)} AS {n}" for n in schema.names)
    return f"SELECT {listed} FROM whole_{table}"


def judged_without(
    log: Log, families: Sequence[str], config: Config, privacy: Privacy
) -> Iterator[tuple[str, Findings]]:
    """What is found without each of these families, of ``types.FAMILIES`` or ``WHOLE``; the log is read once."""
    with Progress(quiet=True) as progress, open_engine(config.engine, config.memory, config.threads or None) as engine:
        declared, source = open_log(log)
        intake = take_in(source, privacy, progress)
        blind = blindness(discover("detectors"), source.coverage, declared.accounts, declared.models)
        sighted = [d for name, d in discover("detectors").items() if name not in blind]
        keep(engine, intake, declared, privacy)
        for table in ("facts", "accounts", "models"):
            engine.step(f"whole_{table}", f"SELECT * FROM {table}", {})
        for family in families:
            blank(engine, family)
            with deaf(family):
                rest = [d for d in sighted if d.family != family]
                judged = judge(engine, intake, rest, config, datetime.now(UTC), progress)
            accounts = accounts_table(intake.accounts.names, judged.campaigns, judged.review)
            yield family, Findings(judged.campaigns, judged.review, judged.let_go, accounts)
