"""The served process: pages and forms beside the relay, slow clients, and how workers stop and are replaced."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.conf import settings

from accounts.models import User
from console.export import MAX_CONCURRENT_EXPORTS
from quotas.models import Wallet
from tests.console.test_export import many
from tests.factories import PASSWORD
from tests.relay.conftest import MODEL, Process, wait_for
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)


def signed_in(base: str, username: str) -> requests.Session:
    session = requests.Session()
    token = _token(session.get(f"{base}/login/", timeout=30).text)
    data = {"username": username, "password": PASSWORD, "csrfmiddlewaretoken": token}
    answer = session.post(f"{base}/login/", data=data, timeout=30, allow_redirects=False)
    assert answer.status_code == 302
    return session


def _token(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def test_a_manager_signs_in_and_adds_a_user_through_the_served_process(shared_relay: str, manager: User) -> None:
    base = shared_relay.removesuffix("/v1")
    session = signed_in(base, "mira")
    page = session.get(f"{base}/space/users/", timeout=30)

    data = {"username": "fresh", "password": "long enough", "csrfmiddlewaretoken": _token(page.text)}
    answer = session.post(f"{base}/space/users/add/", data=data, timeout=30, allow_redirects=False)

    assert (page.status_code, answer.status_code) == (200, 303)
    assert User.objects.get(username="fresh").number == 2


def posted(session: requests.Session, path: str, length: int, body: bytes) -> bytes:
    """A form's POST as raw bytes; `body` may be shorter than `length`."""
    cookies = "; ".join(f"{name}={value}" for name, value in session.cookies.items())
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Cookie: {cookies}", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "Content-Type: application/x-www-form-urlencoded", "", ""]).encode() + body


@pytest.mark.parametrize("cut", [0, 1])
def test_a_form_that_is_cut_off_by_a_disconnect_changes_nothing(shared_relay: str, manager: User, cut: int) -> None:
    base = shared_relay.removesuffix("/v1")
    session = signed_in(base, "mira")
    token = _token(session.get(f"{base}/space/users/add/", timeout=30).text)
    form = f"csrfmiddlewaretoken={token}&username=fresh&password=long+enough+and+more".encode()

    with socket.create_connection(("127.0.0.1", urlsplit(base).port)) as client:
        client.sendall(posted(session, "/space/users/add/", len(form), form[: -9 * cut or None]))
        if not cut:
            assert client.recv(1000).startswith(b"HTTP/1.1 303 ")
        time.sleep(0.5)
    time.sleep(1)

    assert User.objects.filter(username="fresh").exists() is not bool(cut)


def test_clients_with_incomplete_forms_do_not_block_other_clients(shared_relay: str, manager: User) -> None:
    base = shared_relay.removesuffix("/v1")
    session = requests.Session()
    session.get(f"{base}/login/", timeout=30)
    begun = [socket.create_connection(("127.0.0.1", urlsplit(base).port)) for _ in range(24)]
    for client in begun:
        client.sendall(posted(session, "/login/", 1000, b"half"))
    time.sleep(0.5)

    assert requests.get(f"{base}/login/", timeout=5).status_code == 200
    for client in begun:
        client.close()


def test_a_form_over_the_size_limit_is_refused(shared_relay: str) -> None:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    answer = requests.post(shared_relay.removesuffix("/v1") + "/login/", data=b"x" * (most + 1), timeout=60)

    assert answer.status_code == 413 and answer.text == f"The body is larger than {most} bytes.\n"


def test_ten_megabytes_in_a_field_are_answered_by_the_fields_own_error(shared_relay: str, manager: User) -> None:
    base = shared_relay.removesuffix("/v1")
    session = signed_in(base, "mira")
    token = _token(session.get(f"{base}/space/users/add/", timeout=30).text)

    data = {"username": "x" * 10_000_000, "password": "long enough", "csrfmiddlewaretoken": token}
    answer = session.post(f"{base}/space/users/add/", data=data, timeout=60)

    assert answer.status_code == 422 and "Use at most 64 characters." in answer.text
    assert User.objects.count() == 1


def test_exports_whose_clients_disconnect_end_and_release_their_slots(shared_relay: str, member: User) -> None:
    base = shared_relay.removesuffix("/v1")
    many(member, 30_000)
    session = signed_in(base, "jun")
    begun = time.monotonic()
    whole = len(session.get(f"{base}/console/usage.csv", timeout=120).content)
    whole_s = time.monotonic() - begun

    left = [_disconnected_status(session, f"{base}/console/usage.csv") for _ in range(MAX_CONCURRENT_EXPORTS)]
    assert left == [200] * MAX_CONCURRENT_EXPORTS
    # A slot is free sooner than any of the exports could have been written completely.
    wait_for(lambda: _disconnected_status(session, f"{base}/console/usage.csv") == 200, seconds=whole_s)

    assert whole > 5_000_000 and session.get(f"{base}/console/usage/", timeout=30).status_code == 200


def _disconnected_status(session: requests.Session, url: str) -> int:
    """The status of a download whose client disconnects after 1,000 bytes."""
    with session.get(url, stream=True, timeout=30) as answer:
        next(answer.iter_content(1000))
        return answer.status_code


# -- Stopping and replacing workers -------------------------------------------------------------------------------


def streamed(url: str, key: str, *, tokens: int) -> requests.Response:
    """A running stream of `tokens` tokens, one every 0.05 s. Its head was received."""
    content = f"demo:pace=0.05 demo:tokens={tokens}"
    body: Any = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": content}]}
    headers = {"Authorization": f"Bearer {key}"}
    answer = requests.post(f"{url}/chat/completions", json=body, headers=headers, stream=True, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_worker_that_died_is_replaced(own_relay: tuple[str, Process], key: str) -> None:
    url, process = own_relay
    [died] = process.workers()
    os.kill(died, signal.SIGKILL)

    with streamed(url, key, tokens=2) as answer:
        assert b"[DONE]" in answer.content
    assert process.workers() != [died]


def test_the_server_finishes_streams_before_it_stops(own_relay: tuple[str, Process], key: str, member: User) -> None:
    url, process = own_relay
    with streamed(url, key, tokens=40) as answer:
        process.signal(signal.SIGTERM)
        assert b"[DONE]" in answer.content

    assert process.has_ended_within(5)
    assert UsageRecord.objects.get().status == 200 and Wallet.objects.get(user=member).held == 0


def test_a_reload_replaces_the_workers_and_refuses_no_request(
    own_relay: tuple[str, Process], key: str, member: User
) -> None:
    url, process = own_relay
    old = process.workers()
    with streamed(url, key, tokens=40) as answer:
        process.signal(signal.SIGHUP)
        asked = 0
        while process.workers() == old or len(process.workers()) > 1:
            with streamed(url, key, tokens=1) as another:
                assert b"[DONE]" in another.content
            asked += 1
        assert b"[DONE]" in answer.content

    assert asked > 1 and UsageRecord.objects.filter(status=200).count() == asked + 1


def test_a_slow_client_does_not_keep_the_server_from_stopping(own_relay: tuple[str, Process], member: User) -> None:
    url, process = own_relay
    many(member, 30_000)
    session = signed_in(url.removesuffix("/v1"), "jun")
    cookies = "; ".join(f"{name}={value}" for name, value in session.cookies.items())

    with socket.socket() as client:
        # The socket buffers of both sides together must be smaller than the file.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", urlsplit(url).port))
        client.sendall(f"GET /console/usage.csv HTTP/1.1\r\nHost: localhost\r\nCookie: {cookies}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        process.signal(signal.SIGTERM)
        assert process.has_ended_within(8)
