"""Spaces and people for tests, made through the product's own services."""

from __future__ import annotations

from typing import Any

from factory.declarations import Sequence, SubFactory
from factory.django import DjangoModelFactory

from accounts.models import User
from core.ids import new_id
from core.money import NANOS_PER_USD
from quotas.charging import Call, hold, settle
from quotas.members import MemberChanges, create_member, edit_member
from quotas.services import set_remaining
from quotas.spaces import create_space
from tenants.models import Space
from usage.models import UsageRecord

PASSWORD = "correct horse battery"


class SpaceFactory(DjangoModelFactory[Space]):
    class Meta:
        model = Space

    name = Sequence(lambda n: f"Space {n}")
    manager_username = Sequence(lambda n: f"manager{n}")
    grant_usd = 500

    @classmethod
    def _create(cls, model_class: type[Space], *args: Any, **kwargs: Any) -> Space:
        grant_nanos = kwargs.pop("grant_usd") * NANOS_PER_USD
        return create_space(manager_password=PASSWORD, grant_nanos=grant_nanos, **kwargs)


class MemberFactory(DjangoModelFactory[User]):
    """A member with `usd` of quota; `is_admin` promotes them."""

    class Meta:
        model = User

    space = SubFactory(SpaceFactory)
    username = Sequence(lambda n: f"member{n}")
    display_name = ""
    usd = 0
    is_admin = False

    @classmethod
    def _create(cls, model_class: type[User], *args: Any, **kwargs: Any) -> User:
        usd, is_admin = kwargs.pop("usd"), kwargs.pop("is_admin")
        manager = manager_of(kwargs["space"])
        member = create_member(password=PASSWORD, actor=manager, **kwargs)
        if usd:
            set_remaining(member=member, remaining_nanos=usd * NANOS_PER_USD, actor=manager)
        if is_admin:
            member = edit_member(member=member, changes=MemberChanges(is_admin=True), actor=manager).member
        return User.objects.select_related("space", "wallet").get(pk=member.pk)


def manager_of(space: Space) -> User:
    return User.objects.select_related("space").get(space=space, number=1)


def charge(user: User, *, cost_usd: float) -> UsageRecord:
    """Hold slightly more than a request costs, and settle it."""
    request_id = new_id()
    call = Call(model="gpt-4o-mini", input_tokens=1000, output_tokens=200)
    cost_nanos = round(cost_usd * NANOS_PER_USD)
    assert user.space_id is not None
    hold(request_id=request_id, user=user, amount_nanos=cost_nanos + 1, call=call)
    return settle(space_id=user.space_id, request_id=request_id, cost_nanos=cost_nanos, call=call)
