"""Look on: the account's requests pass as they are, and are only looked at more closely."""

from __future__ import annotations

from stillwatch.responders import Responder

RESPONDER = Responder(
    name="observe",
    meaning="requests pass unchanged; the account is watched",
    told="Nothing is limited. The use of the account is being looked at.",
)
