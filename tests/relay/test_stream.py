"""EventStream on their way through: every way of telling usage, however the bytes are cut."""

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
ALONE = [
    {"choices": [], "usage": USAGE},
    # LiteLLM puts an empty choice beside it.
    {"choices": [{"index": 0, "delta": {}}], "usage": USAGE},
    {"choices": [{"index": 0}], "usage": USAGE},
    {"choices": [{"index": 0, "text": "", "finish_reason": None}], "usage": USAGE},
]


def through(stream: bytes, *, shows_usage: bool, size: int) -> tuple[bytes, EventStream]:
    events = EventStream(shows_usage=shows_usage)
    out = b"".join(events.feed(stream[start : start + size]) for start in range(0, len(stream), size))
    return out + events.finish(), events


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("alone", ALONE)
def test_usage_that_comes_alone_is_withheld_unless_asked_for(alone: object, size: int) -> None:
    text = event(HELLO | {"usage": None}) + event(END)
    stream = text + event(alone) + DONE

    for shows_usage, expected in ((True, stream), (False, text + DONE)):
        out, events = through(stream, shows_usage=shows_usage, size=size)
        assert out == expected
        assert (events.usage, events.text_bytes) == (Usage(7, 0, 3), 5)


def test_usage_beside_text_is_cut_out_and_the_text_stays() -> None:
    out, events = through(event(END | {"usage": USAGE}) + DONE, shows_usage=False, size=9)

    told, done = out.removeprefix(b"data: ").split(b"\n\n", 1)
    assert (json.loads(told), done) == (END, DONE)
    assert events.usage == Usage(7, 0, 3)


def test_the_usage_of_a_response_passes_untouched() -> None:
    told = {"type": "response.completed", "response": {"usage": {"input_tokens": 7, "output_tokens": 3}}}
    stream = b"event: response.completed\n" + event(told)

    out, events = through(stream, shows_usage=True, size=11)

    assert out == stream and events.usage == Usage(7, 0, 3)
