"""Accessibility of every page and dialog: axe finds no violation, nothing overflows, touch targets are large enough.

Tried in both themes, on a desktop and on a phone, left-to-right and right-to-left.
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
MIN_TOUCH_TARGET_PX = 44

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]
COLOURS = ["color-contrast", "link-in-text-block"]
# Contrast is axe's slowest rule, has to be tried in each theme, and does not depend on the direction of the text.
RULES = {"runOnly": {"type": "tag", "values": TAGS}, "rules": {name: {"enabled": False} for name in COLOURS}}
RUN_AXE = """
    async (options) => {
      const { violations } = await axe.run({ ...options, resultTypes: ["violations"] });
      return violations.flatMap(({ id, nodes }) => nodes.map(({ html, any }) =>
        `${id}: ${html.slice(0, 120)} ${any[0]?.message ?? ""}`));
    }
"""
# Runs the rules for colours on text whose look is new. Elements look alike if all that decides contrast is equal for
# them and for each of their ancestors: colours, fonts, and the classes that give them. Of those that look alike one is
# examined, and the others only if axe could not decide about that one. Returns the violations, and the looks that axe
# decided about.
RUN_AXE_ON_NEW_LOOKS = """
    async ([rules, seen]) => {
      const STYLES = ["color", "background-color", "background-image", "opacity", "visibility", "filter",
        "mix-blend-mode", "position", "z-index", "font-size", "font-weight", "text-shadow", "text-decoration-line",
        "border-bottom", "box-shadow", "content"];
      const describe = (one, part) => {
        const style = getComputedStyle(one, part);
        return part && style.content === "none" ? "" : STYLES.map((name) => style.getPropertyValue(name)).join();
      };
      const hash = (text) => {
        let [a, b] = [0xdeadbeef, 0x41c6ce57];
        for (let at = 0; at < text.length; at++) {
          a = Math.imul(a ^ text.charCodeAt(at), 2654435761);
          b = Math.imul(b ^ text.charCodeAt(at), 1597334677);
        }
        return `${a} ${b}`;
      };
      const looks = new Map();
      const look = (one) => {
        if (!one) return "";
        if (!looks.has(one)) {
          const parts = [null, "::before", "::after"].map((part) => describe(one, part));
          const isDisabled = one.matches(":disabled, [aria-disabled=true]");
          const own = [one.tagName, one.getAttribute("class"), one.getAttribute("type"), isDisabled, ...parts];
          looks.set(one, hash([look(one.parentElement), ...own].join("|")));
        }
        return looks.get(one);
      };
      const FIELDS = ["hidden", "range", "color", "checkbox", "radio", "image"].map((type) => `[type=${type}]`).join();
      const ownsText = (one) => one.matches(`input:not(${FIELDS}), select, textarea`)
        || [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
      const isExamined = (one) => (ownsText(one) || (one.matches("a[href]") && ownsText(one.parentElement)))
        && one.checkVisibility({ visibilityProperty: true }) && one.getBoundingClientRect().width > 1;
      // axe ignores what a modal dialog covers.
      const place = document.querySelector("dialog:modal") ?? document.body;
      const open = new Map();
      for (const one of [place, ...place.querySelectorAll("*")]) {
        if (isExamined(one) && !seen.includes(look(one))) open.set(look(one), [...(open.get(look(one)) ?? []), one]);
      }
      const found = [];
      const decided = new Set();
      for (const [from, to] of [[0, 1], [1, Infinity]]) {
        // Rows that refresh themselves may have been replaced meanwhile.
        const include = [...open].filter(([key]) => !decided.has(key)).flatMap(([, alike]) => alike.slice(from, to))
          .filter((one) => one.isConnected);
        if (!include.length) continue;
        const options = { runOnly: { type: "rule", values: rules }, resultTypes: ["violations", "passes"],
          elementRef: true, selectors: false };
        const { violations, passes } = await axe.run({ include }, options);
        for (const { nodes } of [...violations, ...passes]) for (const { element } of nodes) decided.add(look(element));
        found.push(...violations.flatMap(({ id, nodes }) => nodes.map(({ html, any }) =>
          `${id}: ${html.slice(0, 120)} ${any[0]?.message ?? ""}`)));
      }
      return [found, [...decided]];
    }
"""

# Touch targets that are too small. Links within text are exempt (WCAG 2.5.8); a positioned ::after enlarges its target.
FIND_SMALL_TARGETS = """
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


# Tables that are wider than a wrapper which does not scroll, so that columns cannot be reached.
FIND_OVERFLOWING_TABLES = """
    () => [...document.querySelectorAll(".table-wrap > .table")]
      .filter((table) => table.offsetWidth > table.parentElement.clientWidth + 1
        && getComputedStyle(table.parentElement).overflowX === "visible")
      .map((table) => `${table.offsetWidth}px of table in ${table.parentElement.clientWidth}px`)
"""


# Elements that extend beyond the viewport, of which the last three are the innermost.
FIND_OVERFLOWING_ELEMENTS = """
    () => [...document.querySelectorAll("body *")]
      .filter((one) => {
        const box = one.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < -1) && !one.closest(".sr, .sidebar");
      })
      .slice(-3).map((one) => one.outerHTML.slice(0, 100)).join(" | ")
"""


class Auditor:
    """Checks the page that is shown and collects violations, so that a test covers many pages before it fails."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.found: dict[str, list[str]] = {}
        # The looks of text that axe has decided about. Colours are part of them, so both themes share the set.
        self.looks: set[str] = set()

    def look(self, what: str) -> None:
        page = self.page
        page.evaluate("document.fonts.ready.then(() => true)")
        if not page.evaluate("'axe' in window"):
            page.evaluate(AXE)
        self._note(what, page.evaluate(RUN_AXE, RULES))
        if page.evaluate("document.dir") == "ltr":
            self._contrast(what)
            page.emulate_media(color_scheme="dark")
            self._contrast(f"{what}, dark")
            page.emulate_media(color_scheme="light")
        self.measure(what)

    def _contrast(self, what: str) -> None:
        found, decided = self.page.evaluate(RUN_AXE_ON_NEW_LOOKS, [COLOURS, list(self.looks)])
        self._note(what, found)
        self.looks.update(decided)

    def measure(self, what: str) -> None:
        """Check for overflow and, on a phone, for small touch targets."""
        page = self.page
        page.evaluate("document.fonts.ready.then(() => true)")
        self._overflow(what)
        if page.viewport_size == PHONE:
            self._note(what, page.evaluate(FIND_SMALL_TARGETS, MIN_TOUCH_TARGET_PX))
            page.set_viewport_size(NARROW)
            self._overflow(f"{what}, 320 wide")
            page.set_viewport_size(PHONE)

    def _overflow(self, what: str) -> None:
        width, room = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        if width > room:
            self._note(what, [f"{width}px of content in {room}px: {self.page.evaluate(FIND_OVERFLOWING_ELEMENTS)}"])
        self._note(what, self.page.evaluate(FIND_OVERFLOWING_TABLES))

    def _note(self, what: str, found: list[str]) -> None:
        for text in found:
            self.found.setdefault(text, []).append(what)


@pytest.fixture(params=["desk", "phone"])
def screen(request: pytest.FixtureRequest) -> dict[str, object]:
    return {"viewport": DESK} if request.param == "desk" else {"viewport": PHONE, "has_touch": True}


@pytest.fixture(params=["ltr", "rtl"])
def direction(request: pytest.FixtureRequest, settings: Settings) -> str:
    if request.param == "rtl":
        # English is laid out right-to-left here, because the tests find controls by their English names.
        settings.LANGUAGES_BIDI = ["en"]
    return str(request.param)


@pytest.fixture
def auditor(new_context: Callable[..., BrowserContext], screen: dict[str, object], direction: str) -> Iterator[Auditor]:
    context = new_context(reduced_motion="reduce", **screen)
    auditor = Auditor(context.new_page())
    yield auditor
    if auditor.found:
        pytest.fail("\n".join(f"{text}\n    {'; '.join(places)}" for text, places in auditor.found.items()))


@contextmanager
def signed_in(auditor: Auditor, user: User, base_url: str) -> Iterator[Page]:
    give_session(auditor.page.context, user, base_url)
    yield auditor.page
    # The task log polls. A poll that is no longer signed in loads the sign-in page, which would abort the next goto.
    auditor.page.goto("about:blank")
    auditor.page.context.clear_cookies()


@pytest.fixture
def colleagues(space: Space, people: list[User]) -> None:
    """Rows in every state: low quota, used up, not assigned, disabled, long names. They fill two pages."""
    charge(people[1], cost_usd=4.5)
    charge(people[2], cost_usd=10)
    set_remaining(member=people[2], remaining_nanos=0, actor=manager_of(space))
    User.objects.filter(username="kai").update(is_active=False)
    MemberFactory(space=space, username="w" * 64, display_name="Maximiliane " * 6, usd=100)
    for _ in range(7):
        MemberFactory(space=space, usd=1)


@pytest.fixture
def spending(manager: User, member: User) -> None:
    """Keys in every state, and requests of two members: charged, estimated, with a shortfall, and failed."""
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


def test_every_page_and_dialog_is_accessible(
    auditor: Auditor, direction: str, base_url: str, manager: User, member: User, colleagues: None
) -> None:
    look_at_sign_in(auditor)
    assert auditor.page.locator("html").get_attribute("dir") == direction
    with signed_in(auditor, manager, base_url):
        look_at_the_list(auditor)
        look_at_adding(auditor)
        look_at_editing(auditor)
        look_at_deleting(auditor)
        look_at_page(auditor, "/me/credits/", "Credits Management")
        look_at_page(auditor, "/me/credits/?user=nobody", "No change matches these filters", level=2)
        look_at_page(auditor, "/me/statement/", "Monthly statement")
        look_at_page(auditor, f"/space/users/{member.number}/statement/", "Monthly statement")
        look_at_page(auditor, "/nowhere/", "There is nothing here")
    # Loaded again: the list above disabled the member, which raised their epoch, and a session made from the old row
    # would be signed out.
    with signed_in(auditor, User.objects.get(pk=member.pk), base_url):
        look_at_page(auditor, "/me/credits/", "Credits Management")
        look_at_page(auditor, "/space/users/", "You can’t open")
        look_at_settings(auditor)
    SpaceFactory(manager_username="alone", grant_usd=0)
    with signed_in(auditor, User.objects.get(username="alone"), base_url):
        look_at_page(auditor, "/space/users/", "No users yet", level=2)


def test_tokens_and_logs_are_accessible(
    auditor: Auditor, base_url: str, manager: User, member: User, spending: None
) -> None:
    with signed_in(auditor, manager, base_url):
        look_at_page(auditor, "/console/tokens/", "Token Management")
        look_at_a_new_key(auditor)
        look_at_an_old_key(auditor)
        look_at_a_members_keys(auditor)
        look_at_the_log(auditor)
        look_at_the_dashboard(auditor)
    with signed_in(auditor, member, base_url):
        look_at_the_log(auditor)
        look_at_the_dashboard(auditor)
        look_at_page(auditor, "/console/usage/?token=nobody", "No request matches these filters", level=2)
    SpaceFactory(manager_username="alone", grant_usd=0)
    with signed_in(auditor, User.objects.get(username="alone"), base_url):
        look_at_page(auditor, "/console/tokens/", "No tokens yet", level=2)
        look_at_page(auditor, "/console/usage/", "No requests in the last 7 days", level=2)
        look_at_page(auditor, "/console/", "Nothing was spent in this period", level=2)


def test_the_trail_is_accessible(
    auditor: Auditor, base_url: str, manager: User, admin_member: User, member: User
) -> None:
    MemberFactory(space=manager.space, username="w" * 64, display_name="Maximiliane " * 6, usd=100)
    for why in ("wrong_password", "locked"):
        record_refusal("session.signed_in", why=why, space=member.space, actor=None, target=member)
    record_refusal("member.deleted", why="not_allowed", space=member.space, actor=admin_member, target=member)
    with acting(address="2001:db8:1111:2222:3333:4444:5555:6666", request_id="a" * 32):
        set_remaining(member=member, remaining_nanos=7 * USD, actor=manager)
    with signed_in(auditor, manager, base_url):
        look_at_page(auditor, "/space/audit/", "Activity")
        look_at_the_details(auditor)
        look_at_page(auditor, "/space/audit/?user=nobody", "Nothing matches these filters", level=2)
    with signed_in(auditor, member, base_url):
        look_at_page(auditor, "/me/activity/", "Your activity")
        look_at_the_details(auditor)


def look_at_the_details(auditor: Auditor) -> None:
    for opener in auditor.page.locator("summary").filter(has_text="Details").all():
        opener.click()
    expect(auditor.page.get_by_text("Request ID", exact=True).last).to_be_visible()
    auditor.look("activity, opened")


def test_tasks_are_accessible(auditor: Auditor, base_url: str, manager: User, member: User, filmed: None) -> None:
    for user in (manager, member):
        with signed_in(auditor, user, base_url):
            look_at_the_tasks(auditor)
    SpaceFactory(manager_username="alone", grant_usd=0)
    with signed_in(auditor, User.objects.get(username="alone"), base_url):
        look_at_page(auditor, "/console/tasks/", "No tasks in the last 7 days", level=2)


PSEUDO_PAGES = ["/console/", "/console/?period=today", "/console/usage/", "/console/usage/?model=none"]
PSEUDO_PAGES += ["/console/tasks/", "/console/tasks/?model=none", "/console/tokens/", "/console/tokens/add/"]
PSEUDO_PAGES += [f"/console/tokens/1/{deed}/" for deed in ("edit", "rotate", "delete")]
PSEUDO_PAGES += ["/space/users/", "/space/users/?q=zed", "/space/users/add/"]
PSEUDO_PAGES += ["/space/users/2/edit/", "/space/users/3/edit/", "/space/users/3/delete/"]
PSEUDO_PAGES += ["/me/credits/", "/me/statement/", "/me/settings/", "/me/activity/", "/space/audit/", "/nowhere/"]
PSEUDO_PAGES += ["/space/users/3/statement/", "/me/two-factor/", "/me/confirm/"]


@pytest.mark.usefixtures("filmed", "spending")
@pytest.mark.parametrize("username", ["mira", "jun"])
def test_long_right_to_left_texts_fit_everywhere(
    new_context: Callable[..., BrowserContext], space: Space, screen: dict[str, object], base_url: str, username: str
) -> None:
    """In the pseudo-localisation, whose texts are half as long again and right-to-left."""
    MemberFactory(space=space, username="w" * 64, display_name="Maximiliane " * 6, usd=100)
    context = new_context(reduced_motion="reduce", locale="he", **screen)
    context.add_cookies([{"name": "language", "value": pseudo.CODE, "url": base_url}])
    auditor = Auditor(context.new_page())
    auditor.page.goto("/login/")
    auditor.measure("/login/")
    give_session(context, User.objects.get(username=username), base_url)
    for path in PSEUDO_PAGES:
        auditor.page.goto(path)
        assert auditor.page.locator("html").get_attribute("dir") == "rtl", path
        auditor.measure(path)
    assert auditor.found == {}


def test_two_factor_sign_in_is_accessible(
    auditor: Auditor, base_url: str, manager: User, member: User, admin_member: User, space: Space
) -> None:
    sign_in_by_form(auditor, member)
    look_at_page(auditor, "/me/two-factor/passkeys/add/", "Add a passkey")
    look_at_page(auditor, "/me/confirm/", "Confirm that it is you")
    look_at_page(auditor, "/me/two-factor/app/", "Set up an authenticator app")
    sealed = str(auditor.page.locator("#app-secret").text_content()).replace(" ", "").strip()
    auditor.page.get_by_label("Enter the code that the app shows now").fill(code_of(sealed, steps=-1))
    auditor.page.keyboard.press("Enter")
    expect(auditor.page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    auditor.look("recovery codes")
    look_at_page(auditor, "/me/settings/", "Personal Settings")
    look_at_page(auditor, "/me/two-factor/app/remove/", "Remove the authenticator app")
    look_at_the_second_step(auditor, member)
    with signed_in(auditor, User.objects.get(pk=manager.pk), base_url):
        look_at_a_reset(auditor)
    Space.objects.filter(pk=space.pk).update(requires_second_factor=True)
    with signed_in(auditor, User.objects.get(pk=admin_member.pk), base_url):
        look_at_page(auditor, "/me/two-factor/", "Two-factor sign-in")


def sign_in_by_form(auditor: Auditor, user: User) -> None:
    auditor.page.context.clear_cookies()
    auditor.page.goto("/login/")
    auditor.page.get_by_label("Username").fill(user.username)
    auditor.page.get_by_label("Password", exact=True).fill(PASSWORD)
    with auditor.page.expect_navigation(url=lambda url: not url.endswith("/login/")):
        auditor.page.keyboard.press("Enter")


def look_at_the_second_step(auditor: Auditor, user: User) -> None:
    sign_in_by_form(auditor, user)
    auditor.look("second step")
    for tries in range(5):
        auditor.page.get_by_label("Code").fill("000000")
        with auditor.page.expect_response("**/login/2fa/") as answer:
            auditor.page.keyboard.press("Enter")
        if tries == 0:
            assert answer.value.status == 422
            expect(auditor.page.get_by_label("Code")).to_have_attribute("aria-invalid", "true")
            auditor.look("second step, wrong")
    expect(auditor.page.get_by_role("heading", name="Too many tries")).to_be_visible()
    auditor.look("too many tries")


def look_at_a_reset(auditor: Auditor) -> None:
    look_at_page(auditor, "/space/users/", "User Management")
    form = open_dialog(auditor.page, "Edit jun", "Edit User")
    auditor.look("edit, two-factor on")
    form.get_by_role("link", name="Reset").click()
    expect(dialog(auditor.page, "Reset two-factor sign-in")).to_be_visible()
    auditor.look("reset two-factor sign-in")


def look_at_page(auditor: Auditor, path: str, heading: str, *, level: int = 1) -> None:
    auditor.page.goto(path)
    expect(auditor.page.get_by_role("heading", name=heading, level=level)).to_be_visible()
    auditor.look(f"{path} ({heading})")


def look_at_sign_in(auditor: Auditor) -> None:
    page = auditor.page
    look_at_page(auditor, "/login/", "Sign in")
    page.get_by_label("Username").fill("mira")
    page.get_by_label("Password").fill("not " + PASSWORD)
    button(page, "Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    auditor.look("sign-in, wrong")


def look_at_the_list(auditor: Auditor) -> None:
    page = auditor.page
    look_at_page(auditor, "/space/users/?q=zed", "No username matches “zed”", level=2)
    look_at_page(auditor, "/space/users/?page=2", "User Management")
    look_at_page(auditor, "/space/users/", "User Management")
    button(page, "Disable jun").click()
    expect(button(page, "Undo")).to_be_visible()
    auditor.look("list, toast")
    button(page, "Undo").click()
    expect(button(page, "Disable jun")).to_be_visible()


def look_at_adding(auditor: Auditor) -> None:
    page = auditor.page
    form = open_dialog(page, "Add User", "Add User")
    auditor.look("add")
    form.get_by_label("Username").fill("jun")
    form.get_by_role("button", name="Create").click()
    expect(form.get_by_text("Enter a password.")).to_be_visible()
    auditor.look("add, wrong")
    form.get_by_label("Username").fill("nadia")
    form.get_by_label("Password").fill("a long password")
    form.get_by_role("button", name="Create").click()
    expect(dialog(page, "nadia is ready")).to_be_visible()
    auditor.look("sign-in details")
    button(page, "Done").click()


def look_at_editing(auditor: Auditor) -> None:
    page = auditor.page
    form = open_dialog(page, "Edit jun", "Edit User")
    auditor.look("edit")
    form.get_by_label("Password").fill("short")
    form.get_by_label("Remaining Quota (USD)").fill("9000")
    form.get_by_role("button", name="Submit").click()
    expect(form.get_by_text("Use at least 8 characters.")).to_be_visible()
    auditor.look("edit, wrong")
    page.keyboard.press("Escape")


def look_at_deleting(auditor: Auditor) -> None:
    page = auditor.page
    form = open_dialog(page, "Delete jun", "Delete User")
    auditor.look("delete")
    form.get_by_role("button", name="Delete").click()
    expect(form.get_by_text("That does not match.")).to_be_visible()
    auditor.look("delete, wrong")
    page.keyboard.press("Escape")


def look_at_settings(auditor: Auditor) -> None:
    page = auditor.page
    look_at_page(auditor, "/me/settings/", "Personal Settings")
    button(page, "Change password").click()
    expect(page.get_by_label("Current password")).to_have_attribute("aria-invalid", "true")
    auditor.look("settings, wrong")
    page.get_by_label("Dark", exact=True).check(force=True)
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("#toasts")).to_contain_text("Theme saved.")
    page.get_by_label("System").check(force=True)
    expect(page.locator("html")).not_to_have_attribute("data-theme", "dark")
    page.get_by_label("Search time zones").fill("shang")
    expect(page.get_by_label("Time zone", exact=True)).to_have_value("Asia/Shanghai")


def look_at_a_new_key(auditor: Auditor) -> None:
    page = auditor.page
    form = open_dialog(page, "Add Token", "Add Token")
    auditor.look("add token")
    form.get_by_label("Expires", exact=True).select_option("date")
    form.get_by_label("Spending limit (USD)").fill("-1")
    form.get_by_label("Allowed models").fill("gpt 4o")
    form.get_by_label("Allowed IP ranges").fill("10.0.0.1/8")
    form.get_by_role("button", name="Create").click()
    expect(form.get_by_text("Enter a name.")).to_be_visible()
    auditor.look("add token, wrong")
    form.get_by_label("Name").fill("nightly")
    form.get_by_label("Expires", exact=True).select_option("1d")
    for label in ("Spending limit (USD)", "Allowed models", "Allowed IP ranges"):
        form.get_by_label(label).fill("")
    form.get_by_role("button", name="Create").click()
    shown = dialog(page, "Copy your new key")
    expect(shown).to_be_visible()
    auditor.look("new key")
    shown.get_by_text("Try it with curl").click()
    expect(button(page, "Copy command")).to_be_visible()
    auditor.look("new key, curl")
    button(page, "I have saved it").click()


def look_at_an_old_key(auditor: Auditor) -> None:
    page = auditor.page
    open_dialog(page, "Edit hackathon", "Edit Token")
    auditor.look("edit token")
    page.keyboard.press("Escape")
    open_dialog(page, "Rotate laptop", "Rotate Token")
    auditor.look("rotate token")
    page.keyboard.press("Escape")
    open_dialog(page, "Delete laptop", "Delete Token")
    auditor.look("delete token")
    page.keyboard.press("Escape")
    button(page, "Disable laptop").click()
    expect(button(page, "Undo")).to_be_visible()
    auditor.look("tokens, toast")


def look_at_a_members_keys(auditor: Auditor) -> None:
    page = auditor.page
    page.goto("/space/users/")
    form = open_dialog(page, "Edit jun", "Edit User")
    form.get_by_label("Revoke ci", exact=True).click()
    form.get_by_role("button", name="Revoke ci for good").scroll_into_view_if_needed()
    auditor.look("edit, keys")
    form.get_by_role("button", name="Revoke ci for good").click()
    expect(form.get_by_text("None.")).to_be_visible()
    auditor.look("edit, key revoked")
    page.keyboard.press("Escape")


def look_at_the_log(auditor: Auditor) -> None:
    page = auditor.page
    look_at_page(auditor, "/console/usage/", "Usage Logs")
    look_at_an_export(auditor)
    for opener in page.locator("summary").filter(has_text="How this was charged").all():
        opener.click()
    expect(page.get_by_text("Request ID", exact=True).last).to_be_visible()
    auditor.look("usage log, opened")


def look_at_an_export(auditor: Auditor) -> None:
    page = auditor.page
    page.locator("summary", has_text="Other forms of the export").click()
    expect(page.get_by_role("link", name="CSV for Excel")).to_be_visible()
    auditor.look("usage log, export menu")
    with page.expect_download():
        page.get_by_role("link", name="CSV for Excel").click()
    expect(button(page, "Close")).to_be_visible()
    auditor.look("usage log, exported")


def look_at_the_tasks(auditor: Auditor) -> None:
    page = auditor.page
    look_at_page(auditor, "/console/tasks/", "Task Logs")
    for opener in page.locator("summary").filter(has_text="Details").all():
        opener.click()
    expect(page.get_by_text("Request ID", exact=True).last).to_be_visible()
    auditor.look("task log, opened")


def look_at_the_dashboard(auditor: Auditor) -> None:
    page = auditor.page
    look_at_page(auditor, "/console/", "Dashboard")
    why = page.get_by_role("button", name="How this is calculated")
    why.click()
    expect(page.get_by_text("the average of the last 7 days")).to_be_visible()
    auditor.look("dashboard, runway")
    page.keyboard.press("Escape")
    expect(why).to_be_focused()
    for opener in page.locator("summary").filter(has_text="Show as a table").all():
        opener.click()
    expect(page.get_by_role("columnheader", name="Spend").last).to_be_visible()
    auditor.look("dashboard, tables")
