"""Decoders of Content-Encoding, whose output is bounded: a few bytes may stand for gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol

# The most that one decoding step returns.
MAX_PIECE_BYTES = 256 * 1024
# An answer of text is at most some 30 times as long as its encoding. One that is longer by far is a bomb.
MAX_EXPANSION = 200
MIN_BOMB_BYTES = 4 * 1024 * 1024


class EncodingError(Exception):
    """The bytes are not in the encoding that was declared, end early, or expand beyond measure."""


class _Stream(Protocol):
    """What zlib's and zstd's decompressors have in common: one member of an encoded body."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """zlib's decompressor with the interface of bz2, lzma and zstd: input beyond `max_length` is kept for later."""

    def __init__(self, *, wbits: int) -> None:
        self._object = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._object.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._object.decompress(self._object.unconsumed_tail + data, max_length)


class Decoder:
    """Decodes a body piece by piece. `feed` yields pieces of at most MAX_PIECE_BYTES; `finish` checks the end.

    Both raise EncodingError.
    """

    def __init__(self, make: Callable[[bytes], _Stream]) -> None:
        self._make = make
        self._stream: _Stream | None = None
        self._fed = 0
        self._returned = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._fed += len(data)
        while data:
            stream = self._stream or self._make(data)
            yield from self._pieces(stream, data)
            # Some servers encode each event as a member of its own.
            data, self._stream = (stream.unused_data, None) if stream.eof else (b"", stream)

    def finish(self) -> None:
        if self._stream is not None:
            raise EncodingError("the encoded body ends early")

    def _pieces(self, stream: _Stream, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = stream.decompress(data, MAX_PIECE_BYTES)
            except _ERRORS as error:
                raise EncodingError(f"not encoded as declared: {type(error).__name__}") from None
            self._returned += len(piece)
            if self._returned > max(MIN_BOMB_BYTES, self._fed * MAX_EXPANSION):
                raise EncodingError("the encoded body expands beyond measure")
            if piece:
                yield piece
            data = b""
            if stream.eof or (stream.needs_input and len(piece) < MAX_PIECE_BYTES):
                return


def _zstd() -> Any:
    # In the standard library from Python 3.14 on; before that the package backports.zstd has the same interface.
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    return None


zstd: Any = _zstd()
_ERRORS: tuple[type[Exception], ...] = (zlib.error, EOFError, *((zstd.ZstdError,) if zstd else ()))


def _gzip(_: bytes) -> _Stream:
    return _Zlib(wbits=31)


def _deflate(start: bytes) -> _Stream:
    # "deflate" means the zlib format; some servers send the bare deflate format instead.
    is_zlib = start[0] & 0x0F == 8 and (len(start) < 2 or int.from_bytes(start[:2], "big") % 31 == 0)
    return _Zlib(wbits=15 if is_zlib else -15)


def _zstandard(_: bytes) -> _Stream:
    # A frame may ask for a window of gigabytes; 8 MiB is what every decoder must support (RFC 9659).
    stream: _Stream = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    return stream


_MAKERS: dict[str, Callable[[bytes], _Stream]] = {"gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate}
if zstd:
    _MAKERS["zstd"] = _zstandard


def decoder_for(encoding: str) -> Decoder | None:
    """The decoder of a Content-Encoding header; None for identity. Raises EncodingError if there is none."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in _MAKERS:
        raise EncodingError(f"encoded as {name[:40]!r}, which was not asked for")
    return Decoder(_MAKERS[name])
