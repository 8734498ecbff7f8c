"""Locators and actions for User Management."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect


def row(page: Page, username: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("button", name=f"Edit {username}", exact=True))


def usernames(page: Page) -> list[str]:
    labels = page.get_by_role("button", name="Edit ").evaluate_all("all => all.map(one => one.ariaLabel)")
    return [label.removeprefix("Edit ") for label in labels]


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def dialog(page: Page, name: str) -> Locator:
    return page.get_by_role("dialog", name=name, exact=True)


def open_dialog(page: Page, opener: str, name: str) -> Locator:
    button(page, opener).click()
    opened = dialog(page, name)
    expect(opened).to_be_visible()
    return opened


def toast(page: Page) -> Locator:
    return page.locator("#toasts")


def pool_figure(page: Page, term: str) -> Locator:
    pool = page.get_by_role("region", name="Quota pool")
    return pool.locator("dl > div").filter(has=page.get_by_role("term").filter(has_text=term)).get_by_role("definition")


def posts(page: Page) -> list[str]:
    """A list to which the path of each later POST request is added."""
    seen: list[str] = []

    def note(method: str, url: str) -> None:
        if method == "POST":
            seen.append("/" + url.split("/", 3)[3])

    page.on("request", lambda request: note(request.method, request.url))
    return seen
