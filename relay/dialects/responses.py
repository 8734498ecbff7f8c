"""POST /v1/responses."""

from __future__ import annotations

from typing import Any

from relay.dialects.ask import Pointer
from relay.dialects.dialect import Dialect
from relay.dialects.fields import FORMAT, GENERATING, OPEN, PASS, PROMPT_BY_ID, TOOL_CHOICE, Row, Table, Verdict
from relay.dialects.items import context_management, read_input
from relay.dialects.reading import Reading, text
from relay.dialects.tools import bound_tool_calls, read_tools, tool_calls


def _pointer(reading: Reading, value: Any, name: str) -> None:
    """An earlier response or a conversation: its length is unknown here, so the context window is held."""
    if value is None:
        del reading.fields[name]
        return
    param, pointed = (f"{name}.id", value.get("id")) if isinstance(value, dict) else (name, value)
    reading.pointers.append(Pointer(param, text(pointed, param)))
    reading.conversation = reading.conversation or str(pointed)
    reading.context_reads = max(reading.context_reads, 1)


def _instructions(reading: Reading, value: Any, name: str) -> None:
    if value is not None:
        text(value, name)


ROWS: Table = {
    **GENERATING,
    "input": Row(Verdict.BOUND, read_input),
    "instructions": Row(Verdict.BOUND, _instructions),
    "prompt": PROMPT_BY_ID,
    "previous_response_id": Row(Verdict.POINTER, _pointer),
    "conversation": Row(Verdict.POINTER, _pointer),
    "tools": Row(Verdict.PRICED, read_tools),
    "max_tool_calls": Row(Verdict.WRITTEN, tool_calls),
    "context_management": Row(Verdict.BOUND, context_management),
    "tool_choice": TOOL_CHOICE,
    "text": FORMAT,
    "client_metadata": OPEN,
    **dict.fromkeys(("include", "image", "parallel_tool_calls", "truncation"), PASS),
}

DIALECT = Dialect(
    path="/responses",
    rows=ROWS,
    finish=bound_tool_calls,
    limit_names=lambda profile: ("max_output_tokens",),
    stores=True,
    has_tiers=True,
)
