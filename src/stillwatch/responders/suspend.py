"""Refuse every request, and say under which case and where to appeal. Undone by not refusing any more."""

from __future__ import annotations

from datetime import datetime

from stillwatch.responders import Answer, Responder, Usage, appeal_url, refusal
from stillwatch.types import InForce


def answer(in_force: InForce, dialect: str, now: datetime, usage: Usage) -> Answer:
    """403 with the case and the page to appeal at."""
    appeal = appeal_url(in_force)
    where = f"To appeal: {appeal}" if appeal else "To appeal, contact support and name the case."
    message = f"This {in_force.part.said} is suspended (case {in_force.action_id}). {where}"
    return refusal(403, "permission", message, dialect, {"link": f'<{appeal}>; rel="help"'} if appeal else None)


RESPONDER = Responder(
    name="suspend",
    meaning="every request is refused, with a case to appeal under",
    told="The account is suspended: its requests are refused.",
    answer=answer,
)
