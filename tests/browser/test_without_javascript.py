"""Everything works as plain pages, too."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from quotas.models import Wallet
from quotas.money import NANOS_PER_USD
from tests.browser.conftest import SignIn
from tests.browser.pages import button, row, toast, usernames
from tests.factories import PASSWORD

pytestmark = pytest.mark.browser


@pytest.fixture
def users(sign_in: SignIn, manager: User, people: list[User]) -> Page:
    return sign_in(manager, java_script_enabled=False)


def names(page: Page) -> list[str]:
    """As `usernames` of pages.py, without a script in the page."""
    return [row.get_by_role("cell").nth(1).locator("bdi").first.inner_text() for row in body_rows(page)]


def body_rows(page: Page):
    return page.get_by_role("row").all()[1:]


def test_sign_in_and_out(page: Page) -> None:
    pass
