"""What identifies a conversation, so that all of its requests go to one upstream account.

Prompt caches and encrypted reasoning are of use only to the account that made them.
"""

from __future__ import annotations

from hashlib import blake2b

from relay.dialects.ask import Ask
from relay.exchange import Request

# Headers by which command-line clients name their session.
SESSION_HEADERS = (b"x-claude-code-session-id", b"session_id", b"session-id")
MAX_NAME_CHARACTERS = 4096


def conversation_of(request: Request, ask: Ask) -> str:
    """The client's own name for it, else a hash of the first thing that the user said; empty if there is neither."""
    named = ask.conversation or next(filter(None, map(request.header, SESSION_HEADERS)), "")
    if named or not ask.said:
        return named[:MAX_NAME_CHARACTERS]
    return blake2b(ask.said.encode(errors="surrogatepass"), digest_size=16).hexdigest()
