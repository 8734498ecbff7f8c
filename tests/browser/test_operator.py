"""Operators in Django admin: spaces, their managers, and the money that spaces are given."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from core.money import NANOS_PER_USD
from quotas.models import Transfer, Wallet
from relay.models import Model, Upstream
from tenants.models import Space
from tests.browser.conftest import SignIn
from tests.browser.pages import button, pool_figure
from tests.factories import PASSWORD

pytestmark = pytest.mark.browser


@pytest.fixture
def operators(sign_in: SignIn, operator: User) -> Page:
    return sign_in(operator, "/admin/")


def move(page: Page, *, what: str, amount: str, reason: str) -> None:
    page.get_by_label(what, exact=True).check()
    page.get_by_label("Amount (USD)").fill(amount)
    page.get_by_label("Reason").fill(reason)
    button(page, "Submit").click()


def sign_in_by_form(page: Page, username: str, password: str) -> None:
    page.goto("/login/")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    button(page, "Sign in").click()


def test_an_operator_signs_in_on_the_same_page_as_everybody(page: Page, operator: User) -> None:
    sign_in_by_form(page, "operator", PASSWORD)

    page.wait_for_url("**/admin/")
    expect(page.get_by_role("heading", name="Operations")).to_be_visible()
    page.goto("/space/users/")
    expect(page.get_by_role("heading", name="You can’t open")).to_be_visible()


def test_a_space_its_manager_and_the_first_grant_are_one_form(operators: Page, page: Page) -> None:
    operators.get_by_role("main").get_by_role("link", name="Spaces", exact=True).click()
    operators.get_by_role("link", name="Add space").click()
    operators.get_by_label("Name:", exact=True).fill("Northwind")
    operators.get_by_label("Manager's username").fill("nora")
    operators.get_by_label("Manager's display name").fill("Nora Lind")
    operators.get_by_label("Manager's password").fill("long enough")
    operators.get_by_label("First grant (USD)").fill("250.00")
    operators.get_by_role("button", name="Save", exact=True).click()

    made = operators.get_by_role("row").filter(has_text="Northwind")
    for text in ("nora", "$250.00", "Active"):
        expect(made).to_contain_text(text)
    sign_in_by_form(page, "nora", "long enough")
    page.wait_for_url("**/console/")
    page.goto("/space/users/")
    expect(pool_figure(page, "Total")).to_have_text("$250.00")


def test_errors_of_a_new_space_are_shown_beside_their_fields(operators: Page, manager: User) -> None:
    operators.goto("/admin/tenants/space/add/")
    operators.get_by_label("Name:", exact=True).fill("Northwind")
    operators.get_by_label("Manager's username").fill("MIRA")
    operators.get_by_label("Manager's password").fill("short")
    operators.get_by_label("First grant (USD)").fill("-5")
    operators.get_by_role("button", name="Save", exact=True).click()

    for text in ("This username is not available.", "Use at least 8 characters.", "Enter an amount of $0.00 or more."):
        expect(operators.get_by_text(text)).to_be_visible()
    assert Space.objects.count() == 1


def test_grant_and_take_back_with_a_reason(operators: Page, space: Space, member: User) -> None:
    operators.goto(f"/admin/tenants/space/{space.pk}/change/")
    operators.get_by_role("link", name="Grant or take back").click()
    expect(operators.get_by_text("Total $500.00, of which $495.00 is available")).to_be_visible()
    move(operators, what="Grant", amount="100.50", reason="Top-up for May")
    expect(operators.get_by_text("Done. $600.50 in total now.")).to_be_visible()

    operators.get_by_role("link", name="Grant or take back").click()
    move(operators, what="Take back", amount="0.50", reason="Typo")
    expect(operators.get_by_text("Done. $600.00 in total now.")).to_be_visible()

    moves = Transfer.objects.filter(space=space, kind__in=["grant", "revoke"]).order_by("id")[1:]
    assert [(one.kind, one.amount, one.reason) for one in moves] == [
        ("grant", 100_500_000_000, "Top-up for May"),
        ("revoke", 500_000_000, "Typo"),
    ]


@pytest.mark.parametrize(
    ("what", "amount", "told"),
    [
        ("Take back", "495.01", "Only $495.00 is available in this space."),
        ("Grant", "999999999", "At most $999,999,500.00 more fits into this pool."),
        ("Grant", "0", "Enter more than $0.00."),
        ("Grant", "ten", "Enter an amount in dollars, like 12.50, in the digits 0-9."),
    ],
)
def test_an_amount_above_the_limit_is_answered_with_the_limit_and_moves_nothing(
    operators: Page, space: Space, member: User, what: str, amount: str, told: str
) -> None:
    operators.goto(f"/admin/tenants/space/{space.pk}/move/")
    move(operators, what=what, amount=amount, reason="Why not")

    expect(operators.get_by_text(told)).to_be_visible()
    expect(operators.get_by_label("Amount (USD)")).to_have_value(amount)
    expect(operators.get_by_label("Reason")).to_have_value("Why not")
    assert Wallet.objects.get(space=space, kind="pool").total == 500 * NANOS_PER_USD


def test_nobody_signs_in_to_a_suspended_space_until_it_is_resumed(operators: Page, page: Page, space: Space) -> None:
    sign_in_by_form(page, "mira", PASSWORD)
    page.wait_for_url("**/console/")
    operators.goto(f"/admin/tenants/space/{space.pk}/change/")
    button(operators, "Suspend space").click()
    expect(operators.get_by_text("Suspended: nobody in this space can sign in or spend.")).to_be_visible()

    page.reload()
    expect(button(page, "Sign in")).to_be_visible()
    sign_in_by_form(page, "mira", PASSWORD)
    expect(page.get_by_role("alert")).to_be_visible()

    button(operators, "Resume space").click()
    expect(operators.get_by_text("Resumed.")).to_be_visible()
    page.goto("/space/users/")
    expect(pool_figure(page, "Total")).to_have_text("$500.00")


def test_people_of_a_space_do_not_get_into_the_operators_pages(sign_in: SignIn, manager: User) -> None:
    page = sign_in(manager, "/admin/")

    expect(page.get_by_role("heading", name="You can’t open")).to_be_visible()


def test_journal_holds_and_usage_are_there_to_read(operators: Page, member: User, charged: None) -> None:
    for name in ("Transfers", "Holds", "Usage records"):
        operators.goto("/admin/")
        operators.get_by_role("main").get_by_role("link", name=name, exact=True).click()
        expect(operators.get_by_role("heading", level=1)).to_be_visible()
        expect(operators.get_by_role("main").get_by_role("link", name="Add ")).to_have_count(0)


def test_limits_of_a_model_are_shown_whole_on_a_phone(sign_in: SignIn, operator: User) -> None:
    page = sign_in(operator, "/admin/relay/model/add/", viewport={"width": 390, "height": 800})

    for name in ("Max output tokens", "Context tokens"):
        assert page.get_by_label(name).evaluate("one => one.scrollWidth <= one.clientWidth")


def test_no_column_of_the_list_of_upstreams_is_cut(sign_in: SignIn, operator: User) -> None:
    upstream = Upstream.objects.create(
        name="east-coast-primary", kind="azure-v1", base_url="https://generativelanguage.googleapis.com/v1beta/openai"
    )
    upstream.models.set([Model.objects.create(name=f"text-embedding-{size}-large") for size in range(6)])

    page = sign_in(operator, "/admin/relay/upstream/")

    assert page.locator(".results").evaluate("one => one.scrollWidth <= one.clientWidth")
