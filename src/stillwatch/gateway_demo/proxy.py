"""The gateway: a real LiteLLM proxy in a process of its own, set up as docs/gateways says, with the one-file hook beside it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stillwatch.errors import UsageError
from stillwatch.gateway_demo.asking import Answer, post_json
from stillwatch.gateway_demo.processes import Child, free_port, wait_for
from stillwatch.serving.gateways import litellm_hook

STARTS_WITHIN_S = 300
COMMAND = "LITELLM"
"""The variable that names the proxy's command."""

# Keys are known by what follows the prefix; a proxy of one's own asks its database.
ACCOUNTS = '''
from litellm.proxy._types import UserAPIKeyAuth


async def known(request, api_key):
    """Who calls: sk-NAME is the key of the account NAME."""
    return UserAPIKeyAuth(api_key=api_key, user_id=api_key.removeprefix("sk-"))
'''
HOOK = '"litellm_hook.stillwatch"'
GUARDRAIL = """
guardrails:
  - guardrail_name: stillwatch
    litellm_params:
      guardrail: generic_guardrail_api
      mode: pre_call
      default_on: true
      api_base: {ours}
      headers: {{Authorization: "Bearer {asking}"}}
      unreachable_fallback: fail_open
"""
CONFIG = """\
model_list:
  - model_name: "*"
    litellm_params: {{model: "openai/*", api_base: "http://127.0.0.1:{model}/v1", api_key: sk-models}}
litellm_settings:
  callbacks: ["stillwatch"{hook}]
callback_settings:
  stillwatch:
    callback_type: generic_api
    endpoint: {ours}/ingest/litellm
    headers: {{Authorization: "Bearer {sending}"}}
    event_types: [llm_api_success]
    log_format: ndjson
general_settings:
  custom_auth: accounts.known
  use_x_forwarded_for: true
"""


@dataclass(frozen=True, slots=True)
class Ends:
    """What the proxy stands between: the port of the models, our server's address, and its tokens to send and to ask with."""

    model: int
    ours: str
    sending: str
    asking: str


class Proxy:
    """The proxy, running. With ``guardrail`` it asks by LiteLLM's generic guardrail, set up by configuration alone, and not by
    the hook."""

    def __init__(self, command: str, folder: Path, ends: Ends, *, guardrail: bool = False) -> None:
        folder.mkdir(mode=0o700, parents=True)
        given = {"model": ends.model, "ours": ends.ours, "sending": ends.sending, "asking": ends.asking}
        config = CONFIG.format(**given, hook="" if guardrail else f", {HOOK}")
        (folder / "config.yaml").write_text(config + (GUARDRAIL.format(**given) if guardrail else ""))
        (folder / "accounts.py").write_text(ACCOUNTS)
        shutil.copy(litellm_hook.__file__, folder / "litellm_hook.py")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.child = Child(
            "the LiteLLM proxy",
            [command, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(self.port)],
            folder / "proxy.log", folder, environment(os.environ, ends),
        )  # fmt: skip

    def wait(self) -> None:
        """Until it answers; Terminal where it ends before that."""
        wait_for("the LiteLLM proxy answers", lambda: listens(self.port), STARTS_WITHIN_S, self.child)

    def chat(self, key: str, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Answer:
        """A call to OpenAI's chat completions with a customer's key."""
        url = f"{self.url}/v1/chat/completions"
        return post_json(url, body, {"authorization": f"Bearer {key}", **(headers or {})})


def environment(usual: Mapping[str, str], ends: Ends) -> dict[str, str]:
    """What the proxy's process is told: the hook's settings, and no database or prices from elsewhere."""
    ours = {
        "STILLWATCH_URL": ends.ours, "STILLWATCH_TOKEN": ends.asking,
        # On a laptop that does all of this at once 50 ms may be too little, and 5 s are long to look at.
        "STILLWATCH_TIMEOUT_MS": "20000", "STILLWATCH_TTL_S": "0",
        "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }  # fmt: skip
    return {name: value for name, value in usual.items() if name != "DATABASE_URL"} | ours


def command_of(given: Path | None) -> str:
    """The proxy's command: the one given, else that of the variable LITELLM. UsageError where there is none."""
    named = str(given) if given else os.environ.get(COMMAND, "")
    found = shutil.which(named) if named else None
    if found is None:
        said = f"no LiteLLM proxy at {named!r}" if named else "no LiteLLM proxy was named"
        raise UsageError(
            said,
            hint="make gateway gets one; else install 'litellm[proxy]' in a venv of its own and give --litellm VENV/bin/litellm",
        )
    return os.path.abspath(found)


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
