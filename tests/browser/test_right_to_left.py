"""In a right-to-left layout, figures still run left-to-right."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Locator
from pytest_django import Settings

from accounts.models import User
from core.origin import acting
from tests.browser.conftest import SignIn
from tests.factories import charge

pytestmark = pytest.mark.browser

LEFT_EDGES_OF_CHARACTERS = """
    (one) => {
      const text = document.createTreeWalker(one, NodeFilter.SHOW_TEXT).nextNode();
      const letter = document.createRange();
      return [...text.data].map((_, at) => {
        letter.setStart(text, at);
        letter.setEnd(text, at + 1);
        return letter.getBoundingClientRect().left;
      });
    }
"""


def test_the_sign_of_a_figure_is_left_of_it(sign_in: SignIn, manager: User, member: User, settings: Settings) -> None:
    settings.LANGUAGES_BIDI = ["en"]
    with acting(moment=timezone.now() - timedelta(days=8)):
        charge(member, cost_usd=1)
    charge(member, cost_usd=1.5)

    page = sign_in(member, "/me/statement/")
    assert page.locator("html").get_attribute("dir") == "rtl"
    expect_left_to_right(page.locator(".steps").get_by_text("−$"), "−$")
    page.goto("/console/")
    expect_left_to_right(page.locator("small b"), "+50.0%")
    page = sign_in(manager, "/me/statement/")
    expect_left_to_right(page.locator(".table--statement").get_by_text("−$"), "−$")


def expect_left_to_right(place: Locator, begin: str) -> None:
    assert place.first.inner_text().startswith(begin)
    lefts = place.first.evaluate(LEFT_EDGES_OF_CHARACTERS)
    assert lefts == sorted(lefts)
