"""Forward server-sent events, read what they tell, and withhold the usage from clients that did not ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from relay import quick_json
from relay.answer_errors import EMPTY, AnswerError, error_of
from relay.answers import Answer, Reading, has_citations, is_search
from relay.generated_text import delta_bytes, encoded_length, text_bytes
from relay.sse import MAX_EVENT_BYTES, Splitter, looks_like_events, read_event, with_data
from relay.withholding import tells_usage, without_usage

_WITHHOLDING_PATHS = frozenset({"/chat/completions", "/completions"})
_TOO_LARGE: AnswerError = (502, "event_too_large", f"The upstream sent an event of more than {MAX_EVENT_BYTES} bytes.")
_LAST_EVENTS = frozenset(
    {
        *("message_stop", "message-end", "response.done"),
        *("response.completed", "response.incomplete", "response.failed", "response.cancelled"),
        *("transcript.text.done", "speech.audio.done", "image_generation.completed", "image_edit.completed"),
    }
)
# Fields of a chunk of chat that tell more than text. A chunk without them is read by the short way.
_TELLING = frozenset(
    {
        *("x_groq", "usageMetadata", "usage_info", "tool_usage", "error", "response", "message", "result", "meta"),
        *("detail", "base_resp", "type", "delta", "content", "candidates"),
    }
)
_TELLING_OF_CHOICE = frozenset({"usage", "message", "error"})
_LINE_ENDS = (b"\r", b"\n")
_decode = msgspec.json.Decoder().decode


class Events:
    """Takes chunks from the upstream and returns those for the client. Never raises, whatever the upstream sends.

    `is_judged` is set after the first event that is neither blank, nor a comment, nor a ping: until then the stream may
    still begin with an error. `text_bytes` is the UTF-8 length of the generated text so far. `is_ended` says that the
    stream's own last event was seen; without it, the stream broke off. `echo_bytes` is what of the text repeats the
    prompt (completions with `echo`), and is not counted.
    """

    def __init__(
        self,
        *,
        path: str,
        shows_usage: bool,
        ask_facts: Mapping[str, str],
        echo_bytes: int = 0,
        mask_error: Callable[[bytes], bytes] | None = None,
        cost_usd: Callable[[Answer], float] | None = None,
    ) -> None:
        """`mask_error` rewrites an event that tells an error; `cost_usd` prices the usage that a client asked for."""
        self._mask_error = mask_error
        self._cost_usd = cost_usd if shows_usage and path in _WITHHOLDING_PATHS else None
        self.is_ended = False
        self.is_judged = False
        self._withholds = not shows_usage and path in _WITHHOLDING_PATHS
        self._echo_bytes = echo_bytes
        self._splitter = Splitter()
        self._reading = Reading(path, ask_facts)
        self._delta_bytes = 0
        # Of the items and of the whole text that some dialects repeat at the end. Some send nothing else.
        self._item_bytes = 0
        self._whole_bytes = 0
        self._searches = 0
        self._seen_envelope: tuple[object, object] = (None, None)
        self._is_last_withheld = False
        self._answer: Answer | None = None

    looks_like = staticmethod(looks_like_events)

    @property
    def answer(self) -> Answer:
        if self._answer is None:
            self._reading.text_bytes = self.text_bytes
            self._reading.has_output = self._reading.has_output or self.text_bytes > 0
            self._answer = self._reading.answer()
        return self._answer

    @property
    def text_bytes(self) -> int:
        return max(0, max(self._delta_bytes, self._item_bytes, self._whole_bytes) - self._echo_bytes)

    def feed(self, chunk: bytes) -> bytes:
        events = self._splitter.feed(chunk)
        out = self._process(events[0]) if len(events) == 1 else b"".join(map(self._process, events))
        if self._splitter.is_too_large:
            self._fail(_TOO_LARGE)
        return out

    def finish(self) -> bytes:
        """The end of the body. An event that lacks its blank line is read and passed on like a whole one.

        A stream of comments and [DONE] alone is an error.
        """
        rest = self._splitter.finish()
        out = self._process(rest) if rest else b""
        if not self.is_judged:
            self._fail(EMPTY)
        return out

    def _process(self, event: bytes) -> bytes:
        if event == b"\n":
            return b"" if self._is_last_withheld else event
        if event[:1] in _LINE_ENDS and (rest := event.lstrip(b"\r\n")):
            # A blank line before an event stays if the event is withheld.
            return event[: -len(rest)] + self._process(rest)
        out = self._read(event)
        self._is_last_withheld = not out
        return out

    def _read(self, event: bytes) -> bytes:
        name, data = b"", None
        if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
            # The usual event is one line of data.
            data = event[6:-2]
        else:
            name, data = read_event(event)
        if data is None or not data.strip():
            return event
        self._answer = None
        if data.strip() == b"[DONE]":
            if not self.is_judged:
                self._fail(EMPTY)
            self.is_ended = True
            return event
        payload = _decoded(data)
        if type(payload) is not dict:
            self._read_foreign(payload, data, name)
            return event
        had_error = self._reading.error is not None
        self._read_payload(payload, name.decode(errors="replace"))
        is_new_error = self._reading.error is not None and not had_error
        out = self._rewritten(event, data, payload)
        return self._mask_error(out) if is_new_error and out and self._mask_error is not None else out

    def _rewritten(self, event: bytes, data: bytes, payload: dict[str, Any]) -> bytes:
        """The event without the usage that the client did not ask for, or with its cost where it did."""
        if self._cost_usd is not None and type(payload.get("usage")) is dict and _is_last_usage(payload):
            usage = payload["usage"] | {"cost": self._cost_usd(self.answer)}
            return with_data(event, quick_json.write(payload | {"usage": usage}))
        if not self._withholds or not tells_usage(payload):
            return event
        shorter = without_usage(data, payload)
        return b"" if shorter is None else with_data(event, shorter.replace(b"\n", b""))

    def _read_payload(self, payload: dict[str, Any], name: str) -> None:
        delta = payload.get("delta")
        kind = payload.get("type")
        kind = kind if type(kind) is str else name
        if type(delta) is str and kind.endswith(".delta"):
            # The usual event of the Responses API.
            self._delta_bytes += len(delta) if delta.isascii() else encoded_length(delta)
            self.is_judged = True
        elif kind == "content_block_delta" and type(delta) is dict:
            # The usual event of Anthropic.
            self._delta_bytes += delta_bytes(delta)
            self.is_judged = True
        elif not self._is_plain_chunk(payload):
            self._read_telling(payload, kind)

    def _is_plain_chunk(self, payload: dict[str, Any]) -> bool:
        """Read the usual chunk of chat, with one choice and only text. False, with nothing read, for all others."""
        choices = payload.get("choices")
        if type(choices) is not list or len(choices) != 1 or payload.get("usage") is not None or not self.is_judged:
            return False
        if self._seen_envelope != (payload.get("model"), payload.get("service_tier")):
            return False
        size = _plain_text_bytes(choices[0])
        if size < 0 or not _TELLING.isdisjoint(payload):
            return False
        self._delta_bytes += size
        return True

    def _read_telling(self, payload: dict[str, Any], kind: str) -> None:
        self._seen_envelope = (payload.get("model"), payload.get("service_tier"))
        self._reading.add(payload)
        if (error := error_of(payload, kind)) is not None:
            self._fail(error)
        else:
            self._count_text(payload, kind)
            self._count_searches(payload, kind)
        self.is_ended = self.is_ended or kind in _LAST_EVENTS or _is_finished(payload)
        self.is_judged = self.is_judged or kind != "ping"

    def _count_text(self, payload: dict[str, Any], kind: str) -> None:
        whole = _whole_texts(payload)
        if kind.startswith("response.") and not kind.endswith(".delta"):
            # Parts of the whole text once more, but for items, which some upstreams send without deltas.
            if kind == "response.output_item.done":
                self._item_bytes += text_bytes(payload.get("item"))
                self._reading.add_items([payload.get("item")])
                self._reading.has_output = True
        elif kind.endswith(".done"):
            whole.append(payload)
        else:
            self._delta_bytes += text_bytes(_without_whole_texts(payload))
        self._whole_bytes = max(self._whole_bytes, text_bytes(whole))

    def _count_searches(self, payload: dict[str, Any], kind: str) -> None:
        item, annotation = payload.get("item"), payload.get("annotation")
        if kind == "response.output_item.done" and isinstance(item, dict):
            self._searches += is_search(item)
        is_cited = has_citations({"annotations": [annotation]})
        self._reading.raise_searches(max(self._searches, int(is_cited)))

    def _read_foreign(self, payload: object, data: bytes, name: bytes) -> None:
        """Data that is no JSON object: an error in plain words, or text."""
        self.is_judged = True
        if name == b"error":
            self._fail((502, "upstream_error", data.decode(errors="replace")[:2000]))
        else:
            self._delta_bytes += len(data)
        if isinstance(payload, list) and len(payload) == 1 and isinstance(payload[0], dict):
            # Gemini's errors come in a list.
            self._read_telling(payload[0], "")

    def _fail(self, error: AnswerError) -> None:
        self.is_judged = True
        self._answer = None
        if self._reading.error is None:
            self._reading.error = error


def _is_last_usage(payload: Mapping[str, Any]) -> bool:
    return not payload.get("choices") or _is_finished(payload)


def _decoded(data: bytes) -> object:
    """The parsed data; None if it is no JSON."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    try:
        return quick_json.read(data)
    except (ValueError, RecursionError):
        return None


def _plain_text_bytes(choice: object) -> int:
    """The size of a choice's text; -1 if the choice tells more than text."""
    if type(choice) is not dict or choice.get("finish_reason") or not _TELLING_OF_CHOICE.isdisjoint(choice):
        return -1
    delta, text = choice.get("delta"), choice.get("text")
    if type(delta) is dict and text is None and "annotations" not in delta:
        return delta_bytes(delta)
    return encoded_length(text) if type(text) is str and delta is None else -1


def _choices(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = payload.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _is_finished(payload: Mapping[str, Any]) -> bool:
    if any(choice.get("finish_reason") for choice in _choices(payload)):
        return True
    candidates = payload.get("candidates")
    finished = isinstance(candidates, list) and any(
        isinstance(each, dict) and each.get("finishReason") for each in candidates
    )
    # Of llama.cpp and Ollama in their own dialects.
    return finished or payload.get("stop") is True or payload.get("done") is True


def _whole_texts(payload: Mapping[str, Any]) -> list[object]:
    """Where an event repeats all of the text so far, as the last event of Responses and chunks with `message` do."""
    response, message = payload.get("response"), payload.get("message")
    return [
        response.get("output") if isinstance(response, dict) else None,
        message.get("content") if isinstance(message, dict) else None,
        *(choice.get("message") for choice in _choices(payload)),
    ]


def _without_whole_texts(payload: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in payload.items() if name not in ("message", "choices")}
    if isinstance(rest.get("response"), dict):
        del rest["response"]
    rest["choices"] = [{key: value for key, value in each.items() if key != "message"} for each in _choices(payload)]
    return rest
