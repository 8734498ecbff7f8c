"""Lists of prompts: how many there are in what completions and embeddings take."""

from __future__ import annotations

from typing import Any

from relay.dialects.names import UNSORTED, unsupported
from relay.dialects.reading import Reading
from relay.errors import invalid

MAX_PROMPTS = 2048
_SLICE = 50_000


def read_prompts(reading: Reading, value: Any, name: str) -> None:
    """Count prompts: a text or a flat list of tokens is one, and so is each text or list of tokens in a list."""
    if value is None or isinstance(value, str):
        return
    if not isinstance(value, list):
        raise unsupported(name, UNSORTED)
    kinds = _kinds(value)
    if kinds <= {int}:
        return
    if not kinds <= {str, list} or not all(map(_is_prompt, value)):
        at = next(at for at, inner in enumerate(value) if not _is_prompt(inner))
        raise unsupported(f"{name}[{at}]", UNSORTED)
    if len(value) > MAX_PROMPTS:
        raise invalid(f"{name} may hold {MAX_PROMPTS} at most.", name)
    reading.prompts = len(value)


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and _kinds(value) <= {int})


def _kinds(values: list[Any]) -> set[type]:
    # In slices, because no other thread runs during one C call.
    return {kind for at in range(0, len(values), _SLICE) for kind in set(map(type, values[at : at + _SLICE]))}
