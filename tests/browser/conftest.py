"""A real Chromium, signed in as one of the cast. A test fails on any unexpected message in the browser's console."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect
from pytest_django.live_server_helper import LiveServer

from accounts.models import User
from console.users.listing import members_of
from tenants.models import Space
from tests import pseudo
from tests.chromium import find_chromium
from tests.factories import MemberFactory

CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK = {"width": 1280, "height": 800}

# Longer than Playwright's default of 5 s, because other tests may keep the machine busy.
expect.set_options(timeout=15_000)

# The browser and htmx also report expected responses: invalid forms (422) and refused pages (403, 404, 429).
EXPECTED_STATUS = re.compile(
    r"(Failed to load resource: the server responded with a status of|Response Status Error Code) (403|404|422|429) "
)
# Chromium warns a few seconds after a preload. A page that axe keeps busy has not been painted with its font by then.
UNUSED_PRELOAD = "was preloaded using link preload but not used within a few seconds"


class SignIn(Protocol):
    def __call__(self, user: User, path: str = ..., **context_args: Any) -> Page: ...


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("No Chromium here: install it, or name one in CHROMIUM.")
    # Chromium keeps the real clock under faketime, with which no page finishes loading.
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return browser_type_launch_args | {"executable_path": chromium, "args": CHROMIUM_ARGUMENTS, "env": env}


@pytest.fixture(scope="session", autouse=True)
def pseudo_language() -> None:
    """Generate the catalog before Django looks for it, which it does only once per process."""
    pseudo.make(Path(settings.LOCALE_PATHS[-1]))


@pytest.fixture(scope="session")
def base_url(live_server: LiveServer) -> str:
    return live_server.url


@pytest.fixture
def console_messages() -> list[str]:
    """Unexpected console messages during the test: script errors, CSP violations, missing files."""
    return []


@pytest.fixture
def new_context(
    new_context: Callable[..., BrowserContext], console_messages: list[str]
) -> Iterator[Callable[..., BrowserContext]]:
    def watched_context(**context_args: Any) -> BrowserContext:
        context = new_context(**{"viewport": DESK} | context_args)
        context.set_default_timeout(15_000)
        context.on("console", note)
        context.on("weberror", lambda error: console_messages.append(f"{error.page and error.page.url}: {error.error}"))
        return context

    def note(message: ConsoleMessage) -> None:
        text, url = message.text, message.location["url"]
        is_file = "/static/" in url and text.startswith("Failed to load")
        is_expected = UNUSED_PRELOAD in text or (not is_file and EXPECTED_STATUS.match(text))
        if message.type in ("error", "warning") and not is_expected:
            console_messages.append(f"{url}: {text}")

    yield watched_context
    assert console_messages == []


@pytest.fixture
def sign_in(new_context: Callable[..., BrowserContext], base_url: str) -> SignIn:
    def signed_in(user: User, path: str = "/space/users/", **context_args: Any) -> Page:
        context = new_context(**context_args)
        give_session(context, user, base_url)
        page = context.new_page()
        page.goto(path)
        return page

    return signed_in


def give_session(context: BrowserContext, user: User, url: str) -> None:
    client = Client()
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": url}])


@pytest.fixture
def people(space: Space, admin_member: User, member: User) -> list[User]:
    """amara (2, admin, $80), jun (3, $5), kai (4, $20) and lea (5, nothing): $395.00 of $500.00 is available."""
    MemberFactory(space=space, username="kai", usd=20)
    MemberFactory(space=space, username="lea")
    return list(members_of(space).order_by("number"))


@pytest.fixture
def crowd(space: Space) -> list[User]:
    """Twelve members, two more than a page shows: u00 to u11, numbered from 2."""
    for number in range(12):
        MemberFactory(space=space, username=f"u{number:02}", usd=number)
    return list(members_of(space).order_by("number"))
