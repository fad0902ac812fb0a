"""A policy from its TOML file, checked whole: all faults at once, each with its line, its table and what to do."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from stillwatch.errors import UsageError
from stillwatch.policy.deciding import ESCALATION, HOLDOUT
from stillwatch.policy.nouns import Bulk, Caps, Escalation, Holdout, Organisations, Policy, Rule, When
from stillwatch.policy.places import Places, suggestion
from stillwatch.responders import ladder
from stillwatch.statements import PERSON, Wording
from stillwatch.types import CAPABILITIES, Rung
from stillwatch.windows import parse_length

Path_ = tuple[str, ...]
T = TypeVar("T")

TABLES = {
    "rules": ("name", "when", "rung", "settings", "after", "jitter", "lasts", "shadow", "signatures"),
    "caps": ("accounts_per_hour", "traffic_share_per_hour"),
    "bulk": ("suspend",),
    "holdout": ("share", "rungs"),
    "organisations": ("ask", "known"),
    "escalation": ("escalate_after", "ladder", "lasts", "signatures", "settings"),
    "statement": ("text", "ground", "appeal_url", "case_url", "scope"),
}
"""Tables of a policy and their keys."""

CONDITIONS = ("confidence", "risk", "accounts", "days", "capabilities")
LONGEST = timedelta(days=366)


def load(path: Path | None = None) -> Policy:
    """The policy in ``path``, or the default one. UsageError lists every fault of the file."""
    if path is None:
        place = files("stillwatch").joinpath("default_policy.toml")
        return parse(place.read_text(encoding="utf-8"), "default_policy.toml")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: the policy cannot be read: {e}") from e
    return parse(text, str(path))


def parse(text: str, file: str = "policy") -> Policy:
    """The policy that a TOML text holds; ``file`` is the name its faults are told under."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"{file}: no TOML: {e}") from e
    check = _Check(Places.of(file, text))
    policy = check.policy(raw)
    if check.faults:
        count = len(check.faults)
        listed = "\n  ".join(check.faults)
        raise UsageError(f"{file}: {count} fault{'s' if count > 1 else ''} in the policy\n  {listed}")
    return policy


@dataclass(slots=True)
class _Check:
    """Reads tables into nouns; what is wrong goes to ``faults`` and a default stands in, so that reading can go on."""

    places: Places
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def policy(self, raw: Mapping[str, Any]) -> Policy:
        self.only((), raw, TABLES)
        rules = self.rules(raw.get("rules"))
        escalation = self.escalation(raw["escalation"]) if "escalation" in raw else None
        statement = self.statement(self.table(raw, "statement"))
        rungs = {r.rung for r in rules} | set(escalation.ladder if escalation else ())
        if any(r.height >= Rung.VERIFY.height for r in rungs) and not statement.appeal_url:
            self.notes.append("[statement] names no appeal_url: accounts are told to appeal through support")
        return Policy(
            rules,
            self.caps(self.table(raw, "caps")),
            Bulk(self.number(("bulk", "suspend"), self.table(raw, "bulk"), 20, int, 0)),
            self.holdout(self.table(raw, "holdout")),
            self.organisations(self.table(raw, "organisations")),
            escalation,
            statement,
            tuple(self.notes),
        )

    def rules(self, raw: Any) -> tuple[Rule, ...]:
        if not isinstance(raw, list) or not raw or not all(isinstance(r, dict) for r in raw):
            self.fault((), "it has no rules", "add a table [[rules]] with name, when, rung and lasts")
            return ()
        rules = [self.rule(("rules", str(n)), table) for n, table in enumerate(raw)]
        for n, rule in enumerate(rules):
            if rule.name in (r.name for r in rules[:n]):
                self.fault(("rules", str(n), "name"), f"there is a rule {rule.name!r} already", "names must differ")
        return tuple(rules)

    def rule(self, at: Path_, raw: Mapping[str, Any]) -> Rule:
        self.only(at, raw, TABLES["rules"])
        rung = self.rung((*at, "rung"), raw.get("rung"))
        return Rule(
            name=self.name((*at, "name"), raw.get("name")),
            rung=rung,
            lasts=self.length((*at, "lasts"), raw.get("lasts"), is_required=True),
            when=self.when((*at, "when"), raw.get("when", {})),
            settings=self.settings((*at, "settings"), raw.get("settings", {}), rung),
            after=self.length((*at, "after"), raw.get("after")),
            jitter=self.length((*at, "jitter"), raw.get("jitter")),
            shadow=self.flag((*at, "shadow"), raw.get("shadow", False)),
            signatures=self.signatures((*at, "signatures"), raw, rung),
        )

    def name(self, at: Path_, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            self.fault(at, "a rule needs a name", 'such as name = "slow_down"')
            return ""
        if value in (ESCALATION, HOLDOUT, PERSON):
            self.fault(at, f"{value!r} is a name of our own", "take another")
        return value

    def rung(self, at: Path_, value: Any) -> Rung:
        if value in list(Rung):
            return Rung(value)
        self.fault(at, f"{value!r} is no rung" if value is not None else "no rung given", suggestion(str(value), Rung))
        return Rung.OBSERVE

    def when(self, at: Path_, raw: Any) -> When:
        if not isinstance(raw, dict):
            self.fault(at, "must be a table", "such as when = { confidence = 0.9, accounts = 20 }")
            return When()
        self.only(at, raw, CONDITIONS)
        wanted = tuple(self.texts((*at, "capabilities"), raw.get("capabilities", [])))
        for c in wanted:
            if c not in CAPABILITIES:
                self.fault((*at, "capabilities"), f"{c!r} is no capability", suggestion(c, CAPABILITIES))
        return When(
            confidence=self.number((*at, "confidence"), raw, 0.0, float, 0, 1),
            risk=self.number((*at, "risk"), raw, 0.0, float, 0, 1),
            accounts=self.number((*at, "accounts"), raw, 0, int, 0),
            days=self.number((*at, "days"), raw, 0.0, float, 0, 366),
            capabilities=wanted,
        )

    def settings(self, at: Path_, raw: Any, rung: Rung) -> dict[str, Any]:
        """Settings of a rung, as its responder knows them."""
        if not isinstance(raw, dict):
            self.fault(at, "must be a table", "such as settings = { requests_per_minute = 6 }")
            return {}
        known = ladder()[rung.height].settings
        for name in raw:
            if name not in known:
                hint = suggestion(name, known) if known else f"{rung} has no settings"
                self.fault((*at, name), f"{rung} has no setting {name!r}", hint)
            elif wrong := known[name].fault(raw[name]):
                self.fault((*at, name), wrong, known[name].meaning)
        for name, setting in known.items():
            if setting.is_required and name not in raw:
                self.fault(at, f"{rung} needs {name!r}", setting.meaning)
        return dict(raw)

    def signatures(self, at: Path_, raw: Mapping[str, Any], rung: Rung) -> int:
        least = int(rung.height >= Rung.VERIFY.height)
        given = self.number(at, raw, least, int, 0, 5)
        if given == 0 and rung.height > Rung.VERIFY.height:
            self.fault(at, f"{rung} is never done without a person", "signatures = 1, or more")
        if given == 0 and rung is Rung.VERIFY:
            self.notes.append(f"{'.'.join(at[:-1])} asks accounts to be verified without a person's signature")
        return given

    def escalation(self, raw: Any) -> Escalation | None:
        at: Path_ = ("escalation",)
        if not isinstance(raw, dict):
            self.fault(at, "must be a table", "[escalation]")
            return None
        self.only(at, raw, TABLES["escalation"])
        rungs = tuple(self.rung((*at, "ladder"), r) for r in self.texts((*at, "ladder"), raw.get("ladder", [])))
        if len(rungs) < 2 or any(low.height >= high.height for low, high in pairwise(rungs)):
            self.fault(
                (*at, "ladder"), "must name at least two rungs, milder ones first", 'ladder = ["throttle", "verify"]'
            )
        given = raw.get("settings", {})
        if not isinstance(given, dict) or not all(isinstance(v, dict) for v in given.values()):
            self.fault((*at, "settings"), "must hold a table for each rung", "[escalation.settings.restrict]")
            given = {}
        for name in given:
            if name not in rungs[1:]:
                self.fault(
                    (*at, "settings", name), f"{name!r} is not reached on the ladder", suggestion(name, rungs[1:])
                )
        settings = {r: self.settings((*at, "settings", r.value), given.get(r.value, {}), r) for r in rungs[1:]}
        signatures = [self.signatures((*at, "signatures"), raw, r) for r in rungs[-1:]]
        return Escalation(
            self.length((*at, "escalate_after"), raw.get("escalate_after"), is_required=True),
            rungs,
            self.length((*at, "lasts"), raw.get("lasts"), is_required=True),
            max(signatures, default=1),
            settings,
        )

    def caps(self, raw: Mapping[str, Any]) -> Caps:
        at, usual = ("caps",), Caps()
        return Caps(
            self.number((*at, "accounts_per_hour"), raw, usual.accounts_per_hour, int, 0),
            self.number((*at, "traffic_share_per_hour"), raw, usual.traffic_share_per_hour, float, 0, 1),
        )

    def holdout(self, raw: Mapping[str, Any]) -> Holdout:
        at = ("holdout",)
        rungs = tuple(self.rung((*at, "rungs"), r) for r in self.texts((*at, "rungs"), raw.get("rungs", [])))
        return Holdout(self.number((*at, "share"), raw, 0.0, float, 0, 0.5), rungs)

    def organisations(self, raw: Mapping[str, Any]) -> Organisations:
        at, ask = ("organisations",), raw.get("ask", "declared")
        if ask not in ("declared", "known"):
            self.fault(
                (*at, "ask"), f"{ask!r} is neither declared nor known", suggestion(str(ask), ("declared", "known"))
            )
        return Organisations(str(ask), tuple(self.texts((*at, "known"), raw.get("known", []))))

    def statement(self, raw: Mapping[str, Any]) -> Wording:
        at = ("statement",)
        given = {name: self.text((*at, name), raw[name]) for name in TABLES["statement"] if name in raw}
        for name in ("appeal_url", "case_url"):
            if (url := given.get(name)) and not (url.startswith(("https://", "http://")) and _is_plain(url)):
                self.fault((*at, name), f"{url!r} is no URL", 'such as "https://your.site/appeal?case={case}"')
        return Wording(**given)

    def table(self, raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        found = raw.get(name, {})
        if not isinstance(found, dict):
            self.fault((name,), "must be a table", f"[{name}]")
            return {}
        self.only((name,), found, TABLES[name])
        return found

    def only(self, at: Path_, raw: Mapping[str, Any], known: Mapping[str, Any] | tuple[str, ...]) -> None:
        for name in raw:
            if name not in known:
                self.fault((*at, name), "unknown", suggestion(name, known))

    def length(self, at: Path_, value: Any, *, is_required: bool = False) -> timedelta:
        if value is None and not is_required:
            return timedelta(0)
        try:
            return timedelta(0) if value == "0s" and not is_required else parse_length(value)
        except (UsageError, AttributeError, TypeError):
            what = "missing" if value is None else f"{value!r} is no length of time"
            self.fault(at, what, 'a number and s, m, h or d, up to 366d: "14d"')
            return timedelta(days=1)

    def number(
        self, at: Path_, raw: Mapping[str, Any], usual: T, kind: type, least: float, most: float = float("inf")
    ) -> T:
        value = raw.get(at[-1], usual)
        wanted: Any = (int, float) if kind is float else int
        if isinstance(value, bool) or not isinstance(value, wanted) or not least <= value <= most:
            span = f"from {least:g} to {most:g}" if most < float("inf") else f"of at least {least:g}"
            self.fault(at, f"must be a {'whole ' if kind is int else ''}number {span}, not {value!r}")
            return usual
        return value

    def flag(self, at: Path_, value: Any) -> bool:
        if not isinstance(value, bool):
            self.fault(at, f"must be true or false, not {value!r}")
        return value is True

    def text(self, at: Path_, value: Any) -> str:
        if not isinstance(value, str):
            self.fault(at, f"must be a text, not {value!r}")
            return ""
        return value

    def texts(self, at: Path_, value: Any) -> Iterator[str]:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            self.fault(at, f"must be a list of texts, not {value!r}")
            return
        yield from value

    def fault(self, at: Path_, message: str, hint: str = "") -> None:
        self.faults.append(self.places.fault(at, message, hint))


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and not set(url) & set(' "<>\\')
