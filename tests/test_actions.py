"""The life of an action: nothing holds that was not audited, signed and is within its time; everything can be undone."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from fixtures_state import Server, define
from stillwatch.actions import ENDED, LIVING, Actions, act_of_person
from stillwatch.audit import Audit, load_signer
from stillwatch.entries import entries
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.statements import PERSON, Wording
from stillwatch.store.places import Place
from stillwatch.store.state import State
from stillwatch.types import Action, Part, Rung, Standing

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Paper:
    """An audit on paper: a list, which can run out."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, str, str, Mapping[str, Any]]] = []
        self.is_full = False

    def append(self, event: str, who: str, role: str, subject: str, facts: Mapping[str, Any]) -> int:
        if self.is_full:
            raise Transient("the audit is full")
        self.entries.append((event, who, role, subject, dict(facts)))
        return len(self.entries) - 1

    def events(self, subject: str = "") -> list[str]:
        return [event for event, _, _, of, _ in self.entries if subject in ("", of)]


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def action(n: int = 0, account: str = "a", rung: Rung = Rung.THROTTLE, needed: int = 0, **more: Any) -> Action:
    values: dict[str, Any] = {
        "action_id": f"A-{n}", "key": f"key-{n}", "account_id": account, "campaign_id": "C-1", "rung": rung, "rule": "slow",
        "reason": "patterns of use", "standing": Standing.PENDING if needed else Standing.DUE, "proposed_at": START,
        "starts_at": START, "expires_at": START + 2 * DAY, "needed": needed,
        "settings": {"models": ["m"]} if rung is Rung.RESTRICT else {},
    }  # fmt: skip
    return Action(**(values | more))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def state(place: Place) -> Iterator[State]:
    with State(place) as opened:
        yield opened


@pytest.fixture
def actions(state: State, paper: Paper, clock: Clock) -> Actions:
    return Actions(state, paper, clock=clock, bulk_suspend=3)


def rungs(actions: Actions, now: datetime = START) -> dict[str, Rung]:
    return {account: held.rung for account, held in actions.in_force(now).items()}


# Proposing


def test_what_needs_nobody_begins_when_it_is_due(actions: Actions) -> None:
    actions.propose([action(starts_at=START + HOUR)])
    assert actions.start_due(START) == []
    assert rungs(actions) == {}
    (begun,) = actions.start_due(START + HOUR)
    assert begun.standing is Standing.IN_FORCE
    assert rungs(actions, START + HOUR) == {"a": Rung.THROTTLE}


def test_the_same_key_twice_is_one_action(actions: Actions, paper: Paper) -> None:
    assert [a.action_id for a in actions.propose([action(), action(1, key="key-0")])] == ["A-0"]
    assert actions.propose([action(), action(2, key="key-0")]) == []
    assert paper.events() == ["action.proposed"]


def test_a_key_that_was_refused_is_not_taken_up_again(actions: Actions) -> None:
    actions.propose([action(needed=1)])
    actions.refuse(["A-0"], "ann", "an honest customer")
    assert actions.propose([action(needed=1)]) == []
    assert actions.get("A-0").standing is Standing.REFUSED


def test_shadows_are_written_down_and_never_done(actions: Actions) -> None:
    actions.propose([action(standing=Standing.SHADOW)])
    actions.start_due(START)
    assert rungs(actions) == {}
    assert actions.shadows(START)["a"].rung is Rung.THROTTLE
    with pytest.raises(UsageError, match="A-0 is shadow"):
        actions.sign(["A-0"], "ann")
    assert [a.standing for a in actions.expire(START + 2 * DAY)] == [Standing.EXPIRED]


@pytest.mark.parametrize("rung", [Rung.RESTRICT, Rung.SUSPEND])
def test_restricting_and_suspending_wait_for_a_person_whatever_was_proposed(actions: Actions, rung: Rung) -> None:
    (taken,) = actions.propose([action(rung=rung)])
    assert (taken.standing, taken.needed) == (Standing.PENDING, 1)


def test_signatures_are_not_taken_from_a_proposal(actions: Actions) -> None:
    actions.propose([action(needed=1, signatures=("ann", "bob"))])
    assert actions.get("A-0").signatures == ()


@pytest.mark.parametrize("standing", [Standing.IN_FORCE, Standing.EXPIRED, Standing.REFUSED])
def test_nothing_begins_in_the_middle(actions: Actions, standing: Standing) -> None:
    with pytest.raises(UsageError, match="is no way to begin"):
        actions.propose([action(standing=standing)])


def test_a_rule_does_not_pass_for_a_person_nor_a_person_for_a_rule(actions: Actions) -> None:
    with pytest.raises(UsageError, match="its rule is 'person'"):
        actions.propose([action(rule=PERSON)])
    with pytest.raises(UsageError, match="its rule is 'slow'"):
        actions.propose([action()], "ann", "analyst")


def test_settings_that_the_rung_does_not_know_are_refused(actions: Actions) -> None:
    with pytest.raises(UsageError, match="throttle has no setting 'speed'"):
        actions.propose([action(settings={"speed": 1})])
    with pytest.raises(UsageError, match="restrict needs 'models'"):
        actions.propose([action(rung=Rung.RESTRICT, settings={})])


def test_a_proposal_to_undo_undoes(actions: Actions, paper: Paper) -> None:
    actions.propose([action()])
    actions.start_due(START)
    cleared = dataclasses.replace(actions.get("A-0"), standing=Standing.UNDONE, reason="cleared by the newest findings")
    assert actions.propose([cleared]) == []
    assert rungs(actions) == {}
    assert actions.history("a")[-1].reason == "cleared by the newest findings"
    actions.propose([cleared])
    assert paper.events("A-0").count("action.undone") == 1


# Signing


def test_one_person_signs_once(actions: Actions) -> None:
    actions.propose([action(needed=2)])
    for _ in range(3):
        (signed,) = actions.sign(["A-0"], "ann")
    assert (signed.standing, signed.signatures) == (Standing.PENDING, ("ann",))
    (signed,) = actions.sign(["A-0"], "bob")
    assert (signed.standing, signed.signatures) == (Standing.DUE, ("ann", "bob"))


def test_who_proposed_is_not_enough_alone(actions: Actions) -> None:
    proposed = act_of_person("a", Rung.THROTTLE, "patterns of use", START, DAY)
    actions.propose([proposed], "ann", "analyst")
    assert actions.sign([proposed.action_id], "ann")[0].standing is Standing.PENDING
    assert actions.sign([proposed.action_id], "bob")[0].standing is Standing.DUE


def test_a_signature_is_for_all_or_none(actions: Actions, paper: Paper) -> None:
    actions.propose([action(0, needed=1), action(1)])
    before = len(paper.entries)
    with pytest.raises(UsageError, match="A-1 is due"):
        actions.sign(["A-0", "A-1"], "ann")
    with pytest.raises(UsageError, match="no such action: A-9"):
        actions.sign(["A-0", "A-9"], "ann")
    assert actions.get("A-0").signatures == ()
    assert len(paper.entries) == before


def test_what_has_run_out_is_not_signed(actions: Actions, clock: Clock) -> None:
    actions.propose([action(needed=1)])
    clock.now = START + 2 * DAY
    with pytest.raises(UsageError, match="A-0 has run out"):
        actions.sign(["A-0"], "ann")


def test_many_suspensions_in_one_proposal_need_two_people(actions: Actions) -> None:
    few = actions.propose([action(n, f"a{n}", Rung.SUSPEND) for n in range(3)])
    assert {a.needed for a in few} == {1}
    more = actions.propose([action(9, "a9", Rung.SUSPEND)])
    assert {a.needed for a in more} == {2}, "the fourth of one campaign"


def test_one_person_does_not_suspend_many_piece_by_piece(actions: Actions, clock: Clock) -> None:
    actions.propose([action(n, f"a{n}", Rung.SUSPEND, campaign_id=f"C-{n}") for n in range(6)])
    due = [actions.sign([f"A-{n}"], "ann")[0].standing for n in range(4)]
    assert due == [Standing.DUE] * 3 + [Standing.PENDING]
    assert actions.get("A-3").needed == 2
    assert actions.sign(["A-3"], "bob")[0].standing is Standing.DUE
    clock.now += DAY + HOUR
    assert actions.sign(["A-4"], "ann")[0].standing is Standing.DUE, "a day later it is not at once"


def test_refusing_needs_something_that_waits(actions: Actions) -> None:
    actions.propose([action()])
    with pytest.raises(UsageError, match="A-0 is due"):
        actions.refuse(["A-0"], "ann", "no")
    with pytest.raises(UsageError, match="nobody is named"):
        actions.undo(["A-0"], " ", "no")


# In force


def test_nothing_holds_after_its_end_even_if_nobody_ended_it(actions: Actions) -> None:
    actions.propose([action()])
    actions.start_due(START)
    end = START + 2 * DAY
    assert rungs(actions, end - timedelta(microseconds=1)) == {"a": Rung.THROTTLE}
    assert rungs(actions, end) == {}
    assert actions.start_due(end) == []
    assert [a.standing for a in actions.expire(end)] == [Standing.EXPIRED]


def test_what_has_begun_holds_on_when_the_clock_goes_back(actions: Actions) -> None:
    actions.propose([action(starts_at=START + HOUR)])
    assert actions.start_due(START + HOUR)
    assert rungs(actions, START - DAY) == {"a": Rung.THROTTLE}


def test_what_was_to_begin_at_once_does_when_the_clock_goes_back_before_it_has(actions: Actions) -> None:
    actions.propose([action(proposed_at=START, starts_at=START), action(1, "b", starts_at=START + HOUR)])
    assert [a.account_id for a in actions.start_due(START - HOUR)] == ["a"]
    assert rungs(actions, START - HOUR) == {"a": Rung.THROTTLE}


def test_the_strictest_holds_with_the_settings_of_milder_ones(actions: Actions) -> None:
    actions.propose([
        action(0, rung=Rung.PROTECT, rule="hide", settings={"reasoning": "omitted", "max_tokens": 4096}),
        action(1, settings={"requests_per_minute": 6}),
    ])  # fmt: skip
    actions.start_due(START)
    held = actions.in_force(START)["a"]
    assert (held.rung, held.action_id) == (Rung.THROTTLE, "A-1")
    assert held.settings == {"reasoning": "omitted", "max_tokens": 4096, "requests_per_minute": 6}


def test_a_persons_decision_outranks_a_stricter_rule_and_undoing_it_restores(actions: Actions) -> None:
    actions.propose([action()])
    mild = act_of_person("a", Rung.OBSERVE, "patterns of use", START, DAY)
    actions.propose([mild], "ann", "analyst")
    actions.start_due(START)
    assert rungs(actions) == {"a": Rung.OBSERVE}
    actions.undo([mild.action_id], "bob", "enough seen")
    assert rungs(actions) == {"a": Rung.THROTTLE}


def test_a_newer_action_of_a_rule_replaces_the_older(actions: Actions) -> None:
    actions.propose([action(0), action(1), action(2, rule="other", rung=Rung.PROTECT)])
    actions.start_due(START)
    assert [actions.get(f"A-{n}").standing for n in range(3)] == [
        Standing.REPLACED,
        Standing.IN_FORCE,
        Standing.IN_FORCE,
    ]
    actions.propose([action(3)])
    actions.start_due(START)
    assert actions.get("A-1").standing is Standing.REPLACED
    assert actions.in_force(START)["a"].action_id == "A-3"


def test_a_campaign_is_undone_by_its_id_and_what_has_ended_stays_so(actions: Actions) -> None:
    actions.propose([action(0), action(1, "b", needed=1), action(2, "c", campaign_id="C-2"), action(3, "d", needed=1)])
    actions.start_due(START)
    actions.refuse(["A-3"], "ann", "no")
    assert [a.action_id for a in actions.undo("C-1", "ann", "a class")] == ["A-0", "A-1"]
    assert rungs(actions) == {"c": Rung.THROTTLE}
    assert actions.undo("C-1", "ann", "a class") == []
    assert actions.get("A-3").standing is Standing.REFUSED


def test_known_is_what_has_not_run_out(actions: Actions) -> None:
    actions.propose([action(0, needed=1), action(1, "b", expires_at=START + HOUR)])
    actions.refuse(["A-0"], "ann", "no")
    assert [a.action_id for a in actions.known(START)] == ["A-0", "A-1"]
    assert [a.action_id for a in actions.known(START + HOUR)] == ["A-0"]


# Appeals


def appealed(actions: Actions) -> str:
    actions.propose([action(0, rung=Rung.SUSPEND, needed=1), action(1, rule="other")])
    actions.sign(["A-0"], "ann")
    actions.start_due(START)
    return actions.appeal("a", "sha256:77", START + DAY)


def test_an_overturned_appeal_undoes_all_and_judges_the_account(actions: Actions, state: State) -> None:
    case = appealed(actions)
    assert actions.appeal("a") == case, "one at a time"
    with pytest.raises(UsageError, match="ann had a part"):
        actions.decide_appeal(case, "ann", "overturned", "")
    decided = actions.decide_appeal(case, "eve", "overturned", "a class of students")
    assert (decided.outcome, decided.reviewer) == ("overturned", "eve")
    assert rungs(actions) == {}
    assert state.judgements()["a"].verdict == "negative"
    with pytest.raises(UsageError, match="was overturned by eve"):
        actions.decide_appeal(case, "joe", "upheld", "")


def test_an_upheld_appeal_leaves_all_as_it_is(actions: Actions, state: State) -> None:
    case = appealed(actions)
    assert actions.decide_appeal(case, "eve", "upheld", "the reasons stand").outcome == "upheld"
    assert rungs(actions) == {"a": Rung.SUSPEND}
    assert state.judgements() == {}
    assert actions.appeal("a") != case, "it may appeal again"


def test_appeals_past_their_deadline_are_told(actions: Actions) -> None:
    case = appealed(actions)
    assert actions.appeals(START) == []
    assert [a.case_id for a in actions.appeals(START + DAY)] == [case]
    actions.decide_appeal(case, "eve", "upheld", "")
    assert actions.appeals(START + DAY) == []
    assert [a.text_hash for a in actions.appeals()] == ["sha256:77"]


def test_there_is_nothing_to_appeal_against_where_nothing_was_done(actions: Actions) -> None:
    actions.propose([action(rung=Rung.OBSERVE), action(1, standing=Standing.SHADOW)])
    for account in ("a", "nobody"):
        with pytest.raises(UsageError, match="nothing was ever done"):
            actions.appeal(account)
    with pytest.raises(UsageError, match="no appeal 'AP-0'"):
        actions.decide_appeal("AP-0", "eve", "upheld", "")
    with pytest.raises(UsageError, match="upheld or overturned, not 'maybe'"):
        actions.decide_appeal("AP-0", "eve", "maybe", "")


# Statement and history


def test_a_statement_says_what_why_how_long_who_decided_and_how_to_appeal(actions: Actions) -> None:
    actions.propose([action(), action(1, "b", rung=Rung.SUSPEND, needed=1)])
    actions.sign(["A-1"], "ann")
    wording = Wording(appeal_url="https://a.example/?c={case}")
    automatic, signed = (actions.statement(f"A-{n}", wording) for n in range(2))
    assert (automatic.automated_detection, automatic.automated_decision, automatic.decision) == (
        True,
        True,
        "PARTIAL_RESTRICTION",
    )
    assert (signed.automated_detection, signed.automated_decision, signed.decision) == (
        True,
        False,
        "ACCOUNT_SUSPENDED",
    )
    text = signed.text()
    for said in (
        "A-1",
        "suspended",
        "patterns of use",
        "2026-03-01 12:00",
        "2026-03-03 12:00",
        "by a person",
        "https://a.example/?c=A-1",
    ):
        assert said in text
    assert not [word for word in ("C-1", "ann", "slow", "campaign", "cluster", "risk") if word in text]
    assert "without a person" in automatic.text()


def test_history_tells_all_in_order_with_the_entries_of_the_audit(actions: Actions, paper: Paper) -> None:
    actions.propose([action(needed=1), action(1, "b", campaign_id="C-2")])
    actions.sign(["A-0"], "ann")
    actions.start_due(START)
    actions.undo(["A-0"], "bob", "a mistake")
    found = actions.history("a")
    assert [h.event for h in found] == ["proposed", "signed", "due", "in_force", "undone"]
    assert found == actions.history("C-1")
    for h in found:
        event, who, role, subject, facts = paper.entries[h.audit]
        assert (event, who, role, subject) == (f"action.{h.event}", h.who, h.role, h.action_id)
        assert facts["account"] == "a"


# The audit comes first

DEEDS = {
    "propose": lambda a: a.propose([action(7)]),
    "sign": lambda a: a.sign(["A-0"], "ann"),
    "refuse": lambda a: a.refuse(["A-0"], "ann", "no"),
    "start_due": lambda a: a.start_due(START),
    "expire": lambda a: a.expire(START + 9 * DAY),
    "undo": lambda a: a.undo("C-1", "ann", "no"),
    "appeal": lambda a: a.appeal("a"),
    "decide_appeal": lambda a: a.decide_appeal(a.appeals()[0].case_id, "eve", "overturned", "no"),
}


def standings(state: State) -> list[tuple[Any, ...]]:
    tables = ("actions", "action_events", "appeals", "judgements")
    return [tuple(map(tuple, (r.values() for r in state.execute(f"SELECT * FROM {t}")))) for t in tables]


@pytest.mark.parametrize("name", DEEDS)
def test_if_the_audit_cannot_be_written_nothing_is_done(
    name: str, actions: Actions, state: State, paper: Paper
) -> None:
    actions.propose([action(0, needed=1), action(1), action(2, "b"), action(3, rule="third")])
    actions.start_due(START)
    actions.propose([action(4, "c")])
    if name == "decide_appeal":
        actions.appeal("a")
    before = standings(state)
    paper.is_full = True
    with pytest.raises(Transient, match="the audit is full"):
        DEEDS[name](actions)
    assert standings(state) == before
    paper.is_full = False
    DEEDS[name](actions)
    assert standings(state) != before, "it would have done something"


def test_if_the_state_cannot_be_written_the_audit_alone_tells_of_it(
    actions: Actions, state: State, paper: Paper, place: Place
) -> None:
    actions.propose([action()])
    define(
        state, place, "CREATE TRIGGER full_disk BEFORE UPDATE ON actions BEGIN SELECT RAISE(ABORT, 'disk full'); END;"
    )
    with pytest.raises(Terminal, match="disk full"):
        actions.start_due(START)
    assert actions.get("A-0").standing is Standing.DUE
    assert [h.event for h in actions.history("a")] == ["proposed"]
    assert paper.events() == ["action.proposed", "action.in_force"]


def test_the_real_audit_holds_an_entry_for_each_event(tmp_path: Path, state: State, clock: Clock) -> None:
    audit = Audit(tmp_path / "audit", load_signer(tmp_path / "key"), clock=clock)
    try:
        actions = Actions(state, audit, clock=clock)
        actions.propose([action(n, f"a{n}") for n in range(50)])
        actions.start_due(START)
        actions.undo("C-1", "ann", "a mistake")
        happened = actions.history("C-1")
        written = {e.number: e.deed for e in entries(tmp_path / "audit")}
        assert len(happened) == 150
        assert all(
            written[h.audit].event == f"action.{h.event}" and written[h.audit].subject == h.action_id for h in happened
        )
    finally:
        audit.close()


# On a key or an end user


MARK, OTHER = "ab" * 16, "cd" * 16


def test_what_is_on_a_key_or_an_end_user_leaves_the_account_alone(actions: Actions, paper: Paper) -> None:
    actions.propose([
        action(0), action(1, rung=Rung.VERIFY, part=Part.KEY, mark=MARK), action(2, part=Part.KEY, mark=OTHER),
        action(3, rung=Rung.PROTECT, part=Part.END_USER, mark=OTHER),
    ])  # fmt: skip
    assert len(actions.start_due(START)) == 4
    assert rungs(actions) == {"a": Rung.THROTTLE}
    held = actions.holding(START)
    assert {(p, m): h.rung for p, found in held.items() for m, h in found.items()} == {
        (Part.ACCOUNT, "a"): Rung.THROTTLE, (Part.KEY, MARK): Rung.VERIFY, (Part.KEY, OTHER): Rung.THROTTLE,
        (Part.END_USER, OTHER): Rung.PROTECT,
    }  # fmt: skip
    assert len({h.subject for found in held.values() for h in found.values()}) == 4
    assert [a.action_id for a in actions.known(START)] == ["A-0"], "a rule is not told of what a person did to one key"
    assert [e[4].get("mark") for e in paper.entries[:4]] == [None, MARK, OTHER, OTHER]

    # Of the same rule: the newer one on that key, and no other.
    actions.propose([action(4, part=Part.KEY, mark=MARK)])
    actions.start_due(START)
    assert actions.get("A-1").standing is Standing.REPLACED
    assert {a.action_id for a in actions.standing(Standing.IN_FORCE)} == {"A-0", "A-2", "A-3", "A-4"}
    actions.undo(["A-4"], "ann", "a mistake")
    assert MARK not in actions.holding(START)[Part.KEY] and rungs(actions) == {"a": Rung.THROTTLE}


def test_an_overturned_appeal_undoes_what_is_on_keys_too(actions: Actions) -> None:
    actions.propose([action(0, part=Part.KEY, mark=MARK)])
    actions.start_due(START)
    actions.decide_appeal(actions.appeal("a"), "eve", "overturned", "a class")
    assert actions.get("A-0").standing is Standing.UNDONE


def test_a_person_acts_on_one_key_and_the_account_is_told_so(actions: Actions) -> None:
    asked = [act_of_person("a", rung, "r", START, DAY, part=part, mark=MARK)
             for rung, part in ((Rung.SUSPEND, Part.KEY), (Rung.PROTECT, Part.END_USER))]  # fmt: skip
    whole = act_of_person("a", Rung.SUSPEND, "r", START, DAY)
    key, end_user, account = actions.propose([*asked, whole], "ann", "analyst")
    assert (key.part, key.mark, key.standing) == (Part.KEY, MARK, Standing.PENDING)
    said = actions.statement(key.action_id)
    assert said.decision == "PARTIAL_RESTRICTION" and "one key of the account" in said.limits
    assert "one end user" in actions.statement(end_user.action_id).text()
    assert actions.statement(account.action_id).decision == "ACCOUNT_SUSPENDED"
    assert MARK not in said.text()


@pytest.mark.parametrize("more", [{"part": Part.KEY}, {"mark": MARK}, {"part": Part.ACCOUNT, "mark": MARK}])
def test_a_part_has_a_mark_and_nothing_else_has(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has a mark"):
        action(0, **more)


# What the tables refuse


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE actions SET standing = 'in_force' WHERE action_id = 'A-0'", "not due before enough"),
        ("UPDATE actions SET needed = 0 WHERE action_id = 'A-0'", "never waived"),
        ("UPDATE actions SET standing = 'due' WHERE action_id = 'A-1'", "has ended has ended"),
        ("UPDATE actions SET expires_at = '2099-01-01'", "only the standing"),
        ("UPDATE actions SET part = 'key', mark = 'ab'", "only the standing"),
        ("DELETE FROM actions", "never deleted"),
        ("UPDATE action_events SET who = 'bob'", "never edited"),
        ("DELETE FROM action_events", "never deleted"),
        ("UPDATE appeals SET reason = ''", "never edited"),
        ("DELETE FROM appeals", "never deleted"),
        ("INSERT INTO action_events (action_id, event, who, role, at, reason, audit) SELECT action_id, event, who, role, at, "
         "reason, 0 FROM action_events WHERE event = 'signed'", r"(?i)unique"),
    ],
)  # fmt: skip
def test_the_tables_themselves_refuse_to_be_rewritten(sql: str, said: str, actions: Actions, place: Place) -> None:
    actions.propose([action(0, needed=2), action(1, "b"), action(2, "c")])
    actions.sign(["A-0"], "ann")
    actions.undo(["A-1"], "ann", "no")
    actions.start_due(START)
    actions.appeal("c")
    with State(place) as other:
        before = standings(other)
        with pytest.raises(Terminal, match=said):
            other.execute(sql)
        assert standings(other) == before


# Everything in any order

PEOPLE = st.sampled_from(["ann", "bob", "cec"])
ACCOUNTS = st.sampled_from(["a", "b", "c"])


class Life(RuleBasedStateMachine):
    """Rules, people and the clock do things in any order; the audit runs out now and then."""

    made: Bundle[str] = Bundle("made")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.paper = Clock(), Paper()
        self.state = self.opened()
        self.actions = Actions(self.state, self.paper, clock=self.clock, bulk_suspend=1)
        self.count = 0
        self.undone: set[str] = set()

    def opened(self) -> State:
        state = State(Path(self.folder.name) / "state.db")
        state.execute("PRAGMA synchronous = OFF")
        return state

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()
            self.folder.cleanup()

    @rule(
        target=made, account=ACCOUNTS, rung=st.sampled_from(list(Rung)), name=st.sampled_from(["r1", "r2"]),
        needed=st.integers(0, 2), after=st.integers(0, 3), lasts=st.integers(1, 6), shadow=st.booleans(),
    )  # fmt: skip
    def propose(self, account: str, rung: Rung, name: str, needed: int, after: int, lasts: int, shadow: bool) -> str:
        self.count += 1
        now = self.clock.now
        standing = Standing.SHADOW if shadow else Standing.PENDING if needed else Standing.DUE
        proposed = action(
            self.count, account, rung, needed, rule=name, standing=standing, proposed_at=now, starts_at=now + after * HOUR,
            expires_at=now + (after + lasts) * HOUR,
        )  # fmt: skip
        self.actions.propose([proposed])
        return proposed.action_id

    @rule(target=made, account=ACCOUNTS, rung=st.sampled_from(list(Rung)), who=PEOPLE, lasts=st.integers(1, 6))
    def propose_by_person(self, account: str, rung: Rung, who: str, lasts: int) -> Any:
        models = {"models": ["m"]} if rung is Rung.RESTRICT else {}
        made = act_of_person(account, rung, "why", self.clock.now, lasts * HOUR, campaign_id="C-1", settings=models)
        taken = self.actions.propose([made], who, "analyst")
        return multiple(*(a.action_id for a in taken))

    @rule(action_id=made, who=PEOPLE)
    def sign(self, action_id: str, who: str) -> None:
        self.try_(lambda: self.actions.sign([action_id], who))

    @rule(action_id=made, who=PEOPLE)
    def refuse(self, action_id: str, who: str) -> None:
        self.try_(lambda: self.actions.refuse([action_id], who, "no"))

    @rule(action_id=made, who=PEOPLE)
    def undo(self, action_id: str, who: str) -> None:
        rest = [a for a in self.actions.standing(Standing.IN_FORCE) if a.action_id != action_id]
        self.undone |= {a.action_id for a in self.actions.undo([action_id], who, "no")}
        # What holds afterwards is what held without it: nothing of it is left.
        within = [a for a in rest if a.starts_at <= self.clock.now < a.expires_at]
        assert {a.account_id for a in within} == set(self.actions.in_force(self.clock.now))

    @rule(account=ACCOUNTS)
    def appeal(self, account: str) -> None:
        self.try_(lambda: self.actions.appeal(account))

    @rule(who=PEOPLE, outcome=st.sampled_from(["upheld", "overturned"]))
    def decide(self, who: str, outcome: str) -> None:
        for appeal in [a for a in self.actions.appeals() if not a.outcome][:1]:
            self.try_(lambda: self.actions.decide_appeal(appeal.case_id, who, outcome, "seen"))  # noqa: B023
            if self.actions.appeals() and outcome == "overturned" and self.decided(appeal.case_id):
                assert appeal.account_id not in self.actions.in_force(self.clock.now)
                assert not [a for a in self.actions.standing() if a.account_id == appeal.account_id]

    def decided(self, case_id: str) -> bool:
        return any(a.case_id == case_id and a.outcome for a in self.actions.appeals())

    @rule(hours=st.integers(0, 4))
    def wait(self, hours: int) -> None:
        self.clock.now += hours * HOUR

    @rule()
    def tick(self) -> None:
        self.actions.start_due(self.clock.now)
        self.actions.expire(self.clock.now)

    @rule(action_id=made, who=PEOPLE)
    def audit_fails(self, action_id: str, who: str) -> None:
        before = standings(self.state)
        self.paper.is_full = True
        for doing in (
            lambda: self.actions.undo([action_id], who, "no"),
            lambda: self.actions.start_due(self.clock.now),
            lambda: self.actions.expire(self.clock.now),
            lambda: self.actions.sign([action_id], who),
        ):
            self.try_(doing)
        self.paper.is_full = False
        assert standings(self.state) == before

    def try_(self, doing: Any) -> None:
        """What may be refused changes nothing when it is."""
        before, written = standings(self.state), len(self.paper.entries)
        try:
            doing()
        except (UsageError, Transient):
            assert standings(self.state) == before
            assert len(self.paper.entries) == written

    @invariant()
    def what_holds_is_signed_and_within_its_time(self) -> None:
        if not hasattr(self, "actions"):
            return
        now = self.clock.now
        for held in self.actions.in_force(now).values():
            found = self.actions.get(held.action_id)
            assert found.standing is Standing.IN_FORCE
            assert found.starts_at <= now < found.expires_at
            assert len(set(found.signatures)) >= found.needed
            assert found.action_id not in self.undone
            if found.rung.height > Rung.VERIFY.height:
                assert found.signatures
            mine = [a for a in self.actions.standing(Standing.IN_FORCE) if a.account_id == held.account_id]
            mine = [a for a in mine if a.starts_at <= now < a.expires_at]
            counting = [a for a in mine if a.rule == PERSON] or mine
            assert held.rung.height == max(a.rung.height for a in counting)

    @invariant()
    def every_event_was_audited_first_and_tells_the_standing(self) -> None:
        if not hasattr(self, "actions"):
            return
        found = self.actions.history("C-1")
        assert [h.audit for h in found] == sorted({h.audit for h in found})
        for h in found:
            event, who, _, subject, _ = self.paper.entries[h.audit]
            assert (event, who, subject) == (f"action.{h.event}", h.who, h.action_id)
        moves = {h.action_id: h.event for h in found if h.event in set(Standing)}
        for a in [r for s in (*LIVING, *ENDED) for r in self.actions.standing(s)]:
            begun = a.standing in (Standing.SHADOW, Standing.PENDING) or (a.standing is Standing.DUE and not a.needed)
            assert moves.get(a.action_id, a.standing if begun else None) == a.standing


Life.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestLife = Life.TestCase


class LifeInPostgres(Life):
    """The same, in a schema of a real PostgreSQL for each example."""

    server: ClassVar[Server]

    def opened(self) -> State:
        return State(self.server.address())


LifeInPostgres.TestCase.settings = settings(max_examples=6, stateful_step_count=20, deadline=None)


@pytest.mark.usefixtures("life_in_postgres")
class TestLifeInPostgres(LifeInPostgres.TestCase):
    pass


@pytest.fixture(scope="session")
def life_in_postgres(postgres: Server) -> None:
    LifeInPostgres.server = postgres
