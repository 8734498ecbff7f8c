"""Task Logs while tasks run: polling updates the rows, and keeps opened details and focus."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from tests.browser.conftest import SignIn
from tests.usage.videos import submit, succeed, take

pytestmark = pytest.mark.browser


def polls(page: Page) -> list[str]:
    """A list to which the URL of each later poll is added."""
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url) if "/running/" in request.url else None)
    return seen


def test_polling_updates_a_running_row_and_keeps_its_details_open(sign_in: SignIn, manager: User, member: User) -> None:
    task = submit(member, seconds=4)
    page = sign_in(manager, "/console/tasks/")
    row = page.get_by_role("row").filter(has_text="jun")
    opener = row.locator("summary")
    opener.click()
    expect(row).to_contain_text("Queued")

    take(task, "studio", progress=40)
    expect(row).to_contain_text("In Progress")
    expect(row).to_contain_text("40%")
    expect(row).to_contain_text("studio")
    expect(opener).to_be_focused()
    expect(page.get_by_text("Held until it ends")).to_be_visible()

    succeed(task)
    expect(row).to_contain_text("Success")
    expect(row).to_contain_text("$0.04")
    expect(page.get_by_text("Released", exact=True)).to_be_visible()
    expect(page.get_by_label("Totals")).to_contain_text("$0.04")
    expect(opener).to_be_focused()
    expect(page.locator("#task-poll[hx-get]")).to_have_count(0)
    assert page.url.endswith("/console/tasks/")


def test_tasks_that_have_ended_are_not_polled(sign_in: SignIn, member: User) -> None:
    succeed(take(submit(member)))
    page = sign_in(member, "/console/tasks/")
    seen = polls(page)

    page.wait_for_timeout(6000)

    assert seen == []


def test_a_failed_poll_shows_no_toast_and_is_retried(
    sign_in: SignIn, member: User, console_messages: list[str]
) -> None:
    task = submit(member)
    page = sign_in(member, "/console/tasks/")
    page.route("**/console/tasks/running/**", lambda route: route.fulfill(status=503), times=1)
    with page.expect_response("**/console/tasks/running/**"):
        take(task)
    expect(page.locator("#toasts .toast")).to_have_count(0)

    expect(page.get_by_role("row").filter(has_text="openai")).to_contain_text("In Progress")
    assert all("503" in text for text in console_messages)
    console_messages.clear()
