"""Ask who it is: a fresh, stronger sign-in (RFC 9470) where the client can fetch a token, else a page to be verified at.

Undone by not asking any more. A client that comes back with a token as strong and as fresh as asked for passes.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from stillwatch.responders import BEARER, Answer, Responder, Setting, Usage, refusal
from stillwatch.types import InForce

ASKED = "must be verified before it can go on"


def answer(in_force: InForce, dialect: str, now: datetime, usage: Usage) -> Answer | None:
    """401 with a step-up challenge for a bearer token, 403 with the page for an API key; None for who has stepped up."""
    asked = f"This {in_force.part.said} {ASKED}"
    if usage.credential != BEARER:
        url = RESPONDER.setting(in_force.settings, "verification_url")
        where = f": {url}" if url else f". Contact support and name the case {in_force.action_id}."
        return refusal(403, "permission", f"{asked}{where}", dialect, _link(url))
    acr_values = RESPONDER.setting(in_force.settings, "acr_values")
    max_age = RESPONDER.setting(in_force.settings, "max_age")
    if usage.acr in acr_values.split() and _is_fresh(usage.authenticated_at, now, max_age):
        return None
    challenge = (
        'Bearer error="insufficient_user_authentication", '
        f'error_description="A stronger and more recent sign-in is needed", '
        f'acr_values="{acr_values}", max_age="{max_age}"'
    )
    return refusal(401, "authentication", f"{asked}: sign in again.", dialect, {"www-authenticate": challenge})


def _is_fresh(at: datetime | None, now: datetime, max_age: int) -> bool:
    return at is not None and now - at <= timedelta(seconds=max_age)


def _link(url: str | None) -> dict[str, str]:
    return {"link": f'<{url}>; rel="help"'} if url else {}


RESPONDER = Responder(
    name="verify",
    meaning="requests are refused until the account has shown who it is",
    told="Requests are refused until the account has been verified.",
    answer=answer,
    settings={
        "verification_url": Setting(str, "the page where an account with an API key is verified"),
        "acr_values": Setting(
            str, "strengths of sign-in that are enough, as the sign-in service names them, parted by spaces", "mfa"
        ),
        "max_age": Setting(int, "how old such a sign-in may be, in seconds", 3600, least=60, most=30 * 86_400),
    },
)
