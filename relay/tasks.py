"""The life cycle of a task: opened with its hold, polled by workers and clients, ended exactly once.

Upstreams are polled outside of any transaction. A report is then written in a transaction that locks the task's row
first and its wallet second. Of two concurrent reports the later one finds the task finished and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec
import structlog
from django.db import close_old_connections, transaction
from django.db.models import Q

from accounts.keys import Presented
from core import origin
from quotas import charging
from quotas.charging import Call
from quotas.models import Hold
from relay.answers import read_answer
from relay.catalogue import Offer, target_of
from relay.dialects.videos import VideoRequest
from relay.http import HttpError
from relay.models import Upstream
from relay.prices import PriceList, Rate
from relay.pricing import Extent, Usage, bound_nanos, cost_nanos, valid_count
from relay.teller import CallOrder
from relay.upstreams import Target, UpstreamError, Upstreams
from usage.models import Task

log = structlog.get_logger(__name__)
T = TypeVar("T")

VIDEOS_PATH = "/videos"
# A task without an upstream after SUBMISSION_LOST_AFTER_S fails: its submission timed out or its process died.
SUBMIT_TIMEOUT_S = 120
SUBMISSION_LOST_AFTER_S = 300
# The hold expires this long after the task's deadline, so that the last poll can still settle it.
HOLD_MARGIN_S = 300
POLL_TIMEOUT_S = 15
MIN_POLL_INTERVAL_S = 3
MAX_POLL_INTERVAL_S = 60
# A client that asks again sooner gets the stored state instead of a poll of the upstream.
CLIENT_POLL_INTERVAL_S = 1.0
MAX_TASK_BYTES = 256 * 1024

NOT_SUBMITTED = "not_submitted"
GONE_UPSTREAM = "gone_upstream"
TIMED_OUT = "task_timeout"

# The columns that change after a task was opened.
_MUTABLE_FIELDS = (
    *("status", "progress", "platform", "upstream_id", "upstream_task_id", "answer"),
    *("seconds", "cost", "code", "next_poll_at", "misses", "finished_at"),
)
# Status words of OpenAI, and of other providers that implement its endpoint.
_STATUSES = {
    Task.Status.QUEUED: {"queued", "pending", "submitted"},
    Task.Status.SUCCESS: {"completed", "succeeded", "success"},
    Task.Status.FAILED: {"failed", "error", "cancelled", "canceled", "expired"},
}
_UPSTREAM_ID = re.compile(r"[!-~]{1,200}", re.ASCII)
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,40}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_MAX_DURATION_MS = 2**31 - 1
_NO_TOKENS = Usage()


@dataclass(frozen=True)
class TaskReport:
    """The state of a task as its upstream reported it, or a failure that the relay found itself."""

    status: Task.Status
    upstream_task_id: str = ""
    answer: str = ""
    progress: int = 0
    # None if the upstream reported none.
    seconds: int | None = None
    tokens: Usage = _NO_TOKENS
    # What chooses the price row, such as the size.
    facts: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    http_status: int = 502


_NEVER_SUBMITTED = TaskReport(Task.Status.FAILED, code=NOT_SUBMITTED, http_status=504)
_GONE_AT_UPSTREAM = TaskReport(Task.Status.FAILED, code=GONE_UPSTREAM)


def read_report(body: bytes) -> TaskReport | None:
    """Parse an upstream's JSON; None if it is not a task. An unknown status counts as in progress."""
    try:
        task = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(task, dict) or not isinstance(task.get("status"), str):
        return None
    word = task["status"].lower()
    status = next((status for status, words in _STATUSES.items() if word in words), Task.Status.IN_PROGRESS)
    error = task.get("error")
    told = read_answer(body, path=VIDEOS_PATH, ask_facts={})
    return TaskReport(
        status=status,
        upstream_task_id=_matching(_UPSTREAM_ID, task.get("id")),
        answer=json.dumps(task),
        progress=_valid_progress(task.get("progress")),
        seconds=_count_or_digits(task.get("seconds")),
        tokens=told.usage or _NO_TOKENS,
        facts=told.facts,
        code=_matching(_CODE, error.get("code") if isinstance(error, dict) else None) or "upstream_failed",
    )


def open_task(
    *,
    request_id: UUID,
    presented: Presented,
    address: str | None,
    offer: Offer,
    video: VideoRequest,
    body_bytes: int,
) -> tuple[Task, Hold]:
    """Hold the upper bound of the task's cost and create its row, in one transaction, before it is submitted.

    The task keeps the whole price list and what was asked, because the finished job tells which row applies. Raises
    what `charging.hold_for_key` raises.
    """
    prices = offer.prices_for(presented.space_id)
    extent = Extent(input_tokens=body_bytes, images=video.images, seconds=max(1, video.images) * video.seconds)
    rate = prices.dearest(input_tokens=body_bytes, candidates=video.candidates(prices))
    bound = bound_nanos(rate, extent, output_tokens=0, context_tokens=offer.context_tokens)
    with transaction.atomic():
        hold, key = charging.hold_for_key(
            request_id=request_id,
            presented=presented,
            model=offer.name,
            address=address,
            least_nanos=bound,
            most_nanos=bound,
            lifetime_s=offer.task_timeout_s + HOLD_MARGIN_S,
        )
        task = Task.objects.create(
            id=hold.pk,
            space_id=hold.space_id,
            user_id=hold.user_id,
            username=key.user.username,
            key_id=key.pk,
            key_name=key.name,
            model=offer.name,
            kind=Task.Kind.VIDEO,
            images=video.images,
            seconds=video.seconds,
            price=prices.snapshot() | {"facts": dict(video.facts)},
            submitted_at=hold.created_at,
            deadline_at=hold.created_at + timedelta(seconds=offer.task_timeout_s),
            next_poll_at=hold.created_at + timedelta(seconds=SUBMISSION_LOST_AFTER_S),
        )
    return task, hold


def task_order(presented: Presented, **asked: Any) -> CallOrder[tuple[Task, Hold]]:
    return CallOrder(do=lambda: open_task(presented=presented, **asked))


@transaction.atomic
def accept(task: Task, target: Target, report: TaskReport) -> Task:
    """Write that an upstream accepted the task. A task that was failed in the meantime stays failed."""
    task = _locked(task)
    if task.is_finished:
        log.error("task_taken_too_late", task=str(task.pk), upstream=target.name, upstream_task=report.upstream_task_id)
        return task
    task.upstream_id, task.platform = target.id, target.name
    task.upstream_task_id = report.upstream_task_id
    return _write(task, report)


@transaction.atomic
def apply_report(task: Task, report: TaskReport | None) -> Task:
    """Write a report: success settles the hold, failure or a passed deadline releases it.

    None means that the poll learnt nothing. Idempotent: a finished task does not change, so it is charged exactly once.
    """
    task = _locked(task)
    return task if task.is_finished else _write(task, report)


@dataclass(frozen=True)
class Claim:
    task: Task
    # None if it was deleted or its credential cannot be decrypted.
    target: Target | None


def due_tasks(*, limit: int) -> list[tuple[int, UUID]]:
    due = Task.objects.filter(next_poll_at__lte=origin.now()).order_by("next_poll_at")
    return list(due.values_list("space_id", "pk")[:limit])


def claim_due(space_id: int, task_id: UUID) -> Claim | None:
    return _claim(space_id, task_id, Q(next_poll_at__lte=origin.now()))


def claim_for_client(task: Task) -> Claim | None:
    """None if the task was just polled, is finished or has no upstream yet."""
    is_interval_over = Q(polled_at=None) | Q(polled_at__lte=origin.now() - timedelta(seconds=CLIENT_POLL_INTERVAL_S))
    return _claim(task.space_id, task.pk, is_interval_over & ~Q(upstream_task_id=""))


async def refresh(claim: Claim, upstreams: Upstreams) -> Task:
    report = await _poll_upstream(claim, upstreams)
    return await in_database(apply_report, claim.task, report)


def upstream_of(task: Task) -> Target | None:
    if task.upstream_id is None:
        return None
    # Also one that was disabled since.
    upstream = Upstream.objects.filter(pk=task.upstream_id).first()
    return target_of(upstream) if upstream else None


async def in_database(work: Callable[..., T], *args: Any) -> T:
    # The thread's connection is kept unless it broke or passed CONN_MAX_AGE, which is what Django does after a request.
    def do() -> T:
        close_old_connections()
        try:
            return work(*args)
        finally:
            close_old_connections()

    return await asyncio.to_thread(do)


# -- Under the task's lock ----------------------------------------------------------------------------------------


def _locked(task: Task) -> Task:
    return Task.objects.select_for_update(no_key=True).get(space=task.space_id, pk=task.pk)


def _write(task: Task, report: TaskReport | None) -> Task:
    now = origin.now()
    if report is not None:
        task.answer = report.answer or task.answer
    if report is not None and report.status == Task.Status.SUCCESS:
        _succeed(task, report, now)
    elif report is not None and report.status == Task.Status.FAILED:
        _fail(task, report.code, report.http_status, now)
    elif now >= task.deadline_at:
        _fail(task, TIMED_OUT, 504, now)
    else:
        _schedule_next_poll(task, report, now)
    task.save(update_fields=_MUTABLE_FIELDS)
    return task


def _succeed(task: Task, report: TaskReport, now: datetime) -> None:
    seconds = task.seconds if report.seconds is None else report.seconds
    # Providers tell the length of one video; each of them is made and billed.
    usage = msgspec.structs.replace(report.tokens, images=task.images, seconds=max(1, task.images) * seconds)
    prices, facts = PriceList.of_snapshot(task.price), {**task.price.get("facts", {}), **report.facts}
    rate = prices.rate(input_tokens=usage.input_tokens, facts=facts)
    is_estimated = report.seconds is None and rate.per_second > 0
    charged = charging.settle(
        space_id=task.space_id,
        request_id=task.pk,
        cost_nanos=cost_nanos(rate, usage),
        call=_call(
            task,
            now,
            usage=usage,
            rate=rate,
            row=prices.label(input_tokens=usage.input_tokens, facts=facts),
            is_estimated=is_estimated,
        ),
    )
    task.seconds, task.cost, task.progress = seconds, charged.cost, 100
    _end(task, Task.Status.SUCCESS, now)


def _fail(task: Task, code: str, http_status: int, now: datetime) -> None:
    call = _call(task, now, status=max(http_status, 400), code=code)
    charging.release(space_id=task.space_id, request_id=task.pk, call=call)
    task.code = code
    _end(task, Task.Status.FAILED, now)


def _end(task: Task, status: Task.Status, now: datetime) -> None:
    task.status, task.finished_at, task.next_poll_at = status, now, None


def _schedule_next_poll(task: Task, report: TaskReport | None, now: datetime) -> None:
    if report is None:
        task.misses += 1
    else:
        task.status, task.misses = report.status, 0
        task.progress = max(task.progress, report.progress)
    wait_s = min(MIN_POLL_INTERVAL_S * 2 ** min(task.misses, 10), MAX_POLL_INTERVAL_S)
    task.next_poll_at = min(now + timedelta(seconds=wait_s), task.deadline_at)


def _call(
    task: Task,
    now: datetime,
    *,
    usage: Usage = _NO_TOKENS,
    rate: Rate | None = None,
    row: str = "",
    status: int = 200,
    code: str = "",
    is_estimated: bool = False,
) -> Call:
    return Call(
        model=task.model,
        key_id=task.key_id,
        key_name=task.key_name,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        images=usage.images,
        seconds=usage.seconds,
        quantities=usage.quantities(),
        price=(rate or Rate.of(task.price)).snapshot(),
        details={name: text for name, text in (("upstream", task.platform), ("row", row)) if text},
        duration_ms=min((now - task.submitted_at) // timedelta(milliseconds=1), _MAX_DURATION_MS),
        status=status,
        code=code,
        is_estimated=is_estimated,
    )


# -- Polling ------------------------------------------------------------------------------------------------------


def _claim(space_id: int, task_id: UUID, condition: Q) -> Claim | None:
    """Take a lease on the task with a conditional UPDATE, so that of concurrent callers only one polls the upstream.

    The lease expires when next_poll_at is reached, so a caller that dies does not keep the task.
    """
    now = origin.now()
    lease = {"polled_at": now, "next_poll_at": now + timedelta(seconds=2 * POLL_TIMEOUT_S)}
    open_task_row = Task.objects.filter(condition, space=space_id, pk=task_id, next_poll_at__isnull=False)
    if not open_task_row.update(**lease):
        return None
    task = Task.objects.get(space=space_id, pk=task_id)
    return Claim(task, upstream_of(task))


async def _poll_upstream(claim: Claim, upstreams: Upstreams) -> TaskReport | None:
    if not claim.task.upstream_task_id:
        return _NEVER_SUBMITTED
    if claim.target is None:
        return None
    path = f"{VIDEOS_PATH}/{quote(claim.task.upstream_task_id, safe='')}"
    try:
        async with asyncio.timeout(POLL_TIMEOUT_S):
            response = await upstreams.request("GET", claim.target, path)
            with response:
                return read_report(await response.read(MAX_TASK_BYTES))
    except UpstreamError as error:
        return _GONE_AT_UPSTREAM if error.status in (404, 410) else None
    except (HttpError, TimeoutError):
        return None


# -- Parsing ------------------------------------------------------------------------------------------------------


def _matching(pattern: re.Pattern[str], value: object) -> str:
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def _valid_progress(value: object) -> int:
    return round(value) if isinstance(value, int | float) and 0 <= value <= 100 else 0


def _count_or_digits(value: object) -> int | None:
    # OpenAI reports `seconds` as a string of digits.
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    return valid_count(value)
