"""The language, time zone and theme of a user, and how each request sets and resets them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation
from django.utils.translation import gettext

from accounts.middleware import browser_locale
from accounts.models import ApiKey, User
from audit.models import AuditEvent
from core.locales import offset_of, zone_of
from tests.factories import charge

pytestmark = pytest.mark.django_db

CHINESE = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}


@pytest.fixture
def signed_in(client: Client, member: User) -> Client:
    client.force_login(member, backend="accounts.backends.LivingUserBackend")
    return client


def choose(client: Client, **chosen: str) -> Any:
    return client.post("/me/settings/", {"form": "locale", "language": "", "time_zone": ""} | chosen)


# -- Settings ---------------------------------------------------------------------------------------------------------


def test_a_chosen_language_and_zone_are_saved_and_recorded(signed_in: Client, member: User) -> None:
    response = choose(signed_in, language="zh-hans", time_zone="Asia/Shanghai")

    now = User.objects.get(pk=member.pk)
    event = AuditEvent.objects.get(kind="self.edited")
    assert (response.status_code, response["Location"]) == (303, "/me/settings/")
    assert (now.language, now.time_zone) == ("zh-hans", "Asia/Shanghai")
    assert event.before == {"language": "", "time_zone": ""}
    assert event.after == {"language": "zh-hans", "time_zone": "Asia/Shanghai"}
    assert response.cookies["language"].value == "zh-hans"
    assert "语言和时区已保存。" in signed_in.get("/me/settings/").content.decode()


def test_unchanged_settings_write_nothing(signed_in: Client) -> None:
    assert choose(signed_in).status_code == 303

    assert not AuditEvent.objects.filter(kind="self.edited").exists()


@pytest.mark.parametrize(
    ("chosen", "field"),
    [({"time_zone": zone}, "time_zone") for zone in ("Mars/Olympus", "EST5EDT", "../etc/passwd", "\0", "x" * 70_000)]
    + [({"language": code}, "language") for code in ("tlh", "zh", "en\0", "EN", "x" * 70_000)],
)
@pytest.mark.any_database
def test_an_unknown_choice_is_refused_with_an_error_at_its_field(
    signed_in: Client, member: User, chosen: dict[str, str], field: str
) -> None:
    response = choose(signed_in, **chosen)

    assert response.status_code == 422 and list(response.context["locale_form"].errors) == [field]
    assert (User.objects.get(pk=member.pk).language, User.objects.get(pk=member.pk).time_zone) == ("", "")
    assert "language" not in response.cookies


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_theme_is_saved_in_the_account_and_in_a_cookie(signed_in: Client, member: User, theme: str) -> None:
    response = signed_in.post("/me/settings/", {"form": "theme", "theme": theme})

    assert response.status_code == 303 and response.cookies["theme"].value == theme
    assert User.objects.get(pk=member.pk).theme == theme
    assert f'data-theme="{theme}"' in signed_in.get("/me/settings/").content.decode()
    # On another device there is no cookie yet.
    del signed_in.cookies["theme"]
    assert f'data-theme="{theme}"' in signed_in.get("/me/settings/").content.decode()


def test_choosing_the_system_theme_clears_account_and_cookie(signed_in: Client, member: User) -> None:
    signed_in.post("/me/settings/", {"form": "theme", "theme": "dark"})

    signed_in.post("/me/settings/", {"form": "theme", "theme": ""})

    assert User.objects.get(pk=member.pk).theme == ""
    assert "data-theme=" not in signed_in.get("/me/settings/").content.decode()


def test_a_theme_chosen_with_htmx_is_answered_with_a_toast(signed_in: Client) -> None:
    data = {"form": "theme", "theme": "dark"}

    response = signed_in.post("/me/settings/", data, headers={"HX-Request": "true"})

    assert response.status_code == 200 and response.cookies["theme"].value == "dark"
    assert 'hx-swap-oob="beforeend:#toasts"' in response.content.decode()


@pytest.mark.parametrize("data", [{"form": "theme", "theme": "pink"}, {"form": "nonsense"}, {"form": "\0"}])
def test_an_unknown_form_or_theme_changes_nothing(signed_in: Client, member: User, data: dict[str, str]) -> None:
    assert signed_in.post("/me/settings/", data).status_code == 422

    now = User.objects.get(pk=member.pk)
    assert (now.display_name, now.theme) == ("Jun Sato", "")


# -- Language ---------------------------------------------------------------------------------------------------------


def test_signed_out_visitors_get_the_language_of_their_browser(client: Client) -> None:
    chinese = client.get("/login/", headers=CHINESE)
    other = client.get("/login/", headers={"Accept-Language": "fr"})

    assert ("<h1>登录</h1>" in chinese.content.decode(), chinese["Content-Language"]) == (True, "zh-hans")
    assert ("<h1>Sign in</h1>" in other.content.decode(), other["Content-Language"]) == (True, "en")
    assert "Accept-Language" in chinese["Vary"] and 'lang="zh-hans"' in chinese.content.decode()


def test_the_language_can_be_switched_before_signing_in(client: Client) -> None:
    response = client.post("/language/", {"language": "zh-hans", "next": "/login/?next=/me/credits/"})

    assert (response.status_code, response["Location"]) == (302, "/login/?next=/me/credits/")
    page = client.get("/login/?next=/me/credits/").content.decode()
    assert "<h1>登录</h1>" in page and '<button class="btn btn--sm" type="submit" name="language" value="en"' in page


def test_the_language_switch_refuses_other_sites_and_unknown_languages(client: Client) -> None:
    response = client.post("/language/", {"language": "tlh", "next": "https://elsewhere.example/"})

    assert (response.status_code, response["Location"]) == (302, "/") and "language" not in response.cookies


def test_an_account_without_a_language_follows_the_browser(signed_in: Client) -> None:
    assert "<h1>个人设置</h1>" in signed_in.get("/me/settings/", headers=CHINESE).content.decode()


def test_a_chosen_language_has_priority_over_the_browsers(signed_in: Client) -> None:
    choose(signed_in, language="en")

    response = signed_in.get("/me/settings/", headers=CHINESE)

    assert "<h1>Personal Settings</h1>" in response.content.decode() and response["Content-Language"] == "en"


@pytest.mark.parametrize(("path", "status"), [("/space/users/", 403), ("/nowhere/", 404)])
def test_refusals_are_in_the_readers_language(signed_in: Client, member: User, path: str, status: int) -> None:
    User.objects.filter(pk=member.pk).update(language="zh-hans")

    response = signed_in.get(path)

    assert response.status_code == status and response["Content-Language"] == "zh-hans"
    assert "您无法打开" in response.content.decode() or "这里什么也没有" in response.content.decode()


def active() -> tuple[str, str]:
    return translation.get_language(), timezone.get_current_timezone_name()


def test_each_request_of_a_thread_has_its_own_language_and_zone(signed_in: Client, member: User) -> None:
    User.objects.filter(pk=member.pk).update(language="zh-hans", time_zone="Asia/Tokyo")
    before = active()

    chinese = signed_in.get("/me/settings/").content.decode()
    between = active()
    english = Client().get("/login/").content.decode()

    assert '<html lang="zh-hans"' in chinese and "Asia/Tokyo" in chinese
    assert '<html lang="en"' in english and "<h1>Sign in</h1>" in english
    assert (before, between, active()) == (("en", "UTC"),) * 3


def test_a_request_restores_the_language_and_zone_that_its_thread_had_before(signed_in: Client, member: User) -> None:
    User.objects.filter(pk=member.pk).update(language="en", time_zone="Asia/Tokyo")

    with translation.override("zh-hans"), timezone.override("Europe/Berlin"):
        signed_in.get("/me/settings/")
        assert active() == ("zh-hans", "Europe/Berlin")


def test_a_view_that_raises_leaves_no_language_or_zone_active() -> None:
    def fail(request: HttpRequest) -> HttpResponse:
        translation.activate("zh-hans")
        timezone.activate("Asia/Tokyo")
        raise LookupError

    with pytest.raises(LookupError):
        browser_locale(fail)(HttpRequest())

    assert active() == ("en", "UTC")


def test_a_streamed_body_is_rendered_in_the_language_and_zone_of_its_request() -> None:
    def pieces() -> Iterator[str]:
        for _ in range(2):
            yield f"{gettext('Sign in')} {timezone.get_current_timezone_name()}\n"

    def stream(request: HttpRequest) -> StreamingHttpResponse:
        translation.activate("zh-hans")
        timezone.activate("Asia/Tokyo")
        return StreamingHttpResponse(pieces())

    response = cast("StreamingHttpResponse", browser_locale(stream)(HttpRequest()))
    rendered, left_active = [], []
    for piece in response:
        rendered.append(piece.decode())
        left_active.append(active())

    assert rendered == ["登录 Asia/Tokyo\n"] * 2
    assert left_active == [("en", "UTC")] * 2


def test_a_request_starts_without_the_language_or_zone_of_its_thread() -> None:
    seen = []

    def fail(request: HttpRequest) -> HttpResponse:
        seen.append(active())
        return HttpResponse(status=400)

    with translation.override("zh-hans"), timezone.override("Asia/Shanghai"):
        browser_locale(fail)(HttpRequest())

    assert seen == [("en", "UTC")]


def test_a_language_or_zone_that_is_no_longer_offered_is_ignored(signed_in: Client, member: User) -> None:
    User.objects.filter(pk=member.pk).update(language="tlh", time_zone="Mars/Olympus")

    response = signed_in.get("/console/usage/")

    assert (response.status_code, response["Content-Language"]) == (200, "en")


def test_a_chosen_language_zone_and_theme_cost_no_query(
    signed_in: Client, member: User, django_assert_num_queries: Any
) -> None:
    # The first request of a session costs a query more: it stores when the session was last seen.
    signed_in.get("/me/settings/")
    with CaptureQueriesContext(connection) as before:
        signed_in.get("/me/settings/")
    User.objects.filter(pk=member.pk).update(language="zh-hans", time_zone="Asia/Shanghai", theme="dark")

    with django_assert_num_queries(len(before)):
        signed_in.get("/me/settings/")


# -- Time -------------------------------------------------------------------------------------------------------------


def test_times_are_in_the_viewers_time_zone(signed_in: Client, member: User) -> None:
    charge(member, cost_usd=1)
    key = {"name": "late", "expires": "2030-12-31"}
    User.objects.filter(pk=member.pk).update(language="zh-hans", time_zone="Asia/Shanghai")

    signed_in.post("/console/tokens/add/", key)

    assert ApiKey.objects.get(name="late").expires_at == datetime(2030, 12, 30, 16, tzinfo=UTC)
    page = signed_in.get("/console/tokens/").content.decode()
    assert '2030年12月31日 <span class="dim">00:00</span>' in page and "Asia/Shanghai" in page


def test_the_offset_of_a_zone_follows_daylight_saving_time() -> None:
    winter, summer = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)

    assert [offset_of("Europe/Paris", at) for at in (winter, summer)] == ["UTC+01:00", "UTC+02:00"]
    assert [offset_of(name, winter) for name in ("Asia/Kolkata", "America/St_Johns", "UTC")] == [
        "UTC+05:30",
        "UTC-03:30",
        "UTC+00:00",
    ]
    assert zone_of("") is UTC
