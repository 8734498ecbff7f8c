"""Forward server-sent events unchanged, except for the event that reports the usage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from relay import quick_json
from relay.pricing import Usage, parse_usage

# The generated text in an event. Its length is the basis of an estimated charge if the upstream reports no usage.
_TEXT_FIELD = re.compile(rb'"(?:content|text|delta|arguments|reasoning_content)"\s*:\s*"((?:[^"\\]|\\.)*)"')
# With include_usage, all other events contain `"usage": null`; searching for an object skips parsing them.
_USAGE_OBJECT = re.compile(rb'"usage"\s*:\s*\{')
_EVENT_END = re.compile(rb"\r?\n\r?\n")
# Buffered of one event; a longer one is forwarded in pieces, and usage in it is not found.
MAX_EVENT_BYTES = 1024 * 1024


@dataclass
class EventStream:
    """Takes chunks from the upstream, returns those for the client, and collects the usage and the text's length."""

    shows_usage: bool
    usage: Usage | None = None
    text_bytes: int = 0
    _partial: bytes = field(default=b"", repr=False)

    def feed(self, chunk: bytes) -> bytes:
        events = self._partial + chunk
        out, start = [], 0
        for end in _EVENT_END.finditer(events):
            out.append(self._process(events[start : end.end()]))
            start = end.end()
        self._partial = events[start:]
        if len(self._partial) > MAX_EVENT_BYTES:
            out.append(self.finish())
        return b"".join(out)

    def finish(self) -> bytes:
        rest, self._partial = self._partial, b""
        return self._process(rest) if rest else b""

    def _process(self, event: bytes) -> bytes:
        self.text_bytes += sum(len(text) for text in _TEXT_FIELD.findall(event))
        if not _USAGE_OBJECT.search(event):
            return event
        payload = _payload(event)
        if (usage := parse_usage(payload)) is not None:
            self.usage = usage
        return event if self.shows_usage or "choices" not in payload else _without_usage(payload)


def _without_usage(payload: dict[str, object]) -> bytes:
    choices = payload["choices"]
    if not isinstance(choices, list) or not any(_has_content(choice) for choice in choices):
        return b""
    del payload["usage"]
    return b"data: " + quick_json.write(payload) + b"\n\n"


def _has_content(choice: object) -> bool:
    # Some upstreams, such as LiteLLM, send an empty choice with the usage.
    return isinstance(choice, dict) and any(choice.get(name) for name in ("delta", "text", "finish_reason"))


def _payload(event: bytes) -> dict[str, object]:
    data = b"".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
    try:
        payload = quick_json.read(data)
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}
