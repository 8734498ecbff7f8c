"""Django admin autodiscovers this module: importing each module below registers its pages."""

from __future__ import annotations

from operators import activity, books, people, prices, spaces, upstreams, usage

__all__ = ["activity", "books", "people", "prices", "spaces", "upstreams", "usage"]
