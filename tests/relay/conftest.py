"""Fixtures that start the relay and the demo upstream as processes and connect them over real HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
import requests
from django.conf import settings
from django.db import connection
from django.utils import timezone

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from core.money import NANOS_PER_USD
from relay.models import Model, Price, Upstream
from tests.postgres import free_port
from tests.relay.market import Market
from tests.relay.provider.server import Provider

ROOT = Path(__file__).parent.parent.parent
MODEL = "gpt-demo"
T = TypeVar("T")


def wait_for(condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Call `condition` until it returns a true value, and return that. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except requests.ConnectionError:
            pass
        time.sleep(0.05)
    raise AssertionError("the condition was not met in time")


def run_async(work: Coroutine[Any, Any, T], *, seconds: float = 60.0) -> T:
    """Run a coroutine in a new thread, since Playwright's event loop may already run in the tests' thread."""

    async def limited() -> T:
        async with asyncio.timeout(seconds):
            return await work

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, limited()).result()


class Process:
    """A program under test and its child processes."""

    def __init__(self, *args: str, env: dict[str, str]) -> None:
        # A process group of its own, because a server's workers survive when only their parent is killed.
        self._started = subprocess.Popen(args, cwd=ROOT, env=os.environ | env, start_new_session=True)

    def kill(self) -> None:
        """Send SIGKILL to the server and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self._started.pid, signal.SIGKILL)
        self._started.wait()

    def workers(self) -> list[int]:
        """Process ids of the server's workers, without Python's resource tracker."""
        found = []
        for child in psutil.Process(self._started.pid).children():
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child.pid)
        return found

    def signal(self, number: int) -> None:
        self._started.send_signal(number)

    def has_ended_within(self, seconds: float) -> bool:
        try:
            self._started.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        self.signal(signal.SIGTERM)
        self.has_ended_within(15)
        self.kill()


@pytest.fixture(scope="session")
def upstream_url() -> Iterator[str]:
    port = free_port()
    process = Process(sys.executable, "manage.py", "demo_upstream", "--port", str(port), env={"DEMO": "true"})
    url = f"http://127.0.0.1:{port}/v1"
    try:
        wait_for(lambda: requests.get(f"{url}/models", timeout=5).status_code < 500)
        yield url
    finally:
        process.stop()


def start_relay(*options: str, **more: str) -> tuple[str, Process]:
    """Start a relay on the tests' database, with further environment variables."""
    port = free_port()
    env = {"DATABASE_URL": database_url(), "DEMO": "true", "CATALOGUE_REFRESH_S": "0.1", "LOG_LEVEL": "ERROR"} | more
    process = Process(sys.executable, "-m", "spacemanage.serve", "--port", str(port), *options, env=env)
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: requests.get(f"{url}/healthz", timeout=5).status_code == 200)
    return f"{url}/v1", process


@pytest.fixture(scope="session")
def shared_relay(django_db_setup: None) -> Iterator[str]:
    """One process shared by all tests that do not kill it. Its only state is the catalogue, cached for 0.1 s."""
    url, process = start_relay()
    yield url
    process.stop()


@pytest.fixture
def relay_url(shared_relay: str, offered: Model, key: str) -> str:
    wait_until_offered(shared_relay, key)
    return shared_relay


@pytest.fixture
def own_relay(offered: Model, key: str) -> Iterator[tuple[str, Process]]:
    """A relay for one test, which may kill it."""
    url, process = start_relay("--grace-s", "3")
    wait_until_offered(url, key)
    yield url, process
    process.kill()


def wait_until_offered(url: str, key: str) -> None:
    """Wait until the relay offers this test's model. The one of the test before has the same name and id."""
    headers = {"Authorization": f"Bearer {key}"}
    created = int(Price.objects.get(model__name=MODEL).starts_at.timestamp())

    def is_offered() -> bool:
        row = requests.get(f"{url}/models/{MODEL}", headers=headers, timeout=5).json()
        return bool(row.get("created") == created)

    wait_for(is_offered)


def database_url() -> str:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    server = f"{database['USER']}:{database['PASSWORD']}@{database['HOST']}:{database['PORT']}"
    return f"postgres://{server}/{database['NAME']}{_deadlock_options(database['USER'])}"


def _deadlock_options(user: str) -> str:
    """A short deadlock_timeout, which makes the relay's worker the victim of a deadlock with a test's flush.

    The worker retries; the flush would fail the test. Only a superuser may set it, such as `postgres` on the server
    that the tests start.
    """
    return "?options=-c%20deadlock_timeout%3D50ms" if user == "postgres" else ""


@pytest.fixture
def offered(transactional_db: None, upstream_url: str) -> Model:
    """A model at $2.50 input, $1.25 cached input and $10.00 output per million tokens, on the demo upstream."""
    assert settings.CREDENTIAL_KEYS
    model = Model.objects.create(name=MODEL, default_output_tokens=64, max_output_tokens=4096)
    Price.objects.create(
        model=model,
        starts_at=timezone.now(),
        input=5 * NANOS_PER_USD // 2,
        cached_input=5 * NANOS_PER_USD // 4,
        output=10 * NANOS_PER_USD,
    )
    serve(model, "demo", upstream_url)
    return model


def serve(model: Model, name: str, url: str, *, priority: int = 0) -> Upstream:
    upstream = Upstream(name=name, base_url=url, priority=priority)
    upstream.seal("upstream-secret-words")
    upstream.save()
    upstream.models.add(model)
    return upstream


@pytest.fixture
def key(transactional_db: None, member: User) -> str:
    return new_key(member)


def new_key(owner: User, **terms: Any) -> str:
    return create_key(owner=owner, terms=KeyTerms(name="laptop", **terms))[1]


@pytest.fixture
def market(transactional_db: None, shared_relay: str) -> Iterator[Market]:
    """The simulated provider, which sells nothing yet, and members with money."""
    with Provider({}).serving() as provider:
        yield Market.open(shared_relay, provider)


@pytest.fixture
def plain(market: Market) -> Market:
    """A market for text and videos at plain prices, in OpenAI's dialect."""
    market.sell(["openai"], ["plain", "video"])
    return market
