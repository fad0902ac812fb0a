"""A log that is read once and judged again and again, each time with its tables changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from stillwatch.config import Config
from stillwatch.detectors import Detector
from stillwatch.findings import Findings, accounts_table
from stillwatch.intake import Intake, Log, keep, open_log, take_in
from stillwatch.pipeline import blindness, judge
from stillwatch.plugins import discover
from stillwatch.privacy import Privacy
from stillwatch.progress import Progress
from stillwatch.store import Engine, open_engine

TABLES = ("facts", "accounts", "models")


@dataclass(frozen=True, slots=True)
class Again:
    """The tables of a log in an engine: ``whole_facts``, ``whole_accounts`` and ``whole_models`` as they were read; what is
    judged is ``facts``, ``accounts`` and ``models``, which are the caller's to change."""

    engine: Engine
    intake: Intake
    detectors: tuple[Detector, ...]
    config: Config
    progress: Progress

    def judged(self, without: str = "") -> Findings:
        """What is found in the tables as they are now, by all detectors but those of the family ``without``."""
        rest = [d for d in self.detectors if d.family != without]
        judged = judge(self.engine, self.intake, rest, self.config, datetime.now(UTC), self.progress)
        accounts = accounts_table(self.intake.accounts.names, judged.campaigns, judged.review)
        return Findings(judged.campaigns, judged.review, judged.let_go, accounts)


@contextmanager
def again(log: Log, config: Config, privacy: Privacy, tables: Sequence[str] = TABLES) -> Iterator[Again]:
    """The log, read; the engine closes at the end."""
    with Progress(quiet=True) as progress, open_engine(config.engine, config.memory, config.threads or None) as engine:
        declared, source = open_log(log)
        intake = take_in(source, privacy, progress)
        blind = blindness(discover("detectors"), source.coverage, declared.accounts, declared.models)
        sighted = tuple(d for name, d in discover("detectors").items() if name not in blind)
        keep(engine, intake, declared, privacy)
        for table in tables:
            engine.step(f"whole_{table}", f"SELECT * FROM {table}", {})
        yield Again(engine, intake, sighted, config, progress)
