from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from relay.models import StoredContent
from relay.stored import KEPT_FOR, find, prune, remember

pytestmark = pytest.mark.django_db


def keep(owner: User, *object_ids: str, upstream_id: int = 7) -> None:
    remember(space_id=owner.space_id, user_id=owner.pk, upstream_id=upstream_id, object_ids=object_ids)


def found(owner: User, object_id: str) -> int | None:
    return find(space_id=owner.space_id, user_id=owner.pk, object_ids=[object_id]).get(object_id)


def age(object_id: str, days: timedelta) -> None:
    StoredContent.objects.filter(object_id=object_id).update(created_at=timezone.now() - days)


def test_an_id_leads_its_owner_to_the_upstream_that_has_it(member: User) -> None:
    keep(member, "resp_1", "conv_1")

    assert (found(member, "resp_1"), found(member, "conv_1"), found(member, "resp_2")) == (7, 7, None)


def test_anothers_id_is_unknown_in_ones_own_space_and_in_any_other(member: User, manager: User, stranger: User) -> None:
    keep(member, "resp_1")

    assert (found(manager, "resp_1"), found(stranger, "resp_1")) == (None, None)


def test_an_id_stays_its_first_owners(member: User, manager: User, stranger: User) -> None:
    keep(member, "resp_1")
    keep(manager, "resp_1", upstream_id=8)
    keep(stranger, "resp_1", upstream_id=9)

    assert (found(member, "resp_1"), found(manager, "resp_1"), found(stranger, "resp_1")) == (7, None, 9)


def test_many_ids_are_remembered_and_found_by_one_statement_each(
    member: User, manager: User, django_assert_num_queries: Any
) -> None:
    ids = [f"msg_{at}" for at in range(150)]
    keep(manager, "msg_of_manager")

    with django_assert_num_queries(1):
        keep(member, *ids, "ä")
    with django_assert_num_queries(1):
        asked = [*ids, "msg_of_manager", "unknown", "ä"]
        holders = find(space_id=member.space_id, user_id=member.pk, object_ids=asked)

    assert holders == dict.fromkeys(ids, 7)


def test_an_id_is_forgotten_after_thirty_days(member: User) -> None:
    keep(member, "old", "new")
    age("old", KEPT_FOR)
    age("new", KEPT_FOR - timedelta(minutes=1))

    assert (found(member, "old"), found(member, "new")) == (None, 7)
    assert (prune(), prune()) == (1, 0)
    assert [row.object_id for row in StoredContent.objects.all()] == ["new"]


@pytest.mark.parametrize("object_id", ["", "x" * 201, "a\0b", "ä", "a\nb"])
def test_an_id_that_cannot_be_kept_is_not(member: User, object_id: str) -> None:
    keep(member, object_id)

    assert found(member, object_id) is None and not StoredContent.objects.exists()
