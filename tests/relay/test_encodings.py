"""Encoded answers, which some upstreams send though identity was asked for."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest

from relay.encodings import MAX_PIECE_BYTES, EncodingError, decoder_for, zstd
from relay.http import HttpClient, HttpError
from tests.relay.conftest import run_async
from tests.relay.servers import Script, Server, listening, reply

TEXT = b'{"choices": []}' * 100


def bare_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "x-gzip": gzip.compress}
CASES = [*ENCODERS.items(), ("deflate", zlib.compress), ("Deflate", bare_deflate)]
if zstd:
    CASES.append(("zstd", zstd.compress))


async def fetched(script: Script, max_bytes: int = 1 << 20) -> bytes:
    client = HttpClient()
    try:
        async with listening(Server(script)) as server:
            response = await client.request("POST", server.url, headers=(), connect_timeout_s=2, timeout_s=5)
            with response:
                return await response.read(max_bytes)
    finally:
        client.close()


def encoded(name: str, body: bytes) -> Script:
    return reply(200, body, f"Content-Encoding: {name}")


@pytest.mark.parametrize(("name", "encode"), CASES)
def test_an_encoded_answer_is_decoded(name: str, encode: Callable[[bytes], bytes]) -> None:
    assert run_async(fetched(encoded(name, encode(TEXT)))) == TEXT


@pytest.mark.parametrize(("name", "encode"), CASES)
def test_bytes_that_arrive_one_by_one_are_decoded_as_they_arrive(name: str, encode: Callable[[bytes], bytes]) -> None:
    decoder = decoder_for(name)
    assert decoder is not None
    got = [b"".join(decoder.feed(bytes([byte]))) for byte in encode(TEXT)]
    decoder.finish()

    assert b"".join(got) == TEXT


def test_each_flushed_event_of_an_encoded_stream_arrives_at_once() -> None:
    async def scene() -> list[bytes]:
        encoder = zlib.compressobj(wbits=31)
        parts = [
            encoder.compress(event) + encoder.flush(zlib.Z_SYNC_FLUSH) for event in (b"data: 1\n\n", b"data: 2\n\n")
        ]
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
        client = HttpClient()
        async with listening(Server([head + parts[0], 0.1, parts[1] + encoder.flush(), b"hang up"])) as server:
            with await client.request("GET", server.url, headers=(), connect_timeout_s=2, timeout_s=5) as response:
                return [chunk async for chunk in response.chunks()]

    assert run_async(scene()) == [b"data: 1\n\n", b"data: 2\n\n"]


def test_several_members_are_one_body() -> None:
    assert run_async(fetched(encoded("gzip", gzip.compress(b"a") + gzip.compress(b"b")))) == b"ab"


@pytest.mark.parametrize(("name", "encode"), CASES)
def test_a_body_cut_short_is_an_error(name: str, encode: Callable[[bytes], bytes]) -> None:
    with pytest.raises(HttpError, match="ends early"):
        run_async(fetched(encoded(name, encode(TEXT)[:-3])))


@pytest.mark.parametrize(("name", "encode"), CASES)
def test_a_bomb_is_stopped_long_before_its_end(name: str, encode: Callable[[bytes], bytes]) -> None:
    decoder = decoder_for(name)
    assert decoder is not None
    sizes: list[int] = []
    with pytest.raises(EncodingError, match="beyond measure"):
        sizes.extend(map(len, decoder.feed(encode(bytes(64 << 20)))))

    assert sum(sizes) < 32 << 20 and all(size <= MAX_PIECE_BYTES for size in sizes)


def test_the_limit_of_a_read_counts_decoded_bytes() -> None:
    with pytest.raises(HttpError, match="longer than 1000 bytes"):
        run_async(fetched(encoded("gzip", gzip.compress(TEXT)), max_bytes=1000))


@pytest.mark.parametrize("name", ["br", "aes128gcm", "gzip, gzip"])
def test_an_unknown_encoding_is_an_error(name: str) -> None:
    with pytest.raises(HttpError, match="not asked for"):
        run_async(fetched(encoded(name, b"xyz")))


def test_bytes_in_another_encoding_than_declared_are_an_error() -> None:
    with pytest.raises(HttpError, match="not encoded as declared"):
        run_async(fetched(encoded("gzip", TEXT)))
