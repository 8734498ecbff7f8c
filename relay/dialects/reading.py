"""What is found while one body is read, and the small checks that every table uses."""

from __future__ import annotations

from typing import Any

from relay.dialects.ask import Ask, Media, Need, Pointer
from relay.dialects.said import echoed_bytes, first_said
from relay.errors import invalid
from relay.pricing import MAX_TOKENS, Extent

MAX_CHOICES = 128
_NO_MEDIA = Media()
# Client-side tools make providers add instructions to the prompt: tokens that no byte of the body stands for.
TOOLS_PREAMBLE_TOKENS = 1000


class Reading:
    """Collects the facts of one body. `fields` starts as the body, and judges remove what may not go upstream."""

    __slots__ = (
        "added_tokens",
        "asked_tool_calls",
        "body_bytes",
        "cache_writes",
        "choices",
        "context_reads",
        "conversation",
        "facts",
        "fields",
        "has_audio_output",
        "has_searches",
        "images",
        "is_stream",
        "limit",
        "made_pictures",
        "media_bytes",
        "minutes",
        "needs",
        "outputs_factor",
        "pointers",
        "prompts",
        "runs",
        "searches",
        "shows_usage",
        "takes_turns",
        "unknown",
        "written",
    )

    def __init__(self, body: dict[str, Any], body_bytes: int) -> None:
        self.fields = dict(body)
        self.body_bytes = body_bytes
        # Tokens beside the body's bytes, and bytes that are no text.
        self.added_tokens = self.media_bytes = 0
        self.images = self.minutes = self.searches = 0
        self.prompts = self.choices = self.runs = self.outputs_factor = 1
        self.context_reads = 0
        self.asked_tool_calls = 0
        # Hosted tools make the model read its input again, in each turn.
        self.takes_turns = self.has_searches = self.has_audio_output = self.is_stream = False
        self.made_pictures = 0
        # Whether the client asked for the usage of a stream.
        self.shows_usage = False
        self.limit: int | None = None
        self.conversation = ""
        self.facts: dict[str, str] = {}
        self.needs: list[Need] = []
        self.pointers: list[Pointer] = []
        self.cache_writes: set[str] = set()
        self.unknown: list[str] = []
        self.written: list[str] = []

    def ask(self, model: str) -> Ask:
        return Ask(
            model=model,
            fields=self.fields,
            extent=self._extent(),
            media=Media(self.images, self.minutes) if self.images or self.minutes else _NO_MEDIA,
            is_stream=self.is_stream,
            shows_usage=self.shows_usage,
            limit=self.limit,
            facts=self.facts,
            needs=tuple(self.needs),
            pointers=tuple(self.pointers),
            unknown=tuple(self.unknown),
            conversation=self.conversation,
            said=first_said(self.fields),
            echo_bytes=echoed_bytes(self.fields, self.choices),
            written=tuple(self.written),
            made_pictures={"image_generation": self.made_pictures} if self.made_pictures else {},
        )

    def _extent(self) -> Extent:
        return Extent(
            input_tokens=(max(self.body_bytes - self.media_bytes, 0) + self.added_tokens) * self.runs,
            prompts=self.prompts * self.runs,
            outputs=self.prompts * self.choices * self.runs * self.outputs_factor,
            context_reads=self.context_reads,
            has_audio_output=self.has_audio_output,
            cache_writes=tuple(sorted(self.cache_writes)),
            searches=self.searches,
        )


def integer(value: Any, param: str, *, maximum: int, minimum: int = 1) -> int:
    # type(), not isinstance(): True is an int in Python, but not a number in JSON.
    if type(value) is not int or not minimum <= value <= maximum:
        raise invalid(f"{param} must be a whole number from {minimum} to {maximum}.", param)
    return value


def boolean(value: Any, param: str) -> bool:
    if value is not None and type(value) is not bool:
        raise invalid(f"{param} must be true or false.", param)
    return bool(value)


def text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"{param} must be a text.", param)
    return value


def objects(value: Any, param: str) -> list[Any]:
    if not isinstance(value, list):
        raise invalid(f"{param} must be a list.", param)
    return value


def mapping(value: Any, param: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"{param} must be an object.", param)
    return value


def completion_limit(reading: Reading, value: Any, name: str) -> None:
    """Keep the least limit that the client named; -1 is llama.cpp's word for none."""
    del reading.fields[name]
    if value is None or value == -1:
        return
    limit = integer(value, name, maximum=MAX_TOKENS)
    reading.limit = limit if reading.limit is None else min(limit, reading.limit)


def choices(reading: Reading, value: Any, name: str) -> None:
    if value is not None:
        reading.choices = max(reading.choices, integer(value, name, maximum=MAX_CHOICES))
