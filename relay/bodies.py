"""Undo the Content-Encoding of a request's body, within a limit on the decoded size."""

from __future__ import annotations

from relay.encodings import Decoder, EncodingError, decoder_for
from relay.errors import ApiError, too_large

# Each of several encodings decodes the whole body once.
MAX_ENCODINGS = 3


def decode_body(raw: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """The body as it was before its encodings, undone from the last to the first.

    Raises ApiError 415 for an encoding other than gzip, deflate and zstd, 400 for a body that is not in its encoding,
    and 413 for one that is longer than `max_bytes` when it is decoded.
    """
    names = [name for name in map(str.strip, encoding.lower().split(",")) if name not in ("", "identity")]
    if len(names) > MAX_ENCODINGS:
        raise _unsupported(encoding)
    for name in reversed(names):
        try:
            decoder = decoder_for(name)
        except EncodingError:
            raise _unsupported(name) from None
        if decoder is not None:
            raw = _decode(decoder, raw, name, max_bytes)
    return raw


def _decode(decoder: Decoder, raw: bytes, name: str, max_bytes: int) -> bytes:
    parts, size = [], 0
    try:
        for part in decoder.feed(raw):
            size += len(part)
            if size > max_bytes:
                raise too_large(max_bytes)
            parts.append(part)
        decoder.finish()
    except EncodingError as error:
        raise ApiError(400, "invalid_request", f"The body is not valid {name}: {error}.") from None
    return b"".join(parts)


def _unsupported(name: str) -> ApiError:
    return ApiError(415, "invalid_request", f"Content-Encoding: {name[:40]} is none of gzip, deflate, zstd.")
