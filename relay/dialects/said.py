"""What a conversation began with, and what of a completion only repeats its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_SAID_CHARACTERS = 4096


def first_said(fields: Mapping[str, Any]) -> str:
    """The beginning of the first text of the user; empty where there is none."""
    turns = fields.get("messages") or fields.get("input")
    if isinstance(turns, str):
        return turns[:MAX_SAID_CHARACTERS]
    if not isinstance(turns, list):
        return ""
    said = (_text(turn.get("content")) for turn in turns if isinstance(turn, dict) and turn.get("role") == "user")
    return next(filter(None, said), "")[:MAX_SAID_CHARACTERS]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return next((text for text in texts if isinstance(text, str) and text), "")


def echoed_bytes(fields: Mapping[str, Any], outputs_per_prompt: int) -> int:
    """How much of a completion's text repeats its prompts. Prompts of tokens are echoed as text of unknown length."""
    if fields.get("echo") is not True:
        return 0
    prompt = fields.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    return outputs_per_prompt * sum(len(each.encode(errors="replace")) for each in prompts if isinstance(each, str))
