"""Limits for slow clients, upgrades, pipelining and coalesced writes, tested over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import pytest
import uvicorn

from spacemanage.connections import (
    MAX_COALESCED_BYTES,
    MAX_PIPELINED_REQUESTS,
    MAX_REQUEST_HEAD_BYTES,
    MAX_UPGRADES_PER_READ,
    Connection,
)
from tests.relay.conftest import wait_for

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
TIMEOUT_S = 0.5
# Both exceed the kernel's socket buffers, which these tests make small. The first also makes uvicorn pause the
# application (backpressure); the second waits in the transport's write buffer without that.
LONG_BYTES = 10_000_000
MIDDLING_BYTES = 40_000


class Counted:
    """A real transport that counts its writes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes = 0
        self.largest = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.largest = max(self.largest, len(data))
        self._transport.write(data)


class Impatient(Connection):
    HEAD_TIMEOUT_S = BODY_TIMEOUT_S = WRITE_TIMEOUT_S = TIMEOUT_S
    MIN_BODY_BYTES_PER_S = 100
    TIMEOUT_CHECK_INTERVAL_S = 0.05
    # Client port → transport.
    transports: ClassVar[dict[int, Counted]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        counted = self.transports[transport.get_extra_info("peername")[1]] = Counted(transport)
        super().connection_made(cast("asyncio.Transport", counted))


class Application:
    """Read the body, wait for the seconds in the path, answer as the query says, and record how each request ended.

    `?watch` waits for the client's disconnect, `?late` waits before reading, `?head` waits after the response's head.
    `?long` answers LONG_BYTES, `?middling` MIDDLING_BYTES, `?small` many small chunks, `?names` the names of the
    request's headers, anything else `read N`.
    """

    def __init__(self) -> None:
        # Keyed by client port, because a request of the previous test may still be running.
        self.seen: dict[int, list[str]] = defaultdict(list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        wait_s, how = float(scope["path"].strip("/") or 0), scope["query_string"]
        seen = self.seen[scope["client"][1]]
        await asyncio.sleep(wait_s if how == b"late" else 0)
        size = await self._read(receive)
        if how == b"watch":
            size = await self._read(receive)
        if size is None:
            seen.append("left")
            return
        names = b",".join(name for name, _ in scope["headers"])
        body = self._answers(names).get(how, b"read %d" % size)
        await asyncio.sleep(0 if how == b"head" else wait_s)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        if how == b"head":
            await asyncio.sleep(wait_s)
        piece = 8_000 if how == b"small" else 100_000
        for at in range(0, len(body), piece):
            await send({"type": "http.response.body", "body": body[at : at + piece], "more_body": True})
        await send({"type": "http.response.body"})
        seen.append("sent")

    def _answers(self, names: bytes) -> dict[bytes, bytes]:
        return {
            b"long": b"x" * LONG_BYTES,
            b"small": b"x" * 10 * MIDDLING_BYTES,
            b"middling": b"x" * MIDDLING_BYTES,
            b"names": names,
        }

    async def _read(self, receive: Any) -> int | None:
        """Return the body's size, or None when the client disconnected."""
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                return size
        return None


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Application, int]]:
    application = Application()
    config = uvicorn.Config(application, http=Impatient, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        wait_for(lambda: server.started, seconds=10)
        yield application, listening.getsockname()[1]
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def client(served: tuple[Application, int]) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served[1]), timeout=10) as client:
        yield client


@pytest.fixture
def seen(served: tuple[Application, int], client: socket.socket) -> list[str]:
    """How this client's requests ended, as the application saw it."""
    return served[0].seen[client.getsockname()[1]]


def is_closed_within(client: socket.socket, seconds: float) -> bool:
    """Whether the server closes the connection without sending another byte."""
    client.settimeout(seconds)
    try:
        return client.recv(1000) == b""
    except TimeoutError:
        return False


def is_refused_within(client: socket.socket, seconds: float, piece: bytes = b"x") -> bool:
    """Whether the server closes the connection while the client keeps sending such pieces, slowly."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            client.sendall(piece)
        except OSError:
            return True
        time.sleep(TIMEOUT_S / 8)
    return False


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_client_that_does_not_complete_the_head_is_disconnected(
    client: socket.socket, seen: list[str], sent: bytes
) -> None:
    client.sendall(sent)

    # The timeout began when the connection was made, a little earlier.
    assert not is_closed_within(client, TIMEOUT_S / 3)
    assert is_closed_within(client, 5) and seen == []


def test_a_client_that_trickles_its_head_is_disconnected(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nHost: ")

    assert is_refused_within(client, 5)


def test_a_client_that_stops_within_its_body_is_disconnected_and_the_request_ends(
    client: socket.socket, seen: list[str]
) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")

    assert is_closed_within(client, 5)
    wait_for(lambda: seen == ["left"], seconds=5)


def test_a_body_that_arrives_slowly_but_steadily_is_read_to_its_end(client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\n")
    for _ in range(8):
        time.sleep(TIMEOUT_S / 5)
        client.sendall(b"x" * 100)

    assert client.recv(1000).endswith(b"read 800")


def test_a_client_that_trickles_its_body_is_disconnected(client: socket.socket, seen: list[str]) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")

    assert is_refused_within(client, 5)
    wait_for(lambda: seen == ["left"], seconds=5)


def test_a_client_is_not_disconnected_while_the_application_does_not_read_its_body(client: socket.socket) -> None:
    size = 20 * MAX_REQUEST_HEAD_BYTES
    client.sendall(b"POST /0.7?late HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    client.sendall(b"x" * size)

    assert client.recv(1000).endswith(b"read %d" % size)


def test_neither_a_slow_response_nor_an_idle_keep_alive_connection_times_out(client: socket.socket) -> None:
    for _ in range(2):
        client.sendall(GET.replace(b"/ ", b"/0.7 ", 1))
        assert client.recv(1000).endswith(b"read 0")
        assert not is_closed_within(client, 2 * TIMEOUT_S)
        client.settimeout(10)


def test_a_head_that_is_too_long_is_answered_400(client: socket.socket, seen: list[str]) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST_HEAD_BYTES)
    answer = client.recv(1000)

    assert answer.startswith(b"HTTP/1.1 400 ") and b"longer than 65536 bytes" in answer
    assert is_closed_within(client, 5) and seen == []


@pytest.mark.parametrize("path", [b"/", b"/3"])
@pytest.mark.parametrize("around", [b"0\r\nX: ", b"4;"])
def test_endless_chunk_extensions_and_trailers_are_refused(client: socket.socket, path: bytes, around: bytes) -> None:
    client.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n%s" % (path, around))

    assert is_refused_within(client, 5, b"x" * MAX_REQUEST_HEAD_BYTES)


@pytest.mark.parametrize("name", [b"X_Forwarded_For", b"X-Forwarded_For"])
def test_a_header_name_with_an_underscore_is_dropped(client: socket.socket, name: bytes) -> None:
    client.sendall(b"GET /?names HTTP/1.1\r\nHost: x\r\n%s: 192.0.2.1\r\n\r\n" % name)

    assert client.recv(1000).endswith(b"\r\n\r\nhost")


def test_trailers_are_not_taken_for_headers(client: socket.socket) -> None:
    chunked = b"POST /?names HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n"
    for _ in range(2):
        client.sendall(chunked + b"X-Forwarded-For: 192.0.2.1\r\n\r\n")

        assert client.recv(1000).endswith(b"\r\n\r\nhost,transfer-encoding")


def test_a_long_body_sent_together_with_its_head_is_not_counted_as_head(client: socket.socket) -> None:
    size = 3 * MAX_REQUEST_HEAD_BYTES
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size))

    assert client.recv(1000).endswith(b"read %d" % size)


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
WEBSOCKET = b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET])
@pytest.mark.parametrize("pause_s", [0, 0.1])
def test_an_upgrade_header_is_ignored_and_the_body_kept(client: socket.socket, upgrade: bytes, pause_s: float) -> None:
    for _ in range(2):
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 9\r\n\r\nfirst" % upgrade)
        time.sleep(pause_s)
        client.sendall(b"next")

        assert client.recv(1000).endswith(b"read 9")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_request_parsed_again_without_its_upgrade_keeps_its_other_headers(
    client: socket.socket, version: bytes
) -> None:
    head = b"POST /?names HTTP/%s\r\nHost: x\r\nAuthorization: y\r\n%sContent-Length: 4\r\n\r\n"
    client.sendall(head % (version, H2C) + b"body")

    assert client.recv(1000).endswith(b"\r\n\r\nhost,authorization,content-length")
    assert is_closed_within(client, 0.3) == (version == b"1.0")


def test_data_after_connection_close_is_ignored_with_an_upgrade_header_too(client: socket.socket) -> None:
    last = H2C.replace(b"Upgrade,", b"close, Upgrade,", 1)
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 4\r\n\r\nbody and more" % last)

    assert client.recv(1000).endswith(b"read 4")
    assert is_closed_within(client, 5)


def test_a_client_that_asks_for_an_upgrade_and_sends_no_body_is_disconnected(client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 9\r\n\r\n" % H2C)

    assert is_closed_within(client, 5)


def test_pipelined_requests_with_and_without_upgrades_are_all_answered(client: socket.socket) -> None:
    upgrading = GET.replace(b"\r\n\r\n", b"\r\n" + H2C + b"\r\n")
    client.sendall(GET + upgrading + GET + upgrading + GET)
    answers = b""
    while answers.count(b"read 0") < 5:
        answers += client.recv(1000)


@pytest.mark.parametrize("upgrades", [MAX_UPGRADES_PER_READ + 1, 1000])
def test_too_many_upgrades_in_one_read_are_refused(client: socket.socket, upgrades: int) -> None:
    client.sendall(GET.replace(b"\r\n\r\n", b"\r\n" + H2C + b"\r\n") * upgrades)

    assert count_responses(client, upgrades) == 0


@pytest.mark.parametrize("sent", [GET, GET.replace(b"\r\n\r\n", b"\r\n" + H2C + b"\r\n")])
def test_as_many_pipelined_requests_as_allowed_are_answered(client: socket.socket, sent: bytes) -> None:
    most = MAX_PIPELINED_REQUESTS + 1 if sent == GET else MAX_UPGRADES_PER_READ
    client.sendall(sent * most)

    assert count_responses(client, most) == most


def test_a_client_that_pipelines_too_many_requests_is_disconnected(client: socket.socket, seen: list[str]) -> None:
    client.sendall(GET.replace(b"/ ", b"/3 ", 1) + GET * (MAX_PIPELINED_REQUESTS + 1))

    assert count_responses(client, 1) == 0
    assert is_refused_within(client, 5)
    wait_for(lambda: seen == ["left"], seconds=5)


def count_responses(client: socket.socket, most: int) -> int:
    """Count responses until the connection ends or `most` have come."""
    got = b""
    while got.count(b"read 0") < most and (piece := _received(client)):
        got += piece
    return got.count(b"read 0")


def test_a_disconnect_is_noticed_even_with_a_pipelined_request(client: socket.socket, seen: list[str]) -> None:
    client.sendall(b"POST /?watch HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + GET)
    client.close()

    wait_for(lambda: "left" in seen, seconds=5)


@pytest.mark.parametrize("behind", [b"\r\n", GET[:10]])
def test_a_client_that_waits_for_a_response_does_not_time_out_on_its_next_request(
    client: socket.socket, behind: bytes
) -> None:
    client.sendall(GET.replace(b"/ ", b"/1.5 ", 1))
    client.sendall(behind)

    assert client.recv(1000).endswith(b"read 0")


@pytest.mark.parametrize(
    "bad", [b"\0\0\0\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"X: " + b"x" * 2 * MAX_REQUEST_HEAD_BYTES]
)
def test_an_invalid_pipelined_request_puts_no_400_into_the_response_under_way(
    client: socket.socket, bad: bytes
) -> None:
    client.sendall(GET.replace(b"/ ", b"/1?head ", 1))
    assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    client.sendall(bad)

    assert _received(client) == b""


def test_connect_is_refused(client: socket.socket, seen: list[str]) -> None:
    client.sendall(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")

    assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert is_closed_within(client, 5) and seen == []


def test_head_and_body_of_a_response_are_sent_in_one_write(client: socket.socket) -> None:
    client.sendall(GET)

    assert client.recv(1000).endswith(b"\r\n\r\nread 0")
    assert Impatient.transports[client.getsockname()[1]].writes == 1


def test_a_head_does_not_wait_for_a_body_that_comes_later(client: socket.socket) -> None:
    client.sendall(GET.replace(b"/ ", b"/0.3?head ", 1))

    assert client.recv(1000).endswith(b"\r\n\r\n")
    assert client.recv(1000) == b"read 0"


def test_coalesced_writes_are_sent_before_the_connection_closes(client: socket.socket) -> None:
    client.sendall(GET.replace(b"Host", b"Connection: close\r\nHost", 1))

    assert client.recv(1000).endswith(b"read 0")
    assert is_closed_within(client, 5)


def test_pipelined_requests_are_answered_in_their_order(client: socket.socket) -> None:
    client.sendall(GET.replace(b"/ ", b"/0.1 ", 1) + GET)
    answers = b""
    while answers.count(b"read") < 2:
        answers += client.recv(1000)

    assert answers.count(b"HTTP/1.1 200") == 2


@pytest.fixture
def slow_reader(served: tuple[Application, int]) -> Iterator[socket.socket]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(("127.0.0.1", served[1]))
        yield client


def test_a_response_of_many_small_chunks_is_not_buffered_as_a_whole(client: socket.socket) -> None:
    client.sendall(GET.replace(b"/ ", b"/?small ", 1))
    got = 0
    while got < 10 * MIDDLING_BYTES:
        got += len(client.recv(65536))

    assert Impatient.transports[client.getsockname()[1]].largest < 2 * MAX_COALESCED_BYTES


def test_a_client_that_does_not_read_is_disconnected(
    slow_reader: socket.socket, served: tuple[Application, int]
) -> None:
    slow_reader.sendall(GET.replace(b"/ ", b"/?long ", 1))
    seen = served[0].seen[slow_reader.getsockname()[1]]
    wait_for(lambda: seen == ["sent"], seconds=5)

    assert _read(slow_reader, LONG_BYTES, pause_s=0) < LONG_BYTES


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_the_rest_of_a_response_that_the_client_does_not_read_is_dropped(
    slow_reader: socket.socket, connection: bytes
) -> None:
    slow_reader.sendall(b"GET /?middling HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n" % connection)
    time.sleep(4 * TIMEOUT_S)

    assert _read(slow_reader, MIDDLING_BYTES, pause_s=0) < MIDDLING_BYTES


def test_a_client_that_reads_slowly_gets_the_whole_response(slow_reader: socket.socket) -> None:
    slow_reader.sendall(GET.replace(b"/ ", b"/?long ", 1))

    assert _read(slow_reader, LONG_BYTES, pause_s=TIMEOUT_S / 4) > LONG_BYTES


def _read(client: socket.socket, most: int, *, pause_s: float) -> int:
    """Count the bytes until the end or until more than `most`, reading with eight pauses."""
    got, pauses = 0, 0
    while got <= most and (piece := _received(client)):
        got += len(piece)
        if got > pauses * most // 8:
            pauses += 1
            time.sleep(pause_s)
    return got


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(65536)
    except ConnectionResetError:
        return b""
