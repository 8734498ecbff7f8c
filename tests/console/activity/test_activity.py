"""The audit trail as page and CSV file, and one's own activity: visibility and filters."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from audit.models import AuditEvent
from audit.services import record, record_refusal
from console.activity.sentences import line_of
from core.money import NANOS_PER_USD as USD
from core.origin import acting
from quotas.members import MemberChanges, delete_member, edit_member
from quotas.services import grant, set_remaining
from tenants.models import Space

pytestmark = pytest.mark.django_db


def page(viewer: User, address: str = "/space/audit/", **query: Any) -> tuple[Any, str]:
    """Return the response and its text without tags."""
    client = Client()
    client.force_login(viewer, backend="accounts.backends.LivingUserBackend")
    response = client.get(f"{address}?{urlencode(query)}" if query else address)
    return response, " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def sheet(user: User, **query: Any) -> list[dict[str, str]]:
    client = Client()
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    written = client.get(f"/space/audit.csv?{urlencode(query)}").getvalue().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(written)))


def kinds_of(response: Any) -> list[str]:
    return [line.event.kind for line in response.context["lines"]]


def sentences_of(response: Any) -> list[str]:
    return [line.text for line in response.context["lines"]]


def test_the_page_links_to_its_filter_as_csv_and_as_csv_for_spreadsheets(manager: User) -> None:
    response, _text = page(manager, user="jun")

    assert 'href="/space/audit.csv?user=jun"' in response.content.decode()
    assert 'href="/space/audit.csv?user=jun&amp;bom=1"' in response.content.decode()


def test_a_row_reads_as_a_sentence(manager: User, member: User, admin_member: User) -> None:
    set_remaining(member=member, remaining_nanos=12 * USD, actor=admin_member)
    edit_member(member=member, changes=MemberChanges(username="juno"), actor=manager)
    edit_member(member=member, changes=MemberChanges(is_admin=True), actor=manager)
    delete_member(member=member, actor=manager)

    response, text = page(manager)

    assert sentences_of(response)[1:5] == [
        "mira deleted juno; $12.00 returned to the pool",
        "mira promoted juno to Admin",
        "mira renamed jun to juno",
        "amara changed the remaining quota of jun from $5.00 to $12.00",
    ]
    assert "<bdi>amara</bdi> changed the remaining quota" in response.content.decode()
    assert text.count("Request ID") > 4


def test_an_ended_session_is_described_in_words(member: User) -> None:
    was = {"device": "Safari, iPhone", "address": "203.0.113.9"}
    event = record("session.ended", space=member.space, actor=member, target=member, before=was)

    assert [change.label for change in line_of(event, member).changes] == ["Device", "Address"]


def test_managers_and_admins_see_the_same_and_no_other_space(
    manager: User, admin_member: User, member: User, stranger: User, operator: User
) -> None:
    record("upstream.edited", space=None, actor=operator, target=member, after={"name": "secret-upstream"})
    response, text = page(manager)
    theirs, words = page(admin_member)

    assert set(sentences_of(response)) == set(sentences_of(theirs)) - {"amara signed in"}
    for forbidden in ("stranger", "Elsewhere", "secret-upstream", "boss"):
        assert forbidden not in text + words


def test_an_operator_appears_without_name_and_ip_address(space: Space, manager: User, operator: User) -> None:
    with acting(address="203.0.113.77"):
        grant(space=space, amount_nanos=5 * USD, reason="More", actor=operator)

    response, text = page(manager)

    assert "Operator granted quota to the pool: $500.00 became $505.00" in sentences_of(response)
    assert "203.0.113.77" not in text and "203.0.113.77" not in str(sheet(manager))


@pytest.mark.parametrize("name", ["jun", "JUNO", "nobody", "stranger", "x" * 100])
def test_a_person_is_found_as_actor_and_as_target_by_each_name(
    manager: User, member: User, stranger: User, name: str
) -> None:
    edit_member(member=member, changes=MemberChanges(username="juno"), actor=manager)
    member.refresh_from_db()
    record("session.signed_in", space=member.space, actor=member, target=member)

    found = kinds_of(page(manager, user=name)[0])

    theirs = ["session.signed_in", "member.edited", "member.quota_set", "member.created"]
    assert found == (theirs if name.lower() in ("jun", "juno") else [])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("members", {"member.created", "manager.created", "member.edited"}),
        ("quota", {"member.quota_set", "pool.grant"}),
        ("sign-in", {"session.signed_in"}),
        ("keys", set()),
        ("space", {"space.created"}),
        ("refused", {"member.deleted"}),
    ],
)
def test_the_kind_filter_shows_only_events_of_that_kind(
    manager: User, admin_member: User, kind: str, expected: set[str]
) -> None:
    record_refusal("member.deleted", why="not_allowed", space=manager.space, actor=admin_member, target=manager)

    found = set(kinds_of(page(manager, kind=kind)[0]))

    assert found - ({"member.deleted"} if kind == "members" else set()) == expected


def test_a_request_id_is_found_outside_of_the_period(manager: User, member: User) -> None:
    with acting(request_id="a" * 32, moment=timezone.now() - timedelta(days=300)):
        record("member.enabled", space=member.space, actor=manager, target=member)

    assert kinds_of(page(manager, request_id="a" * 32)[0]) == ["member.enabled"]
    assert "member.enabled" not in kinds_of(page(manager)[0])
    assert kinds_of(page(manager, request_id="nonsense")[0]) == []


def many(count: int, member: User, manager: User) -> None:
    for number in range(count):
        with acting(moment=timezone.now() - timedelta(minutes=number + 1)):
            record("member.enabled", space=member.space, actor=manager, target=member, after={"number": number})


@pytest.mark.parametrize("query", [{}, {"user": "jun"}])
def test_paging_in_both_directions_shows_every_event(manager: User, member: User, query: dict[str, str]) -> None:
    many(50, member, manager)
    client = Client()
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    address, shown = f"/space/audit/?{urlencode(query)}", []
    while address:
        response = client.get(address)
        shown.append([line.event.pk for line in response.context["lines"]])
        address, newer = response.context["log"].page.older_url, response.context["log"].page.newer_url
    back = client.get(newer)

    seen = [pk for one in shown for pk in one]
    assert len(seen) == len(set(seen)) and seen == sorted(seen, reverse=True)
    assert len([pk for pk in seen if AuditEvent.objects.get(pk=pk).kind == "member.enabled"]) == 50
    assert [line.event.pk for line in back.context["lines"]] == shown[-2]


def test_the_number_of_queries_does_not_depend_on_the_rows(manager: User, member: User) -> None:
    counts = []
    for more in (1, 2, 97):
        many(more, member, manager)
        client = Client()
        client.force_login(manager, backend="accounts.backends.LivingUserBackend")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get("/space/audit/?size=100&user=jun")
        counts.append(len(queries))

    assert len(set(counts)) == 1


def test_a_refusal_is_shown_with_its_reason(manager: User, admin_member: User, member: User) -> None:
    client = Client()
    client.force_login(admin_member, backend="accounts.backends.LivingUserBackend")
    client.post(f"/space/users/{member.number}/edit/", {"remaining": "9000"})

    response, text = page(manager, kind="refused")

    assert sentences_of(response) == ["amara tried to change jun"]
    assert "Refused More than the pool had available." in text and "Available then – → $415.00" in text


def test_the_csv_has_exactly_the_filtered_rows_and_no_formula(manager: User, member: User) -> None:
    many(30, member, manager)
    edit_member(member=member, changes=MemberChanges(display_name="=cmd()"), actor=manager)
    formula = record("member.edited", space=member.space, actor=manager, target=member, after={})
    assert formula.pk
    User.objects.filter(pk=manager.pk).update(username="+boss")
    record("member.enabled", space=member.space, actor=User.objects.get(pk=manager.pk), target=member)

    rows = sheet(manager, kind="members")
    shown, _text = page(manager, kind="members", size=100)

    assert [row["Kind"] for row in rows] == kinds_of(shown)
    assert rows[0]["Who"] == "'+boss" and rows[0]["Activity"].startswith("'+boss enabled")
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]


# -- One's own activity -------------------------------------------------------------------------------------------


def test_a_member_sees_what_concerns_them_and_nothing_of_the_pool(
    manager: User, admin_member: User, member: User, stranger: User
) -> None:
    client = Client(REMOTE_ADDR="203.0.113.5")
    client.force_login(admin_member, backend="accounts.backends.LivingUserBackend")
    client.post(f"/space/users/{member.number}/edit/", {"remaining": "9000"})
    client.post(f"/space/users/{member.number}/edit/", {"display_name": "Jun"})
    record_refusal("session.signed_in", why="wrong_password", space=member.space, actor=None, target=member)

    response, text = page(member, "/me/activity/")

    assert sentences_of(response) == [
        "jun signed in",
        "Somebody tried to sign in as jun",
        "amara changed the display name of jun",
        "mira changed the remaining quota of jun from $0.00 to $5.00",
        "mira added jun",
    ]
    # "$415" with its sign, because the request ids on the page may contain "415".
    for forbidden in ("$415", "203.0.113.5", "stranger", "Halcyon Labs created"):
        assert forbidden not in text


def test_an_event_on_a_space_with_the_id_of_a_member_is_not_the_members(member: User, operator: User) -> None:
    assert member.space is not None
    event = record("space.suspended", space=member.space, actor=operator, target=member.space)
    AuditEvent.objects.bulk_create(
        [AuditEvent(space=member.space, at=event.at, kind="pool.grant", target_id=member.pk, target_type="space")]
    )

    assert "pool.grant" not in kinds_of(page(member, "/me/activity/")[0])


def test_settings_lead_to_ones_own_activity(member: User) -> None:
    assert 'href="/me/activity/"' in page(member, "/me/settings/")[0].content.decode()


# -- Operators ----------------------------------------------------------------------------------------------------


def searched(operator: User, **query: str) -> list[str]:
    response, _text = page(operator, "/admin/audit/auditevent/", **query)
    assert response.status_code == 200
    return [event.kind for event in response.context["cl"].result_list]


def test_operators_search_by_name_request_and_address(operator: User, manager: User, member: User) -> None:
    with acting(address="203.0.113.9", request_id="b" * 32, moment=timezone.now() - timedelta(days=90)):
        record("member.disabled", space=member.space, actor=manager, target=member)

    for q in ("JUN", "b" * 32, "203.0.113.9"):
        assert "member.disabled" in searched(operator, q=q)
    assert searched(operator, q="jun", group="keys") == []
    assert searched(operator, q="ju") == [] and searched(operator, q="%") == []
    assert "member.disabled" not in searched(operator)
    assert "member.disabled" in searched(operator, days="all")
    assert set(searched(operator, group="operators")) == {"operator.created", "session.signed_in"}
    assert searched(operator, space="999999") == [] and searched(operator, space="x")


def test_django_admin_counts_at_most_the_rows_that_it_can_show(
    operator: User, manager: User, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operators.activity.MAX_COUNTED_EVENTS", 7)
    many(20, member, manager)

    response, _text = page(operator, "/admin/audit/auditevent/")

    assert response.context["cl"].paginator.count == 7
