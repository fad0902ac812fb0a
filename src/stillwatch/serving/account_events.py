"""What senders say of accounts, to rows of ``ACCOUNT_EVENTS``: OCSF's IAM events and the canonical columns themselves.

Of OCSF (1.8) the classes ``account_change`` and ``authentication`` are read. What OCSF has no field for, such as a plan or
a hash of the payment instrument, stands under its canonical name in ``unmapped``. An address of mail is cut to its domain.
``keys``, the SHA-256 of an account's keys, are no column: they are kept as marks, for gateways that know the key alone.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stillwatch.adapters.intake.conform import TIME_HINT, Chunk, Mask, Sieve, shaped, standing
from stillwatch.adapters.intake.converters import as_text, plain
from stillwatch.adapters.intake.dig import dig
from stillwatch.adapters.intake.mixed import columns_of
from stillwatch.adapters.intake.records import Record, Records
from stillwatch.adapters.intake.report import Report
from stillwatch.adapters.intake.texts import mended
from stillwatch.serving.bodies import refuse
from stillwatch.spool import ACCOUNT_EVENTS
from stillwatch.tables import ACCOUNTS

ACCOUNT_CHANGE, AUTHENTICATION = 3001, 3002
SHA256 = re.compile(r"[0-9a-f]{64}")
CREATED = 1
"""``activity_id`` of an account_change that creates an account."""
TYPES = {c.name: c.type for c in ACCOUNT_EVENTS.columns}
OTHER_EVENT = "an event of another class than account_change and authentication"
NO_EVENT = "a record that is neither an OCSF event nor an account"
PATHS = {
    "account_id": ("account.uid", "uid"),
    "org_id": ("org.uid", "org.name"),
    "email_domain": ("email_addr",),
}
"""Columns and where in OCSF's ``user_result`` or ``user`` they are, the first that has something."""
SIGN_UP = {
    "signup_ip": ("src_endpoint.ip",),
    "signup_ja4": ("ja4_fingerprint_list.0.value", "tls.ja4_fingerprint_list.0.value"),
    "referrer": ("http_request.referrer",),
}
"""Columns and where they are in the event that creates an account."""
KNOWN = {
    "class_uid", "class_name", "category_uid", "category_name", "type_uid", "type_name", "activity_id", "activity_name",
    "severity", "severity_id", "status", "status_id", "time", "time_dt", "metadata", "user", "user_result", "actor",
    "src_endpoint", "dst_endpoint", "http_request", "unmapped", "message", "observables", "tls", "ja4_fingerprint_list",
    "timezone_offset", "session", "auth_protocol", "auth_protocol_id", "is_mfa", "is_new_logon", "is_remote", "service",
    "cloud", "device", "enrichments", "raw_data", "start_time", "end_time", "duration", "count",
}  # fmt: skip
"""Attributes of the two classes; others are counted as unknown."""


def account_events(records: Records, path: Path, report: Report) -> pa.Table:
    """Rows of ``ACCOUNT_EVENTS``, one for each record that says something of an account.

    Records of other kinds, without an account or with an impossible time are counted as rejects; a value that cannot be
    read is left out and noted, since the rest of what an account declares must not go with it.
    """
    rows, numbers = [], []
    for number, record in records:
        row = _row(record, report)
        if isinstance(row, str):
            refuse(row, number, path, report)
        else:
            rows.append(row)
            numbers.append(number)
    if not rows:
        return ACCOUNT_EVENTS.schema.empty_table()
    chunk = Chunk(path, columns_of(rows, TYPES), np.array(numbers, np.int64), {})
    return pa.Table.from_batches([_conformed(chunk, report)])


def keys_of(records: Records) -> tuple[tuple[str, str], ...]:
    """Accounts and their keys, as accounts in the canonical columns (or in ``unmapped`` of an event) name them in ``keys``: the
    SHA-256 of each secret, in hex. What is no such digest is no key."""
    found = []
    for _, record in records:
        account = as_text(record.get("account_id")) or _first(
            record.get("user_result", record.get("user")), PATHS["account_id"]
        )
        keys = record.get("keys", dig(record, "unmapped.keys"))
        if account and isinstance(keys, list):
            found += [(account, key) for key in keys if isinstance(key, str) and SHA256.fullmatch(key)]
    return tuple(found)


def _row(record: Record, report: Report) -> Record | str:
    """The columns a record fills, or why it is refused."""
    kind = record.get("class_uid")
    if kind is None and "account_id" in record:
        return _canonical(record, report)
    if kind is None:
        return NO_EVENT
    if str(kind) not in (str(ACCOUNT_CHANGE), str(AUTHENTICATION)):
        return OTHER_EVENT
    for name in record.keys() - KNOWN:
        report.see_unknown(name, 1)
    return _of_event(record)


def _canonical(record: Record, report: Report) -> Record:
    for name in record.keys() - TYPES.keys() - {"keys"}:
        report.see_unknown(name, 1)
    # An account told of without a time is as it is now.
    return {"at": report.now.isoformat()} | _columns(record)


def _columns(record: Record) -> Record:
    found = {n: as_text(record.get(n)) if pa.types.is_string(t) else plain(record.get(n)) for n, t in TYPES.items()}
    return {n: v for n, v in found.items() if v not in (None, "")}


def _of_event(event: Record) -> Record:
    user = event.get("user_result", event.get("user"))
    row = _columns(event["unmapped"]) if isinstance(event.get("unmapped"), dict) else {}
    row.pop("at", None)
    row |= {name: value for name, paths in PATHS.items() if (value := _first(user, paths))}
    if "email_domain" in row:
        row["email_domain"] = row["email_domain"].rpartition("@")[2].strip().lower()
    time = plain(event.get("time", event.get("time_dt")))
    if str(event["class_uid"]) == str(ACCOUNT_CHANGE) and str(event.get("activity_id")) == str(CREATED):
        row |= {name: value for name, paths in SIGN_UP.items() if (value := _first(event, paths))}
        row.setdefault("created_at", time)
    return row | {"at": time}


def _first(node: Any, paths: tuple[str, ...]) -> str | None:
    return next((text for path in paths if (text := as_text(dig(node, path)))), None)


class Lenient(Sieve):
    """A value that cannot be read costs itself, and is noted."""

    def misfit(self, mask: Mask, reason: str, hint: str) -> None:
        self._told.note(f"{reason}; the value is left out", mask)


def _conformed(chunk: Chunk, report: Report) -> pa.RecordBatch:
    report.rows_read += len(chunk)
    sieve = Lenient(chunk, report)
    columns = shaped(chunk, ACCOUNT_EVENTS, sieve)
    for name in ("at", "created_at"):
        _check_times(columns[name], name, sieve, report)
    batch, _ = standing(columns, ACCOUNT_EVENTS, sieve, chunk.places)
    report.rows_kept += len(batch)
    for column in ACCOUNTS.names:
        report.coverage[column] = len(batch) - batch[column].null_count
    safe = [
        mended(f.name, c, report.limits.text_bytes)[0] if pa.types.is_string(f.type) else c
        for f, c in zip(batch.schema, batch.columns)
    ]
    return pa.RecordBatch.from_arrays(safe, schema=batch.schema)


def _check_times(times: pa.Array, name: str, sieve: Sieve, report: Report) -> None:
    """A word from the future would hold for ever; one from before there were such accounts is a mistake of units."""
    us = times.view(pa.int64()).to_numpy(zero_copy_only=False)
    latest = report.now + timedelta(seconds=report.limits.future_s)
    sieve.drop(us > _us(latest), f"{name} lies in the future", TIME_HINT)
    if name == "at":
        sieve.drop(us < _us(report.limits.earliest), f"at lies before {report.limits.earliest.year}", TIME_HINT)


def _us(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6)
