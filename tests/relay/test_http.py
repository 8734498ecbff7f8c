"""The HTTP client against slow, silent, broken and closing servers, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from relay.http import MAX_RESPONSE_HEAD_BYTES, HttpClient, HttpError, UpstreamResponse
from tests.relay.conftest import run_async
from tests.relay.servers import Script, Server, listening

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain; charset=x\r\n\r\nhello"


@asynccontextmanager
async def serving(*scripts: Script) -> AsyncIterator[tuple[Server, HttpClient]]:
    client = HttpClient()
    try:
        async with listening(Server(*scripts), "/v1/x?y=1") as server:
            yield server, client
    finally:
        client.close()


async def ask(
    client: HttpClient, url: str, *, timeout_s: float = 5.0, body: bytes = b"{}", is_fresh: bool = False
) -> UpstreamResponse:
    return await client.request(
        "POST", url, headers=(("x-a", "b"),), body=body, connect_timeout_s=2, timeout_s=timeout_s, is_fresh=is_fresh
    )


async def read(client: HttpClient, url: str) -> bytes:
    with await ask(client, url) as answer:
        return await answer.read(1 << 20)


def test_a_keep_alive_connection_is_reused() -> None:
    async def scene() -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        async with serving([WHOLE], [chunked], [WHOLE]) as (server, client):
            assert [await read(client, server.url) for _ in range(3)] == [b"hello", b"abcde", b"hello"]
            assert server.connections == 1
            assert server.requests[0].startswith(b"POST /v1/x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:")
            assert server.requests[0].endswith(b"x-a: b\r\ncontent-length: 2\r\n\r\n{}")

    run_async(scene())


def test_the_head_is_available_before_the_body() -> None:
    async def scene() -> None:
        async with serving([WHOLE[:-3], 0.1, WHOLE[-3:]]) as (server, client):
            with await ask(client, server.url) as answer:
                assert (answer.status, answer.content_type) == (200, "text/plain")
                assert [chunk async for chunk in answer.chunks()] == [b"he", b"llo"]

    run_async(scene())


@pytest.mark.parametrize(
    "script",
    [
        [WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"hang up"],
        [b"HTTP/1.1 200 OK\r\n\r\nhello", b"hang up"],
        [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
    ],
)
def test_a_connection_that_the_server_will_close_is_not_reused(script: Script) -> None:
    async def scene() -> None:
        async with serving(script, [WHOLE]) as (server, client):
            assert [await read(client, server.url) for _ in range(2)] == [b"hello", b"hello"]
            assert server.connections == 2

    run_async(scene())


def test_an_informational_response_is_skipped() -> None:
    async def scene() -> None:
        async with serving([b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE]) as (server, client):
            with await ask(client, server.url) as answer:
                assert answer.status == 200 and "link" not in answer.headers
                assert await answer.read(9) == b"hello"

    run_async(scene())


def test_bytes_before_a_broken_connection_are_delivered() -> None:
    async def scene() -> None:
        async with serving([WHOLE[:-2], b"hang up"]) as (server, client):
            got = []
            with await ask(client, server.url) as answer:
                chunks = aiter(answer.chunks())
                got.append(await anext(chunks))
                with pytest.raises(HttpError):
                    await anext(chunks)
            assert b"".join(got) == b"hel"

    run_async(scene())


def test_a_connection_that_was_closed_while_idle_is_replaced_before_anything_is_sent() -> None:
    async def scene() -> None:
        async with serving([WHOLE, b"hang up"], [WHOLE]) as (server, client):
            assert await read(client, server.url) == b"hello"
            # The loop has not read the end of the connection yet: the socket alone knows of it.
            time.sleep(0.05)
            assert await read(client, server.url) == b"hello"
            assert (server.connections, len(server.requests)) == (2, 2)

    run_async(scene())


def test_a_request_that_the_server_accepted_is_never_sent_again() -> None:
    async def scene() -> None:
        async with serving([WHOLE], [b"hang up"], [WHOLE]) as (server, client):
            assert await read(client, server.url) == b"hello"
            with pytest.raises(HttpError, match="broke"):
                await ask(client, server.url)
            assert (server.connections, len(server.requests)) == (1, 2)

    run_async(scene())


def test_a_fresh_request_uses_no_kept_connection() -> None:
    async def scene() -> None:
        async with serving([WHOLE], [WHOLE]) as (server, client):
            assert await read(client, server.url) == b"hello"
            with await ask(client, server.url, is_fresh=True) as answer:
                assert await answer.read(9) == b"hello"
            assert server.connections == 2

    run_async(scene())


def test_only_so_many_connections_and_pools_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.http.MAX_IDLE_CONNECTIONS", 2)
    monkeypatch.setattr("relay.http.MAX_POOLS", 1)

    async def scene() -> None:
        slow: Script = [0.1, WHOLE]
        async with serving(slow, slow, slow, slow, slow, [WHOLE], [WHOLE], [WHOLE]) as (server, client):
            await asyncio.gather(*(read(client, server.url) for _ in range(5)))
            assert server.connections == 5
            assert sum(map(len, client._pools.values())) == 2
            async with listening(Server([WHOLE])) as other:
                await read(client, other.url)
            assert len(client._pools) == 1
            await read(client, server.url)
            assert server.connections == 6

    run_async(scene())


def test_a_silent_server_times_out_before_and_within_the_body() -> None:
    async def scene() -> None:
        async with serving([5.0], [WHOLE[:-1], 5.0]) as (server, client):
            with pytest.raises(HttpError, match="silent"):
                await ask(client, server.url, timeout_s=0.2)
            with await ask(client, server.url, timeout_s=0.2) as answer, pytest.raises(HttpError, match="silent"):
                await answer.read(9)

    run_async(scene())


def test_a_slow_reader_causes_backpressure_and_loses_no_bytes() -> None:
    async def scene() -> None:
        size = 8 << 20
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
        async with serving([head, b"x" * size]) as (server, client):
            with await ask(client, server.url, timeout_s=0.4) as answer:
                await asyncio.sleep(0.6)
                assert len(await answer.read(size)) == size

    run_async(scene())


@pytest.mark.parametrize(
    "reply",
    [
        b"SMTP ready\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * (MAX_RESPONSE_HEAD_BYTES + 1) + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_an_invalid_or_unsupported_response_is_an_error(reply: bytes) -> None:
    async def scene() -> None:
        async with serving([reply, 2.0]) as (server, client):
            with pytest.raises(HttpError):
                await ask(client, server.url, timeout_s=1.0)

    run_async(scene())


def test_a_body_over_the_limit_and_a_line_break_in_a_header_are_refused() -> None:
    async def scene() -> None:
        async with serving([WHOLE]) as (server, client):
            with await ask(client, server.url) as answer, pytest.raises(HttpError, match="longer"):
                await answer.read(4)
            with pytest.raises(HttpError, match="line break"):
                await client.request("GET", server.url, headers=(("a", "b\r\nc: d"),), connect_timeout_s=1, timeout_s=1)

    run_async(scene())


def test_a_failed_connection_is_an_error() -> None:
    async def scene() -> None:
        client = HttpClient()
        for url in ("http://127.0.0.1:1/x", "http://nowhere.invalid/x", "https://127.0.0.1:1/"):
            with pytest.raises(HttpError, match="no connection"):
                await ask(client, url)

    run_async(scene())
