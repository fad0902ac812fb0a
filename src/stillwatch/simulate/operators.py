"""Campaigns: what one hidden operator's accounts share. All else is the common persona, as for everybody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stillwatch.simulate.networks import DAYS, FIXED, LEASE, SESSION
from stillwatch.simulate.people import ROUND
from stillwatch.simulate.plans import CampaignPlan
from stillwatch.simulate.pools import AGENT, API, CONSOLE, COUNTRY_SHARES, F64, I64, choose
from stillwatch.simulate.town import OTHER, Town
from stillwatch.simulate.work import Activity

WRAPS = {
    "agentic_coding": "wrap.agentic", "tool_use": "wrap.tool", "coding": "wrap.coding", "data_analysis": "wrap.data",
    "computer_use": "wrap.computer", "vision": "wrap.vision", "math_reasoning": "wrap.math",
    "cot_elicitation": "wrap.cot", "grading": "wrap.grading", "sensitive_rewrite": "wrap.rewrite", "other": "ask.chat",
}  # fmt: skip
"""The section that wraps a question for each capability."""
BARE = {
    "agentic_coding": "ask.agentic_coding", "tool_use": "ask.tool_use", "coding": "slot.code",
    "data_analysis": "slot.data", "computer_use": "ask.computer_use", "vision": "slot.vision",
    "math_reasoning": "slot.math", "cot_elicitation": "slot.open", "grading": "ask.evaluation",
    "sensitive_rewrite": "slot.sensitive", "other": "ask.chat",
}  # fmt: skip
"""The same without a wrapper."""
SPECIAL = {
    ("trace_cleaning", "cot_elicitation"): "wrap.clean", ("foreign_traces", "cot_elicitation"): "wrap.lingo",
    ("foreign_traces", "math_reasoning"): "wrap.lingo",
}  # fmt: skip
ANSWERS = {
    "grading": "answer.label",
    "agentic_coding": "answer.agent",
    "tool_use": "answer.tool",
    "coding": "answer.code",
}


def plant(t: Town, plan: CampaignPlan, number: int, rows: I64, population: int) -> None:
    """Turns these rows into the campaign."""
    rows = t.rng.permutation(rows)
    t.people.set(rows, campaign=number, population=population, org=-1)
    heads = _generations(t, plan, rows)
    _open(t, plan, rows, heads)
    _connect(t, plan, rows)
    _pay(t, plan, rows)
    _reach(t, plan, rows)
    _ask(t, plan, rows, heads, number)


def _generations(t: Town, plan: CampaignPlan, rows: I64) -> I64:
    """Which generation each head belongs to; a head's activity ends when its generation is banned."""
    length = plan.days or t.days
    begin = float(t.rng.uniform(0, max(0.0, t.days - length)))
    # One in ten of each generation outlives the ban, and activity is patchy as everybody's is.
    heads = np.sort(t.rng.integers(0, plan.generations, len(rows)))
    step = length / plan.generations
    bans = begin + step * (1 + np.arange(plan.generations)) + t.rng.normal(0, 0.02 * step, plan.generations)
    bans[-1] = begin + length
    start = np.where(heads == 0, begin, bans[heads - 1] + t.rng.exponential(0.08, len(rows)))
    stop = bans[heads] - t.rng.exponential(0.03 * step, len(rows))
    if plan.generations == 1 and not plan.days:
        start, stop = t.people.start[rows], t.people.stop[rows]
    elif not plan.days:
        lives_on = t.rng.random(len(rows)) < 0.1
        stop = np.where(lives_on, np.minimum(stop + t.rng.uniform(0, 3, len(rows)), t.days), stop)
    start = np.clip(start, 0, t.days - 0.3)
    t.people.set(rows, start=start, stop=np.clip(stop, start + 0.25, t.days))
    return heads


def _open(t: Town, plan: CampaignPlan, rows: I64, heads: I64) -> None:
    """Sign-ups before the first use; every seventh account is an old one that was bought."""
    size, first = len(rows), t.people.start[rows]
    begin = np.array([first[heads == h].min() if (heads == h).any() else 0 for h in range(plan.generations)])[heads]
    burst = begin - t.rng.uniform(1, 50, plan.generations)[heads] + t.rng.uniform(0, 1.2, size)
    batch = np.arange(size) // int(t.rng.integers(12, 40))
    batches = begin - t.rng.uniform(0.5, 80, batch.max() + 1)[batch] + t.rng.uniform(0, 0.12, size)
    spread = begin - t.rng.exponential(45, size)
    created = {"burst": burst, "batches": batches, "spread": spread}[plan.signups]
    bought = t.rng.random(size) < (0.4 if plan.signups == "spread" else 0.14)
    created = np.where(bought, -t.rng.exponential(200, size), created)
    created = np.minimum(created, first - 0.02)
    t.people.set(rows, created=created)
    if plan.signups != "spread":
        t.same_source(rows, 0.35)


def _pay(t: Town, plan: CampaignPlan, rows: I64) -> None:
    """Cards dealt to ``accounts_per_card`` accounts on average; a few accounts have a card of their own or none."""
    p = t.people
    if plan.accounts_per_card > 1:
        holders = rows[t.rng.random(len(rows)) < 0.85]
        for group in t.groups(holders, max(2, plan.accounts_per_card // 2), plan.accounts_per_card * 3 // 2 + 1):
            t.same_card(group, 1)
    with_phone = rows[p.phone[rows] >= 0]
    for group in t.groups(with_phone[t.rng.random(len(with_phone)) < 0.2], 2, 6):
        p.set(group, phone=p.phone[group[0]])


def _connect(t: Town, plan: CampaignPlan, rows: I64) -> None:
    """Proxies or servers: about four accounts a block, in one to three countries, where most accounts say they are."""
    blocks, size, p = max(1, len(rows) // 4), len(rows), t.people
    lands = choose(t.rng, COUNTRY_SHARES, int(t.rng.integers(1, 3)) + min(3, size // 400))
    local = rows[t.rng.random(size) < 0.6]
    p.set(local, country=t.rng.choice(lands, len(local)))
    p.set(local, billing=np.where(t.rng.random(len(local)) < 0.85, p.country[local], p.billing[local]))
    p.set(local, phone_country=np.where(t.rng.random(len(local)) < 0.85, p.country[local], p.phone_country[local]))
    p.egress[local, 0] = t.net.isp[p.country[local], t.rng.integers(0, 3, len(local))]
    p.egress[local, 1] = t.net.carrier[p.country[local]]
    if plan.addresses == "datacentre":
        egress = t.net.datacentre_pool(max(1, blocks // 2))
        moves = t.rng.choice([FIXED, LEASE, DAYS], size, p=[0.6, 0.2, 0.2])
    else:
        egress = t.net.residential_pool(blocks, lands)
        rates = [0.5, 0.5, 0, 0] if plan.addresses == "sticky" else [0.1, 0.2, 0.45, 0.25]
        moves = t.rng.choice([FIXED, LEASE, DAYS, SESSION], size, p=rates)
    for move in np.unique(moves).tolist():
        these = rows[moves == move]
        t.go_out(these, OTHER, egress, float(t.rng.uniform(0.6, 0.95)), move)


def _reach(t: Town, plan: CampaignPlan, rows: I64) -> None:
    """Clients: mostly programs, a few makes of them per operator; more pathways means more kinds of access."""
    p = t.people
    kinds = t.rng.choice([CONSOLE, API, AGENT], len(rows), p=[0.2, 0.55, 0.25])
    for kind in (CONSOLE, API, AGENT):
        t.interface(rows[kinds == kind], kind)
    models = rows[t.rng.integers(0, len(rows), 3 + plan.pathways)]
    own = t.rng.random(len(rows)) < 0.5
    same = models[t.rng.integers(0, len(models), len(rows))]
    p.set(rows[own], client=p.client[same[own]], ja4=p.ja4[same[own]], settings=p.settings[same[own]])
    if plan.pathways > 1:
        moved = rows[t.rng.random(len(rows)) < 0.35]
        p.set(moved, channel=t.rng.choice(np.arange(1, 7)[: plan.pathways + 2], len(moved)))


def _ask(t: Town, plan: CampaignPlan, rows: I64, heads: I64, number: int) -> None:
    """Query streams, and beside them camouflage and other people's traffic."""
    p = t.people
    targets = list(plan.targets)
    shares = np.array([plan.targets[c] for c in targets])
    listed = int(max(200, t.rng.uniform(2, 12) * p.volume[rows].size * 20))
    owner = t.seed()
    works = [t.catalogue.add(_query(t, plan, c, listed, owner)) for c in targets]
    relay = number * 64.0 + heads if plan.tempo == "balanced" else -1.0
    rhythm: F64 | float = float(ROUND) if plan.tempo == "clock" else np.nan
    pivots = t.rng.random(len(rows)) < np.sqrt(plan.pivot)
    pivot = {
        "adopts": np.where(pivots, t.release + t.rng.uniform(0, 0.6, len(rows)), p.adopts[rows]),
        "adopts_share": np.where(pivots, np.sqrt(plan.pivot), p.adopts_share[rows]),
    }
    # Each account leans to some of the targets, as tasks are dealt in work sessions.
    leans = shares[:, None] * t.rng.gamma(1.5, 1, (len(targets), len(rows))) + 0.01
    for work, lean in zip(works, leans / leans.sum(axis=0)):
        t.streams.add(rows, work, share=lean * (1 - plan.ordinary), relay=relay, rhythm=rhythm, **pivot)
    if plan.camouflage:
        t.habits(rows, plan.camouflage * (1 - plan.customers))
    if plan.customers:
        t.streams.add(rows, t.everyday.activities[API][0], share=plan.customers, mixed=1, session=6.0)


def _query(t: Town, plan: CampaignPlan, capability: str, listed: int, owner: int) -> Activity:
    bare = plan.wording == "none"
    harness = bare and capability in ("agentic_coding", "tool_use")
    section = BARE[capability] if bare else SPECIAL.get((plan.shape, capability), WRAPS[capability])
    known = "real." + section
    if plan.wording in ("fixed", "several") and f"{known}@o" in t.sections and t.rng.random() < 0.65:
        section = known
    variants = {"fixed": 1, "several": max(2, plan.variants), "paraphrased": 0, "none": 1}[plan.wording]
    more = section if t.rng.random() < 0.6 else "more.extract"
    base = Activity(
        section, more, ANSWERS.get(capability, "answer.long"), capability=capability, owner=owner,
        variants=variants, listed=listed, talks=plan.follow_ups, words=float(t.rng.normal(5.75, 0.5)),
        context=float(t.rng.normal(5, 0.8)), images=0.8 if capability in ("vision", "computer_use") else 0.0,
        systems=0.0,
    )  # fmt: skip
    if harness:
        public = t.catalogue.rows[int(t.rng.choice(t.everyday.harness))]
        return replace(base, system="harness", owner=public.owner, tools=public.tools, systems=1.0, more="more.agent",
                       context=8.0, is_code=True)  # fmt: skip
    if bare:
        return replace(base, more="more.chat", system="sys.personal", systems=0.1, listed=0)
    tools = int(t.rng.integers(1, 9)) if capability in ("tool_use", "computer_use", "agentic_coding") else 0
    return replace(base, tools=tools, system="sys.operator", systems=float(t.rng.choice([0, 0.3, 0.5, 0.8])))
