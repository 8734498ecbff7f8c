"""Append-only triggers exist on every table of the books after all migrations, on both databases."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Model
from django.utils import timezone

from accounts.models import User
from quotas.models import Transfer, Wallet
from tests.conftest import APPEND_ONLY
from usage.models import UsageCheckpoint


def _change(model: type[Model], statement: str) -> None:
    connection.check_constraints()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement.format(table=model._meta.db_table))


@pytest.fixture
def pruned(member: User) -> None:
    wallet_id = Wallet.objects.values_list("pk", flat=True).get(user=member)
    figures = dict.fromkeys(("requests", "errors", "input_tokens", "output_tokens", "spent"), 1)
    UsageCheckpoint.objects.create(
        space_id=member.space_id, wallet_id=wallet_id, user_id=member.pk, through=timezone.now(), **figures
    )


@pytest.mark.parametrize("model", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {table} SET space_id = space_id", "DELETE FROM {table}"])
def test_an_append_only_row_can_be_neither_changed_nor_deleted(
    member: User, charged: None, pruned: None, model: type[Model], statement: str
) -> None:
    before = list(model._default_manager.values())
    assert before

    with pytest.raises(IntegrityError, match="append-only"):
        _change(model, statement)

    assert list(model._default_manager.values()) == before


@pytest.mark.postgresql("SQLite has no TRUNCATE")
def test_the_journal_cannot_be_truncated(member: User) -> None:
    with pytest.raises(IntegrityError, match="append-only"):
        _change(Transfer, "TRUNCATE {table}")
