"""Token Management, and Revoke in Edit User."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.keys import KeyTerms, create_key, delete_key, parse_key
from accounts.models import ApiKey, User
from audit.models import AuditEvent
from console.tokens.forms import expiry_at
from core.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD
HTMX = {"HX-Request": "true", "HX-Current-URL": "http://testserver/console/tokens/"}
KEY = re.compile(r"sk-[0-9]+-[A-Za-z0-9_-]{43}")
SOON = (timezone.now() + timedelta(days=40)).date().isoformat()


@pytest.fixture
def signed_in(client: Client, member: User) -> Client:
    client.force_login(member, backend="accounts.backends.LivingUserBackend")
    return client


@pytest.fixture
def key(member: User) -> ApiKey:
    terms = KeyTerms(
        name="default",
        expires_at=datetime(2040, 5, 6, 7, 8, 9, 123456, UTC),
        limit_nanos=12_345_678_901,
        models=("gpt-4o-mini", "claude-sonnet-4"),
        ips=("10.0.0.0/8", "2001:db8::/32"),
    )
    return create_key(owner=member, terms=terms)[0]


def post(client: Client, path: str, headers: dict[str, str] | None = None, **data: Any) -> Any:
    return client.post(f"/console/tokens/{path}", data, headers=headers)


def terms(key: ApiKey) -> tuple[Any, ...]:
    key = ApiKey.objects.get(pk=key.pk)
    return key.name, key.expires_at, key.limit, key.models_allowed, key.ips_allowed


def plain(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


# -- The list


def test_the_list_shows_the_columns_in_order(signed_in: Client, key: ApiKey) -> None:
    heads = re.findall(r"<th\b.*?</th>", signed_in.get("/console/tokens/").content.decode(), re.DOTALL)

    columns = ["Name", "Status", "Key", "Spent / Limit", "Models", "Last used", "Created", "Expires", "Actions"]
    assert [plain(head) for head in heads] == columns


def test_a_row_shows_the_keys_prefix_and_last_four_characters(signed_in: Client, key: ApiKey) -> None:
    ApiKey.objects.update(spent=425_000, last_used_at=datetime(2026, 2, 3, 4, 5, tzinfo=UTC))

    page = signed_in.get("/console/tokens/").content.decode()

    assert f"{key.prefix}…{key.last_four}" in page and key.hash not in page
    row = plain(page[page.index('id="token-1"') :])
    assert "Enabled" in row and "$0.000425 / $12.35" in row and "gpt-4o-mini, claude-sonnet-4" in row
    assert "3 Feb 2026 04:05" in row and "6 May 2040 07:08" in row
    assert all(f'aria-label="{deed} default"' in page for deed in ("Disable", "Edit", "Rotate", "Delete"))


def test_a_key_without_limits_says_so(signed_in: Client, member: User) -> None:
    create_key(owner=member, terms=KeyTerms(name="free"))

    row = plain(signed_in.get("/console/tokens/").content.decode())

    assert "$0.00 / no limit All Never" in row


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"is_enabled": False}, "Disabled"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "Expired"),
        ({"limit": 5, "spent": 5}, "Exhausted"),
    ],
)
def test_a_key_that_is_stopped_says_why(
    signed_in: Client, key: ApiKey, changes: dict[str, object], status: str
) -> None:
    ApiKey.objects.update(**changes)

    assert f"default {status} sk-" in plain(signed_in.get("/console/tokens/").content.decode())


def test_nobody_elses_key_is_listed_to_anybody(
    client: Client, key: ApiKey, member: User, manager: User, admin_member: User, stranger: User
) -> None:
    create_key(owner=manager, terms=KeyTerms(name="managers-own"))
    create_key(owner=stranger, terms=KeyTerms(name="strangers"))

    own = [(member, ["default"]), (manager, ["managers-own"]), (admin_member, []), (stranger, ["strangers"])]
    for person, names in own:
        client.force_login(person, backend="accounts.backends.LivingUserBackend")
        page = client.get("/console/tokens/")
        assert [shown.name for shown in page.context["page"]] == names


def test_an_empty_list_says_what_to_do_next(signed_in: Client) -> None:
    page = signed_in.get("/console/tokens/").content.decode()

    assert "No tokens yet" in page and "Add Token" in page


def test_all_three_roles_find_it_in_the_sidebar(
    client: Client, member: User, manager: User, admin_member: User
) -> None:
    for person in (member, manager, admin_member):
        client.force_login(person, backend="accounts.backends.LivingUserBackend")
        page = plain(client.get("/me/credits/").content.decode())
        assert re.search(r"Console .*Token Management .*Personal Center", page)


def test_pages_hold_twenty_newest_first_at_the_same_queries(signed_in: Client, member: User) -> None:
    signed_in.get("/console/tokens/")  # the first request of a session writes its UserSession row
    asked = []
    for more in (1, 1, 21):
        for _ in range(more):
            create_key(owner=member, terms=KeyTerms(name="k"))
        with CaptureQueriesContext(connection) as counted:
            page = signed_in.get("/console/tokens/")
        asked.append(len(counted))

    assert asked[0] == asked[1] == asked[2] <= 6
    assert [shown.number for shown in page.context["page"]] == list(range(23, 3, -1))
    assert [shown.number for shown in signed_in.get("/console/tokens/?page=2").context["page"]] == [3, 2, 1]
    for strange in ("0", "-1", "x", "\0", "9" * 400):
        assert signed_in.get("/console/tokens/", {"page": strange}).status_code == 200


def test_htmx_gets_the_table_alone(signed_in: Client, key: ApiKey) -> None:
    piece = signed_in.get("/console/tokens/", headers={"HX-Request": "true", "HX-Target": "token-table"})

    assert "<html" not in piece.content.decode() and 'id="token-1"' in piece.content.decode()


def test_a_name_is_escaped(signed_in: Client, member: User) -> None:
    create_key(owner=member, terms=KeyTerms(name="<script>alert(1)</script>"))

    page = signed_in.get("/console/tokens/").content.decode()

    assert "<script>alert" not in page and "Edit &lt;script&gt;" in page


# -- Add


def test_a_plain_page_shows_the_new_key_once_and_no_cache_keeps_it(signed_in: Client, member: User) -> None:
    response = post(signed_in, "add/", name="ci")

    page = response.content.decode()
    found, key = KEY.findall(page), ApiKey.objects.get(user=member)
    presented = parse_key(found[0])
    assert response.status_code == 200 and "no-store" in response["Cache-Control"]
    assert len(set(found)) == 1 and presented is not None and presented.hash == key.hash
    assert "I have saved it" in page and "only time the key is shown" in page
    assert (key.name, key.expires_at, key.limit, key.models_allowed, key.ips_allowed) == ("ci", None, None, [], [])


def test_htmx_gets_a_dialog_that_only_its_button_closes_and_the_new_row(signed_in: Client) -> None:
    response = post(signed_in, "add/", HTMX, name="ci")

    page = response.content.decode()
    assert (response.status_code, response["HX-Retarget"], response["HX-Reswap"]) == (200, "#dialogs", "innerHTML")
    assert "no-store" in response["Cache-Control"] and len(set(KEY.findall(page))) == 1
    assert 'closedby="none"' in page and 'aria-label="Close"' not in page
    assert 'id="token-1"' in page and "ci added." in page


def test_the_key_is_not_shown_or_stored_in_clear_afterwards(
    signed_in: Client, client: Client, operator: User, manager: User, member: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    made = KEY.findall(post(signed_in, "add/", HTMX, name="ci").content.decode())
    made += KEY.findall(post(signed_in, "1/rotate/", grace="1h").content.decode())
    assert len(set(made)) == 2
    key = ApiKey.objects.get()
    pages = [signed_in.get(f"/console/tokens/{end}") for end in ("", "1/edit/", "1/rotate/", "1/delete/")]
    for person, paths in {
        manager: [f"/space/users/{member.number}/edit/"],
        operator: [
            "/admin/accounts/apikey/",
            f"/admin/accounts/apikey/{key.pk}/change/",
            "/admin/audit/auditevent/",
            *(f"/admin/audit/auditevent/{event.pk}/change/" for event in AuditEvent.objects.all()),
        ],
    }.items():
        client.force_login(person, backend="accounts.backends.LivingUserBackend")
        pages += [client.get(path) for path in paths]

    assert {page.status_code for page in pages} == {200}
    kept = [page.content.decode() for page in pages] + [caplog.text, str(list(AuditEvent.objects.values()))]
    for text in made:
        assert all(text[-43:] not in told for told in kept)
    assert all(key.hash not in told and key.old_hash not in told for told in kept)
    assert all(text[-43:] not in str(list(ApiKey.with_deleted.values())) for text in made)


@pytest.mark.parametrize(
    ("expires", "after"), [("1h", timedelta(hours=1)), ("1d", timedelta(days=1)), ("1m", timedelta(days=29.5))]
)
def test_a_relative_expiry_counts_from_now(signed_in: Client, expires: str, after: timedelta) -> None:
    post(signed_in, "add/", name="ci", expires=expires)

    found = ApiKey.objects.get().expires_at
    assert found is not None
    assert timedelta(0) <= found - (timezone.now() + after) + timedelta(minutes=1) <= timedelta(days=3)


@pytest.mark.parametrize("sent", [{"expires": SOON}, {"expires": "date", "expires_on": SOON}])
def test_an_expiry_date_means_its_midnight_in_utc(signed_in: Client, sent: dict[str, Any]) -> None:
    post(signed_in, "add/", name="ci", **sent)

    assert str(ApiKey.objects.get().expires_at) == f"{SOON} 00:00:00+00:00"


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (datetime(2027, 1, 31, 5, tzinfo=UTC), datetime(2027, 2, 28, 5, tzinfo=UTC)),
        (datetime(2028, 1, 30, tzinfo=UTC), datetime(2028, 2, 29, tzinfo=UTC)),
        (datetime(2027, 12, 15, tzinfo=UTC), datetime(2028, 1, 15, tzinfo=UTC)),
        (datetime(2027, 11, 30, tzinfo=UTC), datetime(2027, 12, 30, tzinfo=UTC)),
    ],
)
def test_a_month_ends_on_the_same_day_or_the_last(now: datetime, then: datetime) -> None:
    assert expiry_at("1m", now=now) == then


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("a, b\nc", ["a", "b", "c"]),
        ("a,,\r\n\r\n b ,a", ["a", "b"]),
        ("openai/gpt-4o:free,@cf/meta", ["openai/gpt-4o:free", "@cf/meta"]),
        (" , \n", []),
    ],
)
def test_models_are_split_by_commas_and_lines(signed_in: Client, typed: str, kept: list[str]) -> None:
    post(signed_in, "add/", name="ci", models=typed)

    assert ApiKey.objects.get().models_allowed == kept


def test_ip_ranges_are_stored_in_canonical_form(signed_in: Client) -> None:
    post(signed_in, "add/", name="ci", ips="203.0.113.7, 10.0.0.0/8\n2001:DB8::/32, 203.0.113.7/32")

    assert ApiKey.objects.get().ips_allowed == ["203.0.113.7/32", "10.0.0.0/8", "2001:db8::/32"]


def test_a_limit_is_kept_to_the_nano_dollar(signed_in: Client) -> None:
    post(signed_in, "add/", name="ci", limit="$1,000.000000001")

    assert ApiKey.objects.get().limit == 1_000 * USD + 1


def test_two_keys_may_have_one_name(signed_in: Client) -> None:
    post(signed_in, "add/", name="ci")
    post(signed_in, "add/", name="ci")

    assert [key.name for key in ApiKey.objects.all()] == ["ci", "ci"]


BAD = [
    ("name", "", "Enter a name."),
    ("name", "   ", "Enter a name."),
    ("name", "a" * 81, "Use at most 80 characters."),
    ("name", "pay\u202elap", "invisible marks"),
    ("name", "a\nb", "line breaks"),
    ("name", "nul\0l", "control characters"),
    ("name", "x" * 10_000_000, "Use at most 80 characters."),
    ("expires", "", "Choose when it expires"),
    ("expires", "2h", "Choose when it expires"),
    ("expires", "date", "Choose when it expires"),
    ("expires", "2026-02-30", "Choose when it expires"),
    ("expires", "20400101", "Choose when it expires"),
    ("expires", "٢٠٤٠-٠١-٠١", "Choose when it expires"),
    ("expires", "2020-01-01", "Choose a date after today."),
    ("expires", timezone.now().date().isoformat(), "Choose a date after today."),
    ("expires", "nul\0l", "Null characters are not allowed."),
    ("limit", "0", "Enter more than $0.00"),
    ("limit", "-1", "$0.00 or more"),
    ("limit", "1e3", "Enter an amount in dollars"),
    ("limit", "0.0000000001", "nine decimals"),
    ("limit", "1000000001", "at most"),
    ("models", "gpt 4o", "“gpt 4o” is not a model name."),
    ("models", "a\u202eb", "is not a model name."),
    ("models", "m" * 101, "is not a model name."),
    ("models", ",".join(f"m{n}" for n in range(51)), "List at most 50."),
    ("models", "x," * 5_000_000, "List at most 50."),
    ("models", "nul\0l", "Null characters are not allowed."),
    ("ips", "10.0.0.5/8", "Write 10.0.0.0/8 for the whole range."),
    ("ips", "300.1.1.1", "“300.1.1.1” is not an address or range."),
    ("ips", "10.0.0.0/33", "is not an address or range."),
    ("ips", "example.com", "is not an address or range."),
    ("ips", "fe80::1%eth0", "is not an address or range."),
    ("ips", "<b>", "is not an address or range."),
    ("ips", ",".join(f"10.0.0.{n}" for n in range(51)), "List at most 50."),
]


@pytest.mark.parametrize(("field", "value", "text"), BAD)
@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.any_database
def test_invalid_input_is_reported_beside_its_field_and_creates_no_key(
    signed_in: Client, field: str, value: str, text: str, headers: dict[str, str]
) -> None:
    response = post(signed_in, "add/", headers, **({"name": "ci", "limit": "7.77"} | {field: value}))

    page = response.content.decode()
    assert response.status_code == 422
    assert text in str(response.context["form"].errors[field][0]) and 'aria-invalid="true"' in page
    assert field == "limit" or 'value="7.77"' in page
    assert len(page) < 40_000
    assert not ApiKey.with_deleted.exists() and not AuditEvent.objects.filter(kind="key.created").exists()


@pytest.mark.parametrize(("field", "value", "text"), [row for row in BAD if len(row[1]) < 1000])
@pytest.mark.any_database
def test_an_edit_validates_like_add(signed_in: Client, key: ApiKey, field: str, value: str, text: str) -> None:
    before = terms(key)

    response = post(signed_in, "1/edit/", HTMX, **{field: value})

    assert response.status_code == 422 and text in str(response.context["form"].errors[field][0])
    assert terms(key) == before


def test_fifty_models_and_ranges_are_kept_and_shown(signed_in: Client) -> None:
    models = [f"{n:02}" + "m" * 98 for n in range(50)]
    ips = [f"2001:db8:{n:x}:ffff:ffff:ffff:ffff:ffff/128" for n in range(16, 66)]

    post(signed_in, "add/", name="ci", models=",".join(models), ips="\n".join(ips))

    page = signed_in.get("/console/tokens/1/edit/").content.decode()
    assert ApiKey.objects.get().models_allowed == models and "\n".join(models) in page
    assert ApiKey.objects.get().ips_allowed == ips and "\n".join(ips) in page


# -- Edit


def test_submitting_the_unchanged_form_changes_nothing(signed_in: Client, key: ApiKey) -> None:
    before, events = terms(key), AuditEvent.objects.count()
    form = signed_in.get("/console/tokens/1/edit/").context["form"]
    shown: dict[str, Any] = {name: str(form[name].value() or "") for name in form.fields}

    response = post(signed_in, "1/edit/", **shown)

    assert shown["limit"] == "12.345678901" and shown["expires"] == "keep"
    assert (response.status_code, response["Location"]) == (303, "/console/tokens/")
    assert (terms(key), AuditEvent.objects.count()) == (before, events)


def test_an_expiry_in_the_past_may_be_kept(signed_in: Client, key: ApiKey) -> None:
    past = datetime(2020, 1, 1, 2, 3, tzinfo=UTC)
    ApiKey.objects.update(expires_at=past)

    post(signed_in, "1/edit/", name="renamed", expires="keep")

    assert terms(key)[:2] == ("renamed", past)


@pytest.mark.parametrize(
    ("sent", "place", "now"),
    [
        ({"name": "other"}, 0, "other"),
        ({"expires": "never"}, 1, None),
        ({"limit": ""}, 2, None),
        ({"limit": "3"}, 2, 3 * USD),
        ({"models": ""}, 3, []),
        ({"ips": "127.0.0.1"}, 4, ["127.0.0.1/32"]),
    ],
)
def test_a_field_that_is_not_sent_stays(
    signed_in: Client, key: ApiKey, sent: dict[str, Any], place: int, now: object
) -> None:
    expected = list(terms(key))
    expected[place] = now

    post(signed_in, "1/edit/", **sent)

    assert list(terms(key)) == expected


def test_a_limit_below_what_was_spent_exhausts_the_key(signed_in: Client, key: ApiKey) -> None:
    ApiKey.objects.update(spent=2 * USD)

    page = post(signed_in, "1/edit/", HTMX, limit="1").content.decode()

    assert "Exhausted" in page and "$2.00" in plain(page)


def test_an_edit_answers_htmx_with_the_row_and_a_toast(signed_in: Client, key: ApiKey) -> None:
    response = post(signed_in, "1/edit/", HTMX, name="renamed")

    page = response.content.decode()
    assert response["HX-Reswap"] == "none" and "dialog:close" in response["HX-Trigger-After-Settle"]
    assert 'id="token-1"' in page and "renamed saved." in page and not KEY.search(page)


# -- Status


def test_a_toggle_posts_the_wanted_state_and_can_be_undone(signed_in: Client, key: ApiKey) -> None:
    page = post(signed_in, "1/status/", HTMX, enabled="false").content.decode()
    post(signed_in, "1/status/", enabled="false")

    assert not ApiKey.objects.get().is_enabled
    assert "Enable default" in page and "Undo" in page and 'action="/console/tokens/1/status/"' in page
    assert AuditEvent.objects.filter(kind="key.disabled").count() == 1

    assert post(signed_in, "1/status/", enabled="true")["Location"] == "/console/tokens/"
    assert ApiKey.objects.get().is_enabled


@pytest.mark.parametrize("enabled", ["", "1", "on", "False", "\0"])
def test_anything_but_true_and_false_is_422(signed_in: Client, key: ApiKey, enabled: str) -> None:
    assert post(signed_in, "1/status/", enabled=enabled).status_code == 422
    assert ApiKey.objects.get().is_enabled


# -- Rotate


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("grace", ["none", "1h", "1d"])
def test_rotation_shows_a_new_key_once(signed_in: Client, key: ApiKey, grace: str, headers: dict[str, str]) -> None:
    before = terms(key)

    response = post(signed_in, "1/rotate/", headers, grace=grace)

    found, now = KEY.findall(response.content.decode()), ApiKey.objects.get()
    presented = parse_key(found[0])
    assert response.status_code == 200 and "no-store" in response["Cache-Control"] and len(set(found)) == 1
    assert presented is not None and presented.hash == now.hash != key.hash
    assert now.old_hash == ("" if grace == "none" else key.hash) and terms(key) == before
    assert ("The previous key works until" in response.content.decode()) == (grace != "none")


@pytest.mark.parametrize("grace", ["", "2h", "None", "\0", "x" * 1_000_000])
def test_a_grace_that_is_none_of_the_three_changes_nothing(signed_in: Client, key: ApiKey, grace: str) -> None:
    response = post(signed_in, "1/rotate/", HTMX, grace=grace)

    assert response.status_code == 422 and response.context["form"].errors["grace"]
    assert ApiKey.objects.get().hash == key.hash and len(response.content) < 40_000


# -- Delete


def test_the_dialog_says_what_will_happen_and_get_deletes_nothing(signed_in: Client, key: ApiKey) -> None:
    ApiKey.objects.update(spent=3 * USD, held=USD)

    page = plain(signed_in.get("/console/tokens/1/delete/", headers=HTMX).content.decode())

    assert key.shown in page and "$3.00" in page and "$1.00 is in flight" in page and "cannot be undone" in page
    assert ApiKey.objects.exists()


def test_every_url_of_a_deleted_key_is_404(signed_in: Client, key: ApiKey) -> None:
    assert post(signed_in, "1/delete/")["Location"] == "/console/tokens/"

    assert not ApiKey.objects.exists() and "No tokens yet" in signed_in.get("/console/tokens/").content.decode()
    for deed in ("edit", "rotate", "delete"):
        assert signed_in.get(f"/console/tokens/1/{deed}/").status_code == 404
        assert post(signed_in, f"1/{deed}/", name="x", grace="none").status_code == 404
    assert post(signed_in, "1/status/", enabled="true").status_code == 404


def test_htmx_gets_the_list_again_and_focus_on_the_neighbour(signed_in: Client, key: ApiKey, member: User) -> None:
    create_key(owner=member, terms=KeyTerms(name="second"))

    response = post(signed_in, "2/delete/", HTMX)

    assert '"focus": "edit-1"' in response["HX-Trigger-After-Settle"]
    assert 'id="token-1"' in response.content.decode() and 'id="token-2"' not in response.content.decode()
    assert '"focus": "add-token"' in post(signed_in, "1/delete/", HTMX)["HX-Trigger-After-Settle"]


# -- Others' keys


def test_anothers_number_is_404_and_changes_nothing(client: Client, key: ApiKey, manager: User) -> None:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    before = ApiKey.with_deleted.values().get()
    none = client.get("/console/tokens/999/edit/")

    for deed in ("edit", "rotate", "delete"):
        theirs = client.get(f"/console/tokens/1/{deed}/")
        assert theirs.status_code == 404 and len(theirs.content) == len(none.content)
        assert post(client, f"1/{deed}/", name="x", grace="none").status_code == 404
    assert post(client, "1/status/", enabled="false").status_code == 404
    assert client.get(f"/console/tokens/{'9' * 30}/edit/").status_code == 404
    assert ApiKey.with_deleted.values().get() == before


def test_a_key_deleted_between_look_up_and_lock_is_404(
    signed_in: Client, key: ApiKey, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(**_named: Any) -> None:
        delete_key(key=key, actor=member)
        raise ApiKey.DoesNotExist

    monkeypatch.setattr("console.tokens.views.edit_key", too_late)

    assert post(signed_in, "1/edit/", name="x").status_code == 404


# -- Revoke in Edit User


@pytest.fixture
def managing(client: Client, manager: User) -> Client:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    return client


def test_edit_user_lists_the_members_keys_by_prefix(managing: Client, key: ApiKey, member: User, manager: User) -> None:
    create_key(owner=manager, terms=KeyTerms(name="managers-own"))

    for headers in ({}, HTMX):
        page = managing.get(f"/space/users/{member.number}/edit/", headers=headers).content.decode()
        assert key.shown in page and "Revoke default" in page and "managers-own" not in page
        assert key.hash not in page


def test_a_revoked_key_is_deleted_and_the_trail_names_the_actor(managing: Client, key: ApiKey, member: User) -> None:
    here = f"/space/users/{member.number}"

    response = managing.post(f"{here}/keys/1/revoke/")

    event = AuditEvent.objects.get(kind="key.deleted")
    assert (response.status_code, response["Location"]) == (303, f"{here}/edit/")
    assert not ApiKey.objects.exists()
    assert (event.actor_name, event.target_name, event.before["key"]) == ("mira", "jun", key.shown)
    assert managing.post(f"{here}/keys/1/revoke/").status_code == 404


def test_htmx_gets_the_list_of_keys_again(managing: Client, key: ApiKey, member: User) -> None:
    create_key(owner=member, terms=KeyTerms(name="second"))

    page = managing.post(f"/space/users/{member.number}/keys/1/revoke/", headers=HTMX).content.decode()

    assert 'id="member-keys"' in page and "Revoke second" in page and "Revoke default" not in page
    assert f"{key.shown} is revoked." in page


def test_nobody_revokes_through_another_member_or_a_key_of_the_manager(
    managing: Client, key: ApiKey, admin_member: User, manager: User, client: Client
) -> None:
    create_key(owner=manager, terms=KeyTerms(name="managers-own"))

    assert managing.post(f"/space/users/{admin_member.number}/keys/1/revoke/").status_code == 404
    client.force_login(admin_member, backend="accounts.backends.LivingUserBackend")
    assert client.post("/space/users/1/keys/1/revoke/").status_code == 403
    assert ApiKey.objects.count() == 2


# -- Operators


def test_operators_read_keys_of_all_spaces_without_hash_and_write_none(
    client: Client, operator: User, key: ApiKey, member: User
) -> None:
    delete_key(key=key, actor=member)
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")
    base, before = "/admin/accounts/apikey", ApiKey.with_deleted.values().get()

    listed = client.get(f"{base}/").content.decode()
    shown = client.get(f"{base}/{key.pk}/change/").content.decode()

    assert key.shown in listed and key.shown in shown and key.hash not in listed + shown
    assert client.get(f"{base}/?hash__startswith={key.hash[0]}").status_code in (302, 400)
    for path in (f"{base}/add/", f"{base}/{key.pk}/change/", f"{base}/{key.pk}/delete/"):
        assert client.post(path, {"name": "x", "post": "yes"}).status_code == 403
    assert ApiKey.with_deleted.values().get() == before
