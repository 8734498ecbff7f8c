"""What a client asks for: read once from the parsed body. The body for the upstream is written from it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from relay.pricing import Extent


@dataclass(frozen=True, slots=True)
class Need:
    """A price that the model must have for a field of the request; without one the request is refused.

    `price` names a price of Rate, or a row as "name=value" (`service_tier=priority`). `param` is the field's path, such
    as `tools[0].type`.
    """

    param: str
    price: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """An id of content that an upstream keeps (a response or conversation), which must be the caller's own."""

    param: str
    id: str


@dataclass(frozen=True, slots=True)
class Media:
    """Pictures and started minutes of sound in a body. They are priced by the model's ceilings."""

    images: int = 0
    audio_minutes: int = 0


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `fields` is the body as it goes upstream, without what `Dialect.body_for` adds for each upstream.

    `extent` is the most that it can consume; `media` is added to it at the model's ceilings. `limit` is the completion
    limit that the client named, None if it named none. `facts` choose the price row, as in PriceRow.when. `candidates`
    of the bound are these facts and none at all, because the answer may come from a cheaper or dearer tier.
    """

    model: str
    fields: Mapping[str, Any]
    extent: Extent
    media: Media = Media()
    is_stream: bool = False
    # Whether the client asked for the usage of a stream; dialects that always tell it set True.
    shows_usage: bool = True
    limit: int | None = None
    facts: Mapping[str, str] = msgspec.field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    # Top-level fields that no table knows. They pass, unless the upstream's profile refuses them.
    unknown: tuple[str, ...] = ()
    # What identifies the conversation, so that all its requests go to one upstream; empty if nothing does.
    conversation: str = ""
    # The beginning of the first thing that the user said.
    said: str = ""
    # Bytes of the answer's text that repeat the prompt.
    echo_bytes: int = 0
    # Names in `fields` that are written anew for each upstream: pseudonyms, `store`, budgets within the limit.
    written: tuple[str, ...] = ()
    # The most pictures that a hosted tool can make, by the name of the tool's price row.
    made_pictures: Mapping[str, int] = msgspec.field(default_factory=dict)
