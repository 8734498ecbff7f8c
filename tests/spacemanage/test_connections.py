"""The server's connections over real sockets: what a client may leave undone, how long, and how answers are sent."""

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

from spacemanage.connections import HEAD_MOST, JOINED_MOST, WAITING_MOST, WISHES_MOST, Connection
from tests.relay.conftest import wait_for

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PATIENCE_S = 0.5
# More than the kernel keeps for a client that asks it not to keep much; and more by less than makes the server wait.
LONG = 10_000_000
MIDDLING = 40_000


class Counted:
    """A real transport that keeps how often it was written to."""

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
    HEAD_S = BODY_S = UNREAD_S = PATIENCE_S
    BODY_LEAST = 100
    LOOK_S = 0.05
    # By the client's port.
    transports: ClassVar[dict[int, Counted]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        counted = self.transports[transport.get_extra_info("peername")[1]] = Counted(transport)
        super().connection_made(cast("asyncio.Transport", counted))


class Application:
    """Reads the body, waits as long as the path says, answers what the query asks for; and keeps what each client did.

    `?watch` waits until its client leaves, `?late` waits before it reads, `?head` after the head of its answer; `?long`
    answers LONG bytes, `?middling` MIDDLING, `?small` some in small pieces, `?names` the names of the headers, all
    others `read N`.
    """

    def __init__(self) -> None:
        # By the client's port: what a client of the test before still has under way is not this one's.
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
        return {b"long": b"x" * LONG, b"small": b"x" * 10 * MIDDLING, b"middling": b"x" * MIDDLING, b"names": names}

    async def _read(self, receive: Any) -> int | None:
        """How many bytes; None when the client has left."""
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
    """What the application has seen of this client."""
    return served[0].seen[client.getsockname()[1]]


def is_closed_within(client: socket.socket, seconds: float) -> bool:
    """Whether the server closes without another byte."""
    client.settimeout(seconds)
    try:
        return client.recv(1000) == b""
    except TimeoutError:
        return False


def is_refused_within(client: socket.socket, seconds: float, piece: bytes = b"x") -> bool:
    """Whether the server closes on someone who goes on sending such pieces now and then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            client.sendall(piece)
        except OSError:
            return True
        time.sleep(PATIENCE_S / 8)
    return False


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(client: socket.socket, seen: list[str], sent: bytes) -> None:
    client.sendall(sent)

    # The clock began with the connection, a little before.
    assert not is_closed_within(client, PATIENCE_S / 3)
    assert is_closed_within(client, 5) and seen == []


def test_a_head_is_due_as_a_whole_however_steadily_it_trickles(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nHost: ")

    assert is_refused_within(client, 5)


def test_a_body_that_stops_is_not_waited_for_and_its_request_ends(client: socket.socket, seen: list[str]) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")

    assert is_closed_within(client, 5)
    wait_for(lambda: seen == ["left"], seconds=5)


def test_a_body_may_take_its_time_as_long_as_it_comes(client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\n")
    for _ in range(8):
        time.sleep(PATIENCE_S / 5)
        client.sendall(b"x" * 100)

    assert client.recv(1000).endswith(b"read 800")


def test_a_body_that_trickles_is_not_waited_for(client: socket.socket, seen: list[str]) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")

    assert is_refused_within(client, 5)
    wait_for(lambda: seen == ["left"], seconds=5)


def test_a_body_that_nobody_reads_yet_is_not_held_against_its_client(client: socket.socket) -> None:
    size = 20 * HEAD_MOST
    client.sendall(b"POST /0.7?late HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    client.sendall(b"x" * size)

    assert client.recv(1000).endswith(b"read %d" % size)


def test_neither_a_long_answer_nor_the_time_between_requests_is_a_debt(client: socket.socket) -> None:
    for _ in range(2):
        client.sendall(GET.replace(b"/ ", b"/0.7 ", 1))
        assert client.recv(1000).endswith(b"read 0")
        assert not is_closed_within(client, 2 * PATIENCE_S)
        client.settimeout(10)


def test_a_head_that_is_too_long_is_told_so(client: socket.socket, seen: list[str]) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_MOST)
    answer = client.recv(1000)

    assert answer.startswith(b"HTTP/1.1 400 ") and b"longer than 65536 bytes" in answer
    assert is_closed_within(client, 5) and seen == []


@pytest.mark.parametrize("path", [b"/", b"/3"])
@pytest.mark.parametrize("around", [b"0\r\nX: ", b"4;"])
def test_what_stands_around_a_body_has_an_end(client: socket.socket, path: bytes, around: bytes) -> None:
    client.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n%s" % (path, around))

    assert is_refused_within(client, 5, b"x" * HEAD_MOST)


@pytest.mark.parametrize("name", [b"X_Forwarded_For", b"X-Forwarded_For"])
def test_a_name_that_pages_would_take_for_another_is_dropped(client: socket.socket, name: bytes) -> None:
    client.sendall(b"GET /?names HTTP/1.1\r\nHost: x\r\n%s: 192.0.2.1\r\n\r\n" % name)

    assert client.recv(1000).endswith(b"\r\n\r\nhost")


def test_what_follows_a_body_is_not_taken_for_its_head(client: socket.socket) -> None:
    chunked = b"POST /?names HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n"
    for _ in range(2):
        client.sendall(chunked + b"X-Forwarded-For: 192.0.2.1\r\n\r\n")

        assert client.recv(1000).endswith(b"\r\n\r\nhost,transfer-encoding")


def test_a_long_body_right_behind_its_head_is_none(client: socket.socket) -> None:
    size = 3 * HEAD_MOST
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size))

    assert client.recv(1000).endswith(b"read %d" % size)


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
WEBSOCKET = b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"


@pytest.mark.parametrize("wish", [H2C, WEBSOCKET])
@pytest.mark.parametrize("pause_s", [0, 0.1])
def test_a_wish_for_another_protocol_is_passed_over(client: socket.socket, wish: bytes, pause_s: float) -> None:
    for _ in range(2):
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 9\r\n\r\nfirst" % wish)
        time.sleep(pause_s)
        client.sendall(b"next")

        assert client.recv(1000).endswith(b"read 9")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_without_the_wish_a_head_says_what_it_said(client: socket.socket, version: bytes) -> None:
    head = b"POST /?names HTTP/%s\r\nHost: x\r\nAuthorization: y\r\n%sContent-Length: 4\r\n\r\n"
    client.sendall(head % (version, H2C) + b"body")

    assert client.recv(1000).endswith(b"\r\n\r\nhost,authorization,content-length")
    assert is_closed_within(client, 0.3) == (version == b"1.0")


def test_what_comes_behind_the_last_request_is_passed_over_with_a_wish_as_without(client: socket.socket) -> None:
    last = H2C.replace(b"Upgrade,", b"close, Upgrade,", 1)
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 4\r\n\r\nbody and more" % last)

    assert client.recv(1000).endswith(b"read 4")
    assert is_closed_within(client, 5)


def test_who_wishes_for_another_protocol_and_then_says_nothing_is_not_waited_for(client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 9\r\n\r\n" % H2C)

    assert is_closed_within(client, 5)


def test_wishes_among_requests_sent_at_once_lose_none_of_them(client: socket.socket) -> None:
    wishing = GET.replace(b"\r\n\r\n", b"\r\n" + H2C + b"\r\n")
    client.sendall(GET + wishing + GET + wishing + GET)
    answers = b""
    while answers.count(b"read 0") < 5:
        answers += client.recv(1000)


@pytest.mark.parametrize("wishes", [WISHES_MOST + 1, 1000])
def test_wishes_without_end_are_refused(client: socket.socket, wishes: int) -> None:
    client.sendall(GET.replace(b"\r\n\r\n", b"\r\n" + H2C + b"\r\n") * wishes)

    assert answered(client, wishes) == 0


@pytest.mark.parametrize("sent", [GET, GET.replace(b"\r\n\r\n", b"\r\n" + H2C + b"\r\n")])
def test_as_many_as_may_come_at_once_are_answered(client: socket.socket, sent: bytes) -> None:
    most = WAITING_MOST + 1 if sent == GET else WISHES_MOST
    client.sendall(sent * most)

    assert answered(client, most) == most


def test_requests_without_end_are_not_kept(client: socket.socket, seen: list[str]) -> None:
    client.sendall(GET.replace(b"/ ", b"/3 ", 1) + GET * (WAITING_MOST + 1))

    assert answered(client, 1) == 0
    assert is_refused_within(client, 5)
    wait_for(lambda: seen == ["left"], seconds=5)


def answered(client: socket.socket, most: int) -> int:
    """How many answers there are until the connection ends, or until there are `most`."""
    got = b""
    while got.count(b"read 0") < most and (piece := _received(client)):
        got += piece
    return got.count(b"read 0")


def test_who_leaves_is_noticed_whatever_was_sent_behind_the_request(client: socket.socket, seen: list[str]) -> None:
    client.sendall(b"POST /?watch HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + GET)
    client.close()

    wait_for(lambda: "left" in seen, seconds=5)


@pytest.mark.parametrize("behind", [b"\r\n", GET[:10]])
def test_who_waits_for_an_answer_need_not_send_the_next_request(client: socket.socket, behind: bytes) -> None:
    client.sendall(GET.replace(b"/ ", b"/1.5 ", 1))
    client.sendall(behind)

    assert client.recv(1000).endswith(b"read 0")


@pytest.mark.parametrize(
    "bad", [b"\0\0\0\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"X: " + b"x" * 2 * HEAD_MOST]
)
def test_what_is_wrong_behind_a_request_is_not_taken_for_its_answer(client: socket.socket, bad: bytes) -> None:
    client.sendall(GET.replace(b"/ ", b"/1?head ", 1))
    assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    client.sendall(bad)

    assert _received(client) == b""


def test_a_tunnel_is_refused(client: socket.socket, seen: list[str]) -> None:
    client.sendall(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")

    assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert is_closed_within(client, 5) and seen == []


def test_head_and_body_are_sent_in_one_piece(client: socket.socket) -> None:
    client.sendall(GET)

    assert client.recv(1000).endswith(b"\r\n\r\nread 0")
    assert Impatient.transports[client.getsockname()[1]].writes == 1


def test_a_head_does_not_wait_for_a_body_that_comes_later(client: socket.socket) -> None:
    client.sendall(GET.replace(b"/ ", b"/0.3?head ", 1))

    assert client.recv(1000).endswith(b"\r\n\r\n")
    assert client.recv(1000) == b"read 0"


def test_what_was_written_before_the_end_is_sent(client: socket.socket) -> None:
    client.sendall(GET.replace(b"Host", b"Connection: close\r\nHost", 1))

    assert client.recv(1000).endswith(b"read 0")
    assert is_closed_within(client, 5)


def test_requests_sent_at_once_are_answered_in_their_order(client: socket.socket) -> None:
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


def test_an_answer_of_many_small_pieces_is_not_gathered_whole(client: socket.socket) -> None:
    client.sendall(GET.replace(b"/ ", b"/?small ", 1))
    got = 0
    while got < 10 * MIDDLING:
        got += len(client.recv(65536))

    assert Impatient.transports[client.getsockname()[1]].largest < 2 * JOINED_MOST


def test_an_answer_that_nobody_reads_is_broken_off(slow_reader: socket.socket, served: tuple[Application, int]) -> None:
    slow_reader.sendall(GET.replace(b"/ ", b"/?long ", 1))
    seen = served[0].seen[slow_reader.getsockname()[1]]
    wait_for(lambda: seen == ["sent"], seconds=5)

    assert _read(slow_reader, LONG, pause_s=0) < LONG


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_what_is_left_of_an_answer_is_not_kept_for_ever(slow_reader: socket.socket, connection: bytes) -> None:
    slow_reader.sendall(b"GET /?middling HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n" % connection)
    time.sleep(4 * PATIENCE_S)

    assert _read(slow_reader, MIDDLING, pause_s=0) < MIDDLING


def test_an_answer_that_is_read_slowly_is_sent_to_its_end(slow_reader: socket.socket) -> None:
    slow_reader.sendall(GET.replace(b"/ ", b"/?long ", 1))

    assert _read(slow_reader, LONG, pause_s=PATIENCE_S / 4) > LONG


def _read(client: socket.socket, most: int, *, pause_s: float) -> int:
    """How many bytes there are until the end or the first byte after `most`, read with eight pauses."""
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
