"""The verbs of proof: a test of a suspect model is registered, and then made."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import secrets
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from stillwatch.cli_options import Flag, JsonFlag, on_a_line
from stillwatch.cli_trust import me
from stillwatch.errors import UsageError

if TYPE_CHECKING:
    from stillwatch.notes import Signer
    from stillwatch.protection.proving import Proof
    from stillwatch.protection.registration import Registration
    from stillwatch.serving.home import Home

app = App(name="prove")

FIRES = 1
"""Exit code where a key fires that no licence covers."""

Suspects = Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)]
Several = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


@app.command
def register(
    suspects: Suspects,
    *,
    home: Path,
    reference: Path,
    out: Path = Path("registration.json"),
    served: Path | None = None,
    tokenizer: Path | None = None,
    key: Several = (),
    licensed: Several = (),
    statistic: Several = (),
    seed: int | None = None,
    json_: JsonFlag = False,
    quiet: Flag = False,
) -> int:
    """Write down a test before it is made: suspects, text, keys and statistics by their hashes, and what it could find.

    Examples:

        stillwatch prove register new/ --home h --served t.jsonl --reference own/
        stillwatch prove register s.txt --home h --reference o.txt --tokenizer own/

    The registration is signed with the ledger's key, and its digest is written
    into the ledger of watermark keys. No key is used for it: what the test could
    find is worked out from the text's entropy, and from how the suspect differs
    from your model anyway. A test that can find nothing need not be made.

    Exit codes: 0 registered; 2 usage, or a package is missing; 3 a suspect or a
    text cannot be tested; 5 another process has the ledger, or it is damaged.

    Parameters
    ----------
    suspects
        Folders with weights (safetensors, as save_pretrained writes them), or files of what the suspect wrote (.txt, .jsonl,
        .parquet).
    home
        The folder that serve was given: the ledger of watermark keys is in it.
    reference
        Your own model that never saw watermarked text; where suspects are texts, texts of such a model to the same prompts.
    out
        The registration, a signed JSON file.
    served
        What the campaign was served (.jsonl or .parquet with text and prompt, or tokens and prompt_tokens); for weights.
    tokenizer
        Folder with your model's tokenizer; where suspects are texts and not token ids.
    key
        Id of a key to test; may be repeated. Default: all keys in the ledger.
    licensed
        KEY_ID=USE: what use of its campaign's outputs is permitted; such a key accuses nobody. May be repeated.
    statistic
        residual (default); argmax beside it for weights, pairs for texts. Each one more makes Holm's correction larger.
    seed
        Deals the text into its halves; else drawn.
    json_
        Print the registration as JSON.
    quiet
        No progress on stderr.
    """
    _check_extra()
    from stillwatch.entries import entries
    from stillwatch.notes import load_signer
    from stillwatch.progress import Progress
    from stillwatch.protection import registration as registrations
    from stillwatch.protection.book import LEDGER_VARIABLE, Book
    from stillwatch.protection.opened import Limits
    from stillwatch.protection.proving import Bench, Inputs, Materials, foresee
    from stillwatch.store.state import write_text

    place = _home(home)
    inputs = Inputs(tuple(suspects), reference, served, tokenizer)
    chosen = seed if seed is not None else secrets.randbelow(1 << 32)
    readings = {"context": Limits().context, "tokens": Limits().tokens}
    with (
        Progress(quiet=quiet) as progress,
        Book(place.watermarks, load_signer(place.watermark_ledger_key, LEDGER_VARIABLE)) as book,
    ):
        ids = key or tuple(book.ledger.issued)
        keys = registrations.committed((book.ledger.get(k) for k in ids), _licences(licensed))
        if not keys:
            raise UsageError(f"{home}: no key was ever issued", hint="stillwatch watermark issue")
        found = Materials.of(inputs)
        statistics = statistic or (registrations.RESIDUAL,)
        earlier = registrations.attempts(entries(place.watermarks), found.suspects)
        try:
            made = registrations.Registration(
                registrations.now_text(), me(), found.suspects, found.served, found.reference, found.tokenizer, keys,
                statistics, chosen, readings, (), registrations.threshold_after(earlier),
            )  # fmt: skip
        except ValueError as e:
            raise UsageError(str(e), hint="stillwatch prove register --help") from e
        bench = Bench(inputs, made.form, chosen, Limits(**readings), progress)
        made = replace(made, power=foresee(bench, [k.scheme for k in keys], made.hypotheses, made.threshold))
        text = registrations.register(
            made, load_signer(place.watermark_ledger_key, LEDGER_VARIABLE), book, inputs.places
        )
        write_text(out, text)
    for counted in bench.counted:
        for reject in counted.rejects:
            _say(str(reject))
    print(text if json_ else _registered(made, earlier), end="")
    _say(f"next: stillwatch prove {' '.join(map(str, suspects))} --registration {out} --home {home} --out proof")
    return 0


@app.default
def prove(
    suspects: Suspects,
    *,
    registration: Path,
    home: Path,
    out: Path,
    reference: Path | None = None,
    served: Path | None = None,
    tokenizer: Path | None = None,
    json_: JsonFlag = False,
    quiet: Flag = False,
) -> int:
    """Make a registered test, and say what a suspect model learnt from, or that the test is inconclusive.

    Examples:

        stillwatch prove new/ --registration registration.json --home h --out proof

    Register the test first: stillwatch prove register --help. That it was made, and
    its verdict, is written into the ledger too.

    Writes proof.json (signed) and proof.html to OUT. A key fires where both halves
    of the text show it, below one in a million after Holm's correction over all
    that was registered. A key that fires shows exposure to a campaign's outputs,
    not who collected them; one that does not clears nobody.

    Exit codes: 0 inconclusive, or only licensed keys fire; 1 the suspect learnt
    from a campaign's outputs, or more than one key fires; 2 usage, or a package is
    missing; 3 what is given is not what was registered, or cannot be read; 5 the
    ledger is damaged.

    Parameters
    ----------
    suspects
        The registered folders or files; those that are left out count as p = 1.
    registration
        What prove register wrote.
    home
        The folder it was registered in: the ledger of watermark keys and the master secret.
    out
        Folder for the report.
    reference
        Where the reference lies now; else where it was registered. The same for the next two.
    served
        Where the served text lies now.
    tokenizer
        Where the tokenizer lies now.
    json_
        Print proof.json to stdout.
    quiet
        No progress on stderr.
    """
    _check_extra()
    from stillwatch.entries import entries
    from stillwatch.notes import load_signer
    from stillwatch.progress import Progress
    from stillwatch.protection import registration as registrations
    from stillwatch.protection.book import LEDGER_VARIABLE, Book, Ledger, master_secret
    from stillwatch.protection.proving import Inputs, prove

    place = _home(home)
    signer = load_signer(place.watermark_ledger_key, LEDGER_VARIABLE)
    registered = registrations.load(registration, signer.verifier)
    registrations.check_recorded(registered, entries(place.watermarks))
    ledger, master = Ledger.read(place.watermarks), master_secret(place.watermark_key)
    keys = [ledger.key(k.key_id, master) for k in registered.keys]
    with Progress(quiet=quiet) as progress:
        inputs = Inputs.at(tuple(suspects), registrations.places_of(registration), reference, served, tokenizer)
        found = prove(registered, inputs, keys, progress)
    with Book(place.watermarks, signer) as book:
        verdicts = {sha256: str(j.verdict) for sha256, j in found.judged.items()}
        book.record(registrations.MADE, registered.digest, me(), {"verdicts": verdicts})
    return _reported(found, registered, signer, out, json_)


def _reported(found: Proof, registered: Registration, signer: Signer, out: Path, json_: bool) -> int:
    from stillwatch.protection import proof_report
    from stillwatch.protection.registration import now_text, sealed
    from stillwatch.protection.verdicts import Verdict
    from stillwatch.store.state import write_text

    told = proof_report.plain(found, registered, now_text(), str(signer.verifier))
    text = sealed("proof", told, signer)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "proof.json", text)
    write_text(out / "proof.html", proof_report.page(told))
    for line in proof_report.lines_of(found.counted):
        _say(line)
    if json_:
        print(text, end="")
    else:
        for suspect in told["suspects"]:
            print(f"{on_a_line(suspect['name'])}: {on_a_line(suspect['sentence'])}")
        print(f"the report: {(out / 'proof.html').resolve()}")
    accusing = any(j.verdict in (Verdict.LEARNT, Verdict.SEVERAL) for j in found.judged.values())
    return FIRES if accusing else 0


def _registered(made: Registration, earlier: int) -> str:
    lines = [f"registered {made.digest}: {made.hypotheses:,} hypotheses, threshold {made.threshold:.2g} after Holm"]
    if earlier:
        lines.append(f"the {earlier + 1}. test of this suspect: the threshold is lower for it")
    for power in made.power:
        lines.append(f"{on_a_line(power['suspect'])}: share of training text, z expected and at best, chance to fire")
        lines += [
            f"  {e['share']:>5.0%}  {e['z']:>6.1f}  {e['z_perfect']:>6.1f}  {e['chance']:.0%}"
            for e in power["expected"]
        ]
    return "\n".join(lines) + "\n"


def _licences(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        key_id, _, use = text.partition("=")
        if not key_id or not use.strip():
            raise UsageError(
                f"--licensed {text!r} is no licence", hint="KEY_ID=USE, such as 3f9c01ab77de0012='contract 17'"
            )
        found[key_id] = use.strip()
    return found


def _home(folder: Path) -> Home:
    from stillwatch.entries import LOG
    from stillwatch.serving.home import Home

    place = Home(folder)
    if not (place.watermarks / LOG).exists():
        raise UsageError(f"{folder}: no watermark key was issued there", hint="give the folder that serve was given")
    return place


def _check_extra() -> None:
    for name in ("scipy", "torch", "transformers"):
        if find_spec(name) is None:
            raise UsageError(f"a proof needs {name}", hint="pip install 'stillwatch[protect]'")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
