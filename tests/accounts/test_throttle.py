"""Concurrent guesses get no more attempts than sequential ones; a lock-out states its remaining wait."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.hashers import MD5PasswordHasher
from django.test import Client
from django.utils import timezone

from accounts.models import User
from accounts.sign_in import BACKEND
from accounts.throttle import MAX_FAILURES_PER_ADDRESS, MAX_FAILURES_PER_NAME
from tests.authenticator import App, give_password
from tests.factories import PASSWORD, MemberFactory
from tests.quotas.test_concurrency import together

CONCURRENT_GUESSES = 12
THREADS = pytest.mark.django_db(transaction=True)


class SlowHasher(MD5PasswordHasher):
    """A hasher as slow as a real one, so that guesses overlap. It lists the passwords that were compared."""

    algorithm = "slow"
    compared: list[str] = []

    def encode(self, password: str, salt: str) -> str:
        SlowHasher.compared.append(password)
        time.sleep(0.1)
        return super().encode(password, salt)


@pytest.fixture
def slow(settings: Any, member: User) -> list[str]:
    settings.PASSWORD_HASHERS = ["tests.accounts.test_throttle.SlowHasher"]
    member.set_password(PASSWORD)
    member.save(update_fields=["password"])
    SlowHasher.compared.clear()
    return SlowHasher.compared


def statuses(answers: list[Any]) -> list[int]:
    return sorted(answer.status_code for answer in answers)


@THREADS
@pytest.mark.parametrize("username", ["jun", "nobody"])
def test_concurrent_sign_ins_are_compared_up_to_the_limit_of_a_name(slow: list[str], username: str) -> None:
    guesses = [f"guess {number}" for number in range(CONCURRENT_GUESSES)]
    clients = [Client(REMOTE_ADDR=f"198.51.100.{number}") for number in range(CONCURRENT_GUESSES)]

    answers = together(
        *(lambda pair=pair: give_password(pair[0], username, pair[1]) for pair in zip(clients, guesses, strict=True))
    )

    assert len(set(slow) & set(guesses)) == len(slow) == MAX_FAILURES_PER_NAME
    assert (
        set(statuses(answers)) <= {422, 429}
        and statuses(answers).count(429) >= CONCURRENT_GUESSES - MAX_FAILURES_PER_NAME
    )
    assert give_password(Client(REMOTE_ADDR="203.0.113.9"), username).status_code == 429


@THREADS
def test_concurrent_confirmations_of_a_password_are_compared_up_to_the_limit_of_a_name(
    slow: list[str], member: User
) -> None:
    clients = [Client() for _ in range(CONCURRENT_GUESSES)]
    for client in clients:
        client.force_login(member, backend=BACKEND)

    answers = together(
        *(lambda client=client: client.post("/me/confirm/", {"present_password": "guess"}) for client in clients)
    )

    assert (
        slow == ["guess"] * MAX_FAILURES_PER_NAME
        and statuses(answers).count(429) >= CONCURRENT_GUESSES - MAX_FAILURES_PER_NAME
    )
    assert clients[0].post("/me/confirm/", {"present_password": PASSWORD}).status_code == 429


@THREADS
def test_concurrent_guesses_with_many_names_are_compared_up_to_the_limit_of_an_address(slow: list[str]) -> None:
    guesses = [f"name{number}" for number in range(MAX_FAILURES_PER_ADDRESS + CONCURRENT_GUESSES)]

    together(*(lambda name=name: give_password(Client(), name, "guess") for name in guesses))

    assert slow == ["guess"] * MAX_FAILURES_PER_ADDRESS
    assert give_password(Client(), "jun").status_code == 429


@THREADS
def test_concurrent_sign_ins_with_the_right_password_are_not_locked_out(slow: list[str]) -> None:
    answers = together(*(lambda: give_password(Client(), "jun") for _ in range(MAX_FAILURES_PER_NAME)))

    assert statuses(answers) == [302] * MAX_FAILURES_PER_NAME and not AccessAttempt.objects.exists()


@pytest.mark.django_db
def test_one_right_password_after_four_wrong_ones_resets_the_failures(member: User) -> None:
    for _ in range(3):
        for _ in range(MAX_FAILURES_PER_NAME - 1):
            assert give_password(Client(), "jun", "wrong").status_code == 422
        assert give_password(Client(), "jun").status_code == 302
    assert not AccessAttempt.objects.exists()


@pytest.mark.django_db
def test_a_right_password_on_another_page_neither_counts_nor_resets_failures(client: Client, member: User) -> None:
    client.force_login(member, backend=BACKEND)
    for _ in range(MAX_FAILURES_PER_NAME - 1):
        client.post("/me/confirm/", {"present_password": "wrong"})

    right = [
        client.post("/me/confirm/", {"present_password": PASSWORD}).status_code
        for _ in range(MAX_FAILURES_PER_NAME + 1)
    ]

    assert (
        right == [303] * (MAX_FAILURES_PER_NAME + 1)
        and AccessAttempt.objects.get().failures_since_start == MAX_FAILURES_PER_NAME - 1
    )
    assert client.post("/me/confirm/", {"present_password": "wrong"}).status_code == 429


@pytest.mark.django_db
def test_a_right_password_before_the_second_step_is_not_counted(member: User) -> None:
    app = App(member)
    client = Client()

    first = [give_password(Client(), "jun").status_code for _ in range(MAX_FAILURES_PER_NAME + 1)]

    assert first == [302] * (MAX_FAILURES_PER_NAME + 1) and not AccessAttempt.objects.exists()
    give_password(client, "jun")
    assert client.post("/login/2fa/", {"code": app.code()}).status_code == 302


@pytest.mark.django_db
def test_right_passwords_from_one_address_do_not_count_as_failures(member: User) -> None:
    people = [MemberFactory.create(space=member.space) for _ in range(MAX_FAILURES_PER_ADDRESS + 1)]

    assert {give_password(Client(), person.username).status_code for person in people} == {302}


# -- Length of a lock-out ---------------------------------------------------------------------------------------------


def wrong(count: int, *, ago: timedelta, username: str = "jun", address: str = "198.51.100.1") -> None:
    for _ in range(count):
        give_password(Client(REMOTE_ADDR=address), username, "wrong")
    made = AccessAttempt.objects.filter(username=username, ip_address=address)
    made.update(attempt_time=timezone.now() - ago)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("ago_s", "wait_s", "message"),
    [
        (1, 900, "Try again in 15 minutes."),
        (9 * 60 + 30, 360, "Try again in 6 minutes."),
        (14 * 60 + 30, 60, "Try again in 1 minute."),
    ],
)
def test_a_locked_out_user_is_told_the_remaining_wait(member: User, ago_s: int, wait_s: int, message: str) -> None:
    wrong(MAX_FAILURES_PER_NAME, ago=timedelta(seconds=ago_s))

    answer = give_password(Client(), "jun")

    assert (answer.status_code, answer["Retry-After"]) == (429, str(wait_s)) and message in answer.content.decode()


@pytest.mark.django_db
def test_the_wait_ends_when_enough_failures_have_expired(member: User) -> None:
    wrong(3, ago=timedelta(minutes=10, seconds=30))
    wrong(2, ago=timedelta(minutes=1), address="198.51.100.2")

    assert give_password(Client(), "jun")["Retry-After"] == "300"


@pytest.mark.django_db
def test_the_wait_of_a_locked_address_applies_to_names_without_failures(member: User) -> None:
    for number in range(MAX_FAILURES_PER_ADDRESS):
        wrong(1, ago=timedelta(minutes=2, seconds=30), username=f"guess{number}", address="127.0.0.1")

    assert give_password(Client(), "jun")["Retry-After"] == "780"


@pytest.mark.django_db
def test_the_wait_is_stated_on_other_pages_and_in_chinese(client: Client, member: User) -> None:
    client.force_login(member, backend=BACKEND)
    wrong(MAX_FAILURES_PER_NAME, ago=timedelta(minutes=9, seconds=30))

    answer = client.post("/me/confirm/", {"present_password": PASSWORD}, headers={"Accept-Language": "zh-Hans"})

    assert answer["Retry-After"] == "360" and "请在 6 分钟后再试" in answer.content.decode()
