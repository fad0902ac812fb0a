"""For a LiteLLM proxy: this one file, copied beside its config.yaml, asks stillwatch before each call and does as it is told.

    litellm_settings:
      callbacks: ["litellm_hook.stillwatch"]

    STILLWATCH_URL         where stillwatch answers                      http://127.0.0.1:8620
    STILLWATCH_TOKEN       a token with the right to ask, if one is needed
    STILLWATCH_ACCOUNT     fields of the key that name the account, the first that is set counts    user_id,team_id
    STILLWATCH_TIMEOUT_MS  longest time a call waits for an answer       50
    STILLWATCH_TTL_S       how long an answer is used again              5
    STILLWATCH_VLLM        models that vLLM serves, such as "llama-*,qwen-*"; answers of others carry no watermark

What chooses a watermark, or switches it off, is taken out of every call, whether anything is in force or not, and whether we
answer or not. It holds no policy: what to edit and what to refuse comes as JSON. Where no answer comes in time, an account that
nothing is known of passes, and one under action keeps its last answer until that action ends. Only the standard library is
imported, and LiteLLM's base class when LiteLLM asks for ``stillwatch``. LiteLLM calls a hook only if its very class defines it,
and takes status, message, type, code, param and headers from what is raised.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib
import json
import logging
import os
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any

log = logging.getLogger("stillwatch.litellm_hook")

DIALECTS = {"anthropic_messages": "anthropic", "responses": "openai_responses", "aresponses": "openai_responses"}
"""The dialect of a call's fields by LiteLLM's call_type; all others are LiteLLM's own, OpenAI's with ``thinking`` added."""

CHOICES = (
    ("watermarking",),  # vLLM: false switches its own watermark off
    ("watermark",),  # SGLang
    ("logits_processors",),  # vLLM, older versions
    ("custom_logit_processor",),  # SGLang: code of the client's own
    ("vllm_xargs", "stillwatch_key"),  # ours
)
"""Fields of a request by which a client could choose or undo a watermark, which only the gateway may."""
HOLDERS = ((), ("extra_body",))
"""Where such fields may stand: in the request, or in what is merged into it on the way."""

MOST_KEPT = 20_000
PAUSE_S = 1.0
"""How long unknown accounts pass without asking after an answer failed to come, in seconds."""


class Refused(Exception):
    """What the caller is told instead of an answer; shaped as LiteLLM reads it."""

    def __init__(self, refusal: Mapping[str, Any]) -> None:
        error = refusal["error"]
        super().__init__(error["message"])
        self.status_code = int(refusal["status"])
        self.message = self.detail = str(error["message"])
        self.type, self.code, self.param = error.get("type"), error.get("code"), error.get("param")
        self.headers = {str(name): str(value) for name, value in refusal.get("headers", {}).items()}


class Asker:
    """Asks, keeps answers for a while, and counts: ``asked`` over the wire, ``failed``, ``refused``, ``rewritten``."""

    def __init__(self, settings: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = urllib.parse.urlsplit(settings.get("STILLWATCH_URL", "http://127.0.0.1:8620"))
        self.token = settings.get("STILLWATCH_TOKEN", "")
        self.accounts = settings.get("STILLWATCH_ACCOUNT", "user_id,team_id").replace(" ", "").split(",")
        self.timeout_s = float(settings.get("STILLWATCH_TIMEOUT_MS", "50")) / 1000
        self.ttl_s = float(settings.get("STILLWATCH_TTL_S", "5"))
        self.vllm = [p for p in settings.get("STILLWATCH_VLLM", "").replace(" ", "").split(",") if p]
        self.counts = {"asked": 0, "failed": 0, "refused": 0, "rewritten": 0}
        self._clock = clock
        self._kept: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._passed: dict[str, float] = {}
        self._silent_until = -1.0
        self._threads = ThreadPoolExecutor(8, "stillwatch")
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close what is open; the asker is of no use afterwards."""
        self._threads.shutdown(wait=True)
        for connection in self._open:
            connection.close()

    async def before(self, key: Any, request: dict[str, Any], call_type: str) -> dict[str, Any]:
        """The request as it is passed on; Refused where it is not."""
        given, request = request, without_choices(request)
        answer = await self.answer(self._question(key, request, call_type))
        if answer.get("refusal"):
            self.counts["refused"] += 1
            raise Refused(answer["refusal"])
        try:
            changed = apply([*(answer.get("edits") or ()), *self._marking(answer, request)], request)
        except (TypeError, KeyError, IndexError, AttributeError) as e:
            log.warning("edits that cannot be done (%s): the call passes as it is", type(e).__name__)
            return request
        self.counts["rewritten"] += changed != given
        return changed

    def _marking(self, answer: Mapping[str, Any], request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Edits that name the watermark's key to vLLM; none for other engines, which refuse a field they do not know."""
        key, model = answer.get("watermark"), str(request.get("model") or "")
        if not key or not any(fnmatchcase(model, pattern) for pattern in self.vllm):
            return []
        made = (["extra_body"], ["extra_body", "vllm_xargs"])
        edits: list[dict[str, Any]] = [
            {"do": "set", "at": at, "to": {}, "if": [{"at": at, "is": [None]}]} for at in made
        ]
        return [*edits, {"do": "set", "at": [*made[1], "stillwatch_key"], "to": key}]

    def _question(self, key: Any, request: Mapping[str, Any], call_type: str) -> str:
        account = next((str(v) for name in self.accounts if (v := getattr(key, name, None))), "")
        asked = {
            "account": account,
            "key": getattr(key, "token", None) or getattr(key, "api_key", None) or "",
            "end_user": getattr(key, "end_user_id", None) or "",
            "model": str(request.get("model") or ""),
            "dialect": DIALECTS.get(str(getattr(call_type, "value", call_type)), "litellm"),
        }
        return urllib.parse.urlencode({name: value for name, value in asked.items() if value})

    async def answer(self, question: str) -> Mapping[str, Any]:
        """What holds: kept for a moment, except for a pace, which is asked for each request."""
        now = self._clock()
        at, kept = self._kept.get(question, (-1e9, {}))
        if now - at < self.ttl_s and not kept.get("requests_per_minute"):
            return _still(kept, now - at)
        if now < self._silent_until:
            return self._last(question, kept, now - at)
        try:
            answer = await asyncio.wait_for(
                asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, question), self.timeout_s
            )
        except (asyncio.TimeoutError, OSError, http.client.HTTPException, ValueError) as e:  # noqa: UP041 (Python 3.10)
            return self._without(question, kept, now - at, e)
        self._keep(question, answer)
        return answer

    def _without(self, question: str, kept: Mapping[str, Any], age_s: float, why: Exception) -> Mapping[str, Any]:
        self.counts["failed"] += 1
        if self._clock() >= self._silent_until:
            log.warning("stillwatch did not answer (%s: %s): the last answers hold", type(why).__name__, why)
        self._silent_until = self._clock() + PAUSE_S
        return self._last(question, kept, age_s)

    def _last(self, question: str, kept: Mapping[str, Any], age_s: float) -> Mapping[str, Any]:
        """The last answer while its action lasts; a pace is kept here, one request at a time."""
        held = _still(kept, age_s)
        if not held.get("requests_per_minute"):
            return held
        wait_s = self._passed.get(question, -1e9) + 60 / held["requests_per_minute"] - self._clock()
        if wait_s > 0 and held.get("at_the_limit"):
            return {**held, "refusal": held["at_the_limit"]}
        self._passed[question] = self._clock()
        return {**held, "refusal": None}

    def _keep(self, question: str, answer: Mapping[str, Any]) -> None:
        self._kept.pop(question, None)
        self._kept[question] = (self._clock(), answer)
        if not answer.get("refusal"):
            self._passed[question] = self._clock()
        for kept in (self._kept, self._passed):
            if len(kept) > MOST_KEPT:
                del kept[next(iter(kept))]

    def _fetch(self, question: str) -> Mapping[str, Any]:
        """Ask over a connection that is kept, a second time over a new one if it was closed meanwhile."""
        self.counts["asked"] += 1
        try:
            return self._fetch_over(self._connection(), question)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, http.client.CannotSendRequest):
            self._close()
            return self._fetch_over(self._connection(), question)
        except BaseException:
            self._close()
            raise

    def _fetch_over(self, connection: http.client.HTTPConnection, question: str) -> Mapping[str, Any]:
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        path = self.url.path.rstrip("/")
        connection.request("GET", f"{path}/v1/in-force?{question}&take=1", headers=headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise OSError(f"status {response.status}")
        answer = json.loads(body)
        return _checked(answer)

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
            connection = self._local.connection = kind(self.url.netloc, timeout=self.timeout_s)
            self._open.append(connection)
        return connection

    def _close(self) -> None:
        if connection := getattr(self._local, "connection", None):
            connection.close()
            self._open.remove(connection)
            self._local.connection = None


def _checked(answer: Any) -> Mapping[str, Any]:
    """An answer of the shape that is counted on; ValueError for any other, as if none had come."""
    try:
        for name in ("refusal", "at_the_limit"):
            if answer.get(name) is not None:
                Refused(answer[name])
        if not isinstance(answer.get("watermark") or "", str):
            raise TypeError("a watermark that is no text")
        float(answer.get("expires_in_s") or 0), float(answer.get("requests_per_minute") or 0)
    except (AttributeError, TypeError, KeyError) as e:
        raise ValueError(f"an answer of another shape ({type(e).__name__})") from e
    return answer


def _still(kept: Mapping[str, Any], age_s: float) -> Mapping[str, Any]:
    """An answer of that age, or nothing once the action has ended."""
    return kept if age_s < float(kept.get("expires_in_s") or 0) else {}


# Edits: what to change of a request, as JSON. ``at`` is a path of names; an edit is done if all of its ``if`` hold, each
# {"at": path, "is": values} or {"at": path, "is_not": values}, where what is absent is null.
#
#   drop      take the field away                    without   take ``values`` out of the list
#   set       put ``to``, if what it is in is there  at_most   put ``to`` if there is anything but a whole number up to it
#   below     put ``of`` less ``by``, at least ``least``, if the number is not below ``of``


def apply(edits: Iterable[Mapping[str, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the edits done, in their order; what was given stays as it is. An unknown edit is left out and logged."""
    body = dict(request)
    for edit in edits:
        verb = VERBS.get(edit.get("do", ""))
        if verb is None:
            log.warning("unknown edit %r is left out: copy the newer file of this hook", edit.get("do"))
        elif all(_holds(condition, body) for condition in edit.get("if", ())):
            verb(body, edit)
    return body


def without_choices(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request without the fields by which a client could choose or undo a watermark; the very same one where it has none."""
    body: dict[str, Any] = request if isinstance(request, dict) else dict(request)
    for path in ((*holder, *choice) for holder in HOLDERS for choice in CHOICES):
        inner = _at(body, path[:-1])
        if isinstance(inner, Mapping) and path[-1] in inner:
            body = dict(body)
            _drop(body, {"at": list(path)})
    return body


def _holds(condition: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    value = _at(body, condition["at"])
    wanted = condition["is"] if "is" in condition else condition["is_not"]
    # 1 and true are equal in Python, and are not in JSON.
    found = any(value == w and type(value) is type(w) for w in wanted)
    return found == ("is" in condition)


def _at(body: Any, path: Iterable[str]) -> Any:
    for name in path:
        body = body.get(name) if isinstance(body, Mapping) else None
    return body


def _put(body: dict[str, Any], path: list[str], value: Any) -> None:
    """Put a value where what it is in is there; mappings on the way are copied first."""
    for name in path[:-1]:
        inner = body.get(name)
        if not isinstance(inner, Mapping):
            return
        body[name] = body = dict(inner)
    body[path[-1]] = value


def _drop(body: dict[str, Any], edit: Mapping[str, Any]) -> None:
    path = edit["at"]
    inner = _at(body, path[:-1])
    if not isinstance(inner, Mapping) or path[-1] not in inner:
        return
    if path[:-1]:
        _put(body, path[:-1], {name: value for name, value in inner.items() if name != path[-1]})
    else:
        del body[path[-1]]


def _set(body: dict[str, Any], edit: Mapping[str, Any]) -> None:
    _put(body, edit["at"], edit["to"])


def _without(body: dict[str, Any], edit: Mapping[str, Any]) -> None:
    entries = _at(body, edit["at"])
    if isinstance(entries, list) and any(e in edit["values"] for e in entries):
        _put(body, edit["at"], [e for e in entries if e not in edit["values"]])


def _at_most(body: dict[str, Any], edit: Mapping[str, Any]) -> None:
    value = _at(body, edit["at"])
    if value is not None and not (isinstance(value, int) and value <= edit["to"]):
        _put(body, edit["at"], edit["to"])


def _below(body: dict[str, Any], edit: Mapping[str, Any]) -> None:
    value, bound = _at(body, edit["at"]), _at(body, edit["of"])
    if isinstance(value, int) and isinstance(bound, int) and value >= bound:
        _put(body, edit["at"], max(bound - edit["by"], edit["least"]))


VERBS: dict[str, Callable[[dict[str, Any], Mapping[str, Any]], None]] = {
    "drop": _drop,
    "set": _set,
    "without": _without,
    "at_most": _at_most,
    "below": _below,
}


def hook_class(base: type) -> type:
    """The class LiteLLM is given: ``base`` is its CustomLogger."""

    class Stillwatch(base):
        """Asks stillwatch before each call."""

        def __init__(self, asker: Asker | None = None) -> None:
            super().__init__()
            self.asker = asker or Asker()

        async def async_pre_call_hook(
            self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
        ) -> dict[str, Any]:
            """The call's fields as they are passed on; Refused where it is not."""
            return await self.asker.before(user_api_key_dict, data, call_type)

    return Stillwatch


def __getattr__(name: str) -> Any:
    """``stillwatch``, the hook itself, made when it is first asked for: only then LiteLLM must be there."""
    if name != "stillwatch":
        raise AttributeError(name)
    base = importlib.import_module("litellm.integrations.custom_logger").CustomLogger
    globals()["stillwatch"] = hook = hook_class(base)()
    return hook
