from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import requests

from benchmarks import ours, peers
from benchmarks.database import postgresql
from benchmarks.processes import running, unwind_on_sigterm, wait_for, wait_until_answering
from tests.postgres import free_port

SDK_MODEL = "demo-chat"
SAID = "These are the words of a mock, with umlauts: äöü, and a few more so that there is something to stream."
VECTOR = [0.25, -0.5, 0.125]

Check = Callable[[], None]


class LeftOutError(Exception):
    """A check cannot run, because LiteLLM itself fails at it."""


@dataclass(frozen=True)
class ApiEndpoint:
    base_url: str
    key: str

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return requests.post(f"{self.base_url}{path}", json=body, headers=self._headers(), timeout=60)

    def models(self) -> set[str]:
        answer = requests.get(f"{self.base_url}/models", headers=self._headers(), timeout=5)
        return {row["id"] for row in answer.json()["data"]}

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def main() -> int:
    unwind_on_sigterm()
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        base, _pid = stack.enter_context(ours.served(database))
        keys = people()
        us = ApiEndpoint(f"{base}/v1", keys["KEY"])
        demo = stack.enter_context(demo_upstream())
        litellm = stack.enter_context(litellm_mock(us))
        sell(demo, litellm)
        wait_for("The models", lambda: {SDK_MODEL, "mock-chat", "mock-embedding"} <= us.models())
        failed = [
            *openai_sdk(us, keys),
            *checked("LiteLLM as an upstream of ours", litellm_behind(us, litellm)),
            *checked("LiteLLM as a client of ours", litellm_before(litellm)),
            *checked("Books", {"every balance adds up": the_books_balance, "nothing was estimated": nothing_estimated}),
        ]
    print(f"\n{len(failed)} failed." if failed else "\nAll passed.")
    return bool(failed)


# -- Setting up ---------------------------------------------------------------------------------------------------


def people() -> dict[str, str]:
    """Return a key for each case, by the name of the environment variable in which openai_sdk.mjs expects it."""
    from benchmarks.seed import space_of
    from quotas.members import set_enabled
    from quotas.services import set_remaining

    rich, poor, disabled = space_of(3, name="compat")
    manager = rich.user.space.people.get(number=1)  # type: ignore[union-attr]  # a member has a space
    set_remaining(member=poor.user, remaining_nanos=1, actor=manager)
    set_enabled(member=disabled.user, is_enabled=False, actor=manager)
    return {"KEY": rich.key, "POOR_KEY": poor.key, "DISABLED_KEY": disabled.key, "LIMITED_KEY": limited_key(rich.user)}


def limited_key(owner: Any) -> str:
    from accounts.keys import KeyTerms, create_key

    return create_key(owner=owner, terms=KeyTerms(name="limited", limit_nanos=1))[1]


@contextmanager
def demo_upstream() -> Iterator[ApiEndpoint]:
    port = free_port()
    command = [sys.executable, "manage.py", "demo_upstream", "--port", str(port)]
    with running("demo-upstream", *command, env={"DEMO": "true"}):
        base = f"http://127.0.0.1:{port}/v1"
        wait_until_answering("The demo upstream", f"{base}/models")
        yield ApiEndpoint(base, "sk-anything")


@contextmanager
def litellm_mock(us: ApiEndpoint) -> Iterator[ApiEndpoint]:
    port, key = free_port(), f"sk-{secrets.token_hex(16)}"
    forwarded = {"model": f"openai/{SDK_MODEL}", "api_base": us.base_url, "api_key": us.key}
    models = {
        "mock-chat": {"model": "openai/mock-chat", "api_key": "none", "mock_response": SAID},
        "mock-embedding": {"model": "openai/mock-embedding", "api_key": "none", "mock_response": VECTOR},
        "space-manage": forwarded,
    }
    listed = [{"model_name": name, "litellm_params": params} for name, params in models.items()]
    settings = peers.config("litellm-mock", {"model_list": listed})
    options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    env = peers.litellm_environment(key)
    program = peers.installed("litellm", "bin/litellm")
    with running("litellm-mock", program, "--config", settings, *options, env=env):
        wait_until_answering("LiteLLM", f"http://127.0.0.1:{port}/health/liveliness")
        yield ApiEndpoint(f"http://127.0.0.1:{port}/v1", key)


def sell(demo: ApiEndpoint, litellm: ApiEndpoint) -> None:
    from benchmarks.seed import offer

    for model, door in {SDK_MODEL: demo, "mock-chat": litellm, "mock-embedding": litellm}.items():
        offer(model, upstream=f"for-{model}", base_url=door.base_url, credential=door.key)


# -- Checks -------------------------------------------------------------------------------------------------------


def openai_sdk(us: ApiEndpoint, keys: dict[str, str]) -> list[str]:
    """Return the names of failed checks. The script prints one JSON outcome per line."""
    folder = peers.installed("openai", "node_modules/openai").parent.parent
    env = {**os.environ, **keys, "BASE_URL": us.base_url, "MODEL": SDK_MODEL, "SDK_FOLDER": str(folder)}
    script = Path(__file__).with_name("openai_sdk.mjs")
    done = subprocess.run([peers.node("node"), script], env=env, stdout=subprocess.PIPE, check=True)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    version = json.loads((folder / "node_modules/openai/package.json").read_text())["version"]
    print(f"\nOpenAI's SDK for Node.js {version} as a client of ours")
    return [outcome["name"] for outcome in outcomes if not print_outcome(outcome["name"], outcome["why"])]


def checked(title: str, checks: dict[str, Check]) -> list[str]:
    print(f"\n{title}")
    return [name for name, check in checks.items() if not print_outcome(name, *outcome(check))]


def outcome(check: Check) -> tuple[str, str]:
    """Run a check and return (why it failed, why it was left out); both are empty if it passed."""
    try:
        check()
    except LeftOutError as why:
        return "", str(why)
    except (AssertionError, KeyError, ValueError, requests.RequestException) as error:
        return f"{type(error).__name__}: {error}", ""
    return "", ""


def print_outcome(name: str, failed: str, left_out: str = "") -> bool:
    word = "FAILED" if failed else "left out" if left_out else "ok"
    why = failed or left_out
    print(f"  {word:9} {name}{f': {why}' if why else ''}", flush=True)
    return not failed


def litellm_behind(us: ApiEndpoint, litellm: ApiEndpoint) -> dict[str, Check]:
    """Responses through the relay must equal LiteLLM's direct ones, except ids, times and unrequested usage."""
    chat = {"model": "mock-chat", "messages": [{"role": "user", "content": "Hello"}]}
    streams = {**chat, "stream": True}
    requests_by_name: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": ("/chat/completions", chat),
        "chat, stream": ("/chat/completions", streams),
        "chat, stream with usage": ("/chat/completions", {**streams, "stream_options": {"include_usage": True}}),
        "completions": ("/completions", {"model": "mock-chat", "prompt": "Hello", "max_tokens": 50}),
        "completions, stream": ("/completions", {"model": "mock-chat", "prompt": "Hello", "stream": True}),
        "responses": ("/responses", {"model": "mock-chat", "input": "Hello"}),
        "responses, stream": ("/responses", {"model": "mock-chat", "input": "Hello", "stream": True}),
        "embeddings": ("/embeddings", {"model": "mock-embedding", "input": ["Hello"]}),
        "chat without messages: its error": ("/chat/completions", {"model": "mock-chat", "messages": "none"}),
    }

    def same(path: str, body: dict[str, Any]) -> Check:
        return lambda: assert_same(litellm.post(path, body), us.post(path, body), path, body)

    return {name: same(path, body) for name, (path, body) in requests_by_name.items()}


def assert_same(straight: requests.Response, through: requests.Response, path: str, body: dict[str, Any]) -> None:
    if straight.status_code >= 500:
        raise LeftOutError(f"LiteLLM itself answers {straight.status_code}")
    is_usage_wanted = "stream" not in body or "stream_options" in body
    wanted = [straight.status_code, *parts(straight, shows_usage=is_usage_wanted)]
    found = [through.status_code, *parts(through, shows_usage=True)]
    pairs = zip_longest(wanted, found, fillvalue="nothing")
    unlike = next(((one, other) for one, other in pairs if one != other), None)
    assert unlike is None, f"POST /v1{path} {json.dumps(body)}: straight {unlike[0]}, through us {unlike[1]}"


def parts(answer: requests.Response, *, shows_usage: bool) -> list[Any]:
    """Return the content type and the body or its events, without ids and times, which differ for each response.

    LiteLLM's streams report a usage of zero to a client that asked for none. `shows_usage=False` leaves it out, because
    the relay does not pass it on.
    """
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind != "text/event-stream":
        return [kind, without_ids_and_times(answer.json())]
    lines = answer.content.decode().splitlines()
    texts = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    events = [without_ids_and_times(json.loads(text)) for text in texts]
    if not shows_usage:
        events = [{name: value for name, value in event.items() if name != "usage"} for event in events]
    return [kind, *events, lines[-2] if len(lines) > 1 else ""]


def without_ids_and_times(value: Any) -> Any:
    if isinstance(value, dict):
        varying = {"id", "created", "created_at", "completed_at", "item_id", "response_id"}
        return {name: without_ids_and_times(item) for name, item in value.items() if name not in varying}
    if isinstance(value, list):
        return [without_ids_and_times(item) for item in value]
    return value


def litellm_before(litellm: ApiEndpoint) -> dict[str, Check]:
    chat = {"model": "space-manage", "messages": [{"role": "user", "content": "Hello"}]}

    def whole() -> None:
        body = granted(litellm.post("/chat/completions", chat)).json()
        assert body["choices"][0]["message"]["content"], body
        assert body["usage"]["total_tokens"], body

    def stream() -> None:
        request = {**chat, "stream": True, "stream_options": {"include_usage": True}}
        body = granted(litellm.post("/chat/completions", request)).text
        assert '"usage"' in body, body[-500:]
        assert body.rstrip().endswith("[DONE]"), body[-500:]

    def embedding() -> None:
        body = granted(litellm.post("/embeddings", {"model": "space-manage", "input": "Hello"})).json()
        assert len(body["data"][0]["embedding"]) == 1536

    def responses() -> None:
        body = granted(litellm.post("/responses", {"model": "space-manage", "input": "Hello"})).json()
        assert body["status"] == "completed", body

    return {"chat": whole, "chat, stream": stream, "embeddings": embedding, "responses": responses}


def granted(answer: requests.Response) -> requests.Response:
    assert answer.status_code == 200, answer.text[:500]
    return answer


def the_books_balance() -> None:
    from django.core.management import call_command

    output = io.StringIO()
    try:
        call_command("reconcile", stdout=output, stderr=output)
    except SystemExit:
        raise AssertionError(output.getvalue()) from None


def nothing_estimated() -> None:
    """LiteLLM reports usage in each response, so no charge may be an estimate."""
    from usage.models import UsageRecord

    guessed = UsageRecord.objects.filter(model__startswith="mock-", status=200, is_estimated=True)
    assert not guessed.exists(), f"{guessed.count()} of LiteLLM's answers were charged by estimate"


if __name__ == "__main__":
    sys.exit(main())
