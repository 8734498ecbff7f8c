"""Every page and every open dialog, in both themes, on a desk and on a phone, from left and from right: axe finds
nothing, nothing is cut off or scrolls sideways, and a finger hits every control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.resources import files
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect
from pytest_django import Settings

from accounts.keys import KeyTerms, create_key, set_key_enabled
from accounts.models import ApiKey, User
from audit.services import record_refusal
from core.ids import new_id
from core.money import NANOS_PER_USD as USD
from core.origin import acting
from quotas.charging import Call, hold, release, settle
from quotas.services import set_remaining
from tenants.models import Space
from tests import pseudo
from tests.authenticator import code_of
from tests.browser.conftest import DESK, give_session
from tests.browser.pages import button, dialog, open_dialog
from tests.factories import PASSWORD, MemberFactory, SpaceFactory, charge, manager_of
from tests.usage.videos import fail as fail_task
from tests.usage.videos import submit, succeed, take

pytestmark = pytest.mark.browser

PHONE: ViewportSize = {"width": 390, "height": 844}
NARROW: ViewportSize = {"width": 320, "height": 700}
FINGER_PX = 44

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]
COLOURS = ["color-contrast", "link-in-text-block"]
# Which way a page is read changes no colour, and contrast is what takes axe long.
FROM_LEFT = {"runOnly": {"type": "tag", "values": TAGS}}
FROM_RIGHT = FROM_LEFT | {"rules": {name: {"enabled": False} for name in COLOURS}}
IN_THE_DARK = {"runOnly": {"type": "rule", "values": COLOURS}}
FIND = """
    async (options) => {
      const { violations } = await axe.run({ ...options, resultTypes: ["violations"] });
      return violations.flatMap(({ id, nodes }) => nodes.map(({ html, any }) =>
        `${id}: ${html.slice(0, 120)} ${any[0]?.message ?? ""}`));
    }
"""

# Links within text count by their line, and what is drawn small may be larger to a finger by its ::after.
SMALL = """
    (least) => {
      const place = document.querySelector("dialog[open]") ?? document;
      const size = (one) => {
        const box = one.getBoundingClientRect();
        const more = getComputedStyle(one, "::after");
        const isLarger = more.content !== "none" && more.position === "absolute";
        const [width, height] = isLarger ? [parseFloat(more.width), parseFloat(more.height)] : [0, 0];
        return [Math.max(box.width, width), Math.max(box.height, height)];
      };
      const isThere = (one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest(".sr, .skip")
        && getComputedStyle(one).display !== "inline";
      return [...place.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary")]
        .filter(isThere)
        .map((one) => [one, size(one)])
        .filter(([, sides]) => Math.min(...sides) < least - 0.5)
        .map(([one, sides]) => `${sides.map(Math.round).join("x")}px: ${one.outerHTML.slice(0, 120)}`);
    }
"""


# A table that stands over the edge of its frame scrolls nowhere.
OVER_THE_EDGE = """
    () => [...document.querySelectorAll(".table-wrap > .table")]
      .filter((table) => table.offsetWidth > table.parentElement.clientWidth + 1
        && getComputedStyle(table.parentElement).overflowX === "visible")
      .map((table) => `${table.offsetWidth}px of table in ${table.parentElement.clientWidth}px`)
"""


# What sticks out, the innermost of it.
WIDEST = """
    () => [...document.querySelectorAll("body *")]
      .filter((one) => {
        const box = one.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < -1) && !one.closest(".sr, .sidebar");
      })
      .slice(-3).map((one) => one.outerHTML.slice(0, 100)).join(" | ")
"""


class Reader:
    """Looks at what is shown, and keeps what is wrong with it; the test goes on to the next page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.found: dict[str, list[str]] = {}

    def look(self, what: str) -> None:
        page = self.page
        page.evaluate("document.fonts.ready.then(() => true)")
        page.evaluate(AXE)
        if page.evaluate("document.dir") == "ltr":
            self._note(what, page.evaluate(FIND, FROM_LEFT))
            page.emulate_media(color_scheme="dark")
            self._note(f"{what}, dark", page.evaluate(FIND, IN_THE_DARK))
            page.emulate_media(color_scheme="light")
        else:
            self._note(what, page.evaluate(FIND, FROM_RIGHT))
        self.measure(what)

    def measure(self, what: str) -> None:
        """Whether all of it fits, and is large enough for a finger."""
        page = self.page
        page.evaluate("document.fonts.ready.then(() => true)")
        self._overflow(what)
        if page.viewport_size == PHONE:
            self._note(what, page.evaluate(SMALL, FINGER_PX))
            page.set_viewport_size(NARROW)
            self._overflow(f"{what}, 320 wide")
            page.set_viewport_size(PHONE)

    def _overflow(self, what: str) -> None:
        width, room = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        if width > room:
            self._note(what, [f"{width}px of content in {room}px: {self.page.evaluate(WIDEST)}"])
        self._note(what, self.page.evaluate(OVER_THE_EDGE))

    def _note(self, what: str, found: list[str]) -> None:
        for text in found:
            self.found.setdefault(text, []).append(what)


@pytest.fixture(params=["desk", "phone"])
def screen(request: pytest.FixtureRequest) -> dict[str, object]:
    return {"viewport": DESK} if request.param == "desk" else {"viewport": PHONE, "has_touch": True}


@pytest.fixture(params=["ltr", "rtl"])
def direction(request: pytest.FixtureRequest, settings: Settings) -> str:
    if request.param == "rtl":
        # Our words are found by their names, so English is read from the right for once.
        settings.LANGUAGES_BIDI = ["en"]
    return str(request.param)


@pytest.fixture
def reader(new_context: Callable[..., BrowserContext], screen: dict[str, object], direction: str) -> Iterator[Reader]:
    context = new_context(reduced_motion="reduce", **screen)
    reader = Reader(context.new_page())
    yield reader
    if reader.found:
        pytest.fail("\n".join(f"{text}\n    {'; '.join(places)}" for text, places in reader.found.items()))


@contextmanager
def signed_in(reader: Reader, user: User, base_url: str) -> Iterator[Page]:
    give_session(reader.page.context, user, base_url)
    yield reader.page
    reader.page.context.clear_cookies()


@pytest.fixture
def colleagues(space: Space, people: list[User]) -> None:
    """Every look a row can have: low, used up, not assigned, disabled, long names; and a second page."""
    charge(people[1], cost_usd=4.5)
    charge(people[2], cost_usd=10)
    set_remaining(member=people[2], remaining_nanos=0, actor=manager_of(space))
    User.objects.filter(username="kai").update(is_active=False)
    MemberFactory(space=space, username="w" * 64, display_name="Maximiliane " * 6, usd=100)
    for _ in range(7):
        MemberFactory(space=space, usd=1)


@pytest.fixture
def spending(manager: User, member: User) -> None:
    """Keys in every state, and requests of two people: charged, estimated, short and failed."""
    key = made_key(manager, "laptop")
    for terms in (
        KeyTerms(name="w" * 80, limit_nanos=1_234_567 * USD, models=tuple(f"{'m' * 90}{n}" for n in range(9))),
        KeyTerms(name="hackathon", expires_at=timezone.now() - timedelta(days=1), ips=("10.0.0.0/8",)),
    ):
        create_key(owner=manager, terms=terms)
    used_up = made_key(manager, "exhausted", limit_nanos=USD)
    set_key_enabled(key=made_key(manager, "off"), is_enabled=False, actor=manager)
    spend(manager, key, cost_usd=2, held_usd=3)
    spend(manager, used_up, cost_usd=1, held_usd=1, is_estimated=True)
    fail(member)
    spend(member, made_key(member, "ci"), cost_usd=900, held_usd=1)


@pytest.fixture
def filmed(manager: User, member: User) -> None:
    """Tasks in every state, with long names."""
    submit(manager, model="w" * 100, key="k" * 80)
    take(submit(member), platform="p" * 100, progress=7)
    succeed(take(submit(manager)), after=timedelta(hours=99))
    fail_task(take(submit(member)), "c" * 40)


def made_key(owner: User, name: str, limit_nanos: int | None = None) -> ApiKey:
    return create_key(owner=owner, terms=KeyTerms(name=name, limit_nanos=limit_nanos))[0]


def spend(user: User, key: ApiKey, *, cost_usd: int, held_usd: int, **more: Any) -> None:
    request_id = new_id()
    call = Call(
        model="gemini-2.5-flash-preview-with-a-long-name",
        key_id=key.pk,
        key_name=key.name,
        input_tokens=999_999_999,
        cached_tokens=1234,
        output_tokens=1,
        price={"input": 12_345, "cached_input": 1, "output": 987_654_321},
        duration_ms=123_456,
        first_token_ms=99,
        **more,
    )
    hold(request_id=request_id, user=user, amount_nanos=held_usd * USD, call=call)
    settle(space_id=key.space_id, request_id=request_id, cost_nanos=cost_usd * USD, call=call)


def fail(user: User) -> None:
    request_id, call = new_id(), Call(model="claude-sonnet-4", duration_ms=30_000, status=502, code="upstream_error")
    hold(request_id=request_id, user=user, amount_nanos=1, call=call)
    assert user.space_id is not None
    release(space_id=user.space_id, request_id=request_id, call=call)


def test_every_page_and_dialog_is_fit_for_everybody(
    reader: Reader, direction: str, base_url: str, manager: User, member: User, colleagues: None
) -> None:
    look_at_the_door(reader)
    assert reader.page.locator("html").get_attribute("dir") == direction
    with signed_in(reader, manager, base_url):
        look_at_the_list(reader)
        look_at_adding(reader)
        look_at_editing(reader)
        look_at_deleting(reader)
        look_at_page(reader, "/me/credits/", "Credits Management")
        look_at_page(reader, "/me/credits/?user=nobody", "No change matches these filters", level=2)
        look_at_page(reader, "/me/statement/", "Monthly statement")
        look_at_page(reader, f"/space/users/{member.number}/statement/", "Monthly statement")
        look_at_page(reader, "/nowhere/", "There is nothing here")
    # Fresh: having been disabled for a moment ended every session made from what was known before.
    with signed_in(reader, User.objects.get(pk=member.pk), base_url):
        look_at_page(reader, "/me/credits/", "Credits Management")
        look_at_page(reader, "/space/users/", "You can’t open")
        look_at_settings(reader)
    SpaceFactory(manager_username="alone", grant_usd=0)
    with signed_in(reader, User.objects.get(username="alone"), base_url):
        look_at_page(reader, "/space/users/", "No users yet", level=2)


def test_tokens_and_logs_are_fit_for_everybody(
    reader: Reader, base_url: str, manager: User, member: User, spending: None
) -> None:
    with signed_in(reader, manager, base_url):
        look_at_page(reader, "/console/tokens/", "Token Management")
        look_at_a_new_key(reader)
        look_at_an_old_key(reader)
        look_at_a_members_keys(reader)
        look_at_the_log(reader)
        look_at_the_dashboard(reader)
    with signed_in(reader, member, base_url):
        look_at_the_log(reader)
        look_at_the_dashboard(reader)
        look_at_page(reader, "/console/usage/?token=nobody", "No request matches these filters", level=2)
    SpaceFactory(manager_username="alone", grant_usd=0)
    with signed_in(reader, User.objects.get(username="alone"), base_url):
        look_at_page(reader, "/console/tokens/", "No tokens yet", level=2)
        look_at_page(reader, "/console/usage/", "No requests in the last 7 days", level=2)
        look_at_page(reader, "/console/", "Nothing was spent in this period", level=2)


def test_the_trail_is_fit_for_everybody(
    reader: Reader, base_url: str, manager: User, admin_member: User, member: User
) -> None:
    MemberFactory(space=manager.space, username="w" * 64, display_name="Maximiliane " * 6, usd=100)
    for why in ("wrong_password", "locked"):
        record_refusal("session.signed_in", why=why, space=member.space, actor=None, target=member)
    record_refusal("member.deleted", why="not_allowed", space=member.space, actor=admin_member, target=member)
    with acting(address="2001:db8:1111:2222:3333:4444:5555:6666", request_id="a" * 32):
        set_remaining(member=member, remaining_nanos=7 * USD, actor=manager)
    with signed_in(reader, manager, base_url):
        look_at_page(reader, "/space/audit/", "Activity")
        look_at_the_details(reader)
        look_at_page(reader, "/space/audit/?user=nobody", "Nothing matches these filters", level=2)
    with signed_in(reader, member, base_url):
        look_at_page(reader, "/me/activity/", "Your activity")
        look_at_the_details(reader)


def look_at_the_details(reader: Reader) -> None:
    for opener in reader.page.locator("summary").filter(has_text="Details").all():
        opener.click()
    expect(reader.page.get_by_text("Request ID", exact=True).last).to_be_visible()
    reader.look("activity, opened")


def test_tasks_are_fit_for_everybody(reader: Reader, base_url: str, manager: User, member: User, filmed: None) -> None:
    for user in (manager, member):
        with signed_in(reader, user, base_url):
            look_at_the_tasks(reader)
    SpaceFactory(manager_username="alone", grant_usd=0)
    with signed_in(reader, User.objects.get(username="alone"), base_url):
        look_at_page(reader, "/console/tasks/", "No tasks in the last 7 days", level=2)


PSEUDO_PAGES = ["/console/", "/console/?period=today", "/console/usage/", "/console/usage/?model=none"]
PSEUDO_PAGES += ["/console/tasks/", "/console/tasks/?model=none", "/console/tokens/", "/console/tokens/add/"]
PSEUDO_PAGES += [f"/console/tokens/1/{deed}/" for deed in ("edit", "rotate", "delete")]
PSEUDO_PAGES += ["/space/users/", "/space/users/?q=zed", "/space/users/add/"]
PSEUDO_PAGES += ["/space/users/2/edit/", "/space/users/3/edit/", "/space/users/3/delete/"]
PSEUDO_PAGES += ["/me/credits/", "/me/statement/", "/me/settings/", "/me/activity/", "/space/audit/", "/nowhere/"]
PSEUDO_PAGES += ["/space/users/3/statement/", "/me/two-factor/", "/me/confirm/"]


@pytest.mark.usefixtures("filmed", "spending")
@pytest.mark.parametrize("username", ["mira", "jun"])
def test_long_words_from_the_right_fit_everywhere(
    new_context: Callable[..., BrowserContext], space: Space, screen: dict[str, object], base_url: str, username: str
) -> None:
    """In a language whose words are half as long again as ours, and read from the right."""
    MemberFactory(space=space, username="w" * 64, display_name="Maximiliane " * 6, usd=100)
    context = new_context(reduced_motion="reduce", locale="he", **screen)
    context.add_cookies([{"name": "language", "value": pseudo.CODE, "url": base_url}])
    reader = Reader(context.new_page())
    reader.page.goto("/login/")
    reader.measure("/login/")
    give_session(context, User.objects.get(username=username), base_url)
    for path in PSEUDO_PAGES:
        reader.page.goto(path)
        assert reader.page.locator("html").get_attribute("dir") == "rtl", path
        reader.measure(path)
    assert reader.found == {}


def test_two_factor_sign_in_is_fit_for_everybody(
    reader: Reader, base_url: str, manager: User, member: User, admin_member: User, space: Space
) -> None:
    sign_in_at_the_door(reader, member)
    look_at_page(reader, "/me/two-factor/passkeys/add/", "Add a passkey")
    look_at_page(reader, "/me/confirm/", "Confirm that it is you")
    look_at_page(reader, "/me/two-factor/app/", "Set up an authenticator app")
    sealed = str(reader.page.locator("#app-secret").text_content()).replace(" ", "").strip()
    reader.page.get_by_label("Enter the code that the app shows now").fill(code_of(sealed, steps=-1))
    reader.page.keyboard.press("Enter")
    expect(reader.page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    reader.look("recovery codes")
    look_at_page(reader, "/me/settings/", "Personal Settings")
    look_at_page(reader, "/me/two-factor/app/remove/", "Remove the authenticator app")
    look_at_the_second_step(reader, member)
    with signed_in(reader, User.objects.get(pk=manager.pk), base_url):
        look_at_a_reset(reader)
    Space.objects.filter(pk=space.pk).update(requires_second_factor=True)
    with signed_in(reader, User.objects.get(pk=admin_member.pk), base_url):
        look_at_page(reader, "/me/two-factor/", "Two-factor sign-in")


def sign_in_at_the_door(reader: Reader, user: User) -> None:
    reader.page.context.clear_cookies()
    reader.page.goto("/login/")
    reader.page.get_by_label("Username").fill(user.username)
    reader.page.get_by_label("Password", exact=True).fill(PASSWORD)
    with reader.page.expect_navigation(url=lambda url: not url.endswith("/login/")):
        reader.page.keyboard.press("Enter")


def look_at_the_second_step(reader: Reader, user: User) -> None:
    sign_in_at_the_door(reader, user)
    reader.look("second step")
    for tries in range(5):
        reader.page.get_by_label("Code").fill("000000")
        with reader.page.expect_response("**/login/2fa/") as answer:
            reader.page.keyboard.press("Enter")
        if tries == 0:
            assert answer.value.status == 422
            expect(reader.page.get_by_label("Code")).to_have_attribute("aria-invalid", "true")
            reader.look("second step, wrong")
    expect(reader.page.get_by_role("heading", name="Too many tries")).to_be_visible()
    reader.look("too many tries")


def look_at_a_reset(reader: Reader) -> None:
    look_at_page(reader, "/space/users/", "User Management")
    form = open_dialog(reader.page, "Edit jun", "Edit User")
    reader.look("edit, two-factor on")
    form.get_by_role("link", name="Reset").click()
    expect(dialog(reader.page, "Reset two-factor sign-in")).to_be_visible()
    reader.look("reset two-factor sign-in")


def look_at_page(reader: Reader, path: str, heading: str, *, level: int = 1) -> None:
    reader.page.goto(path)
    expect(reader.page.get_by_role("heading", name=heading, level=level)).to_be_visible()
    reader.look(f"{path} ({heading})")


def look_at_the_door(reader: Reader) -> None:
    page = reader.page
    look_at_page(reader, "/login/", "Sign in")
    page.get_by_label("Username").fill("mira")
    page.get_by_label("Password").fill("not " + PASSWORD)
    button(page, "Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    reader.look("sign-in, wrong")


def look_at_the_list(reader: Reader) -> None:
    page = reader.page
    look_at_page(reader, "/space/users/?q=zed", "No username matches “zed”", level=2)
    look_at_page(reader, "/space/users/?page=2", "User Management")
    look_at_page(reader, "/space/users/", "User Management")
    button(page, "Disable jun").click()
    expect(button(page, "Undo")).to_be_visible()
    reader.look("list, toast")
    button(page, "Undo").click()
    expect(button(page, "Disable jun")).to_be_visible()


def look_at_adding(reader: Reader) -> None:
    page = reader.page
    form = open_dialog(page, "Add User", "Add User")
    reader.look("add")
    form.get_by_label("Username").fill("jun")
    form.get_by_role("button", name="Create").click()
    expect(form.get_by_text("Enter a password.")).to_be_visible()
    reader.look("add, wrong")
    form.get_by_label("Username").fill("nadia")
    form.get_by_label("Password").fill("a long password")
    form.get_by_role("button", name="Create").click()
    expect(dialog(page, "nadia is ready")).to_be_visible()
    reader.look("sign-in details")
    button(page, "Done").click()


def look_at_editing(reader: Reader) -> None:
    page = reader.page
    form = open_dialog(page, "Edit jun", "Edit User")
    reader.look("edit")
    form.get_by_label("Password").fill("short")
    form.get_by_label("Remaining Quota (USD)").fill("9000")
    form.get_by_role("button", name="Submit").click()
    expect(form.get_by_text("Use at least 8 characters.")).to_be_visible()
    reader.look("edit, wrong")
    page.keyboard.press("Escape")


def look_at_deleting(reader: Reader) -> None:
    page = reader.page
    form = open_dialog(page, "Delete jun", "Delete User")
    reader.look("delete")
    form.get_by_role("button", name="Delete").click()
    expect(form.get_by_text("That does not match.")).to_be_visible()
    reader.look("delete, wrong")
    page.keyboard.press("Escape")


def look_at_settings(reader: Reader) -> None:
    page = reader.page
    look_at_page(reader, "/me/settings/", "Personal Settings")
    button(page, "Change password").click()
    expect(page.get_by_label("Current password")).to_have_attribute("aria-invalid", "true")
    reader.look("settings, wrong")
    page.get_by_label("Dark", exact=True).check(force=True)
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("#toasts")).to_contain_text("Theme saved.")
    page.get_by_label("System").check(force=True)
    expect(page.locator("html")).not_to_have_attribute("data-theme", "dark")
    page.get_by_label("Search time zones").fill("shang")
    expect(page.get_by_label("Time zone", exact=True)).to_have_value("Asia/Shanghai")


def look_at_a_new_key(reader: Reader) -> None:
    page = reader.page
    form = open_dialog(page, "Add Token", "Add Token")
    reader.look("add token")
    form.get_by_label("Expires", exact=True).select_option("date")
    form.get_by_label("Spending limit (USD)").fill("-1")
    form.get_by_label("Allowed models").fill("gpt 4o")
    form.get_by_label("Allowed IP ranges").fill("10.0.0.1/8")
    form.get_by_role("button", name="Create").click()
    expect(form.get_by_text("Enter a name.")).to_be_visible()
    reader.look("add token, wrong")
    form.get_by_label("Name").fill("nightly")
    form.get_by_label("Expires", exact=True).select_option("1d")
    for label in ("Spending limit (USD)", "Allowed models", "Allowed IP ranges"):
        form.get_by_label(label).fill("")
    form.get_by_role("button", name="Create").click()
    shown = dialog(page, "Copy your new key")
    expect(shown).to_be_visible()
    reader.look("new key")
    shown.get_by_text("Try it with curl").click()
    expect(button(page, "Copy command")).to_be_visible()
    reader.look("new key, curl")
    button(page, "I have saved it").click()


def look_at_an_old_key(reader: Reader) -> None:
    page = reader.page
    open_dialog(page, "Edit hackathon", "Edit Token")
    reader.look("edit token")
    page.keyboard.press("Escape")
    open_dialog(page, "Rotate laptop", "Rotate Token")
    reader.look("rotate token")
    page.keyboard.press("Escape")
    open_dialog(page, "Delete laptop", "Delete Token")
    reader.look("delete token")
    page.keyboard.press("Escape")
    button(page, "Disable laptop").click()
    expect(button(page, "Undo")).to_be_visible()
    reader.look("tokens, toast")


def look_at_a_members_keys(reader: Reader) -> None:
    page = reader.page
    page.goto("/space/users/")
    form = open_dialog(page, "Edit jun", "Edit User")
    form.get_by_label("Revoke ci", exact=True).click()
    form.get_by_role("button", name="Revoke ci for good").scroll_into_view_if_needed()
    reader.look("edit, keys")
    form.get_by_role("button", name="Revoke ci for good").click()
    expect(form.get_by_text("None.")).to_be_visible()
    reader.look("edit, key revoked")
    page.keyboard.press("Escape")


def look_at_the_log(reader: Reader) -> None:
    page = reader.page
    look_at_page(reader, "/console/usage/", "Usage Logs")
    look_at_an_export(reader)
    for opener in page.locator("summary").filter(has_text="How this was charged").all():
        opener.click()
    expect(page.get_by_text("Request ID", exact=True).last).to_be_visible()
    reader.look("usage log, opened")


def look_at_an_export(reader: Reader) -> None:
    page = reader.page
    page.locator("summary", has_text="Other forms of the export").click()
    expect(page.get_by_role("link", name="CSV for Excel")).to_be_visible()
    reader.look("usage log, export menu")
    with page.expect_download():
        page.get_by_role("link", name="CSV for Excel").click()
    expect(button(page, "Close")).to_be_visible()
    reader.look("usage log, exported")


def look_at_the_tasks(reader: Reader) -> None:
    page = reader.page
    look_at_page(reader, "/console/tasks/", "Task Logs")
    for opener in page.locator("summary").filter(has_text="Details").all():
        opener.click()
    expect(page.get_by_text("Request ID", exact=True).last).to_be_visible()
    reader.look("task log, opened")


def look_at_the_dashboard(reader: Reader) -> None:
    page = reader.page
    look_at_page(reader, "/console/", "Dashboard")
    why = page.get_by_role("button", name="How this is calculated")
    why.click()
    expect(page.get_by_text("the average of the last 7 days")).to_be_visible()
    reader.look("dashboard, runway")
    page.keyboard.press("Escape")
    expect(why).to_be_focused()
    for opener in page.locator("summary").filter(has_text="Show as a table").all():
        opener.click()
    expect(page.get_by_role("columnheader", name="Spend").last).to_be_visible()
    reader.look("dashboard, tables")
