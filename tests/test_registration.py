"""Registrations: signed, whole, in the ledger, and refused where anything is not as it was registered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillwatch.entries import entries
from stillwatch.errors import InputRejected, UsageError
from stillwatch.notes import Signer
from stillwatch.protection import registration as registrations
from stillwatch.protection.book import Book
from stillwatch.protection.keys import Scheme, derive
from stillwatch.protection.registration import THRESHOLD, Registration, committed
from stillwatch.protection.sequences import Sequences
from stillwatch.protection.suspects import Form, Material
from stillwatch.protection.verdicts import ALTERNATIVES, Verdict, judge
from stillwatch.protection.vetting import Vetting
from stillwatch.secret import Secret

SIGNER = Signer.make("stillwatch/test")
MASTER = Secret("a master secret of the tests, long enough")
KEYS = [derive(MASTER, f"C-{i}", "2026-11", Scheme()) for i in range(3)]
SUSPECT, SERVED, OWN = (Material(n, f, n[0] * 64) for n, f in (("s", "weights"), ("t", "text"), ("o", "weights")))
SUSPECT, SERVED, OWN = (replace(m, form=Form(m.form)) for m in (SUSPECT, SERVED, OWN))


def registration(**more: Any) -> Registration:
    power = ({"suspect": "s", "scheme": "{}", "expected": [{"share": 1.0, "z": 20.0, "z_needed": 5.5, "chance": 1.0}]},)
    given = {
        "registered_at": "2026-11-27T12:00:00+00:00", "who": "cli:ann", "suspects": (SUSPECT,), "served": SERVED,
        "reference": OWN, "tokenizer": None, "keys": committed(KEYS, {}), "statistics": ("residual",), "seed": 7,
        "readings": {"context": 512, "tokens": 64}, "power": power,
    }  # fmt: skip
    return Registration(**{**given, **more})


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "registration.json"
    path.write_text(text)
    return path


def test_what_was_registered_is_read_back(tmp_path: Path) -> None:
    made = registration(keys=committed(KEYS, {KEYS[1].key_id: "contract 17"}))
    found = registrations.load(written(tmp_path, registrations.register(made, SIGNER, None)), SIGNER.verifier)
    assert found == made and found.digest == made.digest
    assert [k.licensed for k in found.keys] == ["", "contract 17", ""]
    assert all(k.secret.hex() not in json.dumps(found.plain()) for k in KEYS)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in places(v, (*at, k))]
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in places(v, (*at, i))]
    return [at]


def test_a_change_anywhere_in_it_is_found(tmp_path: Path) -> None:
    whole = json.loads(registrations.register(registration(), SIGNER, None))
    found = places(whole["registration"])
    assert len(found) > 30
    for place in found:
        changed = json.loads(json.dumps(whole))
        at = changed["registration"]
        for part in place[:-1]:
            at = at[part]
        at[place[-1]] = f"{at[place[-1]]}x" if isinstance(at[place[-1]], str) else 1 if at[place[-1]] != 1 else 2
        with pytest.raises(InputRejected, match="not what was signed"):
            registrations.load(written(tmp_path, json.dumps(changed)), SIGNER.verifier)


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"registration": 3, "note": ""}', '{"a": 1, "a": 2}'])
def test_a_file_that_is_no_registration_is_rejected(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputRejected):
        registrations.load(written(tmp_path, text), SIGNER.verifier)
    with pytest.raises(UsageError, match="cannot be read"):
        registrations.load(tmp_path / "nowhere.json", SIGNER.verifier)


def test_one_that_another_key_signed_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, registrations.register(registration(), Signer.make("stillwatch/test"), None))
    with pytest.raises(InputRejected, match="not by"):
        registrations.load(path, SIGNER.verifier)


def test_a_signed_proof_is_no_registration(tmp_path: Path) -> None:
    told = registration().plain()
    whole = json.loads(registrations.sealed("proof", told, SIGNER))
    whole["registration"] = whole.pop("proof")
    with pytest.raises(InputRejected, match="not what was signed"):
        registrations.load(written(tmp_path, json.dumps(whole)), SIGNER.verifier)


@pytest.mark.parametrize(("more", "what"), [
    ({"suspects": ()}, "a suspect, a key and a statistic"),
    ({"keys": committed(KEYS[:1] * 2, {})}, "a key is named twice"),
    ({"suspects": (SUSPECT, replace(SUSPECT, name="again"))}, "a suspect is named twice"),
    ({"suspects": (SUSPECT, SERVED)}, "not tested together"),
    ({"statistics": ("pairs",)}, "statistics of weights are residual, argmax"),
    ({"served": None}, "read on served text"),
    ({"reference": SERVED}, "beside the provider's own model"),
    ({"suspects": (SERVED,)}, "unwatermarked texts"),
    ({"threshold": 1e-3}, "threshold is at most"),
    ({"threshold": 0.0}, "threshold is at most"),
])  # fmt: skip
def test_a_test_that_cannot_be_made_is_not_registered(more: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        registration(**more)


def test_hypotheses_are_keys_by_suspects_by_statistics() -> None:
    other = replace(SUSPECT, name="b", sha256="b" * 64)
    assert registration(suspects=(SUSPECT, other), statistics=("residual", "argmax")).hypotheses == 12


def test_inputs_are_held_against_what_was_registered() -> None:
    registrations.check(SUSPECT, replace(SUSPECT, name="elsewhere"), "suspect")
    registrations.check(None, None, "tokenizer")
    with pytest.raises(InputRejected, match="not the suspect that was registered"):
        registrations.check(SUSPECT, replace(SUSPECT, sha256="f" * 64), "suspect")
    with pytest.raises(InputRejected, match="the served text is missing"):
        registrations.check(SERVED, None, "served text")
    with pytest.raises(InputRejected, match="the tokenizer was not registered"):
        registrations.check(None, SERVED, "tokenizer")


def test_keys_are_held_against_their_commitments() -> None:
    known = committed(KEYS, {})[0]
    known.check(KEYS[0])
    for other in (KEYS[1], replace(KEYS[0], secret=KEYS[1].secret), replace(KEYS[0], scheme=Scheme(width=2))):
        with pytest.raises(InputRejected, match="not the one that was registered"):
            known.check(other)
    with pytest.raises(UsageError, match="licensed, but not tested: nobody"):
        committed(KEYS, {"nobody": "use"})


# The ledger


def test_the_ledger_says_what_was_registered_before_and_each_further_test_is_held_to_more(tmp_path: Path) -> None:
    texts = Sequences.of(np.random.default_rng(0).integers(0, 200, (80, 40)))
    with Book(tmp_path / "w", SIGNER) as book:
        book.issue("C-1", Scheme(), Vetting(texts), MASTER, "ann")
        made = registration()
        with pytest.raises(InputRejected, match="not in the ledger"):
            registrations.check_recorded(made, entries(tmp_path / "w"))
        registrations.register(made, SIGNER, book)
        registrations.check_recorded(made, entries(tmp_path / "w"))
        with pytest.raises(InputRejected, match="not in the ledger"):
            registrations.check_recorded(replace(made, seed=8), entries(tmp_path / "w"))
        assert registrations.attempts(entries(tmp_path / "w"), [SUSPECT]) == 1
        assert registrations.attempts(entries(tmp_path / "w"), [replace(SUSPECT, sha256="f" * 64)]) == 0
        assert len(book.ledger.issued) == 1
    assert registrations.threshold_after(0) == THRESHOLD
    assert sum(registrations.threshold_after(n) for n in range(100_000)) < 1.65 * THRESHOLD


# Verdicts


def verdict(low: dict[int, float], licensed: dict[int, str] | None = None) -> Any:
    keys = committed(KEYS, {KEYS[i].key_id: use for i, use in (licensed or {}).items()})
    return judge({k.key_id: low.get(i, 0.0) for i, k in enumerate(KEYS)}, keys, -6.0)


def test_no_verdict_says_that_a_suspect_is_clean() -> None:
    found = verdict({})
    assert found.verdict is Verdict.INCONCLUSIVE and "does not clear" in found.sentence
    assert not any(v in ("clean", "innocent") for v in Verdict)
    assert verdict({1: -5.99}).verdict is Verdict.INCONCLUSIVE


def test_one_campaign_that_fires_is_named_and_several_are_not_accused_alone() -> None:
    assert (verdict({1: -6.0}).verdict, verdict({1: -6.0}).campaigns) == (Verdict.LEARNT, ("C-1",))
    found = verdict({0: -80.0, 2: -7.0})
    assert (found.verdict, found.campaigns) == (Verdict.SEVERAL, ("C-0", "C-2"))
    assert "canaries" in " ".join(found.next_steps).lower() and len(ALTERNATIVES) >= 4


def test_what_is_licensed_is_said_and_accuses_nobody() -> None:
    found = verdict({1: -80.0}, {1: "contract 17"})
    assert (found.verdict, found.campaigns) == (Verdict.LICENSED, ()) and "contract 17" in found.sentence
    both = verdict({0: -80.0, 1: -80.0}, {1: "contract 17"})
    assert (both.verdict, both.campaigns) == (Verdict.LEARNT, ("C-0",)) and "contract 17" in both.sentence


def test_two_keys_of_one_campaign_speak_for_it_together() -> None:
    later = derive(MASTER, "C-0", "2026-12", Scheme())
    keys = committed([KEYS[0], later], {})
    found = judge({KEYS[0].key_id: -9.0, later.key_id: -9.0}, keys, -6.0)
    assert (found.verdict, found.campaigns, len(found.keys)) == (Verdict.LEARNT, ("C-0",), 2)
