"""What a campaign costs the operator behind it, in US dollars, item by item.

Prices are of 2025 and 2026, rounded, from public lists where there are any; where there are none a field says what it is
reasoned from. They stand for orders of magnitude: read costs as multiples of a cheap plan's, and set your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil

from stillwatch.errors import UsageError
from stillwatch.simulate import CampaignPlan, World

MONTH_DAYS = 30
AGED_SHARES = {"spread": 0.4}
AGED_SHARE = 0.14
"""Share of a campaign's accounts that are old ones, bought: as the simulator plants them, by ``signups``."""
SHARED_CARD_SHARE = 0.85
"""Of accounts that share cards, the share that does; the rest is given a card of its own. As the simulator deals them."""
ACCOUNTS_A_SERVER = 8
"""Accounts behind one datacentre address, as the simulator plants them."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What an operator pays, in US dollars. UsageError where a price is negative or ``resale_share`` is over 1.

    ``account``: mail and one phone verification. Codes are sold at $0.08 to $0.26 in cheap countries and about $0.50
    typically (Cambridge Online Trust and Safety Index, Science, December 2025).
    ``aged_account``: what an old account costs more. Reasoned: ten times a fresh one, as other account markets ask.
    ``least_deposit``: prepaid credit an account must buy before its first request ($5 at the large APIs); what its
    traffic does not use up is lost.
    ``card``: issuing and a month of a virtual card that passes AI providers' filters. Reasoned: $1 to $5 at issuers.
    ``sticky_address``: a static residential or ISP address for a month. Reasoned: $2 to $5 at common vendors.
    ``pool_gigabyte``: a rotating residential pool, by traffic ($0.89 to $5 in vendors' lists of 2026), at least one
    bought. ``exchange_megabytes``: traffic of one exchange; text with its history and handshake.
    ``datacentre_address``: a server's address for a month. Reasoned: $0.50 to $1.50.
    ``query``: a distillation exchange at list price: 600 tokens in and 1,800 out at $3 and $15 a million.
    ``camouflage``: ordinary traffic of the operator's making, kept short: 400 in and 300 out, the same list.
    ``customer``: a customer's exchange, longer in: 2,500 in and 500 out. ``resale_share`` is what customers pay of the
    list price; resale proxies ask from a tenth of it upwards, the operator bears the rest.
    ``variant``: writing and trying one wording by hand, two minutes' work.
    ``rewording``: having one prompt reworded by a small model, 600 tokens each way and one discard in three.
    ``bare_prompt``: gathering and cleaning one prompt of a public list that is sent as it is.
    ``channel``: opening one further way in (a cloud's or a reseller's contract), an hour's work.
    """

    account: float = 0.30
    aged_account: float = 3.0
    least_deposit: float = 5.0
    card: float = 2.0
    sticky_address: float = 3.0
    pool_gigabyte: float = 4.0
    exchange_megabytes: float = 0.03
    datacentre_address: float = 1.0
    query: float = 0.03
    camouflage: float = 0.006
    customer: float = 0.015
    resale_share: float = 0.5
    variant: float = 0.5
    rewording: float = 0.0005
    bare_prompt: float = 0.0002
    channel: float = 20.0

    def __post_init__(self) -> None:
        if wrong := [f.name for f in fields(self) if not getattr(self, f.name) >= 0]:
            raise UsageError(f"prices: {wrong[0]} is negative", hint="prices are US dollars, at least 0")
        if self.resale_share > 1:
            raise UsageError("prices: resale_share is over 1", hint="customers pay a share of the list price")


@dataclass(frozen=True, slots=True)
class Bill:
    """What one plan costs, in US dollars by item."""

    items: Mapping[str, float]

    @property
    def usd(self) -> float:
        return sum(self.items.values())


def cost(plan: CampaignPlan, world: World, prices: Prices | None = None) -> Bill:
    """The bill of this plan in this world, whether it is found or not; time and skill are not on it."""
    p = prices or Prices()
    exchanges = plan.accounts * world.requests_of(plan)
    queries = exchanges * (1 - plan.ordinary)
    customers = exchanges * plan.customers
    camouflage = exchanges - queries - customers
    spent = queries * p.query + camouflage * p.camouflage + customers * p.customer
    return Bill(
        {
            "accounts": plan.accounts * p.account,
            "aged accounts": plan.accounts * AGED_SHARES.get(plan.signups, AGED_SHARE) * p.aged_account,
            "unused deposits": max(0.0, plan.accounts * p.least_deposit - spent),
            "cards": cards(plan) * p.card,
            "addresses": _addresses(plan, world, exchanges, p),
            "harvest": queries * p.query,
            "camouflage": camouflage * p.camouflage,
            "customers": customers * p.customer * (1 - p.resale_share),
            "wording": _wording(plan, queries, p),
            "channels": (plan.pathways - 1) * p.channel,
        }
    )


def cards(plan: CampaignPlan) -> int:
    """Cards the plan needs."""
    if plan.accounts_per_card == 1:
        return plan.accounts
    shared = SHARED_CARD_SHARE * plan.accounts
    return ceil(shared / plan.accounts_per_card) + round(plan.accounts - shared)


def _addresses(plan: CampaignPlan, world: World, exchanges: float, p: Prices) -> float:
    months = max(1.0, (plan.days or world.days) / MONTH_DAYS)
    if plan.addresses == "sticky":
        return plan.accounts * p.sticky_address * months
    if plan.addresses == "datacentre":
        return ceil(plan.accounts / ACCOUNTS_A_SERVER) * p.datacentre_address * months
    return max(1.0, exchanges * p.exchange_megabytes / 1000) * p.pool_gigabyte


def _wording(plan: CampaignPlan, queries: float, p: Prices) -> float:
    of_each = {"paraphrased": p.rewording, "none": p.bare_prompt}
    if plan.wording in of_each:
        return queries * of_each[plan.wording]
    return p.variant * (plan.variants if plan.wording == "several" else 1)
