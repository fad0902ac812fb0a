"""A reference to reasoning opens where it was given and nowhere else; every other use is refused for its own reason."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.errors import UsageError
from stillwatch.protection import reasoning
from stillwatch.protection.reasoning import REASONS, Binding, Bounds, Keyring, References, Refused
from stillwatch.secret import Secret

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
HERE = Binding("acme", "session-1", "large-9")
TRACE = "First I add the two numbers. Then I check the sum. Zürich \U0001f600".encode()
RING = Keyring.made()

names = st.text(min_size=1, max_size=20)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def references(clock: Clock) -> References:
    return References(RING, Bounds(timedelta(hours=1), timedelta(seconds=30), 4096), clock)


def reason_of(references: References, reference: str, binding: Binding = HERE) -> str:
    with pytest.raises(Refused) as refused:
        references.open(reference, binding)
    assert references.refused[refused.value.reason] >= 1
    return refused.value.reason


def test_a_trace_comes_back_where_it_was_given_as_often_as_it_is_asked_for(references: References) -> None:
    reference = references.seal(TRACE, HERE)
    assert [references.open(reference, HERE) for _ in range(3)] == [TRACE] * 3
    assert (references.sealed, references.opened, references.refused.total()) == (1, 3, 0)
    assert reasoning.REFERENCE.fullmatch(reference)


def test_nothing_of_the_trace_or_the_names_can_be_seen_and_no_two_are_alike(references: References) -> None:
    one, two = (references.seal(TRACE, HERE) for _ in range(2))
    raws = [base64.urlsafe_b64decode(r.split(".")[2] + "==") for r in (one, two)]
    for raw in raws:
        assert not any(word in raw for word in (TRACE[:8], b"acme", b"session-1", b"large-9"))
    head = reasoning._HEAD.size
    assert raws[0][24 + 16 : head] != raws[1][24 + 16 : head]  # marks of the same names cannot be joined


@pytest.mark.parametrize(
    ("binding", "reason"),
    [
        (Binding("other", "session-1", "large-9"), "other_tenant"),
        (Binding("acme", "session-2", "large-9"), "other_session"),
        (Binding("acme", "session-1", "small-1"), "other_model"),
        (Binding("other", "session-2", "small-1"), "other_tenant"),
        # The same letters, parted elsewhere.
        (Binding("acmes", "ession-1", "large-9"), "other_tenant"),
    ],
)
def test_elsewhere_it_is_refused_for_the_reason_and_counted(
    references: References, binding: Binding, reason: str
) -> None:
    assert reason_of(references, references.seal(TRACE, HERE), binding) == reason
    assert references.refused[reason] == references.refused.total() == 1
    assert references.opened == 0


def test_it_ends_and_clocks_may_differ_a_little(references: References, clock: Clock) -> None:
    reference = references.seal(TRACE, HERE)
    clock.now = NOW + timedelta(hours=1, seconds=29)
    assert references.open(reference, HERE) == TRACE
    clock.now = NOW + timedelta(hours=1, seconds=30)
    assert reason_of(references, reference) == "expired"
    clock.now = NOW - timedelta(seconds=30)
    assert references.open(reference, HERE) == TRACE
    clock.now = NOW - timedelta(seconds=31)
    assert reason_of(references, reference) == "not_yet"


def test_an_ended_reference_of_another_tenant_says_nothing_of_its_end(references: References, clock: Clock) -> None:
    reference = references.seal(TRACE, HERE)
    clock.now = NOW + timedelta(days=2)
    assert reason_of(references, reference, Binding("other", "session-1", "large-9")) == "other_tenant"


def test_what_callers_are_told_does_not_tell_tenants_apart() -> None:
    told = {
        c().message for c in (reasoning.OtherTenant, reasoning.OtherSession, reasoning.OtherModel, reasoning.Altered)
    }
    assert len(told) == 1
    assert len(set(REASONS)) == len(REASONS) == len(Refused.__subclasses__())


def test_cut_anywhere_it_is_refused(references: References) -> None:
    reference = references.seal(b"abc", HERE)
    for end in range(len(reference)):
        assert reason_of(references, reference[:end]) in ("malformed", "altered", "unknown_key")
    for more in ("A", "=", " ", "\n", "."):
        assert reason_of(references, reference + more) in ("malformed", "altered")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_any_byte_is_refused(data: st.DataObject) -> None:
    references = References(RING, clock=lambda: NOW)
    reference = references.seal(data.draw(st.binary(max_size=40)), HERE)
    prefix, key_id, text = reference.split(".")
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    changed = base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
    assert reason_of(references, f"{prefix}.{key_id}.{changed}") == "altered"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_other_character_anywhere_is_refused(data: st.DataObject) -> None:
    references = References(RING, clock=lambda: NOW)
    reference = references.seal(TRACE, HERE)
    at = data.draw(st.integers(0, len(reference) - 1))
    other = data.draw(st.characters().filter(lambda c: c != reference[at]))
    assert reason_of(references, reference[:at] + other + reference[at + 1 :]) in REASONS


@settings(max_examples=200, deadline=None)
@given(st.builds(Binding, names, names, names), st.builds(Binding, names, names, names), st.binary(max_size=64))
def test_it_opens_for_its_own_binding_alone(given_to: Binding, used_by: Binding, trace: bytes) -> None:
    references = References(RING, clock=lambda: NOW)
    reference = references.seal(trace, given_to)
    assert references.open(reference, given_to) == trace
    if used_by != given_to:
        assert reason_of(references, reference, used_by) in ("other_tenant", "other_session", "other_model")


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_no_text_that_is_none_of_ours_opens_or_raises_anything_else(text: str) -> None:
    references = References(RING, clock=lambda: NOW)
    assert reason_of(references, text) in ("malformed", "unknown_key")


def test_sizes_have_a_bound_both_ways(references: References) -> None:
    whole = references.seal(b"x" * 4096, HERE)
    assert references.open(whole, HERE) == b"x" * 4096
    with pytest.raises(reasoning.TooLarge):
        references.seal(b"x" * 4097, HERE)
    wide = References(RING, Bounds(most=1 << 20), lambda: NOW)
    assert reason_of(references, wide.seal(b"x" * 100_000, HERE)) == "too_large"


def test_keys_are_rotated_and_retired_by_their_id(references: References, clock: Clock) -> None:
    reference = references.seal(TRACE, HERE)
    once = RING.rotated()
    references.turn(once)
    assert references.open(reference, HERE) == TRACE
    assert references.seal(TRACE, HERE).split(".")[1] == once.current != RING.current
    references.turn(once.rotated())
    assert reason_of(references, reference) == "retired_key"
    references.turn(Keyring.made())
    assert reason_of(references, reference) == "unknown_key"


def test_a_reference_under_the_name_of_another_key_is_altered(references: References) -> None:
    prefix, _, text = references.seal(TRACE, HERE).split(".")
    turned = RING.rotated()
    references.turn(turned)
    assert reason_of(references, f"{prefix}.{turned.current}.{text}") == "altered"


def test_a_ring_goes_through_a_file_of_its_owner(tmp_path: Path) -> None:
    ring = RING.rotated().rotated()
    file = tmp_path / "reasoning.keys"
    file.write_text(ring.text())
    os.chmod(file, 0o600)
    assert Keyring.load(file) == ring
    assert len(ring.keys) == 2 and ring.retired == {RING.current}
    os.chmod(file, 0o644)
    with pytest.raises(UsageError, match="others may read"):
        Keyring.load(file)
    assert not any(base64.b64encode(k).decode() in repr(ring) for k in ring.keys.values())


@pytest.mark.parametrize("text", ["", "abc", "retired 01234567", "01234567 AAAA", "0123456 !!", "zz " + "A" * 44])
def test_what_are_no_keys_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Keyring.parse(Secret(text))
    assert "AAAA" not in str(refused.value)


def test_an_empty_name_binds_nothing() -> None:
    for parts in (("", "s", "m"), ("t", "", "m"), ("t", "s", "")):
        with pytest.raises(ValueError, match="bound to"):
            Binding(*parts)


def test_every_check_is_made_whatever_the_others_say(references: References, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, opened = [], []
    compare, decrypt = reasoning.hmac.compare_digest, reasoning._opened
    monkeypatch.setattr(reasoning.hmac, "compare_digest", lambda a, b: compared.append(1) or compare(a, b))
    monkeypatch.setattr(reasoning, "_opened", lambda *given: opened.append(1) or decrypt(*given))
    reference = references.seal(TRACE, HERE)
    for binding in (HERE, Binding("other", "session-1", "large-9"), Binding("acme", "session-1", "small-1")):
        compared.clear(), opened.clear()
        try:
            references.open(reference, binding)
        except Refused:
            assert binding != HERE
        assert (len(compared), len(opened)) == (4, 1)
