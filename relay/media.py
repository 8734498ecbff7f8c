"""Find images and audio in a request's body. They are priced by ceilings per image and per minute, not by bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Audio at 32 kbit/s, the lowest bit rate assumed, is 240,000 bytes a minute; base64 adds a third. A lower bound on the
# bytes of a minute is an upper bound on the minutes.
BASE64_BYTES_PER_MINUTE = 240_000 * 4 // 3
_MAX_DEPTH = 40
# JSON may escape any letter of these names as \u00XX, so a body with such an escape is searched as well.
_MEDIA_MARKERS = (b"image_url", b"input_image", b"input_audio", b"\\u00")


@dataclass(frozen=True)
class Media:
    """Number of images and started minutes of audio in a body, and the bytes that they occupy there."""

    images: int = 0
    audio_minutes: int = 0
    body_bytes: int = 0


_NO_MEDIA = Media()


def media_of(body: dict[str, Any], raw: bytes) -> Media:
    # Searching the raw JSON for the names first spares most requests the recursive walk.
    if not any(map(raw.__contains__, _MEDIA_MARKERS)):
        return _NO_MEDIA
    images, minutes, media_bytes = 0, 0, 0
    for kind, data in _parts(body, 0):
        media_bytes += len(data)
        if kind == "image":
            images += 1
        else:
            minutes += -(-len(data) // BASE64_BYTES_PER_MINUTE) or 1
    return Media(images, minutes, media_bytes)


def _parts(value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Yield ("image" or "audio", inline data) for each medium in the messages; the data of a link is empty."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value:
            yield from _parts(item, depth + 1)
    elif isinstance(value, dict):
        kind = value.get("type")
        if kind in ("image_url", "input_image"):
            yield "image", _inline(value.get("image_url"))
        elif kind == "input_audio":
            yield "audio", _inline(value.get("input_audio"))
        else:
            for item in value.values():
                yield from _parts(item, depth + 1)


def _inline(source: Any) -> str:
    # Empty for a link: its bytes in the body count as tokens.
    if isinstance(source, dict):
        source = source.get("url") or source.get("data")
        if isinstance(source, str) and not source.startswith(("http:", "https:")):
            return source
        return ""
    return source if isinstance(source, str) and source.startswith("data:") else ""
