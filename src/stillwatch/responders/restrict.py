"""Let the account use some models only; 403 for the others. Undone by not looking at the model any more.

A request whose model the gateway cannot see passes: every dialect requires a model, so one without fails by itself.
"""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase

from stillwatch.responders import Answer, Responder, Setting, Usage, appeal_url, refusal
from stillwatch.types import InForce


def answer(in_force: InForce, dialect: str, now: datetime, usage: Usage) -> Answer | None:
    """403 for a model that is not on the list, else None; ``*`` in the list stands for any text."""
    models = RESPONDER.setting(in_force.settings, "models")
    if not usage.model or any(fnmatchcase(usage.model, pattern) for pattern in models):
        return None
    appeal = appeal_url(in_force)
    where = f" To appeal: {appeal}" if appeal else ""
    message = f"This {in_force.part.said} may not use this model at present (case {in_force.action_id}).{where}"
    return refusal(403, "permission", message, dialect)


RESPONDER = Responder(
    name="restrict",
    meaning="only the models named may be used",
    told="Only some of the models may be used.",
    answer=answer,
    settings={
        "models": Setting(list, "models that may still be used; * stands for any text", [], is_required=True),
    },
)
