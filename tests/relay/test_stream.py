"""Forwarding server-sent events: every dialect's usage, what is withheld, and events cut at any byte."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.pricing import Usage, cost_nanos
from relay.sse import MAX_EVENT_BYTES
from relay.stream import Events
from tests.relay import vectors
from tests.relay.answer_dialects import CHAT, PARTLY_TOLD, REASONING
from tests.relay.stream_dialects import COUNTS, DIALECTS, DONE, HELLO, WITHHELD, event, responses
from tests.relay.test_answers import JUNK, read

pytestmark = pytest.mark.any_database


def through(
    stream: bytes, *, path: str = CHAT, shows_usage: bool = False, size: int = 10**9, **more: Any
) -> tuple[bytes, Events]:
    events = Events(path=path, shows_usage=shows_usage, ask_facts={}, **more)
    out = b"".join(events.feed(stream[start : start + size]) for start in range(0, len(stream), size))
    return out + events.finish(), events


def counts(events: Events) -> dict[str, int] | None:
    return None if events.answer.usage is None else events.answer.usage.as_counts()


# -- The worked examples ----------------------------------------------------------------------------------------------


def stream_of(vector: vectors.Vector) -> bytes:
    if "raw_sse" in vector:
        return str(vector["raw_sse"]).encode()
    return b"".join(DONE if "done" in each else event(each["data"], each.get("event", "")) for each in vector["events"])


@pytest.mark.parametrize("size", [1, 10**9])
@pytest.mark.parametrize("shows_usage", [True, False])
@pytest.mark.parametrize(
    "vector",
    [each for each in vectors.vectors("charge") if "events" in each or "raw_sse" in each],
    ids=vectors.identify,
)
def test_an_example_is_read_and_charged_exactly(vector: vectors.Vector, shows_usage: bool, size: int) -> None:
    path = vector["endpoint"].removeprefix("/v1")

    out, events = through(stream_of(vector), path=path, shows_usage=shows_usage, size=size)

    expected, usage = vector["expected"], events.answer.usage or Usage()
    rate = vectors.price_list(vector).rate(input_tokens=usage.input_tokens, facts=events.answer.facts)
    assert vectors.without_reasoning(usage) == vectors.expected_usage(vector)
    assert cost_nanos(rate, usage) == expected["cost_nanos"]
    assert (events.answer.error is not None) == expected.get("is_error", False)
    assert (out == stream_of(vector)) == (shows_usage or path != CHAT)
    assert events.is_ended


# -- What a client that did not ask for usage gets --------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 10**9])
@pytest.mark.parametrize(("events", "expected"), [row[1:] for row in WITHHELD], ids=[row[0] for row in WITHHELD])
def test_usage_is_withheld_and_all_else_passes(events: list[bytes], expected: list[bytes], size: int) -> None:
    out, read = through(b"".join(events), size=size)

    assert out == b"".join(expected)
    assert counts(read) == COUNTS


@pytest.mark.parametrize("size", [1, 7, 10**9])
@pytest.mark.parametrize("events", [row[1] for row in WITHHELD], ids=[row[0] for row in WITHHELD])
def test_a_client_that_asked_gets_the_very_bytes(events: list[bytes], size: int) -> None:
    out, read = through(b"".join(events), shows_usage=True, size=size)

    assert out == b"".join(events)
    assert counts(read) == COUNTS


# -- Usage, text and end of every dialect -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10**9])
@pytest.mark.parametrize(
    ("path", "stream", "expected", "text", "is_ended"), [row[1:] for row in DIALECTS], ids=[row[0] for row in DIALECTS]
)
def test_a_dialect_is_read(
    path: str, stream: bytes, expected: dict[str, int] | None, text: int, is_ended: bool, size: int
) -> None:
    out, events = through(stream, path=path, shows_usage=True, size=size)

    assert out == stream
    assert (counts(events), events.text_bytes, events.is_ended) == (expected, text, is_ended)
    assert events.answer.error is None


@pytest.mark.parametrize(("path", "body"), [row[1:3] for row in REASONING], ids=[row[0] for row in REASONING])
def test_reasoning_is_read_from_a_stream_as_from_a_whole_answer(path: str, body: dict[str, Any]) -> None:
    assert through(event(HELLO) + event(body) + DONE, path=path)[1].answer.usage == read(body, path).usage


@pytest.mark.parametrize(
    ("path", "usage", "missing", "expected"), [row[1:] for row in PARTLY_TOLD], ids=[row[0] for row in PARTLY_TOLD]
)
def test_a_stream_says_which_part_of_its_usage_is_missing(
    path: str, usage: dict[str, Any], missing: str, expected: dict[str, int]
) -> None:
    answer = through(event(HELLO) + event({"usage": usage}) + DONE, path=path)[1].answer

    assert (answer.missing_input, answer.missing_output) == ("input" in missing, "output" in missing)
    assert answer.usage_with(input_tokens=500, output_tokens=20).as_counts() == expected


def test_the_echoed_prompt_is_not_counted() -> None:
    stream = event({"choices": [{"text": "prompt and "}]}) + event({"choices": [{"text": "answer"}]})

    assert through(stream, path="/completions", echo_bytes=11)[1].text_bytes == 6


def test_facts_of_any_event_are_read() -> None:
    tiers: list[dict[str, Any]] = [{"service_tier": None}, {"service_tier": "auto"}, {"service_tier": "priority"}]
    stream = b"".join(event(HELLO | {"model": "m-2026"} | tier) for tier in tiers)

    answer = through(stream)[1].answer

    assert (answer.model, answer.facts) == ("m-2026", {"service_tier": "priority"})


def test_the_id_and_cost_of_a_stream_are_read() -> None:
    started = responses("response.created", response={"id": "resp_1", "object": "response", "usage": None})
    ended = responses("response.completed", response={"usage": {"input_tokens": 1, "output_tokens": 1, "cost": 0.5}})

    answer = through(started + ended, path="/responses")[1].answer

    assert (answer.stored_id, answer.told_nanos) == ("resp_1", 500_000_000)


@pytest.mark.parametrize(
    ("store", "is_whole", "expected"),
    [
        (True, True, ("resp_1", "rs_1", "msg_1", "msg_2")),
        (None, True, ("resp_1", "rs_1", "msg_1", "msg_2")),
        (True, False, ("resp_1", "rs_1", "msg_1")),
        (False, True, ()),
    ],
)
def test_the_ids_of_a_streams_items_are_told(store: bool | None, is_whole: bool, expected: tuple[str, ...]) -> None:
    kept = {} if store is None else {"store": store}
    head = {"id": "resp_1", "object": "response", **kept}
    stream = responses("response.created", response=head | {"output": []})
    for name in ("rs_1", "msg_1"):
        stream += responses("response.output_item.added", item={"id": f"{name}_unfinished"})
        stream += responses("response.output_item.done", item={"id": name})
    if is_whole:
        output = [{"id": name} for name in ("rs_1", "msg_1", "msg_2")]
        stream += responses("response.completed", response=head | {"output": output})

    assert through(stream, path="/responses")[1].answer.stored_ids == expected


# -- Errors -----------------------------------------------------------------------------------------------------------

OVERLOADED = event({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, "error")


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (event({"error": {"code": 503, "message": "no"}}), (503, "503", "no")),
        (OVERLOADED, (529, "overloaded_error", "no")),
        (b"event: error\ndata: out of memory\n\n", (502, "upstream_error", "out of memory")),
        (b'event: error\ndata: {"message": "no"}\n\n', (502, "upstream_error", "no")),
        (event({"type": "error", "code": "server_error", "message": "no"}), (502, "server_error", "no")),
        (
            responses(
                "response.failed",
                response={"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "no"}},
            ),
            (429, "rate_limit_exceeded", "no"),
        ),
        (
            event(
                {
                    "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
                    "error": {"code": 502, "message": "no"},
                }
            ),
            (502, "502", "no"),
        ),
        (
            event({"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}),
            (502, "upstream_error", "The upstream stopped with an error."),
        ),
        (event({"detail": "no"}), (502, "upstream_error", "no")),
    ],
)
@pytest.mark.parametrize("before", [b"", event(HELLO), b": c\n\n" + event({"type": "ping"})])
def test_an_error_is_told_wherever_it_stands(before: bytes, stream: bytes, expected: tuple[int, str, str]) -> None:
    out, events = through(before + stream + event({"error": "a later one"}), shows_usage=True)

    assert events.answer.error == expected
    assert out.startswith(before + stream)


def test_a_stream_is_judged_by_its_first_telling_event() -> None:
    events = Events(path=CHAT, shows_usage=True, ask_facts={})
    judged = []
    for chunk in (
        b": c\n\n",
        b"\n\n",
        b"event: x\n\n",
        event({"type": "ping"}, "ping"),
        OVERLOADED[:30],
        OVERLOADED[30:],
    ):
        events.feed(chunk)
        judged.append(events.is_judged)

    assert judged == [False, False, False, False, False, True]


def test_an_event_that_is_too_large_ends_the_stream() -> None:
    whole = event(HELLO)
    events = Events(path=CHAT, shows_usage=True, ask_facts={})

    out = [
        events.feed(whole + b"data: "),
        *(events.feed(b"x" * 2**20) for _ in range(33)),
        events.feed(whole),
        events.finish(),
    ]

    assert b"".join(out) == whole
    assert (events.answer.error[1], events.text_bytes, events.is_ended) == ("event_too_large", 5, False)


@pytest.mark.parametrize("chunk_bytes", [16 * 1024, 10**9])
def test_an_event_of_the_largest_size_passes_in_linear_time(chunk_bytes: int) -> None:
    stream = event({"choices": [{"index": 0, "delta": {"content": "x" * (MAX_EVENT_BYTES - 100)}}]})
    started = time.process_time()

    out, events = through(stream, size=chunk_bytes)

    # Quadratic work takes minutes.
    assert time.process_time() - started < 10
    assert out == stream and events.text_bytes == MAX_EVENT_BYTES - 100


@pytest.mark.parametrize("stream", [b"", b": c\n\n", b"\n\n", DONE, b": c\n\n" + DONE, event({"type": "ping"})])
def test_a_stream_that_tells_nothing_is_an_error(stream: bytes) -> None:
    out, events = through(stream)

    assert out == stream
    assert (events.answer.error[1], events.answer.usage, events.answer.has_output) == ("empty_answer", None, False)


@pytest.mark.parametrize(
    ("first_bytes", "expected"),
    [
        (b"data: {}", True), (b"data:{}", True), (b"d", True), (b": c", True), (b"event: x", True), (b"id: 1", True),
        (b"retry: 5", True), (b"\xef\xbb\xbfdata:", True), (b"\r\n\ndata:", True),
        (b"{", False), (b"  {", False), (b"<html>", False), (b"", False), (b"\n\n", False), (b"date", False),
    ],
)  # fmt: skip
def test_a_stream_is_told_by_its_first_bytes(first_bytes: bytes, expected: bool) -> None:
    assert Events.looks_like(first_bytes) is expected


# -- Whatever comes, cut wherever -------------------------------------------------------------------------------------

PARTS = [part for row in WITHHELD for part in row[1]] + [row[2] for row in DIALECTS] + [OVERLOADED]
PARTS += [b"\n", b"\r", b"\r\n", b"\n\r", b":", b"data", b"data:", b"event: error\n", b"\xef\xbb\xbf", b"junk", DONE]


def described(events: Events) -> object:
    return (events.answer, events.text_bytes, events.is_ended, events.is_judged)


@given(st.lists(st.sampled_from(PARTS), max_size=5), st.lists(st.integers(0, 1500), max_size=6), st.booleans())
def test_any_cut_gives_the_same_bytes_and_the_same_answer(
    parts: list[bytes], cuts: list[int], shows_usage: bool
) -> None:
    stream = b"".join(parts)
    borders = [0, *sorted(cuts), len(stream)]
    events = Events(path=CHAT, shows_usage=shows_usage, ask_facts={})
    chunks = [stream[start:end] for start, end in pairwise(borders)]
    out = b"".join(map(events.feed, chunks)) + events.finish()

    whole, expected = through(stream, shows_usage=shows_usage)
    each, single = through(stream, shows_usage=shows_usage, size=1)

    assert (out, described(events)) == (whole, described(expected)) == (each, described(single))
    assert not shows_usage or whole == stream


@given(st.lists(JUNK, max_size=4), st.booleans())
def test_no_event_raises(payloads: list[object], shows_usage: bool) -> None:
    stream = b"".join(map(event, payloads))

    out, events = through(stream, shows_usage=shows_usage)

    assert events.answer is not None and len(out) <= len(stream)


@pytest.mark.parametrize("depth", [100, 900, *range(960, 1000), 100_000])
def test_no_depth_raises(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    stream = b'data: {"error":' + nested + b',"us\\u0061ge":{"prompt_tokens":1,"completion_tokens":1}}\n\n'

    assert through(stream)[1].answer is not None


@given(st.binary(max_size=80))
def test_no_bytes_raise(stream: bytes) -> None:
    assert through(b"data: " + stream)[1].answer is not None
