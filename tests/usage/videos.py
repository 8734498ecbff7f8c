"""Video tasks for tests, in each state, made by the product's own functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from accounts.keys import KeyTerms, create_key, parse_key
from accounts.models import User
from core import origin
from core.ids import id_at
from core.money import NANOS_PER_USD
from core.origin import acting
from relay.catalogue import Offer
from relay.dialects.videos import VideoRequest
from relay.prices import PriceList, Rate
from relay.tasks import TaskReport, accept, apply_report, open_task
from relay.upstreams import Target
from usage.models import Task

CENT = NANOS_PER_USD // 100
LIMITS: dict[str, Any] = dict.fromkeys(
    (
        *("default_output_tokens", "max_output_tokens", "context_tokens", "created"),
        *("image_nanos_ceiling", "audio_minute_nanos_ceiling"),
    ),
    0,
)
HOUR_S = 3600


def submit(
    user: User, *, ago: timedelta = timedelta(), seconds: int = 4, model: str = "sora-2", key: str = "laptop"
) -> Task:
    """Submit a video task at one cent per second, `ago` before now. It is held, and no upstream has accepted it."""
    presented = parse_key(create_key(owner=user, terms=KeyTerms(name=key))[1])
    assert presented is not None
    offer = Offer(name=model, prices=PriceList(Rate(per_second=CENT)), task_timeout_s=HOUR_S, **LIMITS)
    with acting(moment=datetime.now(UTC) - ago):
        return open_task(
            request_id=id_at(origin.now()),
            presented=presented,
            address=None,
            offer=offer,
            video=VideoRequest(model=model, seconds=seconds, images=0, size="", fields={}),
            body_bytes=0,
        )[0]


def take(task: Task, platform: str = "openai", progress: int = 40) -> Task:
    target = Target(id=0, name=platform, base_url="", credential="", priority=0, weight=1, timeout_s=1)
    return accept(task, target, TaskReport(Task.Status.IN_PROGRESS, upstream_task_id="up-1", progress=progress))


def succeed(task: Task, *, seconds: int | None = None, after: timedelta = timedelta(seconds=65)) -> Task:
    with acting(moment=task.submitted_at + after):
        return apply_report(task, TaskReport(Task.Status.SUCCESS, seconds=task.seconds if seconds is None else seconds))


def fail(task: Task, code: str = "odd") -> Task:
    with acting(moment=task.submitted_at + timedelta(seconds=65)):
        return apply_report(task, TaskReport(Task.Status.FAILED, code=code))
