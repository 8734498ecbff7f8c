"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from relay.dialects.content import prediction, read_messages
from relay.dialects.dialect import Dialect
from relay.dialects.fields import FORMAT, GENERATING, PASS, TOOL_CHOICE, Row, Table, Verdict
from relay.dialects.reading import TOOLS_PREAMBLE_TOKENS, Reading, objects
from relay.dialects.tools import chat_search, chat_tools, read_function
from relay.profiles import Profile


def _functions(reading: Reading, value: Any, name: str) -> None:
    functions = objects(value or [], name)
    if functions:
        reading.added_tokens += TOOLS_PREAMBLE_TOKENS
    for at, function in enumerate(functions):
        read_function(reading, function, f"{name}[{at}]")


ROWS: Table = {
    **GENERATING,
    "messages": Row(Verdict.BOUND, read_messages),
    "prediction": Row(Verdict.BOUND, prediction),
    "tools": Row(Verdict.PRICED, chat_tools),
    "web_search_options": Row(Verdict.PRICED, chat_search),
    **dict.fromkeys(("tool_choice", "function_call"), TOOL_CHOICE),
    "response_format": FORMAT,
    "functions": Row(Verdict.BOUND, _functions),
    **dict.fromkeys(("parallel_tool_calls", "reasoning_effort", "verbosity", "thinking"), PASS),
    **dict.fromkeys(("safe_prompt", "random_seed", "prompt_mode", "tool_stream"), PASS),
}

_LIMIT_NAMES = {
    "max_completion_tokens": ("max_completion_tokens",),
    "max_tokens": ("max_tokens",),
    "both": ("max_completion_tokens", "max_tokens"),
    "none": (),
}


def _limit_names(profile: Profile) -> tuple[str, ...]:
    return _LIMIT_NAMES[profile.limit_field]


DIALECT = Dialect(path="/chat/completions", rows=ROWS, limit_names=_limit_names, asks_usage=True, has_tiers=True)
