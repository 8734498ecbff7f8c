"""How an upstream fails, and the odd habits of answers that are right."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass

DOWN = {"error": {"message": "The provider is down.", "type": "server_error", "code": 502}}
LARGE = "x" * 2_000_000


@dataclass(frozen=True)
class Fault:
    """An answer instead of the right one. It is free. With status 0 the connection is closed without one."""

    status: int = 200
    content_type: str = "application/json"
    body: bytes = b""
    retry_after: str = ""
    # Whether it answers only streams.
    is_stream: bool = False


def _event(content: object, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(content)}\n\n".encode()


EVENTS = "text/event-stream"
FAULTS = {
    "closed": Fault(0),
    "wrong credential": Fault(401, body=json.dumps(DOWN).encode()),
    "not found": Fault(404, body=json.dumps({"error": {"code": "model_not_found", "message": "?"}}).encode()),
    "timed out": Fault(408),
    "rate limited": Fault(429, body=json.dumps(DOWN).encode(), retry_after="7"),
    "internal": Fault(500),
    "unavailable": Fault(503, "text/html", b"<html>Service Unavailable</html>"),
    "overloaded": Fault(529),
    "empty": Fault(),
    "blank": Fault(body=b"\n\n  \n"),
    "html": Fault(200, "text/html; charset=utf-8", b"<!doctype html><html>Sign in</html>"),
    "error body": Fault(body=json.dumps(DOWN).encode()),
    "error text": Fault(body=json.dumps({"error": "The provider is down.", "code": "down"}).encode()),
    "error event": Fault(200, EVENTS, _event(DOWN) + b"data: [DONE]\n\n", is_stream=True),
    "named error event": Fault(
        200, EVENTS, _event({"type": "error", "error": {"type": "overloaded_error"}}, "error"), is_stream=True
    ),
    "error after a comment": Fault(200, EVENTS, b": PROCESSING\n\n" + _event(DOWN), is_stream=True),
    "empty stream": Fault(200, EVENTS, is_stream=True),
}
FAILED_RESPONSE = Fault(
    200,
    EVENTS,
    _event({"type": "response.created", "response": {"status": "in_progress", "usage": None}}, "response.created")
    + _event(
        {"type": "response.failed", "response": {"status": "failed", "error": {"code": "x"}, "usage": None}},
        "response.failed",
    ),
    is_stream=True,
)
QUIRKS = ("", "label", "gzip", "zeros", "large", "crlf", "no end", "bom", "split")


def with_quirk(quirk: str, events: Iterator[bytes]) -> Iterator[bytes]:
    """The same stream as another server would write it."""
    for place, event in enumerate(events):
        changed = event
        match quirk:
            case "crlf":
                changed = event.replace(b"\n", b"\r\n")
            case "bom" if place == 0:
                changed = b"\xef\xbb\xbf" + event
            case "zeros" if b"[DONE]" in event:
                zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
                changed = _event({"object": "chat.completion.chunk", "choices": [], "usage": zero}) + event
            case "large" if place == 0:
                choice = {"index": 0, "delta": {"content": LARGE}, "text": LARGE, "finish_reason": None}
                changed = _event({"object": "chat.completion.chunk", "choices": [choice]}) + event
            case "no end" if b"[DONE]" in event:
                return
        if quirk == "split":
            yield from (changed[at : at + 7] for at in range(0, len(changed), 7))
        else:
            yield changed


def zipped(events: Iterator[bytes]) -> bytes:
    return gzip.compress(b"".join(events))
