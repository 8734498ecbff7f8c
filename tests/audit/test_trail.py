"""The audit trail records every change, refusal and sign-in, and never a secret."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from accounts.keys import KeyTerms, create_key, rotate_key
from accounts.models import User
from accounts.throttle import MAX_FAILURES_PER_NAME
from audit.models import AuditEvent
from audit.services import MAX_REFUSALS_PER_HOUR, REFUSALS_OMITTED, SecretInTrailError, record, record_refused_deed
from core.errors import NameTakenError
from core.money import format_exact
from quotas.models import Wallet
from quotas.spaces import create_space
from relay.models import Model, Upstream
from tenants.models import Space
from tenants.roles import Role
from tests.factories import PASSWORD, MemberFactory
from tests.relay.conftest import wait_for

pytestmark = pytest.mark.django_db

SECRET = "Tr0ub4dor-and-3-secrets"


def as_(user: User) -> Client:
    client = Client(REMOTE_ADDR="198.51.100.7")
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    return client


def refusals(**which: Any) -> list[tuple[str, str, str, str]]:
    """Return (actor, kind, target, reason) of the recorded refusals, oldest first."""
    events = AuditEvent.objects.exclude(refusal="").filter(**which).order_by("id")
    return list(events.values_list("actor_name", "kind", "target_name", "refusal"))


# -- The state can be rebuilt from the trail alone --------------------------------------------------------------------

Known = dict[int, dict[str, Any]]


def rebuilt(space: Space) -> Known:
    """Rebuild the names, role, state and allocation of every member from the trail alone, without deleted members."""
    known: Known = {}
    for event in AuditEvent.objects.filter(space=space, refusal="").order_by("id"):
        assert event.target_id is not None
        match event.kind:
            case "member.created" | "manager.created":
                fresh = {name: event.after[name] for name in ("username", "display_name", "role")}
                known[event.target_id] = fresh | {"enabled": True, "remaining": "0.00"}
            case "member.edited" | "self.edited":
                known[event.target_id] |= event.after
            case "member.enabled" | "member.disabled":
                known[event.target_id] |= event.after
            case "member.quota_set":
                known[event.target_id] |= {"remaining": event.after["remaining"]}
            case "member.deleted":
                del known[event.target_id]
    return {number: person for number, person in known.items() if person["role"] != Role.MANAGER}


def stored(space: Space) -> Known:
    people = User.objects.filter(space=space, role__in=[Role.ADMIN, Role.NORMAL]).select_related("wallet")
    return {
        person.pk: {
            "username": person.username,
            "display_name": person.display_name,
            "role": person.role,
            "enabled": person.is_active,
            "remaining": format_exact(person.wallet.remaining),
        }
        for person in people
    }


def click(chance: random.Random, who: list[User], number: int, step: int) -> None:
    """Send one POST request of a random user to a random page, valid or not."""
    edit = {"username": f"name{step}", "display_name": f"Name {step}", "remaining": str(chance.randint(0, 300))}
    if chance.random() < 0.5:
        edit |= {"admin": "on"}
    base = f"/space/users/{number}/"
    own = {"form": "profile", "display_name": f"Me {step}"}
    path, data = chance.choice(
        [
            ("/space/users/add/", {"username": f"new{step}", "password": PASSWORD}),
            ("/space/users/add/", {"username": f"new{step - 1}", "password": PASSWORD}),
            (f"{base}edit/", edit),
            (f"{base}edit/", {"remaining": str(chance.randint(0, 900)), "was_admin": "true"}),
            (f"{base}status/", {"enabled": chance.choice(["true", "false"])}),
            (f"{base}delete/", {"confirm": str(User.everyone.filter(space=who[0].space, number=number).first())}),
            ("/me/settings/", own),
            ("/me/settings/", {"form": "password", "present_password": "wrong", "new_password": SECRET}),
            ("/console/tokens/add/", {"name": f"key {step}", "expires": "never"}),
        ]
    )
    as_(User.everyone.get(pk=chance.choice(who).pk)).post(path, data)


@pytest.mark.parametrize("seed", range(3))
def test_the_state_after_random_requests_can_be_rebuilt_from_the_trail(
    space: Space, manager: User, admin_member: User, member: User, stranger: User, seed: int
) -> None:
    chance = random.Random(seed)
    others = stored(Space.objects.get(name="Elsewhere"))

    for step in range(60):
        click(chance, [manager, admin_member, member, stranger], chance.choice([1, 2, 3, 4, 5, 40, 41]), step)

    assert rebuilt(space) == stored(space)
    kinds = set(AuditEvent.objects.filter(space=space).values_list("kind", flat=True))
    assert {"member.created", "member.edited", "member.quota_set", "session.signed_in"} <= kinds
    assert refusals(space=space)
    assert rebuilt(Space.objects.get(name="Elsewhere")).keys() <= others.keys() | stored(stranger.space).keys()


# -- Refused attempts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        (
            "/space/users/add/",
            {"username": "x-new", "password": PASSWORD},
            ("jun", "member.created", "", "not_allowed"),
        ),
        ("/space/users/2/edit/", {"remaining": "1"}, ("jun", "member.edited", "amara", "not_allowed")),
        ("/space/users/2/status/", {"enabled": "false"}, ("jun", "member.status_set", "amara", "not_allowed")),
        ("/space/users/3/delete/", {"confirm": "jun"}, ("amara", "member.deleted", "jun", "not_allowed")),
        ("/space/users/1/edit/", {"username": "mine"}, ("amara", "member.edited", "mira", "not_allowed")),
        ("/space/users/3/edit/", {"remaining": "9000"}, ("amara", "member.edited", "jun", "insufficient_pool")),
        ("/space/users/3/edit/", {"username": "amara"}, ("mira", "member.edited", "jun", "name_taken")),
        ("/admin/tenants/space/add/", {"name": "Mine"}, ("amara", "page.posted", "", "not_allowed")),
    ],
)
def test_a_refused_attempt_is_recorded_and_nothing_else_is(
    space: Space, manager: User, admin_member: User, member: User, path: str, data: Any, expected: tuple[str, ...]
) -> None:
    client = as_(User.objects.get(username=expected[0]))
    before = stored(space), AuditEvent.objects.filter(refusal="").count()

    client.post(path, data)

    assert refusals(space=space) == [expected]
    assert (stored(space), AuditEvent.objects.filter(refusal="").count()) == before
    event = AuditEvent.objects.exclude(refusal="").get()
    assert event.address == "198.51.100.7" and len(event.request_id) == 32


def test_get_requests_and_previews_are_not_recorded_as_refusals(member: User) -> None:
    assert as_(member).get("/space/users/2/delete/").status_code == 403
    assert as_(member).post("/space/users/2/preview/", {"remaining": "1"}).status_code == 403

    assert refusals() == []


def test_editing_a_member_of_another_space_leaves_nothing_in_either_trail(manager: User, stranger: User) -> None:
    client = as_(manager)
    before = AuditEvent.objects.count()

    assert client.post(f"/space/users/{stranger.number}/edit/", {"remaining": "1"}).status_code == 404

    assert AuditEvent.objects.count() == before


def test_a_wrong_current_password_is_recorded(member: User) -> None:
    given = {"form": "password", "present_password": SECRET, "new_password": SECRET + "2"}

    assert as_(member).post("/me/settings/", given).status_code == 422

    assert refusals() == [("jun", "self.password_changed", "jun", "wrong_password")]


def test_repeated_refusals_are_recorded_up_to_the_hourly_limit(member: User) -> None:
    client = as_(member)

    for _ in range(MAX_REFUSALS_PER_HOUR + 5):
        assert client.post("/space/users/2/status/", {"enabled": "false"}).status_code == 403
    client.post("/space/users/add/", {"username": "another-kind"})

    events = list(AuditEvent.objects.filter(kind="member.status_set").order_by("id"))
    assert len(events) == MAX_REFUSALS_PER_HOUR
    assert [REFUSALS_OMITTED in event.after for event in events] == [False] * (MAX_REFUSALS_PER_HOUR - 1) + [True]
    assert len(refusals(kind="member.created")) == 1


def test_operators_refused_acts_are_recorded(space: Space, operator: User) -> None:
    form = {"deed": "revoke", "amount": "501", "reason": "Too much", "key": "0" * 32}

    assert as_(operator).post(f"/admin/tenants/space/{space.pk}/move/", form).status_code == 422

    assert refusals() == [("operator", "pool.revoke", "Halcyon Labs", "insufficient_pool")]


def test_a_refusal_is_recorded_once_its_transaction_is_rolled_back(space: Space, operator: User) -> None:
    asked = {"name": space.name, "manager_username": "nora"}
    with pytest.raises(NameTakenError) as refused, transaction.atomic():
        create_space(name=space.name, manager_username="nora", manager_password=SECRET, actor=operator)
    assert refusals() == []

    record_refused_deed("space.created", refused.value, actor=operator, target=None, asked=asked)

    assert refusals() == [("operator", "space.created", "", "name_taken")]
    assert AuditEvent.objects.get(refusal="name_taken").after == {"name": "Halcyon Labs", "manager_username": "nora"}


def test_an_error_that_is_not_a_refusal_is_not_recorded(operator: User) -> None:
    record_refused_deed("space.created", RuntimeError("no connection"), actor=operator, target=None)

    assert refusals() == []


def test_a_request_that_django_admin_refuses_is_recorded(member: User, operator: User) -> None:
    answer = as_(operator).post(f"/admin/accounts/user/{member.pk}/change/", {"username": "x-new"})

    assert answer.status_code == 403
    assert refusals() == [("operator", "page.posted", "", "not_allowed")]
    assert User.objects.get(pk=member.pk).username == "jun"


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql("SQLite allows one writer at a time, so that the two cannot race")
@pytest.mark.parametrize(
    ("path", "kind"),
    [("/admin/tenants/space/add/", "space.created"), ("/admin/accounts/user/{pk}/change/", "manager.reset")],
)
def test_a_name_that_is_taken_while_an_operators_page_saves_is_in_the_trail(
    manager: User, operator: User, path: str, kind: str
) -> None:
    form = {"name": "Northwind", "manager_username": "nora", "manager_password": SECRET}
    form |= {"username": "nora", "display_name": "", "new_password": ""}
    client = as_(operator)
    with ThreadPoolExecutor(1) as thread:
        with transaction.atomic():
            create_space(name="Elsewhere", manager_username="nora", manager_password=SECRET)
            page = thread.submit(_post_and_close_connection, client, path.format(pk=manager.pk), form)
            wait_for(_is_a_lock_awaited, seconds=20)
        answer = page.result(timeout=60)

    assert (answer.status_code, answer["Location"]) == (302, path.format(pk=manager.pk))
    assert [(who, what, why) for who, what, _whom, why in refusals()] == [("operator", kind, "name_taken")]
    assert User.objects.get(pk=manager.pk).username == "mira" and not Space.objects.filter(name="Northwind").exists()


def _post_and_close_connection(client: Client, path: str, form: dict[str, str]) -> Any:
    try:
        return client.post(path, form)
    finally:
        connection.close()


def _is_a_lock_awaited() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def test_management_commands_are_recorded_as_actors_by_name(space: Space) -> None:
    call_command("grant", space="Halcyon Labs", amount="5", reason="More", stdout=StringIO())
    with pytest.raises(CommandError):
        call_command("grant", space="Halcyon Labs", amount="-900", reason="Too much", stdout=StringIO())

    assert AuditEvent.objects.filter(kind="pool.grant").latest("id").actor_name == "grant"
    assert refusals() == [("grant", "pool.revoke", "Halcyon Labs", "insufficient_pool")]


# -- Sign-ins and sign-outs -------------------------------------------------------------------------------------------


def try_to_sign_in(username: str, password: str = PASSWORD, client: Client | None = None) -> int:
    return (client or Client()).post("/login/", {"username": username, "password": password}).status_code


def test_sign_ins_and_sign_outs_are_recorded(member: User) -> None:
    client = Client()
    assert try_to_sign_in("JUN", client=client) == 302
    client.post("/logout/")

    events = AuditEvent.objects.filter(kind__startswith="session.").order_by("id")
    found = list(events.values_list("kind", "actor_name", "target_name", "address"))
    assert found == [(f"session.signed_{way}", "jun", "jun", "127.0.0.1") for way in ("in", "out")]


def test_refused_sign_ins_are_recorded_with_their_reason_in_the_space_of_the_user(member: User, space: Space) -> None:
    MemberFactory(space=space, username="asleep")
    User.objects.filter(username="asleep").update(is_active=False)
    for username in ("jun", "asleep", SECRET):
        assert try_to_sign_in(username, "wrong") == 422

    assert refusals(space=space) == [
        ("", "session.signed_in", "jun", "wrong_password"),
        ("", "session.signed_in", "asleep", "account_disabled"),
    ]
    assert refusals(space=None) == [("", "session.signed_in", "", "unknown_name")]


def test_a_locked_out_sign_in_is_recorded_with_a_reason_of_its_own(member: User) -> None:
    for _ in range(MAX_FAILURES_PER_NAME + 1):
        try_to_sign_in("jun", "wrong")

    assert [why for *_, why in refusals()] == ["wrong_password"] * MAX_FAILURES_PER_NAME + ["locked"]


# -- Secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_gets_into_the_trail(
    space: Space, manager: User, member: User, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, text = create_key(owner=member, terms=KeyTerms(name="mine"))
    _again, rotated = rotate_key(key=made, grace=timedelta(hours=1), actor=member)
    as_(manager).post("/space/users/add/", {"username": "fresh", "password": SECRET})
    as_(manager).post("/space/users/2/edit/", {"password": SECRET + "1"})
    as_(manager).post("/me/settings/", {"form": "password", "present_password": PASSWORD, "new_password": SECRET})
    as_(member).post("/me/settings/", {"form": "profile", "display_name": text})
    as_(member).post("/me/settings/", {"form": "password", "present_password": SECRET, "new_password": SECRET})
    as_(member).post("/console/tokens/add/", {"name": rotated, "expires": "never"})
    for username, password in (("jun", SECRET), (SECRET, SECRET)):
        try_to_sign_in(username, password)
    space_form = {"name": "Next", "manager_username": "next", "manager_password": SECRET, "grant": "5"}
    as_(operator).post("/admin/tenants/space/add/", space_form)
    as_(operator).post(f"/admin/accounts/user/{manager.pk}/change/", {"username": "mira", "new_password": SECRET})
    monkeypatch.setattr("sys.stdin", StringIO(f"{SECRET}\n"))
    options = {"name": "up", "base_url": "https://up.example/v1", "models": "m", "credential_stdin": True}
    call_command("add_upstream", **options, stdout=StringIO())
    monkeypatch.setattr("sys.stdin", StringIO(f"{SECRET}\n"))
    call_command("create_space", name="Third", manager="third", grant="1", password_stdin=True, stdout=StringIO())

    written = json.dumps(list(AuditEvent.objects.values()), default=str, ensure_ascii=False)
    kept = [*User.everyone.values_list("password", flat=True), Upstream.objects.get().credential]

    assert [secret for secret in (SECRET, text, rotated, made.hash, *kept) if secret in written] == []
    assert "credential_changed" in written and made.shown in written


@pytest.mark.parametrize(
    "fact",
    [{"password": "x"}, {"new_password": "x"}, {"key": {"hash": "x"}}, {"totp_secret": "x"}, {"recovery_codes": ["x"]}],
)
def test_a_field_named_like_a_secret_raises_and_writes_nothing(member: User, fact: dict[str, Any]) -> None:
    before = AuditEvent.objects.count()

    with pytest.raises(SecretInTrailError):
        record("member.edited", space=member.space, actor=None, target=member, after=fact)

    assert AuditEvent.objects.count() == before


# -- Events of operators ----------------------------------------------------------------------------------------------


def test_prices_and_upstreams_are_recorded_for_operators_alone(operator: User) -> None:
    call_command("set_price", model="gpt-x", input="2", output="8", stdout=StringIO())
    call_command("add_upstream", name="up", base_url="https://up.example/v1", models="gpt-x", stdout=StringIO())
    call_command("add_upstream", name="up", priority=3, stdout=StringIO())
    as_(operator).post(f"/admin/relay/upstream/{Upstream.objects.get().pk}/delete/", {"post": "yes"})

    events = AuditEvent.objects.filter(kind__regex=r"^(model|price|upstream)\.").order_by("id")
    assert list(events.values_list("actor_name", "kind", "target_name", "space")) == [
        ("set_price", "model.added", "gpt-x", None),
        ("set_price", "price.set", "gpt-x", None),
        ("add_upstream", "upstream.added", "up", None),
        ("add_upstream", "upstream.edited", "up", None),
        ("operator", "upstream.deleted", "up", None),
    ]
    edited = events.get(kind="upstream.edited")
    assert (edited.before, edited.after) == ({"priority": 0}, {"priority": 3})
    assert Model.objects.get().price_at(timezone.now()) is not None
    assert Wallet.objects.count() == 0
