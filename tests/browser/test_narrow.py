"""Small and magnified screens: nothing is cut off or out of reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from playwright.sync_api import BrowserContext, ViewportSize, expect

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from core.ids import new_id
from core.money import NANOS_PER_USD as USD
from quotas.charging import Call, hold, release, settle
from tests import pseudo
from tests.browser.conftest import DESK, SignIn, give_session
from tests.browser.pages import button, dialog, open_dialog
from tests.factories import MemberFactory, charge

pytestmark = pytest.mark.browser

NARROW: ViewportSize = {"width": 320, "height": 700}
TABLET: ViewportSize = {"width": 834, "height": 1112}
# A desktop screen of 1280 × 800 at 200 % zoom.
MAGNIFIED: dict[str, Any] = {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2}

IS_CUT_OFF = "one => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1"
FIND_SCROLLING_TABLES = """
    () => [...document.querySelectorAll(".table-scroll")]
      .filter((one) => one.scrollWidth > one.clientWidth).map((one) => `${one.scrollWidth} in ${one.clientWidth}`)
"""
ENDS_AT_ITS_EDGE = """
    (one) => {
      const words = document.createRange();
      words.selectNodeContents(one);
      return Math.abs(words.getBoundingClientRect().right - one.getBoundingClientRect().right) < 2;
    }
"""
COUNT_LINES = """
    (one) => {
      const words = document.createRange();
      words.selectNodeContents(one);
      return words.getClientRects().length;
    }
"""


@pytest.fixture
def logged_requests(admin_member: User) -> None:
    """A charged request and a refused one, with names and figures of a realistic length."""
    key, _secret = create_key(owner=admin_member, terms=KeyTerms(name="notebook"))
    call = Call(
        model="claude-sonnet-4",
        key_id=key.pk,
        key_name=key.name,
        input_tokens=432_555,
        output_tokens=37_666,
        duration_ms=339_700,
        first_token_ms=659,
    )
    charged, refused = new_id(), new_id()
    for request_id in (charged, refused):
        hold(request_id=request_id, user=admin_member, amount_nanos=USD, call=call)
    settle(space_id=key.space_id, request_id=charged, cost_nanos=3_213_850, call=call)
    failed = msgspec.structs.replace(call, status=400, code="content_policy_violation")
    release(space_id=key.space_id, request_id=refused, call=failed)


def test_a_new_key_is_not_cut_off_on_a_magnified_screen(sign_in: SignIn, member: User) -> None:
    page = sign_in(member, "/console/tokens/", **MAGNIFIED)
    form = open_dialog(page, "Add Token", "Add Token")
    form.get_by_label("Name").fill("ci")
    form.get_by_role("button", name="Create").click()

    secret = dialog(page, "Copy your new key").locator(".secret")
    expect(secret.get_by_role("button", name="Copy")).to_be_focused()
    assert not secret.evaluate(IS_CUT_OFF)
    secret.locator("code").scroll_into_view_if_needed()
    expect(secret.locator("code")).to_be_in_viewport(ratio=1)


def test_names_beside_figures_are_not_wrapped_within_words(sign_in: SignIn, manager: User) -> None:
    MemberFactory(space=manager.space, username="marcus.webb", usd=25)
    page = sign_in(manager, "/me/credits/", viewport=NARROW)

    name = page.locator(".richest").get_by_text("marcus.webb")
    assert name.evaluate(COUNT_LINES) == 1


@pytest.mark.parametrize("width", [320, 390, 700])
@pytest.mark.parametrize("path", ["/console/usage/", "/console/tasks/", "/me/credits/"])
def test_the_other_exports_are_not_cut_off(sign_in: SignIn, manager: User, path: str, width: int) -> None:
    page = sign_in(manager, path, viewport={"width": width, "height": 844})
    page.locator("summary", has_text="Other forms of the export").click()

    box = page.get_by_role("link", name="CSV for Excel").bounding_box()

    assert box and box["x"] >= 0 and box["x"] + box["width"] <= width


def test_every_field_of_a_dialog_can_be_scrolled_to_on_a_magnified_screen(
    sign_in: SignIn, manager: User, people: list[User]
) -> None:
    form = open_dialog(sign_in(manager, **MAGNIFIED), "Edit jun", "Edit User")

    for control in (form.get_by_label("Username"), form.get_by_role("switch"), button(form.page, "Submit")):
        control.scroll_into_view_if_needed()
        expect(control).to_be_in_viewport(ratio=1)


def test_a_narrow_screen_shows_the_title_once(sign_in: SignIn, manager: User) -> None:
    page = sign_in(manager, viewport=NARROW)

    for path, title, in_bar in (
        ("/space/users/", "User Management", "User Management"),
        ("/me/credits/", "Credits Management", "Credits Management"),
        ("/me/statement/", "Monthly statement", "Credits Management"),
        ("/me/two-factor/", "Two-factor sign-in", "Personal Settings"),
    ):
        page.goto(path)
        bar = page.get_by_role("navigation", name="Breadcrumb").get_by_text(in_bar)
        assert not bar.evaluate(IS_CUT_OFF), path
        heading = page.get_by_role("heading", name=title, level=1)
        # A heading that repeats the bar's text is visually hidden to save room, and kept for screen readers.
        assert (heading.bounding_box()["width"] > 1) == (title != in_bar), path


@pytest.mark.parametrize("screen", [DESK, TABLET], ids=["desk", "tablet"])
def test_logs_do_not_scroll_horizontally(
    sign_in: SignIn, manager: User, logged_requests: None, screen: ViewportSize
) -> None:
    page = sign_in(manager, viewport=screen)

    for path in ("/console/usage/", "/space/audit/", "/me/statement/"):
        page.goto(path)
        assert page.evaluate(FIND_SCROLLING_TABLES) == [], path


def test_names_are_aligned_right_and_keys_run_left_to_right_in_a_right_to_left_layout(
    new_context: Callable[..., BrowserContext], base_url: str, manager: User
) -> None:
    charge(manager, cost_usd=1)
    create_key(owner=manager, terms=KeyTerms(name="ci"))
    context = new_context(locale="he")
    context.add_cookies([{"name": "language", "value": pseudo.CODE, "url": base_url}])
    give_session(context, manager, base_url)
    page = context.new_page()
    page.goto("/console/?scope=me")

    assert page.locator(".rank__name").first.evaluate(ENDS_AT_ITS_EDGE)
    page.goto("/console/tokens/")
    assert page.locator("td code").evaluate("one => getComputedStyle(one).direction") == "ltr"
