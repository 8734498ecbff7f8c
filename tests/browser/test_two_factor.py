"""Two-factor sign-in in a real browser: with an authenticator app, with a virtual passkey, and by keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from accounts.models import User
from tests.authenticator import App, code_of
from tests.browser.pages import button, dialog, open_dialog, row, toast
from tests.factories import PASSWORD

pytestmark = pytest.mark.browser


@pytest.fixture
def page(new_context: Callable[..., BrowserContext]) -> Page:
    return new_context().new_page()


@pytest.fixture
def address(base_url: str) -> str:
    """A URL with a host name, because WebAuthn allows no IP address as the relying party's ID."""
    return base_url.replace("127.0.0.1", "localhost")


def give_password(page: Page, address: str, username: str) -> None:
    page.goto(f"{address}/login/")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    with page.expect_navigation(url=lambda url: not url.endswith("/login/")):
        page.keyboard.press("Enter")


def plug_in_passkey(page: Page) -> Any:
    """A virtual authenticator in Chromium that answers immediately."""
    tools = page.context.new_cdp_session(page)
    tools.send("WebAuthn.enable")
    options = {"protocol": "ctap2", "transport": "internal", "hasUserVerification": True, "isUserVerified": True}
    tools.send("WebAuthn.addVirtualAuthenticator", {"options": options | {"automaticPresenceSimulation": True}})
    return tools


def set_up_app(page: Page) -> str:
    page.get_by_role("link", name="Set up an authenticator app").click()
    expect(page.get_by_role("img", name=re.compile("QR code"))).to_be_visible()
    secret = str(page.locator("#app-secret").text_content()).replace(" ", "").strip()
    page.get_by_label("Enter the code that the app shows now").fill(code_of(secret, steps=-1))
    page.keyboard.press("Enter")
    return secret


def test_an_app_is_set_up_and_signs_in(page: Page, address: str, member: User) -> None:
    give_password(page, address, "jun")
    page.goto(f"{address}/me/settings/")
    secret = set_up_app(page)
    expect(page.get_by_role("list", name="Recovery codes").get_by_role("listitem")).to_have_count(10)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    kept = download.value.path().read_text().split()
    assert len(kept) == 10 and download.value.suggested_filename == "space-manage-jun.txt"
    page.get_by_role("link", name="I have saved them").click()
    expect(page.get_by_text("10 codes left")).to_be_visible()
    page.context.clear_cookies()

    give_password(page, address, "jun")
    expect(page.get_by_role("heading", name="One more step")).to_be_visible()
    page.get_by_label("Code").fill("000000")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Code")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Code").fill(code_of(secret))
    page.keyboard.press("Enter")

    expect(page).to_have_url(f"{address}/console/")


def test_a_passkey_is_added_and_signs_in_by_keyboard_alone(page: Page, address: str, member: User) -> None:
    plug_in_passkey(page)
    give_password(page, address, "jun")
    page.goto(f"{address}/me/two-factor/passkeys/add/")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("Laptop")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    page.goto(f"{address}/me/settings/")
    expect(page.get_by_role("link", name="Remove the passkey Laptop")).to_be_visible()
    page.context.clear_cookies()

    give_password(page, address, "jun")
    expect(button(page, "Use a passkey")).to_be_visible()
    page.get_by_label("Code").focus()
    page.keyboard.press("Shift+Tab")
    expect(button(page, "Use a passkey")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page).to_have_url(f"{address}/console/")


def test_adding_a_passkey_where_the_browser_refuses_shows_an_error(page: Page, base_url: str, member: User) -> None:
    """Browsers refuse passkeys for an IP address."""
    numbers = base_url.replace("localhost", "127.0.0.1")
    give_password(page, numbers, "jun")
    page.goto(f"{numbers}/me/two-factor/passkeys/add/")
    page.get_by_label("Name").fill("Laptop")

    button(page, "Add passkey").click()

    expect(page.get_by_role("alert")).to_contain_text("That did not work")
    expect(button(page, "Add passkey")).not_to_have_attribute("aria-disabled", "true")


def test_a_manager_requires_two_factor_sign_in_and_an_admin_has_to_set_it_up(
    page: Page, new_context: Callable[..., BrowserContext], address: str, manager: User, admin_member: User
) -> None:
    give_password(page, address, "mira")
    page.goto(f"{address}/space/users/")
    button(page, "Require it").click()
    expect(toast(page)).to_contain_text("Admins sign in with two factors")
    expect(button(page, "Require it no longer")).to_be_visible()

    theirs = new_context().new_page()
    give_password(theirs, address, "amara")
    expect(theirs).to_have_url(f"{address}/me/two-factor/")
    expect(theirs.get_by_text("Your space manager requires a second factor")).to_be_visible()
    set_up_app(theirs)
    theirs.get_by_role("link", name="I have saved them").click()
    theirs.goto(f"{address}/space/users/")
    expect(theirs.get_by_role("heading", name="User Management")).to_be_visible()


def test_a_manager_resets_two_factor_sign_in_in_edit_user(
    page: Page, address: str, manager: User, member: User
) -> None:
    App(member)
    give_password(page, address, "mira")
    page.goto(f"{address}/space/users/")
    form = open_dialog(page, "Edit jun", "Edit User")
    form.get_by_role("link", name=re.compile("Reset")).click()
    asked = dialog(page, "Reset two-factor sign-in")
    expect(asked).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(1)

    asked.get_by_role("button", name="Reset").click()

    expect(toast(page)).to_contain_text("Two-factor sign-in of jun is off.")
    expect(asked).to_have_count(0)
    expect(row(page, "jun").get_by_role("button", name="Edit jun")).to_be_focused()


def test_sessions_are_listed_and_signed_out(
    page: Page, new_context: Callable[..., BrowserContext], address: str, member: User
) -> None:
    other = new_context().new_page()
    for one in (other, page):
        give_password(one, address, "jun")
        one.goto(f"{address}/me/settings/")
    expect(page.get_by_text("This session")).to_have_count(1)

    page.get_by_role("button", name=re.compile("Sign out Chrome on Linux")).click()

    expect(toast(page)).to_contain_text("That session is signed out.")
    other.reload()
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
