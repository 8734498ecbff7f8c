"""Undo the Content-Encoding of a request's body, within a limit on the decoded size."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import zstandard

from relay.errors import ApiError, too_large

# Whole blocks of this size are decoded at a time, so that a bomb is noticed after one block beyond the limit.
_BLOCK_BYTES = 256 * 1024


def decode_body(raw: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """The body as it was before its encodings, undone from the last to the first.

    Raises ApiError 415 for an encoding other than gzip, deflate and zstd, 400 for a body that is not in its encoding,
    and 413 for one that is longer than `max_bytes` when it is decoded.
    """
    names = [name.strip() for name in encoding.lower().split(",")]
    for name in reversed([name for name in names if name not in ("", "identity")]):
        decode = _DECODERS.get(name)
        if decode is None:
            raise ApiError(415, "invalid_request", f"Content-Encoding: {name[:40]} is none of gzip, deflate, zstd.")
        try:
            raw = decode(raw, max_bytes)
        except (zlib.error, zstandard.ZstdError, EOFError) as error:
            raise ApiError(400, "invalid_request", f"The body is not valid {name}.") from error
    return raw


def _inflate(raw: bytes, max_bytes: int, *, window: int) -> bytes:
    decoder = zlib.decompressobj(window)
    parts, size = [], 0
    while raw and not decoder.eof:
        part = decoder.decompress(raw, _BLOCK_BYTES)
        raw = decoder.unconsumed_tail
        size += len(part)
        if size > max_bytes:
            raise too_large(max_bytes)
        parts.append(part)
    if not decoder.eof or decoder.unused_data:
        raise EOFError
    return b"".join(parts)


def _gunzip(raw: bytes, max_bytes: int) -> bytes:
    return _inflate(raw, max_bytes, window=16 + zlib.MAX_WBITS)


def _deflate(raw: bytes, max_bytes: int) -> bytes:
    # RFC 9110 means zlib's format; some clients send the bare stream that the name suggests.
    try:
        return _inflate(raw, max_bytes, window=zlib.MAX_WBITS)
    except (zlib.error, EOFError):
        return _inflate(raw, max_bytes, window=-zlib.MAX_WBITS)


def _unzstd(raw: bytes, max_bytes: int) -> bytes:
    parts, size = [], 0
    for part in zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024).read_to_iter(raw, write_size=_BLOCK_BYTES):
        size += len(part)
        if size > max_bytes:
            raise too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _deflate,
    "zstd": _unzstd,
}
