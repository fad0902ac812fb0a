"""Accounts and their truth as tables. Serial numbers become what a provider would see: domains, hashes, addresses."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.simulate import pools
from stillwatch.simulate.grammar import mix
from stillwatch.simulate.identifiers import hex_ids, ip_strings, ja4_names
from stillwatch.simulate.networks import Addresses
from stillwatch.simulate.people import OWN_DOMAIN, People
from stillwatch.simulate.pools import I64
from stillwatch.simulate.sessions import DAY_US
from stillwatch.tables import ACCOUNTS, TRUTH


def _named(names: tuple[str, ...], index: I64, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    return pa.array(names).take(pa.array(index, mask=None if valid is None else ~valid))


def _numbered(serial: I64, secret: int, prefix: str, valid: npt.NDArray[np.bool_]) -> pa.Array:
    ids = hex_ids(mix(serial.astype(np.uint64) + np.uint64(secret)), prefix)
    return ids.take(pa.array(np.arange(len(serial)), mask=~valid))


def accounts_table(p: People, addresses: Addresses, ids: pa.StringArray, start: datetime, secret: int) -> pa.Table:
    """The accounts table, ordered by account_id. One account in sixteen has forgotten fields."""
    rng = np.random.default_rng([secret & 0xFFFFFFFF, 11])
    size = len(p)
    own = p.mail >= OWN_DOMAIN
    fixed = np.array(pools.MAIL_FREE + pools.MAIL_THROWAWAY, object)
    domains = np.array([f"{v >> 36:07x}.example" for v in mix(p.mail + secret % 99_991).tolist()], object)
    slot = (rng.random(size) < 0.15).astype(np.int64)
    where = (np.arange(size), slot)
    ip, _ = addresses.at(
        p.egress[where], p.egress_key[where], p.egress_move[where], np.floor(p.created).astype(np.int64) + 1000,
        rng.integers(2**40, 2**41, size),
    )  # fmt: skip
    known = rng.random((3, size)) > 1 / 16
    created = int(start.timestamp() * 1e6) + (p.created * DAY_US).astype(np.int64)
    paid = p.card >= 0
    columns = {
        "account_id": ids, "created_at": pa.array(created, pa.timestamp("us", "UTC")),
        "org_id": _numbered(p.org, secret ^ 1, "org_", p.org >= 0),
        "programme": _named(pools.PROGRAMMES, p.programme), "plan": _named(pools.PLANS, p.plan),
        "email_domain": pa.array(np.where(own, domains, fixed[np.where(own, 0, p.mail)]), pa.string()),
        "payment_hash": _numbered(p.card, secret ^ 2, "", paid),
        "payment_issuer": _named(pools.ISSUERS, p.issuer, paid),
        "billing_country": _named(pools.COUNTRIES, p.billing, paid | (rng.random(size) < 0.3)),
        "phone_country": _named(pools.COUNTRIES, p.phone_country, p.phone >= 0),
        "phone_hash": _numbered(p.phone, secret ^ 3, "", p.phone >= 0),
        "signup_ip": ip_strings(ip).take(pa.array(np.arange(size), mask=~known[0])),
        "signup_ja4": None, "referrer": _named(pools.REFERRERS, p.referrer, known[1]),
        "verification": _named(pools.VERIFICATIONS, p.verification),
    }  # fmt: skip
    columns["signup_ja4"] = _sign_up_prints(p, rng, secret).take(pa.array(np.arange(size), mask=~known[2]))
    table = pa.table([columns[name] for name in ACCOUNTS.names], names=ACCOUNTS.names)
    return table.sort_by("account_id").cast(ACCOUNTS.schema)


def _sign_up_prints(p: People, rng: np.random.Generator, secret: int) -> pa.Array:
    """People sign up with a browser, whatever they use later."""
    browser = pools.clients_for(rng, np.zeros(len(p), np.int64))
    return pa.array(ja4_names(secret)).take(pa.array(browser * pools.JA4_PER_CLIENT + rng.integers(0, 4, len(p))))


def truth_table(p: People, names: tuple[str, ...], ids: pa.StringArray) -> pa.Table:
    """What every account really is, ordered by account_id."""
    planted = pa.array([f"planted-{n + 1:02d}" for n in range(int(p.campaign.max(initial=-1)) + 1)] or [""])
    campaign = planted.take(pa.array(p.campaign, mask=p.campaign < 0))
    table = pa.table({"account_id": ids, "campaign_id": campaign, "population": _named(names, p.population)})
    return table.sort_by("account_id").cast(TRUTH.schema)
