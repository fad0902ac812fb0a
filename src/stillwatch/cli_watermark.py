"""The verbs of watermarks: keys for campaigns, their ledger, and what engines and strangers are given of them."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import App

from stillwatch.cli_options import Flag, JsonFlag, on_a_line
from stillwatch.cli_trust import me
from stillwatch.errors import Terminal, UsageError

if TYPE_CHECKING:
    from stillwatch.protection.book import Book, Issued
    from stillwatch.protection.vetting import Vetting
    from stillwatch.secret import Secret
    from stillwatch.serving.home import Home

app = App(
    name="watermark", help="Give campaigns under action a watermark of their own, and prove later that it is theirs."
)

UNSOUND = 1
"""Exit code of ``verify`` where something is not as it was published."""

Scheme = Literal["bernoulli", "gumbel"]


@app.command
def issue(
    home: Path,
    campaign: str,
    *,
    text: Path,
    tokenizer: Path | None = None,
    scheme: Scheme = "bernoulli",
    width: int = 1,
    share: float = 0.25,
    delta: float = 2.0,
    epoch: str = "",
    json_: JsonFlag = False,
) -> int:
    """Issue a key for a campaign: vetted, committed to in the ledger, in use from then on.

    Examples:

        stillwatch watermark issue home C-7f3a --text own.jsonl --tokenizer model
        stillwatch watermark issue home C-7f3a --text ids.parquet --width 2

    Vetting counts how much the key favours, by luck, what your model writes anyway; a key
    that does is turned down for the next one. Give some hundred answers that were written
    without a watermark. Then: watermark export, for the engine, and watermark publish.

    Exit codes: 0 issued; 2 it has a key already, or the text cannot be used; 3 nothing of the
    text could be read; 5 the ledger is damaged, or another process has it.

    Parameters
    ----------
    home
        The folder that serve was given.
    campaign
        The campaign's id.
    text
        Your model's own unwatermarked answers: .txt, .jsonl or .parquet, with `text`, or `tokens` (ids of the served model).
    tokenizer
        Folder with the served model's tokenizer, where the text is no token ids.
    scheme
        bernoulli leans towards favoured tokens; gumbel draws by the key alone, and bends nothing on average.
    width
        Tokens of the window that a coin depends on; 1 is learnt best, 4 is hardest to imitate.
    share
        Part of all tokens that is favoured.
    delta
        What favoured tokens gain, in nats; bernoulli alone.
    epoch
        Name of the time the key is for; else the month.
    json_
        Print what the ledger says of the key as JSON.
    """
    from stillwatch.protection.keys import Kind
    from stillwatch.protection.keys import Scheme as Made

    try:
        made = Made(Kind(scheme), width, share, delta)
    except ValueError as e:
        raise UsageError(str(e), hint="stillwatch watermark issue --help") from e
    vetting = _vetting(text, tokenizer)
    with opened_book(home) as (book, master):
        key = book.issue(campaign, made, vetting, master(), me(), epoch=epoch)
        _tell(book.ledger.get(key.key_id), json_)
    _say("stillwatch watermark export gives it to the engine; until then answers are unmarked")
    return 0


@app.command
def rotate(
    home: Path,
    campaign: str,
    *,
    text: Path,
    tokenizer: Path | None = None,
    after: str = "10m",
    epoch: str = "",
    json_: JsonFlag = False,
) -> int:
    """Issue a campaign's next key, of the same scheme; the one it has ends when that begins.

    Examples:

        stillwatch watermark rotate home C-7f3a --text own.jsonl --tokenizer model
        stillwatch watermark rotate home C-7f3a --text ids.parquet --after 1h

    Export to the engine before the new key begins, so that no answer is unmarked. The old key
    goes on proving what was learnt from answers that carried it.

    Exit codes: 0 issued; 2 the campaign has no key, or the text cannot be used; 3 nothing of the
    text could be read; 5 the ledger is damaged, or another process has it.

    Parameters
    ----------
    home
        The folder that serve was given.
    campaign
        The campaign's id.
    text
        Your model's own unwatermarked answers, as for issue.
    tokenizer
        Folder with the served model's tokenizer, where the text is no token ids.
    after
        When it begins: a number and s, m, h or d from now.
    epoch
        Name of the time the key is for; else the month, with a number.
    json_
        Print what the ledger says of the key as JSON.
    """
    from stillwatch.windows import parse_length

    vetting = _vetting(text, tokenizer)
    with opened_book(home) as (book, master):
        key = book.rotate(campaign, vetting, master(), me(), epoch=epoch, after=parse_length(after))
        _tell(book.ledger.get(key.key_id), json_)
    _say("stillwatch watermark export gives it to the engine: do so before it begins")
    return 0


@app.command(name="list")
def list_(home: Path, *, all_: Flag = False, json_: JsonFlag = False) -> int:
    """List keys: whom they are for, since when, and how they were vetted. Needs no secret.

    Examples:

        stillwatch watermark list home
        stillwatch watermark list home --all --json

    Exit codes: 0 listed; 5 the ledger is damaged.

    Parameters
    ----------
    home
        The folder that serve was given.
    all_
        Retired keys and those that another one has followed, too.
    json_
        Print a line of JSON for each key.
    """
    from stillwatch.protection.book import Ledger

    now = datetime.now(UTC)
    ledger = Ledger.read(home_of(home).watermarks)
    shown = list(ledger.issued.values()) if all_ else ledger.living(now)
    for key in shown:
        print(json.dumps(key.plain(), sort_keys=True) if json_ else _line(key, now))
    if not shown and not json_:
        _say("no key: stillwatch watermark issue")
    return 0


@app.command
def retire(home: Path, key_id: str, *, reason: str, json_: JsonFlag = False) -> int:
    """Have a key in use no more; it goes on proving what was learnt from answers that carried it.

    Examples:

        stillwatch watermark retire home 3f9c01ab77de4410 --reason innocent

    Exit codes: 0 done; 2 there is no such key, or it is retired already; 5 the ledger is
    damaged, or another process has it.

    Parameters
    ----------
    home
        The folder that serve was given.
    key_id
        The key's id, as list shows it.
    reason
        Why, for the ledger.
    json_
        Print what the ledger says of the key as JSON.
    """
    with opened_book(home) as (book, _):
        _tell(book.retire(key_id, me(), reason), json_)
    _say("stillwatch watermark export takes it from the engine")
    return 0


@app.command
def publish(home: Path, *, out: Path, json_: JsonFlag = False) -> int:
    """Write the signed list of commitments, to give to anybody; campaigns and secrets are not in it.

    Examples:

        stillwatch watermark publish home --out commitments.txt

    Put it where its date is beyond doubt (a public repository, a time stamp, a notary), with
    watermarks/key.pub, before any suspect is tested: it proves that no key was made to fit.

    Exit codes: 0 written; 2 there is nothing to publish; 5 the ledger is damaged, or another
    process has it.

    Parameters
    ----------
    home
        The folder that serve was given.
    out
        File to write the note to.
    json_
        Print the public key and what was published as JSON.
    """
    from stillwatch.protection.published import Publication
    from stillwatch.protection.published import publish as published
    from stillwatch.store.state import write_text

    with opened_book(home) as (book, _):
        note, verifier = published(book, datetime.now(UTC)), book.verifier
    try:
        write_text(out, note)
    except OSError as e:
        raise Terminal(f"{out}: cannot be written: {e.strerror}", hint="give a file in a folder of your own") from e
    told = Publication.open(note, verifier)
    if json_:
        print(json.dumps({"key": str(verifier), "entries": told.size, "keys": [k.key_id for k in told.keys]}, indent=2))
    else:
        print(f"{out}: {len(told.keys)} keys, {told.size} entries\nkey {verifier}")
    return 0


@app.command
def export(home: Path, *, out: Path, json_: JsonFlag = False) -> int:
    """Write the file of keys that an engine needs: secrets by opaque id, for its owner alone.

    Examples:

        stillwatch watermark export home --out /etc/vllm/watermark-keys.json

    Whoever reads it can make and find these watermarks. An engine that was given it reads it
    again when it changes. That it was written is in the ledger.

    Exit codes: 0 written; 5 the ledger or the master secret is damaged, the file cannot be
    written, or another process has the ledger.

    Parameters
    ----------
    home
        The folder that serve was given.
    out
        The file, replaced whole.
    json_
        Print the ids of the keys in it as JSON.
    """
    from stillwatch.protection.engine_keys import write_keys

    with opened_book(home) as (book, master):
        keys = book.export(master(), me(), str(out)[-200:])
        write_keys(out, keys)
    if json_:
        print(json.dumps([k.key_id for k in keys]))
    else:
        print(f"{out}: {len(keys)} keys")
    return 0


@app.command
def reveal(home: Path, key_id: str, *, reason: str, out: Path, json_: JsonFlag = False) -> int:
    """Write a key's secret to a file, to be shown to a court or an expert; it is retired first.

    Examples:

        stillwatch watermark reveal home 3f9c01ab77de --reason "court" --out x.hex

    The one who is shown it checks it with stillwatch watermark verify.

    Exit codes: 0 written; 2 there is no such key; 5 the ledger or the master secret is damaged,
    or another process has the ledger.

    Parameters
    ----------
    home
        The folder that serve was given.
    key_id
        The key's id, as list shows it.
    reason
        To whom and why, for the ledger.
    out
        A new file for the secret, in hex.
    json_
        Print what the ledger says of the key as JSON.
    """
    from stillwatch.protection.book import MASTER_VARIABLE
    from stillwatch.secret import write_new

    if out.exists():
        raise UsageError(f"{out}: is there already", hint="give a new file")
    with opened_book(home) as (book, master):
        key = book.reveal(key_id, master(), me(), reason)
        write_new(out, key.secret.hex(), MASTER_VARIABLE)
        _tell(book.ledger.get(key_id), json_)
    return 0


@app.command
def verify(
    publication: Path,
    *,
    key: Path,
    home: Path | None = None,
    key_id: str = "",
    secret: Path | None = None,
    json_: JsonFlag = False,
) -> int:
    """Check a list of commitments: who signed it, that the ledger still fits it, that a secret does.

    Examples:

        stillwatch watermark verify commitments.txt --key key.pub
        stillwatch watermark verify commitments.txt --key key.pub --home home
        stillwatch watermark verify c.txt --key k.pub --key-id 3f9c --secret x.hex

    Anybody can, with the public key that was published beside it. A folder of the ledger does
    for home. stillwatch audit verify HOME/watermarks checks the ledger by itself.

    Exit codes: 0 all that was asked holds; 1 something does not, and what; 2 a file cannot be used.

    Parameters
    ----------
    publication
        What publish wrote.
    key
        File with the ledger's public key.
    home
        A home, or its folder watermarks, whose ledger must still begin as was published.
    key_id
        The key that a revealed secret is of.
    secret
        File with a secret, as reveal wrote it.
    json_
        Print what was found as JSON.
    """
    from stillwatch.notes import BadNote, Verifier
    from stillwatch.protection.published import Publication
    from stillwatch.serving.home import Home

    if bool(key_id) != bool(secret):
        raise UsageError("a secret is checked against one key", hint="give both --key-id and --secret")
    faults: list[str] = []
    told: Publication | None = None
    try:
        told = Publication.open(_text_of(publication), Verifier.parse(_text_of(key)))
    except BadNote as e:
        faults.append(f"{publication}: {e.message}")
    if told and home:
        folder = Home(home).watermarks
        faults += told.faults(folder if folder.exists() else home)
    if told and secret and not told.opens(key_id, _secret_of(secret)):
        faults.append(f"{secret}: this is not the secret that was committed to as {key_id}")
    _tell_checked(told, faults, json_)
    return UNSOUND if faults else 0


# Shared


@contextmanager
def opened_book(home: Path) -> Iterator[tuple[Book, Callable[[], Secret]]]:
    """The ledger of a home, and its master secret for who asks."""
    from stillwatch.notes import load_signer
    from stillwatch.protection.book import LEDGER_VARIABLE, Book, master_secret

    place = home_of(home)

    def master() -> Secret:
        return master_secret(place.watermark_key)

    with Book(place.watermarks, load_signer(place.watermark_ledger_key, LEDGER_VARIABLE)) as book:
        yield book, master


def home_of(folder: Path) -> Home:
    from stillwatch.serving.home import Home

    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder", hint="give the folder that serve was given")
    return Home(folder)


def _vetting(text: Path, tokenizer: Path | None) -> Vetting:
    from stillwatch.protection.vetting import Vetting, unwatermarked

    found, rejects = unwatermarked(text, _tokenize(tokenizer) if tokenizer else None)
    for reject in rejects:
        _say(str(reject))
    return Vetting(found)


def _tokenize(folder: Path) -> Callable[[str], Sequence[int]]:
    try:
        from stillwatch.protection.tokenizing import tokenizer_in
    except ImportError as e:
        hint = "pip install 'stillwatch[protect]', or give token ids"
        raise UsageError("a tokenizer needs transformers", hint=hint) from e
    return tokenizer_in(folder)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: cannot be read: {getattr(e, 'strerror', e)}", hint="give a file of text") from e


def _secret_of(path: Path) -> bytes:
    try:
        return bytes.fromhex(_text_of(path).strip())
    except ValueError as e:
        raise UsageError(f"{path}: no secret in hex", hint="give what watermark reveal wrote") from e


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _tell(key: Issued, json_: bool) -> None:
    print(json.dumps(key.plain(), indent=2, sort_keys=True) if json_ else _line(key, datetime.now(UTC)))


def _line(key: Issued, now: datetime) -> str:
    if key.retired_at:
        state = f"retired {key.retired_at:%Y-%m-%d}" + (", revealed" if key.revealed_at else "")
    elif key.starts_at > now:
        state = f"begins {key.starts_at:%Y-%m-%d %H:%M} UTC"
    else:
        state = "in use" if key.holds(now) else f"ended {key.ends_at:%Y-%m-%d %H:%M} UTC"
    s = key.scheme
    form = f"{s.kind} width {s.width}" + (f" delta {s.delta:g}" if s.kind == "bernoulli" else "")
    names = " ".join(on_a_line(n) for n in (key.key_id, key.campaign_id, key.epoch))
    return f"{names}  {form}  {state}  z {key.vetted.z:+.2f}, {len(key.vetted.turned_down)} turned down"


def _tell_checked(told: Any, faults: list[str], json_: bool) -> None:
    keys = [k.key_id for k in told.keys] if told else []
    if json_:
        print(json.dumps({"sound": not faults, "faults": faults, "keys": keys}, indent=2))
        return
    if told:
        print(f"{told.origin}: {len(keys)} keys, {told.size} entries, published {told.at:%Y-%m-%d %H:%M} UTC")
    print("\n".join(f"fault: {f}" for f in faults) or "sound")
