"""What an upstream's answer says: usage, model, tier, its own cost, or an error inside a 200.

One reader serves whole answers and the events of streams in all dialects, because providers mix them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from core.money import NANOS_PER_USD
from relay import quick_json
from relay.answer_errors import EMPTY, AnswerError, error_of, not_json
from relay.generated_text import text_bytes
from relay.plain_answers import read_plain
from relay.pricing import MAX_PRICE_NANOS, Usage
from relay.usage_reader import GENERATING_PATHS, Counts, add_usage, missing_halves, raise_count, tools_of, usage_of

# The longest lifetime of cache writes that was asked for ("cache_write_1h"). It is a fact of the request alone.
CACHE_WRITE_FACT = "cache_write"
_USAGE_FACTS = ("service_tier", "speed", "inference_geo")
_BODY_FACTS = ("service_tier", "size", "quality")
_SAME_TIERS = {"fast": "priority"}
_MAX_FACT_LENGTH = 40
_MAX_NAME_LENGTH = 200
_MAX_STORED_ITEMS = 1_000
_USAGE_FIELDS = ("usage", "usageMetadata", "usage_info")
# Objects inside which usage may stand. `response` and `message` are answers of their own.
_AROUND_USAGE = ("x_groq", "result", "delta")
_OUTPUT_FIELDS = (
    *("output", "content", "text", "candidates", "data", "results", "embeddings", "result", "response", "message"),
)
_NO_OUTPUT = {"text": dict, "response": dict, "message": str}
_TOOL_PATHS = {"image_generation": "/images/generations"}
_TICKS_PER_NANO = 10
# A longer answer is decoded without what is not read: vectors of embeddings, pictures, logprobs.
_MAX_WHOLE_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The facts of a whole answer, or of a stream so far.

    `usage` is None if none was told. `missing_input` and `missing_output` say which half a usage lacks; `usage_with`
    fills the gap. `facts` choose the price row (service_tier, speed, inference_geo), as answered. `told_nanos` is the
    provider's own figure of its cost. `error` is (status, code, message) of an error inside a 200.
    """

    usage: Usage | None = None
    model: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    told_nanos: int | None = None
    error: tuple[int, str, str] | None = None
    has_output: bool = False
    # The id of a response that the upstream keeps; empty if it keeps none.
    stored_id: str = ""
    # This id and those of the response's output items, which the upstream keeps with it.
    stored_ids: tuple[str, ...] = ()
    # UTF-8 bytes of the generated text, for an estimate. Of a whole answer only if it tells no output.
    text_bytes: int = 0
    missing_input: bool = False
    missing_output: bool = False
    # Of an answer that tells a total and neither input nor output.
    total_tokens: int = 0

    @property
    def is_told(self) -> bool:
        """Whether the answer tells all that it is charged by, so that nothing is estimated."""
        return self.usage is not None and not self.missing_input and not self.missing_output

    def usage_with(self, *, input_tokens: int, output_tokens: int) -> Usage:
        """The told usage, with estimates in place of what is missing. Parts that were told count within them."""
        usage = self.usage or Usage()
        if self.usage is None or self.missing_input:
            usage = msgspec.structs.replace(usage, input=usage.input + max(0, input_tokens - usage.input_tokens))
        if self.usage is None or self.missing_output:
            most = max(output_tokens, self.total_tokens - usage.input_tokens)
            usage = msgspec.structs.replace(usage, output=usage.output + max(0, most - usage.output_tokens))
        return usage


def read_answer(raw: bytes, *, path: str, ask_facts: Mapping[str, str]) -> Answer:
    """Read a whole answer of status 2xx. Never raises: what is no answer has an `error`."""
    if path == "/chat/completions" and not ask_facts and (plain := read_plain(raw)) is not None:
        usage, model, tier = plain
        # A tier that was not asked for may have a price row of its own: the long way knows its names.
        if tier is None and len(model) <= _MAX_NAME_LENGTH:
            return Answer(usage=usage, model=model, has_output=True)
    return read_unusual(raw, path=path, ask_facts=ask_facts)


def read_unusual(raw: bytes, *, path: str, ask_facts: Mapping[str, str]) -> Answer:
    """The long way of `read_answer`, by the rules of all dialects."""
    reading = Reading(path, ask_facts)
    try:
        text = raw.removeprefix(b"\xef\xbb\xbf")
        body = quick_json.read(text) if len(text) <= _MAX_WHOLE_BYTES else quick_json.read_answer(text)
    except (ValueError, RecursionError):
        reading.error = not_json(raw)
        return reading.answer()
    if isinstance(body, list) and len(body) == 1:
        # Gemini's errors come in a list.
        body = body[0]
    if not isinstance(body, dict):
        reading.error = not_json(raw)
        return reading.answer()
    reading.add(body)
    reading.error = error_of(body)
    _read_output(reading, body)
    return reading.answer()


class Reading:
    """Collects what the parts of an answer tell."""

    def __init__(self, path: str, ask_facts: Mapping[str, str]) -> None:
        self.path = path
        self.counts: Counts = {}
        self.tool_counts: dict[str, Counts] = {}
        self.facts = {name: _normalised(name, value) for name, value in ask_facts.items()}
        self.cache_write = self.facts.pop(CACHE_WRITE_FACT, "").removeprefix("cache_write_")
        self.model = ""
        self.told_nanos: int | None = None
        self.error: AnswerError | None = None
        self.has_output = False
        self.stored_id = ""
        # In their order; streams tell each twice.
        self._item_ids: dict[str, None] = {}
        self.text_bytes = 0
        self._usage: Usage | None = None
        self._is_usage_current = False

    def add(self, body: Mapping[str, Any]) -> None:
        """Read an answer or an event, and the answer inside of it (`response`, Anthropic's `message`)."""
        self._is_usage_current = False
        for part in (body, body.get("response"), body.get("message")):
            if isinstance(part, dict):
                self._add_facts(part)
                for reported in _usages_in(part):
                    self._add_usage(reported, part.get("tool_usage"))
                self._add_searches(part)

    def usage(self) -> Usage | None:
        if not self._is_usage_current:
            tools = [
                (name, usage)
                for name, counts in sorted(self.tool_counts.items())
                if (usage := usage_of(counts, path=_TOOL_PATHS.get(name, "/messages")))
            ]
            self._usage = usage_of(self.counts, path=self.path, cache_write=self.cache_write, tools=tools)
            self._is_usage_current = True
        return self._usage

    def tells_output(self) -> bool:
        return self.usage() is not None and not missing_halves(self.counts, self.path)[1]

    def raise_searches(self, count: int) -> None:
        if count:
            self._is_usage_current = False
            raise_count(self.counts, "searches", count)

    def add_items(self, items: Iterable[object]) -> None:
        """Output items of a response, for their ids."""
        for item in items:
            item_id = item.get("id") if isinstance(item, dict) else None
            if isinstance(item_id, str) and len(self._item_ids) < _MAX_STORED_ITEMS:
                self._item_ids[item_id] = None

    def answer(self) -> Answer:
        usage, (missing_input, missing_output) = self.usage(), missing_halves(self.counts, self.path)
        if self.error is not None and not self.has_output and missing_input != missing_output:
            # Half a usage with an error, and nothing made of it, is no reason to charge.
            usage = None
        is_total_alone = missing_input and missing_output
        return Answer(
            usage=usage,
            missing_input=usage is not None and missing_input,
            missing_output=usage is not None and missing_output,
            total_tokens=self.counts.get("total", 0) if is_total_alone else 0,
            model=self.model,
            facts=dict(self.facts),
            told_nanos=self.told_nanos,
            error=self.error,
            has_output=self.has_output,
            stored_id=self.stored_id,
            stored_ids=(self.stored_id, *self._item_ids) if self.stored_id else (),
            text_bytes=self.text_bytes,
        )

    def _add_usage(self, reported: Mapping[str, Any], tool_usage: object) -> None:
        add_usage(reported, self.counts)
        self._take_facts(reported, _USAGE_FACTS)
        told = _told_nanos(reported)
        if told is not None:
            self.told_nanos = max(told, self.told_nanos or 0)
        for name, counts in tools_of(reported, tool_usage):
            known = self.tool_counts.setdefault(name, {})
            for each, count in counts.items():
                raise_count(known, each, count)

    def _add_facts(self, part: Mapping[str, Any]) -> None:
        self._take_facts(part, _BODY_FACTS)
        model = part.get("model") or part.get("modelVersion")
        if isinstance(model, str) and len(model) <= _MAX_NAME_LENGTH:
            self.model = model
        if part.get("store") is False:
            self.stored_id = ""
        elif self.path == "/responses" and ("output" in part or part.get("object") == "response"):
            stored_id = part.get("id")
            self.stored_id = stored_id if isinstance(stored_id, str) else ""
            self.add_items(_list(part, "output"))

    def _take_facts(self, part: Mapping[str, Any], names: tuple[str, ...]) -> None:
        for name in names:
            value = part.get(name)
            # "auto" repeats what was asked and does not say what it came to.
            if isinstance(value, str) and value != "auto" and 0 < len(value) <= _MAX_FACT_LENGTH:
                self.facts[name] = _normalised(name, value.lower())

    def _add_searches(self, part: Mapping[str, Any]) -> None:
        tool_usage = part.get("tool_usage")
        if isinstance(tool_usage, dict):
            add_usage({"tool_usage": tool_usage}, self.counts)
        self.raise_searches(_searches_in(part))


def _normalised(name: str, value: str) -> str:
    return _SAME_TIERS.get(value, value) if name == "service_tier" else value


def _usages_in(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    around: list[Mapping[str, Any]] = [part]
    if "choices" in part:
        around += _list(part, "choices")
    around += [part[name] for name in _AROUND_USAGE if type(part.get(name)) is dict]
    found: list[Mapping[str, Any]] = [
        place[name] for place in around for name in _USAGE_FIELDS if type(place.get(name)) is dict
    ]
    if isinstance(part.get("meta"), dict):
        found.append(part["meta"])
    if not found and "tool_usage" in part:
        # Tools may be told without usage.
        found.append({})
    return found


def _searches_in(part: Mapping[str, Any]) -> int:
    """Searches that are told by items or citations instead of a count."""
    searches = 0
    if "choices" in part:
        messages = [choice.get(name) for choice in _list(part, "choices") for name in ("message", "delta")]
        searches = int(any(has_citations(each) for each in messages))
    if "output" in part:
        output = _list(part, "output")
        is_cited = any(has_citations(content) for item in output for content in _list(item, "content"))
        searches = max(searches, int(is_cited), sum(map(is_search, output)))
    if "candidates" in part:
        searches = max(searches, sum(len(_queries(candidate)) for candidate in _list(part, "candidates")))
    return searches


def is_search(item: Mapping[str, Any]) -> bool:
    """A completed search of the Responses API. Opening a page is told as the same kind of item, and is free."""
    if item.get("type") != "web_search_call" or item.get("status") not in (None, "completed"):
        return False
    action = item.get("action")
    return not isinstance(action, dict) or action.get("type") in (None, "search")


def has_citations(message: object) -> bool:
    annotations = message.get("annotations") if isinstance(message, dict) else None
    return (
        bool(annotations)
        and isinstance(annotations, list)
        and any(isinstance(each, dict) and each.get("type") == "url_citation" for each in annotations)
    )


def _queries(candidate: Mapping[str, Any]) -> list[Any]:
    grounding = candidate.get("groundingMetadata")
    return _list(grounding, "webSearchQueries", str) if isinstance(grounding, dict) else []


def _list(part: Mapping[str, Any], name: str, kind: type = dict) -> list[Any]:
    value = part.get(name)
    return [item for item in value if isinstance(item, kind)] if isinstance(value, list) else []


def _told_nanos(reported: Mapping[str, Any]) -> int | None:
    cost = reported.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    told = _positive(cost, NANOS_PER_USD)
    return _positive(reported.get("cost_in_usd_ticks"), 1 / _TICKS_PER_NANO) if told is None else told


def _positive(value: object, nanos_per_unit: float) -> int | None:
    if type(value) not in (int, float) or not 0 <= value <= MAX_PRICE_NANOS:  # type: ignore[operator]
        return None
    # Six digits of a nano-dollar are kept before rounding up: 0.0641 USD in binary is a trace more than it says.
    return min(math.ceil(round(value * nanos_per_unit, 6)), MAX_PRICE_NANOS)  # type: ignore[operator]


def _read_output(reading: Reading, body: Mapping[str, Any]) -> None:
    choices = _list(body, "choices")
    reading.has_output = any(_has_content(choice.get(name)) for choice in choices for name in ("message", "text"))
    if reading.has_output and reading.tells_output():
        return
    # The Responses API repeats the format under `text`; other fields of these names are errors, not output.
    told = {name: value for name, value in body.items() if not isinstance(value, _NO_OUTPUT.get(name, ()))}
    outputs = [told.get(name) for name in _OUTPUT_FIELDS]
    reading.has_output = reading.has_output or any(map(_has_content, outputs))
    if reading.tells_output():
        return
    reading.text_bytes = text_bytes(told)
    if reading.error is None and reading.path in GENERATING_PATHS and not (choices or any(outputs)):
        reading.error = EMPTY


def _has_content(value: object) -> bool:
    if type(value) is not dict:
        return bool(value)
    return bool(value.get("content")) or any(item for name, item in value.items() if name != "role")
