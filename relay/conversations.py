"""What identifies a conversation, so that all of its requests go to one upstream account.

Prompt caches and encrypted reasoning are of use only to the account that made them.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from relay.dialects.ask import Ask
from relay.exchange import Request

# Headers by which command-line clients name their session.
SESSION_HEADERS = (b"x-claude-code-session-id", b"session_id", b"session-id")
MAX_HASHED_CHARACTERS = 4096


def conversation_of(request: Request, ask: Ask) -> str:
    """The client's own name for it, else a hash of the first thing that the user said; empty if there is neither."""
    named = ask.conversation or next(filter(None, map(request.header, SESSION_HEADERS)), "")
    if named:
        return named[:MAX_HASHED_CHARACTERS]
    said = _first_said(ask.fields)[:MAX_HASHED_CHARACTERS]
    return blake2b(said.encode(errors="surrogatepass"), digest_size=16).hexdigest() if said else ""


def _first_said(fields: Mapping[str, Any]) -> str:
    turns = fields.get("messages") or fields.get("input")
    if isinstance(turns, str):
        return turns
    if not isinstance(turns, list):
        return ""
    said = (_text(turn.get("content")) for turn in turns if isinstance(turn, dict) and turn.get("role") == "user")
    return next(filter(None, said), "")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return next((text for text in texts if isinstance(text, str) and text), "")
