"""Failover, cool-down and order, with two upstreams of which the first fails in every way."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from relay.faults import Fault
from relay.http import HttpError, UpstreamResponse
from relay.profiles import KINDS, profile_of
from relay.statuses import Kind
from relay.targets import Target
from relay.upstreams import UpstreamError, Upstreams, final_failure, retry_after
from tests.postgres import free_port
from tests.relay.conftest import run_async
from tests.relay.servers import HANG_UP, Script, Server, json_reply, listening, reply

CHAT = "/chat/completions"
MODEL = "gpt-demo"
ANSWER = {"id": "1", "model": MODEL, "choices": [{"message": {"content": "hello"}}]}
OK = json_reply(200, ANSWER)
SSE = "Content-Type: text/event-stream"


def target(server: Server, number: int = 1, **values: Any) -> Target:
    first = Target(
        id=number,
        name=f"upstream-{number}",
        base_url=server.url,
        credential="sk-operator-secret",
        priority=number,
        weight=1,
        timeout_s=5,
    )
    return replace(first, **values)


def error(code: str | int, message: str = "It failed.", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "code": code, **more}}


async def ask(upstreams: Upstreams, where: Target, **options: Any) -> UpstreamResponse:
    return await upstreams.request("POST", where, CHAT, b'{"x": 1}', model=MODEL, **options)


async def served(upstreams: Upstreams, targets: list[Target]) -> tuple[bytes, list[UpstreamError]]:
    """Ask the targets in order as the relay does. Returns the answer, empty if there was none, and the failures."""
    failures: list[UpstreamError] = []
    for where in upstreams.in_order(targets, "", path=CHAT, model=MODEL):
        try:
            with await ask(upstreams, where) as response:
                return await response.read(1 << 20), failures
        except UpstreamError as failure:
            failures.append(failure)
            if not failure.tries_next:
                break
    return b"", failures


def stream(*events: str) -> Script:
    return reply(200, "".join(f"{event}\n\n" for event in events).encode(), SSE)


FAILURES: dict[str, tuple[Script, Kind]] = {
    "silence": ([3.0], Kind.TIMEOUT),
    "silence after the head": ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 3.0], Kind.TIMEOUT),
    "cut before the head": ([HANG_UP], Kind.BROKEN),
    "cut in the head": ([b"HTTP/1.1 200 OK\r\nContent-Le", HANG_UP], Kind.BROKEN),
    "cut in the body": ([b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"choices": [', HANG_UP], Kind.BROKEN),
    "not HTTP": ([b"SSH-2.0-OpenSSH\r\n\r\n", HANG_UP], Kind.BROKEN),
    "a strange encoding": (reply(200, b"xx", "Content-Encoding: br"), Kind.BROKEN),
    "a redirect": (reply(302, b"", "Location: https://elsewhere.example/"), Kind.UNUSABLE),
    "400 for a wrong key": (
        json_reply(400, {"code": "x", "error": "Incorrect API key provided: xa***"}),
        Kind.CREDENTIAL,
    ),
    "401": (json_reply(401, error("invalid_api_key")), Kind.CREDENTIAL),
    "402": (json_reply(402, error(402)), Kind.CREDENTIAL),
    "403": (json_reply(403, error("forbidden")), Kind.CREDENTIAL),
    "404 of the model": (json_reply(404, error("model_not_found", "The model does not exist")), Kind.UNKNOWN_MODEL),
    "404 of the deployment": (json_reply(404, error("DeploymentNotFound", "No deployment")), Kind.UNKNOWN_MODEL),
    "404 of the address": (reply(404, b"<html>not here</html>", "Content-Type: text/html"), Kind.UNUSABLE),
    "405": (reply(405), Kind.UNUSABLE),
    "408": (reply(408), Kind.UNAVAILABLE),
    "409": (reply(409), Kind.UNAVAILABLE),
    "413": (json_reply(413, error("request_too_large")), Kind.TOO_LARGE),
    "425": (reply(425), Kind.UNAVAILABLE),
    "429": (json_reply(429, error("rate_limit_exceeded"), "Retry-After: 7"), Kind.RATE_LIMITED),
    "429 of an empty account": (json_reply(429, error("insufficient_quota")), Kind.CREDENTIAL),
    "498": (reply(498), Kind.UNAVAILABLE),
    "500": (reply(500, b"oops"), Kind.UNAVAILABLE),
    "503": (reply(503), Kind.UNAVAILABLE),
    "529": (
        json_reply(529, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}),
        Kind.UNAVAILABLE,
    ),
    "HTML in a 200": (reply(200, b"\n<!doctype html><p>Sign in", "Content-Type: text/html"), Kind.UNUSABLE),
    "nothing in a 200": (reply(200), Kind.UNUSABLE),
    "blanks alone in a 200": (reply(200, b"\n\n \n"), Kind.UNUSABLE),
    "comments alone in a stream": (stream(": PROCESSING", ": PROCESSING"), Kind.UNUSABLE),
    "an error in a 200": (json_reply(200, error("server_error")), Kind.UNAVAILABLE),
    "an error with a number in a 200": (json_reply(200, error(429)), Kind.RATE_LIMITED),
    "an error of the key in a 200": (json_reply(200, error(401)), Kind.CREDENTIAL),
    "an error text in a 200": (json_reply(200, {"error": "it is on fire"}), Kind.UNAVAILABLE),
    "an error list in a 200": (json_reply(200, [error(503)]), Kind.UNAVAILABLE),
    "an error as first event": (stream(": hello", f"data: {json.dumps(error(502))}"), Kind.UNAVAILABLE),
    "a named error as first event": (
        stream('event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}'),
        Kind.UNAVAILABLE,
    ),
    "a failed response as first event": (
        stream(
            'event: response.failed\ndata: {"type": "response.failed", "response": {"error": {"code": "server_error"}}}'
        ),
        Kind.UNAVAILABLE,
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_second_upstream_answers_when_the_first_fails(name: str) -> None:
    script, kind = FAILURES[name]

    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(script)) as first, listening(Server(OK, OK)) as second:
            targets = [target(first, 1, timeout_s=0.3), target(second, 2)]
            answer, (failure,) = await served(upstreams, targets)
            assert json.loads(answer) == ANSWER
            assert failure.kind is kind
            # It is left alone now, except after a request that only it found too large.
            order = [where.id for where in upstreams.in_order(targets, "", path=CHAT, model=MODEL)]
            assert order == ([1, 2] if kind is Kind.TOO_LARGE else [2, 1])
        upstreams.close()

    run_async(scene())


def test_an_upstream_that_nothing_listens_for_is_passed_over() -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(OK)) as second:
            nobody = replace(target(second, 1), base_url=f"http://127.0.0.1:{free_port()}/v1")
            answer, (failure,) = await served(upstreams, [nobody, target(second, 2)])
            assert json.loads(answer) == ANSWER and failure.kind is Kind.UNREACHABLE
        upstreams.close()

    run_async(scene())


@pytest.mark.parametrize("status", [400, 410, 415, 422, 451])
def test_a_request_that_is_at_fault_is_tried_nowhere_else_and_its_error_is_rebuilt(status: int) -> None:
    told = error("bad_thing", "it is too high", param="temperature", secret_account="org-4711abcd")

    async def scene() -> None:
        upstreams = Upstreams()
        refusal = json_reply(status, told, "OpenAI-Organization: acme")
        async with listening(Server(refusal, OK)) as first, listening(Server(OK)) as second:
            targets = [target(first, 1), target(second, 2)]
            answer, (failure,) = await served(upstreams, targets)
            assert answer == b"" and second.requests == []
            assert (failure.is_client_error, failure.status) == (True, status)
            assert json.loads(failure.body) == {
                "error": {
                    "message": "it is too high",
                    "type": "x",
                    "param": "temperature",
                    "code": "bad_thing",
                }
            }
            # The upstream is not at fault.
            assert upstreams.in_order(targets, "", model=MODEL)[0].id == 1
        upstreams.close()

    run_async(scene())


def test_a_404_of_the_clients_own_id_is_passed_on() -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        told = error("not_found", "Response with id resp_123 not found.", param="previous_response_id")
        async with listening(Server(json_reply(404, told))) as first:
            _, (failure,) = await served(upstreams, [target(first)])
            assert (failure.kind, failure.status) == (Kind.CLIENT, 404)
            assert b"resp_123" in failure.body
        upstreams.close()

    run_async(scene())


@pytest.mark.parametrize("script", [reply(404), json_reply(404, error("x", "no such model or video"))])
def test_a_task_that_is_gone_is_no_fault_of_its_upstream(script: Script) -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(script)) as first:
            with pytest.raises(UpstreamError) as raised:
                await upstreams.request("GET", target(first), "/videos/x")
            assert (raised.value.status, raised.value.is_client_error) == (404, True)
            assert waiting(upstreams, target(first)) == 0
        upstreams.close()

    run_async(scene())


def test_an_answer_that_holds_both_an_error_and_usage_is_left_to_its_reader() -> None:
    document = error(500) | {"usage": {"prompt_tokens": 9}, "choices": []}

    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(json_reply(200, document))) as first:
            answer, failures = await served(upstreams, [target(first)])
            assert (json.loads(answer), failures) == (document, [])
        upstreams.close()

    run_async(scene())


@pytest.mark.parametrize(
    "body",
    [
        b"\n\n\n" + json.dumps(ANSWER).encode(),
        b'data: {"choices": []}\n\n: x\n\ndata: [DONE]\n\n',
        b"\r\n: x\r\n\r\ndata: 1\r\n\r\n",
        b"\xff\xf3\x00binary",
        b"x" * 200_000,
        json.dumps(ANSWER | {"error": None, "padding": "y" * 200_000}).encode(),
    ],
)
def test_an_answer_arrives_whole_after_it_was_judged(body: bytes) -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(reply(200, body))) as first:
            assert await served(upstreams, [target(first)]) == (body, [])
        upstreams.close()

    run_async(scene())


def test_an_error_in_an_encoded_200_is_found() -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        body = gzip.compress(json.dumps(error(503)).encode())
        async with listening(Server(reply(200, body, "Content-Encoding: gzip"))) as first:
            _, (failure,) = await served(upstreams, [target(first)])
            assert failure.kind is Kind.UNAVAILABLE
        upstreams.close()

    run_async(scene())


def test_the_first_event_of_a_stream_is_not_held_back_for_the_second() -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        async with listening(Server([head + b"data: 1\n\n", 1.5, b"data: 2\n\n", HANG_UP])) as first:
            started = time.monotonic()
            with await ask(upstreams, target(first)) as response:
                chunks = aiter(response.chunks())
                assert await anext(chunks) == b"data: 1\n\n"
                assert time.monotonic() - started < 1.2
                assert [chunk async for chunk in chunks] == [b"data: 2\n\n"]
        upstreams.close()

    run_async(scene())


# -- Cool-down ----------------------------------------------------------------------------------------------------


def waiting(upstreams: Upstreams, where: Target, model: str = MODEL) -> float:
    """Seconds for which an upstream is left alone for a model."""
    now = time.monotonic()
    backoffs = [upstreams._backoffs.get((where.id, name)) for name in ("", model)]
    return max([backoff.until - now for backoff in backoffs if backoff is not None], default=0.0)


@pytest.mark.parametrize(
    ("script", "least_s", "most_s", "other_model_s"),
    [
        (reply(500), 4, 5, 5),
        (reply(429), 4, 5, 0),
        (reply(429, b"", "Retry-After: 30"), 29, 30, 0),
        (reply(429, b"", "Retry-After: 30", "retry-after-ms: 1500"), 1, 1.5, 0),
        (reply(503, b"", "Retry-After: 999999999"), 3500, 3600, 3600),
        (json_reply(404, error("model_not_found")), 4, 5, 0),
        (json_reply(401, error("invalid_api_key")), 590, 600, 600),
        (json_reply(429, error("insufficient_quota"), "Retry-After: 1"), 590, 600, 600),
        (json_reply(400, error("x")), 0, 0, 0),
    ],
)
def test_an_upstream_is_left_alone_as_long_as_its_failure_says(
    script: Script, least_s: float, most_s: float, other_model_s: float
) -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(script)) as first:
            where = target(first)
            await served(upstreams, [where])
            assert least_s <= waiting(upstreams, where) <= most_s
            assert waiting(upstreams, where, "another") == pytest.approx(other_model_s, abs=1)
        upstreams.close()

    run_async(scene())


def test_requests_that_fail_together_count_once_and_a_success_ends_the_wait() -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(reply(500), repeats=True)) as first:
            where = target(first)
            await asyncio.gather(*(served(upstreams, [where]) for _ in range(20)))
            assert 4 <= waiting(upstreams, where) <= 5
            first.scripts[0] = OK
            await served(upstreams, [where])
            assert waiting(upstreams, where) == 0
        upstreams.close()

    run_async(scene())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "12"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1" * 400}, None),
        ({"retry-after": "Mon, 99 Foo 2026"}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_milliseconds(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_is_read_as_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)

    assert retry_after({"retry-after": date}) == pytest.approx(90, abs=5)


def test_a_failure_that_passes_by_itself_is_retried_as_often_as_the_upstream_says() -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(reply(503), reply(503), OK)) as first:
            once, twice = target(first, profile=profile_of("openai", {"retries": 1})), target(first)
            with pytest.raises(UpstreamError):
                await ask(upstreams, twice)
            assert len(first.requests) == 1
            with await ask(upstreams, once) as response:
                assert json.loads(await response.read(1000)) == ANSWER
            assert len(first.requests) == 3
        upstreams.close()

    run_async(scene())


@pytest.mark.parametrize("options", [{"is_fresh": True}, {}])
def test_a_task_or_a_request_that_broke_off_is_never_sent_twice(options: dict[str, Any]) -> None:
    script: Script = reply(503) if options else [b"HTTP/1.1 200", HANG_UP]

    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(script, OK)) as first:
            with pytest.raises(UpstreamError):
                await ask(upstreams, target(first, profile=profile_of("openai", {"retries": 3})), **options)
            assert len(first.requests) == 1
        upstreams.close()

    run_async(scene())


def failed(kind: Kind, retry_after_s: float | None = None) -> UpstreamError:
    return UpstreamError(kind.value, kind=kind, retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("failures", "number"),
    [
        ([failed(Kind.RATE_LIMITED, 30), failed(Kind.RATE_LIMITED, 10), failed(Kind.RATE_LIMITED, 20)], 1),
        ([failed(Kind.RATE_LIMITED, 30), failed(Kind.RATE_LIMITED)], 1),
        ([failed(Kind.UNAVAILABLE), failed(Kind.RATE_LIMITED, 10)], 0),
        ([failed(Kind.UNKNOWN_MODEL), failed(Kind.RATE_LIMITED, 10)], 1),
        ([failed(Kind.TOO_LARGE), failed(Kind.UNKNOWN_MODEL)], 1),
        ([failed(Kind.CREDENTIAL), failed(Kind.CLIENT)], 1),
        ([failed(Kind.UNKNOWN_MODEL), failed(Kind.UNREACHABLE)], 1),
    ],
)
def test_the_failure_to_answer_with_is_the_one_that_helps_most(failures: list[UpstreamError], number: int) -> None:
    assert final_failure(failures) is failures[number]


def test_without_any_upstream_the_failure_is_the_operators() -> None:
    assert not final_failure([]).is_client_error


# -- Order --------------------------------------------------------------------------------------------------------


def several(*weights: int, priority: int = 0) -> list[Target]:
    server = Server()
    return [target(server, number, weight=weight, priority=priority) for number, weight in enumerate(weights, 1)]


def first_of(targets: list[Target], key: str) -> int:
    return Upstreams().in_order(targets, key)[0].id


def test_twenty_conversations_over_two_accounts_stay_where_they_are() -> None:
    keys = [f"member-7:conversation-{number}" for number in range(20)]
    chosen = {key: first_of(several(1, 1), key) for key in keys}

    assert set(chosen.values()) == {1, 2}
    # Another process, another order in the database, another upstream that comes last.
    for _ in range(5):
        assert {key: first_of(several(1, 1)[::-1], key) for key in keys} == chosen


def test_a_new_upstream_takes_over_its_share_and_no_other_conversation_moves() -> None:
    keys = [str(number) for number in range(2000)]
    before = {key: first_of(several(1, 1), key) for key in keys}
    after = {key: first_of(several(1, 1, 1), key) for key in keys}

    moved = {key for key in keys if before[key] != after[key]}
    assert {after[key] for key in moved} == {3}
    assert 550 < len(moved) < 790


def test_conversations_are_shared_by_weight_within_the_lowest_priority_number() -> None:
    targets = [*several(1, 3), target(Server(), 9, priority=5, weight=100)]
    counts = Counter(first_of(targets, str(number)) for number in range(4000))

    assert set(counts) == {1, 2} and 2800 < counts[2] < 3200


def test_without_a_key_requests_are_spread() -> None:
    upstreams = Upstreams()

    assert {upstreams.in_order(several(1, 1), "")[0].id for _ in range(50)} == {1, 2}


def test_an_upstream_that_failed_comes_after_those_of_any_priority_until_it_recovers() -> None:
    upstreams, targets = Upstreams(), [*several(1), target(Server(), 2, priority=5)]
    upstreams.broke_off(targets[0], MODEL, HttpError("closed"))

    assert [where.id for where in upstreams.in_order(targets, "k", model=MODEL)] == [2, 1]


def test_a_failure_of_one_model_leaves_the_others_of_its_upstream_in_order() -> None:
    upstreams, targets = Upstreams(), [*several(1), target(Server(), 2, priority=5)]
    upstreams.fault_in_answer(targets[0], MODEL, Fault(code="rate_limit_exceeded"))

    assert [where.id for where in upstreams.in_order(targets, "k", model=MODEL)] == [2, 1]
    assert [where.id for where in upstreams.in_order(targets, "k", model="another")] == [1, 2]


def test_only_upstreams_that_speak_the_endpoint_are_asked() -> None:
    deepseek, openai = several(1, 1)
    targets = [replace(deepseek, profile=KINDS["deepseek"]), openai]
    order: Callable[[str], list[int]] = lambda path: [  # noqa: E731
        where.id for where in Upstreams().in_order(targets, "k", path=path)
    ]

    assert (set(order("/chat/completions")), order("/responses"), order("/rerank")) == ({1, 2}, [2], [])


# -- Addresses, headers, names ------------------------------------------------------------------------------------


async def sent(where: Callable[[Server], Target], path: str = CHAT, **options: Any) -> Server:
    upstreams = Upstreams()
    async with listening(Server(OK)) as server:
        with await upstreams.request("POST", where(server), path, b"{}", model=MODEL, **options):
            pass
    upstreams.close()
    return server


@pytest.mark.parametrize(
    ("kind", "auth"),
    [
        ("openai", ("authorization", "Bearer sk-operator-secret")),
        ("azure", ("api-key", "sk-operator-secret")),
        ("anthropic", ("x-api-key", "sk-operator-secret")),
    ],
)
def test_the_credential_is_sent_in_the_kinds_header_alone(kind: str, auth: tuple[str, str]) -> None:
    server = run_async(sent(lambda server: target(server, profile=KINDS[kind])))

    name, value = auth
    assert server.header(name) == value
    assert server.requests[0].count(b"sk-operator-secret") == 1


def test_azure_has_the_deployment_in_the_path_and_the_version_in_the_query() -> None:
    def azure(server: Server) -> Target:
        query = (("api-version", "2024-10-21"),)
        return target(server, profile=KINDS["azure"], models={MODEL: "my deployment"}, query=query)

    server = run_async(sent(azure))

    expected = b"POST /v1/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n"
    assert server.requests[0].startswith(expected)


@pytest.mark.parametrize(
    ("kind", "base", "path", "url"),
    [
        ("openai", "https://a.example/v1/", CHAT, "https://a.example/v1/chat/completions"),
        ("openai", "https://a.example/v1", "/videos/x/content?a=b", "https://a.example/v1/videos/x/content?a=b"),
        ("azure", "https://r.example", CHAT, "https://r.example/openai/deployments/dep/chat/completions"),
        ("azure", "https://r.example/openai", CHAT, "https://r.example/openai/deployments/dep/chat/completions"),
        (
            "azure",
            "https://r.example/openai/deployments/",
            CHAT,
            "https://r.example/openai/deployments/dep/chat/completions",
        ),
        ("azure", "https://r.example", "/responses", "https://r.example/openai/responses"),
        ("azure", "https://r.example/openai/v1", CHAT, "https://r.example/openai/v1/chat/completions"),
        ("azure", "https://r.example/openai/v1", "/responses", "https://r.example/openai/v1/responses"),
        ("azure-v1", "https://r.example", CHAT, "https://r.example/openai/v1/chat/completions"),
        ("azure-v1", "https://r.example/openai/v1/", CHAT, "https://r.example/openai/v1/chat/completions"),
    ],
)
def test_addresses_follow_the_kind_however_much_of_them_the_base_url_has(
    kind: str, base: str, path: str, url: str
) -> None:
    where = replace(target(Server()), base_url=base, profile=KINDS[kind], models={MODEL: "dep"})

    assert where.url(path, MODEL) == url


def test_headers_of_the_operator_replace_the_kinds_and_the_clients() -> None:
    def anthropic(server: Server) -> Target:
        headers = (("Anthropic-Version", "2099-01-01"), ("X-Team", "blue"))
        return target(server, profile=KINDS["anthropic"], headers=headers)

    server = run_async(sent(anthropic, headers=(("x-team", "red"), ("anthropic-beta", "a,b"))))

    names = ("anthropic-version", "x-team", "anthropic-beta")
    assert [server.header(name) for name in names] == ["2099-01-01", "blue", "a,b"]
    assert server.requests[0].lower().count(b"x-team") == 1


def test_a_line_break_in_a_header_is_not_sent() -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(OK)) as first:
            with pytest.raises(UpstreamError, match="line break"):
                await ask(upstreams, target(first, headers=(("x-a", "b\r\nx-evil: 1"),)))
            assert first.connections == 0

    run_async(scene())


def test_a_model_goes_by_the_upstreams_name_and_errors_by_the_public_one() -> None:
    def renamed(server: Server) -> Target:
        return target(server, models={MODEL: "acme-dep-7"})

    assert renamed(Server()).model_name(MODEL) == "acme-dep-7"
    assert renamed(Server()).model_name("other") == "other"

    async def scene() -> None:
        upstreams = Upstreams()
        told = error("x", "acme-dep-7 takes no pictures")
        async with listening(Server(json_reply(400, told))) as first:
            with pytest.raises(UpstreamError) as raised:
                await ask(upstreams, renamed(first))
            assert json.loads(raised.value.body)["error"]["message"] == f"{MODEL} takes no pictures"
        upstreams.close()

    run_async(scene())


def test_a_request_goes_through_the_upstreams_proxy() -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(OK), "") as proxy:
            where = replace(target(proxy), base_url="http://upstream.example/v1", proxy=proxy.url)
            with await ask(upstreams, where) as response:
                assert json.loads(await response.read(1000)) == ANSWER
            assert proxy.requests[0].startswith(b"POST http://upstream.example/v1/chat/completions HTTP/1.1\r\n")
        upstreams.close()

    run_async(scene())


@pytest.mark.parametrize(
    "line",
    ["X-Request-ID: abc", "request-id: abc", "x-generation-id: abc", "apim-request-id: abc", "CF-Ray: abc"],
)
def test_the_upstreams_id_of_an_exchange_is_kept_of_answers_and_failures(line: str) -> None:
    async def scene() -> None:
        upstreams = Upstreams()
        async with listening(Server(json_reply(200, ANSWER, line), json_reply(500, {}, line))) as first:
            with await ask(upstreams, target(first)) as response:
                assert response.request_id == "abc"
            with pytest.raises(UpstreamError) as raised:
                await ask(upstreams, target(first))
            assert raised.value.request_id == "abc"
        upstreams.close()

    run_async(scene())


def test_a_refused_credential_is_an_alert_and_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> str:
        upstreams = Upstreams()
        told = error("invalid_api_key", "Incorrect API key provided: sk-operator-secret of org-12345678.")
        async with listening(Server(json_reply(401, told))) as first:
            with pytest.raises(UpstreamError) as raised:
                await ask(upstreams, target(first))
            upstreams.close()
            return str(raised.value) + repr(target(first)) + raised.value.body.decode()

    shown = run_async(scene())
    logged = caplog.text

    assert "upstream_refuses_credential" in logged and "upstream-1" in logged
    assert "operator-secret" not in logged + shown and "12345678" not in logged + shown
