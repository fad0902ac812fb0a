"""The steps: traffic in, a campaign named, its accounts slowed down, suspended by two people, one let go, one heard and let go.

Each step looks at what a customer gets through the gateway, and is an error if that is not what was meant to happen.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stillwatch.errors import Terminal
from stillwatch.gateway_demo.asking import Answer, ask, post_form, post_json
from stillwatch.gateway_demo.month import Call, Month, lines, secret_of
from stillwatch.gateway_demo.processes import Child, wait_for
from stillwatch.gateway_demo.proxy import Proxy
from stillwatch.gateway_demo.telling import Teller
from stillwatch.serving import newest
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Status
from stillwatch.verification import public_key, verify

FIRST, SECOND, REVIEWER = "robin", "sam", "kim"
"""Two people who sign, and one who has no part in it and decides appeals."""
AT_ONCE = 8
"""Customers that call at the same time."""
JUDGED_WITHIN_S, SOON_S, TOLD_EVERY_S = 900, 120, 10
QUESTION = {"messages": [{"role": "user", "content": "1+1?"}], "model": "cedar-2"}
LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Stage:
    """What the story is told with. ``people`` and ``sender`` are headers with their tokens."""

    home: Home
    url: str
    server: Child
    proxy: Proxy
    month: Month
    people: Mapping[str, Mapping[str, str]]
    sender: Mapping[str, str]
    tell: Teller

    def post(self, path: str, value: Any, who: str = REVIEWER) -> Any:
        """What the server says to somebody; Terminal where it refuses."""
        return good(post_json(self.url + path, value, self.people[who]), path).json()

    def get(self, path: str) -> Any:
        return good(ask("GET", self.url + path, headers=self.people[REVIEWER]), path).json()

    def figure(self, name: str) -> float:
        """A figure of the server's /metrics, 0 before it is there."""
        text = good(ask("GET", f"{self.url}/metrics", headers=self.people[REVIEWER]), "/metrics").text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def call(self, name: str) -> Answer:
        """A question of an account, by the name that the log has for it, through the gateway."""
        return self.proxy.chat(secret_of(self.month.names[name]), QUESTION)

    def actions(self, standing: str) -> list[dict[str, Any]]:
        return list(self.get(f"/api/actions?standing={standing}&limit={LIMIT}")["actions"])

    def wait(self, what: str, holds: Callable[[], bool], within_s: float = SOON_S) -> None:
        wait_for(what, holds, within_s, self.server, self.proxy.child)


@dataclass(frozen=True, slots=True)
class Suspects:
    """The campaign that the story is about, and the accounts that are slowed down, by the names that the log has for them."""

    campaign_id: str
    slowed: tuple[str, ...]


def tell_all(stage: Stage) -> None:
    """The whole story. Terminal or Transient where a step does not give what it says."""
    archive(stage)
    today(stage)
    campaign_id = judged(stage)
    suspects = slowed(stage, campaign_id)
    first, second = suspects.slowed[:2]
    signed(stage, suspects, first)
    undone(stage, first, second)
    link = appealed(stage, second)
    decided(stage, second, link)
    audited(stage)


def archive(stage: Stage) -> None:
    """The month until yesterday, and what its accounts declared, as an archive is sent in."""
    month, tell = stage.month, stage.tell
    tell.step(
        f"The archive comes in: {month.archive.num_rows:,} exchanges until midnight, {month.accounts.num_rows:,} accounts"
    )
    headers = {"content-type": "application/x-ndjson", **stage.sender}
    good(ask("POST", f"{stage.url}/ingest/accounts", lines(month.accounts), headers), "/ingest/accounts")
    kept = 0
    for body in month.bodies():
        kept += good(ask("POST", f"{stage.url}/ingest/exchanges", body, headers), "/ingest/exchanges").json()["kept"]
    expect(kept == month.archive.num_rows, f"{kept:,} of {month.archive.num_rows:,} exchanges of the archive were kept")
    tell.line(f"{kept:,} kept: fingerprinted, on disk, their content dropped")


def today(stage: Stage) -> None:
    """Today's calls through the proxy, in the order of the log, and the proxy's own log of them back."""
    calls, tell = stage.month.today, stage.tell
    tell.step(
        f"Today's {len(calls):,} requests, of {len({c.account for c in calls})} accounts, go through the LiteLLM proxy now"
    )
    statuses = answered(stage, calls)
    passed = statuses.count(200)
    expect(
        passed == len(calls),
        f"{passed:,} of {len(calls):,} requests were answered 200; others {sorted({*statuses} - {200})}",
    )
    figure = 'stillwatch_ingest_rows_total{source="litellm"}'
    stage.wait("the proxy has sent its log", lambda: stage.figure(figure) >= passed)
    tell.line(f"{passed:,} answered 200; the proxy's log has come in: {stage.figure(figure):,.0f} exchanges")


def answered(stage: Stage, calls: Sequence[Call]) -> list[int]:
    """What the calls got, in their order, made by some customers at once; every ten seconds how far it is."""
    statuses, told = list[int](), time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as customers:
        for status in customers.map(lambda call: sent(stage, call), calls):
            statuses.append(status)
            if time.monotonic() - told > TOLD_EVERY_S:
                told = time.monotonic()
                stage.tell.line(f"{len(statuses):,} answered")
    return statuses


def sent(stage: Stage, call: Call) -> int:
    """The status that a customer gets for one of today's calls."""
    headers = {"x-forwarded-for": call.ip, "user-agent": call.user_agent}
    given = {name: value for name, value in headers.items() if value}
    return stage.proxy.chat(secret_of(call.account), call.body(), given).status


def judged(stage: Stage) -> str:
    """Everything judged by the server's own judge; the id of the largest campaign."""
    stage.tell.step("Everything is judged, by the server's own judge in a process beside it")
    asked = datetime.now(UTC)
    stage.post("/api/judge-now", {})
    stage.wait("everything is judged", lambda: _is_judged(stage, asked), JUDGED_WITHIN_S)
    found = sorted(stage.get("/api/campaigns")["campaigns"], key=lambda c: -c["accounts"])
    expect(bool(found), "no campaign was found")
    for campaign in found:
        _tell_campaign(stage, campaign)
    return str(found[0]["campaign_id"])


def _is_judged(stage: Stage, asked: datetime) -> bool:
    """Whether a judgement that began since then is over, and told: on its way through the month it says what it has so far.
    Terminal where the judge has failed and none can come."""
    failing = stage.figure('stillwatch_alarm{alarm="judge_failing"}')
    expect(failing == 0, f"the judge fails; stillwatch doctor {stage.home.folder} says why")
    status = Status.read(stage.home)
    if status.status != "waiting" or status.started is None or status.started < asked:
        return False
    written, told = newest.read(stage.home.results), stage.get("/api/campaigns")["judged"]
    return written is not None and told is not None and datetime.fromisoformat(told) == written.finished


def _members(stage: Stage, campaign_id: str) -> set[str]:
    return {m["account_id"] for m in stage.get(f"/api/campaigns/{campaign_id}?limit={LIMIT}")["members"]}


def _tell_campaign(stage: Stage, campaign: Mapping[str, Any]) -> None:
    names = _members(stage, campaign["campaign_id"])
    planted = max(stage.month.planted.values(), key=lambda accounts: len(accounts & names))
    tell = stage.tell
    tell.line(f"{campaign['campaign_id']}: {campaign['summary']}")
    tell.line(f"confidence {campaign['confidence']}. In truth: {len(planted & names)} of the {len(planted)} accounts of one "
              f"operator, and {len(names - planted)} others")  # fmt: skip


def slowed(stage: Stage, campaign_id: str) -> Suspects:
    """What the policy does at once, and what the customers see of it."""
    stage.tell.step("The policy slows its accounts down at once: six requests a minute each. Nobody had to be asked")
    members = _members(stage, campaign_id)
    stage.wait("suspensions wait for people", lambda: len(_of(stage, campaign_id, "pending")) >= len(members))
    stage.wait("accounts are slowed down", lambda: bool(_of(stage, campaign_id, "in_force")))
    accounts = tuple(sorted(a["account_id"] for a in _of(stage, campaign_id, "in_force") if a["rung"] == "throttle"))
    expect(len(accounts) >= 2, f"{len(accounts)} accounts were slowed down, which are too few to tell of")
    caller = accounts[0]
    answers = [stage.call(caller) for _ in range(3)]
    expect([a.status for a in answers] == [200, 200, 429], f"its three requests got {[a.status for a in answers]}")
    stage.tell.got(f"{_short(stage, caller)}, who asks three times, twice HTTP 200, and then", answers[-1])
    expect("retry-after" in answers[-1].headers, "the 429 does not say when to come again")
    honest = _honest(stage, campaign_id)
    stage.tell.got(
        f"{_short(stage, honest)}, a customer of whom nothing is suspected,", expected(stage.call(honest), 200)
    )
    return Suspects(campaign_id, accounts)


def _of(stage: Stage, campaign_id: str, standing: str) -> list[dict[str, Any]]:
    return [a for a in stage.actions(standing) if a["campaign_id"] == campaign_id]


def _honest(stage: Stage, campaign_id: str) -> str:
    """An account of today's that nothing was done to."""
    touched = {a["account_id"] for standing in ("in_force", "pending", "due") for a in stage.actions(standing)}
    by_name = {account: name for name, account in stage.month.names.items()}
    free = sorted(by_name[c.account] for c in stage.month.today if by_name[c.account] not in touched)
    expect(bool(free), "every account that called today has something done to it")
    return free[0]


def signed(stage: Stage, suspects: Suspects, account: str) -> None:
    """To suspend takes people, and so many at once take two of them."""
    waiting = _of(stage, suspects.campaign_id, "pending")
    wish = {"actions": [a["action_id"] for a in waiting]}
    stage.tell.step(
        f"To suspend {len(waiting)} accounts needs people: two, because they are many. {FIRST} looks whom it hits, and signs"
    )
    preview = stage.post("/api/actions/sign?preview=true", wish, FIRST)
    expect(preview["count"] == len(waiting), f"a preview of {preview['count']} actions for {len(waiting)}")
    stage.post("/api/actions/sign", wish, FIRST)
    standing = {a["standing"] for a in _of(stage, suspects.campaign_id, "pending")}
    expect(standing == {"pending"}, "one signature was enough to suspend many")
    stage.tell.line(f"one signature: all {len(waiting)} still wait, and nobody is suspended")
    stage.tell.line(f"{SECOND} signs too")
    stage.post("/api/actions/sign", wish, SECOND)
    stage.wait("it is suspended", lambda: stage.call(account).status == 403)
    stage.tell.got(_short(stage, account), stage.call(account))


def undone(stage: Stage, account: str, other: str) -> None:
    """One let go again, by a person, at once; the others stay as they are."""
    living = [a["action_id"] for a in stage.get(f"/api/actions?account={account}")["actions"]]
    stage.tell.step(
        f"{FIRST} learns that {_short(stage, account)} is a class of students, and undoes what was done to it"
    )
    stage.post("/api/actions/undo", {"actions": living, "reason": "a class of students"}, FIRST)
    stage.wait("it passes again", lambda: stage.call(account).status == 200)
    stage.tell.got(_short(stage, account), expected(stage.call(account), 200))
    stage.tell.got(f"{_short(stage, other)}, another one,", expected(stage.call(other), 403))


def appealed(stage: Stage, account: str) -> str:
    """An appeal by the link of the refusal, as an account holder makes it in a browser; the link."""
    link = link_of(expected(stage.call(account), 403))
    stage.tell.step(f"{_short(stage, account)} opens the link of its refusal, and appeals")
    stage.tell.line(link)
    page = expected(ask("GET", link), 200)
    stage.tell.line(f"the page says: {found_in(page, 'h1')}")
    fields = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    expected(post_form(link.partition("?")[0], fields | {"text": "We are a university laboratory."}), 303)
    stage.tell.line(f"then: {appeal_on(expected(ask('GET', link), 200))}")
    return link


def decided(stage: Stage, account: str, link: str) -> None:
    """The appeal, decided by somebody who had no part in what it is about."""
    stage.tell.step(f"Somebody who had no part in it decides the appeal: not {SECOND}, who signed")
    (appeal,) = stage.get("/api/appeals?open=true")["appeals"]
    wish = {"outcome": "overturned", "reason": "they showed who they are"}
    path = f"/api/appeals/{appeal['case_id']}/decide"
    own = expected(post_json(stage.url + path, wish, stage.people[SECOND]), 400)
    stage.tell.line(f"{SECOND} is told: {own.json()['error']}")
    stage.post(path, wish)
    stage.wait("it passes again", lambda: stage.call(account).status == 200)
    stage.tell.line(f"{REVIEWER} grants it, and the page says: {appeal_on(expected(ask('GET', link), 200))}")
    stage.tell.got(_short(stage, account), expected(stage.call(account), 200))


def audited(stage: Stage) -> None:
    """Who did what, as the audit has it, and that nobody has changed it."""
    stage.tell.step("All of it is in the audit, written before it was done")
    found = verify(stage.home.audit, public_key(stage.home.audit))
    expect(found.is_sound, f"the audit does not verify: {found.faults}")
    stage.tell.line(f"{found.entries:,} entries, chained and signed, verified")


def link_of(refusal: Answer) -> str:
    """Where a refusal says that one may appeal."""
    found = re.search(r"https?://\S+", str(refusal.json()["error"]["message"]))
    if found is None:
        raise Terminal(f"the refusal names no place to appeal: {refusal.text}")
    return found[0]


def found_in(page: Answer, tag: str) -> str:
    """The text of the first element of a page with this tag; Terminal where there is none."""
    found = re.search(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page.text, re.DOTALL)
    if found is None:
        raise Terminal(f"the page has no {tag}: {page.text[:500]}")
    return " ".join(unescape(re.sub(r"<[^>]+>", "", found[1])).split())


def appeal_on(page: Answer) -> str:
    """What a page says of the account's appeal; Terminal where it says nothing of one."""
    said = found_in(page, "div")
    expect(said.startswith("Your appeal "), f"the page tells of no appeal: {said}")
    return said


def _short(stage: Stage, name: str) -> str:
    return stage.month.names[name]


def good(answer: Answer, path: str) -> Answer:
    """The answer; Terminal with what the server said where it is an error."""
    if not 200 <= answer.status < 300:
        raise Terminal(f"{path} was answered {answer.status}: {answer.text[:500]}")
    return answer


def expected(answer: Answer, status: int) -> Answer:
    """The answer; Terminal where its status is another one."""
    expect(answer.status == status, f"{status} was expected, and came {answer.status}: {answer.text[:500]}")
    return answer


def expect(holds: bool, otherwise: str) -> None:
    """Terminal where the story is not as it should be."""
    if not holds:
        raise Terminal(otherwise, hint="the logs of the server and the proxy are in the folder; --out keeps it")
