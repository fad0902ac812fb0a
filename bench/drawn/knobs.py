"""What one campaign draws: its class, its size, what it shares, how it hides and how it works."""

from typing import Any

import numpy as np

from .draft import Settings
from .priors import draw, pick
from .text import CAPABILITIES, Corpus

CLASSES = ("shares", "proxy", "four_requests", "purpose_only", "public_list", "small")
SIZES = dict(zip(CLASSES, ("shares", "proxy", "four", "purpose", "public", "small")))
LISTS = {  # targets whose public lists are sent bare
    "math_reasoning": ["distill_reasoning_teacher", "distill_openthoughts_skyt1"],
    "cot_elicitation": ["distill_reasoning_teacher"],
    "coding": ["distill_evol_code"],
    "tool_use": ["distill_gorilla_apibench", "distill_toolbench"],
    "computer_use": ["distill_nnetnav"],
    "sensitive_rewrite": ["distill_cvalues", "distill_xstest"],
}
SMALLEST_WORLD = 12_000  # below it, campaigns shrink with the world
Knobs = dict[str, Any]


def draw_campaigns(rng: np.random.Generator, settings: Settings, corpus: Corpus) -> list[Knobs]:
    """Four to eight campaigns; each class once before any comes twice; redrawn until they fit under the cap."""
    scale = min(1.0, settings.accounts / SMALLEST_WORLD)
    cap = draw(rng, "campaign_accounts") * settings.accounts
    order = list(rng.permutation(CLASSES))
    number = draw(rng, "campaigns")
    classes = (order + list(rng.choice(CLASSES, max(0, number - len(order)))))[:number]
    floor = {"four_requests": 1_000, "small": 6}
    for attempt in range(200):
        sizes = [max(6, round(draw(rng, f"{SIZES[c]}_accounts") * (scale if c != "small" else 1))) for c in classes]
        if sum(sizes) <= cap * (1 + attempt / 100):
            break
    assert all(size >= scale * floor.get(c, 50) - 1 for c, size in zip(classes, sizes))
    found = [_campaign(rng, settings, corpus, str(c), int(n)) for c, n in zip(classes, sizes)]
    for number, knobs in enumerate(found):
        knobs["campaign_id"] = f"planted-{number + 1:02d}"
    pooled = [k for k in found if k["addresses"] and k["class"] != "small"]
    if len(pooled) >= 2 and draw(rng, "same_pool"):
        pooled[1]["pool_of"] = pooled[0]["campaign_id"]
    return found


def _campaign(rng: np.random.Generator, settings: Settings, corpus: Corpus, kind: str, n: int) -> Knobs:
    """All knobs of one campaign."""
    targets = list(LISTS) if kind == "public_list" else [c for c in CAPABILITIES if corpus.sources(c)]
    targets = [str(t) for t in rng.permutation(targets)[: draw(rng, "targets")]]
    knobs: Knobs = {"shape": kind, "class": kind, "accounts": n, "targets": targets, "pool_of": None}
    knobs["sources"] = {t: _sources(rng, corpus, kind, t) for t in targets}
    knobs["target_weights"] = [round(float(w), 3) for w in rng.dirichlet(np.full(len(targets), 2.0))]
    mean = settings.exchanges / settings.accounts
    knobs |= _shared(rng, kind, n) | _hiding(rng, kind, n, mean) | _working(rng, settings, kind)
    return knobs


def _sources(rng: np.random.Generator, corpus: Corpus, kind: str, target: str) -> list[str]:
    """One or two prompt sets for a target."""
    options = LISTS[target] if kind == "public_list" else corpus.sources(target)
    return [str(s) for s in rng.permutation(options)[: int(rng.integers(1, 3))]]


def _shared(rng: np.random.Generator, kind: str, n: int) -> Knobs:
    """Wording, cards and addresses."""
    while True:
        wording, cards, addresses = (draw(rng, f"share_{x}") for x in ("wording", "cards", "addresses"))
        if wording or cards or addresses or kind in ("purpose_only", "public_list"):
            break
    if kind == "four_requests":
        wording = True
    if kind == "purpose_only":
        wording = cards = addresses = False
    at_a_time = int(np.exp(rng.uniform(0, np.log(30))))
    # A pool whose addresses fewer than four accounts meet on is no longer a shared one.
    pool = max(1, min(round(n * draw(rng, "addresses_per_account")), n * at_a_time // 4))
    words = str(pick(rng, {"fixed": 0.3, "several": 0.4, "jitter": 0.3})) if wording else "paraphrase"
    return {
        "wording": "bare" if kind == "public_list" else words,
        "wrappers": 1 if words == "fixed" else draw(rng, "wrappers"),
        "jitter": draw(rng, "jitter") if words == "jitter" else 0.0,
        "source_template": draw(rng, "source_template") and wording,
        "in_system": draw(rng, "in_system"),
        "accounts_per_card": draw(rng, "accounts_per_card") if cards else 1,
        "addresses": pool if addresses else 0,
        "addresses_at_a_time": at_a_time,
        "rotation": str(pick(rng, {"forever": 0.2, "days": 0.35, "hourly": 0.3, "each": 0.15})),
        "pool_kind": str(pick(rng, {"isp": 0.6, "hosting": 0.25, "mobile": 0.15})),
        "pool_with_residents": draw(rng, "pool_with_residents"),
        "pool_weight": round(float(rng.uniform(0.7, 1.0)), 3),
    }


def _hiding(rng: np.random.Generator, kind: str, n: int, mean: float) -> Knobs:
    """Camouflage, customers, bans, volume."""
    proxy = kind == "proxy"
    banned = kind in ("shares", "proxy") and n >= 100 and draw(rng, "bans")
    return {
        "camouflage": 0.0 if proxy else draw(rng, "purpose_camouflage" if kind == "purpose_only" else "camouflage"),
        "customers": draw(rng, "customers") if proxy else 0.0,
        "generations": draw(rng, "generations") if banned or proxy else 1,
        "requests": draw(rng, "requests_four")
        if kind == "four_requests"
        else round(max(4.0, mean * draw(rng, "requests")), 1),
        "requests_sigma": 0.35 if kind == "four_requests" else draw(rng, "requests_sigma"),
        "aged": draw(rng, "aged"),
        "crossing": draw(rng, "crossing"),
        "virtual": draw(rng, "virtual"),
        "hours_of_operator": bool(rng.random() < 0.4),
        "one_client": bool(rng.random() < 0.4),
        "signups": str(pick(rng, {"burst": 0.3, "batches": 0.4, "spread": 0.3})),
    }


def _working(rng: np.random.Generator, settings: Settings, kind: str) -> Knobs:
    """Schedule, models, parameters."""
    hard = draw(rng, "pivots")
    span = draw(rng, "span")
    begin = float(rng.uniform(0, 1 - span))
    release = (settings.release - settings.start) / (settings.end - settings.start)
    if hard:  # a move can only be seen if the campaign is at work on both sides
        begin, span = min(begin, release - 0.15), max(span, release + 0.15 - min(begin, release - 0.15))
    tempo = {"human": 0.35, "clock": 0.15, "balanced": 0.3, "lockstep": 0.2}
    channels = ["api"] + (
        ["cloud:altus", "cloud:meridian", "reseller:anyroute"][: int(rng.integers(1, 4))] if draw(rng, "clouds") else []
    )
    return {
        "begin": round(begin, 4),
        "span": round(span, 4),
        "pivots": hard,
        "pivot": draw(rng, "pivot_hard" if hard else "pivot"),
        "tempo": "human" if kind == "purpose_only" else str(pick(rng, tempo)),
        "reask": draw(rng, "reask"),
        "follow": draw(rng, "follow"),
        "curriculum": draw(rng, "curriculum"),
        "channels": channels,
        "tools": draw(rng, "tools"),
        "tools_sent": draw(rng, "tools_sent"),
        "tools_public": bool(rng.random() < 0.5),
        "passes": draw(rng, "passes"),
        "run": draw(rng, "run"),
        "run_gap_s": draw(rng, "run_gap_s"),
        "temperature": float(rng.choice([0.0, 0.6, 0.7, 1.0])) if draw(rng, "temperature") else None,
        "logprobs": draw(rng, "logprobs"),
        "answers": int(rng.choice([2, 4, 8])) if draw(rng, "several_answers") else None,
        "thinking": draw(rng, "thinking"),
        "max_tokens": int(rng.choice([2048, 4096, 8192])) if rng.random() < 0.3 else None,
        "one_model": bool(rng.random() < 0.5),
    }
