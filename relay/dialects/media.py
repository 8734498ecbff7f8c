"""Pictures, sound and documents in a body: how many pieces, and which of its bytes are no text.

Only bytes that are what they claim to be are taken off the text. Everything else is counted as text as well, so that
text that poses as a picture costs what text costs.
"""

from __future__ import annotations

import base64
import re
from binascii import Error as Base64Error
from typing import Any

from relay.dialects.names import ELSEWHERE, unsupported
from relay.dialects.reading import Reading, text
from relay.errors import invalid

# The first bytes of pictures that providers read. SVG is text.
_PICTURES = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM|II\*\0|MM\0\*|.{4}ftyp(?:avif|avis|heic|heix|hevc|mif1|msf1)",
    re.DOTALL,
)
_PICTURE_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]{0,30}):", re.IGNORECASE)
# Gateways fetch a link, and send on what its name says that it is.
_OTHER_MEDIA = re.compile(
    r"^[^?#]*\.(pdf|mp4|m4v|mov|mkv|webm|avi|mpe?g|wmv|flv|3gp|mp3|wav|flac|ogg|m4a|aac)($|[?#])", re.I
)
MAX_LINK_LENGTH = 8192
_SOUND_URL = re.compile(r"data:[^,;]{0,60}(?:;[^,]{0,60})?;base64,", re.IGNORECASE)
# Encoded bytes that are decoded to see what a medium is. A multiple of four; ID3 tags of sound are skipped apart.
_HEAD_CHARS = 128
# MPEG audio has no lower bit rate than 8 kbit/s, which is 60,000 bytes a minute.
MP3_BYTES_PER_MINUTE = 60_000
# No microphone has more: 192 kHz, eight channels, 32 bits. A header that says more may be a lie.
MAX_WAVE_BYTES_PER_S = 192_000 * 8 * 4
# Tags of WAVE encodings with a fixed number of bytes a second: PCM, float, A-law, µ-law.
_PLAIN_WAVES = (1, 3, 6, 7)


def _head(encoded: str, at: int = 0) -> bytes:
    chunk = encoded[at : at + _HEAD_CHARS]
    try:
        return base64.b64decode(chunk[: len(chunk) // 4 * 4], validate=True)
    except (Base64Error, ValueError):
        return b""


def picture(reading: Reading, value: Any, param: str) -> None:
    """Judge where a picture is. The picture itself was counted with its part, which may name none."""
    url = text(value, param)
    if match := _PICTURE_URL.match(url):
        _inline_picture(reading, url, _head(url, match.end()))
        return
    scheme = _SCHEME.match(url)
    name = scheme[1].lower() if scheme else ""
    # A provider would read file:, gs: and s3: with rights that are not the client's.
    if name not in ("", "http", "https", "data") or _OTHER_MEDIA.match(url[:MAX_LINK_LENGTH]):
        raise unsupported(param, ELSEWHERE)
    if name == "data":
        _read_window(reading)
    elif name and len(url) > MAX_LINK_LENGTH:
        raise invalid(f"{param} is a link of more than {MAX_LINK_LENGTH} characters.", param)


def _inline_picture(reading: Reading, url: str, head: bytes) -> None:
    if _PICTURES.match(head):
        reading.media_bytes += len(url)
    elif not head.isascii() or head.startswith(b"%PDF"):
        # Some providers take documents and films for pictures, and go by the bytes.
        _read_window(reading)


def _read_window(reading: Reading) -> None:
    reading.context_reads = max(reading.context_reads, 1)


def made_picture(reading: Reading, value: Any, param: str) -> None:
    """A picture that a hosted tool made earlier, as plain base64."""
    reading.images += 1
    if _PICTURES.match(_head(text(value, param))):
        reading.media_bytes += len(value)


def sound(reading: Reading, value: Any, param: str) -> None:
    """Count the started minutes of a recording.

    The length of WAVE and MP3 has an upper bound by the bytes. Other formats compress silence to nothing; for these the
    whole context window is held, at the price of sound where it is dearer.
    """
    data = text(value, param)
    match = _SOUND_URL.match(data)
    start = match.end() if match else 0
    if not match and _SCHEME.match(data):
        raise unsupported(param, ELSEWHERE)
    size = (len(data) - start) * 3 // 4
    rate = _bytes_per_minute(data, start)
    reading.minutes += max(-(-size // (rate or MP3_BYTES_PER_MINUTE)), 1)
    if rate:
        reading.media_bytes += len(data)
    else:
        _read_window(reading)


def _bytes_per_minute(encoded: str, start: int) -> int:
    """The fewest bytes that a minute of this recording takes; 0 if that is not known."""
    head = _head(encoded, start)
    if head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt ":
        return _wave_bytes_per_minute(head)
    if head[:3] == b"ID3":
        # The tag's size is written in seven bits a byte. Other sound than MP3 may follow it as well.
        size = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        head = _head(encoded, start + size // 3 * 4)[size % 3 :]
    return MP3_BYTES_PER_MINUTE if _is_mp3(head) else 0


def _is_mp3(head: bytes) -> bool:
    # Frame sync, layer III, and a bit rate from its table: 0 is "free", without a lower bound.
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] & 0xF0 != 0


def _wave_bytes_per_minute(head: bytes) -> int:
    fields = [int.from_bytes(head[at : at + size], "little") for at, size in ((20, 2), (22, 2), (24, 4), (28, 4))]
    encoding, channels, samples, told = fields
    sample_bits = int.from_bytes(head[34:36], "little")
    if encoding not in _PLAIN_WAVES or not sample_bits:
        return 0
    rate = min(channels * samples * sample_bits // 8, told)
    return 0 if rate > MAX_WAVE_BYTES_PER_S else rate * 60


def document(reading: Reading, value: Any, param: str) -> None:
    """Documents are compressed, and pages become pictures beside their text: the context window is held."""
    data = text(value, param)
    scheme = _SCHEME.match(data[:100])
    if scheme and scheme[1].lower() != "data":
        raise unsupported(param, ELSEWHERE)
    _read_window(reading)
