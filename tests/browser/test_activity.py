"""The trail in a browser: filters swap it in place, pages turn, details open."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from accounts.models import User
from tests.browser.conftest import SignIn

pytestmark = pytest.mark.browser


def test_a_manager_reads_who_did_what(sign_in: SignIn, manager: User, member: User, admin_member: User) -> None:
    page = sign_in(manager, "/space/users/")
    page.get_by_role("link", name="Activity").click()
    table = page.get_by_role("table", name="Activity")
    row = table.get_by_role("row").filter(has_text="changed the remaining quota of jun from $0.00 to $5.00")
    expect(row).to_be_visible()

    row.locator("summary").click()
    expect(page.get_by_text("Request ID", exact=True).first).to_be_visible()

    page.get_by_label("Kind").select_option("quota")
    expect(table).not_to_contain_text("added")
    person = page.get_by_role("combobox", name="Person", exact=True)
    person.fill("amara")
    person.press("Enter")
    expect(table).not_to_contain_text("jun")
    expect(page).to_have_url(re.compile(r"\?user=amara&kind=quota$"))
    page.go_back()
    expect(table).to_contain_text("jun")


def test_a_member_finds_their_own_activity(sign_in: SignIn, member: User, admin_member: User) -> None:
    page = sign_in(member, "/me/settings/")
    expect(page.get_by_role("link", name="Activity", exact=True)).to_have_count(0)

    page.get_by_role("link", name="See your activity").click()

    table = page.get_by_role("table", name="Activity")
    expect(table).to_contain_text("jun signed in")
    expect(table).not_to_contain_text("amara")
