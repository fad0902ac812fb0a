"""Slow down: so many requests a minute, from a bucket the gateway keeps; 429 with the time to wait beyond that.

Headers are those of draft-ietf-httpapi-ratelimit-headers and RFC 9110's ``Retry-After``, which clients back off by.
Undone by not asking the bucket any more.
"""

from __future__ import annotations

import math
from datetime import datetime

from stillwatch.responders import Answer, Responder, Setting, Usage, refusal
from stillwatch.types import InForce


def answer(in_force: InForce, dialect: str, now: datetime, usage: Usage) -> Answer | None:
    """429 where the account's bucket is empty, else None; takes one request from the bucket."""
    per_minute = float(RESPONDER.setting(in_force.settings, "requests_per_minute"))
    burst = float(RESPONDER.setting(in_force.settings, "burst") or max(per_minute, 1))
    _, wait_s = usage.bucket.take(in_force.subject, per_minute, burst)
    if not wait_s:
        return None
    seconds = max(math.ceil(wait_s), 1)
    headers = {
        "retry-after": str(seconds),
        "ratelimit-policy": f'"{in_force.part.said}";q={math.ceil(burst)};w={max(math.ceil(burst * 60 / per_minute), 1)}',
        "ratelimit": f'"{in_force.part.said}";r=0;t={seconds}',
    }
    message = f"This {in_force.part.said} may make {per_minute:g} requests a minute. Try again in {seconds} s."
    return refusal(429, "rate_limit", message, dialect, headers)


RESPONDER = Responder(
    name="throttle",
    meaning="only so many requests a minute; the rest are told when to come back",
    told="The number of requests a minute is limited.",
    answer=answer,
    settings={
        "requests_per_minute": Setting(float, "requests a minute that pass", 6.0, least=0.01, most=100_000),
        "burst": Setting(float, "requests that pass at once after a pause; a minute's where it is not set", least=1),
    },
)
