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

# On a busy machine Hypothesis generates examples slowly, which says nothing about the code under test.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")

# Playwright's event loop runs in the tests' thread, where Django would otherwise refuse to use the ORM.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

APPEND_ONLY = [Transfer, UsageRecord, UsageCheckpoint, AuditEvent]
SECONDS_A_DAY = 86_400
MIDNIGHT_MARGIN_S = 20
# Filled by migrations, not by tests.
KEPT_TABLES = {"django_content_type", "auth_permission", "django_migrations"}


def empty_tables(_: TransactionTestCase) -> None:
    """Replace Django's flush, which recreates content types and permissions each time: half a second per test."""
    with transaction.atomic(), connection.cursor() as cursor:
        for table in set(connection.introspection.django_table_names(only_existing=True)) - KEPT_TABLES:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")


TransactionTestCase._fixture_teardown = empty_tables  # type: ignore[attr-defined]  # Django's, without a type


def pytest_configure(config: pytest.Config) -> None:
    # pytest-playwright empties its output folder when it starts, so two runs in one checkout need separate ones.
    config.option.output = str(Path(os.environ["TEST_DIR"], "browser"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = {"db", "transactional_db", "live_server"} & set(getattr(item, "fixturenames", ()))
        uses_one = fixtures or item.get_closest_marker("django_db") or item.get_closest_marker("postgresql")
        if uses_one and not (item.get_closest_marker("any_database") and not has_nul(item)):
            item.add_marker("database")


def has_nul(item: pytest.Item) -> bool:
    """PostgreSQL rejects NUL in text and SQLite takes it: such a case runs on both, whatever its marker says."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return r"\x00" in repr(parameters)


def pytest_collection_finish(session: pytest.Session) -> None:
    # gc.freeze(), which spacemanage/asgi.py calls too: no garbage collection traverses the imported modules again,
    # which took a tenth of the suite's time.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    wait_for_midnight_if_near()
    # The marker skips on other databases only: on PostgreSQL no marked test may be left out.
    marker = item.get_closest_marker("postgresql")
    if marker and connection.vendor != "postgresql":
        pytest.skip(marker.args[0])


def wait_for_midnight_if_near() -> None:
    """Start no test just before midnight UTC: many query today's or this month's rows more than once."""
    left_s = SECONDS_A_DAY - time.time() % SECONDS_A_DAY
    if left_s < MIDNIGHT_MARGIN_S:
        time.sleep(left_s)


@pytest.fixture(autouse=True)
def append_only_triggers_removed_for_the_flush(request: pytest.FixtureRequest) -> Iterator[None]:
    """Transactional tests end by emptying all tables, which the triggers of append-only tables would refuse."""
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
def fresh_export_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test all slots: a response that a test did not read to its end holds its slot until it is collected."""
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
        # Left out: asgiref.local, which Django replaces on every write, and variables that structlog has reset (it sets
        # them to Ellipsis).
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
    """A member of another space, with money, and with a number that no member of `space` has."""
    other = SpaceFactory.create(name="Elsewhere", manager_username="boss")
    Space.objects.filter(pk=other.pk).update(last_number=40)
    return MemberFactory.create(space=other, username="stranger", usd=7)


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("operator", PASSWORD)


@pytest.fixture
def charged(member: User) -> None:
    charge(member, cost_usd=1.25)
