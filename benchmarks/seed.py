"""Spaces, members, keys and offers, made by the product's own services. Django must be set up before the import."""

from __future__ import annotations

import io
from dataclasses import dataclass
from secrets import token_urlsafe

from django.core.management import call_command
from django.db import transaction
from django.test import override_settings

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from core.money import NANOS_PER_USD
from quotas.members import create_member
from quotas.services import set_remaining
from quotas.spaces import create_space
from relay.models import Model, Upstream
from tenants.models import Space

USD_EACH = 10_000
# MD5 is enough, as nobody signs in with these passwords. Argon2 would take minutes to hash a thousand of them.
QUICK = override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])


@dataclass(frozen=True)
class Spender:
    user: User
    key: str


@QUICK
@transaction.atomic
def space_of(count: int, *, name: str) -> list[Spender]:
    """Create a space with `count` members, each with USD_EACH of quota and a key without a limit."""
    space = create_space(
        name=name,
        manager_username=f"{name}.manager",
        manager_password=token_urlsafe(),
        grant_nanos=USD_EACH * count * NANOS_PER_USD,
    )
    manager = User.objects.get(space=space, number=1)
    return [_spender(space, manager, f"{name}.{number}") for number in range(1, count + 1)]


def _spender(space: Space, manager: User, username: str) -> Spender:
    member = create_member(space=space, username=username, display_name="", password=token_urlsafe(), actor=manager)
    set_remaining(member=member, remaining_nanos=USD_EACH * NANOS_PER_USD, actor=manager)
    member = User.objects.select_related("space", "wallet").get(pk=member.pk)
    return Spender(member, create_key(owner=member, terms=KeyTerms(name="bench"))[1])


def offer(model: str, *, upstream: str, base_url: str, credential: str) -> None:
    """Offer a model at $2.50 and $10.00 per million tokens, served by that upstream only."""
    output = io.StringIO()
    price = {"input": "2.50", "cached_input": "1.25", "output": "10.00", "max_output_tokens": 4096}
    call_command("set_price", model=model, **price, stdout=output)
    server = Upstream.objects.filter(name=upstream).first() or Upstream(name=upstream)
    server.base_url = base_url
    server.seal(credential)
    server.save()
    server.models.set(Model.objects.filter(name=model))
