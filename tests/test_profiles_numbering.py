"""Accounts as the engine knows them, and dense numbers for names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.numbering import Numbering
from stillwatch.privacy import Privacy
from stillwatch.profiles import profiles
from stillwatch.tables import ACCOUNTS, PROFILES

PRIVACY = Privacy(b"a key for the tests of profiles")
NAMES = st.lists(st.text("abcé", max_size=2), max_size=30)


def numbered(*names: str) -> Numbering:
    seen = Numbering()
    seen.number(pa.array(names, pa.string()))
    return seen


@given(st.lists(NAMES, max_size=6))
def test_numbers_follow_first_appearance_and_stay_however_a_log_is_cut(batches: list[list[str]]) -> None:
    seen, order = Numbering(), list(dict.fromkeys(n for batch in batches for n in batch))
    for batch in batches:
        given_now = seen.number(pa.array(batch, pa.string()))
        assert given_now.dtype == np.int32
        assert given_now.tolist() == [order.index(n) for n in batch]
    assert seen.names.to_pylist() == order
    assert len(seen) == len(order)


def test_finding_adds_nothing() -> None:
    seen = numbered("a", "b")
    assert seen.find(pa.array(["b", "x", "a"])).tolist() == [1, -1, 0]
    assert seen.find(pa.array([], pa.string())).tolist() == []
    assert Numbering().find(pa.array(["a"])).tolist() == [-1]
    assert len(seen) == 2


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(ACCOUNTS.names) | r for r in rows], schema=ACCOUNTS.schema)


def known(accounts: pa.Table | None, *names: str) -> list[dict[str, Any]]:
    found = profiles(accounts, numbered(*names), PRIVACY)
    assert found.schema == PROFILES.schema
    return found.to_pylist()


FULL = {
    "created_at": datetime(2026, 1, 2, 23, 59, tzinfo=UTC), "org_id": "acme", "programme": "startup", "plan": "payg",
    "email_domain": "acme.example", "payment_hash": "p", "payment_issuer": "bank", "billing_country": "DE",
    "phone_country": "DE", "phone_hash": "t", "signup_ip": "192.0.2.7", "signup_ja4": "t13d", "referrer": "ad",
    "verification": "card",
}  # fmt: skip
HASHED = [
    "org", "card", "issuer", "phone", "mail_domain", "referrer", "signup_net", "signup_tls", "billing_country",
    "phone_country",
]  # fmt: skip


def test_a_row_for_every_account_seen_in_the_order_of_its_number() -> None:
    rows = known(table({"account_id": "z"}, {"account_id": "b"} | FULL, {"account_id": "never seen"}), "a", "b", "z")
    assert [r["account"] for r in rows] == [0, 1, 2]
    assert [r["plan"] for r in rows] == [None, "payg", None]
    assert rows[1]["signup_day"] == (datetime(2026, 1, 2) - datetime(1970, 1, 1)).days
    assert all(rows[1][name] for name in HASHED)
    assert rows[1]["billing_country"] == rows[1]["phone_country"], "countries compare with each other"


def test_what_is_unknown_is_zero_or_null() -> None:
    nothing = dict.fromkeys(HASHED, 0) | {"signup_day": 0, "created_at": None, "programme": None, "verification": None}
    for accounts in (None, table(), table({"account_id": "other"} | FULL), table({"account_id": "a"})):
        row = known(accounts, "a")[0]
        assert {name: row[name] for name in nothing} == nothing
    bare = pa.table({"account_id": pa.array(["a"])})
    assert known(bare, "a")[0]["card"] == 0, "a source may lack columns"


def test_no_account_no_row() -> None:
    assert known(table({"account_id": "a"})) == []


def test_no_personal_value_gets_through() -> None:
    text = str(known(table({"account_id": "a"} | FULL), "a"))
    for name in ("org_id", "email_domain", "signup_ip", "signup_ja4", "payment_issuer"):
        assert str(FULL[name]) not in text


def test_one_network_is_one_value_and_the_day_starts_in_utc() -> None:
    rows = known(table({"account_id": "a", "signup_ip": "192.0.2.7"}, {"account_id": "b", "signup_ip": "192.0.2.99"},
                       {"account_id": "c", "signup_ip": "192.0.3.7"}), "a", "b", "c")  # fmt: skip
    assert rows[0]["signup_net"] == rows[1]["signup_net"] != rows[2]["signup_net"]


@pytest.mark.parametrize(
    ("orgs", "customers"),
    [
        ([None, None, None], [0, 1, 2]),
        (["x", "x", "x"], [0, 0, 0]),
        ([None, "x", "y", "x", None, "y"], [0, 1, 2, 1, 4, 2]),
        (["", "x", ""], [0, 1, 2]),
    ],
)
def test_accounts_of_one_declared_organisation_are_one_customer(orgs: list[str | None], customers: list[int]) -> None:
    names = [f"a{k}" for k in range(len(orgs))]
    rows = known(table(*({"account_id": n, "org_id": o} for n, o in zip(names, orgs))), *names)
    assert [r["customer"] for r in rows] == customers


def test_an_organisation_that_the_log_knows_in_part_is_named_by_an_account_of_the_log() -> None:
    rows = known(table(*({"account_id": n, "org_id": "x"} for n in ("unseen", "b", "a"))), "a", "b")
    assert [r["customer"] for r in rows] == [0, 0]


def test_sorted_order_numbers_by_name_whatever_came_first() -> None:
    names = ["carol", "alice", "bob"]
    found = []
    for seen in (names, names[::-1]):
        numbering = Numbering()
        before = numbering.number(pa.array(seen))
        number = numbering.sorted_order()
        assert numbering.names.to_pylist() == ["alice", "bob", "carol"]
        found.append(dict(zip(seen, number[before].tolist())))
    assert found[0] == found[1] == {"alice": 0, "bob": 1, "carol": 2}
