"""The two doors of one process: pages answer beside the relay, forms and all."""

from __future__ import annotations

import re

import pytest
import requests

from accounts.models import User
from tests.factories import PASSWORD

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
