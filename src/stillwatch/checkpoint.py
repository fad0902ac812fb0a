"""A replay's state in a folder, from which a later run takes it up where it stood.

Files are written whole under new names, and ``state.json``, which names them with their sizes and digests, is put in place
last: so it always describes one moment, whenever a run was killed. Files it does not name are left over, and go with the
next save. Held is what the facts hold, keyed hashes, counts and marks, and the sketches wordings are resolved from;
accounts and models stand under keyed hashes of their names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch import __version__
from stillwatch.arrivals import Arrivals, Systems
from stillwatch.config import Config
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.intake import Intake, Taken, digest_of, places
from stillwatch.ledger import NEVER, Absent, Entry, Ledger
from stillwatch.privacy import KEY_VARIABLE, Privacy
from stillwatch.recognition import Book, Profile
from stillwatch.store.state import atomic, sha256_of, take_lock, write_json, write_parquet
from stillwatch.watch import Schedule, Watch
from stillwatch.wordings import Wrappers

FORMAT = 2
"""Of what is in a state and of what it means, such as how a wording is sketched. Raised whenever either changes: what an older
version has written is then begun afresh, not misread (tests/test_state_format.py sees to it)."""
MANIFEST = "state.json"
PARTS = 64
"""Files of rows above which a state is written anew as one."""
GROWTH, LEAST = 0.1, 10_000
"""By how much, and by how many rows at least, the log must have grown since the last save for another one."""
FREE_SETTINGS = ("memory", "threads")
"""Settings that change no result, and may differ from run to run."""
USUAL = Config().plain()
AFRESH = "go on with the settings the state was made with, or give --state an empty folder to begin afresh"
BROKEN = "remove the folder to begin afresh; the log is all that is needed"

Arrays = dict[str, np.ndarray]


class OtherFormat(UsageError):
    """A state that another version wrote in another format; nothing of it can be taken up."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.format, self.version = manifest.get("format"), str(manifest.get("version"))
        self.rows, self.end = int(manifest["log"]["rows"]), int(manifest["end"])
        super().__init__(
            f"{folder}: the state is of another format: {self.format}, not {FORMAT} (version {self.version} wrote it)",
            hint="give --state an empty folder to begin afresh, or go on with that version",
        )


@dataclass(frozen=True, slots=True)
class Hashes:
    """Keyed hashes of the names of accounts and of models, by number."""

    accounts: np.ndarray
    models: np.ndarray

    @classmethod
    def of(cls, intake: Intake, privacy: Privacy) -> Hashes:
        """Of all names of the log."""
        names = (intake.accounts.names, "account"), (intake.models.names, "model")
        return cls(*(privacy.hash_strings(n, purpose) for n, purpose in names))


@dataclass(frozen=True, slots=True)
class Saved:
    """A state as read from its folder.

    ``taken`` are the rows in the order they arrived, with the families each had (``wording``, ``system``); ``end`` is the
    end of the last step (us since 1970); the rest makes the watch, see ``resumed``.
    """

    taken: Taken
    wording: np.ndarray
    system: np.ndarray
    end: int
    arrays: Arrays
    plain: Mapping[str, Any]


def belonging(config: Config, privacy: Privacy, every: str, share: float = 0.0) -> dict[str, Any]:
    """What a state is bound to: a run that differs in any of it would not go on as it was begun. ``every`` is the length of its
    steps, ``share`` what judgements may take of a core's time.

    UsageError where the key is one made for this run, under which no later one could take it up.
    """
    if not privacy.lasts:
        raise UsageError("a state needs a key that lasts", hint=f"give --key FILE, or set {KEY_VARIABLE}")
    settings = {n: v for n, v in config.plain().items() if n not in FREE_SETTINGS}
    return {"key_id": privacy.key_id, "settings": settings, "every": every, "share": share}


@dataclass(slots=True)
class Checkpoint:
    """A folder with the state of one replay, bound to what ``belonging`` says.

    ``rows`` are those of the state as it is on disk, ``end`` (us) that of its last step, ``bytes`` the size of all its files.
    """

    folder: Path
    bound: Mapping[str, Any]
    rows: int = 0
    end: int = 0
    bytes: int = 0
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name, size and SHA-256 of each file but the manifest."""
    number: int = 0
    digest: int = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs off the folder, which is made if need be. Transient where one holds it already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(self.folder / ".lock")
        if lock is None:
            raise Transient(f"{self.folder}: another replay is using this state", hint="wait for it to end")
        with lock:
            yield

    def load(self) -> Saved | None:
        """The state in the folder, None where there is none yet.

        UsageError where it is of other settings, another key or format; Terminal where a file of it is damaged.
        """
        if not (self.folder / MANIFEST).exists():
            return None
        manifest = self._manifest()
        self._check_bound(manifest)
        self.files, self.number = manifest["files"], manifest["number"]
        for name in self.files:
            self._check_file(name)
        self.rows, self.digest = manifest["log"]["rows"], int(manifest["log"]["digest"], 16)
        self.end = manifest["end"]
        self.bytes = self._size()
        try:
            taken = self._taken()
            families = pq.read_table(self.folder / manifest["rows"])
            with np.load(self.folder / manifest["watch"], allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, pa.ArrowException) as e:
            raise Terminal(f"{self.folder}: the state cannot be read: {e}", hint=BROKEN) from e
        wording, system = families["wording"].to_numpy().copy(), families["system"].to_numpy().copy()
        if sum(n.startswith("part-") for n in self.files) > PARTS:
            self.write_anew()
        return Saved(taken, wording, system, manifest["end"], arrays, manifest["plain"])

    def write_anew(self) -> None:
        """Have the next save write all rows and not only new ones, since the state that was loaded is no longer what is meant
        or lies in too many files. What is on disk stands until then."""
        self.rows, self.files, self.digest = 0, {}, 0

    def due(self, watch: Watch) -> bool:
        """Whether to save now: everything was just judged, and enough has come since the last save."""
        return watch.until == watch.schedule.rows and watch.until - self.rows >= max(LEAST, GROWTH * self.rows)

    def save(self, watch: Watch, arrivals: Arrivals, systems: Systems, hashes: Hashes) -> None:
        """Write the state as it is after a step; after any error or kill the one before still stands."""
        if watch.until == self.rows:
            return
        number, files = self.number + 1, {n: f for n, f in self.files.items() if n.startswith(("part-", "systems-"))}
        new = arrivals.order[self.rows : watch.until]
        facts, digest = _part(arrivals, new, hashes)
        arrays, plain = packed(watch, hashes)
        rows = arrivals.order[: watch.until]
        tables = {
            f"part-{number:06}.parquet": facts,
            f"systems-{number:06}.parquet": _systems(systems.between(self.rows, watch.until), hashes),
            f"rows-{number:06}.parquet": pa.table({"wording": arrivals.wording[rows], "system": arrivals.system[rows]}),
        }
        for name, table in tables.items():
            write_parquet(self.folder / name, table)
        with atomic(self.folder / f"watch-{number:06}.npz") as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, allow_pickle=False, **arrays)
        files |= {n: self._entry(n) for n in (*tables, f"watch-{number:06}.npz")}
        digest = (self.digest + digest) % 2**64
        last = arrivals.facts["exchange"][int(new[-1])].as_py() % 2**64
        log = {"rows": watch.until, "last_exchange": f"{last:016x}", "digest": f"{digest:016x}"}
        manifest = dict(self.bound) | {
            "format": FORMAT, "version": __version__, "number": number, "end": watch.end, "log": log,
            "rows": f"rows-{number:06}.parquet", "watch": f"watch-{number:06}.npz", "plain": plain, "files": files,
        }  # fmt: skip
        write_json(self.folder / MANIFEST, manifest | {"sha256": _sha256_of(manifest)})
        self.files, self.number, self.digest = files, number, digest
        self.rows, self.end = watch.until, watch.end
        self._sweep()
        self.bytes = self._size()

    def _manifest(self) -> dict[str, Any]:
        path = self.folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            told = manifest.pop("sha256")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as e:
            raise Terminal(f"{path}: damaged: it does not read as a state", hint=BROKEN) from e
        if told != _sha256_of(manifest):
            raise Terminal(f"{path}: damaged: it is not as it was written", hint=BROKEN)
        return dict(manifest)

    def _check_bound(self, manifest: Mapping[str, Any]) -> None:
        if manifest["format"] != FORMAT:
            raise OtherFormat(self.folder, manifest)
        for name, value in json.loads(json.dumps(dict(self.bound))).items():
            told = manifest.get(name)
            if name == "settings" and isinstance(told, dict):
                # One that did not exist yet was as it is by default; one that no longer exists says nothing.
                told = {n: told.get(n, USUAL.get(n)) for n in value}
            if told != value:
                self._mismatch(name.replace("_", " "), told, value)

    def _mismatch(self, what: str, told: object, mine: object) -> NoReturn:
        raise UsageError(f"{self.folder}: the state is of another {what}: {told}, not {mine}", hint=AFRESH)

    def _check_file(self, name: str) -> None:
        path, told = self.folder / name, self.files[name]
        try:
            size = path.stat().st_size
        except OSError as e:
            raise Terminal(f"{path}: a file of the state is missing", hint=BROKEN) from e
        if size != told["bytes"]:
            raise Terminal(f"{path}: damaged: {size} bytes, not {told['bytes']}", hint=BROKEN)
        if sha256_of(path) != told["sha256"]:
            raise Terminal(f"{path}: damaged: it is not as it was written", hint=BROKEN)

    def _entry(self, name: str) -> dict[str, Any]:
        return {"bytes": (self.folder / name).stat().st_size, "sha256": sha256_of(self.folder / name)}

    def _size(self) -> int:
        return sum(f["bytes"] for f in self.files.values()) + (self.folder / MANIFEST).stat().st_size

    def _sweep(self) -> None:
        """Remove files that no state names any more."""
        for path in self.folder.iterdir():
            ours = path.name.lstrip(".").startswith(("part-", "systems-", "rows-", "watch-", f"{MANIFEST}."))
            if ours and path.name not in self.files:
                path.unlink(missing_ok=True)

    def _taken(self) -> Taken:
        def read(start: str) -> pa.Table:
            return pa.concat_tables(
                pq.read_table(self.folder / n) for n in sorted(self.files) if n.startswith(start)
            ).combine_chunks()

        facts, systems = read("part-"), read("systems-")
        account, text = systems["account"].to_numpy(), systems["text"].to_numpy()
        return Taken(
            facts.drop_columns(["sketch"]),
            _matrix(facts["sketch"]),
            (account, text, _matrix(systems["sketch"])),
            self.digest,
        )


def _part(arrivals: Arrivals, rows: np.ndarray, hashes: Hashes) -> tuple[pa.Table, int]:
    """Facts and sketches of these rows as they are kept, and their digest."""
    facts = arrivals.facts.take(pa.array(rows))
    columns = {n: facts[n] for n in facts.column_names}
    columns["account"] = pa.array(hashes.accounts[facts["account"].to_numpy()])
    columns["model"] = pa.array(hashes.models[facts["model"].to_numpy()])
    digest = digest_of(
        facts["exchange"].to_numpy(), facts["time"].cast(pa.int64()).to_numpy(), columns["account"].to_numpy()
    )
    return pa.table(columns | {"sketch": _binary(arrivals.sketches[rows])}), digest


def _systems(held: tuple[np.ndarray, np.ndarray, np.ndarray], hashes: Hashes) -> pa.Table:
    account, text, sketch = held
    return pa.table({"account": hashes.accounts[account], "text": text, "sketch": _binary(sketch)})


def packed(watch: Watch, hashes: Hashes) -> tuple[Arrays, dict[str, Any]]:
    """A watch as arrays and plain values; customers stand under the hash of the account that numbers them."""
    ledger, book, wrappers = watch.ledger, watch.book, watch.wrappers
    touched = np.flatnonzero((ledger.owner != NEVER) | (ledger.flagged_at != NEVER) | (ledger.cleared_at != NEVER))
    absent = watch.absent
    arrays = {
        "ledger.customer": np.concatenate([hashes.accounts[touched], absent.account]),
        **{f"ledger.{n}": np.concatenate([getattr(ledger, n)[touched], getattr(absent, n)]) for n in _LEDGER},
        "systems.text": watch.systems[0], "systems.family": watch.systems[1], "shared": watch.shared,
        "tried.customer": hashes.accounts[watch.tried[:, 0]], "tried.key": watch.tried[:, 1],
        "book.campaign": book.campaign,
        "book.prior": np.array([p.prior for p in book.profiles]),
        "book.share": np.array([p.share for p in book.profiles]),
    }  # fmt: skip
    arrays |= {f"wrappers.{n}": getattr(wrappers, n) for n in _WRAPPERS}
    for k, profile in enumerate(book.profiles):
        arrays |= {f"book.{k}.{n}": getattr(profile, n) for n in _PROFILE}
    schedule = watch.schedule
    plain = {
        "schedule": {"rows": schedule.rows, "unexplained": schedule.unexplained, "spent": schedule.spent,
                     "at": schedule.at},
        "unexplained": watch.unexplained, "until": watch.until, "end": watch.end,
        "late": watch.late, "floor": watch.floor, "carried_until": watch.carried_until,
        "campaigns": [
            {"campaign_id": e.campaign_id, "named_at": e.named_at, "predecessors": e.predecessors,
             "merged_into": e.merged_into, "history": [[int(at), what, int(n)] for at, what, n in e.history]}
            for e in ledger.entries
        ],
    }  # fmt: skip
    return arrays, plain


_LEDGER = ("owner", "flagged_at", "cleared_at", "carried")
_WRAPPERS = ("shingles", "group", "need", "rank", "weight", "name")
_PROFILE = ("keys", "gain", "kind", "lacking", "markers")


def resumed(saved: Saved, hashes: Hashes, customer: np.ndarray) -> Watch:
    """The watch as it was; ``customer`` is the number of each account's, as they are numbered now."""
    arrays, plain = saved.arrays, saved.plain

    def now(hashed: np.ndarray) -> np.ndarray:
        return np.asarray(customer[places(hashes.accounts, hashed)], np.int64)

    here, tried = (np.isin(arrays[n], hashes.accounts) for n in ("ledger.customer", "tried.customer"))

    profiles = [
        Profile(**{n: arrays[f"book.{k}.{n}"] for n in _PROFILE}, prior=float(prior), share=float(share))
        for k, (prior, share) in enumerate(zip(arrays["book.prior"], arrays["book.share"]))
    ]
    return Watch(
        _ledger(arrays, here, now(arrays["ledger.customer"][here]), len(customer), plain["campaigns"]),
        Schedule(**plain["schedule"]),
        Book.of(list(zip(arrays["book.campaign"].tolist(), profiles))),
        Wrappers(**{n: arrays[f"wrappers.{n}"] for n in _WRAPPERS}),
        (arrays["systems.text"], arrays["systems.family"]),
        arrays["shared"],
        np.column_stack([now(arrays["tried.customer"][tried]), arrays["tried.key"][tried]]),
        plain["until"],
        plain["end"],
        plain["unexplained"],
        plain["late"],
        plain["floor"],
        Absent(arrays["ledger.customer"][~here], *(arrays[f"ledger.{n}"][~here] for n in _LEDGER)),
        plain["carried_until"],
    )


def _ledger(
    arrays: Arrays, here: np.ndarray, customer: np.ndarray, accounts: int, campaigns: list[dict[str, Any]]
) -> Ledger:
    ledger = Ledger.empty(accounts)
    # Where two have become one customer since then, the one flagged first holds.
    order = np.argsort(-arrays["ledger.flagged_at"][here], kind="stable")
    for name in _LEDGER:
        getattr(ledger, name)[customer[order]] = arrays[f"ledger.{name}"][here][order]
    for told in campaigns:
        history = [(at, what, n) for at, what, n in told["history"]]
        ledger.entries.append(Entry(**told | {"history": history}))
    return ledger


def _binary(sketches: np.ndarray) -> pa.Array:
    """A matrix of sketches as one column, a row each."""
    octets = np.ascontiguousarray(sketches, np.uint32)
    kind = pa.binary(4 * sketches.shape[1])
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(sketches), [None, pa.py_buffer(octets.tobytes())])


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """The matrix that ``_binary`` made a column of."""
    width = column.type.byte_width // 4
    held = [np.frombuffer(c.buffers()[1], np.uint32)[c.offset * width :][: len(c) * width] for c in column.chunks]
    return np.concatenate([np.zeros(0, np.uint32), *held]).reshape(-1, width)


def _sha256_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
