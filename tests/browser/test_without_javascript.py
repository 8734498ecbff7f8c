"""Every page works without JavaScript."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from accounts.models import User
from tests.browser.conftest import SignIn
from tests.browser.pages import button, pool_figure, row, toast
from tests.factories import PASSWORD

pytestmark = pytest.mark.browser


@pytest.fixture
def users(sign_in: SignIn, manager: User, people: list[User]) -> Page:
    return sign_in(manager, java_script_enabled=False)


def usernames(page: Page) -> list[str]:
    return [
        one.get_attribute("aria-label").removeprefix("Edit ") for one in page.get_by_role("button", name="Edit ").all()
    ]


def test_sign_in_and_out(new_context: Callable[..., BrowserContext], member: User) -> None:
    page = new_context(java_script_enabled=False).new_page()
    page.goto("/")
    page.get_by_label("Username").fill("jun")
    page.get_by_label("Password").fill(PASSWORD)
    button(page, "Sign in").click()
    expect(page.get_by_role("heading", name="Dashboard", level=1)).to_be_visible()

    page.get_by_role("navigation", name="Main").get_by_role("button", name="Sign out").click()
    expect(button(page, "Sign in")).to_be_visible()


def test_search_filter_and_sort(users: Page) -> None:
    users.get_by_label("Search by Username").fill("a")
    users.get_by_label("Role").select_option("Normal user")
    button(users, "Apply").click()
    expect(users.get_by_role("row")).to_have_count(3)
    assert usernames(users) == ["kai", "lea"]

    users.get_by_role("columnheader", name="Remaining / Total").get_by_role("link").click()
    assert usernames(users) == ["lea", "kai"]
    expect(users.get_by_label("Search by Username")).to_have_value("a")


def test_pages_and_their_size(sign_in: SignIn, manager: User, crowd: list[User]) -> None:
    page = sign_in(manager, java_script_enabled=False)
    page.get_by_role("link", name="Next page").click()
    assert usernames(page) == ["u10", "u11"]

    page.get_by_role("link", name="20 per page").click()
    expect(page.get_by_role("row")).to_have_count(13)


def test_add_a_user_after_correcting_errors(users: Page) -> None:
    button(users, "Add User").click()
    expect(users.get_by_role("heading", name="Add User", level=1)).to_be_visible()
    users.get_by_label("Username").fill("JUN")
    users.get_by_label("Display Name").fill("Kept")
    users.get_by_label("Password").fill("a long password")
    button(users, "Create").click()
    expect(users.get_by_label("Username")).to_have_accessible_description("This username is not available.")
    expect(users.get_by_label("Display Name")).to_have_value("Kept")

    users.get_by_label("Username").fill("nadia")
    button(users, "Create").click()

    expect(row(users, "nadia")).to_contain_text("$0.00 / $0.00")
    expect(toast(users)).to_contain_text("nadia added.")


def test_edit_a_user_after_correcting_errors(users: Page) -> None:
    button(users, "Edit jun").click()
    expect(users.get_by_role("heading", name="Edit User", level=1)).to_be_visible()
    users.get_by_label("Remaining Quota (USD)").fill("400.01")
    button(users, "Submit").click()
    expect(users.get_by_text("Only $395.00 is available in this space.")).to_be_visible()
    expect(users.get_by_label("Remaining Quota (USD)")).to_have_value("400.01")

    users.get_by_label("Remaining Quota (USD)").fill("9")
    users.get_by_role("switch", name="Promote to Admin").check()
    button(users, "Submit").click()

    expect(row(users, "jun")).to_contain_text("$9.00 / $9.00")
    expect(row(users, "jun").get_by_role("cell", name="Admin", exact=True)).to_be_visible()
    expect(pool_figure(users, "Available")).to_have_text("$391.00")
    expect(toast(users)).to_contain_text("jun saved.")


def test_disable_and_enable(users: Page) -> None:
    users.goto("/space/users/?q=jun")
    button(users, "Disable jun").click()
    expect(row(users, "jun")).to_contain_text("Disabled")
    assert users.url.endswith("/space/users/?q=jun")

    button(users, "Enable jun").click()
    expect(row(users, "jun")).to_contain_text("Enabled")


def test_delete_asks_for_the_name(users: Page) -> None:
    button(users, "Delete jun").click()
    users.get_by_label("Type jun to confirm").fill("june")
    button(users, "Delete").click()
    expect(users.get_by_text("That does not match. Type jun to delete this user.")).to_be_visible()

    users.get_by_label("Type jun to confirm").fill("jun")
    button(users, "Delete").click()

    expect(toast(users)).to_contain_text("jun deleted. $5.00 returned to the pool.")
    assert usernames(users) == ["amara", "kai", "lea"]
    expect(pool_figure(users, "Available")).to_have_text("$400.00")


def test_cancel_leads_back(users: Page) -> None:
    button(users, "Edit jun").click()
    users.get_by_role("link", name="Cancel").click()

    expect(users.get_by_role("heading", name="User Management", level=1)).to_be_visible()


def test_buttons_that_need_javascript_are_hidden(users: Page) -> None:
    for name in ("Switch light or dark theme", "Sidebar with labels"):
        expect(users.get_by_role("button", name=name)).to_have_count(0)
    button(users, "Add User").click()
    expect(button(users, "Show characters")).to_have_count(0)
