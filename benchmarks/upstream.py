"""A mock upstream that costs little CPU time, the same for all gateways: python -m benchmarks.upstream --port P

It answers every POST with a chat completion or, if the body asks for it, a stream of 20 chunks, usage and [DONE]. With
`pace=MS` in the body, chunks are that many milliseconds apart; otherwise each is written in the next turn of the event
loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from importlib import import_module
from typing import Any

# Only the tools' environment (benchmarks/peers.py) has both, so mypy cannot import them.
httptools = import_module("httptools")
uvloop = import_module("uvloop")

CHUNKS = 20
WORDS = "The quick brown fox jumps over the lazy dog, who sleeps on as if nothing at all had happened here today."
USAGE = {"prompt_tokens": 24, "completion_tokens": CHUNKS, "total_tokens": 24 + CHUNKS}
_IS_STREAM = re.compile(rb'"stream":\s*true')
_PACE = re.compile(rb"pace=([0-9]+)")


def whole() -> bytes:
    message = {"role": "assistant", "content": WORDS}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = json.dumps({**_head("chat.completion"), "choices": [choice], "usage": USAGE}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def stream() -> list[bytes]:
    """The writes of a response: its head with the first event, then one event each, with HTTP's chunked encoding."""
    words = WORDS.split()
    deltas: list[dict[str, Any]] = [
        {"delta": {"content": f"{word} "}, "logprobs": None, "finish_reason": None} for word in words[:CHUNKS]
    ]
    deltas[-1]["finish_reason"] = "stop"
    events: list[dict[str, Any]] = [{"choices": [{"index": 0, **delta}]} for delta in deltas]
    events.append({"choices": [], "usage": USAGE})
    texts = [json.dumps({**_head("chat.completion.chunk"), **event}) for event in events]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [_chunk(f"data: {text}\n\n".encode()) for text in texts]
    return [head + pieces[0], *pieces[1:], _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-0123456789abcdef", "object": kind, "created": 1_700_000_000, "model": "bench"}


def _chunk(piece: bytes) -> bytes:
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


WHOLE = whole()
STREAM = stream()


class UpstreamProtocol(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        if not _IS_STREAM.search(body):
            self.transport.write(WHOLE)
            return
        pace = _PACE.search(body)
        self._stream(0, int(pace[1]) / 1000 if pace else 0.0)

    def _stream(self, place: int, pace_s: float) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(STREAM[place])
        if place + 1 == len(STREAM):
            return
        # Usage and [DONE] follow the last chunk without a pause, as providers send them.
        if pace_s and place + 1 < CHUNKS:
            self.loop.call_later(pace_s, self._stream, place + 1, pace_s)
        else:
            self.loop.call_soon(self._stream, place + 1, pace_s)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(UpstreamProtocol, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    uvloop.run(serve(options.parse_args().port))
