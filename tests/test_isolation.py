"""Tenant isolation: every URL × every role, with a member of another space. A URL without a row here fails a test.

A refused request must also have changed nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest
from allauth.mfa.models import Authenticator
from django.apps import apps
from django.contrib import admin
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import Model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from accounts.keys import KeyTerms, create_key
from accounts.models import ApiKey, User
from quotas.models import Hold, Transfer, Wallet
from tenants.models import Space
from tests.factories import PASSWORD, MemberFactory, manager_of
from usage.models import Task, UsageRecord

ROLES = ["signed out", "normal", "admin", "manager", "operator", "disabled", "suspended"]


@dataclass(frozen=True)
class Row:
    """The expected status for each role, in the order of ROLES.

    In a path, `N` stands for the member's number and `S` for the stranger's, `K` for the number of the key that each
    member has, and `X` for the number of a key that only the stranger has.
    """

    path: str
    method: str
    statuses: str
    data: dict[str, str] = field(default_factory=dict)

    def expected(self, role: str) -> int:
        return int(self.statuses.split()[ROLES.index(role)])


NEW = {"username": "fresh", "password": "long enough"}
EDIT = {"username": "renamed", "remaining": "9", "admin": "on"}
OWN = {"form": "profile", "display_name": "New"}
PRESENT = {"present_password": PASSWORD}
OWN_LOCALE = {"form": "locale", "language": "zh-hans", "time_zone": "Asia/Shanghai"}

# fmt: off
ROWS = [
    #   path                          method  out  norm admin mgr  oper disab susp
    Row("/",                          "GET",  "302 302  302   302  302  302   302"),
    Row("/healthz",                   "GET",  "200 200  200   200  200  200   200"),
    Row("/readyz",                    "GET",  "200 200  200   200  200  200   200"),
    Row("/login/",                    "GET",  "200 302  302   302  302  200   200"),
    Row("/login/",                    "POST", "422 302  302   302  302  422   422", {"username": "x", "password": "y"}),
    Row("/logout/",                   "POST", "302 302  302   302  302  302   302"),
    Row("/logout/",                   "GET",  "302 405  405   405  405  302   302"),
    Row("/space/users/",              "GET",  "302 403  200   200  403  302   302"),
    Row("/space/users/",              "POST", "302 405  405   405  405  302   302"),
    Row("/space/users/add/",          "GET",  "302 403  200   200  403  302   302"),
    Row("/space/users/add/",          "POST", "302 403  303   303  403  302   302", NEW),
    Row("/space/users/N/edit/",       "GET",  "302 403  200   200  403  302   302"),
    Row("/space/users/N/edit/",       "POST", "302 403  303   303  403  302   302", EDIT),
    Row("/space/users/1/edit/",       "POST", "302 403  403   403  403  302   302", EDIT),
    Row("/space/users/S/edit/",       "GET",  "302 403  404   404  403  302   302"),
    Row("/space/users/S/edit/",       "POST", "302 403  404   404  403  302   302", EDIT),
    Row("/space/users/N/preview/",    "POST", "302 403  200   200  403  302   302", {"remaining": "9"}),
    Row("/space/users/N/preview/",    "GET",  "302 405  405   405  405  302   302"),
    Row("/space/users/S/preview/",    "POST", "302 403  404   404  403  302   302", {"remaining": "9"}),
    Row("/space/users/N/status/",     "POST", "302 403  303   303  403  302   302", {"enabled": "false"}),
    Row("/space/users/N/status/",     "GET",  "302 405  405   405  405  302   302"),
    Row("/space/users/1/status/",     "POST", "302 403  403   403  403  302   302", {"enabled": "false"}),
    Row("/space/users/S/status/",     "POST", "302 403  404   404  403  302   302", {"enabled": "false"}),
    Row("/space/users/N/delete/",     "GET",  "302 403  403   200  403  302   302"),
    Row("/space/users/N/delete/",     "POST", "302 403  403   303  403  302   302", {"confirm": "jun"}),
    Row("/space/users/1/delete/",     "POST", "302 403  403   403  403  302   302", {"confirm": "mira"}),
    Row("/space/users/S/delete/",     "GET",  "302 403  404   404  403  302   302"),
    Row("/space/users/S/delete/",     "POST", "302 403  404   404  403  302   302", {"confirm": "stranger"}),
    Row("/console/",                  "GET",  "302 200  200   200  403  302   302"),
    Row("/console/",                  "POST", "302 405  405   405  405  302   302"),
    Row("/console/members/",          "GET",  "302 403  200   200  403  302   302"),
    Row("/console/members/",          "POST", "302 405  405   405  405  302   302"),
    Row("/console/usage/",            "GET",  "302 200  200   200  403  302   302"),
    Row("/console/usage/",            "POST", "302 405  405   405  405  302   302"),
    Row("/console/tasks/",            "GET",  "302 200  200   200  403  302   302"),
    Row("/console/tasks/",            "POST", "302 405  405   405  405  302   302"),
    Row("/console/tasks/running/",    "GET",  "302 200  200   200  403  302   302"),
    Row("/console/tasks/running/",    "POST", "302 405  405   405  405  302   302"),
    Row("/space/users/N/keys/K/revoke/", "POST", "302 403 303 303 403 302 302"),
    Row("/space/users/N/keys/K/revoke/", "GET",  "302 405 405 405 405 302 302"),
    Row("/space/users/N/keys/X/revoke/", "POST", "302 403 404 404 403 302 302"),
    Row("/space/users/1/keys/K/revoke/", "POST", "302 403 403 403 403 302 302"),
    Row("/space/users/S/keys/K/revoke/", "POST", "302 403 404 404 403 302 302"),
    Row("/console/tokens/",           "GET",  "302 200  200   200  403  302   302"),
    Row("/console/tokens/",           "POST", "302 405  405   405  405  302   302"),
    Row("/console/tokens/add/",       "GET",  "302 200  200   200  403  302   302"),
    Row("/console/tokens/add/",       "POST", "302 200  200   200  403  302   302", {"name": "mine"}),
    Row("/console/tokens/K/edit/",    "GET",  "302 200  200   200  403  302   302"),
    Row("/console/tokens/K/edit/",    "POST", "302 303  303   303  403  302   302", {"name": "mine"}),
    Row("/console/tokens/X/edit/",    "GET",  "302 404  404   404  403  302   302"),
    Row("/console/tokens/X/edit/",    "POST", "302 404  404   404  403  302   302", {"name": "mine"}),
    Row("/console/tokens/K/status/",  "POST", "302 303  303   303  403  302   302", {"enabled": "false"}),
    Row("/console/tokens/K/status/",  "GET",  "302 405  405   405  405  302   302"),
    Row("/console/tokens/X/status/",  "POST", "302 404  404   404  403  302   302", {"enabled": "false"}),
    Row("/console/tokens/K/rotate/",  "GET",  "302 200  200   200  403  302   302"),
    Row("/console/tokens/K/rotate/",  "POST", "302 200  200   200  403  302   302", {"grace": "1h"}),
    Row("/console/tokens/X/rotate/",  "GET",  "302 404  404   404  403  302   302"),
    Row("/console/tokens/X/rotate/",  "POST", "302 404  404   404  403  302   302", {"grace": "1h"}),
    Row("/console/tokens/K/delete/",  "GET",  "302 200  200   200  403  302   302"),
    Row("/console/tokens/K/delete/",  "POST", "302 303  303   303  403  302   302"),
    Row("/console/tokens/X/delete/",  "GET",  "302 404  404   404  403  302   302"),
    Row("/console/tokens/X/delete/",  "POST", "302 404  404   404  403  302   302"),
    Row("/space/audit/",              "GET",  "302 403  200   200  403  302   302"),
    Row("/space/audit/",              "POST", "302 405  405   405  405  302   302"),
    Row("/space/audit.csv",           "GET",  "302 403  200   200  403  302   302"),
    Row("/space/audit.csv",           "POST", "302 405  405   405  405  302   302"),
    Row("/me/activity/",              "GET",  "302 200  200   200  403  302   302"),
    Row("/me/activity/",              "POST", "302 405  405   405  405  302   302"),
    Row("/login/2fa/",                "GET",  "302 302  302   302  302  302   302"),
    Row("/login/2fa/",                "POST", "302 302  302   302  302  302   302", {"code": "123456"}),
    Row("/space/security/",           "POST", "302 403  403   303  403  302   302", {"required": "true"}),
    Row("/space/security/",           "GET",  "302 405  405   405  405  302   302"),
    Row("/space/users/N/two-factor/reset/", "GET",  "302 403 403 200 403 302 302"),
    Row("/space/users/N/two-factor/reset/", "POST", "302 403 403 303 403 302 302"),
    Row("/space/users/1/two-factor/reset/", "POST", "302 403 403 403 403 302 302"),
    Row("/space/users/S/two-factor/reset/", "GET",  "302 403 404 404 403 302 302"),
    Row("/space/users/S/two-factor/reset/", "POST", "302 403 404 404 403 302 302"),
    Row("/me/confirm/",               "GET",  "302 200  200   200  200  302   302"),
    Row("/me/confirm/",               "POST", "302 303  303   303  303  302   302", PRESENT),
    Row("/me/two-factor/",            "GET",  "302 200  200   200  200  302   302"),
    Row("/me/two-factor/",            "POST", "302 405  405   405  405  302   302"),
    # 303 to the page that asks for the current password, as nobody here has just confirmed it. tests/console/settings/
    # tests these pages after that.
    Row("/me/two-factor/app/",        "GET",  "302 303  303   303  303  302   302"),
    Row("/me/two-factor/app/",        "POST", "302 303  303   303  303  302   302", {"code": "123456"}),
    Row("/me/two-factor/app/remove/", "GET",  "302 303  303   303  303  302   302"),
    Row("/me/two-factor/app/remove/", "POST", "302 303  303   303  303  302   302"),
    Row("/me/two-factor/codes/",      "GET",  "302 303  303   303  303  302   302"),
    Row("/me/two-factor/codes/",      "POST", "302 303  303   303  303  302   302"),
    Row("/me/two-factor/passkeys/add/", "GET",  "302 303 303  303  303  302   302"),
    Row("/me/two-factor/passkeys/add/", "POST", "302 303 303  303  303  302   302", {"name": "x", "passkey": "{}"}),
    Row("/me/two-factor/passkeys/K/remove/", "GET",  "302 303 303 303 303 302 302"),
    Row("/me/two-factor/passkeys/K/remove/", "POST", "302 303 303 303 303 302 302"),
    Row("/me/sessions/K/end/",        "POST", "302 404  404   404  403  302   302"),
    Row("/me/sessions/K/end/",        "GET",  "302 405  405   405  405  302   302"),
    Row("/me/sessions/end-others/",   "POST", "302 303  303   303  403  302   302"),
    Row("/me/sessions/end-others/",   "GET",  "302 405  405   405  405  302   302"),
    Row("/console/usage.csv",         "GET",  "302 200  200   200  403  302   302"),
    Row("/console/usage.csv",         "POST", "302 405  405   405  405  302   302"),
    Row("/console/tasks.csv",         "GET",  "302 200  200   200  403  302   302"),
    Row("/console/tasks.csv",         "POST", "302 405  405   405  405  302   302"),
    Row("/language/",                 "POST", "302 302  302   302  302  302   302", {"language": "en"}),
    Row("/language/",                 "GET",  "405 405  405   405  405  405   405"),
    Row("/me/credits/",               "GET",  "302 200  200   200  403  302   302"),
    Row("/me/credits/",               "POST", "302 405  405   405  405  302   302"),
    Row("/me/credits.csv",            "GET",  "302 200  200   200  403  302   302"),
    Row("/me/credits.csv",            "POST", "302 405  405   405  405  302   302"),
    Row("/me/statement/",             "GET",  "302 200  200   200  403  302   302"),
    Row("/me/statement/",             "POST", "302 405  405   405  405  302   302"),
    Row("/me/statement.csv",          "GET",  "302 200  200   200  403  302   302"),
    Row("/space/users/N/statement/",  "GET",  "302 403  200   200  403  302   302"),
    Row("/space/users/N/statement/",  "POST", "302 405  405   405  405  302   302"),
    Row("/space/users/1/statement/",  "GET",  "302 403  403   403  403  302   302"),
    Row("/space/users/S/statement/",  "GET",  "302 403  404   404  403  302   302"),
    Row("/space/users/N/statement.csv", "GET", "302 403 200 200 403 302 302"),
    Row("/space/users/1/statement.csv", "GET", "302 403 403 403 403 302 302"),
    Row("/space/users/S/statement.csv", "GET", "302 403 404 404 403 302 302"),
    Row("/me/settings/",              "GET",  "302 200  200   200  403  302   302"),
    Row("/me/settings/",              "POST", "302 303  303   303  403  302   302", OWN),
    Row("/me/settings/",              "POST", "302 303  303   303  403  302   302", OWN_LOCALE),
]
# fmt: on

# Django admin's URLs have no rows: a test of its own shows that they answer operators only.
ADMIN = "admin/"

STATE: list[type[Model]] = [User, Wallet, Transfer, Hold, UsageRecord, Task, Space, ApiKey, Authenticator]


def snapshot() -> list[Any]:
    """Everything that a refused request must not change, except last_login, which the test's own sign-in changes."""
    tables = []
    with connection.cursor() as cursor:
        for query in QUERIES:
            cursor.execute(query)
            tables.append(cursor.fetchall())
    return tables


def _query(model: type[Model]) -> str:
    columns = [field.column for field in model._meta.concrete_fields if field.name != "last_login"]
    quoted = ", ".join(connection.ops.quote_name(column) for column in columns)
    return f"SELECT {quoted} FROM {model._meta.db_table} ORDER BY {model._meta.pk.column}"


# In SQL, because two thousand snapshots through the ORM took a quarter of the time of these tests.
QUERIES = [_query(model) for model in STATE]


@pytest.fixture
def cast(
    space: Space, manager: User, admin_member: User, member: User, stranger: User, operator: User
) -> Callable[[str], User | None]:
    for owner in (manager, admin_member, member, stranger, stranger):
        create_key(owner=owner, terms=KeyTerms(name="default"))

    def of(role: str) -> User | None:
        if role == "disabled":
            disabled = MemberFactory.create(space=space, username="gone", is_admin=True)
            disabled.is_active = False
            return disabled
        if role == "suspended":
            return manager_of(Space.objects.get(name="Elsewhere"))
        people = {"normal": member, "admin": admin_member, "manager": manager, "operator": operator}
        return people.get(role)

    return of


def sign_in(client: Client, role: str, user: User | None) -> None:
    """Sign the user in. The disabled and the suspended are disabled or suspended only after signing in."""
    if user is None:
        return
    User.objects.filter(pk=user.pk).update(is_active=True)
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    if role == "disabled":
        User.objects.filter(pk=user.pk).update(is_active=False)
    if role == "suspended":
        Space.objects.filter(pk=user.space_id).update(suspended_at="2026-01-01T00:00Z")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_each_role_gets_what_the_table_says(
    cast: Callable[[str], User | None], member: User, stranger: User, row: Row
) -> None:
    path = row.path.replace("/N/", f"/{member.number}/").replace("/S/", f"/{stranger.number}/")
    path = path.replace("/K/", "/1/").replace("/X/", "/2/")

    answers = {role: _try_as(role, cast, row, path) for role in ROLES}

    assert answers == {role: row.expected(role) for role in ROLES}


def _try_as(role: str, cast: Callable[[str], User | None], row: Row, path: str) -> int:
    """Return the status that a role gets, and roll back. Assert that a refused request and a GET changed nothing."""
    client = Client()
    with transaction.atomic():
        sign_in(client, role, cast(role))
        before = snapshot()
        response = client.generic(row.method, path, **_body(row))
        if response.status_code >= 400 or row.method == "GET" or _to_sign_in(response):
            assert snapshot() == before
        transaction.set_rollback(True)
    return int(response.status_code)


def _body(row: Row) -> dict[str, Any]:
    return {"data": urlencode(row.data), "content_type": "application/x-www-form-urlencoded"} if row.data else {}


def _to_sign_in(response: Any) -> bool:
    return bool(response.status_code == 302 and response["Location"].startswith(("/login/", "/admin/login/")))


def routes(patterns: list[Any], prefix: str = "") -> Iterator[str]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            yield route


def test_every_url_has_a_row() -> None:
    ours = {route for route in routes(get_resolver().url_patterns) if not route.startswith(ADMIN)}
    rowed = {row.path.lstrip("/").replace("/N/", "/<int:number>/") for row in ROWS if "/1/" not in row.path}
    rowed = {path.replace("/K/", "/<int:key_number>/") for path in rowed}

    assert ours == {path for path in rowed if "/S/" not in path and "/X/" not in path}


@pytest.mark.parametrize("role", ["signed out", "normal", "admin", "manager", "disabled", "suspended"])
def test_django_admin_answers_operators_alone(
    client: Client, cast: Callable[[str], User | None], space: Space, role: str
) -> None:
    sign_in(client, role, cast(role))
    before = snapshot()
    paths = ["/admin/", "/admin/jsi18n/", f"/admin/tenants/space/{space.pk}/move/"]
    paths += [f"/admin/tenants/space/{space.pk}/suspend/", f"/admin/tenants/space/{space.pk}/change/"]
    for model in admin.site._registry:
        paths += [f"/admin/{model._meta.app_label}/{model._meta.model_name}/{end}" for end in ("", "add/")]

    for path in paths:
        for response in (client.get(path), client.post(path, {"deed": "grant", "amount": "5", "name": "Mine"})):
            assert response.status_code == 403 or _to_sign_in(response), (path, response.status_code)

    assert snapshot() == before


def test_nobody_writes_the_books_in_django_admin(client: Client, operator: User, member: User, charged: None) -> None:
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")
    moments = dict.fromkeys(("submitted_at", "deadline_at", "next_poll_at"), timezone.now())
    Task.objects.create(space=member.space, user_id=member.pk, username="jun", model="m", kind="video", **moments)
    before = snapshot()

    for name in ("quotas.Wallet", "quotas.Transfer", "usage.UsageRecord", "usage.Task", "audit.AuditEvent"):
        model = apps.get_model(name)
        row = model._default_manager.first()
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}"
        assert client.get(f"{base}/{row.pk}/change/").status_code == 200
        for path in (f"{base}/add/", f"{base}/{row.pk}/change/", f"{base}/{row.pk}/delete/"):
            assert client.post(path, {"total": "1", "post": "yes"}).status_code == 403, path

    assert snapshot() == before


def test_a_strangers_number_is_answered_like_a_number_that_nobody_has(
    client: Client, manager: User, stranger: User
) -> None:
    """The stranger's number exists in their space and not in ours; 999 exists nowhere."""
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")

    theirs = client.get(f"/space/users/{stranger.number}/edit/")
    nobodys = client.get("/space/users/999/edit/")

    assert theirs.status_code == nobodys.status_code == 404
    assert _without_token(theirs) == _without_token(nobodys).replace("999", str(stranger.number))
    assert "stranger" not in theirs.content.decode()


def _without_token(response: Any) -> str:
    return re.sub(r'name="csrfmiddlewaretoken" value="[^"]+"', "", response.content.decode())


def test_a_list_shows_and_finds_no_stranger(client: Client, manager: User, member: User, stranger: User) -> None:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")

    page = client.get("/space/users/?size=100").content.decode()
    found = client.get("/space/users/?q=stranger").content.decode()

    assert "jun" in page and "stranger" not in page
    assert "Nothing" in found or "No username" in found
    assert "Elsewhere" not in page + found


def test_a_username_taken_in_another_space_is_refused_without_naming_its_owner(
    client: Client, manager: User, stranger: User
) -> None:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")

    response = client.post("/space/users/add/", {"username": "STRANGER", "password": PASSWORD})

    assert response.status_code == 422
    assert "This username is not available." in response.content.decode()
    assert "Elsewhere" not in response.content.decode()


def test_a_session_in_a_suspended_space_is_signed_out(client: Client, stranger: User, member: User) -> None:
    sign_in(client, "suspended", stranger)

    assert client.get("/me/credits/").status_code == 302
    assert Session.objects.count() <= 1
