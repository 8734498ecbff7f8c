"""An upstream account that keeps what it answers, as OpenAI's Responses API does, and knows no item of another."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOOL_CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Bern"}'}
WORDS = {"type": "output_text", "text": "It is sunny.", "annotations": []}
MESSAGE = {"type": "message", "role": "assistant", "content": [WORDS]}
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 30,
}


class Account(ThreadingHTTPServer):
    """Calls a tool if the request has tools and no result of one; else it says a few words.

    `asked` are the bodies received, `missing` the ids that somebody asked it for and that it does not have.
    """

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.asked: list[dict[str, Any]] = []
        self.missing: list[str] = []
        self._kept: set[str] = set()

    @contextmanager
    def serving(self) -> Iterator[Account]:
        thread = Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """A response, or an error."""
        self.asked.append(body)
        items = body["input"] if isinstance(body["input"], list) else []
        pointed = [item["id"] for item in items if item.get("type") == "item_reference"]
        if missing := [name for name in pointed if name not in self._kept]:
            self.missing += missing
            return {"error": {"message": f"Item with id '{missing[0]}' not found.", "type": "invalid_request_error"}}
        is_done = not body.get("tools") or any(item.get("type") == "function_call_output" for item in items)
        return self._response(body, MESSAGE if is_done else TOOL_CALL)

    def _response(self, body: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
        number = secrets.token_hex(8)
        output = [
            {"type": "reasoning", "id": f"rs_{self.name}_{number}", "summary": []},
            said | {"id": f"{'msg' if said is MESSAGE else 'fc'}_{self.name}_{number}", "status": "completed"},
        ]
        response = {
            "id": f"resp_{self.name}_{number}",
            "object": "response",
            "created_at": 1_700_000_000,
            "status": "completed",
            "model": body["model"],
            "store": body.get("store", True),
            "output": output,
            "usage": USAGE,
        }
        if response["store"]:
            self._kept |= {response["id"], *(item["id"] for item in output)}
        return response


def events(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A stream that tells the response."""
    begun = response | {"status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    for at, item in enumerate(response["output"]):
        place = {"output_index": at, "item_id": item["id"]}
        empty: dict[str, Any] = {name: [] for name in ("content",) if name in item}
        yield {"type": "response.output_item.added", "output_index": at, "item": item | empty}
        if item["type"] == "message":
            yield {"type": "response.output_text.delta", **place, "content_index": 0, "delta": WORDS["text"]}
        if item["type"] == "function_call":
            yield {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": at, "item": item}
    yield {"type": "response.completed", "response": response}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Account

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = self.server.answer(body)
        if body.get("stream") and "error" not in answer:
            lines = (f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events(answer))
            self._send(200, "".join(lines), "text/event-stream")
        else:
            self._send(404 if "error" in answer else 200, json.dumps(answer), "application/json")

    def _send(self, status: int, text: str, content_type: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: Any) -> None:
        pass
