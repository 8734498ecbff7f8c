"""Every field, item, part and tool type of the installed openai package has a row, so that a new one fails here."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import typing_extensions
from openai.types import completion_create_params, embedding_create_params, video_create_params
from openai.types.chat import (
    completion_create_params as chat_create_params,
)
from openai.types.responses import response_create_params

from relay.dialects import DIALECTS, videos
from relay.dialects.content import MESSAGE, PARTS
from relay.dialects.items import ITEMS
from relay.dialects.tools import CHAT_TOOLS, RESPONSES_TOOLS

CHAT = chat_create_params.CompletionCreateParamsStreaming
RESPONSES = response_create_params.ResponseCreateParamsStreaming
# Names of keys inside of messages, items, parts and tools. Before a new one is added here, it is sorted: does it cost
# anything, or point at anything? The tables of content.py, items.py and tools.py judge the keys that do.
SORTED_KEYS = Path(__file__).with_name("sorted_keys.txt")
OPEN = {"parameters", "schema", "arguments"}


@pytest.mark.parametrize(
    ("rows", "params"),
    [
        (DIALECTS["/chat/completions"].rows, CHAT),
        (DIALECTS["/completions"].rows, completion_create_params.CompletionCreateParamsStreaming),
        (DIALECTS["/responses"].rows, RESPONSES),
        (DIALECTS["/embeddings"].rows, embedding_create_params.EmbeddingCreateParams),
        (videos.ROWS, video_create_params.VideoCreateParams),
    ],
)
def test_every_field_has_a_row(rows, params) -> None:
    assert get_type_hints(params).keys() - rows.keys() == set()


def test_every_input_item_type_is_sorted() -> None:
    assert _types(_hint(RESPONSES, "input")) == set(ITEMS)


def test_every_tool_type_is_sorted() -> None:
    assert _types(_hint(RESPONSES, "tools")) == set(RESPONSES_TOOLS)
    assert _types(_hint(CHAT, "tools")) == set(CHAT_TOOLS)


@pytest.mark.parametrize("item", ["message", "function_call_output", "custom_tool_call_output"])
def test_every_part_type_of_an_item_is_sorted(item) -> None:
    rows = [each for each in _dicts(_hint(RESPONSES, "input")) if item in _types(each)]
    contents = [_hint(row, name) for row in rows for name in ("content", "output") if name in get_type_hints(row)]

    parts = {kind for content in contents for kind in _types(content)}

    assert {"input_image", "input_file"} <= parts
    assert parts - PARTS.keys() == set()


def test_every_part_type_of_a_message_is_sorted() -> None:
    messages = list(_dicts(_hint(CHAT, "messages")))

    parts = {kind for message in messages for kind in _types(_hint(message, "content"))}

    assert {"image_url", "file", "refusal"} <= parts
    assert parts - PARTS.keys() == set()
    assert {name for message in messages for name in get_type_hints(message)} - MESSAGE.keys() == {
        *("role", "name", "refusal", "tool_call_id")
    }


def test_every_key_inside_of_a_request_was_sorted() -> None:
    found: set[str] = set()
    for params, names in ((CHAT, ("messages", "tools")), (RESPONSES, ("input", "tools"))):
        for name in names:
            found |= _keys(_hint(params, name))

    assert found - set(SORTED_KEYS.read_text().split()) == set()


def _hint(params: Any, name: str) -> Any:
    return get_type_hints(params)[name]


def _bare(hint: Any) -> Any:
    wrappers = (typing.Annotated, typing_extensions.Required, typing.Required)
    while get_origin(hint) in wrappers:
        hint = get_args(hint)[0]
    return hint


def _dicts(hint: Any) -> Iterator[Any]:
    """The typed dicts of a union or list."""
    hint = _bare(hint)
    if typing_extensions.is_typeddict(hint):
        yield hint
    elif get_origin(hint) is not Literal:
        for inner in get_args(hint):
            yield from _dicts(inner)


def _types(hint: Any) -> set[str]:
    """The values of `type` that a hint's dicts have."""
    return {
        value
        for each in _dicts(hint)
        for value in _literals(get_type_hints(each).get("type"))
        if isinstance(value, str)
    }


def _literals(hint: Any) -> Iterator[Any]:
    hint = _bare(hint)
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) in (Union, types.UnionType):
        for inner in get_args(hint):
            yield from _literals(inner)


def _keys(hint: Any, seen: set[Any] | None = None) -> set[str]:
    seen = set() if seen is None else seen
    found: set[str] = set()
    for each in _dicts(hint):
        if each not in seen:
            seen.add(each)
            hints = get_type_hints(each)
            found |= hints.keys()
            for name, inner in hints.items():
                if name not in OPEN:
                    found |= _keys(inner, seen)
    return found
