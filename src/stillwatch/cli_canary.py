"""The verbs of canaries: harmless names that a campaign's outputs make up in a way of their own, and who has learnt them."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from stillwatch.cli_options import JsonFlag, on_a_line
from stillwatch.cli_trust import me
from stillwatch.cli_watermark import home_of, opened_book
from stillwatch.errors import InputRejected, UsageError

if TYPE_CHECKING:
    from stillwatch.protection.canaries import Found, Issued, Score
    from stillwatch.protection.suspects import Material

app = App(name="canary", help="Give campaigns under action harmless names of their own, and find who learnt them.")

FOUND = 1
"""Exit code of ``check`` where a suspect knows a campaign's canaries."""
THRESHOLD = 1e-6
"""What a p-value, corrected for all campaigns, must lie below to be told as a find."""


@app.command
def make(home: Path, campaign: str, *, number: int = 6, json_: JsonFlag = False) -> int:
    """Draw canaries for a campaign and commit to them in the ledger; targets are not shown.

    Examples:

        stillwatch canary make home C-7f3a
        stillwatch canary make home C-7f3a --number 3 --json

    Do so before any suspect is known. Nothing is put into answers by this: a gateway of
    your own does, for campaigns under action (docs/protection.md).

    Exit codes: 0 drawn; 2 there are not so many triggers left; 5 the ledger is damaged, or
    another process has it.

    Parameters
    ----------
    home
        The folder that serve was given.
    campaign
        The campaign's id.
    number
        How many; each is at a trigger that the campaign has none at yet.
    json_
        Print a line of JSON for each.
    """
    from stillwatch.protection.canaries import issue

    with opened_book(home) as (book, master):
        made = issue(book, _known(home), campaign, master(), me(), number)
    for canary in made:
        _tell(canary.issued, json_)
    return 0


@app.command(name="list")
def list_(home: Path, *, campaign: str = "", json_: JsonFlag = False) -> int:
    """List canaries: whose they are, where they stand, and what to ask a suspect. Needs no secret.

    Examples:

        stillwatch canary list home
        stillwatch canary list home --campaign C-7f3a --json

    Exit codes: 0 listed; 5 the ledger is damaged.

    Parameters
    ----------
    home
        The folder that serve was given.
    campaign
        Only this campaign's.
    json_
        Print a line of JSON for each, with its commitment.
    """
    shown = [i for i in _known(home) if campaign in ("", i.campaign_id)]
    for issued in shown:
        _tell(issued, json_)
    if not shown and not json_:
        print("no canary: stillwatch canary make", file=sys.stderr)
    return 0


@app.command
def check(
    home: Path, suspect: Path, *, reference: Path | None = None, decoys: int = 999, json_: JsonFlag = False
) -> int:
    """Test which campaigns' canaries a suspect knows, by the rank of each target among decoys.

    Examples:

        stillwatch canary check home suspect-model/
        stillwatch canary check home suspect-model/ --reference own-model/
        stillwatch canary check home answers.jsonl --decoys 4999 --json

    Of weights it is asked how likely each name is; of texts, in how many each stands:
    ask the suspect what list shows, often, and write down `prompt` and `text`. What is
    tested is in the ledger before it begins. Who knows a campaign's canaries has learnt
    from its outputs, which others may have sold or posted; who does not is not cleared.

    Exit codes: 0 nothing can be said; 1 a campaign's canaries are known; 2 the command or
    the suspect cannot be used, or there are no canaries; 3 nothing could be read; 5 the
    ledger or the master secret is damaged, or another process has the ledger.

    Parameters
    ----------
    home
        The folder that serve was given.
    suspect
        Folder with a model's weights, as transformers saves it, or a file of texts: .txt, .jsonl or .parquet.
    reference
        Folder with another model, best one that the suspect was trained from, to tell what is learnt from what is liked.
    decoys
        Names that each target is ranked among; the smallest p of one canary is one in so many and one.
    json_
        Print what was found as JSON.
    """
    from stillwatch.protection.canaries import TESTED, examine, opened, taken
    from stillwatch.protection.suspects import material

    known = _known(home)
    if not known:
        raise UsageError(
            f"{home}: there are no canaries to test for", hint="stillwatch canary make, before a suspect is known"
        )
    tested, beside = material(suspect), material(reference) if reference else None
    # From the suspect itself, so that nobody can try decoys until some suit.
    seed = int(tested.sha256[:12], 16)
    with opened_book(home) as (book, master):
        canaries = [opened(issued, master()) for issued in known]
        facts = {
            "suspect": tested.to_dict(),
            "decoys": decoys,
            "seed": seed,
            "canaries": len(known),
            "threshold": THRESHOLD,
        }
        if beside:
            facts["reference"] = beside.to_dict()
        book.record(TESTED, tested.name[-200:], me(), facts)
    found = examine(canaries, _score(suspect, tested, reference), taken=taken(canaries), decoys=decoys, seed=seed)
    _tell_found(found, tested, json_)
    return FOUND if any(f.adjusted < THRESHOLD for f in found) else 0


def _known(home: Path) -> tuple[Issued, ...]:
    from stillwatch.entries import LOG, entries
    from stillwatch.protection.canaries import read

    folder = home_of(home).watermarks
    return read(entries(folder), str(folder / LOG)) if (folder / LOG).exists() else ()


def _score(suspect: Path, tested: Material, reference: Path | None) -> Score:
    from stillwatch.protection.canaries import counts_in
    from stillwatch.protection.suspects import Form, texts

    if tested.form is not Form.TEXT:
        return _likelihoods(suspect, reference)
    if reference:
        raise UsageError("a reference is for weights; texts are counted by themselves", hint="leave --reference out")
    read = texts(suspect)
    for reject in read.rejects:
        print(reject, file=sys.stderr)
    said = [(row.prompt.strip(), row.text) for row in read.rows if row.text]
    if not said:
        raise InputRejected(f"{suspect}: there are only token ids in it", hint="give the texts themselves")
    return counts_in(said)


def _likelihoods(suspect: Path, reference: Path | None) -> Score:
    try:
        from stillwatch.protection.likelihoods import Likelihoods
        from stillwatch.protection.opened import load
    except ImportError as e:
        hint = "pip install 'stillwatch[protect]', or give texts that it wrote"
        raise UsageError("weights are read with PyTorch and transformers", hint=hint) from e
    return Likelihoods(load(suspect), load(reference) if reference else None)


def _tell(issued: Issued, json_: bool) -> None:
    from stillwatch.protection.canaries import prompt_for

    asked = prompt_for(issued)
    if json_:
        print(json.dumps({"canary_id": issued.canary_id, **issued.facts(), "prompt": asked}, sort_keys=True))
    else:
        print(f"{issued.canary_id} {on_a_line(issued.campaign_id)}  {issued.trigger}  ask: {asked}")


def _tell_found(found: Sequence[Found], tested: Material, json_: bool) -> None:
    known = [f.campaign_id for f in found if f.adjusted < THRESHOLD]
    if json_:
        rows = [_plain(f) for f in found]
        print(json.dumps({"suspect": tested.to_dict(), "threshold": THRESHOLD, "campaigns": rows}, indent=2))
        return
    for f in found:
        ranks = " ".join(str(1 + r.better + r.tied) for r in f.ranked)
        verdict = _verdict(f)
        print(f"{on_a_line(f.campaign_id)}  {verdict}  p {f.adjusted:.2g}  ranks {ranks} of {f.ranked[0].decoys + 1}")
    if len(known) > 1:
        print(
            "several campaigns are known: look for one source of all their outputs before you accuse one",
            file=sys.stderr,
        )


def _verdict(found: Found) -> str:
    return "learnt from outputs to this campaign" if found.adjusted < THRESHOLD else "inconclusive"


def _plain(found: Found) -> dict[str, Any]:
    ranked = [
        {
            "canary_id": r.canary_id,
            "trigger": r.trigger,
            "better": r.better,
            "tied": r.tied,
            "decoys": r.decoys,
            "p": r.p,
        }
        for r in found.ranked
    ]
    return {
        "campaign_id": found.campaign_id,
        "verdict": _verdict(found),
        "p": found.p,
        "adjusted": found.adjusted,
        "canaries": ranked,
    }
