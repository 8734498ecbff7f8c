"""The manager's day: add, edit, promote, disable, delete and find users."""

from __future__ import annotations

import re

import pytest
from django.contrib.sessions.models import Session
from playwright.sync_api import Page, expect

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from core.money import NANOS_PER_USD
from quotas.models import Transfer, Wallet
from tenants.models import Space
from tests.browser.conftest import SignIn
from tests.browser.pages import button, dialog, open_dialog, pool_figure, posts, row, toast, usernames
from tests.factories import PASSWORD, MemberFactory, charge

pytestmark = pytest.mark.browser


@pytest.fixture
def users(sign_in: SignIn, manager: User, people: list[User]) -> Page:
    return sign_in(manager, permissions=["clipboard-read", "clipboard-write"])


def test_a_manager_signs_in_and_comes_to_the_users(page: Page, manager: User) -> None:
    page.goto("/")
    page.get_by_label("Username").fill("mira")
    page.get_by_label("Password").fill("wrong password")
    button(page, "Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("don’t match an active account")
    expect(page.get_by_label("Username")).to_have_value("mira")

    page.get_by_label("Password").fill(PASSWORD)
    button(page, "Sign in").click()

    page.wait_for_url("**/console/")
    expect(page.get_by_role("heading", name="Dashboard", level=1)).to_be_visible()


def test_the_page_is_laid_out_as_the_product_says(users: Page) -> None:
    charge(User.objects.get(username="jun"), cost_usd=3)
    users.reload()

    heads = [" ".join(text.split()) for text in users.get_by_role("columnheader").all_inner_texts()]
    assert heads == ["ID", "Username", "Status", "Remaining / Total", "Role", "Actions"]
    expect(row(users, "jun").get_by_role("cell").first).to_have_text("3")
    for text in ("Jun Sato", "Enabled", "$2.00 / $5.00", "Normal user"):
        expect(row(users, "jun")).to_contain_text(text)
    names = row(users, "jun").get_by_role("button").evaluate_all("all => all.map(one => one.ariaLabel)")
    assert names == ["Disable jun", "Edit jun", "Delete jun"]
    for term, figure in {"Total": "$500.00", "Allocated": "$105.00", "Available": "$395.00"}.items():
        expect(pool_figure(users, term)).to_have_text(figure)
    add, search = button(users, "Add User").bounding_box(), users.get_by_label("Search by Username").bounding_box()
    table = users.get_by_role("table").bounding_box()
    assert add["x"] < search["x"]
    assert max(add["y"] + add["height"], search["y"] + search["height"]) <= table["y"]


def test_add_a_user_and_hand_over_the_sign_in_details(users: Page) -> None:
    form = open_dialog(users, "Add User", "Add User")
    expect(form.get_by_label("Username")).to_be_focused()
    form.get_by_label("Username").fill("nadia")
    form.get_by_label("Display Name").fill("Nadia Ferro")
    form.get_by_label("Password").fill("a long password")
    form.get_by_role("button", name="Create").click()

    ready = dialog(users, "nadia is ready")
    expect(ready).to_contain_text("a long password")
    ready.get_by_role("button", name="Copy").click()
    expect(ready.get_by_role("button", name="Copied")).to_be_visible()
    copied = users.evaluate("navigator.clipboard.readText()").split("\n")
    assert copied == [users.url.removesuffix("/space/users/") + "/login/", "nadia", "a long password"]
    ready.get_by_role("button", name="Done").click()

    expect(users.get_by_role("dialog")).to_have_count(0)
    expect(button(users, "Add User")).to_be_focused()
    for text in ("Nadia Ferro", "Normal user", "Enabled", "$0.00 / $0.00"):
        expect(row(users, "nadia")).to_contain_text(text)
    expect(toast(users)).to_contain_text("nadia added.")
    assert "a long password" not in users.content()


def test_errors_of_a_new_user_are_shown_beside_their_fields_and_the_input_kept(users: Page) -> None:
    form = open_dialog(users, "Add User", "Add User")
    form.get_by_label("Username").fill("JUN")
    form.get_by_label("Display Name").fill("Another Jun")
    form.get_by_label("Password").fill("short")
    with users.expect_response("**/add/") as answered:
        form.get_by_role("button", name="Create").click()

    assert answered.value.status == 422
    expect(form.get_by_label("Password")).to_have_accessible_description("Use at least 8 characters.")
    expect(form.get_by_label("Password")).to_be_focused()
    form.get_by_label("Password").fill("long enough")
    form.get_by_role("button", name="Create").click()
    expect(form.get_by_label("Username")).to_have_accessible_description("This username is not available.")
    expect(form.get_by_label("Username")).to_be_focused()
    expect(form.get_by_label("Username")).to_have_value("JUN")
    expect(form.get_by_label("Display Name")).to_have_value("Another Jun")
    expect(form.get_by_label("Password")).to_have_value("long enough")
    assert User.objects.filter(space__name="Halcyon Labs").count() == 5


def test_edit_a_user_with_a_live_preview(users: Page) -> None:
    form = open_dialog(users, "Edit jun", "Edit User")
    quota = form.get_by_label("Remaining Quota (USD)")
    expect(quota).to_be_focused()
    expect(quota).to_have_value("5.00")
    expect(form.get_by_label("Password")).to_have_value("")
    # A screen reader announces a change only in an aria-live region that existed before the swap.
    region = form.locator("[aria-live]").filter(has_text="Already used").element_handle()
    quota.fill("9.00")
    expect(form).to_contain_text("$9.00 / $9.00")
    assert "$9.00 / $9.00" in region.inner_text()
    expect(form).to_contain_text(re.compile(r"\$395\.00\s*then\s*\$391\.00"))
    expect(quota).to_be_focused()
    form.get_by_label("Username").fill("jun.sato")
    form.get_by_label("Display Name").fill("Sato Jun")
    form.get_by_role("button", name="Submit").click()

    expect(dialog(users, "Edit User")).to_have_count(0)
    expect(button(users, "Edit jun.sato")).to_be_focused()
    expect(row(users, "jun.sato")).to_contain_text("$9.00 / $9.00")
    expect(row(users, "jun.sato")).to_contain_text("Sato Jun")
    expect(pool_figure(users, "Available")).to_have_text("$391.00")
    expect(users.get_by_role("banner").get_by_role("link", name="Available")).to_contain_text("$391.00")
    expect(toast(users)).to_contain_text("jun.sato saved.")
    assert usernames(users) == ["amara", "jun.sato", "kai", "lea"]


def test_errors_of_an_edit_are_shown_beside_their_fields_and_no_money_moves(users: Page) -> None:
    form = open_dialog(users, "Edit jun", "Edit User")
    form.get_by_label("Password").fill("abc12")
    form.get_by_label("Remaining Quota (USD)").fill("lots")
    form.get_by_label("Display Name").fill("Kept As Typed")
    with users.expect_response("**/3/edit/") as answered:
        form.get_by_role("button", name="Submit").click()

    assert answered.value.status == 422
    expect(form.get_by_label("Password")).to_be_focused()
    expect(form.get_by_label("Password")).to_have_value("abc12")
    expect(form.get_by_label("Password")).to_have_accessible_description("Use at least 8 characters.")
    quota = form.get_by_label("Remaining Quota (USD)")
    expect(quota).to_have_accessible_description("Enter an amount in dollars, like 12.50, in the digits 0-9.")
    expect(form.get_by_label("Display Name")).to_have_value("Kept As Typed")
    expect(users.get_by_role("dialog")).to_have_count(1)

    form.get_by_label("Password").fill("")
    quota.fill("400.01")
    expect(form).to_contain_text("the most is $400.00")
    form.get_by_role("button", name="Submit").click()
    expect(quota).to_have_accessible_description(re.compile(r"^Only \$395\.00 is available in this space\."))
    expect(quota).to_be_focused()
    assert Wallet.objects.get(user__username="jun").remaining == 5 * NANOS_PER_USD
    assert User.objects.get(username="jun").display_name == "Jun Sato"


def test_three_clicks_submit_once(users: Page) -> None:
    sent = posts(users)
    form = open_dialog(users, "Edit jun", "Edit User")
    form.get_by_label("Remaining Quota (USD)").fill("9")
    expect(form).to_contain_text("$9.00 / $9.00")
    form.get_by_role("button", name="Submit").evaluate("one => { one.click(); one.click(); one.click(); }")

    expect(toast(users)).to_contain_text("jun saved.")
    assert sent == ["/space/users/3/preview/", "/space/users/3/edit/"]
    assert Transfer.objects.filter(member_number=3).count() == 2


def test_a_double_click_creates_once(users: Page) -> None:
    sent = posts(users)
    form = open_dialog(users, "Add User", "Add User")
    form.get_by_label("Username").fill("nadia")
    form.get_by_label("Password").fill("a long password")
    form.get_by_role("button", name="Create").dblclick()

    expect(dialog(users, "nadia is ready")).to_be_visible()
    assert sent == ["/space/users/add/"]


def test_promote_and_demote(users: Page) -> None:
    form = open_dialog(users, "Edit jun", "Edit User")
    form.get_by_role("switch", name="Promote to Admin").check()
    form.get_by_role("button", name="Submit").click()
    expect(row(users, "jun").get_by_role("cell", name="Admin", exact=True)).to_be_visible()

    form = open_dialog(users, "Edit jun", "Edit User")
    expect(form.get_by_role("switch", name="Promote to Admin")).to_be_checked()
    form.get_by_role("switch", name="Promote to Admin").uncheck()
    form.get_by_role("button", name="Submit").click()
    expect(row(users, "jun").get_by_role("cell", name="Normal user", exact=True)).to_be_visible()


def test_disable_by_one_click_and_undo(users: Page, sign_in: SignIn) -> None:
    theirs = sign_in(User.objects.get(username="jun"), "/me/credits/")

    button(users, "Disable jun").click()
    expect(row(users, "jun")).to_contain_text("Disabled")
    expect(button(users, "Enable jun")).to_be_focused()
    expect(toast(users)).to_contain_text("jun is disabled.")
    theirs.reload()
    expect(button(theirs, "Sign in")).to_be_visible()

    toast(users).get_by_role("button", name="Undo").click()
    expect(row(users, "jun")).to_contain_text("Enabled")
    expect(toast(users).get_by_text("jun is disabled.")).to_have_count(0)
    assert Wallet.objects.get(user__username="jun").remaining == 5 * NANOS_PER_USD


def test_enable_by_one_click(users: Page) -> None:
    User.objects.filter(username="jun").update(is_active=False)
    users.reload()

    button(users, "Enable jun").click()

    expect(row(users, "jun")).to_contain_text("Enabled")
    expect(button(users, "Disable jun")).to_be_focused()


def test_delete_asks_for_the_name_and_returns_the_money(users: Page) -> None:
    form = open_dialog(users, "Delete jun", "Delete User")
    expect(form).to_contain_text("Returns $5.00 to the pool: available goes from $395.00 to $400.00.")
    name = form.get_by_label("Type jun to confirm")
    expect(name).to_be_focused()
    name.fill("june")
    form.get_by_role("button", name="Delete").click()
    expect(name).to_have_accessible_description("That does not match. Type jun to delete this user.")
    expect(name).to_be_focused()
    expect(name).to_have_value("june")

    name.fill("jun")
    form.get_by_role("button", name="Delete").click()

    expect(row(users, "jun")).to_have_count(0)
    expect(pool_figure(users, "Available")).to_have_text("$400.00")
    expect(toast(users)).to_contain_text("jun deleted. $5.00 returned to the pool.")
    expect(button(users, "Edit kai")).to_be_focused()
    assert usernames(users) == ["amara", "kai", "lea"]


def test_a_key_is_revoked_by_a_second_button_and_never_by_a_double_click(users: Page, people: list[User]) -> None:
    owner = people[0]
    for name in ("old", "ci", "laptop"):
        create_key(owner=owner, terms=KeyTerms(name=name))
    form = open_dialog(users, f"Edit {owner.username}", "Edit User")
    form.get_by_label("Revoke ci", exact=True).dblclick()
    form.get_by_label("Revoke laptop", exact=True).click()
    form.get_by_label("Revoke ci", exact=True).click()
    expect(form.get_by_text("This cannot be undone.").locator("visible=true")).to_have_count(1)
    assert owner.keys.count() == 3

    button(users, "Revoke ci for good").dblclick()

    expect(form.get_by_text("is revoked.")).to_be_visible()
    expect(form.locator("#member-keys li")).to_have_count(2)
    assert [key.name for key in owner.keys.order_by("pk")] == ["old", "laptop"]


def test_after_the_last_row_is_deleted_focus_goes_to_the_one_before(users: Page) -> None:
    form = open_dialog(users, "Delete lea", "Delete User")
    form.get_by_label("Type lea to confirm").fill("lea")
    form.get_by_role("button", name="Delete").click()

    expect(button(users, "Edit kai")).to_be_focused()


@pytest.mark.parametrize(
    ("opener", "name"), [("Add User", "Add User"), ("Edit jun", "Edit User"), ("Delete jun", "Delete User")]
)
def test_escape_cancel_and_close_change_nothing_and_return_focus(users: Page, opener: str, name: str) -> None:
    sent = posts(users)
    for way in ("Escape", "Cancel", "Close"):
        opened = open_dialog(users, opener, name)
        if way == "Escape":
            users.keyboard.press("Escape")
        else:
            opened.get_by_role("button", name=way).click()
        expect(users.get_by_role("dialog")).to_have_count(0)
        expect(button(users, opener)).to_be_focused()

    assert sent == []
    assert users.url.endswith("/space/users/")


def test_search_as_one_types_is_in_the_address(users: Page) -> None:
    search = users.get_by_label("Search by Username")
    search.press_sequentially("ju", delay=50)
    users.wait_for_url("**/space/users/?*q=ju*")
    expect(users.get_by_role("row")).to_have_count(2)
    expect(users.get_by_role("status").filter(has_text="1–1 of 1 user")).to_have_count(1)
    expect(search).to_be_focused()

    users.reload()
    expect(users.get_by_label("Search by Username")).to_have_value("ju")
    assert usernames(users) == ["jun"]

    users.go_back()
    expect(users.get_by_role("navigation", name="Main")).to_be_visible()
    expect(users.get_by_role("row")).to_have_count(5)
    expect(users.get_by_label("Search by Username")).to_have_value("")


@pytest.mark.parametrize(("typed", "found"), [("_", ["a_b"]), ("%", []), ("KA", ["kai"])])
def test_search_takes_percent_and_underscore_as_letters(
    users: Page, space: Space, typed: str, found: list[str]
) -> None:
    MemberFactory(space=space, username="a_b")
    users.get_by_label("Search by Username").fill(typed)
    users.wait_for_url("**/space/users/?*q=*")

    if found:
        expect(users.get_by_role("row")).to_have_count(1 + len(found))
        assert usernames(users) == found
    else:
        expect(users.get_by_role("heading", name=f"No username matches “{typed}”")).to_be_visible()


def test_a_search_without_result_is_cleared_with_one_click(users: Page) -> None:
    users.get_by_label("Search by Username").fill("zed")
    users.get_by_role("link", name="Clear search").click()

    expect(users.get_by_role("row")).to_have_count(5)
    expect(users.get_by_label("Search by Username")).to_have_value("")


def test_an_empty_space_says_what_to_do_next(sign_in: SignIn, manager: User) -> None:
    page = sign_in(manager)

    expect(page.get_by_role("heading", name="No users yet")).to_be_visible()
    form = open_dialog(page, "Add User", "Add User")
    form.get_by_label("Username").fill("first")
    form.get_by_label("Password").fill("a long password")
    form.get_by_role("button", name="Create").click()
    button(page, "Done").click()

    expect(row(page, "first")).to_be_visible()
    expect(page.get_by_role("heading", name="No users yet")).to_have_count(0)


def test_filters_combine_and_stay_after_a_reload(users: Page) -> None:
    User.objects.filter(username="kai").update(is_active=False)
    users.get_by_label("Status").select_option("Disabled")
    expect(users.get_by_role("row")).to_have_count(2)
    assert usernames(users) == ["kai"]
    users.get_by_label("Role").select_option("Admin")
    expect(users.get_by_role("heading", name="No user matches these filters")).to_be_visible()

    users.reload()
    expect(users.get_by_label("Status")).to_have_value("disabled")
    expect(users.get_by_label("Role")).to_have_value("admin")
    users.get_by_role("link", name="Clear filters").click()
    expect(users.get_by_role("row")).to_have_count(5)
    expect(users.get_by_label("Role")).to_have_value("")


def test_columns_sort_up_and_down(users: Page) -> None:
    head = users.get_by_role("columnheader", name="Remaining / Total")
    head.get_by_role("link").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    assert usernames(users) == ["lea", "jun", "kai", "amara"]

    head.get_by_role("link").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    assert usernames(users) == ["amara", "kai", "jun", "lea"]
    assert users.url.endswith("/space/users/?sort=-remaining")
    expect(head.get_by_role("link")).to_be_focused()


def test_pages_and_their_size(sign_in: SignIn, manager: User, crowd: list[User]) -> None:
    page = sign_in(manager)
    pager = page.get_by_role("navigation", name="Pages")
    expect(pager).to_contain_text("1–10 of 12 users")

    pager.get_by_role("link", name="Next page").click()
    expect(pager).to_contain_text("11–12 of 12 users")
    assert usernames(page) == ["u10", "u11"]
    expect(pager.get_by_role("link", name="Page 2")).to_have_attribute("aria-current", "page")
    page.reload()
    assert usernames(page) == ["u10", "u11"]

    pager.get_by_role("link", name="20 per page").click()
    expect(page.get_by_role("row")).to_have_count(13)
    assert page.url.endswith("/space/users/?size=20")
    page.get_by_label("Search by Username").fill("u1")
    expect(page.get_by_role("row")).to_have_count(3)
    assert "size=20" in page.url


def test_a_new_user_is_shown_even_when_the_search_does_not_match(users: Page) -> None:
    users.goto("/space/users/?q=kai")
    form = open_dialog(users, "Add User", "Add User")
    form.get_by_label("Username").fill("nadia")
    form.get_by_label("Password").fill("a long password")
    form.get_by_role("button", name="Create").click()
    button(users, "Done").click()

    expect(row(users, "nadia")).to_be_visible()


@pytest.mark.parametrize("clicked", ["Edit jun", "Disable jun"])
def test_a_session_that_ended_meanwhile_leads_to_the_sign_in(users: Page, clicked: str) -> None:
    Session.objects.all().delete()

    button(users, clicked).click()

    users.wait_for_url("**/login/?next=%2Fspace%2Fusers%2F")
    expect(button(users, "Sign in")).to_be_visible()
    assert User.objects.get(username="jun").is_active


def test_editing_a_user_who_was_deleted_meanwhile_shows_a_message_and_a_way_on(
    users: Page, sign_in: SignIn, manager: User
) -> None:
    other = sign_in(manager)
    form = open_dialog(other, "Delete jun", "Delete User")
    form.get_by_label("Type jun to confirm").fill("jun")
    form.get_by_role("button", name="Delete").click()
    expect(row(other, "jun")).to_have_count(0)

    button(users, "Edit jun").click()
    expect(toast(users)).to_contain_text("This no longer exists.")
    toast(users).get_by_role("button", name="Reload").click()

    expect(row(users, "jun")).to_have_count(0)


def test_two_managers_at_once_do_not_undo_each_others_quota(users: Page, sign_in: SignIn, manager: User) -> None:
    first = open_dialog(users, "Edit jun", "Edit User")
    other = sign_in(manager)
    second = open_dialog(other, "Edit jun", "Edit User")
    second.get_by_label("Remaining Quota (USD)").fill("50")
    second.get_by_role("button", name="Submit").click()
    expect(row(other, "jun")).to_contain_text("$50.00 / $50.00")

    first.get_by_label("Remaining Quota (USD)").fill("9")
    first.get_by_role("button", name="Submit").click()

    quota = first.get_by_label("Remaining Quota (USD)")
    expect(quota).to_have_accessible_description(re.compile(r"it is now \$50\.00 / \$50\.00"))
    assert Wallet.objects.get(user__username="jun").remaining == 50 * NANOS_PER_USD


def test_a_form_keeps_its_input_when_the_connection_is_lost(users: Page, console_messages: list[str]) -> None:
    form = open_dialog(users, "Add User", "Add User")
    form.get_by_label("Username").fill("nadia")
    form.get_by_label("Password").fill("a long password")
    users.context.set_offline(True)
    form.get_by_role("button", name="Create").click()
    expect(form).to_contain_text("No connection. What you typed is still here.")
    users.context.set_offline(False)
    form.get_by_role("button", name="Retry").click()

    expect(dialog(users, "nadia is ready")).to_be_visible()
    # The browser and htmx report the lost connection in the console, and nothing else.
    assert len(console_messages) == 3 and all(
        re.search("ERR_INTERNET_DISCONNECTED|htmx:(sendError|afterRequest)", x) for x in console_messages
    )
    console_messages.clear()


def test_the_quota_pill_leads_to_the_credits(users: Page) -> None:
    users.get_by_role("banner").get_by_role("link", name="Available").click()

    users.wait_for_url("**/me/credits/")
    expect(users.get_by_role("heading", name="Credits Management", level=1)).to_be_visible()
    expect(users.get_by_role("row").filter(has_text="Allocated to jun")).to_contain_text("−$5.00")
