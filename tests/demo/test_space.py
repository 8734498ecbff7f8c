"""The demo space: built once for all tests of the class, which takes five seconds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from accounts.models import ApiKey, User
from core.ids import moment_of
from core.money import NANOS_PER_USD
from quotas.models import Wallet
from usage.models import Task, UsageRecord
from usage.partitions import DEFAULT_PARTITION, make_ahead

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD


def run(name: str) -> str:
    out = io.StringIO()
    call_command(name, stdout=out, stderr=out)
    return out.getvalue()


@pytest.fixture(scope="class")
def demo(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """Output of the demo command. Its transaction encloses those of the tests and is rolled back after the last."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield run("demo")
        transaction.set_rollback(True)


class TestDemoSpace:
    def test_the_demo_is_made_once_and_its_books_balance(self, demo: str) -> None:
        people, keys = list(User.everyone.order_by("pk").values()), list(ApiKey.with_deleted.order_by("pk").values())
        second = run("demo")

        assert demo == second and "mira.okafor" in demo and "halcyon-demo" in demo
        assert list(User.everyone.order_by("pk").values()) == people
        assert list(ApiKey.with_deleted.order_by("pk").values()) == keys
        pool = Wallet.objects.get(kind="pool")
        assert (pool.total, pool.allocated, pool.spent, pool.available) == (
            500 * USD,
            336_400_000_000,
            42_180_000_000,
            121_420_000_000,
        )
        assert run("reconcile").startswith("The books balance")

    @pytest.mark.postgresql("SQLite keeps one table")
    def test_the_demo_writes_no_row_into_the_default_partition(self, demo: str) -> None:
        assert make_ahead() == []
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {DEFAULT_PARTITION}")
            assert cursor.fetchone() == (0,) and UsageRecord.objects.exists()

    def test_in_the_demo_every_request_names_a_key_of_its_user(self, demo: str) -> None:
        keys = ApiKey.with_deleted.values_list("user_id", "pk", "name")
        used = UsageRecord.objects.values_list("user_id", "key_id", "key_name").distinct()
        assert used.count() > 12 and set(used) <= set(keys)
        assert {key.status for key in ApiKey.objects.all()} >= {"enabled", "disabled", "expired"}

    def test_the_demo_has_tasks_in_every_state(self, demo: str) -> None:
        tasks = Task.objects.all()
        assert {task.status for task in tasks} == set(Task.Status.values)
        assert all(moment_of(task.pk) == task.submitted_at for task in tasks)
        assert sum(task.cost or 0 for task in tasks) == 3_900_000_000
