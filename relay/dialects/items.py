"""Input items of /v1/responses by type.

An `item_reference` names an item that the upstream keeps, and must be the caller's own. Other items that are only an id
are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.dialects import media
from relay.dialects.ask import Pointer
from relay.dialects.content import PICTURE_TYPES, Keys, free, read_content, read_keys, read_part
from relay.dialects.fields import answer_format, reasoning
from relay.dialects.names import ELSEWHERE, UNSORTED, unsupported
from relay.dialects.reading import Reading, mapping, text
from relay.dialects.tools import read_tools

MAX_REFERENCES = 1_000
_TOO_MANY = f"a request may name at most {MAX_REFERENCES} kept items"


@dataclass(frozen=True, slots=True)
class Item:
    """How an item's keys are judged. One of `content` must hold something: without it the item is only an id."""

    content: tuple[str, ...] = ()
    keys: Keys = field(default_factory=dict)


def _screenshot(reading: Reading, value: Any, path: str) -> None:
    output = mapping(value, path)
    if output.get("type") not in PICTURE_TYPES:
        raise unsupported(f"{path}.type", UNSORTED)
    read_part(reading, output, path)


def _compaction(reading: Reading, value: Any, path: str) -> None:
    # Ciphertext of a summary: it may stand for more tokens than it has bytes.
    reading.context_reads = max(reading.context_reads, 1)


def _reference(reading: Reading, value: Any, path: str) -> None:
    """The item's length is unknown here, so the context window is held, which all of them together have to fit."""
    if len(reading.pointers) >= MAX_REFERENCES:
        raise unsupported(path, _TOO_MANY)
    reading.pointers.append(Pointer(path, text(value, path)))
    reading.context_reads = max(reading.context_reads, 1)


def _container(reading: Reading, value: Any, path: str) -> None:
    # The provider may read the files that the container holds.
    if value is not None:
        reading.context_reads = max(reading.context_reads, 1)


def _said(*content: str) -> Item:
    """An item whose content costs what its bytes cost."""
    keys = ("action", "actions", "arguments", "caller", "operation", "results", "error")
    return Item(content, dict.fromkeys((*keys, *content), free))


ITEMS: Mapping[str, Item] = {
    "message": Item(("content",), {"content": read_content}),
    "item_reference": Item(("id",), {"id": _reference}),
    "function_call": _said("arguments"),
    "function_call_output": Item(("output",), {"output": read_content, "caller": free}),
    "custom_tool_call": _said("input"),
    "custom_tool_call_output": Item(("output",), {"output": read_content, "caller": free}),
    "computer_call": _said("action", "actions"),
    "computer_call_output": Item(("output",), {"output": _screenshot, "acknowledged_safety_checks": free}),
    "reasoning": Item(("encrypted_content", "content", "summary"), {"content": read_content, "summary": read_content}),
    "compaction": Item(("encrypted_content",), {"encrypted_content": _compaction}),
    "compaction_trigger": Item(),
    "configuration_update": Item((), {"reasoning": reasoning, "text": answer_format}),
    "additional_tools": Item(("tools",), {"tools": read_tools}),
    "tool_search_call": _said("arguments"),
    "tool_search_output": Item(("tools",), {"tools": read_tools}),
    "local_shell_call": _said("action"),
    "local_shell_call_output": _said("output"),
    "shell_call": _said("action"),
    "shell_call_output": _said("output"),
    "apply_patch_call": _said("operation"),
    "apply_patch_call_output": _said("status"),
    "web_search_call": _said("action"),
    "file_search_call": _said("queries"),
    "code_interpreter_call": Item(("code",), {"outputs": free, "container_id": _container}),
    "image_generation_call": Item(("result",), {"result": media.made_picture, "error": free, "svg_usage": free}),
    "mcp_list_tools": _said("tools"),
    "mcp_approval_request": _said("arguments"),
    "mcp_approval_response": _said("approval_request_id"),
    "mcp_call": _said("arguments"),
    "program": _said("code"),
    "program_output": _said("result"),
}


def read_input(reading: Reading, value: Any, name: str) -> None:
    if value is None or isinstance(value, str):
        return
    if not isinstance(value, list):
        raise unsupported(name, UNSORTED)
    for at, item in enumerate(value):
        _read_item(reading, mapping(item, f"{name}[{at}]"), f"{name}[{at}]")


def _read_item(reading: Reading, item: dict[str, Any], path: str) -> None:
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind is None and "id" in item:
        # Providers may take it for a reference, or for something else.
        raise unsupported(f"{path}.id", ELSEWHERE)
    row = ITEMS.get(kind) if isinstance(kind, str) else None
    if row is None:
        raise unsupported(f"{path}.type", UNSORTED)
    if row.content and not any(_holds(item.get(name)) for name in row.content):
        raise unsupported(f"{path}.{'id' if 'id' in item else row.content[0]}", ELSEWHERE)
    if kind == "compaction_trigger":
        _run_twice(reading)
    if kind == "reasoning" and not item.get("encrypted_content"):
        # With an id and a summary alone, a provider that keeps state would look up the whole reasoning.
        item.pop("id", None)
    read_keys(reading, item, row.keys, path)


def _holds(value: Any) -> bool:
    return value is not None and value != []


def context_management(reading: Reading, value: Any, name: str) -> None:
    """Compaction is a second run over the same input, with an output of its own."""
    if not value:
        return
    for at, entry in enumerate(value if isinstance(value, list) else [value]):
        if mapping(entry, f"{name}[{at}]").get("type") != "compaction":
            raise unsupported(f"{name}[{at}].type", UNSORTED)
        read_keys(reading, entry, {}, f"{name}[{at}]")
    _run_twice(reading)


def _run_twice(reading: Reading) -> None:
    reading.runs = 2
