"""Recompute every balance and roll-up from transfers, holds and usage records, and report differences.

Checkpoints stand for pruned usage records (usage/retention.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from core import origin
from core.ids import id_at
from quotas.models import Reconciliation
from tenants.models import Space
from usage.aggregates import AGGREGATES, ERROR_TOKENS, Source, difference_sql, records
from usage.figures import EPOCH, HOUR, first_id, floor
from usage.models import QuarterMark, UsageRecord
from usage.quarters import pruned_through

# Each comparison is a single statement, so that on both databases it reads one snapshot despite concurrent charges.
_WALLETS = """
WITH taken AS (
    SELECT target_id AS wallet_id,
           SUM(CASE WHEN kind = 'grant' THEN amount ELSE 0 END) AS granted,
           SUM(CASE WHEN kind = 'allocate' THEN amount ELSE 0 END) AS allocated,
           SUM(CASE WHEN kind IN ('reclaim', 'return') THEN amount ELSE 0 END) AS given_back
    FROM quotas_transfer WHERE space_id = %(space)s AND target_id IS NOT NULL GROUP BY target_id
), given AS (
    SELECT source_id AS wallet_id,
           SUM(CASE WHEN kind = 'revoke' THEN amount ELSE 0 END) AS revoked,
           SUM(CASE WHEN kind = 'allocate' THEN amount ELSE 0 END) AS allocated,
           SUM(CASE WHEN kind IN ('reclaim', 'return') THEN amount ELSE 0 END) AS given_back
    FROM quotas_transfer WHERE space_id = %(space)s AND source_id IS NOT NULL GROUP BY source_id
), used AS (
    SELECT wallet_id, SUM(spent) AS spent FROM (
        SELECT wallet_id, cost AS spent FROM usage_usagerecord WHERE space_id = %(space)s
        UNION ALL SELECT wallet_id, spent FROM usage_usagecheckpoint WHERE space_id = %(space)s
    ) AS kept_and_pruned GROUP BY wallet_id
), flying AS (
    SELECT wallet_id, SUM(amount) AS held FROM quotas_hold WHERE space_id = %(space)s GROUP BY wallet_id
), known AS (
    SELECT id, total, allocated, spent, held FROM quotas_wallet WHERE space_id = %(space)s
    UNION ALL
    SELECT wallet_id, 0, 0, 0, 0 FROM (
        SELECT wallet_id FROM taken UNION SELECT wallet_id FROM given
        UNION SELECT wallet_id FROM used UNION SELECT wallet_id FROM flying
    ) AS named WHERE wallet_id NOT IN (SELECT id FROM quotas_wallet WHERE space_id = %(space)s)
), books AS (
    SELECT known.*,
           COALESCE(granted, 0) - COALESCE(revoked, 0)
               + COALESCE(taken.allocated, 0) - COALESCE(given.given_back, 0) AS total_c,
           COALESCE(given.allocated, 0) - COALESCE(taken.given_back, 0) AS allocated_c,
           COALESCE(used.spent, 0) AS spent_c,
           COALESCE(flying.held, 0) AS held_c
    FROM known
    LEFT JOIN taken ON taken.wallet_id = known.id
    LEFT JOIN given ON given.wallet_id = known.id
    LEFT JOIN used ON used.wallet_id = known.id
    LEFT JOIN flying ON flying.wallet_id = known.id
)
SELECT id, total, total_c, allocated, allocated_c, spent, spent_c, held, held_c FROM books
WHERE total <> total_c OR allocated <> allocated_c OR spent <> spent_c OR held <> held_c
ORDER BY id
"""

_KEYS = """
WITH used AS (
    SELECT key_id, SUM(spent) AS spent FROM (
        SELECT key_id, cost AS spent FROM usage_usagerecord WHERE space_id = %(space)s
        UNION ALL SELECT key_id, spent FROM usage_usagecheckpoint WHERE space_id = %(space)s
    ) AS kept_and_pruned GROUP BY key_id
), flying AS (
    SELECT key_id, SUM(amount) AS held FROM quotas_hold WHERE space_id = %(space)s GROUP BY key_id
)
SELECT id, keys.spent, COALESCE(used.spent, 0), keys.held, COALESCE(flying.held, 0)
FROM accounts_apikey AS keys
LEFT JOIN used ON used.key_id = keys.id
LEFT JOIN flying ON flying.key_id = keys.id
WHERE space_id = %(space)s AND (keys.spent <> COALESCE(used.spent, 0) OR keys.held <> COALESCE(flying.held, 0))
ORDER BY id
"""

_SPACE = "space_id = %(space)s"
# Checkpoints do not store error tokens, so these are compared only for hours whose usage records are not pruned.
_ROLL_UPS = difference_sql(
    ("user_id", "key_id", "model"),
    stored=Source(
        "usage_hourlyusage",
        _SPACE,
        {name: f"CASE WHEN hour >= %(kept)s THEN {name} ELSE 0 END" for name in ERROR_TOKENS},
    ),
    computed=(
        records(_SPACE, error_tokens_where="id >= %(kept_id)s"),
        Source("usage_usagecheckpoint", _SPACE, {"cost": "spent", **dict.fromkeys(ERROR_TOKENS, "0")}),
    ),
)

# Compares closed quarters, up to the last full hour, with hourly usage, which _ROLL_UPS compares with the records.
_QUARTERS = difference_sql(
    ("model",),
    stored=Source("usage_spacequarter", f"{_SPACE} AND quarter < %(whole)s"),
    computed=(Source("usage_hourlyusage", f"{_SPACE} AND hour < %(whole)s"),),
)


@dataclass(frozen=True)
class Difference:
    """A stored figure, in nanos or a count, that differs from the sum of the records."""

    row: str
    figure: str
    stored: int
    computed: int

    def __str__(self) -> str:
        return f"{self.row}: {self.figure} is {self.stored}, the records come to {self.computed}"


@transaction.atomic
def reconcile(space: Space) -> list[Difference]:
    """Compare the stored balances of a space with its records and save the outcome. An empty list means balanced."""
    differences = [
        *_compare(_WALLETS, space, "wallet", (_uuid,), ("total", "allocated", "spent", "held")),
        *_compare(_KEYS, space, "API key", (_uuid,), ("spent", "held")),
        *_compare_roll_ups(space),
    ]
    at = origin.now()
    Reconciliation.objects.create(
        id=id_at(at),
        space=space,
        at=at,
        is_balanced=not differences,
        differences=[asdict(difference) for difference in differences[:100]],
    )
    return differences


def _compare_roll_ups(space: Space) -> Iterator[Difference]:
    # The lock: nothing must close, reopen or prune between reading the bounds and the sums.
    mark = QuarterMark.objects.select_for_update().filter(space=space).first()
    kept = pruned_through(space.pk) or EPOCH
    bounds = {"kept": _db_moment(kept), "kept_id": _db_first_id(kept)}
    yield from _compare(_ROLL_UPS, space, "usage of", (str, _uuid, str), tuple(AGGREGATES), **bounds)
    if mark is not None:
        yield from _compare(
            _QUARTERS, space, "closed usage of", (str,), tuple(AGGREGATES), whole=_db_moment(floor(mark.through, HOUR))
        )


def _db_moment(moment: datetime) -> Any:
    # SQLite stores and compares datetimes as text.
    return connection.ops.adapt_datetimefield_value(moment)


def _db_first_id(moment: datetime) -> Any:
    return UsageRecord._meta.pk.get_db_prep_value(first_id(moment), connection)


def _compare(
    sql: str, space: Space, what: str, names: tuple[Callable[[Any], str], ...], figures: tuple[str, ...], **more: Any
) -> Iterator[Difference]:
    """Run a statement that selects the identity columns, then (stored, computed) for each figure."""
    with connection.cursor() as cursor:
        cursor.execute(sql, {"space": space.pk} | more)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    for row in rows:
        identity = " ".join(name(part) for name, part in zip(names, row, strict=False))
        for index, figure in enumerate(figures):
            stored, computed = row[len(names) + 2 * index : len(names) + 2 * index + 2]
            if stored != computed:
                yield Difference(f"{what} {identity}", figure, int(stored), int(computed))


def _uuid(value: UUID | str) -> str:
    # SQLite stores UUIDs without dashes.
    return str(UUID(str(value)))
