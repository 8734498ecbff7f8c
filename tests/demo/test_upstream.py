from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import openai
import pytest
from aiohttp import web
from django.core.management import CommandError, call_command

from demo.upstream import make_app
from demo.upstream_answers import DISCLAIMER, HUGE_OUTPUT_TOKENS
from relay.answers import read_answer
from relay.pricing import Usage

HI: Any = [{"role": "user", "content": "hi"}]
T = TypeVar("T")

CREDENTIAL = "sk-demo-credential"


def told_usage(answer: object) -> Usage | None:
    return read_answer(json.dumps(answer).encode(), path="/chat/completions", ask_facts={}).usage


class Served:
    """The demo upstream on an event loop in a thread of its own."""

    def __init__(self, **options: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._runner, port = self.do(self._start(options))
        self.url = f"http://127.0.0.1:{port}"

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    async def _start(self, options: dict[str, str]) -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(make_app(**options), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    def close(self) -> None:
        self.do(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        return self.do(self._ask(method, path, options))

    async def _ask(self, method: str, path: str, options: dict[str, Any]) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.request(method, self.url + path, **options) as answer:
            return answer.status, await answer.json()

    def stream(self, path: str, body: dict[str, Any]) -> tuple[list[Any], bool]:
        """(payloads, whether the stream ended normally)."""
        return self.do(self._stream(path, body))

    async def _stream(self, path: str, body: dict[str, Any]) -> tuple[list[Any], bool]:
        got = b""
        asked = {"stream": True} | body
        async with aiohttp.ClientSession() as session, session.post(self.url + path, json=asked) as answer:
            assert answer.content_type == "text/event-stream"
            try:
                async for chunk in answer.content.iter_any():
                    got += chunk
                is_whole = True
            except aiohttp.ClientPayloadError:
                is_whole = False
        data = [line[6:] for line in got.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) if line != "[DONE]" else line for line in data], is_whole


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.close()


@pytest.fixture(scope="module")
def sdk(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="anything", max_retries=0) as client:
        yield client


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "demo-chat", "messages": HI} | fields


def directive(text: str, **fields: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": f"hi {text}"}], **fields)


# -- Through the OpenAI SDK --------------------------------------------------------------------------------------------


def test_it_lists_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["demo-chat", "demo-embedding", "demo-video"]


def test_a_chat_says_what_it_is_and_stops_by_itself(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="demo-chat", messages=HI)

    assert answer.choices[0].message.content.startswith(DISCLAIMER)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == len(answer.choices[0].message.content.split())
    assert answer.usage.prompt_tokens == 4


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_chat_is_cut_at_its_limit(sdk: openai.OpenAI, name: str) -> None:
    limit: dict[str, Any] = {name: 5}

    answer = sdk.chat.completions.create(model="demo-chat", messages=HI, n=3, **limit)

    assert [(choice.message.content, choice.finish_reason) for choice in answer.choices] == [
        ("This is the demo upstream", "length")
    ] * 3
    assert answer.usage.completion_tokens == 15


def test_a_streamed_chat_is_the_same_text(sdk: openai.OpenAI) -> None:
    whole = sdk.chat.completions.create(model="demo-chat", messages=HI)
    stream = list(
        sdk.chat.completions.create(model="demo-chat", messages=HI, stream=True, stream_options={"include_usage": True})
    )

    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream[:-1]) == whole.choices[0].message.content
    assert stream[-2].choices[0].finish_reason == "stop"
    assert stream[-1].choices == [] and stream[-1].usage == whole.usage


def test_completions_answer_with_and_without_a_stream(sdk: openai.OpenAI) -> None:
    whole = sdk.completions.create(model="demo-chat", prompt="hi", max_tokens=4)
    stream = sdk.completions.create(model="demo-chat", prompt="hi", max_tokens=4, stream=True)

    assert whole.choices[0].text == "".join(chunk.choices[0].text for chunk in stream) == "This is the demo"
    assert whole.usage.completion_tokens == 4


def test_responses_answer_with_and_without_a_stream(sdk: openai.OpenAI) -> None:
    whole = sdk.responses.create(model="demo-chat", input="hi")
    events = list(sdk.responses.create(model="demo-chat", input="hi", stream=True))

    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert whole.output_text == "".join(deltas) and whole.output_text.startswith(DISCLAIMER)
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert events[-1].response.usage == whole.usage and whole.usage.output_tokens == len(deltas)
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_response_cut_at_its_limit_is_incomplete(sdk: openai.OpenAI) -> None:
    events = list(sdk.responses.create(model="demo-chat", input="hi", max_output_tokens=2, stream=True))

    assert events[-1].type == "response.incomplete" and events[-1].response.usage.output_tokens == 2


# Without encoding_format, the SDK requests base64.
@pytest.mark.parametrize("form", [{"encoding_format": "float"}, {}])
def test_embeddings_are_of_length_one_and_the_same_each_time(sdk: openai.OpenAI, form: dict[str, Any]) -> None:
    answer = sdk.embeddings.create(model="demo-embedding", input=["a", "b", "a"], dimensions=64, **form)

    first, second, third = (item.embedding for item in answer.data)
    assert first == third != second
    assert sum(number**2 for number in first) == pytest.approx(1, abs=1e-4) and len(first) == 64
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


@pytest.mark.filterwarnings("ignore:The Sora API")
def test_a_video_completes_after_its_polls(sdk: openai.OpenAI) -> None:
    video = sdk.videos.create(model="demo-video", prompt="a fox demo:polls=2", seconds="8")
    seen = [sdk.videos.retrieve(video.id) for _ in range(4)]

    assert (video.status, video.seconds, video.progress) == ("queued", "8", 0)
    assert [(polled.status, polled.progress) for polled in seen] == [
        ("in_progress", 33),
        ("in_progress", 66),
        ("completed", 100),
        ("completed", 100),
    ]


@pytest.mark.filterwarnings("ignore:The Sora API")
def test_a_video_fails_when_asked_to(sdk: openai.OpenAI) -> None:
    video = sdk.videos.create(model="demo-video", prompt="a fox demo:fail demo:polls=0")

    polled = sdk.videos.retrieve(video.id)

    assert polled.status == "failed" and polled.error.code == "demo_failure"
    with pytest.raises(openai.NotFoundError):
        sdk.videos.retrieve("video_other")


# -- On the wire --------------------------------------------------------------------------------------------------


def test_the_usage_of_a_stream_comes_only_when_asked_for(served: Served) -> None:
    without, _ = served.stream("/v1/chat/completions", chat(max_tokens=3))
    asked, _ = served.stream("/v1/chat/completions", chat(max_tokens=3, stream_options={"include_usage": True}))

    assert [event for event in without[:-1] if "usage" in event] == []
    assert [event["usage"] for event in asked[:-2]] == [None] * 5
    assert asked[-2]["choices"] == [] and told_usage(asked[-2]) == Usage(input=4, output=3)
    assert without[-1] == asked[-1] == "[DONE]"


def test_half_of_a_long_prompt_is_reported_as_cached(served: Served) -> None:
    _, answer = served.ask("POST", "/v1/chat/completions", json=directive("x" * 8192))

    usage = told_usage(answer)
    assert (usage.input_tokens, usage.cached_tokens) == (2052, 1024)


def test_the_root_says_what_it_is(served: Served) -> None:
    async def read() -> str:
        async with aiohttp.ClientSession() as session, session.get(served.url) as answer:
            return await answer.text()

    assert served.do(read()).startswith(DISCLAIMER)


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", "/v1/chat/completions", {"data": "junk"}, 400),
        ("POST", "/v1/chat/completions", {"json": []}, 400),
        ("POST", "/v1/chat/completions", {"json": {"model": "demo-chat"}}, 400),
        ("POST", "/v1/responses", {"json": {"input": ""}}, 400),
        ("GET", "/v1/chat/completions", {}, 405),
        ("GET", "/v1/elsewhere", {}, 404),
        ("GET", "/v1/videos/none", {}, 404),
    ],
)
def test_every_error_has_openais_shape(
    served: Served, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    got, answer = served.ask(method, path, **options)

    assert got == status and set(answer["error"]) == {"message", "type", "param", "code"}


def test_it_requires_the_credential_it_was_started_with() -> None:
    served = Served(credential=CREDENTIAL)
    try:
        answers = [
            served.ask("GET", "/v1/models", headers={"Authorization": header})[0]
            for header in ("", "Bearer other", CREDENTIAL, f"Bearer {CREDENTIAL}")
        ]
    finally:
        served.close()

    assert answers == [401, 401, 401, 200]


# -- Misbehaving --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {"json": directive("demo:error=503")},
        {"json": directive("demo:error-503", stream=True)},
        {"json": chat(model="demo-chat:demo:error-503")},
        {"json": chat(), "headers": {"X-Demo": "demo:error=503"}},
        {"json": chat(messages=[{"role": "user", "content": [{"type": "text", "text": "demo:error=503"}]}])},
    ],
)
def test_it_answers_an_error_on_request(served: Served, asked: dict[str, Any]) -> None:
    status, answer = served.ask("POST", "/v1/chat/completions", **asked)

    assert status == 503 and answer["error"]["code"] == "demo_error"


def test_a_directive_in_an_earlier_message_is_ignored(served: Served) -> None:
    messages = [{"role": "user", "content": "demo:error=503"}, *HI]

    assert served.ask("POST", "/v1/chat/completions", json=chat(messages=messages))[0] == 200


@pytest.mark.parametrize(
    ("text", "output"), [("demo:nousage", None), ("demo:zerousage", 0), ("demo:hugeusage", HUGE_OUTPUT_TOKENS)]
)
def test_it_reports_the_usage_of_its_directive(served: Served, text: str, output: int | None) -> None:
    _, answer = served.ask("POST", "/v1/chat/completions", json=directive(text))
    events, _ = served.stream("/v1/chat/completions", directive(text, stream_options={"include_usage": True}))
    _, response = served.ask("POST", "/v1/responses", json={"model": "m", "input": text})
    steps, _ = served.stream("/v1/responses", {"model": "m", "input": text})

    usages = [told_usage(payload) for payload in (answer, events[-2], response, steps[-1])]
    assert [usage and usage.output_tokens for usage in usages] == [output] * 4


@pytest.mark.parametrize(("path", "field"), [("/v1/chat/completions", "messages"), ("/v1/responses", "input")])
def test_it_breaks_off_a_stream_after_so_many_events(served: Served, path: str, field: str) -> None:
    events, is_whole = served.stream(path, {"model": "m", field: [{"role": "user", "content": "demo:break=3"}]})

    assert len(events) == 3 and not is_whole


def test_it_breaks_off_in_the_middle_of_a_body(served: Served) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        served.ask("POST", "/v1/chat/completions", json=directive("demo:break"))


def test_it_obeys_delay_pace_and_tokens(served: Served) -> None:
    events, is_whole = served.stream(
        "/v1/chat/completions", directive("demo:delay=0.05 demo:pace=0.001 demo:tokens=70")
    )

    assert len(events) == 73 and is_whole


# -- The command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_port_out_of_range_is_refused(port: str) -> None:
    with pytest.raises(CommandError, match="--port: a number from 1"):
        call_command("demo_upstream", f"--port={port}")


def test_a_port_in_use_is_refused_with_a_message(served: Served) -> None:
    port = served.url.rpartition(":")[2]

    # In a process of its own, because another test's event loop may be running in this one.
    command = [sys.executable, "manage.py", "demo_upstream", f"--port={port}"]
    root = Path(__file__).parent.parent.parent
    ended = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert f"--port: cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_the_command_serves_and_prints_that_it_is_a_demo() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "manage.py", "demo_upstream", f"--port={port}"]
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            lines = [process.stdout.readline().strip() for _ in range(2)]
            with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client:
                assert len(client.models.list().data) == 3
        finally:
            process.terminate()

    assert lines == [DISCLAIMER, f"It listens on http://127.0.0.1:{port}/v1"]
    assert process.returncode == 0
