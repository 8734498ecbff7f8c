"""Fuzzing: no input to any form or URL causes a 5xx or books that do not balance."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.keys import KeyTerms, create_key
from accounts.models import ApiKey, User
from core.ids import new_id
from quotas.charging import Call, hold, settle
from quotas.models import Wallet
from quotas.reconcile import reconcile
from tenants.models import Space

STRANGE = st.sampled_from(
    ["", " ", "0", "-0", "-1", "1e30", "NaN", "0.0000000001", "$1,000", "٣", "%", "_", "\\", "'", '"', "<b>", "😀"]
    + ["\u202e", "\u200f", "\0", "\r\n", "true", "false", "on", "null", "[]", "{{ 7 }}", "../../etc", "9" * 400]
    + ["2", "jun", "12.50", "x" * 70_000, "\ud7ff\ue000\uffff", "a" * 8, "enabled", "-remaining", "1" * 30]
    + ["0001-01-01", "9999-12-31", "2026-02-30", "date", "1m", "::/0", "fe80::1%eth0", "a,b\nc", "-" + "f" * 32]
)
VALUES = STRANGE | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
FIELDS = ["username", "display_name", "password", "remaining", "admin", "was_total", "was_remaining", "was_admin"]
KEY_FIELDS = ["name", "expires", "expires_on", "limit", "models", "ips"]
FORMS = {
    "/space/users/add/": ["username", "display_name", "password"],
    "/space/users/3/edit/": FIELDS,
    "/space/users/3/preview/": ["remaining"],
    "/space/users/3/status/": ["enabled"],
    "/space/users/3/delete/": ["confirm"],
    "/console/tokens/add/": KEY_FIELDS,
    "/console/tokens/1/edit/": KEY_FIELDS,
    "/console/tokens/1/status/": ["enabled"],
    "/console/tokens/1/rotate/": ["grace"],
    "/me/settings/": [
        *("form", "display_name", "present_password", "new_password"),
        *("theme", "language", "time_zone"),
    ],
    "/language/": ["language", "next"],
    "/login/": ["username", "password", "next"],
}
QUERIES = {
    "/space/users/": ["q", "status", "role", "sort", "page", "size"],
    "/me/credits/": ["from", "to", "user", "kind", "cursor", "size"],
    "/me/credits.csv": ["from", "to", "user", "kind", "cursor", "bom"],
    "/me/statement/": ["month", "after"],
    "/me/statement.csv": ["month", "bom"],
    "/space/users/3/statement/": ["month"],
    "/console/usage.csv": ["from", "to", "user", "token", "model", "type", "request_id", "cursor", "bom"],
    "/console/tasks.csv": ["from", "to", "user", "status", "platform", "request_id", "cursor", "bom"],
    "/console/": ["scope", "period", "from", "to"],
    "/console/tokens/": ["page"],
    "/console/usage/": ["from", "to", "user", "token", "model", "type", "request_id", "cursor", "size"],
    "/console/tasks/": ["from", "to", "user", "token", "model", "status", "platform", "request_id", "cursor", "size"],
    "/console/tasks/running/": ["from", "to", "user", "token", "model", "status", "platform", "request_id", "task"],
    "/login/": ["next"],
}
HEADERS = st.sampled_from(
    [
        {},
        {"HX-Request": "true"},
        {"HX-Request": "true", "HX-Current-URL": "http://[bad/?q=%"},
        {"Referer": "http://[bad"},
    ]
)


@pytest.fixture(autouse=True)
def keys(manager: User, admin_member: User, member: User) -> None:
    for owner in (manager, manager, member):
        key, _text = create_key(owner=owner, terms=KeyTerms(name="laptop"))
        request_id, call = new_id(), Call(model="gpt-4o-mini", key_id=key.pk, key_name=key.name)
        hold(request_id=request_id, user=owner, amount_nanos=500, call=call)
        settle(space_id=key.space_id, request_id=request_id, cost_nanos=400, call=call)


@pytest.fixture
def signed_in(client: Client, manager: User, admin_member: User, member: User) -> Client:
    client.raise_request_exception = False
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    return client


def total_of_everything(space: Space) -> int:
    """The money in the pool and in members' wallets, which no transfer changes."""
    wallets = list(Wallet.objects.filter(space=space))
    pool = next(wallet for wallet in wallets if wallet.kind == "pool")
    return pool.available + pool.spent + pool.held + sum(wallet.total for wallet in wallets if wallet != pool)


def everything() -> list[list[Any]]:
    return [list(rows.order_by("pk").values()) for rows in (User.everyone, Wallet.objects, ApiKey.with_deleted)]


@pytest.mark.django_db
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_form_input_is_answered_5xx_and_the_books_balance(signed_in: Client, space: Space, data: Any) -> None:
    path = data.draw(st.sampled_from(sorted(FORMS)))
    fields = data.draw(st.dictionaries(st.sampled_from(FORMS[path]), VALUES))

    response = signed_in.post(path, fields, headers=data.draw(HEADERS))

    assert response.status_code < 500, (path, fields)
    assert total_of_everything(space) == Wallet.objects.get(space=space, kind="pool").total
    assert reconcile(space) == []


@pytest.mark.django_db
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_query_string_is_answered_5xx(signed_in: Client, data: Any) -> None:
    path = data.draw(st.sampled_from(sorted(QUERIES)))
    query = data.draw(st.dictionaries(st.sampled_from(QUERIES[path]), VALUES.filter(lambda value: len(value) < 2000)))

    response = signed_in.get(path, query, headers=data.draw(HEADERS))

    assert response.status_code in (200, 302), (path, query)


@pytest.mark.django_db
@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "text/plain", "x/\0", ""])
@pytest.mark.parametrize("path", sorted(FORMS))
@pytest.mark.any_database
def test_a_body_of_another_content_type_is_refused_and_changes_nothing(
    signed_in: Client, space: Space, member: User, path: str, content_type: str
) -> None:
    before = everything()

    response = signed_in.generic("POST", path, b'{"remaining": "9", \xff\x00', content_type)

    assert response.status_code in (302, 303, 400, 422)
    assert everything() == before


@pytest.mark.django_db
def test_a_body_above_the_size_limit_is_answered_400(signed_in: Client, member: User) -> None:
    response = signed_in.post("/space/users/add/", {"username": "x" * 17_000_000})

    assert response.status_code == 400
    assert len(response.content) < 40_000


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "FOO"])
@pytest.mark.parametrize("path", sorted({*FORMS, *QUERIES} - {"/login/"}))
@pytest.mark.any_database
def test_other_methods_are_405(signed_in: Client, path: str, method: str) -> None:
    assert signed_in.generic(method, path).status_code == 405
