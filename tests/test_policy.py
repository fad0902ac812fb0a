"""A policy is read whole, decides the same for the same seed, and is told before it acts."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fixtures_findings
from stillwatch import cli, results
from stillwatch.actions import Actions
from stillwatch.errors import UsageError
from stillwatch.findings import CLEARED_AT, Findings, accounts_table
from stillwatch.policy import (
    Newest,
    Policy,
    Suspect,
    Told,
    Traffic,
    accounts_of,
    decide,
    explain,
    findings_of,
    load,
    parse,
    preview,
    ties_of,
    told_of,
    traffic_of,
)
from stillwatch.rehearsal import Rehearsal, Tally, rehearse
from stillwatch.statements import PERSON
from stillwatch.store.state import Judgement, State
from stillwatch.types import Action, Rung, Standing

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SEED = b"seed"
OPEN = "[caps]\naccounts_per_hour = 100000\ntraffic_share_per_hour = 1.0\n"
"""Caps that hold nothing back."""


def rule(rung: str = "throttle", name: str = "slow", more: str = "") -> str:
    settings = {"throttle": "settings = { requests_per_minute = 6 }", "restrict": 'settings = { models = ["m"] }'}
    return f'[[rules]]\nname = "{name}"\nrung = "{rung}"\nlasts = "14d"\n{settings.get(rung, "")}\n{more}\n'


def told(accounts: int = 5, campaign_id: str = "C-1", days_ago: float = 2, **more: Any) -> Told:
    suspects = tuple(Suspect(f"{campaign_id}-a{n}", 0.95) for n in range(accounts))
    values: dict[str, Any] = {
        "confidence": 0.97, "exchanges": 100 * accounts, "last_seen": NOW - HOUR, "detected_at": NOW - days_ago * DAY,
        "capabilities": {"cot_elicitation": 0.8, "grading": 0.05}, "accounts": suspects,
    }  # fmt: skip
    return Told(campaign_id, **(values | more))


def newest(*campaigns: Told, elsewhere: Iterable[str] = (), exchanges: int = 1_000_000) -> Newest:
    return Newest(campaigns, frozenset(elsewhere), exchanges)


def proposed(
    policy: str | Policy, found: Newest, known: Iterable[Action] = (), now: datetime = NOW, seed: bytes = SEED,
    traffic: Traffic | None = None, **verdicts: str,
) -> list[Action]:  # fmt: skip
    read = parse(policy) if isinstance(policy, str) else policy
    judged = {s.replace("_", "-"): Judgement(s, v, "ann", "seen", now - HOUR) for s, v in verdicts.items()}
    return list(decide(read, found, list(known), judged, traffic or Traffic(), now, seed))


def begun(actions: Iterable[Action]) -> list[Action]:
    """As they stand once signed and begun."""
    return [dataclasses.replace(a, standing=Standing.IN_FORCE) for a in actions]


# Reading


def test_the_default_is_mild() -> None:
    rules = {r.rung: r for r in load().rules}
    assert rules[Rung.OBSERVE].after == rules[Rung.PROTECT].after == timedelta(0)
    assert rules[Rung.THROTTLE].after >= DAY
    assert all(r.signatures >= (r.rung.height >= Rung.VERIFY.height) for r in rules.values())
    assert all(r.lasts > timedelta(0) for r in rules.values())


def test_all_faults_are_told_at_once_with_their_lines() -> None:
    text = (
        "rulez = 1\n"
        "[[rules]]\n"
        'name = "a"\n'
        'rung = "throtle"\n'
        "when = { confidance = 0.9, risk = 3 }\n"
        'lasts = "x"\n'
        "[[rules]]\n"
        'name = "a"\n'
        'rung = "suspend"\n'
        'lasts = "2d"\n'
        "signatures = 0\n"
        "settings = { speed = 1 }\n"
        "[caps]\n"
        "accounts_per_hour = -1\n"
        "[statement]\n"
        'appeal_url = "javascript:alert(1)"\n'
    )
    with pytest.raises(UsageError) as caught:
        parse(text, "p.toml")
    said = str(caught.value)
    for line in (
        "p.toml: 10 faults", "p.toml:1: rulez: unknown", "did you mean 'rules'?", "p.toml:4: rules.0.rung: 'throtle' is no rung",
        "did you mean 'throttle'?", "p.toml:5: rules.0.when.confidance: unknown", "did you mean 'confidence'?",
        "p.toml:5: rules.0.when.risk: must be a number from 0 to 1, not 3", "p.toml:6: rules.0.lasts: 'x' is no length",
        "p.toml:8: rules.1.name: there is a rule 'a' already", "p.toml:11: rules.1.signatures: suspend is never done without",
        "p.toml:12: rules.1.settings.speed: suspend has no setting 'speed'", "p.toml:14: caps.accounts_per_hour: must be",
        "p.toml:16: statement.appeal_url: 'javascript:alert(1)' is no URL",
    ):  # fmt: skip
        assert line in said


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it has no rules"),
        ("rules = 3", "it has no rules"),
        ("rules = [", "no TOML"),
        (rule(more="jitter = 3"), "3 is no length of time"),
        (rule(more='shadow = "yes"'), "must be true or false"),
        (rule(more="signatures = 1.5"), "must be a whole number"),
        (rule(more='when = { capabilities = ["codign"] }'), "did you mean 'coding'?"),
        (rule("restrict", more="").replace("settings", "#"), "restrict needs 'models'"),
        (rule(name="holdout"), "is a name of our own"),
        (rule() + "[holdout]\nshare = 0.9", "must be a number from 0 to 0.5"),
        (rule() + '[organisations]\nask = "knwon"', "did you mean 'known'?"),
        (
            rule() + '[escalation]\nescalate_after = "7d"\nlasts = "7d"\nladder = ["verify", "throttle"]',
            "milder ones first",
        ),
        (
            rule() + '[escalation]\nladder = ["throttle", "restrict"]\nlasts = "7d"',
            "escalation.escalate_after: missing",
        ),
        (rule() + '[escalation]\nladder = ["throttle", "restrict"]\nlasts = "7d"', "restrict needs 'models'"),
    ],
)
def test_what_is_wrong_is_told(text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault.replace("?", r"\?")):
        parse(text)


@given(
    st.dictionaries(
        st.sampled_from(["name", "rung", "when", "lasts", "settings", "after", "x"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.booleans(),
            st.text(max_size=3),
            st.lists(st.integers(), max_size=2),
            st.floats(0, 1),
        ),
    )
)
def test_no_value_of_any_kind_is_taken_for_a_policy_by_accident(raw: dict[str, Any]) -> None:
    def plain(value: Any) -> str:
        return "{}" if value is None else json.dumps(value)

    text = "[[rules]]\n" + "".join(f"{name} = {plain(value)}\n" for name, value in raw.items())
    with pytest.raises(UsageError):
        parse(text)


def test_a_missing_appeal_url_is_noted_where_it_matters() -> None:
    assert not parse(rule()).notes
    assert "no appeal_url" in parse(rule("suspend")).notes[0]
    assert not parse(rule("suspend") + '[statement]\nappeal_url = "https://a.example"').notes


# Conditions


def when(text: str) -> str:
    return rule(more=f"when = {{ {text} }}") + OPEN


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("confidence = 0.97", True), ("confidence = 0.98", False), ("accounts = 5", True), ("accounts = 6", False),
        ("risk = 0.95", True), ("risk = 0.96", False), ("days = 2", True), ("days = 2.1", False),
        ('capabilities = ["cot_elicitation", "vision"]', True), ('capabilities = ["vision"]', False),
        ('capabilities = ["grading"]', False), ("confidence = 0.9, risk = 0.99", False),
    ],
)  # fmt: skip
def test_a_rule_holds_where_all_its_conditions_do(condition: str, holds: bool) -> None:
    assert len(proposed(when(condition), newest(told()))) == (5 if holds else 0)


def test_only_the_accounts_that_are_sure_enough_are_hit() -> None:
    mixed = told(accounts=0, capabilities={})
    mixed = dataclasses.replace(mixed, accounts=(Suspect("low", 0.2), Suspect("high", 0.9)))
    assert [a.account_id for a in proposed(when("risk = 0.5"), newest(mixed))] == ["high"]


def test_an_action_says_all_that_it_must() -> None:
    (a,) = proposed(
        rule("verify", more="signatures = 2") + '[statement]\nappeal_url = "https://a.example"', newest(told(1))
    )
    assert (a.account_id, a.campaign_id, a.rung, a.rule, a.needed) == ("C-1-a0", "C-1", Rung.VERIFY, "slow", 2)
    assert a.standing is Standing.PENDING and a.signatures == ()
    assert a.expires_at - a.starts_at == 14 * DAY
    assert a.settings == {"acr_values": "mfa", "max_age": 3600, "appeal_url": "https://a.example"}
    assert a.key == "C-1|C-1-a0|slow|0"


def test_an_action_is_taken_by_the_actions_that_carry_it_out(tmp_path: Path) -> None:
    class Paper:
        def append(self, *entry: Any) -> int:
            return 0

    rungs = "".join(rule(r, name=r) for r in Rung)
    with State(tmp_path / "s.db") as state:
        actions = Actions(state, Paper(), clock=lambda: NOW)
        first = proposed(rungs + OPEN, newest(told(2)))
        assert len(actions.propose(first)) == 2 * len(Rung)
        assert actions.propose(first) == []
        assert proposed(rungs + OPEN, newest(told(2)), actions.known(NOW)) == []
        actions.start_due(NOW)
        undone = proposed(rungs + OPEN, newest(elsewhere=["C-1-a0", "C-1-a1"]), actions.known(NOW))
        actions.propose(undone)
        assert actions.in_force(NOW) == {}
        assert actions.standing() == []


# Time


def test_the_same_seed_gives_the_same_and_another_seed_another_delay() -> None:
    policy = rule(more='after = "1d"\njitter = "3d"') + OPEN
    found = newest(told(), told(campaign_id="C-2"))
    starts = {a.campaign_id: a.starts_at for a in proposed(policy, found)}
    assert proposed(policy, found) == proposed(policy, found)
    assert {a.starts_at for a in proposed(policy, found) if a.campaign_id == "C-1"} == {starts["C-1"]}, "all at once"
    assert starts["C-1"] != starts["C-2"]
    assert {a.campaign_id: a.starts_at for a in proposed(policy, found, seed=b"other")} != starts


@given(st.binary(min_size=1, max_size=8), st.integers(0, 100), st.integers(0, 100), st.floats(0, 20))
def test_delay_lies_between_after_and_jitter_and_never_in_the_past(
    seed: bytes, after: int, jitter: int, age: float
) -> None:
    policy = rule(more=f'after = "{after + 1}h"\njitter = "{jitter + 1}h"') + OPEN
    (a,) = proposed(policy, newest(told(1, days_ago=age)), seed=seed)
    since = NOW - age * DAY
    assert (
        max(NOW, since + (after + 1) * HOUR)
        <= a.starts_at
        < max(NOW, since + (after + jitter + 2) * HOUR) + HOUR / 3600
    )
    assert NOW <= a.starts_at < a.expires_at


def test_any_order_of_campaigns_and_accounts_gives_the_same() -> None:
    found = [told(20, f"C-{n}", days_ago=n / 7) for n in range(5)]
    policy = rule(more='after = "1d"\njitter = "5h"') + "[caps]\naccounts_per_hour = 30\ntraffic_share_per_hour = 1.0"
    first = proposed(policy, newest(*found))
    random.Random(3).shuffle(found)
    again = proposed(policy, newest(*found))
    assert {(a.key, a.starts_at) for a in first} == {(a.key, a.starts_at) for a in again}


def test_an_action_is_renewed_when_it_has_run_out_and_the_campaign_goes_on() -> None:
    policy = rule() + OPEN
    (first,) = proposed(policy, newest(told(1, days_ago=0)))
    later = NOW + 14 * DAY + HOUR
    goes_on = newest(told(1, days_ago=0, last_seen=later - DAY))
    assert proposed(policy, goes_on, begun([first]), now=NOW + 13 * DAY) == []
    (renewed,) = proposed(policy, goes_on, now=later)
    assert renewed.key == "C-1|C-1-a0|slow|1"
    assert renewed.starts_at == later
    assert proposed(policy, newest(told(1, days_ago=0)), now=later + 14 * DAY) == [], "it has stopped"


def test_what_was_refused_or_undone_is_not_proposed_again_while_its_period_lasts() -> None:
    policy = rule() + OPEN
    first = proposed(policy, newest(told()))
    for standing in (Standing.REFUSED, Standing.UNDONE):
        ended = [dataclasses.replace(a, standing=standing) for a in first]
        assert proposed(policy, newest(told()), ended, now=NOW + 9 * DAY) == []


def test_a_scans_campaign_is_known_since_it_was_first_acted_on() -> None:
    policy = rule("observe", "watch") + rule(more="when = { days = 2 }") + OPEN
    scanned = newest(told(1, detected_at=None))
    (watch,) = proposed(policy, scanned)
    later = NOW + 2 * DAY
    (slow,) = proposed(policy, scanned, begun([watch]), now=later)
    assert (watch.rule, slow.rule, slow.starts_at) == ("watch", "slow", later)


# People outrank rules


@pytest.mark.parametrize("subject", ["C_1", "C_1_a0"])
def test_a_negative_judgement_undoes_and_proposes_nothing(subject: str) -> None:
    policy = rule() + OPEN
    first = begun(proposed(policy, newest(told())))
    after = proposed(policy, newest(told()), first, **{subject: "negative"})
    spared = {"C-1-a0"} if "a0" in subject else {a.account_id for a in first}
    assert {(a.account_id, a.standing) for a in after} == {(s, Standing.UNDONE) for s in spared}
    anew = proposed(policy, newest(told()), **{subject: "negative"})
    assert {a.account_id for a in anew} == {a.account_id for a in first} - spared


def test_unsure_leaves_observing_alone() -> None:
    policy = rule("observe", "watch") + rule() + OPEN
    first = begun(proposed(policy, newest(told(1))))
    after = proposed(policy, newest(told(1)), first, C_1="unsure")
    assert [(a.rule, a.standing) for a in after] == [("slow", Standing.UNDONE)]
    assert [a.rule for a in proposed(policy, newest(told(1)), C_1="unsure")] == ["watch"]


def test_a_positive_judgement_counts_as_certain_and_an_accounts_own_outranks_its_campaigns() -> None:
    policy = rule(more="when = { confidence = 0.99, risk = 0.99 }") + OPEN
    assert proposed(policy, newest(told(2)), C_1="positive") == []
    found = proposed(policy, newest(told(2)), C_1="positive", C_1_a0="positive")
    assert [a.account_id for a in found] == ["C-1-a0"]
    assert [a.account_id for a in proposed(rule() + OPEN, newest(told(2)), C_1="negative", C_1_a1="positive")] == [
        "C-1-a1"
    ]


def test_a_persons_action_stands_until_a_later_judgement() -> None:
    policy = rule() + OPEN
    (mine,) = begun(proposed(policy, newest(told(1))))
    mine = dataclasses.replace(mine, rule=PERSON, key="person|1", proposed_at=NOW - DAY)
    assert proposed(policy, newest(told(1)), [mine]) == [], "nothing beside it"
    assert proposed(policy, newest(elsewhere=["C-1-a0"]), [mine]) == [], "findings do not undo it"
    (undone,) = proposed(policy, newest(told(1)), [mine], C_1="negative")
    assert undone.standing is Standing.UNDONE
    newer = dataclasses.replace(mine, proposed_at=NOW)
    assert proposed(policy, newest(told(1)), [newer], C_1="negative") == []


def test_accounts_that_the_newest_findings_clear_are_let_off_and_unseen_ones_are_not() -> None:
    policy = rule() + OPEN
    first = begun(proposed(policy, newest(told(3))))
    rest = dataclasses.replace(told(3), accounts=told(3).accounts[:1])
    (undone,) = proposed(policy, newest(rest, elsewhere=["C-1-a1", "x"]), first)
    assert (undone.account_id, undone.standing, undone.action_id) == ("C-1-a1", Standing.UNDONE, first[1].action_id)
    assert "newest findings" in undone.reason


def test_what_waits_or_is_due_is_undone_too() -> None:
    policy = rule("verify", "ask") + rule(more='after = "9d"') + OPEN
    first = proposed(policy, newest(told(1)))
    assert {a.standing for a in first} == {Standing.PENDING, Standing.DUE}
    assert {a.standing for a in proposed(policy, newest(elsewhere=["C-1-a0"]), first)} == {Standing.UNDONE}


# Signatures


def test_organisations_are_never_above_observe_without_a_person() -> None:
    policy = rule("observe", "watch") + rule("protect", "hide") + OPEN
    traffic = Traffic(organisations={"C-1-a0": "org-1"})
    needed = {(a.account_id, a.rule): a.needed for a in proposed(policy, newest(told(2)), traffic=traffic)}
    assert needed == {("C-1-a0", "watch"): 0, ("C-1-a0", "hide"): 1, ("C-1-a1", "watch"): 0, ("C-1-a1", "hide"): 0}
    known = policy + '[organisations]\nask = "known"\nknown = ["org-2"]'
    assert not any(a.needed for a in proposed(known, newest(told(2)), traffic=traffic))
    assert any(a.needed for a in proposed(known, newest(told(2)), traffic=Traffic(organisations={"C-1-a0": "org-2"})))


@pytest.mark.parametrize(("accounts", "needed"), [(20, 1), (21, 2)])
def test_many_suspensions_at_once_need_two_people(accounts: int, needed: int) -> None:
    found = proposed(rule("suspend") + OPEN, newest(told(accounts)))
    assert {(a.needed, a.standing) for a in found} == {(needed, Standing.PENDING)}


def test_suspensions_that_wait_already_count_to_the_bulk() -> None:
    policy = rule("suspend") + OPEN
    first = proposed(policy, newest(told(15)))
    more = proposed(policy, newest(told(25)), first)
    assert len(more) == 10
    assert {a.needed for a in more} == {2}


def test_beyond_a_cap_a_person_signs() -> None:
    capped = "[caps]\naccounts_per_hour = 3\ntraffic_share_per_hour = 1.0"
    found = proposed(rule() + capped, newest(told(10)))
    assert sorted(a.needed for a in found) == [0] * 3 + [1] * 7
    assert all((a.standing is Standing.PENDING) == bool(a.needed) for a in found)
    assert not any(a.needed for a in proposed(rule("observe") + capped, newest(told(10)))), "observing hurts nobody"
    later = proposed(rule() + capped, newest(told(10), told(5, "C-2")), begun(found), now=NOW + HOUR / 2)
    assert {a.needed for a in later} == {1}, "the hour is full"
    later = proposed(rule() + capped, newest(told(10), told(5, "C-2")), begun(found), now=NOW + HOUR)
    assert sorted(a.needed for a in later) == [0] * 3 + [1] * 2


def test_the_share_of_traffic_is_capped_and_an_unknown_one_is_signed() -> None:
    capped = "[caps]\naccounts_per_hour = 1000\ntraffic_share_per_hour = 0.01"
    # Each of the ten makes 0.4 % of the log.
    found = proposed(rule() + capped, newest(told(10), exchanges=25_000))
    assert sorted(a.needed for a in found) == [0] * 2 + [1] * 8
    counted = Traffic({f"C-1-a{n}": 1 for n in range(10)}, 25_000)
    assert not any(a.needed for a in proposed(rule() + capped, newest(told(10)), traffic=counted))
    assert all(a.needed for a in proposed(rule() + capped, newest(told(10), exchanges=0)))


hours = st.lists(st.tuples(st.integers(1, 6), st.floats(0, 4), st.integers(0, 5)), min_size=1, max_size=12)


@given(hours, st.integers(1, 6))
def test_no_hour_holds_more_than_the_cap(found: list[tuple[int, float, int]], cap: int) -> None:
    policy = (
        rule(more='after = "2h"\njitter = "3h"') + f"[caps]\naccounts_per_hour = {cap}\ntraffic_share_per_hour = 1.0"
    )
    known: list[Action] = []
    for n, (accounts, ago, wait) in enumerate(found):
        campaign = told(accounts, f"C-{n}", days_ago=ago / 24)
        known += begun(proposed(policy, newest(campaign), known, now=NOW + wait * HOUR / 3))
    alone = sorted(a.starts_at for a in known if not a.needed)
    for start in alone:
        assert sum(start <= t < start + HOUR for t in alone) <= cap


# Held out, in shadow


def test_a_share_is_held_out_and_only_observed() -> None:
    policy = rule() + rule("protect", "hide") + OPEN + '[holdout]\nshare = 0.25\nrungs = ["throttle"]'
    found = proposed(policy, newest(told(400)))
    held = {a.account_id for a in found if a.rule == "holdout"}
    slowed = {a.account_id for a in found if a.rule == "slow"}
    assert held | slowed == {s.account_id for s in told(400).accounts}
    assert not held & slowed
    assert 60 < len(held) < 140
    assert {a.rung for a in found if a.rule == "holdout"} == {Rung.OBSERVE}
    assert len([a for a in found if a.rule == "hide"]) == 400, "other rungs reach them all"
    other = {a.account_id for a in proposed(policy, newest(told(400)), seed=b"x") if a.rule == "holdout"}
    assert other != held
    again = {a.account_id for a in proposed(policy, newest(told(400)), now=NOW + DAY) if a.rule == "holdout"}
    assert again == held


def test_a_shadow_is_a_shadow_and_does_not_stand_in_for_the_real_rule() -> None:
    shadow = proposed(rule(more="shadow = true") + OPEN, newest(told(1)))
    assert [a.standing for a in shadow] == [Standing.SHADOW]
    assert proposed(rule(more="shadow = true") + OPEN, newest(told(1)), shadow) == []
    real = proposed(rule() + OPEN, newest(told(1)), shadow)
    assert [a.standing for a in real] == [Standing.DUE]


# The ladder

LADDER = (
    rule()
    + OPEN
    + (
        '[escalation]\nescalate_after = "7d"\nladder = ["throttle", "verify", "suspend"]\nlasts = "14d"\nsignatures = 1\n'
    )
)


def on_rung(rung: str, days: float, accounts: Iterable[int] = range(5), name: str = "slow") -> list[Action]:
    """In force for so many days on accounts of a campaign that was first told ten days ago."""
    made = proposed(rule(rung) + OPEN, newest(told(days_ago=10, last_seen=NOW)), now=NOW - days * DAY)
    named = [dataclasses.replace(a, rule=name, key=a.key.replace("slow|", f"{name}:{rung}|" if name != "slow" else "slow|"))
             for a in made]  # fmt: skip
    return [a for a in begun(named) if a.account_id in {f"C-1-a{n}" for n in accounts}]


@pytest.mark.parametrize(("days", "seen", "steps"), [(7, 0, True), (6.9, 0, False), (9, 3, False), (9, 1, True)])
def test_a_campaign_that_goes_on_climbs(days: float, seen: float, steps: bool) -> None:
    found = proposed(LADDER, newest(told(days_ago=10, last_seen=NOW - seen * DAY)), on_rung("throttle", days))
    assert {(a.rung, a.rule, a.needed) for a in found} == ({(Rung.VERIFY, "escalation", 1)} if steps else set())


def test_it_climbs_one_rung_at_a_time_and_late_comers_join_it() -> None:
    slowed, verified = on_rung("throttle", 9), on_rung("verify", 1, [0, 1], "escalation")
    found = proposed(LADDER, newest(told(days_ago=10, last_seen=NOW)), [*slowed, *verified])
    assert {(a.account_id, a.rung) for a in found} == {(f"C-1-a{n}", Rung.VERIFY) for n in (2, 3, 4)}
    verified = on_rung("verify", 8, range(5), "escalation")
    found = proposed(LADDER, newest(told(days_ago=10, last_seen=NOW)), [*slowed, *verified])
    assert {a.rung for a in found} == {Rung.SUSPEND}
    assert proposed(LADDER, newest(told(days_ago=10, last_seen=NOW)), [*slowed, *verified, *found]) == [], "once"


def test_nothing_climbs_from_what_waits_or_is_in_shadow() -> None:
    for standing in (Standing.PENDING, Standing.SHADOW, Standing.DUE, Standing.UNDONE):
        low = [dataclasses.replace(a, standing=standing) for a in on_rung("throttle", 9)]
        found = proposed(LADDER, newest(told(days_ago=10, last_seen=NOW)), low)
        assert not [a for a in found if a.rule == "escalation"]


# Told in words, and before it acts


def test_explain_has_a_sentence_for_each_rule_and_bound() -> None:
    text = "\n".join(explain(load()))
    for said in (
        "watch: accounts of a campaign at least 50% certain", "at some moment 1d to 36h after it was told",
        "requests_per_minute = 6",
        "once a person has signed", "at most 500 accounts and 2.0%", "more than 20 accounts", "5% of a campaign's accounts",
        "declare an organisation", "still seen 7d after", "outranks every rule", "names no appeal_url",
    ):  # fmt: skip
        assert said in text
    shadow = explain(parse(rule(more="shadow = true\nsignatures = 2")))[0]
    assert "It is in shadow" in shadow and "once 2 people have signed" in shadow


def test_preview_counts_whom_a_rule_hits_and_who_shares_something_with_them() -> None:
    policy = parse(
        rule(more="when = { accounts = 3 }")
        + rule("suspend", "stop")
        + rule("verify", "never", "when = { days = 99 }")
        + OPEN
    )
    ties = {"card": {"C-1-a0": "x", "C-1-a1": "x", "other": "x", "more": "x", "far": "y"}, "org": {"C-1-a0": ""}}
    rows = preview(policy, newest(told(4), exchanges=4000), (), {}, Traffic(), NOW, SEED, ties)
    slow, stop, never = rows
    assert (slow.accounts, slow.without_person, slow.waiting) == (4, 4, 0)
    assert (stop.accounts, stop.without_person, stop.waiting, stop.in_two_signatures) == (4, 0, 4, 0)
    assert (never.accounts, never.begins, never.share) == (0, None, 0.0)
    assert slow.share == pytest.approx(0.1)
    assert slow.others == {"card": 2, "org": 0}
    undone = preview(
        policy, newest(elsewhere=["C-1-a0"]), begun(proposed(policy, newest(told(1)))), {}, Traffic(), NOW, SEED
    )
    assert [(r.rule, r.accounts) for r in undone if r.accounts] == [("undone", 1)]


# What results say


def test_findings_are_read_as_results_leave_them(tmp_path: Path) -> None:
    found = fixtures_findings.few()
    results.write(found, fixtures_findings.run(), tmp_path)
    read = findings_of(tmp_path)
    assert len(read.campaigns) == len(found.campaigns)
    for mine, theirs in zip(read.campaigns, (told_of(c) for c in found.campaigns)):
        assert (mine.campaign_id, mine.exchanges, mine.last_seen) == (
            theirs.campaign_id,
            theirs.exchanges,
            theirs.last_seen,
        )
        assert {a.account_id: a.risk for a in mine.accounts} == pytest.approx(
            {a.account_id: a.risk for a in theirs.accounts}
        )
    assert read.exchanges == 1_204_331
    assert "acct_honest_00000" in read.elsewhere
    member = found.campaigns[0].members[0].account_id
    assert member not in read.elsewhere
    assert findings_of(tmp_path, {"acct_honest_00007", member, "unseen"}).elsewhere == {"acct_honest_00007"}


@pytest.mark.parametrize(
    ("file", "text"),
    [("campaigns.json", "{"), ("campaigns.json", "[{}]"), ("run.json", "{}"), ("accounts.parquet", "x")],
)
def test_a_folder_that_holds_something_else_is_told(tmp_path: Path, file: str, text: str) -> None:
    results.write(fixtures_findings.few(), fixtures_findings.run(), tmp_path)
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="RESULT is the folder"):
        findings_of(tmp_path)


def test_accounts_tell_organisations_and_what_is_shared(tmp_path: Path) -> None:
    rows = [
        {"account_id": "a", "org_id": "o", "payment_hash": "p"},
        {"account_id": "b", "org_id": None, "payment_hash": "p"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "accounts.parquet")
    table = accounts_of(tmp_path / "accounts.parquet")
    assert traffic_of(table).organisations == {"a": "o"}
    assert ties_of(table) == {"card": {"a": "p", "b": "p"}, "org": {"a": "o"}, "phone": {}}


# Rehearsal


def past(flags: list[tuple[str, str | None, float, float | None]]) -> Findings:
    """A replay's findings: (account, campaign or None, hours after START it was flagged, let go)."""
    base = fixtures_findings.few().campaigns[0]
    start = NOW - 20 * DAY
    members = tuple(
        dataclasses.replace(base.members[0], account_id=a, risk=0.95) for a, campaign_id, _, _ in flags if campaign_id
    )
    campaign = dataclasses.replace(
        base, campaign_id="C-1", members=members, confidence=0.99, detected_at=start, nodes=(), edges=(), exhibits=()
    )
    at = {a: start + since * HOUR for a, _, since, _ in flags}
    table = accounts_table(pa.array([*at, "quiet"]), [campaign], flagged_at=at)
    let_go = [start + until * HOUR if until is not None else None for _, _, _, until in flags]
    flagged = pa.array([*at.values(), None], pa.timestamp("us", "UTC"))
    table = table.set_column(3, table.schema.field(3), flagged)
    return Findings((campaign,), (), (), table.append_column(CLEARED_AT, pa.array([*let_go, None], CLEARED_AT.type)))


def hourly(*names: str, days: int = 10) -> Tally:
    """Each account asks once an hour, at half past."""
    start = int((NOW - 20 * DAY).timestamp() * 1e6)
    account = np.repeat(np.arange(len(names)), days * 24)
    return Tally.of(
        list(names), account, start + np.tile(np.arange(days * 24), len(names)) * 3_600_000_000 + 1_800_000_000
    )


def rehearsed(policy: str, flags: list[Any], *names: str, **more: Any) -> Rehearsal:
    return rehearse(parse(policy), past(flags), hourly(*names), SEED, **more)


def test_a_rehearsal_counts_what_was_let_through_before_each_rung() -> None:
    policy = rule("observe", "watch") + rule(more='after = "1d"') + rule("verify", "ask", 'after = "3d"') + OPEN
    found = rehearsed(policy, [("a", "C-1", 0, None), ("b", "C-1", 12, None)], "a", "b", "quiet")
    rows = {r.rung: r for r in found.rungs}
    assert (rows[Rung.OBSERVE].without_person, rows[Rung.OBSERVE].before) == (2, 12)
    assert (rows[Rung.THROTTLE].without_person, rows[Rung.THROTTLE].before) == (2, 24 + 24)
    assert (rows[Rung.VERIFY].without_person, rows[Rung.VERIFY].signed, rows[Rung.VERIFY].before) == (0, 2, 72 + 72)
    assert rows[Rung.VERIFY].exchanges == 480
    assert rows[Rung.VERIFY].honest is None and found.honest_share is None
    day = (NOW - 20 * DAY).date()
    assert found.days == {
        str(day): {Rung.OBSERVE: 1}, str(day + DAY): {Rung.OBSERVE: 1, Rung.THROTTLE: 2}, str(day + 3 * DAY): {Rung.VERIFY: 2},
    }  # fmt: skip


def test_a_rehearsal_tells_honest_accounts_that_were_hit_until_they_were_let_go() -> None:
    policy = rule("protect", "hide", "when = { accounts = 50, confidence = 0.9 }") + OPEN
    found = rehearsed(
        policy, [("a", "C-1", 0, None), ("good", None, 5, 29)], "a", "good", "quiet", honest={"good", "quiet"}
    )
    (row,) = found.rungs
    assert (row.without_person, row.honest, row.honest_exchanges) == (1, 1, 24), (
        "the campaign of one is too small, of the other unknown"
    )
    assert found.undone == 1
    assert found.honest_share == pytest.approx(24 / 480)


def test_shadows_are_rehearsed_apart_and_hit_nobody() -> None:
    found = rehearsed(rule(more="shadow = true") + OPEN, [("good", None, 5, None)], "good", honest={"good"})
    (row,) = found.rungs
    assert (row.without_person, row.signed, row.shadow, row.honest, row.honest_exchanges) == (0, 0, 1, 0, 0)
    assert found.days == {} and found.honest_share == 0


def test_a_scan_cannot_be_rehearsed_and_nothing_flagged_is_nothing_done() -> None:
    with pytest.raises(UsageError, match="known when"):
        rehearse(load(), fixtures_findings.few(), hourly("a"), SEED)
    assert rehearse(load(), past([]), hourly("a"), SEED).rungs == ()


# On the command line


@pytest.fixture
def result(tmp_path: Path) -> Path:
    results.write(fixtures_findings.few(), fixtures_findings.run(), tmp_path / "result")
    return tmp_path / "result"


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*tokens: str) -> tuple[int, str, str]:
        code = cli.main(list(tokens))
        said = capsys.readouterr()
        return code, said.out, said.err

    return ran


def test_check_and_explain(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(rule("suspend"), encoding="utf-8")
    (tmp_path / "bad.toml").write_text(rule("supend"), encoding="utf-8")
    code, out, _ = run("policy", "check", str(tmp_path / "p.toml"))
    assert code == 0 and "no faults in 1 rule" in out and "note: [statement]" in out
    code, _, err = run("policy", "check", str(tmp_path / "bad.toml"))
    assert code == 2 and "bad.toml:3: rules.0.rung: 'supend' is no rung" in err
    assert run("policy", "explain")[1].splitlines() == explain(load())
    assert run("policy", "check", str(tmp_path / "none.toml"))[0] == 2


def test_preview_changes_nothing_and_tells_all(run: Run, result: Path) -> None:
    before = {f.name: f.read_bytes() for f in result.iterdir()}
    code, out, _ = run("policy", "preview", str(result), "--json")
    rows = json.loads(out)
    assert code == 0
    assert [r["rule"] for r in rows][:4] == ["watch", "protect", "slow_down", "ask_who"]
    assert rows[0]["accounts"] > 0
    assert run("policy", "preview", str(result))[1].count("watch") >= 1
    assert {f.name: f.read_bytes() for f in result.iterdir()} == before


def test_preview_of_a_home_knows_what_stands_there(run: Run, result: Path, tmp_path: Path) -> None:
    assert run("policy", "preview", str(result), "--home", str(tmp_path))[0] == 2
    campaign = fixtures_findings.few().campaigns[0]
    with State(tmp_path / "home" / "state.db") as state:
        state.judge(Judgement(campaign.campaign_id, "negative", "ann", "a class", NOW))
    at = ("--at", "2026-04-01T00:00")
    plain = json.loads(run("policy", "preview", str(result), *at, "--json")[1])
    judged = json.loads(run("policy", "preview", str(result), "--home", str(tmp_path / "home"), *at, "--json")[1])
    assert plain[0]["accounts"] - judged[0]["accounts"] == len(campaign.members)
