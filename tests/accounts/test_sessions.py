from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.devices import device_of
from accounts.models import User
from accounts.sessions import end_other_sessions, end_session
from audit.models import AuditEvent
from quotas.members import delete_member, set_enabled
from tests.authenticator import give_password

pytestmark = pytest.mark.django_db

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Safari/604.1"


def signed_in(username: str, *, agent: str = FIREFOX, address: str = "203.0.113.9") -> Client:
    client = Client(headers={"User-Agent": agent}, REMOTE_ADDR=address)
    give_password(client, username)
    assert is_in(client)
    return client


def is_in(client: Client) -> bool:
    return client.get("/me/credits/").status_code == 200


def row_of(client: Client) -> Any:
    return UserSession.objects.get(session_key=client.session.session_key)


def test_the_sessions_card_shows_device_and_address_and_marks_the_current_session(member: User) -> None:
    desk = signed_in("jun")
    signed_in("jun", agent=IPHONE, address="2001:db8::7")

    page = desk.get("/me/settings/").content.decode()

    assert "Firefox on Linux" in page and "203.0.113.9" in page
    assert "Safari on iPhone" in page and "2001:db8::7" in page
    assert page.count("This session") == 1 and page.count("/end/") == 1


def test_one_session_is_ended_and_the_others_stay(member: User) -> None:
    desk, phone = signed_in("jun"), signed_in("jun", agent=IPHONE)

    assert desk.post(f"/me/sessions/{row_of(phone).pk}/end/").status_code == 303

    assert is_in(desk) and not is_in(phone)
    assert AuditEvent.objects.get(kind="session.ended").before == {
        "device": "Safari, iPhone",
        "address": "203.0.113.9",
    }


def test_the_trail_stores_device_names_untranslated(member: User) -> None:
    desk, phone = signed_in("jun"), signed_in("jun", agent=IPHONE)

    desk.post(f"/me/sessions/{row_of(phone).pk}/end/", headers={"Accept-Language": "zh-hans"})

    assert AuditEvent.objects.get(kind="session.ended").before["device"] == "Safari, iPhone"


def test_a_session_that_is_ended_twice_at_once_is_recorded_once(member: User) -> None:
    signed_in("jun")
    first, second = UserSession.objects.get(), UserSession.objects.get()

    for one in (first, second):
        end_session(user=member, session=one)

    assert AuditEvent.objects.filter(kind="session.ended").count() == 1


def test_a_user_deleted_while_ending_other_sessions_is_redirected_to_sign_in(
    member: User, manager: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_the_deletion(*, user: User) -> None:
        delete_member(member=member, actor=manager)
        end_other_sessions(user=user)

    desk = signed_in("jun")
    monkeypatch.setattr("console.settings.sessions.end_other_sessions", after_the_deletion)

    response = desk.post("/me/sessions/end-others/")
    assert (response.status_code, response["Location"]) == (302, "/login/?next=/me/sessions/end-others/")

    assert not is_in(desk) and not AuditEvent.objects.filter(kind="session.others_ended").exists()


def test_all_other_sessions_are_ended_and_the_current_one_stays(member: User) -> None:
    desk, phone = signed_in("jun"), signed_in("jun", agent=IPHONE)
    unlisted = signed_in("jun")
    row_of(unlisted).delete()

    assert desk.post("/me/sessions/end-others/").status_code == 303

    assert is_in(desk) and not is_in(phone) and not is_in(unlisted)
    assert AuditEvent.objects.filter(kind="session.others_ended").count() == 1


@pytest.mark.parametrize("username", ["stranger", "mira", "amara"])
def test_nobody_sees_or_ends_another_users_session(
    space: Any, admin_member: User, member: User, stranger: User, username: str
) -> None:
    mine, theirs = signed_in("jun"), signed_in(username, agent=IPHONE, address="198.51.100.77")

    answer = mine.post(f"/me/sessions/{row_of(theirs).pk}/end/")

    assert answer.status_code == 404 and is_in(theirs)
    assert "198.51.100.77" not in mine.get("/me/settings/").content.decode()


def test_the_current_session_cannot_be_ended_like_the_others(member: User) -> None:
    desk = signed_in("jun")

    assert desk.post(f"/me/sessions/{row_of(desk).pk}/end/").status_code == 404 and is_in(desk)


def test_invalid_sessions_are_not_shown(member: User, manager: User) -> None:
    desk = signed_in("jun")
    for how in ("signed out", "expired", "epoch"):
        other = signed_in("jun", address="198.51.100.77")
        if how == "signed out":
            other.post("/logout/")
        elif how == "expired":
            Session.objects.filter(pk=other.session.session_key).update(expire_date=timezone.now())
        else:
            set_enabled(member=User.objects.get(pk=member.pk), is_enabled=False, actor=manager)
            set_enabled(member=User.objects.get(pk=member.pk), is_enabled=True, actor=manager)
            assert not is_in(other)
            desk = signed_in("jun")
        assert "198.51.100.77" not in desk.get("/me/settings/").content.decode(), how


def test_last_seen_is_written_once_a_minute(member: User) -> None:
    desk = signed_in("jun")
    with CaptureQueriesContext(connection) as counted:
        desk.get("/me/credits/")
    assert not [query for query in counted if "INSERT" in query["sql"] or "UPDATE" in query["sql"]]

    UserSession.objects.update(last_seen_at=timezone.now() - timedelta(hours=3))
    cache.clear()
    with CaptureQueriesContext(connection) as counted:
        desk.get("/me/credits/")

    assert len([query for query in counted if "usersession" in query["sql"]]) == 1
    assert timezone.now() - row_of(desk).last_seen_at < timedelta(minutes=1)


def test_rows_of_expired_sessions_are_deleted_at_the_next_sign_in(member: User) -> None:
    signed_in("jun")
    UserSession.objects.update(last_seen_at=timezone.now() - timedelta(days=90))

    signed_in("jun", agent=IPHONE)

    assert UserSession.objects.get().user_agent == IPHONE


@pytest.mark.parametrize("agent", ["", "x" * 10_000, "Mozilla/5.0 <script>alert(1)</script>"])
def test_an_unknown_user_agent_is_shown_as_an_unknown_device(member: User, agent: str) -> None:
    desk = signed_in("jun", agent=agent)

    page = desk.get("/me/settings/").content.decode()

    assert "Unknown device" in page and "alert(1)" not in page


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (FIREFOX, "Firefox on Linux"),
        (IPHONE, "Safari on iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0.0.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Chrome/140.0.0.0 Safari/537.36", "Chrome on macOS"),
        ("Mozilla/5.0 (Linux; Android 15; Pixel 9) Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
        ("curl/8.5", "Unknown device"),
    ],
)
def test_a_device_is_named_by_browser_and_system(agent: str, device: str) -> None:
    assert device_of(agent).text == device
