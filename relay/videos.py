"""The endpoint /v1/videos: submit a video task, read its state, fetch its content.

The upstream's JSON passes unchanged, except that clients see our task id instead of the upstream's.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode
from uuid import UUID

import structlog
from django.utils.translation import gettext as _

from accounts.keys import Presented, usable_key
from core.errors import QuotaError
from core.money import format_exact
from relay import errors
from relay.admission import refusal_order, verify_key
from relay.catalogue import Catalogue, Offer
from relay.dialects import check_needs
from relay.dialects.bodies import model_for_log
from relay.dialects.names import UNSORTED, unsupported
from relay.dialects.videos import VideoRequest, read_video_request
from relay.errors import ApiError, invalid
from relay.exchange import MAX_BODY_BYTES_IN_LOOP, Linger, Request
from relay.http import HttpError, UpstreamResponse
from relay.reader import ReaderProcess
from relay.tasks import (
    GONE_UPSTREAM,
    MAX_TASK_BYTES,
    NOT_SUBMITTED,
    SUBMIT_TIMEOUT_S,
    TIMED_OUT,
    VIDEOS_PATH,
    TaskReport,
    accept,
    apply_report,
    claim_for_client,
    in_database,
    read_report,
    refresh,
    task_order,
    upstream_of,
)
from relay.teller import DATABASE_ERRORS, MAX_RETRY_S, RETRY_INTERVAL_S, Teller
from relay.upstreams import Target, UpstreamError, Upstreams, final_failure
from usage.models import Task

log = structlog.get_logger(__name__)

_PUBLIC_ID = re.compile(r"video_([0-9a-f]{32})", re.ASCII)
_OPENAI_STATUS = {Task.Status.SUCCESS: "completed"}


# Writes the body for an upstream, which knows the model by this name; returns content type and body.
WriteVideo = Callable[[str], Awaitable[tuple[str, bytes]]]


class Videos:
    def __init__(self, teller: Teller, catalogue: Catalogue, upstreams: Upstreams, reader: ReaderProcess) -> None:
        self.reader = reader
        self.teller = teller
        self.catalogue = catalogue
        self.upstreams = upstreams

    async def serve(self, request: Request, presented: Presented, rest: str) -> None:
        name, _slash, part = rest.partition("/")
        if part not in ("", "content"):
            raise errors.unknown_endpoint()
        allowed = "GET" if name else "POST"
        if request.scope["method"] != allowed:
            raise errors.wrong_method(allowed)
        if not name:
            await self._submit(request, presented)
        elif part:
            await self._content(request, await self._find(request, presented, name))
        else:
            await self._show(request, await self._find(request, presented, name))

    async def _submit(self, request: Request, presented: Presented) -> None:
        """Commit the hold and the task, then submit to an upstream. From there on, a disconnect cancels nothing."""
        raw = await request.body(lambda: verify_key(self.teller, presented, request.address))
        try:
            video = await self._read(request, presented, raw)
            offer = self._offer(video.model)
            check_needs(video.needs, video.facts, offer.prices_for(presented.space_id))
            targets = _willing(offer, video)
        except ApiError as error:
            # The key is verified before the body's error is returned, so that a client without a valid key cannot find
            # out which models are on sale.
            is_large = len(raw) > MAX_BODY_BYTES_IN_LOOP
            model = await self.reader.call(presented, "model", raw) if is_large else model_for_log(raw)
            await self._log_refusal(request, presented, model, error)
            raise
        opened = task_order(
            presented,
            request_id=request.request_id,
            address=request.address,
            offer=offer,
            video=video,
            body_bytes=len(raw),
        )
        try:
            task, hold = await self.teller.ask(opened)
        except QuotaError as error:
            await self._log_refusal(request, presented, video.model, errors.refused(error))
            raise
        try:
            write = self._writer(request, presented, video, raw)
            target, report = await self._submit_upstream(video, targets, write)
        except UpstreamError as failure:
            await self._answer_failure(request, task, failure)
            return
        task = await _accept_with_retries(task, target, report)
        await _answer_task(request, task, {"x-space-held-usd": format_exact(hold.amount)})

    async def _log_refusal(self, request: Request, presented: Presented, model: str, error: ApiError) -> None:
        """Raises KeyRefused if the key is not valid."""
        await self.teller.ask(
            refusal_order(request, presented, model=model, status=error.status, code=error.code, message=error.message)
        )

    async def _read(self, request: Request, presented: Presented, raw: bytes) -> VideoRequest:
        content_type = request.header(b"content-type")
        if len(raw) <= MAX_BODY_BYTES_IN_LOOP:
            return read_video_request(raw, content_type)
        video: VideoRequest = await self.reader.call(presented, "read_video", raw, content_type)
        return video

    def _writer(self, request: Request, presented: Presented, video: VideoRequest, raw: bytes) -> WriteVideo:
        async def write(model: str) -> tuple[str, bytes]:
            if len(raw) <= MAX_BODY_BYTES_IN_LOOP:
                return video.content_type, video.body_for(model=model)
            written: tuple[str, bytes] = await self.reader.call(
                presented, "write_video", raw, request.header(b"content-type"), model
            )
            return written

        return write

    async def _submit_upstream(
        self, video: VideoRequest, targets: Sequence[Target], write: WriteVideo
    ) -> tuple[Target, TaskReport]:
        failures: list[UpstreamError] = []
        try:
            async with asyncio.timeout(SUBMIT_TIMEOUT_S):
                for target in self.upstreams.in_order(targets, path=VIDEOS_PATH, model=video.model):
                    try:
                        return target, await self._submit_to(target, video, write)
                    except UpstreamError as error:
                        failures.append(error)
                        if not error.tries_next:
                            break
        except TimeoutError:
            raise UpstreamError("no upstream accepted the task in time", status=504) from None
        raise final_failure(failures)

    async def _submit_to(self, target: Target, video: VideoRequest, write: WriteVideo) -> TaskReport:
        content_type, body = await write(target.model_name(video.model))
        response = await self.upstreams.request(
            "POST",
            target,
            VIDEOS_PATH,
            body,
            content_type,
            model=video.model,
            is_fresh=True,
        )
        try:
            with response:
                report = read_report(await response.read(MAX_TASK_BYTES))
        except HttpError as error:
            raise UpstreamError(f"{target.name} broke off: {error}") from error
        if report is None or not report.upstream_task_id:
            raise UpstreamError(f"{target.name} answered without a task")
        return report

    async def _answer_failure(self, request: Request, task: Task, failure: UpstreamError) -> None:
        report = TaskReport(Task.Status.FAILED, code="upstream_error", http_status=failure.status)
        await in_database(apply_report, task, report)
        headers = _headers(task)
        if failure.is_client_error:
            await request.answer(failure.status, failure.body, headers, failure.content_type)
            return
        log.warning("upstream_failed", reason=str(failure), request=str(task.pk))
        await request.refuse(errors.upstream_failed(), headers)

    async def _find(self, request: Request, presented: Presented, name: str) -> Task:
        return await in_database(_find, presented, request.address, name)

    async def _show(self, request: Request, task: Task) -> None:
        await _answer_task(request, await self._refreshed(task))

    async def _content(self, request: Request, task: Task) -> None:
        task = await self._refreshed(task)
        # Only a task that succeeded was charged.
        if task.status != Task.Status.SUCCESS:
            message = _("This video cannot be fetched; its status is: %(status)s.")
            raise invalid(message % {"status": task.get_status_display()})
        target = await in_database(upstream_of, task)
        if target is None:
            raise errors.upstream_failed(_("The provider that made this video is no longer configured here."))
        query = urlencode(parse_qsl(request.scope["query_string"].decode("latin-1")))
        path = f"{VIDEOS_PATH}/{quote(task.upstream_task_id, safe='')}/content" + (f"?{query}" if query else "")
        try:
            response = await self.upstreams.request("GET", target, path)
        except UpstreamError as failure:
            if failure.is_client_error:
                await request.answer(failure.status, failure.body, _headers(task), failure.content_type)
                return
            raise errors.upstream_failed() from failure
        with response:
            await _relay_content(request, task, response)

    async def _refreshed(self, task: Task) -> Task:
        if task.is_finished:
            return task
        claim = await in_database(claim_for_client, task)
        return await refresh(claim, self.upstreams) if claim else task

    def _offer(self, name: str) -> Offer:
        offer = self.catalogue.offers.get(name)
        if offer is None or not offer.targets:
            raise errors.unknown_model(name)
        return offer


def video_json(task: Task) -> dict[str, Any]:
    body = {
        "object": "video",
        "model": task.model,
        "status": _OPENAI_STATUS.get(Task.Status(task.status), task.status),
        "progress": task.progress,
        "created_at": int(task.submitted_at.timestamp()),
        "seconds": str(task.seconds),
    }
    if task.answer:
        body |= json.loads(task.answer)
    if task.code in (message := _own_failure_messages()):
        body |= {"status": "failed", "error": {"code": task.code, "message": message[task.code]}}
    return body | {"id": task.public_id}


def _own_failure_messages() -> dict[str, str]:
    return {
        NOT_SUBMITTED: _("The model's provider did not take this task. Nothing was charged."),
        GONE_UPSTREAM: _("The model's provider no longer knows this task. Nothing was charged."),
        TIMED_OUT: _("This task was not finished in time. Nothing was charged."),
        "upstream_error": _("The model's provider failed. Nothing was charged."),
    }


async def _answer_task(request: Request, task: Task, headers: dict[str, str] | None = None) -> None:
    await request.answer(200, json.dumps(video_json(task)).encode(), _headers(task) | (headers or {}))


def _headers(task: Task) -> dict[str, str]:
    headers = {"x-space-request-id": str(task.pk)}
    return headers if task.cost is None else headers | {"x-space-cost-usd": format_exact(task.cost)}


def _willing(offer: Offer, video: VideoRequest) -> list[Target]:
    """The upstreams that take fields which nobody sorted, if the request has any. Raises ApiError 400 if none does."""
    willing = [target for target in offer.targets if not video.unknown or target.profile.unknown_fields == "pass"]
    if not willing:
        raise unsupported(video.unknown[0], UNSORTED)
    return willing


async def _accept_with_retries(task: Task, target: Target, report: TaskReport) -> Task:
    # Retry while the database is unavailable, because the upstream already works on the task.
    give_up_at = time.monotonic() + MAX_RETRY_S
    while True:
        try:
            return await in_database(accept, task, target, report)
        except DATABASE_ERRORS:
            if time.monotonic() > give_up_at:
                log.exception("task_not_written", task=str(task.pk), upstream_task=report.upstream_task_id)
                raise
            await asyncio.sleep(RETRY_INTERVAL_S)


async def _relay_content(request: Request, task: Task, response: UpstreamResponse) -> None:
    kept = ("content-type", "content-length", "content-disposition")
    headers = {name: response.headers[name] for name in kept if name in response.headers}
    await request.start(200, headers | _headers(task))
    try:
        # Nothing is charged by what is fetched, so nothing is read on for a client that left.
        with request.present(Linger(0, max_answers=0)):
            async for chunk in response.chunks():
                await request.write(chunk, more=True)
    except HttpError as error:
        # Without a last empty chunk, the client notices that bytes are missing.
        log.warning("content_broke_off", task=str(task.pk), error=str(error))
        return
    await request.write(b"", more=False)


def _authorize(presented: Presented, address: str | None) -> tuple[int, int]:
    """The key's (space id, user id). Raises KeyRefused."""
    key = usable_key(presented, address=address)
    return key.space_id, key.user_id


def _find(presented: Presented, address: str | None, name: str) -> Task:
    """The user's own task. Raises ApiError 404 for every other, whether or not it exists."""
    space_id, user_id = _authorize(presented, address)
    match = _PUBLIC_ID.fullmatch(name)
    task = match and Task.objects.filter(space=space_id, user_id=user_id, pk=UUID(match[1])).first()
    if not task:
        raise errors.unknown_task()
    return task
