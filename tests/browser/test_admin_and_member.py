"""What admins and normal users see, and what they are refused."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from core.money import NANOS_PER_USD
from quotas.models import Wallet
from tests.browser.conftest import SignIn
from tests.browser.pages import button, dialog, open_dialog, pool_figure, posts, row, toast
from tests.factories import PASSWORD

pytestmark = pytest.mark.browser


@pytest.fixture
def admins(sign_in: SignIn, people: list[User], admin_member: User) -> Page:
    return sign_in(admin_member)


def test_an_admin_deletes_nobody_and_does_not_disable_themself(admins: Page) -> None:
    sent = posts(admins)
    expect(admins.get_by_role("row")).to_have_count(5)
    expect(admins.get_by_role("button", name="Delete")).to_have_count(0)
    own = button(admins, "Disable amara")
    expect(own).to_have_attribute("aria-disabled", "true")
    expect(own).to_have_accessible_description("You cannot disable yourself.")

    own.click(force=True)

    assert sent == []
    expect(row(admins, "amara")).to_contain_text("Enabled")


def test_an_admin_adds_edits_and_disables_out_of_the_managers_pool(admins: Page) -> None:
    form = open_dialog(admins, "Add User", "Add User")
    form.get_by_label("Username").fill("nadia")
    form.get_by_label("Password").fill("a long password")
    form.get_by_role("button", name="Create").click()
    dialog(admins, "nadia is ready").get_by_role("button", name="Done").click()
    form = open_dialog(admins, "Edit nadia", "Edit User")
    form.get_by_label("Remaining Quota (USD)").fill("10")
    form.get_by_role("button", name="Submit").click()
    expect(row(admins, "nadia")).to_contain_text("$10.00 / $10.00")
    expect(pool_figure(admins, "Available")).to_have_text("$385.00")

    button(admins, "Disable nadia").click()

    expect(row(admins, "nadia")).to_contain_text("Disabled")
    assert Wallet.objects.get(user__username="nadia").remaining == 10 * NANOS_PER_USD


def test_an_admin_cannot_demote_themself(admins: Page, admin_member: User) -> None:
    form = open_dialog(admins, "Edit amara", "Edit User")
    switch = form.get_by_role("switch", name="Promote to Admin")
    expect(switch).to_be_disabled()
    expect(switch).to_have_accessible_description("You cannot demote yourself.")
    form.get_by_label("Display Name").fill("Amara Diallo")
    form.get_by_role("button", name="Submit").click()

    expect(row(admins, "amara")).to_contain_text("Amara Diallo")
    assert User.objects.get(pk=admin_member.pk).is_admin


def test_an_admin_demoted_meanwhile_gets_a_message(admins: Page, admin_member: User) -> None:
    User.objects.filter(pk=admin_member.pk).update(role="normal")

    button(admins, "Edit jun").click()

    expect(toast(admins)).to_contain_text("You no longer have access.")
    toast(admins).get_by_role("button", name="Reload").click()
    expect(admins.get_by_role("heading", name="You can’t open")).to_be_visible()


def test_a_normal_user_signs_in_to_their_own_figures(page: Page, member: User, charged: None) -> None:
    page.goto("/login/")
    page.get_by_label("Username").fill("JUN")
    page.get_by_label("Password").fill(PASSWORD)
    button(page, "Sign in").click()

    page.wait_for_url("**/console/")
    expect(page.get_by_role("heading", name="Dashboard", level=1)).to_be_visible()
    sidebar = page.get_by_role("navigation", name="Main")
    expect(sidebar.get_by_role("heading")).to_have_text(["Console", "Personal Center"])
    expect(sidebar.get_by_role("link")).to_have_text(
        [
            "Space Manage",
            "Dashboard",
            "Token Management",
            "Usage Logs",
            "Task Logs",
            "Credits Management",
            "Personal Settings",
        ]
    )
    expect(sidebar.get_by_role("link", name="Space Manage")).to_have_attribute("href", "/")
    sidebar.get_by_role("link", name="Credits Management").click()
    card = page.get_by_role("region", name="Your quota")
    for term, figure in {"Total": "$5.00", "Spent": "$1.25", "Remaining": "$3.75", "In flight": "$0.00"}.items():
        expect(card.locator("dl > div").filter(has_text=term).get_by_role("definition")).to_have_text(figure)
    expect(page.get_by_role("row").filter(has_text="Received")).to_contain_text("+$5.00")
    expect(page.get_by_role("banner").get_by_role("link", name="Remaining")).to_contain_text("$3.75")


def test_a_normal_user_is_told_why_the_users_are_not_shown(sign_in: SignIn, people: list[User], member: User) -> None:
    page = sign_in(member)

    expect(page.get_by_role("heading", name="You can’t open User Management", level=1)).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("Only Space Managers and Admins of Halcyon Labs")
    expect(page.get_by_role("main")).to_contain_text("You are signed in as jun (Normal user).")
    expect(page.get_by_text("kai")).to_have_count(0)
    page.get_by_role("link", name="See my credits").click()
    expect(page.get_by_role("heading", name="Credits Management", level=1)).to_be_visible()


def test_changing_name_and_password_in_settings_keeps_the_session(sign_in: SignIn, page: Page, member: User) -> None:
    settings, elsewhere = sign_in(member, "/me/settings/"), sign_in(member, "/me/settings/")
    expect(settings.get_by_label("Username")).to_be_disabled()
    settings.get_by_label("Display Name").fill("Jun the Second")
    button(settings, "Save").click()
    expect(toast(settings)).to_contain_text("Profile saved.")
    expect(settings.get_by_role("navigation", name="Main")).to_contain_text("Jun the Second")

    settings.get_by_label("Current password").fill("a wrong one")
    settings.get_by_label("New password").fill("brand new secret")
    button(settings, "Change password").click()
    expect(settings.get_by_label("Current password")).to_have_attribute("aria-invalid", "true")
    settings.get_by_label("Current password").fill(PASSWORD)
    settings.get_by_label("New password").fill("brand new secret")
    button(settings, "Change password").click()

    expect(toast(settings)).to_contain_text("Password changed.")
    settings.reload()
    expect(settings.get_by_role("heading", name="Personal Settings", level=1)).to_be_visible()
    elsewhere.reload()
    expect(button(elsewhere, "Sign in")).to_be_visible()
    page.goto("/login/")
    page.get_by_label("Username").fill("jun")
    page.get_by_label("Password").fill("brand new secret")
    button(page, "Sign in").click()
    page.wait_for_url("**/console/")


def test_signing_out_ends_the_session(sign_in: SignIn, member: User) -> None:
    page = sign_in(member, "/me/credits/")

    page.get_by_role("navigation", name="Main").get_by_role("button", name="Sign out").click()

    page.wait_for_url("**/login/")
    page.goto("/me/credits/")
    page.wait_for_url("**/login/?next=/me/credits/")


def test_the_account_menu_opens_and_closes(sign_in: SignIn, manager: User) -> None:
    page = sign_in(manager)
    summary = page.locator("summary").filter(has_text="Account menu")
    summary.click()
    expect(page.get_by_role("banner").get_by_role("link", name="Personal Settings")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("banner").get_by_role("link", name="Personal Settings")).to_be_hidden()
    expect(summary).to_be_focused()
