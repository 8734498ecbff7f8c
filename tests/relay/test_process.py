"""The two doors of one process: pages answer beside the relay, forms and all."""

from __future__ import annotations

import re
import time

import pytest
import requests

from accounts.models import User
from tests.factories import PASSWORD
from tests.relay.conftest import wait_for
from tests.usage.test_export import many
from usage.export import AT_ONCE

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


def test_ten_megabytes_in_a_field_are_told_beside_it(shared_relay: str, manager: User) -> None:
    base = shared_relay.removesuffix("/v1")
    session = signed_in(base, "mira")
    token = _token(session.get(f"{base}/space/users/add/", timeout=30).text)

    data = {"username": "x" * 10_000_000, "password": "long enough", "csrfmiddlewaretoken": token}
    answer = session.post(f"{base}/space/users/add/", data=data, timeout=60)

    assert answer.status_code == 422 and "Use at most 64 characters." in answer.text
    assert User.objects.count() == 1


def test_exports_that_are_broken_off_end_and_give_back_their_slots(shared_relay: str, member: User) -> None:
    base = shared_relay.removesuffix("/v1")
    many(member, 30_000)
    session = signed_in(base, "jun")
    begun = time.monotonic()
    whole = len(session.get(f"{base}/console/usage.csv", timeout=120).content)
    whole_s = time.monotonic() - begun

    left = [_left(session, f"{base}/console/usage.csv") for _ in range(AT_ONCE)]
    assert left == [200] * AT_ONCE
    # A slot is free before any of them could have been written to its end.
    wait_for(lambda: _left(session, f"{base}/console/usage.csv") == 200, seconds=whole_s)

    assert whole > 5_000_000 and session.get(f"{base}/console/usage/", timeout=30).status_code == 200


def _left(session: requests.Session, url: str) -> int:
    """The status of a file that is left after a little of it."""
    with session.get(url, stream=True, timeout=30) as answer:
        next(answer.iter_content(1000))
        return answer.status_code
