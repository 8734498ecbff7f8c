"""The usage record of a charge or refusal, and its roll-up. Besides, only the SQL function for sets writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import F

from accounts.models import User
from core import origin
from core.ids import NIL, id_at
from quotas.models import Hold, Wallet
from usage.aggregates import of_record
from usage.models import HourlyUsage, UsageRecord
from usage.quarters import reopen


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a usage record that are not money. Once there is a hold, model and key are taken from the hold."""

    model: str
    key_id: UUID = NIL
    key_name: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    seconds: int = 0
    quantities: dict[str, Any] = msgspec.field(default_factory=dict)
    price: dict[str, Any] = msgspec.field(default_factory=dict)
    details: dict[str, Any] = msgspec.field(default_factory=dict)
    upstream_cost: int | None = None
    duration_ms: int = 0
    first_token_ms: int | None = None
    status: int = 200
    code: str = ""
    is_estimated: bool = False


def write_record(wallet: Wallet, held: Hold, charged: int, shortfall: int, call: Call) -> UsageRecord:
    # Runs in the transaction that charges, so that log and wallets always agree.
    at = origin.now()
    record = UsageRecord.objects.create(
        id=id_at(at),
        space_id=wallet.space_id,
        wallet_id=wallet.pk,
        user_id=held.user_id,
        username=User.everyone.values_list("username", flat=True).get(pk=held.user_id),
        kind=UsageRecord.Kind.CONSUME if charged or call.status < 400 else UsageRecord.Kind.ERROR,
        request_id=held.pk,
        held=held.amount,
        cost=charged,
        shortfall=shortfall,
        available_after=wallet.available,
        **msgspec.structs.asdict(call) | {"model": held.model, "key_id": held.key_id, "key_name": held.key_name},
    )
    _roll_up(record, at.astimezone(UTC).replace(minute=0, second=0, microsecond=0))
    if origin.current().moment is not None:
        # A backdated charge (demo data): reopen the closed quarters that it falls into.
        reopen(space_id=wallet.space_id, at=at)
    return record


def _roll_up(record: UsageRecord, hour: datetime) -> None:
    place = {
        "space_id": record.space_id,
        "user_id": record.user_id,
        "key_id": record.key_id,
        "model": record.model,
        "hour": hour,
    }
    figures = of_record(record)
    raised = {name: F(name) + value for name, value in figures.items()}
    if not HourlyUsage.objects.filter(**place).update(**raised):
        # The wallet's lock keeps a concurrent charge from inserting the same row.
        HourlyUsage.objects.create(**place, **figures)
