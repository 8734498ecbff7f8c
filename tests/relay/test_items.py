"""Conversations whose later turns name earlier items by id, as the Vercel AI SDK does, with two upstream accounts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from django.db import transaction

from accounts.models import User
from quotas.models import Hold
from relay.models import Model, StoredContent, Upstream
from tests.relay.conftest import MODEL, new_key, serve, wait_for
from tests.relay.keeping import Account
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]
QUESTION = {"role": "user", "content": [{"type": "input_text", "text": "How is the weather in Bern?"}]}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}


@pytest.fixture
def accounts(relay_url: str, offered: Model, key: str) -> Iterator[list[Account]]:
    """Two accounts that serve the model; the first is preferred."""
    with ExitStack() as stack:
        both = [stack.enter_context(Account(name).serving()) for name in ("north", "south")]
        with transaction.atomic():
            for account in both:
                serve(offered, account.name, account.url)
            Upstream.objects.filter(name="demo").delete()
            Upstream.objects.update(settings={"keeps_state": "true"})
        prefer(both[0], relay_url, key)
        yield both


def prefer(account: Account, url: str, key: str) -> None:
    """Make the account the one that new conversations go to, and wait until the relay knows."""
    account.asked.clear()
    with transaction.atomic():
        Upstream.objects.exclude(name=account.name).update(priority=5)
        Upstream.objects.filter(name=account.name).update(priority=1)

    def is_preferred() -> bool:
        # By what it was asked: the relay may still be connected to the account of the test before.
        is_kept = respond(url, key, "Which one?").get("store") is True
        return is_kept and bool(account.asked)

    wait_for(is_preferred)
    account.asked.clear()


def post(url: str, key: str, given: Any, **fields: Any) -> requests.Response:
    body = {"model": MODEL, "input": given, "max_output_tokens": 100, **fields}
    return requests.post(f"{url}/responses", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=30)


def respond(url: str, key: str, given: Any, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """The response, or the error's body."""
    answer = post(url, key, given, stream=stream, **fields)
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return dict(answer.json())
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return dict(json.loads(lines[-1].removeprefix("data: "))["response"])


def references(response: dict[str, Any]) -> list[dict[str, Any]]:
    assert "output" in response, response
    return [{"type": "item_reference", "id": item["id"]} for item in response["output"]]


@pytest.mark.parametrize("stream", [False, True])
def test_tool_loops_and_second_turns_reach_the_account_that_has_the_items(
    relay_url: str, key: str, accounts: list[Account], stream: bool
) -> None:
    first, second = accounts

    def ask(given: list[Any]) -> dict[str, Any]:
        response = respond(relay_url, key, given, stream=stream, tools=TOOLS)
        assert "error" not in response or response["error"] is None, response
        return response

    before = UsageRecord.objects.latest("pk")
    called = ask([QUESTION])
    # From here on, nothing but the items leads to the first account.
    prefer(second, relay_url, key)
    first.asked.clear()
    loop = [QUESTION, *references(called), RESULT]
    said = ask(loop)
    again = ask([*loop, *references(said), QUESTION])

    assert [response["status"] for response in (called, said, again)] == ["completed"] * 3
    assert [body["input"] for body in first.asked] == [loop, [*loop, *references(said), QUESTION]]
    assert (second.asked, first.missing) == ([], [])
    # Streams are charged after their last byte.
    wait_for(lambda: not Hold.objects.exists())
    records = UsageRecord.objects.filter(pk__gt=before.pk)
    assert [record.request_id for record in records if record.status != 200 or not record.cost] == []


def test_an_answer_that_its_client_does_not_want_kept_leaves_no_ids(
    relay_url: str, key: str, accounts: list[Account]
) -> None:
    StoredContent.objects.all().delete()

    response = respond(relay_url, key, [QUESTION], store=False)

    assert not StoredContent.objects.exists()
    assert post(relay_url, key, references(response)).status_code == 404


def test_items_of_another_member_do_not_exist(relay_url: str, key: str, accounts: list[Account], manager: User) -> None:
    response = respond(relay_url, key, [QUESTION])
    theirs, unknown = references(response)[1], {"type": "item_reference", "id": "msg_north_999"}
    asked = len(accounts[0].asked)

    answers = [post(relay_url, new_key(manager), [QUESTION, item]) for item in (theirs, unknown)]

    errors = [answer.json()["error"] for answer in answers]
    assert [(answer.status_code, error["param"]) for answer, error in zip(answers, errors, strict=True)] == [
        (404, "input[1].id")
    ] * 2
    # Nobody learns from the answer whether somebody else has it.
    assert errors[0]["message"].replace(theirs["id"], "X") == errors[1]["message"].replace("msg_north_999", "X")
    assert len(accounts[0].asked) == asked


def test_items_of_two_accounts_have_no_account_that_could_answer(
    relay_url: str, key: str, accounts: list[Account]
) -> None:
    one = respond(relay_url, key, [QUESTION])
    prefer(accounts[1], relay_url, key)
    other = respond(relay_url, key, [QUESTION])

    answer = post(relay_url, key, [*references(one), *references(other), QUESTION])

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404, "input[2].id")
    assert "lacks" in error["message"] and "store: false" in error["message"]


def test_where_no_state_is_kept_the_404_says_what_to_do(relay_url: str, key: str, accounts: list[Account]) -> None:
    Upstream.objects.update(settings={})
    wait_for(lambda: respond(relay_url, key, "Kept?").get("store") is False)

    response = respond(relay_url, key, [QUESTION], tools=TOOLS)
    answer = post(relay_url, key, [QUESTION, *references(response), RESULT], tools=TOOLS)

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404, "input[1].id")
    assert "store: false" in error["message"] and "keeps_state" in error["message"]
