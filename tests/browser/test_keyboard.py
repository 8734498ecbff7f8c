"""Everything works by keyboard alone, focus goes to the right place, and choices about sidebar and theme persist."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from tests.browser.conftest import SignIn
from tests.browser.pages import button, dialog, row, usernames
from tests.factories import charge

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}
# Animations of up to one frame (16 ms) are not visible as motion.
RUNNING_ANIMATIONS = """
    document.getAnimations()
      .filter((one) => one.playState === "running" && one.effect.getComputedTiming().activeDuration > 16)
      .map((one) => `${one.animationName ?? one.transitionProperty} of ${one.effect.target.className}`)
"""


@pytest.fixture
def users(sign_in: SignIn, manager: User, people: list[User]) -> Page:
    return sign_in(manager)


def tab_to(page: Page, name: str, *, key: str = "Tab", within: int = 60, role: Any = "button") -> None:
    """Press Tab until the control of that name has focus."""
    wanted = page.get_by_role(role, name=name, exact=True)
    for _ in range(within):
        page.keyboard.press(key)
        if wanted.evaluate("one => one === document.activeElement"):
            return
    raise AssertionError(f"{within} times {key} do not reach {name}")


def test_add_a_user_by_keyboard(users: Page) -> None:
    tab_to(users, "Add User")
    users.keyboard.press("Enter")
    expect(dialog(users, "Add User").get_by_label("Username")).to_be_focused()
    users.keyboard.type("nadia")
    users.keyboard.press("Tab")
    users.keyboard.press("Tab")
    expect(dialog(users, "Add User").get_by_label("Password")).to_be_focused()
    users.keyboard.type("a long password")
    users.keyboard.press("Enter")

    expect(dialog(users, "nadia is ready").get_by_role("button", name="Copy")).to_be_focused()
    tab_to(users, "Done", within=5)
    users.keyboard.press("Enter")
    expect(button(users, "Add User")).to_be_focused()
    expect(row(users, "nadia")).to_be_visible()


def test_edit_a_user_by_keyboard(users: Page) -> None:
    tab_to(users, "Edit jun")
    users.keyboard.press("Enter")
    expect(dialog(users, "Edit User").get_by_label("Remaining Quota (USD)")).to_be_focused()
    users.keyboard.press("Control+a")
    users.keyboard.type("9")
    users.keyboard.press("Tab")
    expect(dialog(users, "Edit User").get_by_role("switch", name="Promote to Admin")).to_be_focused()
    users.keyboard.press("Space")
    tab_to(users, "Submit", within=3)
    users.keyboard.press("Enter")

    expect(button(users, "Edit jun")).to_be_focused()
    expect(row(users, "jun")).to_contain_text("$9.00 / $9.00")
    expect(row(users, "jun").get_by_role("cell", name="Admin", exact=True)).to_be_visible()


def test_disable_and_undo_by_keyboard(users: Page) -> None:
    tab_to(users, "Disable jun")
    users.keyboard.press("Enter")
    expect(button(users, "Enable jun")).to_be_focused()
    tab_to(users, "Undo")
    users.keyboard.press("Enter")

    expect(row(users, "jun")).to_contain_text("Enabled")
    expect(users.get_by_text("jun is disabled.")).to_have_count(0)
    assert users.evaluate("document.activeElement !== document.body")


def test_delete_a_user_by_keyboard(users: Page) -> None:
    tab_to(users, "Delete jun")
    users.keyboard.press("Enter")
    expect(dialog(users, "Delete User").get_by_label("Type jun to confirm")).to_be_focused()
    users.keyboard.type("jun")
    users.keyboard.press("Enter")

    expect(button(users, "Edit kai")).to_be_focused()
    assert usernames(users) == ["amara", "kai", "lea"]


def test_make_a_key_and_copy_its_first_call_by_keyboard(sign_in: SignIn, member: User) -> None:
    page = sign_in(member, "/console/tokens/")
    tab_to(page, "Add Token")
    page.keyboard.press("Enter")
    expect(dialog(page, "Add Token").get_by_label("Name")).to_be_focused()
    page.keyboard.type("ci")
    page.keyboard.press("Enter")
    shown = dialog(page, "Copy your new key")
    expect(shown.get_by_role("button", name="Copy", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    tab_to(page, "Copy command", within=3)
    page.keyboard.press("Enter")
    expect(shown.get_by_role("button", name="Copied")).to_be_focused()

    tab_to(page, "I have saved it", within=3)
    page.keyboard.press("Enter")

    expect(button(page, "Add Token")).to_be_focused()


def test_the_end_of_the_log_keeps_the_focus(sign_in: SignIn, member: User) -> None:
    for _ in range(21):
        charge(member, cost_usd=0.01)
    page = sign_in(member, "/console/usage/")
    tab_to(page, "Older", role="link")

    page.keyboard.press("Enter")

    expect(page.get_by_role("link", name="Newest", exact=True)).to_be_enabled()
    expect(page.get_by_role("link", name="Older")).to_be_focused()


def test_an_open_dialog_traps_the_focus_and_shows_it(users: Page) -> None:
    button(users, "Add User").click()
    opened = dialog(users, "Add User")
    expect(opened).to_be_visible()

    for _ in range(12):
        users.keyboard.press("Tab")
        outside, seen = users.evaluate(
            "[!document.activeElement.closest('dialog, body'),"
            " document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert not outside
        assert seen in (True, "solid", "auto")
    assert users.evaluate("!document.activeElement.closest('main, nav, header')")


def test_the_sticky_bar_does_not_cover_the_focused_control(users: Page, crowd: list[User]) -> None:
    users.goto("/space/users/?size=20")
    bar = users.get_by_role("banner").bounding_box()
    button(users, "Delete u11").focus()
    button(users, "Delete u11").scroll_into_view_if_needed()

    for _ in range(40):
        users.keyboard.press("Shift+Tab")
        top = users.evaluate("document.activeElement.getBoundingClientRect().top")
        assert top >= bar["height"] or users.evaluate("scrollY") == 0


def test_the_skip_link_skips_the_sidebar(users: Page) -> None:
    users.keyboard.press("Tab")
    skip = users.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    users.keyboard.press("Enter")
    expect(users.get_by_role("main")).to_be_focused()

    users.keyboard.press("Tab")
    expect(button(users, "Add User")).to_be_focused()


def test_on_a_phone_the_sidebar_is_a_drawer(sign_in: SignIn, manager: User) -> None:
    page = sign_in(manager, viewport=PHONE, has_touch=True)
    drawer = page.get_by_role("navigation", name="Main")
    expect(drawer).to_be_hidden()

    button(page, "Open menu").click()
    expect(drawer.get_by_role("link", name="Credits Management")).to_be_visible()
    button(page, "Close menu").click()
    expect(drawer).to_be_hidden()
    expect(button(page, "Open menu")).to_be_focused()

    page.keyboard.press("Enter")
    expect(drawer).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(button(page, "Open menu")).to_be_focused()


def test_a_narrow_sidebar_stays_narrow_and_keeps_its_names(users: Page) -> None:
    sidebar = users.get_by_role("navigation", name="Main")
    toggle = button(users, "Sidebar with labels")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    toggle.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "false")

    users.reload()

    assert sidebar.bounding_box()["width"] < 96
    expect(toggle).to_have_attribute("aria-expanded", "false")
    expect(sidebar.get_by_role("link", name="Credits Management")).to_be_visible()
    toggle.press("Enter")
    users.reload()
    assert sidebar.bounding_box()["width"] > 200


def test_a_chosen_theme_persists(users: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = users.evaluate(ground)
    button(users, "Switch light or dark theme").press("Enter")
    dark = users.evaluate(ground)
    assert light != dark

    users.reload()
    assert users.evaluate(ground) == dark
    users.goto("/me/settings/")
    assert users.evaluate(ground) == dark


def test_nothing_is_animated_for_who_prefers_reduced_motion(sign_in: SignIn, manager: User, people: list[User]) -> None:
    page = sign_in(manager, reduced_motion="reduce")
    button(page, "Edit jun").click()
    expect(dialog(page, "Edit User")).to_be_visible()
    assert page.evaluate(RUNNING_ANIMATIONS) == []
    button(page, "Submit").click()
    expect(page.locator("#toasts")).to_contain_text("jun saved.")
    assert page.evaluate(RUNNING_ANIMATIONS) == []


def test_escape_hides_a_tooltip(users: Page) -> None:
    shown = "getComputedStyle(document.activeElement, '::after').content"
    tab_to(users, "Edit jun")
    assert "Edit" in users.evaluate(shown)
    users.keyboard.press("Escape")

    assert "Edit" not in users.evaluate(shown)
    expect(button(users, "Edit jun")).to_be_focused()
