"""Exports and statements in a real browser: with and without JavaScript, interrupted, and printed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Download, Page, Route, expect

from accounts.models import User
from tests.browser.conftest import SignIn
from tests.browser.pages import button
from tests.factories import charge

pytestmark = pytest.mark.browser


def lines_of(download: Download) -> list[list[str]]:
    written = Path(download.path()).read_text(encoding="utf-8")
    return list(csv.reader(io.StringIO(written, newline="")))


def status(page: Page) -> Any:
    return page.locator("#export-status")


@pytest.fixture
def spent(manager: User, member: User) -> None:
    for cost in (1, 2, 0.5):
        charge(member, cost_usd=cost)


def test_an_export_is_saved_and_announced(sign_in: SignIn, manager: User, spent: None) -> None:
    page = sign_in(manager, "/console/usage/")

    with page.expect_download() as downloading:
        page.get_by_role("link", name="Export CSV").click()

    expect(status(page)).to_have_text("Exported. The file is in your downloads.")
    assert downloading.value.suggested_filename.startswith("halcyon-labs-usage-")
    heads, *rows, last = lines_of(downloading.value)
    assert [row[heads.index("Cost (USD)")] for row in [*rows, last]] == ["0.50", "2.00", "1.00", "3.50"]
    button(page, "Close").click()
    expect(page.get_by_role("region", name="Export")).to_be_hidden()


def test_the_file_follows_the_filter(sign_in: SignIn, manager: User, spent: None) -> None:
    page = sign_in(manager, "/console/usage/")
    page.get_by_label("Type").select_option("error")
    expect(page.get_by_text("No request matches these filters")).to_be_visible()

    page.locator("summary", has_text="Other forms of the export").click()
    with page.expect_download() as downloading:
        page.get_by_role("link", name="CSV for Excel").click()

    assert [line[0] for line in lines_of(downloading.value)] == ["\ufeffTime (UTC)", "Total"]


def test_an_export_shows_its_progress_and_can_be_cancelled(sign_in: SignIn, manager: User, spent: None) -> None:
    page = sign_in(manager, "/console/usage/")
    waiting: list[Route] = []
    page.route("**/usage.csv*", lambda route: waiting.append(route))  # noqa: PLW0108  # a builtin method is refused

    page.get_by_role("link", name="Export CSV").click()
    expect(page.get_by_role("progressbar", name="Rows so far: 0 of 3")).to_be_visible()
    button(page, "Cancel").click()

    expect(status(page)).to_have_text("Cancelled. Nothing was saved.")
    expect(button(page, "Close")).to_be_focused()
    assert len(waiting) == 1


def test_an_interrupted_export_is_not_saved(sign_in: SignIn, manager: User, spent: None) -> None:
    page = sign_in(manager, "/console/usage/")
    page.route("**/usage.csv*", lambda route: route.fulfill(body="Time\r\n2026\r\n", content_type="text/csv"))
    saved: list[Download] = []
    page.on("download", lambda download: saved.append(download))  # noqa: PLW0108

    page.get_by_role("link", name="Export CSV").click()

    expect(status(page)).to_have_text("The export broke off, and nothing was saved. Try again.")
    assert saved == []


def test_without_javascript_the_link_downloads_the_file(sign_in: SignIn, manager: User, spent: None) -> None:
    page = sign_in(manager, "/me/credits/", java_script_enabled=False)

    with page.expect_download() as downloading:
        page.get_by_role("link", name="Export CSV").click()

    heads, *_rows, last = lines_of(downloading.value)
    assert downloading.value.suggested_filename == "halcyon-labs-credits.csv"
    assert last[heads.index("Amount (USD)")] == "495.00"


def test_the_journal_is_filtered_in_place(sign_in: SignIn, manager: User, spent: None) -> None:
    page = sign_in(manager, "/me/credits/")

    page.get_by_label("Change", exact=True).select_option("allocate")

    expect(page.get_by_role("table", name="History").get_by_role("row")).to_have_count(2)
    expect(page.locator("#journal-count")).to_have_text("1 change")
    assert page.url.endswith("/me/credits/?kind=allocate")


def test_a_statement_is_printed_without_the_sidebar(sign_in: SignIn, manager: User, spent: None) -> None:
    page = sign_in(manager, "/me/credits/")
    page.get_by_role("link", name="Monthly statement").click()
    expect(page.get_by_role("heading", name="Monthly statement")).to_be_visible()

    page.set_viewport_size({"width": 690, "height": 1000})
    page.emulate_media(media="print")

    for part in (".sidebar", ".topbar", ".toolbar", ".skip"):
        expect(page.locator(part).first).to_be_hidden()
    expect(page.get_by_role("table", name="Balance")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
