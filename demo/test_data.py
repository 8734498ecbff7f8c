"""Generates a large test space: many members and a long usage log, whose books balance to the nano-dollar.

It bypasses the services, which would take days for ten million requests, so it is the only other code that writes
balances: once, in a new space. `reconcile` checks the result.
"""

from __future__ import annotations

import json
import random
import re
import secrets
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import connection, transaction
from django.utils import timezone

from accounts.models import ApiKey, User
from core.bulk import deferred_indexes, write_rows
from core.money import NANOS_PER_CENT, NANOS_PER_USD
from quotas.models import Transfer, Wallet
from quotas.pool import pool_of
from quotas.services import grant
from quotas.spaces import create_space
from relay.pricing import MILLION, Rate
from tenants.models import Space
from tenants.roles import Role
from usage.aggregates import AGGREGATES
from usage.figures import EPOCH, HOUR, first_id
from usage.models import HourlyUsage, UsageRecord
from usage.partitions import Month, make_months, months_from

# (name, percentage of the requests, rate in nano-dollars per million tokens)
MODELS = [
    ("gpt-4o-mini", 46, Rate(input=150_000_000, cached_input=75_000_000, output=600_000_000)),
    ("claude-sonnet-4", 22, Rate(input=3_000_000_000, cached_input=300_000_000, output=15_000_000_000)),
    ("gemini-2.5-flash", 17, Rate(input=300_000_000, cached_input=75_000_000, output=2_500_000_000)),
    ("deepseek-v3", 11, Rate(input=270_000_000, cached_input=70_000_000, output=1_100_000_000)),
    ("gpt-4.1", 4, Rate(input=2_000_000_000, cached_input=500_000_000, output=8_000_000_000)),
]
# The percentage of a day's requests in each hour.
HOUR_PERCENTS = [1, 1, 1, 1, 1, 2, 3, 4, 6, 8, 8, 7, 6, 7, 8, 8, 7, 5, 4, 4, 3, 2, 2, 1]
WEEKEND_PERCENT = 35
FAILED_SHARE, CACHED_SHARE = 0.012, 0.2
# Members' shares of the requests follow Zipf's law with this exponent.
ZIPF_EXPONENT = 0.8
GIVEN_NAMES = ("amara", "theo", "jun", "priya", "leila", "marcus", "sofia", "noor", "kai", "dana", "olu", "ines", "bao")
FAMILY_NAMES = ("diallo", "lindqvist", "sato", "nair", "haddad", "webb", "reyes", "aziz", "tanaka", "kim", "bello")
KEY_NAMES = ("default", "laptop", "pipeline")
MANAGER_SHARE = 0.01
# Days of usage between two lines of progress.
REPORT_EVERY_DAYS = 5
MAX_SLUG_LENGTH = 20
_SUMS = ", ".join(f"SUM({aggregate.row_sql()})" for aggregate in AGGREGATES.values())
_ROLL_UP = f"""
INSERT INTO usage_hourlyusage (id, space_id, user_id, key_id, model, hour, {", ".join(AGGREGATES)})
SELECT {{id}}, space_id, user_id, key_id, model, %s, {_SUMS}
FROM usage_usagerecord WHERE space_id = %s AND id >= %s AND id < %s
GROUP BY space_id, user_id, key_id, model
"""  # noqa: S608


@dataclass(frozen=True)
class SpaceSize:
    members: int
    rows: int
    days: int


@dataclass
class _TestKey:
    id: str
    number: int
    name: str
    spent: int = 0
    used_at: int | None = None


@dataclass
class _Spender:
    """A member or the manager, with total and spent in nano-dollars. The id is hexadecimal, as write_rows needs it."""

    user: User
    wallet_id: str
    total: int
    keys: list[_TestKey] = field(default_factory=list)
    spent: int = 0


def make_test_space(
    name: str,
    size: SpaceSize,
    *,
    seed: int = 1,
    password: str = "",
    report: Callable[[str], None] = lambda _line: None,
) -> Space:
    """Create the test space, atomically. All its people share `password`; without one, nobody can sign in.

    Raises NameTakenError where a space or username of that name exists.
    """
    test_space = _TestSpace(name, size, random.Random(seed), report)  # noqa: S311  data, not secrets
    make_months(months_from(Month.of(test_space.begin), Month.of(test_space.end)))
    with transaction.atomic():
        return test_space.make(password)


class _TestSpace:
    def __init__(self, name: str, size: SpaceSize, chance: random.Random, report: Callable[[str], None]) -> None:
        self._name, self._size, self._random, self._report = name, size, chance, report
        # Ids come from a generator of their own: two spaces of one seed have equal data but different ids.
        self._ids = random.Random(f"{name} {chance.random()}")  # noqa: S311
        self.end = timezone.now().replace(minute=0, second=0, microsecond=0)
        self.begin = self.end - timedelta(days=size.days)
        self._models = list(accumulate(share for _name, share, _rate in MODELS))
        self._snapshots = [json.dumps(rate.snapshot()) for _name, _share, rate in MODELS]

    def make(self, password: str) -> Space:
        # Marked as demo, because production refuses to start on a database with shared passwords.
        self._space = create_space(
            name=self._name,
            manager_username=f"{slug(self._name)}.manager",
            manager_password=password or secrets.token_urlsafe(),
            is_demo=True,
        )
        self._manager = User.objects.get(space=self._space, number=1)
        self._make_people(make_password(password or None))
        self._report(f"{self._size.members:,} members")
        with deferred_indexes(UsageRecord, HourlyUsage):
            self._spend()
        self._write_wallets()
        self._write_keys()
        return self._space

    # -- People and their money -------------------------------------------------------------------------------------

    def _make_people(self, hashed: str) -> None:
        # A total is 0.7 to 3 times the expected spending, so some members run out of quota.
        shares = [1 / place**ZIPF_EXPONENT for place in range(1, self._size.members + 1)]
        self._random.shuffle(shares)
        usual = self._size.rows * _mean_cost_nanos() / (sum(shares) or 1)
        totals = [_whole_cents(usual * share * self._random.uniform(0.7, 3)) + NANOS_PER_CENT for share in shares]
        managers = MANAGER_SHARE * sum(shares)
        free = _whole_cents(sum(totals) / 5 + 3 * usual * managers) + 1000 * NANOS_PER_USD
        grant(space=self._space, amount_nanos=sum(totals) + free, reason="First grant", actor=None, key="first-grant")
        self._pool = pool_of(self._space)
        users = self._write_users(hashed)
        members = [self._spender(user, self._id(self.begin), total) for user, total in zip(users, totals, strict=True)]
        self._write_allocations(members)
        self._spenders = [self._spender(self._manager, self._pool.pk.hex, free), *members]
        self._shares = list(accumulate([managers or 1.0, *shares]))

    def _spender(self, user: User, wallet_id: str, total: int) -> _Spender:
        count = self._random.choices((1, 2, 3), (80, 15, 5))[0]
        keys = [_TestKey(self._id(self.begin), number, name) for number, name in enumerate(KEY_NAMES[:count], start=1)]
        return _Spender(user, wallet_id, total, keys)

    def _write_users(self, hashed: str) -> list[User]:
        numbers = range(2, self._size.members + 2)
        User.objects.bulk_create((self._user(number, hashed) for number in numbers), batch_size=2000)
        Space.objects.filter(pk=self._space.pk).update(last_number=self._size.members + 1)
        return list(User.objects.filter(space=self._space, number__gt=1).order_by("number"))

    def _user(self, number: int, hashed: str) -> User:
        given, family = self._random.choice(GIVEN_NAMES), self._random.choice(FAMILY_NAMES)
        chance = self._random.random()
        return User(
            space=self._space,
            number=number,
            username=f"{given}.{family}.{slug(self._name)}{number}",
            display_name=f"{given.title()} {family.title()}",
            # Numbers 2 and 3 are always an active admin and an active member, for the command to print as sign-ins.
            role=Role.ADMIN if number == 2 or (number > 3 and chance < 0.01) else Role.NORMAL,
            is_active=number <= 3 or chance < 0.97,
            password=hashed,
            created_at=self.begin,
        )

    def _write_allocations(self, members: list[_Spender]) -> None:
        # The same transfers as quotas.services.set_remaining would write.
        write_rows(Transfer, self._allocations(members))
        allocated = sum(member.total for member in members)
        Wallet.objects.filter(pk=self._pool.pk).update(allocated=allocated)

    def _allocations(self, members: list[_Spender]) -> Iterator[tuple[Any, ...]]:
        pool, manager, free = self._pool, self._manager, self._pool.available
        for place, member in enumerate(members):
            free -= member.total
            at = self.begin + timedelta(milliseconds=place)
            ends = (pool.pk.hex, member.wallet_id, member.user.number, member.user.username)
            after = (pool.total, free, member.total, member.total)
            yield (
                *(self._id(at), self._space.pk, at, "allocate", member.total, *ends, manager.pk, manager.username, ""),
                *(*after, f"test-data:{member.user.pk}"),
            )

    def _write_wallets(self) -> None:
        pool, *members = self._spenders
        Wallet.objects.filter(pk=self._pool.pk).update(spent=pool.spent)
        rows = ((each.wallet_id, self._space.pk, "member", each.user.pk, each.total, 0, each.spent) for each in members)
        write_rows(Wallet, ((*row, 0, False) for row in rows))

    def _write_keys(self) -> None:
        write_rows(ApiKey, (self._key_row(each, key) for each in self._spenders for key in each.keys))

    def _key_row(self, spender: _Spender, key: _TestKey) -> tuple[Any, ...]:
        # A random hash, so no secret matches it and nobody can use the key.
        secret = f"{self._ids.getrandbits(256):064x}"
        looks = (secret, f"sk-{self._space.pk}-{secret[:4]}", secret[-4:], "", None)
        used_at = EPOCH + timedelta(microseconds=key.used_at) if key.used_at else None
        terms = (None, key.spent, 0, "[]", "[]", None, True)
        place = (key.id, self._space.pk, spender.user.pk, key.number, key.name)
        return *place, *looks, *terms, used_at, self.begin, None

    # -- Their usage ---------------------------------------------------------------------------------------------

    def _spend(self) -> None:
        # A generator, so the rows are streamed: the database inserts some while the next are made.
        write_rows(UsageRecord, self._usage_rows())
        self._roll_up()
        self._report("rolled up by hours")

    def _usage_rows(self) -> Iterator[tuple[Any, ...]]:
        made = 0
        for number, (start, count) in enumerate(self._requests_by_hour(), start=1):
            yield from self._spend_hour(start, count)
            made += count
            if number % (24 * REPORT_EVERY_DAYS) == 0:
                self._report(f"{made:,} of {self._size.rows:,} rows")

    def _roll_up(self) -> None:
        # Settlements would have raised these.
        new_id = "gen_random_uuid()" if connection.vendor == "postgresql" else "lower(hex(randomblob(16)))"
        with connection.cursor() as cursor:
            for number in range(self._size.days * 24):
                start = self.begin + number * HOUR
                first, after = (first_id(moment).hex for moment in (start, start + HOUR))
                hour = connection.ops.adapt_datetimefield_value(start)
                cursor.execute(_ROLL_UP.format(id=new_id), [hour, self._space.pk, first, after])

    def _requests_by_hour(self) -> Iterator[tuple[datetime, int]]:
        """The number of requests in each hour, by time of day and weekday. The numbers add up to `size.rows`."""
        starts = [self.begin + number * HOUR for number in range(self._size.days * 24)]
        weights = [HOUR_PERCENTS[at.hour] * (WEEKEND_PERCENT if at.weekday() > 4 else 100) for at in starts]
        ends = [self._size.rows * so_far // sum(weights) for so_far in accumulate(weights)]
        return ((at, end - begun) for at, end, begun in zip(starts, ends, [0, *ends], strict=False))

    def _spend_hour(self, start: datetime, count: int) -> Iterator[tuple[Any, ...]]:
        first = (start - EPOCH) // timedelta(microseconds=1)
        moments = sorted(first + self._random.randrange(3_600_000_000) for _ in range(count))
        spenders = self._random.choices(self._spenders, cum_weights=self._shares, k=count)
        return map(self._spend_once, spenders, moments)

    def _spend_once(self, spender: _Spender, at: int) -> tuple[Any, ...]:
        # One long function with few calls in it, because it runs ten million times.
        chance = self._random.random
        place = bisect(self._models, chance() * 100)
        model, _share, rate = MODELS[place]
        key = spender.keys[int(chance() * len(spender.keys))]
        read, written = int(40 + 4000 * chance() ** 3), int(10 + 1200 * chance() ** 2)
        cached = read // 2 if chance() < CACHED_SHARE else 0
        parts = (read - cached) * rate.input + cached * rate.cached_input + written * rate.output
        cost = -(-parts // MILLION)
        held, kind, status, code = 2 * cost, "consume", 200, ""
        if chance() < FAILED_SHARE:
            read = cached = written = cost = 0
            kind, status, code = "error", 502, "upstream_error"
        elif spender.spent + held > spender.total:
            read = cached = written = cost = held = 0
            kind, status, code = "error", 429, "insufficient_quota"
        spender.spent += cost
        key.spent += cost
        key.used_at = at
        took_ms = int(200 + 6000 * chance() ** 2)
        return (
            *(self._id_of(at), self._space.pk, spender.wallet_id, spender.user.pk, spender.user.username, key.id),
            *(key.name, model, kind, self._id_of(at - took_ms * 1000), read, cached, written, 0, 0),
            *("{}", self._snapshots[place] if held else "{}", "{}", None),
            *(held, cost, 0, spender.total - spender.spent, False),
            *(took_ms, took_ms // 4, status, code),
        )

    def _id(self, at: datetime) -> str:
        return self._id_of((at - EPOCH) // timedelta(microseconds=1))

    def _id_of(self, micros: int) -> str:
        """A UUIDv7 in hexadecimal, in the format of core.ids."""
        milliseconds, rest = divmod(micros, 1000)
        return f"{milliseconds:012x}7{rest * 4096 // 1000:03x}{self._ids.getrandbits(62) | 1 << 63:016x}"


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG_LENGTH] or "test"


def _mean_cost_nanos() -> float:
    # The distributions of _spend_once have means of 1,040 input and 410 output tokens.
    return sum(share * (1040 * rate.input + 410 * rate.output) for _name, share, rate in MODELS) / 100 / MILLION


def _whole_cents(nanos: float) -> int:
    return int(nanos) // NANOS_PER_CENT * NANOS_PER_CENT
