"""Campaigns: each knob is drawn from a wide prior, then some are fixed by the class."""

from __future__ import annotations

from typing import Any

import numpy as np

from strangers.honest import choose, same_client, some, systems, worded
from strangers.network import COUNTRIES
from strangers.people import CHANNELS, DAY, MAILS, VERIFIED, Block, World, cards, people, tokens, use_pool
from strangers.streams import Stream

SIZES = {"shares": (250, 1.3, 30, 4_000), "proxy": (220, 1.2, 20, 3_000), "four_requests": (1_600, 0.5, 600, 4_000),
         "purpose_only": (180, 1.0, 20, 1_500), "public_list": (180, 1.2, 15, 2_500), "small": (20, 0.5, 10, 49)}  # fmt: skip
"""Median, spread, least and most accounts of each class."""
TARGETS = {
    "agentic_coding": ("distill_swe_smith", "distill_evol_code", "benign_aider"),
    "coding": ("distill_evol_code", "distill_openthoughts_skyt1", "benign_polyglot_exercism"),
    "tool_use": ("distill_toolbench", "distill_gorilla_apibench", "benign_bfcl"),
    "math_reasoning": ("distill_reasoning_teacher", "distill_openthoughts_skyt1", "benign_mathematics_dataset"),
    "cot_elicitation": ("distill_reasoning_teacher", "distill_openthoughts_skyt1", "distill_raft"),
    "data_analysis": ("distill_omnisql", "benign_sql_eval", "benign_insight_bench"),
    "computer_use": ("distill_nnetnav", "benign_webvoyager"),
    "grading": ("distill_ultrafeedback", "distill_prometheus", "distill_pandalm"),
    "vision": ("distill_llava",),
    "sensitive_rewrite": ("distill_cvalues", "distill_safety_prompts", "distill_xstest"),
    "other": ("distill_self_instruct", "distill_evol_instruct_wizardlm", "distill_camel", "distill_distilabel"),
}
PUBLIC = ("distill_reasoning_teacher", "distill_evol_code", "distill_nnetnav", "distill_openthoughts_skyt1",
          "distill_gorilla_apibench", "distill_self_instruct", "benign_bfcl", "benign_mathematics_dataset")  # fmt: skip


def chance(w: World, **weights: float) -> str:
    """One of these names, by its weight."""
    weight = np.array(list(weights.values()), dtype=float)
    return str(w.rng.choice(list(weights), p=weight / weight.sum()))


def knobs(w: World, kind: str) -> dict[str, Any]:
    """Draw how an operator works."""
    rng = w.rng
    k: dict[str, Any] = {
        "class": kind, "target": str(rng.choice(list(TARGETS))),
        "wording": chance(w, fixed=3, several=2, grammar=3, paraphrase=2, none=1.5),
        "system": chance(w, shared=2, none=4, varied=2), "card": chance(w, own=4, few=3, virtual=2),
        "per_card": float(2 + rng.lognormal(1.5, 1)), "network": chance(w, sticky=3, rotating=2, centre=3, mobile=1, donors=1),
        "pool_share": float(rng.uniform(0.5, 1)), "pool": int(10 ** rng.uniform(0.5, 2.6)),
        "client": chance(w, common=2, donors=3), "hours": chance(w, bot=2, human=3, app=1, donors=3),
        "volume": chance(w, donors=4, even=2, heavy=2), "volume_factor": float(rng.lognormal(0.2, 0.6)),
        "camouflage": float(rng.choice((0, rng.uniform(0, 0.4), rng.uniform(0.2, 0.9)))),
        "by_row": bool(rng.random() < 0.4), "order": chance(w, shard=2, random=2, line=1),
        "again": float(rng.choice((0, rng.uniform(0, 0.3)))), "pivot": float(rng.uniform(0.3, 0.6) if rng.random() < 0.3 else 0),
        "sign_up": chance(w, aged=2, burst=2, trickle=2, donors=3), "chain": chance(w, none=3, bans=2),
        "phone": chance(w, own=3, shared=1, none=1), "mail": chance(w, donors=3, disposable=1, domain=1),
        "verification": chance(w, donors=4, low=1, same=1), "cloud": float(rng.choice((0, rng.uniform(0.1, 0.6)))),
        "template": bool(rng.random() < 0.5), "reword": 0.0, "window": float(rng.uniform(0.3, 1)),
    }  # fmt: skip
    if k["wording"] == "paraphrase":
        k["reword"] = float(rng.uniform(0.3, 1))
    k.update(fixed_by_class(w, kind, k))
    k["template"] = k["template"] and k["wording"] not in ("paraphrase", "none")
    return k


def fixed_by_class(w: World, kind: str, k: dict[str, Any]) -> dict[str, Any]:
    """What the class says about how it works."""
    rng = w.rng
    if kind == "shares":
        more = {"wording": chance(w, fixed=2, several=2, grammar=2)} if rng.random() < 0.7 else {}
        if not more or rng.random() < 0.4:
            more.update({"card": chance(w, few=2, virtual=1)} if rng.random() < 0.5 else {"network": "centre"})
        return more
    if kind == "proxy":
        return {"camouflage": float(rng.uniform(0.4, 0.8)), "by_row": False}
    if kind == "four_requests":
        return {"volume": "few", "camouflage": float(rng.uniform(0, 0.5)), "by_row": True}
    if kind == "purpose_only":
        return {"wording": "paraphrase", "card": "own", "network": "sticky", "hours": "human",
                "system": chance(w, none=2, varied=1), "camouflage": float(rng.normal(0.6, 0.06)),
            "reword": float(rng.uniform(0.5, 1)), "phone": "own"}  # fmt: skip
    if kind == "public_list":
        return {
            "wording": "none",
            "system": "none",
            "card": chance(w, own=3, few=1),
            "order": chance(w, shard=2, random=1, line=1),
        }
    return {}


def identities(w: World, b: Block, k: dict[str, Any]) -> None:
    """Cards, telephones, mail, checks and the days of sign-up."""
    n, rng = len(b["created"]), w.rng
    few = rng.choice(np.array(w.knobs["virtual"], dtype=object), int(rng.integers(1, 4)))
    part = rng.random(n) < rng.uniform(0.3, 0.95)
    if k["card"] == "few":
        cards(w, b, k["per_card"], str(few[0]) if rng.random() < 0.2 else None)
    elif k["card"] == "virtual":
        b["payment_hash"] = tokens("c", w.ids(n))
        b["payment_issuer"][part] = rng.choice(few, int(part.sum()))
    if k["phone"] == "none":
        b["phone_hash"][part], b["phone_country"][part] = None, None
    elif k["phone"] == "shared":
        b["phone_hash"] = tokens("p", w.ids(max(1, n // 8)))[rng.integers(0, max(1, n // 8), n)]
        b["phone_country"] = np.array(COUNTRIES, dtype=object)[rng.integers(0, len(COUNTRIES), n)]
    if k["mail"] == "disposable":
        b["email_domain"][part] = rng.choice(np.array(MAILS, dtype=object), 3)[rng.integers(0, 3, int(part.sum()))]
    elif k["mail"] == "domain":
        domains = np.array([f"{t}.example" for t in tokens("d", w.ids(max(1, n // 30)))], dtype=object)
        b["email_domain"][part] = rng.choice(domains, int(part.sum()))
    if k["verification"] != "donors":
        b["verification"][part] = "email" if k["verification"] == "low" else VERIFIED[int(rng.integers(1, 4))]
    first = b["start"] / DAY
    if k["sign_up"] == "aged":
        b["created"] = first - rng.lognormal(5, 0.7, n)
    elif k["sign_up"] == "burst":
        b["created"] = np.minimum(rng.uniform(-40, 0) + rng.normal(0, rng.uniform(0.2, 4), n), first - 0.02)
    elif k["sign_up"] == "trickle":
        b["created"] = first - rng.exponential(rng.uniform(0.3, 12), n)
    b["created"] = np.minimum(b["created"], first - 0.01)


def paths(w: World, b: Block, k: dict[str, Any]) -> None:
    """Addresses, client and channel."""
    n, rng, net = len(b["created"]), w.rng, w.net
    if k["network"] == "sticky":
        b["pool"], b["pool_share"], b["mobile"], b["hop"] = (
            np.full(n, -1),
            np.zeros(n),
            np.zeros(n),
            np.zeros(n, dtype=bool),
        )
        b["leases"] = rng.integers(1, 4, n)
        b["home"] = rng.choice(len(COUNTRIES), n, p=w.knobs["countries"])
    elif k["network"] == "rotating":
        use_pool(w, b, net.residential, k["pool_share"])
        b["rotating"], b["hop"] = np.ones(n, dtype=bool), np.full(n, rng.random() < 0.5)
    elif k["network"] == "centre":
        own = net.pool(rng, rng.choice(net.centres, 2), max(2, k["pool"]), rng.random() < 0.6)
        use_pool(w, b, own if rng.random() < 0.7 else int(rng.choice(net.shared)), k["pool_share"])
    elif k["network"] == "mobile":
        b["mobile"] = rng.beta(6, 1.2, n)
        b["home"][:] = rng.integers(0, len(COUNTRIES))
    if k["client"] == "common":
        same_client(w, b, rng.uniform(0.6, 1))
    cloud = rng.random(n) < k["cloud"]
    b["channel"][cloud] = rng.integers(2, len(CHANNELS), int(cloud.sum()))


def rhythm(w: World, b: Block, k: dict[str, Any]) -> None:
    """Window, chains of replaced accounts, hours, volume, and the move to a new model."""
    n, rng = len(b["created"]), w.rng
    length = w.days * k["window"]
    first = rng.uniform(0, w.days - length)
    chain = rng.integers(2, 6) if k["chain"] == "bans" and n >= 20 else 1
    place = rng.integers(0, chain, n) if rng.random() < 0.5 else np.arange(n) % chain
    each = length / chain
    late = rng.beta(0.7, 4, n) * each * (0.5 if chain == 1 else 0.25)
    b["start"] = (first + place * each + late) * DAY
    b["end"] = (first + (place + 1) * each - rng.beta(0.6, 5, n) * each * 0.3) * DAY
    b["end"] = np.maximum(b["end"], b["start"] + 7_200)
    b["generation"], b["replaced"] = place, place < chain - 1
    k["generations"] = int(chain)
    if k["hours"] != "donors":
        b["kind"][:] = {"human": 0, "bot": 1, "app": 2}[k["hours"]]
    base = np.exp(w.knobs["spread"] ** 2 / 2) * k["volume_factor"]
    if k["volume"] == "even":
        b["volume"] = base * rng.lognormal(0, 0.2, n)
    elif k["volume"] == "heavy":
        b["volume"] = base * rng.lognormal(-2, 2, n)
    elif k["volume"] == "few":
        b["volume"], b["exact"] = rng.integers(2, 9, n).astype(float), np.ones(n, dtype=bool)
    else:
        b["volume"] *= k["volume_factor"]
    if k["pivot"]:
        release = rng.choice([r for r in w.releases if r > 0])
        b["switch"], b["moved"] = np.full(n, release) + rng.uniform(0, 0.6, n) * DAY, np.full(n, k["pivot"])


def campaign(w: World, kind: str, n: int) -> None:
    """Plant a campaign of this class and size."""
    k, rng = knobs(w, kind), w.rng
    b = people(w, n, kind)
    name = f"campaign-{len(w.campaigns) + 1}"
    b["campaign_id"][:] = name
    rhythm(w, b, k)
    identities(w, b, k)
    paths(w, b, k)
    b["crowd"] = np.full(n, kind == "proxy") | b["crowd"]
    items = w.corpus.of(str(rng.choice(PUBLIC))) if kind == "public_list" else some(w, TARGETS[k["target"]])
    items = rng.permutation(items)[: max(60, int(len(items) * rng.uniform(0.2, 1)))]
    stream = Stream(items, k["order"], **worded(w, k["wording"]), template=k["template"], reword=k["reword"],
                    place=int(rng.integers(0, 6)), system=systems(w, k["system"]), again=k["again"],
                    sticky=bool(rng.random() < 0.3), planted=True)  # fmt: skip
    number = w.stream(stream)
    share = 1 - k["camouflage"]
    b["plan_no"] = choose(w, number, max(0.05, share), n)
    for plan in np.unique(b["plan_no"]):
        w.plans[plan] = (*w.plans[plan][:2], k["by_row"])
    k["customers"] = kind == "proxy"
    w.blocks.append(b)
    w.campaigns.append(
        {"campaign_id": name, "shape": f"{kind}/{k['wording']}/{k['network']}", "accounts": n, "stream": number, **k}
    )


def plant(w: World, accounts: int) -> int:
    """Plant the campaigns of the world; how many accounts they took of the world's."""
    rng = w.rng
    most = accounts * (0.03 + 0.26 * rng.beta(1, 1.8))
    count = int(rng.integers(5, 10))
    kinds = (
        rng.permutation(list(SIZES)).tolist() if count >= 6 else rng.choice(list(SIZES), count, replace=False).tolist()
    )
    kinds += rng.choice(list(SIZES), count - len(kinds)).tolist() if count > len(kinds) else []
    if "four_requests" in kinds:
        most = max(most, accounts * rng.uniform(0.1, 0.26))
    drawn = [SIZES[k] for k in kinds]
    size = np.array([np.clip(m * rng.lognormal(0, s), low, high) for m, s, low, high in drawn])
    floor = np.array(
        [accounts * 0.09 / kinds.count("four_requests") if k == "four_requests" else SIZES[k][2] * 0.6 for k in kinds]
    )
    for _ in range(4):
        size = np.maximum(size * min(1.0, most / size.sum()), np.maximum(floor, 10))
    for kind, n in zip(kinds, size.astype(int).tolist()):
        campaign(w, str(kind), n)
    return int(size.astype(int).sum())
