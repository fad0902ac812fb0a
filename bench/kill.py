"""A server under load is killed at any moment, again and again, and nothing that it promised is lost.

    python bench/kill.py --rounds 100 --out runs/kill

Each round starts the server on the same home, drives traffic in, questions, and people who propose and undo, and kills it
with SIGKILL after a random time, with or without its judge; one round in eight before it listens. In every other round its files
may grow no further for a while first (RLIMIT_FSIZE, as a full disk is). In every third its clock, and its judge's, jumps: a day
ahead, back an hour, back to what it is, in turn (Debian's faketime). What was not answered is sent again in the next life.
Looked at after each death and each start:

- each exchange of a body that was answered 200 is in the spool, each exchange once, and none that nobody sent;
- a body that was not answered is there whole or not at all, and is never answered as anything else;
- whatever is refused while files cannot grow is refused with 503, and what is in force is answered all the time;
- the audit verifies, all of it, with its signed checkpoint;
- in_force.json can be read, every entry proven, and says of the accounts of the start what it always has; so does /v1/in-force
  from the first question on;
- what people were told is done is done: an action proposed holds, one undone does not (``late``: not yet at the first question).

At the end the judge has judged as many exchanges as were kept, ``stillwatch audit verify`` passes, and the server stops with 0.
``rounds.jsonl`` has a line a round. Exit code 1 where anything of this did not hold. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from beside import (
    LINES,
    START_S,
    Line,
    Server,
    begun,
    clock_library,
    clock_of,
    dumped,
    held_account,
    prepared,
    set_clock,
    started_by,
)
from stillwatch.audit import public_key, verify
from stillwatch.errors import StillwatchError
from stillwatch.serving import snapshot
from stillwatch.serving.access import Role
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Status
from stillwatch.serving.reception import receive
from stillwatch.serving.services import derived, privacy_of
from stillwatch.spool import Spool, fingerprinted

SETTINGS = (
    'loop_every_s = 0.2\nretry_after_s = 1\n[judge]\nevery = "1m"\ninterval = "2s"\ngrace = "1s"\nretention = "30d"\n'
)
"""A clock that is a day ahead must not have the spool forget what is looked for in it."""
JUMPS_S = (86_400, 82_800, 0)
"""By how much the clock is ahead after each jump."""
GONE = (OSError, asyncio.IncompleteReadError)
SOON_S, FIRST_S, JUDGED_S = 20.0, 30.0, 300.0
ROWS = 25


@dataclass
class Ledger:
    """What the world knows of the server: bodies by number, what was promised, and every promise that did not hold."""

    held: int
    rows: int = ROWS
    next: int = 0
    acknowledged: set[int] = field(default_factory=set)
    unanswered: list[int] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    proposed: dict[str, str] = field(default_factory=dict)
    undone: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    checked: int = 0
    kept: list[np.ndarray] = field(default_factory=list)

    def need(self, holds: bool, said: str) -> None:
        if not holds:
            self.faults.append(said)

    def body(self, number: int) -> bytes:
        """Body ``number``, the same each time: its rows have ids and accounts of their own."""
        lines = []
        for i in range(self.rows):
            at = datetime.fromtimestamp(self.began + number * 0.01 + i * 0.0001, UTC).isoformat()
            account, prompt = f"a{(number * self.rows + i) % 97}", f"What is {number} plus {i}, step by step?"
            lines.append(dumped(
                {"exchange_id": f"k{number}-{i}", "time": at, "account_id": account, "model": "m", "prompt": prompt}
            ))  # fmt: skip
        return b"\n".join(lines)

    began: float = field(default_factory=lambda: time.time() - 86400.0)


# Load


async def send(server: Server, ledger: Ledger, numbers: list[int]) -> None:
    """Send what was not answered in earlier lives, then new bodies, until the server is gone."""
    headers = server.bearer(Role.INGEST) + LINES
    async with Line(server.port) as line:
        while True:
            number, is_again = (numbers.pop(), True) if numbers else (ledger.next, False)
            ledger.next += not is_again
            ledger.unanswered.append(number)
            status, told = await line.ask("POST", "/ingest/exchanges", headers, ledger.body(number))
            ledger.counts[f"ingest {status}"] += 1
            if status != 200:
                ledger.need(status == 503, f"body {number} was answered {status}: {told[:300]!r}")
                await asyncio.sleep(0.1)
                continue
            said = json.loads(told)
            may = {0, ledger.rows} if is_again else {ledger.rows}
            ledger.need(
                said["kept"] + said["duplicates"] == ledger.rows and said["kept"] in may,
                f"body {number}, {'sent again' if is_again else 'sent once'}, was answered {said}",
            )  # fmt: skip
            ledger.counts["found whole after a death"] += is_again and not said["kept"]
            ledger.acknowledged.add(number)
            ledger.unanswered.remove(number)


async def ask(server: Server, ledger: Ledger, chance: random.Random) -> None:
    """Ask what is in force for accounts of the start; the answers never change."""
    headers = server.bearer(Role.GATEWAY)
    async with Line(server.port) as line:
        while True:
            account = held_account(chance.randrange(ledger.held))
            told = await in_force(line, headers, account)
            ledger.counts["asked"] += 1
            ledger.need(told == ledger.before[account], f"{account}: {told} in force, not {ledger.before[account]}")
            await asyncio.sleep(0.002)


async def in_force(line: Line, headers: str, account: str) -> Any:
    """What holds for an account, without what changes by the clock."""
    status, told = await line.ask("GET", f"/v1/in-force?account={account}", headers)
    answer = json.loads(told)
    answer.pop("expires_in_s", None)
    return answer if status == 200 else {"status": status, **answer}


async def act(server: Server, ledger: Ledger, chance: random.Random) -> None:
    """Propose to observe accounts, and undo some of that. What is not answered may be done or not."""
    headers = server.bearer(Role.ADMIN) + "content-type: application/json\r\n"
    async with Line(server.port) as line:
        while True:
            await asyncio.sleep(0.05)
            if ledger.proposed and chance.random() < 0.4:
                account, action = ledger.proposed.popitem()
                asked = {"actions": [action], "reason": "a bench"}
                status, told = await line.ask("POST", "/api/actions/undo", headers, json.dumps(asked).encode())
                if status == 200:
                    ledger.undone[account] = action
            else:
                account = f"watched-{chance.randrange(10**12)}"
                asked = {"accounts": [account], "rung": "observe", "reason": "a bench", "lasts": "7d"}
                status, told = await line.ask("POST", "/api/actions", headers, json.dumps(asked).encode())
                if status == 200:
                    ledger.proposed[account] = json.loads(told)["proposed"][0]["action_id"]
            ledger.counts[f"acted {status}"] += 1
            ledger.need(status in (200, 503), f"a person's action was answered {status}: {told[:300]!r}")


async def fill_up(server: Server, ledger: Ledger, chance: random.Random) -> None:
    """For a while no file of the server or its judge grows."""
    await asyncio.sleep(chance.uniform(0.0, 0.5))
    limit(server, 4096)
    ledger.counts["full disks"] += 1
    await asyncio.sleep(chance.uniform(0.2, 1.0))
    if chance.random() < 0.7:
        limit(server, resource.RLIM_INFINITY)


def limit(server: Server, size: int) -> None:
    for pid in (server.process.pid, *started_by(server.process.pid)):
        with suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def jump(clock: Path, ledger: Ledger, chance: random.Random) -> None:
    """The clock jumps, once."""
    await asyncio.sleep(chance.uniform(0.0, 1.0))
    set_clock(clock, JUMPS_S[ledger.counts["clock jumps"] % len(JUMPS_S)])
    ledger.counts["clock jumps"] += 1


async def driven(
    server: Server, ledger: Ledger, chance: random.Random, life_s: float, *, is_full: bool, clock: Path | None
) -> None:
    """Load until the server is killed, after ``life_s``; the ``clock`` in this file jumps meanwhile."""
    again, ledger.unanswered, is_patient = ledger.unanswered, [], chance.random() < 0.8
    work = [send(server, ledger, again) for _ in range(4)]
    work += [ask(server, ledger, chance), act(server, ledger, chance)]
    tasks = [asyncio.create_task(w) for w in work]
    if is_full:
        tasks.append(asyncio.create_task(fill_up(server, ledger, chance)))
    if clock:
        tasks.append(asyncio.create_task(jump(clock, ledger, chance)))
    before, end = len(ledger.acknowledged), time.monotonic() + FIRST_S
    # Most lives are killed in the midst of things, some before the first body is in.
    while is_patient and len(ledger.acknowledged) == before and time.monotonic() < end:
        await asyncio.sleep(0.02)
    await asyncio.sleep(life_s)
    ended = [t.exception() for t in tasks if t.done()]
    ledger.need(not any(ended), f"before it was killed: {[e for e in ended if e]}")
    await asyncio.to_thread(server.kill, judge=chance.random() < 0.5)
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        ledger.need(error is None or isinstance(error, GONE), f"the bench itself: {error!r}")
    ledger.unanswered += again


# Looking


def look_at_the_dead(home: Home, ledger: Ledger) -> None:
    """What the files of a server that was killed say."""
    look_at_spool(home, ledger)
    found = verify(home.audit, public_key(home.audit))
    ledger.need(found.is_sound, f"the audit is not sound: {found}")
    key = derived(privacy_of(home, None)[0], "in force")
    known = snapshot.load(home.in_force, key)
    ledger.need(not known.faults, f"in_force.json: {known.faults}")
    for account, told in ledger.before.items():
        held = known.table.accounts.get(account)
        same = held is not None and (held.rung, held.action_id) == (told["rung"], told["case"])
        ledger.need(same, f"in_force.json has {held} for {account}, not {told}")


def look_at_spool(home: Home, ledger: Ledger) -> None:
    """The exchanges of batches not looked at before: each once, all that were acknowledged, none that nobody sent."""
    try:
        with Spool(home.spool) as spool:
            for number, rows in spool.read(ledger.checked):
                ledger.kept.append(rows["exchange"].to_numpy())
                ledger.checked = number
            rows_told = spool.figures().rows
    except StillwatchError as e:
        ledger.faults.append(f"the spool: {e}")
        return
    kept = np.concatenate([np.empty(0, np.int64), *ledger.kept])
    once = np.unique(kept)
    ledger.need(len(once) == len(kept), f"{len(kept) - len(once)} exchanges are in the spool twice")
    ledger.need(rows_told == len(kept), f"the spool says {rows_told} rows and has {len(kept)}")
    owed = ids_of(home, ledger, ledger.acknowledged)
    maybe = ids_of(home, ledger, set(ledger.unanswered))
    lost = ~np.isin(owed, once)
    ledger.need(not lost.any(), f"{int(lost.sum())} acknowledged exchanges are not in the spool")
    strange = ~np.isin(once, np.concatenate([owed, maybe]))
    ledger.need(not strange.any(), f"{int(strange.sum())} exchanges in the spool were sent by nobody")
    whole = np.isin(maybe, once).reshape(-1, ledger.rows)
    ledger.need(bool((whole.all(1) | ~whole.any(1)).all()), "a body that was not answered is there in part")


HASHED: dict[int, np.ndarray] = {}
"""Ids as the spool names them, by body."""


def ids_of(home: Home, ledger: Ledger, numbers: set[int]) -> np.ndarray:
    privacy = privacy_of(home, None)[0]
    for number in sorted(numbers - HASHED.keys()):
        taken = receive(ledger.body(number), "application/x-ndjson", "", "exchanges", privacy=privacy)
        HASHED[number] = np.concatenate([fingerprinted(b, privacy)["exchange"].to_numpy() for b in taken.batches])
    return np.concatenate([np.empty(0, np.int64), *(HASHED[n] for n in sorted(numbers))])


async def look_at_the_living(server: Server, ledger: Ledger) -> None:
    """What a server that has just begun answers, to the first question on."""
    headers = server.bearer(Role.GATEWAY)
    async with Line(server.port) as line:
        for account, told in ledger.before.items():
            now = await in_force(line, headers, account)
            ledger.need(now == told, f"{account}: {now} in force after a start, not {told}")
        for account in ledger.proposed:
            await promised(line, headers, account, "observe", ledger)
        for account in ledger.undone:
            await promised(line, headers, account, None, ledger)


async def promised(line: Line, headers: str, account: str, rung: str | None, ledger: Ledger) -> None:
    """An acknowledged action holds, an acknowledged undoing too, at the latest when the loop has been round."""
    end, late = time.monotonic() + SOON_S, False
    while (now := await in_force(line, headers, account))["rung"] != rung and time.monotonic() < end:
        late = True
        await asyncio.sleep(0.05)
    ledger.counts[f"late {'proposed' if rung else 'undone'}"] += late
    ledger.need(now["rung"] == rung, f"{account}: {now['rung']} in force, where {rung} was promised")


async def first_answers(server: Server, held: int) -> dict[str, Any]:
    headers = server.bearer(Role.GATEWAY)
    async with Line(server.port) as line:
        told = {held_account(i): await in_force(line, headers, held_account(i)) for i in range(held)}
        return told


# Rounds


def clock_file(given: argparse.Namespace) -> Path:
    return Path(given.out) / "clock"


def started(home: Home, tokens: Any, given: argparse.Namespace) -> Server:
    clock = clock_of(clock_file(given)) if given.clock else None
    return begun(home, tokens, given.out / "server.log", clock)


def look_at_its_clock(server: Server, ledger: Ledger, given: argparse.Namespace) -> None:
    """Whether a server that has just begun goes by the clock that it was given: else nothing was tried."""
    meant = int(clock_file(given).read_text()) if given.clock else 0
    ahead = server.figures()["stillwatch_started_seconds"] - time.time()
    ledger.need(-START_S - 60 < ahead - meant < 5, f"its clock is {ahead:.0f} s ahead, not {meant}")


def round_of(number: int, home: Home, tokens: Any, ledger: Ledger, given: argparse.Namespace) -> dict[str, Any]:
    chance, faults = random.Random(f"{given.seed} {number}"), len(ledger.faults)
    server = started(home, tokens, given)
    is_early = number % 8 == 7
    if is_early:
        time.sleep(chance.uniform(0.0, 2.0))
        server.kill(judge=True)
    else:
        server.wait_until_it_listens()
        look_at_its_clock(server, ledger, given)
        asyncio.run(look_at_the_living(server, ledger))
        is_full, jumps = given.full_disk and number % 2 == 1, given.clock and number % 3 == 2
        clock = clock_file(given) if jumps else None
        life_s = chance.uniform(0.05, given.life) + 2.0 * jumps
        asyncio.run(driven(server, ledger, chance, life_s, is_full=is_full, clock=clock))
    look_at_the_dead(home, ledger)
    return {
        "round": number, "early": is_early, "acknowledged": len(ledger.acknowledged) * ledger.rows,
        "unanswered": len(ledger.unanswered), "proposed": len(ledger.proposed), "undone": len(ledger.undone),
        "faults": ledger.faults[faults:][:20],
    }  # fmt: skip


def begin(given: argparse.Namespace) -> tuple[Home, Any, Ledger]:
    """A home and what is in force in it, as a first server tells that ends in peace."""
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    set_clock(clock_file(given), 0)
    home, tokens = prepared(given.out / "home", given.held, SETTINGS)
    server = started(home, tokens, given)
    server.wait_until_it_listens()
    end = time.monotonic() + SOON_S
    while server.figures().get('stillwatch_in_force{rung="suspend"}', 0) < given.held // 6 and time.monotonic() < end:
        time.sleep(0.1)
    ledger = Ledger(given.held, given.rows, before=asyncio.run(first_answers(server, given.held)))
    ledger.need(all(a["rung"] for a in ledger.before.values()), "nothing in force at the start")
    stop(server, ledger)
    return home, tokens, ledger


def stop(server: Server, ledger: Ledger) -> None:
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(timeout=120)
    ledger.need(code == 0, f"the server stopped with {code}")


def end_well(home: Home, tokens: Any, ledger: Ledger, given: argparse.Namespace) -> None:
    """A last life in peace, by the real clock: all is sent, judged, and each exchange counted once."""
    set_clock(clock_file(given), 0)
    server = started(home, tokens, given)
    server.wait_until_it_listens()
    asyncio.run(look_at_the_living(server, ledger))
    asyncio.run(sent_again(server, ledger))
    wanted, end = len(ledger.acknowledged) * ledger.rows, time.monotonic() + JUDGED_S
    while Status.read(home).rows != wanted and time.monotonic() < end:
        time.sleep(0.2)
    judged = Status.read(home)
    ledger.need(judged.rows == wanted, f"{judged.rows} exchanges judged of {wanted}: {judged}")
    stop(server, ledger)
    ledger.checked, ledger.kept = 0, []
    look_at_the_dead(home, ledger)
    verified = subprocess.run([sys.executable, "-m", "stillwatch", "audit", "verify", str(home.folder)], check=False,
                              capture_output=True, text=True)  # fmt: skip
    ledger.need(verified.returncode == 0, f"stillwatch audit verify: {verified.stdout}{verified.stderr}")


async def sent_again(server: Server, ledger: Ledger) -> None:
    headers = server.bearer(Role.INGEST) + LINES
    async with Line(server.port) as line:
        for number in list(ledger.unanswered):
            status, told = await line.ask("POST", "/ingest/exchanges", headers, ledger.body(number))
            kept = json.loads(told).get("kept")
            ledger.need(
                status == 200 and kept in (0, ledger.rows), f"body {number} was at last answered {status} {told!r}"
            )
            if status == 200:
                ledger.acknowledged.add(number)
                ledger.unanswered.remove(number)


def run(given: argparse.Namespace) -> Ledger:
    """All rounds; the ledger, its ``faults`` empty where everything held."""
    HASHED.clear()
    home, tokens, ledger = begin(given)
    with (given.out / "rounds.jsonl").open("w") as out:
        for number in range(given.rounds):
            told = round_of(number, home, tokens, ledger, given)
            out.write(json.dumps(told) + "\n")
            out.flush()
            print(json.dumps(told), file=sys.stderr)
    end_well(home, tokens, ledger, given)
    return ledger


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for all of it; an older one there is replaced")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--life", type=float, default=3.0, help="most seconds from the first answer to the kill")
    parser.add_argument("--held", type=int, default=120, help="accounts something is in force for")
    parser.add_argument("--rows", type=int, default=ROWS, help="exchanges in a body")
    parser.add_argument("--full-disk", action=argparse.BooleanOptionalAction, default=True, help="in every other round")
    has_clock = clock_library() is not None
    parser.add_argument(
        "--clock", action=argparse.BooleanOptionalAction, default=has_clock, help="jumps in every third"
    )
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main() -> int:
    given = options().parse_args()
    ledger = run(given)
    told = {
        "rounds": given.rounds, "acknowledged": len(ledger.acknowledged) * ledger.rows, **dict(sorted(ledger.counts.items())),
        "clock": "jumps" if given.clock else "not tried", "faults": len(ledger.faults),
    }  # fmt: skip
    (given.out / "end.json").write_text(json.dumps({**told, "said": ledger.faults[:100]}, indent=2) + "\n")
    for name, value in told.items():
        print(f"{name:<28} {value if isinstance(value, str) else f'{value:,}'}")
    for fault in ledger.faults[:20]:
        print(f"FAULT {fault}")
    return 1 if ledger.faults else 0


if __name__ == "__main__":
    sys.exit(main())
