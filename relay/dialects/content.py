"""Messages and the parts of their content. Types that no row names are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.dialects import media
from relay.dialects.fields import Judge, cache_mark
from relay.dialects.names import (
    CACHE_MARKS,
    CONTAINERS,
    ELSEWHERE,
    SPELLING,
    UNBOUNDED,
    UNSORTED,
    canonical,
    guard,
    reason_inside,
    says_nothing,
    unsupported,
)
from relay.dialects.reading import Reading, mapping, objects
from relay.errors import invalid

# The judges of a part's, message's or item's keys.
Keys = Mapping[str, Judge]


def free(reading: Reading, value: Any, path: str) -> None:
    """Free-form data, such as a tool call's arguments: it costs what its bytes cost."""


def elsewhere(reading: Reading, value: Any, path: str) -> None:
    if value is not None:
        raise unsupported(path, ELSEWHERE)


_EVERYWHERE: Keys = {"type": free, **dict.fromkeys(CACHE_MARKS, cache_mark)}
_CACHE_MARKS = frozenset(map(canonical, CACHE_MARKS))


def read_keys(reading: Reading, value: dict[str, Any], keys: Keys, path: str) -> None:
    """Judge each key by its row. Others pass, unless their name is refused, or one inside of them."""
    for name, inner in value.items():
        judge = keys.get(name) or _EVERYWHERE.get(name)
        if judge is not None:
            judge(reading, inner, f"{path}.{name}")
        elif says_nothing(inner):
            continue
        elif (plain := canonical(name)) in _CACHE_MARKS:
            cache_mark(reading, inner, f"{path}.{name}")
        elif reason := reason_inside(name):
            raise unsupported(f"{path}.{name}", reason)
        elif plain != name and any(plain == canonical(known) for known in keys):
            raise unsupported(f"{path}.{name}", SPELLING)
        elif isinstance(inner, CONTAINERS):
            guard(inner, f"{path}.{name}")


# -- Parts ------------------------------------------------------------------------------------------------------------


def _image_url(reading: Reading, value: Any, path: str) -> None:
    if isinstance(value, dict):
        read_keys(reading, value, {"url": media.picture}, path)
    elif value is not None:
        media.picture(reading, value, path)


def _input_audio(reading: Reading, value: Any, path: str) -> None:
    if value is not None:
        sound = mapping(value, path)
        if "data" not in sound:
            raise unsupported(f"{path}.{next(iter(sound), 'data')}", ELSEWHERE)
        read_keys(reading, sound, {"data": media.sound, "url": elsewhere}, path)


def _file(reading: Reading, value: Any, path: str) -> None:
    if value is not None:
        read_keys(reading, mapping(value, path), _FILE, path)


def _file_data(reading: Reading, value: Any, path: str) -> None:
    if value is not None:
        media.document(reading, value, path)


_FILE: Keys = {"file_id": elsewhere, "file_url": elsewhere, "file_data": _file_data}
_TEXT: Keys = {"annotations": free, "logprobs": free, "citations": free, "source": elsewhere}
_IMAGE: Keys = {"image_url": _image_url, "file_id": elsewhere}
PICTURE_TYPES = frozenset({"image_url", "input_image", "computer_screenshot"})
# Content part types of chat and of responses: providers mix them.
PARTS: Mapping[str, Keys] = {
    "text": _TEXT,
    "input_text": _TEXT,
    "output_text": _TEXT,
    "summary_text": _TEXT,
    "reasoning_text": _TEXT,
    "refusal": _TEXT,
    # Mistral's reasoning.
    "thinking": {"signature": free},
    "image_url": _IMAGE,
    "input_image": _IMAGE,
    "computer_screenshot": _IMAGE,
    "input_audio": {"input_audio": _input_audio},
    "file": {"file": _file},
    "input_file": _FILE,
}


def read_content(reading: Reading, value: Any, path: str) -> None:
    """A text, or a list of parts; null where a message has tool calls alone."""
    if value is None or isinstance(value, str):
        return
    for at, part in enumerate(objects(value, path)):
        if not isinstance(part, str):
            read_part(reading, part, f"{path}[{at}]")


def read_part(reading: Reading, value: Any, path: str) -> None:
    part = mapping(value, path)
    kind = part.get("type")
    keys = PARTS.get(kind) if isinstance(kind, str) else None
    if keys is None:
        raise unsupported(f"{path}.type", UNSORTED)
    if kind in PICTURE_TYPES:
        reading.images += 1
    read_keys(reading, part, keys, path)


# -- Messages ---------------------------------------------------------------------------------------------------------


def _audio_answer(reading: Reading, value: Any, path: str) -> None:
    # An earlier spoken answer, which the provider keeps under its id.
    if value is not None:
        elsewhere(reading, mapping(value, path).get("id"), f"{path}.id")


def _own_words(reading: Reading, value: Any, path: str) -> None:
    """An assistant's own words, which clients send back with whatever keys they came. Marks of caching are added."""
    blocks = [(path, value)] if isinstance(value, dict) else []
    if isinstance(value, list):
        blocks = [(f"{path}[{at}]", block) for at, block in enumerate(value) if isinstance(block, dict)]
    blocks += [(f"{at}.function", block["function"]) for at, block in blocks if isinstance(block.get("function"), dict)]
    for at, block in blocks:
        for name in block:
            if canonical(name) in _CACHE_MARKS:
                cache_mark(reading, block[name], f"{at}.{name}")


def _pictures(reading: Reading, value: Any, path: str) -> None:
    # OpenRouter sends parts; Ollama's plain texts would be read as pictures that nobody counted.
    for at, part in enumerate(objects(value or [], path)):
        if not isinstance(part, dict):
            raise unsupported(f"{path}[{at}]", UNBOUNDED)
        read_part(reading, part, f"{path}[{at}]")


MESSAGE: Keys = {
    "content": read_content,
    "audio": _audio_answer,
    "tool_calls": _own_words,
    "function_call": _own_words,
    "annotations": _own_words,
    "reasoning_details": _own_words,
    "thinking_blocks": _own_words,
    "citations": _own_words,
    "images": _pictures,
}
_ROLE_AND_CONTENT = frozenset({"role", "content"})


def read_messages(reading: Reading, value: Any, name: str) -> None:
    for at, message in enumerate(objects(value, name)):
        if not isinstance(message, dict):
            raise invalid(f"{name}[{at}] must be an object.", f"{name}[{at}]")
        # Most messages are a role and a text: nothing in them needs a judge.
        if message.keys() <= _ROLE_AND_CONTENT and all(type(inner) is str for inner in message.values()):
            continue
        read_keys(reading, message, MESSAGE, f"{name}[{at}]")


def prediction(reading: Reading, value: Any, name: str) -> None:
    """Rejected predictions are billed as output within the limit; the predicted text is in the body."""
    if value is not None:
        read_keys(reading, mapping(value, name), {"content": read_content}, name)
