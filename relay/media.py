"""Pictures and sound inside a request's body: their bytes are no tokens, so they are counted apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Sound of 32 kbit/s, the most minutes that so many bytes can hold; base64 makes four characters of three bytes.
BASE64_BYTES_PER_MINUTE = 240_000 * 4 // 3
_MAX_DEPTH = 40
# As JSON may write them: a letter escaped as \uXXXX is media_bytes for any of them.
_MEDIA_MARKERS = (b"image_url", b"input_image", b"input_audio", b"\\u00")


@dataclass(frozen=True)
class Media:
    """How many pictures and started minutes of sound, and how many bytes of the body they take."""

    images: int = 0
    audio_minutes: int = 0
    body_bytes: int = 0


_NO_MEDIA = Media()


def media_of(body: dict[str, Any], raw: bytes) -> Media:
    """What `body` holds, which was read from `raw`: a search there spares most requests the walk."""
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
    """(image or audio, its data: empty where it is only pointed at) for each medium in the messages."""
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
    """The data in a data: URL or an audio part; a link elsewhere is not media in the body."""
    if isinstance(source, dict):
        source = source.get("url") or source.get("data")
        if isinstance(source, str) and not source.startswith(("http:", "https:")):
            return source
        return ""
    return source if isinstance(source, str) and source.startswith("data:") else ""
