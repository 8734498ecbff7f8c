"""Options of a filter, and links that change one parameter of a page's query string."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Choice(NamedTuple):
    value: str
    label: str
    is_current: bool


class Link(NamedTuple):
    label: str
    url: str
    is_current: bool


def choices_of(names: Iterable[str], *, everything: str, current: str) -> list[Choice]:
    """Return the option `everything`, then the sorted names; `current` is added if it is not among them."""
    offered = sorted({*names, current} - {""})
    return [Choice("", everything, not current), *(Choice(name, name, name == current) for name in offered)]
