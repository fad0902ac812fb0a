"""The page behind the link of a refusal: what was decided about an account and why, and a form to appeal.

Whoever has the link is whom it was told to: it holds a proof of its case, 16 bytes of a keyed hash, which stands in the form
too. There is no cookie, so no other site can make a browser file anything it holds no proof for. A link that does not hold is
answered in the same words whatever is wrong with it, before anything is looked up, so that nobody can try out cases. The page
is of one case: nothing of another account, of a campaign or of how it was found is on it. It needs no script.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment
from starlette.responses import HTMLResponse, RedirectResponse, Response

from stillwatch.actions import ANSWERED_WITHIN, OVERTURNED, Appeal
from stillwatch.errors import Transient
from stillwatch.pages import environment_of
from stillwatch.serving.edge import Asked, Refused, answer_json, text_of
from stillwatch.serving.services import Desk, Services
from stillwatch.statements import Statement, statement_of
from stillwatch.store.state import write_text
from stillwatch.types import Action, Rung, Standing

APPEAL_CHARACTERS = 20_000
"""Longest text of an appeal."""
FORM = "application/x-www-form-urlencoded"
FORM_BYTES = 12 * APPEAL_CHARACTERS + 2000
"""Longest body of a form: a character is four bytes at most, and a byte three characters of a form."""
LOOKS, FILINGS, WRONG = (30.0, 20.0), (1.0, 5.0), (60.0, 60.0)
"""A minute and at once: looks at one case, appeals against one, and links that do not hold, all together."""
WRONG_LINK = "This link does not hold."
WRITE = "Write why you think the decision is wrong."


@dataclass(frozen=True, slots=True)
class Case:
    """All that is told of a case to whom it concerns. ``appeal`` is the account's last one, None before the first."""

    action: Action
    statement: Statement
    appeal: Appeal | None

    @property
    def holds(self) -> bool:
        """Whether what was decided is in force now."""
        return self.action.standing is Standing.IN_FORCE and datetime.now(UTC) < self.statement.until

    @property
    def may_appeal(self) -> bool:
        """Whether no appeal of the account waits for its decision."""
        return self.appeal is None or bool(self.appeal.outcome)


async def page(asked: Asked) -> Response:
    """The page of the case in the link, or one that says that the link does not hold (404)."""
    query = asked.request.query_params
    case, proof = query.get("case", ""), query.get("proof", "")
    if not _is_of(asked.services, case, proof):
        return _wrong(asked.services)
    wait_s = _wait_s(asked.services, f"look {case}", LOOKS)
    if wait_s:
        return _later(wait_s)
    told = await asked.services.clerk.do(case_of, asked.services, case)
    return _wrong(asked.services) if told is None else _shown(told, proof)


async def file(asked: Asked) -> Response:
    """File an appeal with the proof of the refusal's link, from the page's form or as JSON; the text is kept for the reviewer."""
    kind = asked.request.headers.get("content-type", "").partition(";")[0].strip()
    return await (_file_form(asked) if kind == FORM else _file_json(asked))


# As JSON


async def _file_json(asked: Asked) -> Response:
    services = asked.services
    given = await asked.json("case", "proof", "text", limit=8 * APPEAL_CHARACTERS)
    case, text = text_of(given, "case", 64), text_of(given, "text", APPEAL_CHARACTERS)
    is_of = _is_of(services, case, text_of(given, "proof", 64))
    if not is_of or await services.clerk.do(case_of, services, case) is None:
        wait_s = _count_wrong(services)
        status = 429 if wait_s else 403
        raise Refused(
            status, "this proof is not of that case", hint="use the link you were given, whole", headers=_after(wait_s)
        )
    if wait_s := _wait_s(services, f"file {case}", FILINGS):
        raise Refused(429, "too many appeals against this case", hint="come again later", headers=_after(wait_s))
    filed, is_new = await services.clerk.do(_filed, services, case, text)
    if not is_new:
        raise Refused(
            409, f"appeal {filed.case_id} is open already; this text was not added to it",
            hint="it is decided by a person; file again after that",
        )  # fmt: skip
    return answer_json({"appeal": filed.case_id, "decided_by": filed.deadline}, 201)


# From the form


async def _file_form(asked: Asked) -> Response:
    """Back to the page, which then tells of the appeal; or the page with what is wrong, and what was written still in it."""
    services = asked.services
    given = _fields(await asked.body(FORM_BYTES))
    case, proof, text = (given.get(n, "") for n in ("case", "proof", "text"))
    if not _is_of(services, case, proof) or _is_from_elsewhere(asked):
        return _wrong(services)
    if wait_s := _wait_s(services, f"file {case}", FILINGS):
        return _later(wait_s)
    told = await services.clerk.do(case_of, services, case)
    if told is None:
        return _wrong(services)
    if fault := _fault(text):
        return _shown(told, proof, fault, text, 400)
    try:
        await services.clerk.do(_filed, services, case, text.strip())
    except Transient:
        fault = (
            "It could not be kept just now, and nothing was filed. What you wrote is still below: please send it again."
        )
        return _shown(told, proof, fault, text, 503)
    return RedirectResponse(f"appeals?{urlencode({'case': case, 'proof': proof})}", 303, headers=_safe())


def _fields(body: bytes) -> dict[str, str]:
    try:
        found = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=10, errors="strict")
    except ValueError as e:
        raise Refused(400, "the form cannot be read", hint="send it from the page of your link") from e
    return {name: values[0] for name, values in found.items()}


def _is_from_elsewhere(asked: Asked) -> bool:
    """Whether a browser says that another site made it send this. The proof is what keeps others out; this is a second lock."""
    return asked.request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def _fault(text: str) -> str:
    if not text.strip():
        return WRITE
    if len(text.strip()) > APPEAL_CHARACTERS:
        return f"Please say it in at most {APPEAL_CHARACTERS:,} characters; these were {len(text.strip()):,}."
    return ""


# At the desk


def case_of(desk: Desk, services: Services, case: str) -> Case | None:
    """What is told of a case; None for one that its account was never told of."""
    found = [a for a in desk.actions.find([case]) if was_told(desk, a)]
    if not found:
        return None
    action = found[0]
    wording = dataclasses.replace(services.policy.now().statement, appeal_url=services.appeal_url(case))
    mine = [a for a in desk.actions.appeals() if a.account_id == action.account_id]
    last = max(mine, key=lambda a: a.filed_at, default=None)
    return Case(action, statement_of(action, wording), last)


def was_told(desk: Desk, action: Action) -> bool:
    """Whether the account has felt this action: it was in force at some time, and limits something."""
    history = desk.actions.history(action.account_id)
    return action.rung is not Rung.OBSERVE and any(
        h.action_id == action.action_id and h.event == Standing.IN_FORCE for h in history
    )


def _filed(desk: Desk, services: Services, case: str, text: str) -> tuple[Appeal, bool]:
    """The text on disk, then the appeal; and whether it is new, or one that was open already."""
    account_id = desk.actions.get(case).account_id
    standing = [a for a in desk.actions.appeals() if a.account_id == account_id and not a.outcome]
    if standing:
        return standing[0], False
    digest = hashlib.sha256(text.encode()).hexdigest()
    services.home.appeals.mkdir(mode=0o700, exist_ok=True)
    place = services.home.appeals / f"{digest}.txt"
    write_text(place, text)
    os.chmod(place, 0o600)
    case_id = desk.actions.appeal(account_id, digest)
    return next(a for a in desk.actions.appeals() if a.case_id == case_id), True


# Links and paces


def _is_of(services: Services, case: str, proof: str) -> bool:
    """Whether the proof is that of the case; takes as long whatever they are."""
    right = services.appeal_proof(case[:64]).encode()
    return hmac.compare_digest(proof[:64].encode("utf-8", "surrogateescape"), right) and 0 < len(case) <= 64


def _wait_s(services: Services, what: str, pace: tuple[float, float]) -> float:
    """Seconds until this may be asked again, 0 where it may be now."""
    return services.appeal_paces.take(what, *pace)[1]


def _count_wrong(services: Services) -> float:
    """Count a link that does not hold; seconds to wait once there were too many. One that holds never waits for those."""
    services.metrics.add("stillwatch_denied_total", why="appeal_proof")
    return _wait_s(services, "wrong", WRONG)


def _after(wait_s: float) -> dict[str, str]:
    return {"retry-after": str(math.ceil(wait_s))} if wait_s else {}


# Pages


def _shown(told: Case, proof: str, fault: str = "", text: str = "", status: int = 200) -> Response:
    deadline = datetime.now(UTC) + ANSWERED_WITHIN
    return _html("case", status, told=told, proof=proof, fault=fault, text=text, deadline=deadline)


def _wrong(services: Services) -> Response:
    wait_s = _count_wrong(services)
    return _html("wrong", 429 if wait_s else 404, headers=_after(wait_s))


def _later(wait_s: float) -> Response:
    return _html("later", 429, headers=_after(wait_s), wait_s=math.ceil(wait_s))


def _html(part: str, status: int, headers: dict[str, str] | None = None, **given: Any) -> Response:
    text = _environment().get_template("appeal.html").render(
        part=part, style=_style(), most=APPEAL_CHARACTERS, overturned=OVERTURNED, **given
    )  # fmt: skip
    return HTMLResponse(text, status, {**_safe(), **(headers or {})})


def _safe() -> dict[str, str]:
    """Nothing but this page's own style, a form that goes here alone, and the link told to nobody."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {"content-security-policy": policy, "referrer-policy": "no-referrer", "x-robots-tag": "noindex"}


@cache
def _style() -> str:
    return _environment().get_template("appeal.css").render()


@cache
def _environment() -> Environment:
    environment = environment_of("stillwatch.serving")
    environment.filters["moment"] = lambda at: f"{at.astimezone(UTC):%-d %B %Y, %H:%M} UTC"
    environment.filters["iso"] = lambda at: at.astimezone(UTC).isoformat(timespec="seconds")
    return environment
