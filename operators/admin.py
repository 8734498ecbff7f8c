"""Django admin looks for pages here: importing a module registers those that it holds."""

from __future__ import annotations

from operators import activity, books, people, spaces, upstreams, usage

__all__ = ["activity", "books", "people", "spaces", "upstreams", "usage"]
