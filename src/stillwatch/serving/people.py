"""What people ask and do: campaigns, accounts, actions, appeals, the policy, judgements.

Whoever looks at a single account or a campaign's accounts is written to the audit before being shown anything. What is done
goes through ``actions``, which writes it down first too.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
from starlette.responses import PlainTextResponse, Response

from stillwatch import policy as policies
from stillwatch.actions import LIVING, Appeal, act_of_person
from stillwatch.errors import UsageError
from stillwatch.policy import explain, preview
from stillwatch.responders import ladder
from stillwatch.serving.access import Right
from stillwatch.serving.decisions import KEY_NAME
from stillwatch.serving.edge import Asked, Refused, answer_json, text_of
from stillwatch.serving.marks import Marks
from stillwatch.serving.newest import Result
from stillwatch.serving.rounds import held_table, traffic_of
from stillwatch.serving.services import Desk, Services
from stillwatch.store.state import Judgement
from stillwatch.types import Action, InForce, Part, Rung, Standing
from stillwatch.windows import parse_length

SHOWN = 200
"""Accounts of a campaign, actions and events shown where no limit is asked for."""
MOST = 10_000
MASKED = "masked"
OPEN_COLUMNS = ("account_id", "created_at", "programme", "plan", "verification")
"""What is shown of a declaration without unmasking; all else in it is somebody's own."""
VERDICTS = ("positive", "negative", "unsure")


# Campaigns and accounts


async def campaigns(asked: Asked) -> Response:
    """All campaigns and cases for review of the last judgement, with how many actions of each standing they have."""
    result = asked.services.result
    standing = await asked.services.clerk.do(_standing_by_campaign)
    if result is None:
        return answer_json({"judged": None, "campaigns": [], "review": []})

    def told(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**c, "actions": standing.get(c["campaign_id"], {})} for c in found]

    return answer_json({
        "judged": result.finished, "campaigns": told(result.campaigns), "review": told(result.review),
    })  # fmt: skip


def _standing_by_campaign(desk: Desk) -> dict[str, dict[str, int]]:
    counted: dict[str, dict[str, int]] = {}
    for action in desk.actions.standing():
        by = counted.setdefault(action.campaign_id, {})
        by[action.standing] = by.get(action.standing, 0) + 1
    return counted


async def campaign(asked: Asked) -> Response:
    """One campaign: what it is, its accounts riskiest first, what happened to them. Their reasons need READ_ACCOUNTS."""
    services, campaign_id = asked.services, asked.named("campaign_id")
    limit = asked.number("limit", SHOWN, MOST)
    found = services.result.campaign(campaign_id) if services.result else None
    if found is None or services.result is None:
        raise Refused(404, f"no campaign {campaign_id[:80]!r} in the last judgement", hint="GET /api/campaigns")
    await _audited(asked, "campaign.looked", campaign_id, {})
    sees_accounts = asked.caller is not None and asked.caller.may(Right.READ_ACCOUNTS)
    members = await services.readers.run(services.result.members, campaign_id) if sees_accounts else []
    history = await services.clerk.do(lambda desk: desk.actions.history(campaign_id))
    return answer_json({
        **found,
        "members": members[:limit] if sees_accounts else MASKED,
        "members_shown": min(limit, len(members)),
        "history": [dataclasses.asdict(h) for h in history[-SHOWN:]] if sees_accounts else MASKED,
    })  # fmt: skip


async def account(asked: Asked) -> Response:
    """One account: risk and why, what is in force, what happened, what it declared; masked but for a reason."""
    services, account_id = asked.services, asked.named("account_id")
    unmask, reason = asked.flag("unmask"), asked.request.query_params.get("reason", "").strip()
    if unmask and (asked.caller is None or not asked.caller.may(Right.UNMASK)):
        raise Refused(403, "this token may not unmask")
    if unmask and not reason:
        raise Refused(400, "to unmask needs a reason", hint="add reason=... : it is written to the audit")
    await _audited(asked, "account.looked", account_id, {"unmasked": unmask, "reason": reason[:500]})
    row = await services.readers.run(services.result.account, account_id) if services.result else None
    declared = await services.readers.run(_declared, services, account_id)
    known, history = await services.clerk.do(_of_account, account_id)
    if row is None and declared is None and not history:
        raise Refused(404, f"no account {account_id[:80]!r}", hint="was anything of it taken in yet?")
    held = services.decisions.table.accounts.get(account_id)
    return answer_json({
        "account_id": account_id,
        "risk": row and row["risk"],
        "campaign_id": row and row["campaign_id"],
        "first_flagged_at": row and row["first_flagged_at"],
        "reasons": row["reasons"] if row else [],
        "declared": declared if unmask or declared is None else masked(declared),
        "in_force": held and plain_in_force(held),
        "actions": [plain_action(a) for a in known],
        "history": [dataclasses.asdict(h) for h in history[-SHOWN:]],
    })  # fmt: skip


def masked(declared: Mapping[str, Any]) -> dict[str, Any]:
    """A declaration in which only that something was said is left of what is somebody's own."""
    return {n: v if n in OPEN_COLUMNS or v is None else MASKED for n, v in declared.items()}


def _declared(services: Services, account_id: str) -> dict[str, Any] | None:
    table = services.spool.accounts()
    rows = table.filter(pc.equal(table["account_id"], account_id)).to_pylist()
    return rows[0] if rows else None


def _of_account(desk: Desk, account_id: str) -> tuple[list[Action], list[Any]]:
    history = desk.actions.history(account_id)
    ids = dict.fromkeys(h.action_id for h in history)
    return [desk.actions.get(i) for i in ids], history


async def _audited(asked: Asked, event: str, subject: str, facts: Mapping[str, Any]) -> None:
    """Write down that somebody looks, before they see anything; AuditUnwritable where that cannot be done."""
    await asked.services.readers.run(asked.services.audit.append, event, asked.who, asked.role, subject[:256], facts)


def plain_in_force(held: InForce) -> dict[str, Any]:
    """What is in force, for JSON, without the token of its appeal."""
    told = dataclasses.asdict(held)
    told["settings"] = {n: v for n, v in held.settings.items() if n != "appeal_url"}
    return told


def plain_action(action: Action) -> dict[str, Any]:
    """An action for JSON."""
    return dataclasses.asdict(action)


# Actions


async def actions(asked: Asked) -> Response:
    """Actions, newest first: living ones, or those of the standings asked for; of one account or campaign."""
    query = asked.request.query_params
    wanted = [_one_of(Standing, s, "standing") for s in query.getlist("standing")]
    account_id, campaign_id = query.get("account", ""), query.get("campaign", "")
    limit = asked.number("limit", SHOWN, MOST)
    found = await asked.services.clerk.do(lambda desk: desk.actions.standing(*wanted))
    fitting = [a for a in found if account_id in ("", a.account_id) and campaign_id in ("", a.campaign_id)]
    return answer_json({"count": len(fitting), "actions": [plain_action(a) for a in fitting[::-1][:limit]]})


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to do to accounts; ``campaign_id`` is empty where they were named one by one. With a ``mark`` it is to
    one account's key or end user alone."""

    accounts: tuple[str, ...]
    campaign_id: str
    rung: Rung
    reason: str
    lasts: str
    settings: Mapping[str, Any]
    part: Part = Part.ACCOUNT
    mark: str = ""


async def propose(asked: Asked) -> Response:
    """Propose a rung for accounts, named one by one or as those of a campaign; with preview=true only say whom it would hit."""
    given = await asked.json("accounts", "campaign", "key", "end_user", "rung", "reason", "lasts", "settings")
    wish = _narrowed(_wish(given, asked.services.result), given, asked.services.marks)
    if asked.flag("preview"):
        return answer_json(await asked.services.clerk.do(_preview_wish, asked.services, wish))
    now = datetime.now(UTC)
    lasts = parse_length(wish.lasts)
    wanted = [
        act_of_person(
            a,
            wish.rung,
            wish.reason,
            now,
            lasts,
            campaign_id=wish.campaign_id,
            settings=wish.settings,
            part=wish.part,
            mark=wish.mark,
        )
        for a in wish.accounts
    ]
    new = await asked.services.clerk.do(lambda desk: desk.actions.propose(wanted, asked.who, asked.role))
    asked.services.metrics.add("stillwatch_actions_proposed_total", len(new), rung=wish.rung)
    asked.services.wake.set()
    return answer_json({"proposed": [plain_action(a) for a in new]})


def _wish(given: Mapping[str, Any], result: Result | None) -> Wish:
    rung = _one_of(Rung, given.get("rung"), "rung")
    reason, lasts = text_of(given, "reason", 1000), given.get("lasts", "7d")
    settings = given.get("settings", {})
    if not isinstance(settings, dict) or (faults := ladder()[rung.height].faults(settings)):
        raise Refused(400, f"settings: {'; '.join(faults) if isinstance(settings, dict) else 'must be an object'}")
    accounts, campaign_id = given.get("accounts"), given.get("campaign", "")
    if accounts is None and campaign_id:
        accounts = [m["account_id"] for m in result.members(campaign_id)] if result else []
    if not isinstance(accounts, list) or not accounts or not all(isinstance(a, str) and a for a in accounts):
        raise Refused(400, "no accounts", hint='"accounts": ["id", ...], or "campaign": "id" of the last judgement')
    if len(accounts) > MOST:
        raise Refused(413, f"{len(accounts):,} accounts at once, {MOST:,} at most", hint="propose in parts")
    parse_length(lasts if isinstance(lasts, str) else "")
    return Wish(tuple(dict.fromkeys(accounts)), str(campaign_id), rung, reason, lasts, settings)


def _narrowed(wish: Wish, given: Mapping[str, Any], marks: Marks) -> Wish:
    """The wish on the key or the end user that it names; what is kept of them from here on is their mark."""
    key, end_user = given.get("key"), given.get("end_user")
    if key is None and end_user is None:
        return wish
    if len(wish.accounts) != 1 or (key is not None and end_user is not None):
        raise Refused(400, "a key or an end user is one of one account", hint="name one account, and one of the two")
    if key is not None:
        if not isinstance(key, str) or not KEY_NAME.fullmatch(key):
            raise Refused(
                400, "key must be the SHA-256 of the key's secret, 64 hex digits", hint="never send the secret"
            )
        return dataclasses.replace(wish, part=Part.KEY, mark=marks.key(key))
    if not isinstance(end_user, str) or not end_user:
        raise Refused(400, "end_user must be a text", hint="as the gateway names it")
    return dataclasses.replace(wish, part=Part.END_USER, mark=marks.end_user(wish.accounts[0], end_user))


def _preview_wish(desk: Desk, services: Services, wish: Wish) -> dict[str, Any]:
    """Whom a wish would hit; the ids are what is to be sent back, so that what was looked at is what is done."""
    table = services.decisions.table
    held = {Part.ACCOUNT: table.accounts, Part.KEY: table.keys, Part.END_USER: table.end_users}[wish.part]
    names = [wish.mark] if wish.mark else wish.accounts
    organisations = traffic_of(services).organisations
    return {
        "accounts": list(wish.accounts),
        "count": len(wish.accounts),
        "rung": wish.rung,
        "signatures": _signatures_for(desk, services, wish),
        "part": wish.part,
        "already": dict(Counter(str(held[a].rung) for a in names if a in held)),
        "unknown": sum(not _is_seen(services.result, a) for a in wish.accounts[:SHOWN]),
        "organisations": len({organisations[a] for a in wish.accounts if a in organisations}),
    }


def _signatures_for(desk: Desk, services: Services, wish: Wish) -> int:
    if wish.rung is Rung.OBSERVE:
        return 0
    living = desk.actions.standing(Standing.PENDING, Standing.DUE, Standing.IN_FORCE)
    mine = sum(a.rung is Rung.SUSPEND and a.campaign_id == wish.campaign_id for a in living)
    bulk = wish.rung is Rung.SUSPEND and mine + len(wish.accounts) > services.policy.now().bulk.suspend
    return 2 if bulk else 1


def _is_seen(result: Result | None, account_id: str) -> bool:
    return result is not None and result.account(account_id) is not None


async def sign(asked: Asked) -> Response:
    """Sign pending actions, by their ids or all of a campaign's."""
    given = await asked.json("actions", "campaign")
    return await _do(asked, given, (Standing.PENDING,), lambda desk, ids: desk.actions.sign(ids, asked.who, asked.role))


async def refuse(asked: Asked) -> Response:
    """Turn pending actions down, by their ids or all of a campaign's."""
    given = await asked.json("actions", "campaign", "reason")
    why = text_of(given, "reason", 1000) if not asked.flag("preview") else ""
    return await _do(
        asked, given, (Standing.PENDING,), lambda desk, ids: desk.actions.refuse(ids, asked.who, why, asked.role)
    )


async def undo(asked: Asked) -> Response:
    """Undo living actions, by their ids or all of a campaign's."""
    given = await asked.json("actions", "campaign", "reason")
    why = text_of(given, "reason", 1000) if not asked.flag("preview") else ""
    return await _do(asked, given, LIVING, lambda desk, ids: desk.actions.undo(ids, asked.who, why, asked.role))


async def _do(asked: Asked, given: Mapping[str, Any], standings: Sequence[Standing], deed: Any) -> Response:
    """Do something to actions, or with preview=true say to which; what is done holds for gateways before this answers."""
    is_preview = asked.flag("preview")

    def at_desk(desk: Desk) -> list[Action]:
        ids = _ids(desk, given, standings)
        return [desk.actions.get(i) for i in ids] if is_preview else deed(desk, ids)

    done = await asked.services.clerk.do(at_desk)
    if not is_preview:
        await asked.services.clerk.do(refresh, asked.services)
        asked.services.wake.set()
    return answer_json({"preview": is_preview, "count": len(done), "actions": [plain_action(a) for a in done]})


def refresh(desk: Desk, services: Services) -> None:
    """Put what holds now into the table at once, so that an undoing does not wait for the loop."""
    shadows = services.decisions.table.shadows
    services.decisions.replace(dataclasses.replace(held_table(desk, services, datetime.now(UTC)), shadows=shadows))


def _ids(desk: Desk, given: Mapping[str, Any], standings: Sequence[Standing]) -> list[str]:
    ids, campaign_id = given.get("actions"), given.get("campaign")
    if isinstance(campaign_id, str) and campaign_id and ids is None:
        ids = [a.action_id for a in desk.actions.standing(*standings) if a.campaign_id == campaign_id]
        if not ids:
            raise Refused(404, f"no {' or '.join(standings)} action of campaign {campaign_id[:80]!r}")
    if not isinstance(ids, list) or not ids or not all(isinstance(i, str) for i in ids) or len(ids) > MOST:
        raise Refused(400, "no actions", hint='"actions": ["A-...", ...], or "campaign": "id"')
    return ids


async def statement(asked: Asked) -> Response:
    """What the account is told about an action: the fields of a statement of reasons, and the letter."""
    services, action_id = asked.services, asked.named("action_id")
    wording = services.policy.now().statement
    if not wording.appeal_url and (url := services.appeal_url(action_id)):
        wording = dataclasses.replace(wording, appeal_url=url)
    try:
        told = await services.clerk.do(lambda desk: desk.actions.statement(action_id, wording))
    except UsageError as e:
        raise Refused(404, e.message, hint=e.hint) from e
    return answer_json({**dataclasses.asdict(told), "text": told.text()})


# Appeals


async def appeals(asked: Asked) -> Response:
    """All appeals, the one due first first, with what was written where they are still open."""
    found = await asked.services.clerk.do(lambda desk: desk.actions.appeals())
    is_open = asked.flag("open")
    told = [_plain_appeal(asked.services, a) for a in found if not (is_open and a.outcome)]
    return answer_json({"count": len(told), "appeals": told[: asked.number("limit", SHOWN, MOST)]})


def _plain_appeal(services: Services, appeal: Appeal) -> dict[str, Any]:
    place = services.home.appeals / f"{appeal.text_hash}.txt"
    text = place.read_text(encoding="utf-8") if appeal.text_hash and not appeal.outcome and place.exists() else None
    return {**dataclasses.asdict(appeal), "text": text}


async def decide_appeal(asked: Asked) -> Response:
    """Uphold what was done, or overturn it, which undoes it; only by somebody who had no part in it."""
    given, case_id = await asked.json("outcome", "reason"), asked.named("appeal_id")
    outcome, reason = text_of(given, "outcome", 16), text_of(given, "reason", 1000)

    def at_desk(desk: Desk) -> Appeal:
        return desk.actions.decide_appeal(case_id, asked.who, outcome, reason, asked.role)

    decided = await asked.services.clerk.do(at_desk)
    await asked.services.clerk.do(refresh, asked.services)
    return answer_json(_plain_appeal(asked.services, decided))


# The policy


async def policy(asked: Asked) -> Response:
    """The policy that stands, in sentences, and where it comes from."""
    standing = asked.services.policy
    said = explain(standing.now())
    return answer_json({"source": standing.source, "fault": standing.fault, "says": said})


async def policy_preview(asked: Asked) -> Response:
    """What the policy that stands, or the one given as TOML, would do now with the last judgement. Nothing is done."""
    given = await asked.json("policy")
    services = asked.services
    text = given.get("policy")
    if text is not None and not isinstance(text, str):
        raise Refused(400, "policy must be the text of a TOML file")
    wanted = policies.parse(text) if text is not None else services.policy.now()
    if services.result is None:
        raise Refused(409, "nothing was judged yet", hint="POST /api/judge-now, and wait for it")

    def at_desk(desk: Desk) -> list[policies.Preview]:
        now = datetime.now(UTC)
        known = desk.actions.known(now)
        told = services.result.newest(a.account_id for a in known) if services.result else policies.Newest()
        return preview(wanted, told, known, desk.state.judgements(), traffic_of(services), now, services.seed)

    rows = await services.clerk.do(at_desk)
    return answer_json({"says": explain(wanted), "would": [dataclasses.asdict(r) for r in rows]})


# Judgements


async def judgements(asked: Asked) -> Response:
    """The judgement that holds on each subject."""
    found = await asked.services.clerk.do(lambda desk: desk.state.judgements())
    newest = sorted(found.values(), key=lambda j: j.at, reverse=True)
    return answer_json({"count": len(newest), "judgements": [dataclasses.asdict(j) for j in newest[:MOST]]})


async def judge(asked: Asked) -> Response:
    """Say of a campaign, an account or a pair of accounts what you know; it outranks every rule."""
    given = await asked.json("subject", "verdict", "reason")
    subject, verdict, reason = text_of(given, "subject", 256), given.get("verdict"), text_of(given, "reason", 1000)
    if verdict not in VERDICTS:
        raise Refused(400, "no such verdict", hint=f"one of {', '.join(VERDICTS)}")
    said = Judgement(subject, verdict, asked.who, reason, datetime.now(UTC))

    def at_desk(desk: Desk) -> None:
        facts = {"verdict": verdict, "reason": reason}
        asked.services.audit.append("judgement.said", asked.who, asked.role, subject, facts)
        desk.state.judge(said)

    await asked.services.clerk.do(at_desk)
    asked.services.wake.set()
    return answer_json(dataclasses.asdict(said), 201)


async def judge_now(asked: Asked) -> Response:
    """Have everything judged now, or right after the judgement under way."""
    judging = asked.services.judging
    if judging is None:
        raise Refused(409, "this server does not judge", hint="it was started without a judge")
    await asked.services.readers.run(judging.ask)
    return answer_json({"asked": True, "judge": judging.status().plain()}, 202)


# The audit and what could not be used


async def checkpoint(asked: Asked) -> Response:
    """The audit's newest checkpoint, signed: keep it elsewhere, and the log can never be changed before it unseen."""
    return PlainTextResponse(await asked.services.readers.run(asked.services.audit.checkpoint))


async def dead_letters(asked: Asked) -> Response:
    """Records that were refused, newest first: from where, why, what to do; never their content."""
    limit = asked.number("limit", SHOWN, MOST)
    found = await asked.services.readers.run(asked.services.spool.dead_letters, limit)
    return answer_json({"count": len(found), "dead_letters": [_plain_letter(d) for d in found]})


def _plain_letter(letter: Any) -> dict[str, Any]:
    # As text: 64 bits are more than every reader of JSON keeps.
    return {**dataclasses.asdict(letter), "record": f"{letter.record % 2**64:016x}"}


# Fields


def _one_of(kind: Any, value: object, name: str) -> Any:
    try:
        return kind(value)
    except ValueError as e:
        raise Refused(400, f"no such {name}", hint=f"one of {', '.join(kind)}") from e
