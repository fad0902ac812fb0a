"""The outcome of a registered test: JSON to be signed, and one self-contained page for people.

No script, no network, nothing loaded. Names of files and campaigns are escaped, with control characters written out. A p is
told as ``< 1e-50`` at most: further out it says no more than that the null is false.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from stillwatch import __version__
from stillwatch.pages import environment_of, tightened
from stillwatch.protection.outcomes import FEW, PROVEN, Outcome
from stillwatch.protection.proving import Counted, Proof, Tested
from stillwatch.protection.registration import THRESHOLD, Committed, Registration
from stillwatch.protection.verdicts import ALTERNATIVES, LIMITS, SEVERAL_MEAN, Verdict
from stillwatch.protection.vetting import FACTOR
from stillwatch.report.charts import svg, text, trim
from stillwatch.report.words import count, counted, share, visible

LEAST_TOLD = -50
"""log10 p below which only that is told."""
ROWS = 24
"""Keys in the page's table, those that fire first; the JSON has all."""
WIDTH, HEIGHT, LEFT, BELOW = 720.0, 260.0, 44.0, 30.0

HEADLINES = {
    Verdict.LEARNT: "Learnt from campaign {}'s outputs",
    Verdict.SEVERAL: "More than one key fires",
    Verdict.LICENSED: "Only licensed keys fire",
    Verdict.INCONCLUSIVE: "Inconclusive",
}


def p_text(log10_p: float) -> str:
    """A p as people read it; ``< 1e-50`` at most."""
    if log10_p < LEAST_TOLD:
        return f"< 1e{LEAST_TOLD}"
    return f"{10**log10_p:.2g}" if log10_p > -4 else f"{10 ** (log10_p % 1):.1f}e{math.floor(log10_p)}"


def plain(proof: Proof, registered: Registration, made_at: str, signer: str) -> dict[str, Any]:
    """The report as JSON values."""
    names = {s.sha256: s for s in registered.suspects}
    keys = {k.key_id: k for k in registered.keys}
    suspects = [
        {
            **names[sha256].to_dict(),
            "verdict": str(judged.verdict),
            "headline": HEADLINES[judged.verdict].format(*judged.campaigns[:1] or ("",)),
            "sentence": judged.sentence,
            "campaigns": list(judged.campaigns),
            "firing_keys": list(judged.keys),
            "next_steps": list(judged.next_steps),
            "tests": [_test(t, keys[t.key_id], registered) for t in proof.tested[sha256]],
            "read": [dict(r) for r in proof.read[sha256]],
        }
        for sha256, judged in proof.judged.items()
    ]
    return {
        "version": __version__,
        "made_at": made_at,
        "made_by": signer,
        "registration": {**registered.plain(), "digest": registered.digest},
        "suspects": suspects,
        "not_at_hand": [s.to_dict() for s in registered.suspects if s.sha256 not in proof.judged],
        "files": [c.plain() for c in proof.counted],
        "several_mean": list(SEVERAL_MEAN),
        "alternatives": list(ALTERNATIVES),
        "limits": list(LIMITS),
        "method": _method(registered),
    }


def _method(registered: Registration) -> list[str]:
    form = "the suspect's next-token shares on served text, less the provider's own model's"
    if registered.served is None:
        form = "how often the suspect's text continues a window so, less how often the provider's own unwatermarked text does"
    return [
        f"Residual: {form}; averaged by window of tokens, and weighed by whether the key favours each token.",
        f"A p below {PROVEN:g} is Chernoff's bound or an exact binomial tail, and no approximation. Above, the normal tail is "
        f"used from {FEW:g} effective terms on.",
        f"Keys are vetted at issue, which may raise a p by a factor of {FACTOR:.2f} at most: it is counted in.",
        "Holm's correction over keys x suspects x statistics, tested or not: "
        f"{counted(registered.hypotheses, 'hypothesis', 'hypotheses')}, threshold {registered.threshold:.2g} after it "
        f"({THRESHOLD:g} for the first test of a suspect, less by the square of their number for those that follow).",
        "Texts that stand twice count once, a window counts at its first place in a sequence, a prompt never.",
        "Replication: the text was dealt into two halves by the registered seed, and a key fires where both halves do.",
    ]


def _test(tested: Tested, key: Committed, registered: Registration) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "campaign_id": key.campaign_id,
        "epoch": key.epoch,
        "licensed": key.licensed,
        "statistic": str(tested.statistic),
        "halves": [_half(h) for h in tested.halves],
        "p": p_text(tested.log10_p),
        "log10_p": round(max(tested.log10_p, LEAST_TOLD), 3),
        "adjusted_p": p_text(tested.adjusted),
        "adjusted_log10_p": round(max(tested.adjusted, LEAST_TOLD), 3),
        "fires": tested.adjusted <= math.log10(registered.threshold),
    }


def _half(outcome: Outcome) -> dict[str, Any]:
    return {
        "z": round(outcome.z, 3), "p": p_text(outcome.log10_p), "terms": outcome.terms,
        "effective": round(outcome.effective, 1), "effect": round(outcome.effect, 5),
    }  # fmt: skip


def page(told: Mapping[str, Any]) -> str:
    """The report as HTML text."""
    style = files("stillwatch.report").joinpath("style.css").read_text(encoding="utf-8")
    made = _environment().get_template("proof.html").render(told=told, style=style)
    return tightened(made)


def picture(tests: Sequence[Mapping[str, Any]], needed: float) -> Markup:
    """The z of every key in its weaker half, in the order of the keys; those that fire stand out by size, ring and name."""
    zs = [min(h["z"] for h in t["halves"]) for t in tests]
    low, high = min([-4.0, *zs]), max([needed + 1, *zs])
    down = (HEIGHT - BELOW - 20) / (high - low)
    wide = (WIDTH - LEFT - 90) / max(len(zs), 1)
    at = [(LEFT + wide * (i + 0.5), 20 + (high - z) * down) for i, z in enumerate(zs)]
    body = [_level(0.0, 20 + high * down, "z = 0"), _level(needed, 20 + (high - needed) * down, "fires")]
    dots = "".join(f"M{trim(x)} {trim(y)}h0" for (x, y), t in zip(at, tests, strict=True) if not t["fires"])
    body += [f'<path class="dots" d="{dots}"/>'] if dots else []
    firing = [(p, t, z) for p, t, z in zip(at, tests, zs, strict=True) if t["fires"]]
    for (x, y), t, z in firing:
        body.append(f'<circle class="fires" cx="{trim(x)}" cy="{trim(y)}" r="6"/>')
        body.append(text(x + 10, y + 4, f"{visible(t['campaign_id'], 24)}, z {z:.1f}", "tick strong"))
    said = f"z of {counted(len(tests), 'test')}; of them fire: {len(firing)}"
    return svg(WIDTH, HEIGHT, body, label=said, css="proof")


def _level(z: float, y: float, said: str) -> str:
    line = f'<path class="{"needed" if z else "axis"}" d="M{trim(LEFT)} {trim(y)}H{trim(WIDTH - 10)}"/>'
    return line + text(2, y + 4, said, "tick")


def shown(tests: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The tests of the page's table: those that fire, then the largest z."""
    return sorted(tests, key=lambda t: (not t["fires"], -min(h["z"] for h in t["halves"])))[:ROWS]


def lines_of(counted_files: Sequence[Counted]) -> list[str]:
    """What was left out of files of texts, a line each."""
    return [str(r) for c in counted_files for r in c.rejects]


@cache
def _environment() -> Environment:
    environment = environment_of("stillwatch.protection")
    environment.filters.update(count=count, share=share, visible=visible)
    environment.globals.update(picture=picture, shown=shown)
    return environment
