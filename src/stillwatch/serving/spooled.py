"""What the spool holds, judged by the very code that replays a log: a day that came in live gives what replaying it gives.

Rules that keep it right. A row is new until the state of the replay (decision 0006) holds it, so whatever was read of the spool
and not saved is read again; ``marks.json`` says up to which batch all rows are in the state, and is written after it. Names are
kept beside the state, and are on disk before it: the state holds keyed hashes of names only, while the order of accounts, the
names of campaigns and the results all go by names, and the spool forgets its rows. They are kept here and not in the spool
because they live and die with the state, while the spool belongs to what takes traffic in. ``results`` says the same names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch import __version__, results, telling
from stillwatch.adapters import read_accounts, read_models
from stillwatch.carrying import Carried
from stillwatch.checkpoint import Checkpoint, Saved, belonging
from stillwatch.config import Config
from stillwatch.errors import Terminal
from stillwatch.findings import Findings, Run
from stillwatch.horizon import Customers, beyond
from stillwatch.horizon import forget as forget_beyond
from stillwatch.intake import Declared, Intake, Reading, Taken
from stillwatch.numbering import Numbering
from stillwatch.privacy import Privacy
from stillwatch.profiles import profiles
from stillwatch.progress import Progress
from stillwatch.replay import Along, Followed, Material, Plan, follow
from stillwatch.serving import quarantine
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Terms
from stillwatch.serving.rebuilding import take_up
from stillwatch.spool import DamagedBatch, Spool, observed
from stillwatch.store.state import write_json, write_parquet
from stillwatch.tables import ACCOUNTS, EXCHANGES
from stillwatch.telling import Told, micros, moment
from stillwatch.windows import length_text

ROWS = 50_000
"""Rows taken in at once: a batch of the spool may be one row."""
FACT_OF = {
    "user_agent": "client", "ja4": "tls", "conversation_id": "conversation", "ip": "address", "prompt": "prompt_chars",
    "response": "response_chars",
}  # fmt: skip
"""The fact that is there where an exchange had a value, for columns whose fact has another name."""
ALWAYS = ("exchange_id", "time", "account_id", "model")


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judgement of the spool came to. ``is_new`` where results were written: not where nothing had changed.

    ``rows`` are exchanges judged in all, ``new`` those that no judgement before had, ``late`` those that came when the step
    they happened in was over; ``settled`` is the number up to which the state holds every batch of the spool, ``newest`` that of
    the last one looked at. ``forgotten`` rows the spool has dropped, ``too_late`` came in when their time was beyond the horizon,
    and are not judged.
    """

    is_new: bool
    rows: int
    new: int
    late: int
    campaigns: int
    accounts: int
    settled: int
    newest: int = 0
    forgotten: int = 0
    too_late: int = 0


@dataclass(slots=True)
class Marks:
    """What is remembered from one judgement to the next, beside the state.

    ``settled`` and ``newest`` are batches of the spool: all up to the first are in the state, the second was the newest;
    ``since`` is when it first was. ``latest`` is the time of the newest exchange, ``open_end`` the first end of a step that was
    not over, all us since 1970. ``state_end`` is that of the state's last step then, ``setting`` a digest of what else a
    judgement hangs on.
    """

    settled: int = 0
    newest: int = 0
    since: int = 0
    latest: int = 0
    open_end: int | None = None
    state_end: int = 0
    setting: str = ""
    rows: int = 0
    late: int = 0
    too_late: int = 0
    newest_read: int = 0
    """The last batch that was read: of those before it, what is too late was counted."""
    campaigns: int = 0
    accounts: int = 0

    def passed(self, terms: Terms, now: int) -> int:
        """The time (us) by which a step must have ended to be over. A clock that is ahead ends no step: what has not
        happened yet is no sign that everything before it has come in."""
        grace = _us(terms.grace)
        by_event = min(self.latest, now) - grace
        return max(by_event, now - grace) if now - self.since >= grace else by_event


@dataclass(frozen=True, slots=True)
class Sitting:
    """All that one judgement needs; ``at`` is the time by the clock, us since 1970."""

    home: Home
    terms: Terms
    config: Config
    privacy: Privacy
    progress: Progress
    spool: Spool
    checkpoint: Checkpoint
    declared: Declared
    marks: Marks
    at: int
    along: Callable[[Judged], None] | None = None


@dataclass(frozen=True, slots=True)
class Gathered:
    """All there is to judge. ``batches`` are the numbers of those read of the spool, each with the latest arrival (us) of a row
    that is new to the state, None where it brought none. ``before`` are the exchanges that were judged before and are still held,
    ``dropped`` the names of accounts of which none is."""

    material: Material
    batches: list[tuple[int, int | None]]
    before: int
    dropped: pa.Array


def judge_spool(
    home: Home, terms: Terms, config: Config, privacy: Privacy, progress: Progress, now: datetime | None = None,
    along: Callable[[Judged], None] | None = None,
) -> Judged:  # fmt: skip
    """Judge what the spool holds with what was judged before, and write the results; ``now`` is the time by the clock. Where
    there is far to go results are written on the way too, and ``along`` is told of each.

    A state that an older version wrote in another format is begun anew: see ``rebuilding``. Nothing is done where nothing has
    come in and no step is over since the last time. UsageError where the state is of other settings or another key, Transient
    where somebody else judges this home, Terminal where state, names or spool are damaged: then results and state are as they
    were.
    """
    at = micros(now or datetime.now(UTC))
    checkpoint = Checkpoint(home.watch, belonging(config, privacy, length_text(terms.every), terms.share))
    with checkpoint.held(), Spool(home.spool) as spool:
        declared, marks = declared_by(spool, terms), read_marks(home)
        setting, newest = setting_of(declared, checkpoint, terms), spool.figures().last
        if newest != marks.newest:
            marks.since = at
        elif is_judged(home, marks, setting, marks.passed(terms, at)):
            return judged(marks, 0, forget(spool, marks, terms, at, home), is_new=False)
        marks.newest, marks.setting = newest, setting
        return judge_anew(
            Sitting(home, terms, config, privacy, progress, spool, checkpoint, declared, marks, at, along)
        )


def is_judged(home: Home, marks: Marks, setting: str, passed: int) -> bool:
    """Whether a judgement now would come to what the last one did; the spool's newest batch is that of then."""
    same = marks.setting == setting and (marks.open_end is None or passed < marks.open_end)
    return same and (not marks.rows or (home.results / "run.json").exists())


def judge_anew(sitting: Sitting) -> Judged:
    """Take up the state, read what is new, walk it, and write results and marks."""
    home, marks, checkpoint = sitting.home, sitting.marks, sitting.checkpoint
    gathered = gather(sitting)
    is_new = gathered.material.reading.rows_kept > 0
    if is_new:
        # Before the state that goes by them: rows that it holds are not looked at again.
        write_names(home, gathered.material.intake, gathered.dropped)
        followed = walked(sitting, gathered.material)
        results.write(followed.findings, followed.run, home.results, followed.history)
        write_told(home, checkpoint, followed.told)
        note(marks, followed, checkpoint)
        if len(gathered.dropped):
            # After the state that no longer goes by them.
            write_names(home, gathered.material.intake)
    marks.newest = max([marks.newest, *(number for number, _ in gathered.batches)])
    marks.settled = settled(marks.settled, gathered.batches, checkpoint.end)
    write_json(marks_file(home), asdict(marks))
    forgotten = forget(sitting.spool, marks, sitting.terms, sitting.at, home)
    return judged(marks, marks.rows - gathered.before if is_new else 0, forgotten, is_new=is_new)


def gather(sitting: Sitting) -> Gathered:
    """The rows of the state, and what the spool holds beyond those that are settled. Terminal where a batch is damaged."""
    started, progress, marks = datetime.now(UTC), sitting.progress, sitting.marks
    progress.stage("read state")
    saved, carried, lost = taken_up(sitting)
    taken, since, floor = (saved.taken, saved.end, saved.plain["floor"]) if saved else (None, 0, 0)
    before, rows = (marks.rows - lost if saved else 0), len(taken) if taken else 0
    if since < marks.state_end:
        marks.settled = 0
    progress.stage("read spool")
    (accounts, models), dropped = read_names(sitting.home), pa.array([], pa.string())
    if taken and floor:
        accounts, dropped = still_held(accounts, taken, sitting.privacy)
    intake, batches = Intake(accounts, models), list[tuple[int, int | None]]()
    waiting, held = list[pa.Table](), 0
    for number, table in quarantine.readable(sitting.spool, marks.settled, sitting.home):
        times = table["time"].cast(pa.int64()).to_numpy()
        marks.latest = max(marks.latest, int(times.max(initial=0)))
        new = ~taken.holds(table["exchange"].to_numpy()) if taken else np.ones(table.num_rows, bool)
        # Nobody can tell any more whether one of these was judged before.
        if (too_late := new & (times < floor)).any():
            marks.too_late += int(too_late.sum()) if number > marks.newest_read else 0
            new &= ~too_late
        marks.newest_read = max(marks.newest_read, number)
        batches.append((number, max(since, int(times[new].max())) if new.any() else None))
        waiting.append(table.filter(pa.array(new)))
        held += int(new.sum())
        if held >= ROWS:
            rows, held = rows + enter(intake, waiting, progress), 0
    rows += enter(intake, waiting, progress)
    intake.latest = marks.latest
    intake.complete(taken, sitting.privacy)
    reading = Reading(rows, rows, coverage_of(intake))
    return Gathered(Material(started, intake, sitting.declared, reading, saved, carried), batches, before, dropped)


def taken_up(sitting: Sitting) -> tuple[Saved | None, Carried | None, int]:
    """The state, without what is beyond the horizon, or what is carried over in place of one; how many rows were forgotten."""
    home, checkpoint, horizon = sitting.home, sitting.checkpoint, sitting.terms.horizon
    saved, carried = take_up(home, checkpoint, sitting.spool, horizon, sitting.at)
    if saved is None or (before := beyond(saved, horizon)) is None:
        return saved, carried, 0
    left = forget_beyond(saved, before, customers(sitting))
    checkpoint.write_anew()
    return left, None, len(saved.taken) - len(left.taken)


def customers(sitting: Sitting) -> Customers:
    """All accounts whose names are kept, and whose they are by what was declared."""
    accounts, _ = read_names(sitting.home)
    customer = profiles(sitting.declared.accounts, accounts, sitting.privacy)["customer"]
    return Customers(sitting.privacy.hash_strings(accounts.names, "account"), customer.to_numpy())


def still_held(accounts: Numbering, taken: Taken, privacy: Privacy) -> tuple[Numbering, pa.Array]:
    """Names of accounts of which rows are held, and those of which none is."""
    held, names = pc.unique(taken.facts["account"]).to_numpy(), accounts.names
    is_held = pa.array(np.isin(privacy.hash_strings(names, "account"), held))
    left = Numbering()
    left.number(names.filter(is_held))
    return left, names.filter(pc.invert(is_held))


def enter(intake: Intake, waiting: list[pa.Table], progress: Progress) -> int:
    """Add tables of spooled rows to the intake, all at once, and clear the list; how many rows they were."""
    rows = pa.concat_tables(waiting) if waiting else pa.table({})
    waiting.clear()
    if rows.num_rows:
        rows = rows.combine_chunks()
        intake.add(rows["account_id"].chunk(0), rows["model"].chunk(0), observed(rows))
        progress.advance(rows.num_rows)
    return int(rows.num_rows)


def walked(sitting: Sitting, material: Material) -> Followed:
    """The walk of a replay over what was gathered."""
    terms, passed = sitting.terms, sitting.marks.passed(sitting.terms, sitting.at)
    along = Along(lambda *told: tell_along(sitting, *told))
    plan = Plan(terms.every, None, sitting.checkpoint, passed, terms.final_scan, terms.share, along)
    last = read_told(sitting.home, sitting.checkpoint)
    return follow(material, plan, sitting.config, sitting.privacy, sitting.progress, last)


def tell_along(sitting: Sitting, findings: Findings, run: Run, history: list[dict[str, Any]]) -> None:
    """Write results on the way; the marks are as they were, so that whatever breaks off is judged again."""
    results.write(findings, run, sitting.home.results, history)
    if sitting.along:
        accounts = sum(len(c.members) for c in findings.campaigns)
        marks = sitting.marks
        sitting.along(Judged(
            True, run.counts.exchanges_kept, 0, marks.late, len(findings.campaigns), accounts, marks.settled, marks.newest,
        ))  # fmt: skip


def coverage_of(intake: Intake) -> dict[str, int]:
    """Rows in which each canonical column had a value, as far as facts tell; 0 for columns of which no fact is kept."""
    rows = sum(b.num_rows for b in intake.facts)
    held = dict.fromkeys(EXCHANGES.names, 0) | dict.fromkeys(ALWAYS, rows)
    names = {n: FACT_OF.get(n, n) for n in EXCHANGES.names if n not in ALWAYS}
    for batch in intake.facts:
        for column, fact in names.items():
            if fact in batch.schema.names:
                held[column] += there(batch[fact])
    return held


def there(values: pa.Array) -> int:
    """How many of a fact's values are there: a hash of nothing is 0, other facts are null."""
    if not pa.types.is_int64(values.type):
        return len(values) - values.null_count
    return int(pc.sum(pc.not_equal(values, 0)).as_py() or 0)


def settled(before: int, batches: Sequence[tuple[int, int | None]], end: int) -> int:
    """The number of the last batch up to which the state, whose last step ended at ``end`` (us), holds every row."""
    for number, arrived in batches:
        if arrived is not None and arrived >= end:
            return before
        before = number
    return before


def note(marks: Marks, followed: Followed, checkpoint: Checkpoint) -> None:
    """Enter a judgement that was written into the marks."""
    marks.open_end = min(followed.open_ends, default=None)
    marks.state_end = checkpoint.end
    marks.rows, marks.late = followed.run.counts.exchanges_kept, followed.run.state["late_rows"]
    marks.campaigns = len(followed.findings.campaigns)
    marks.accounts = sum(len(c.members) for c in followed.findings.campaigns)


def judged(marks: Marks, new: int, forgotten: int, *, is_new: bool) -> Judged:
    """What the marks say of the judgement they were left by."""
    return Judged(
        is_new,
        marks.rows,
        new,
        marks.late,
        marks.campaigns,
        marks.accounts,
        marks.settled,
        marks.newest,
        forgotten,
        marks.too_late,
    )


def forget(spool: Spool, marks: Marks, terms: Terms, at: int, home: Home) -> int:
    """Have the spool forget what the state holds and is older than the retention; how many rows that were, those before a
    damaged batch left aside."""
    while marks.settled:
        try:
            return spool.forget(moment(at - _us(terms.retention)), marks.settled)
        except DamagedBatch as e:
            # Its rows were judged when they could be read.
            quarantine.set_aside(spool, e, home, is_judged=True)
    return 0


# What was declared


def declared_by(spool: Spool, terms: Terms) -> Declared:
    """Accounts and models: those of the files, and over them what came in about accounts, column by column."""
    given, faults = read_accounts(terms.accounts) if terms.accounts else (None, [])
    models, more = read_models(terms.models) if terms.models else (None, [])
    said = spool.accounts()
    told = said if given is None else latest_of(given, said)
    return Declared(told if told.num_rows else None, models, (*faults, *more))


def latest_of(given: pa.Table, said: pa.Table) -> pa.Table:
    """Accounts of both tables, each once; where both have a value, the one said."""
    names = pc.unique(pa.concat_arrays([t["account_id"].combine_chunks() for t in (said, given)]))
    columns = {"account_id": names}
    for field in ACCOUNTS.schema:
        if field.name != "account_id":
            parts = [of_account(t, field, names) for t in (said, given)]
            columns[field.name] = pc.coalesce(*parts)
    return pa.table({n: columns[n] for n in ACCOUNTS.names}, schema=ACCOUNTS.schema)


def of_account(accounts: pa.Table, field: pa.Field, names: pa.Array) -> pa.Array:
    """The column ``field`` of each of these accounts; null where the table has none."""
    if field.name not in accounts.column_names or not accounts.num_rows:
        return pa.nulls(len(names), field.type)
    at = pc.index_in(names, value_set=accounts["account_id"].combine_chunks())
    return accounts[field.name].combine_chunks().cast(field.type).take(at)


def setting_of(declared: Declared, checkpoint: Checkpoint, terms: Terms) -> str:
    """A digest of what a judgement hangs on beside the spool's rows."""
    digest = hashlib.sha256(json.dumps([_plain(checkpoint), terms.final_scan], sort_keys=True).encode())
    for table in (declared.accounts, declared.models):
        if table is not None:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as out:
                out.write_table(table.combine_chunks())
            digest.update(sink.getvalue())
    return digest.hexdigest()


# Files beside the state


def marks_file(home: Home) -> Path:
    return home.watch / "marks.json"


def names_file(home: Home) -> Path:
    return home.watch / "names.parquet"


def told_file(home: Home) -> Path:
    return home.watch / "told.json"


def read_marks(home: Home) -> Marks:
    """As they were last written; new ones where there are none, or none that can be read: then all of the spool is read."""
    try:
        return Marks(**json.loads(marks_file(home).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return Marks()


def read_names(home: Home) -> tuple[Numbering, Numbering]:
    """The names of accounts and of models that were ever judged. Terminal where the file is damaged."""
    accounts, models = Numbering(), Numbering()
    try:
        names = pq.read_table(names_file(home))
        for what, numbering in (("account", accounts), ("model", models)):
            numbering.number(names.filter(pc.equal(names["what"], what))["name"].combine_chunks())
    except FileNotFoundError:
        pass
    except (OSError, KeyError, pa.ArrowException) as e:
        hint = "remove it if the spool still holds all rows, else restore a backup of the home"
        raise Terminal(f"{names_file(home)}: the names cannot be read: {e}", hint=hint) from e
    return accounts, models


def write_names(home: Home, intake: Intake, others: pa.Array | None = None) -> None:
    """Keep the names of an intake, and of ``others``; not where the file has as many already, for then it has them."""
    path, accounts, models = names_file(home), intake.accounts.names, intake.models.names
    if others is not None and len(others):
        accounts = pc.unique(pa.concat_arrays([accounts, others]))
    if path.exists() and pq.read_metadata(path).num_rows == len(accounts) + len(models):
        return
    what = ["account"] * len(accounts) + ["model"] * len(models)
    write_parquet(path, pa.table({"what": what, "name": pa.concat_arrays([accounts, models])}))


def read_told(home: Home, checkpoint: Checkpoint) -> Told | None:
    """What was last told, if it was by these settings; else None, and it is judged once more."""
    try:
        kept = json.loads(told_file(home).read_text(encoding="utf-8"))
        return telling.as_told(kept["told"]) if kept["bound"] == _plain(checkpoint) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_told(home: Home, checkpoint: Checkpoint, told: Told | None) -> None:
    """Keep what was told."""
    if told is not None:
        write_json(told_file(home), {"bound": _plain(checkpoint), "told": telling.plain(told)})


def _plain(checkpoint: Checkpoint) -> object:
    """What a judgement is bound to beside its rows: another version may judge otherwise."""
    return json.loads(json.dumps({"version": __version__, **checkpoint.bound}))


def _us(length: timedelta) -> int:
    return length // timedelta(microseconds=1)
