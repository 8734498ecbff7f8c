"""The bytes that a page transfers. The test server does not compress responses, so the tests compress them."""

from __future__ import annotations

import gzip

import pytest
from playwright.sync_api import Page, Response, expect

from accounts.models import User
from tests.browser.conftest import SignIn
from tests.browser.pages import dialog, open_dialog, row

pytestmark = pytest.mark.browser

MAX_FIRST_VISIT_BYTES = 120_000
MAX_EXCHANGE_BYTES = 15_000


def weight(response: Response) -> int:
    body = response.body()
    # Fonts are compressed already, so gzip would make them larger.
    return response.request.sizes()["responseHeadersSize"] + min(len(body), len(gzip.compress(body)))


@pytest.fixture
def page_of_ten(sign_in: SignIn, manager: User, crowd: list[User]) -> Page:
    return sign_in(manager)


def test_a_first_visit_transfers_at_most_120_kb(sign_in: SignIn, manager: User, crowd: list[User]) -> None:
    page = sign_in(manager, "/healthz")
    seen: list[Response] = []
    page.on("response", lambda response: seen.append(response))  # noqa: PLW0108  # a builtin method is refused

    page.goto("/space/users/", wait_until="networkidle")
    page.evaluate("document.fonts.ready.then(() => true)")

    weights = {response.url.rpartition("/static/")[2]: weight(response) for response in seen}
    heaviest = sorted(weights.items(), key=lambda item: -item[1])
    assert len(seen) == len(weights) > 20
    assert sum(weights.values()) <= MAX_FIRST_VISIT_BYTES, heaviest
    assert {response.url.split("/")[2] for response in seen} == {page.url.split("/")[2]}


def test_an_htmx_exchange_transfers_at_most_15_kb(page_of_ten: Page) -> None:
    page = page_of_ten
    with page.expect_response("**/5/edit/") as opening:
        form = open_dialog(page, "Edit u03", "Edit User")
    form.get_by_label("Display Name").fill("Changed")
    with page.expect_response("**/5/edit/") as saving:
        form.get_by_role("button", name="Submit").click()
    expect(dialog(page, "Edit User")).to_have_count(0)
    expect(row(page, "u03")).to_contain_text("Changed")
    with page.expect_response("**/space/users/?*") as searching:
        page.get_by_label("Search by Username").fill("u0")
    expect(page.get_by_role("row")).to_have_count(11)

    weights = {response.url: weight(response) for response in (opening.value, saving.value, searching.value)}
    assert max(weights.values()) <= MAX_EXCHANGE_BYTES, weights
