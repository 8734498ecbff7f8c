"""The checks after a drill: the database's rows compared with the responses that the clients received."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from accounts.models import ApiKey
from benchmarks.drills.asking import Answer
from benchmarks.drills.processes import wait_until
from benchmarks.drills.report import DrillReport
from benchmarks.drills.stage import BY_TOKEN
from quotas.models import Hold
from quotas.reconcile import reconcile
from tenants.models import Space
from usage.models import UsageRecord

# docs/operators.md promises that a hold which is not renewed ends "within a minute or so".
HOLD_LIFETIME_S = 60
SWEEP_S = 15
# The time for a running relay to write its settlements. It is shorter than a hold's lifetime, so no sweep can help.
SETTLING_S = 45
SWEPT = "hold_expired"


def check_books(report: DrillReport, space: Space, answers: list[Answer], *, has_deaths: bool = False) -> None:
    """Check what must be true after any fault. If a worker or the database died, only a sweep ends some holds."""
    timeout_s = HOLD_LIFETIME_S + SWEEP_S if has_deaths else SETTLING_S
    holds, records = Hold.objects.filter(space=space), UsageRecord.objects.filter(space=space)
    swept = records.filter(code=SWEPT)
    started = time.monotonic()
    wait_until(lambda: not holds.exists(), timeout_s=timeout_s)
    report.say(f"waited {time.monotonic() - started:.1f} s for holds to end; {_paid(space)}")
    report.check(f"no hold is left after {timeout_s} s", list(holds))
    if not has_deaths:
        report.check("a living relay leaves nothing to the sweeper", list(swept))
    report.check("reconcile finds nothing", reconcile(space))
    report.check("keys have spent and hold what their records and holds come to", _wrong_keys(space))
    report.check("every answer that is no stream is paid once, with the cost of its header", _unpaid(space, answers))
    report.check("every stream that began has its row", _unrecorded(space, answers))
    report.check("nothing is paid twice", _paid_twice(space))
    report.check("no request used more than its hold and its wallet", list(records.filter(shortfall__gt=0)))
    report.check("no wallet is overdrawn", [wallet for wallet in space.wallets.all() if wallet.available < 0])


def overdue(space: Space) -> list[Hold]:
    """Expired holds that a server which has run for SWEEP_S should have swept."""
    return list(Hold.objects.filter(space=space, expires_at__lt=timezone.now() - timedelta(seconds=SWEEP_S)))


def rows_of(space: Space, answers: list[Answer]) -> list[list[UsageRecord]]:
    """Return, for each answer, the usage records of its request, the oldest first."""
    wanted = {answer.request_id for answer in answers}
    rows: dict[UUID | None, list[UsageRecord]] = defaultdict(list)
    for record in UsageRecord.objects.filter(space=space).order_by("id").iterator():
        if record.request_id in wanted:
            rows[record.request_id].append(record)
    return [rows[answer.request_id] for answer in answers]


def token_nanos(input_tokens: int, output_tokens: int) -> int:
    """The cost at BY_TOKEN, rounded up. It is calculated independently of the product's own code, which it verifies."""
    return -(-(input_tokens * BY_TOKEN.input + output_tokens * BY_TOKEN.output) // 1_000_000)


def delivered_nanos(answer: Answer) -> int:
    """The charge for a stream without usage: one token per four bytes of the request and of the text received."""
    sent, came = len(answer.ask.body), len(answer.text.encode())
    return token_nanos(-(-sent // 4), -(-came // 4))


def _paid(space: Space) -> str:
    records = UsageRecord.objects.filter(space=space)
    counted = Counter(code or "paid" for code in records.values_list("code", flat=True))
    return "rows: " + (", ".join(f"{code}: {count}" for code, count in sorted(counted.items())) or "none")


def _wrong_keys(space: Space) -> list[str]:
    # Compared with the records here, because reconcile checks wallets only.
    spent: Counter[UUID] = Counter()
    held: Counter[UUID] = Counter()
    for key_id, nanos in UsageRecord.objects.filter(space=space).values_list("key_id", "cost"):
        spent[key_id] += nanos
    for key_id, nanos in Hold.objects.filter(space=space).values_list("key_id", "amount"):
        held[key_id] += nanos
    return [
        f"{key}: spent {key.spent} for {spent[key.pk]}, held {key.held} for {held[key.pk]}"
        for key in ApiKey.with_deleted.filter(space=space)
        if (key.spent, key.held) != (spent[key.pk], held[key.pk])
    ]


def _unpaid(space: Space, answers: list[Answer]) -> list[str]:
    whole = [answer for answer in answers if answer.status == 200 and not answer.ask.is_stream]
    costs = [[row.cost for row in rows] for rows in rows_of(space, whole)]
    return [
        f"{answer.request_id}: its header says {answer.cost_nanos} nanos, its rows say {found}"
        for answer, found in zip(whole, costs, strict=True)
        if found != [answer.cost_nanos]
    ]


def _unrecorded(space: Space, answers: list[Answer]) -> list[str]:
    streams = [answer for answer in answers if answer.status == 200 and answer.ask.is_stream]
    rows = rows_of(space, streams)
    return [f"{answer.request_id}: no row" for answer, found in zip(streams, rows, strict=True) if not found]


def _paid_twice(space: Space) -> list[str]:
    # A request has one row, or two: a sweep's, and then a late settlement's that charges the rest.
    codes: dict[UUID, list[str]] = defaultdict(list)
    for request_id, code in UsageRecord.objects.filter(space=space).values_list("request_id", "code"):
        codes[request_id].append(code)
    return [
        f"{request_id}: {found}"
        for request_id, found in codes.items()
        if found.count(SWEPT) > 1 or len(found) - found.count(SWEPT) > 1
    ]
