"""Server-sent events as bytes: cut a stream into events, and read the fields of one.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, "Parsing an event stream". Lines end with CRLF,
LF or CR; a blank line ends an event.
"""

from __future__ import annotations

import re
from itertools import takewhile

BOM = b"\xef\xbb\xbf"
# The largest picture that a provider sends as one event is about 20 MiB of base64.
MAX_EVENT_BYTES = 32 * 1024 * 1024
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_MAX_END_BYTES = 4
_LINE_END = re.compile(rb"\r\n|\n|\r")
# The start of a data line. A byte order mark may stand before it.
_DATA = re.compile(rb"(?:\xef\xbb\xbf)?data(?:: ?|(?=[\r\n]|$))")
_FIELDS = (b"data", b"event", b"id", b"retry", b":")


class Splitter:
    """Cuts chunks into whole events, whatever the chunks' borders. Joined, the events are the stream's very bytes.

    An event longer than MAX_EVENT_BYTES sets `is_too_large`; it and everything after it are dropped.
    """

    def __init__(self) -> None:
        self.is_too_large = False
        self._partial = bytearray()
        # Where the search for the event's end goes on, so that a long event is searched once.
        self._searched = 0
        self._ends_with_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that end in this chunk. A first event of b"\n" is the rest of the CRLF that ended the last one."""
        if not self._partial and not self._ends_with_cr and _is_one_event(chunk):
            return self._checked([chunk])
        events = []
        if self._ends_with_cr and chunk.startswith(b"\n"):
            events.append(b"\n")
            chunk = chunk[1:]
        self._ends_with_cr = self._ends_with_cr and not chunk and not events
        self._partial += chunk
        events += self._take_events()
        return self._checked(events)

    def finish(self) -> bytes:
        """What follows the last whole event."""
        rest = b"" if self.is_too_large else bytes(self._partial)
        self._partial.clear()
        self._searched = 0
        return rest

    def _take_events(self) -> list[bytes]:
        events, start = [], 0
        while end := _EVENT_END.search(self._partial, max(start, self._searched)):
            events.append(bytes(self._partial[start : end.end()]))
            start = end.end()
        if events:
            self._ends_with_cr = start == len(self._partial) and events[-1].endswith(b"\r")
            del self._partial[:start]
        self._searched = max(0, len(self._partial) - _MAX_END_BYTES + 1)
        return events

    def _checked(self, events: list[bytes]) -> list[bytes]:
        if self.is_too_large:
            self._partial.clear()
            return []
        whole = list(takewhile(lambda event: len(event) <= MAX_EVENT_BYTES, events))
        self.is_too_large = len(whole) < len(events) or len(self._partial) > MAX_EVENT_BYTES
        return whole


def _is_one_event(chunk: bytes) -> bool:
    # The usual chunk.
    return 0 <= chunk.find(b"\n\n") == len(chunk) - 2 and b"\r" not in chunk


def read_event(event: bytes) -> tuple[bytes, bytes | None]:
    """(name, data) of an event; data is None if it has no data line, as comments and blank lines have not."""
    name, data = b"", []
    for line in _LINE_END.split(event.removeprefix(BOM)):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return name, b"\n".join(data) if data else None


def with_data(event: bytes, data: bytes) -> bytes:
    """The event with other data, in one line; its other lines and its line ends stay."""
    is_written, out = False, []
    for line in event.splitlines(keepends=True):
        start = _DATA.match(line)
        if start is None:
            out.append(line)
        elif not is_written:
            is_written = True
            out.append((start[0] if b":" in start[0] else b"data:") + data + line[len(line.rstrip(b"\r\n")) :])
    return b"".join(out)


def looks_like_events(first_bytes: bytes) -> bool:
    """Whether a body begins like server-sent events. Blank lines before it are skipped; blank alone is False."""
    line = first_bytes.removeprefix(BOM).lstrip(b" \t\r\n")
    return any(line.startswith(field) or (line and field.startswith(line)) for field in _FIELDS)
