"""A fixed cast: one space with its manager, an admin and a member, and a stranger's space beside it."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from threading import BoundedSemaphore

import pytest
from django.db import connection, transaction
from django.test import TransactionTestCase
from django.utils import timezone, translation
from hypothesis import HealthCheck, settings

from accounts.models import User
from audit.models import AuditEvent
from console.export import MAX_CONCURRENT_EXPORTS, ExportSlot
from core import append_only
from quotas.models import Transfer
from tenants.models import Space
from tests.factories import PASSWORD, MemberFactory, SpaceFactory, charge, manager_of
from usage.models import UsageCheckpoint, UsageRecord

# How quick this machine draws examples says nothing about what is drawn.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")

# Playwright's loop runs in the tests' thread; Django would refuse the ORM there.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

APPEND_ONLY = [Transfer, UsageRecord, UsageCheckpoint, AuditEvent]
SECONDS_A_DAY = 86_400
MIDNIGHT_MARGIN_S = 20
# What migrations put there, for every test alike.
KEPT_TABLES = {"django_content_type", "auth_permission", "django_migrations"}


def empty_tables(_: TransactionTestCase) -> None:
    """In place of Django's flush, which makes content types and permissions anew each time: half a second a test."""
    with transaction.atomic(), connection.cursor() as cursor:
        for table in set(connection.introspection.django_table_names(only_existing=True)) - KEPT_TABLES:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")


TransactionTestCase._fixture_teardown = empty_tables  # type: ignore[attr-defined]  # Django's, without a type


def pytest_configure(config: pytest.Config) -> None:
    # pytest-playwright empties its folder when it starts: two runs in one checkout need one each.
    config.option.output = str(Path(os.environ["TEST_DIR"], "browser"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`database` are those that ask one anything: only of them it matters which it is."""
    for item in items:
        fixtures = {"db", "transactional_db", "live_server"} & set(getattr(item, "fixturenames", ()))
        if fixtures or item.get_closest_marker("django_db") or item.get_closest_marker("postgresql"):
            item.add_marker("database")


def pytest_collection_finish(session: pytest.Session) -> None:
    # As in production: the collector need not look again and again at what imports made (a tenth of the suite's time).
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    wait_for_midnight_if_near()
    # On PostgreSQL itself nothing marked is skipped, whatever it says.
    marker = item.get_closest_marker("postgresql")
    if marker and connection.vendor != "postgresql":
        pytest.skip(marker.args[0])


def wait_for_midnight_if_near() -> None:
    """Many tests ask several times for today's or this month's rows: no test starts just before a day's end (UTC)."""
    left_s = SECONDS_A_DAY - time.time() % SECONDS_A_DAY
    if left_s < MIDNIGHT_MARGIN_S:
        time.sleep(left_s)


@pytest.fixture(autouse=True)
def triggers_stand_aside(request: pytest.FixtureRequest) -> Iterator[None]:
    """Transactional tests empty all tables in the end, which append-only ones refuse: their triggers stand aside."""
    transactional = {"transactional_db", "live_server"} & set(request.fixturenames)
    marker = request.node.get_closest_marker("django_db")
    if not transactional and not (marker and marker.kwargs.get("transaction")):
        yield
        return
    request.getfixturevalue("transactional_db")
    with connection.schema_editor() as editor:
        for model in APPEND_ONLY:
            append_only.install(editor, model._meta.db_table)
    yield
    with connection.schema_editor() as editor:
        for model in APPEND_ONLY:
            append_only.remove(editor, model._meta.db_table)


@pytest.fixture(autouse=True)
def exports_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that a test did not read to its end keeps its slot until the collector finds it."""
    monkeypatch.setattr(ExportSlot, "_FREE", BoundedSemaphore(MAX_CONCURRENT_EXPORTS))


@pytest.fixture(autouse=True)
def nothing_stays_active() -> Iterator[None]:
    """Fail the test that leaves a language, time zone, context variable or environment variable to the next test."""
    before = active_state()
    yield
    after = active_state()
    translation.deactivate()
    timezone.deactivate()
    assert after == before


def active_state() -> dict[str, object]:
    return {
        "language": translation.get_language(),
        "time zone": timezone.get_current_timezone_name(),
        # Django's own state is in asgiref.local, a new object whenever it is written; structlog resets to an Ellipsis.
        "context": {
            variable.name: value
            for variable, value in copy_context().items()
            if variable.name != "asgiref.local" and value is not ...
        },
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
    }


@pytest.fixture
def space(db: None) -> Space:
    return SpaceFactory.create(name="Halcyon Labs", manager_username="mira")


@pytest.fixture
def manager(space: Space) -> User:
    return manager_of(space)


@pytest.fixture
def admin_member(space: Space) -> User:
    return MemberFactory.create(space=space, username="amara", usd=80, is_admin=True)


@pytest.fixture
def member(space: Space) -> User:
    return MemberFactory.create(space=space, username="jun", display_name="Jun Sato", usd=5)


@pytest.fixture
def stranger(db: None) -> User:
    """A member of another space, with money, and with a number that this space never gave."""
    other = SpaceFactory.create(name="Elsewhere", manager_username="boss")
    Space.objects.filter(pk=other.pk).update(last_number=40)
    return MemberFactory.create(space=other, username="stranger", usd=7)


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("operator", PASSWORD)


@pytest.fixture
def charged(member: User) -> None:
    """One request of the member's, charged $1.25 of a hold of $2.00."""
    charge(member, cost_usd=1.25)
