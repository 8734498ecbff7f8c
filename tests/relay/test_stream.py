"""Forwarding server-sent events: every format of usage, with events split at any byte."""

from __future__ import annotations

import json

import pytest

from relay.pricing import Usage
from relay.stream import EventStream

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
HELLO = {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def event(payload: object) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
USAGE_EVENTS = [
    {"choices": [], "usage": USAGE},
    # LiteLLM sends an empty choice with the usage.
    {"choices": [{"index": 0, "delta": {}}], "usage": USAGE},
    {"choices": [{"index": 0}], "usage": USAGE},
    {"choices": [{"index": 0, "text": "", "finish_reason": None}], "usage": USAGE},
]


def through(stream: bytes, *, shows_usage: bool, size: int) -> tuple[bytes, EventStream]:
    events = EventStream(shows_usage=shows_usage)
    out = b"".join(events.feed(stream[start : start + size]) for start in range(0, len(stream), size))
    return out + events.finish(), events


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("usage_event", USAGE_EVENTS)
def test_an_event_with_only_usage_is_withheld_unless_requested(usage_event: object, size: int) -> None:
    text = event(HELLO | {"usage": None}) + event(END)
    stream = text + event(usage_event) + DONE

    for shows_usage, expected in ((True, stream), (False, text + DONE)):
        out, events = through(stream, shows_usage=shows_usage, size=size)
        assert out == expected
        assert (events.usage, events.text_bytes) == (Usage(7, 0, 3), 5)


def test_usage_is_removed_from_an_event_that_also_has_a_choice() -> None:
    out, events = through(event(END | {"usage": USAGE}) + DONE, shows_usage=False, size=9)

    payload, done = out.removeprefix(b"data: ").split(b"\n\n", 1)
    assert (json.loads(payload), done) == (END, DONE)
    assert events.usage == Usage(7, 0, 3)


def test_the_usage_of_the_responses_api_passes_unchanged() -> None:
    payload = {"type": "response.completed", "response": {"usage": {"input_tokens": 7, "output_tokens": 3}}}
    stream = b"event: response.completed\n" + event(payload)

    out, events = through(stream, shows_usage=True, size=11)

    assert out == stream and events.usage == Usage(7, 0, 3)
