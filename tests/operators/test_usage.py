from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from core.ids import new_id
from core.money import NANOS_PER_USD
from quotas.charging import Call, hold, settle
from tests.factories import charge

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD


@pytest.fixture
def short(member: User) -> None:
    """One request that the wallet covered, and one that cost $2.00 more than the wallet had."""
    charge(member, cost_usd=1)
    request_id, call = new_id(), Call(model="dear")
    hold(request_id=request_id, user=member, amount_nanos=4 * USD - 1, call=call)
    settle(space_id=member.space_id, request_id=request_id, cost_nanos=6 * USD, call=call)


def listed(client: Client, operator: User, query: str = "") -> Any:
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")
    return client.get(f"/admin/usage/usagerecord/{query}")


def test_operators_see_the_shortfall(client: Client, operator: User, short: None) -> None:
    text = listed(client, operator).content.decode()

    assert "$2.00" in text and "Has a shortfall" in text


@pytest.mark.parametrize(
    ("query", "models"),
    [
        ("", ["dear", "gpt-4o-mini"]),
        ("?shortfall=yes", ["dear"]),
        ("?shortfall=no", ["gpt-4o-mini"]),
        ("?shortfall=9", ["dear", "gpt-4o-mini"]),
    ],
)
def test_operators_filter_by_shortfall(
    client: Client, operator: User, short: None, query: str, models: list[str]
) -> None:
    found = listed(client, operator, query).context["cl"].queryset

    assert [record.model for record in found] == models
