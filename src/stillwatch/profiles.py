"""Accounts as the engine knows them: numbers, hashes and the few words that are not personal.

Accounts that declare one organisation are one customer: they carry the number of its first account and are folded
into one observation each, so they never link to each other.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.numbering import Numbering
from stillwatch.privacy import Privacy
from stillwatch.tables import PROFILES, UTC_US

_HASHED = {"org": "org_id", "card": "payment_hash", "issuer": "payment_issuer", "phone": "phone_hash",
           "mail_domain": "email_domain", "referrer": "referrer", "signup_tls": "signup_ja4",
           "billing_country": "billing_country", "phone_country": "phone_country"}  # fmt: skip
_COUNTRIES = ("billing_country", "phone_country")


def profiles(accounts: pa.Table | None, seen: Numbering, privacy: Privacy) -> pa.Table:
    """One row of ``tables.PROFILES`` for every account seen in the log, in the order of its number.

    ``accounts`` is the canonical table, or None where the log came without one; accounts that it lacks are null in all
    but their number, and its accounts that were never seen are left out.
    """
    names = seen.names
    if accounts is None:
        rows = pa.table({"account_id": pa.array([], pa.string())})
        at = np.full(len(names), -1)
    else:
        rows = accounts
        at = pc.index_in(names, value_set=rows["account_id"].combine_chunks())
        at = at.fill_null(-1).to_numpy(zero_copy_only=False)
    known = pa.array(np.where(at >= 0, at, 0), mask=at < 0)
    columns: dict[str, pa.Array] = {"account": pa.array(np.arange(len(names), dtype=np.int32))}
    for name, source in _HASHED.items():
        purpose = "country" if name in _COUNTRIES else ("tls" if name == "signup_tls" else name)
        columns[name] = _taken(_hashed(rows, source, purpose, privacy), known)
    columns["signup_net"] = _taken(_net(rows, privacy), known)
    for name in ("created_at", "programme", "plan", "verification"):
        columns[name] = _column(rows, name).take(known)
    days = pc.divide(pc.cast(pc.cast(columns["created_at"], UTC_US), pa.int64()), 86_400 * 10**6)
    columns["signup_day"] = pc.fill_null(days, 0)
    columns["customer"] = pa.array(_customers(columns["org"].to_numpy(zero_copy_only=False)))
    arrays = [columns[f.name].cast(f.type) for f in PROFILES.schema]
    return pa.Table.from_arrays(arrays, schema=PROFILES.schema)


def _column(rows: pa.Table, name: str) -> pa.Array:
    if name in rows.column_names and rows.num_rows:
        return rows[name].combine_chunks()
    return pa.nulls(max(1, rows.num_rows), PROFILES.schema.field(name).type)


def _hashed(rows: pa.Table, source: str, purpose: str, privacy: Privacy) -> np.ndarray:
    if source not in rows.column_names:
        return np.zeros(rows.num_rows, np.int64)
    return privacy.hash_strings(rows[source], purpose)


def _net(rows: pa.Table, privacy: Privacy) -> np.ndarray:
    if "signup_ip" not in rows.column_names:
        return np.zeros(rows.num_rows, np.int64)
    return privacy.hash_prefix(rows["signup_ip"])


def _taken(values: np.ndarray, at: pa.Array) -> pa.Array:
    if not len(values):
        return pa.array(np.zeros(len(at), np.int64))
    return pa.array(values).take(at).fill_null(0)


def _customers(org: np.ndarray) -> np.ndarray:
    """The number of each account's customer: the first account of its organisation, or itself where it declares none."""
    own = np.arange(len(org), dtype=np.int32)
    _, first, number = np.unique(org, return_index=True, return_inverse=True)
    return np.where(org != 0, first[number], own).astype(np.int32)
