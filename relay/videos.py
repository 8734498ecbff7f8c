"""The endpoint /v1/videos: submit a video, look at it, fetch it.

A client knows a video by our id alone; all else of the upstream's JSON passes untouched.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode
from uuid import UUID

import structlog
from django.core.exceptions import SuspiciousOperation
from django.core.files.uploadhandler import FileUploadHandler
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from django.utils.translation import gettext as _

from accounts.keys import Presented, usable_key
from core.errors import QuotaError
from core.money import format_exact
from relay import errors
from relay.asks import CHOICES_MOST, json_object, model_of, named_model
from relay.catalogue import Catalogue, Offer
from relay.charges import know, refusal
from relay.errors import PASSED_ON, ApiError, invalid
from relay.exchange import Request
from relay.http import Answer, HttpError
from relay.tasks import (
    ANSWER_MOST,
    GONE_UPSTREAM,
    NOT_SUBMITTED,
    PATH,
    SUBMIT_TIMEOUT_S,
    TIMED_OUT,
    Report,
    accept,
    claim_for_client,
    in_database,
    opening,
    read_report,
    record,
    refresh,
    upstream_of,
)
from relay.teller import DATABASE_AWAY, PATIENCE_S, PAUSE_S, Teller
from relay.upstreams import Target, UpstreamError, Upstreams
from usage.models import Task

log = structlog.get_logger(__name__)

# What OpenAI makes of a request that names no length.
SECONDS_USUAL = 4
SECONDS_MOST = 3600
_PUBLIC_ID = re.compile(r"video_([0-9a-f]{32})", re.ASCII)
_OPENAI_STATUS = {Task.Status.SUCCESS: "completed"}
# Fields that a hold is reckoned from: named twice, we and the upstream might read another.
_WEIGHED = ("model", "seconds", "n")


@dataclass(frozen=True)
class VideoAsk:
    """What a client asks for, and the body that the upstream gets."""

    model: str
    seconds: int
    images: int
    body: bytes
    content_type: str


def read_video_ask(raw: bytes, content_type: str) -> VideoAsk:
    """JSON, or the multipart form that OpenAI's clients send. Raises ApiError 400 naming the field."""
    is_form = content_type.lower().startswith("multipart/form-data")
    fields = _form(raw, content_type) if is_form else json_object(raw)
    return VideoAsk(
        model=named_model(fields),
        seconds=_figure(fields, "seconds", usual=SECONDS_USUAL, most=SECONDS_MOST),
        images=_figure(fields, "n", usual=1, most=CHOICES_MOST),
        # JSON is written anew, so that a name that stands in it twice is read one way by all.
        body=raw if is_form else json.dumps(fields).encode(),
        content_type=content_type if is_form else "application/json",
    )


class Videos:
    """Serves what lies below /v1/videos, with the parts of the relay that it is part of."""

    def __init__(self, teller: Teller, catalogue: Catalogue, upstreams: Upstreams) -> None:
        self.teller = teller
        self.catalogue = catalogue
        self.upstreams = upstreams

    async def serve(self, request: Request, presented: Presented, rest: str) -> None:
        name, _slash, part = rest.partition("/")
        if part not in ("", "content"):
            raise errors.unknown_endpoint()
        right = "GET" if name else "POST"
        if request.scope["method"] != right:
            raise errors.wrong_method(right)
        if not name:
            await self._submit(request, presented)
        elif part:
            await self._content(request, await self._find(request, presented, name))
        else:
            await self._show(request, await self._find(request, presented, name))

    async def _submit(self, request: Request, presented: Presented) -> None:
        """Hold and task are durable before an upstream hears of it; a client that leaves changes nothing from there."""
        raw = await request.body(lambda: know(self.teller, presented, request.address))
        try:
            ask = await asyncio.to_thread(read_video_ask, raw, request.header(b"content-type"))
            offer = self._offer(ask.model)
        except ApiError as error:
            # A wrong key is told before a wrong body: a stranger learns nothing of what is offered.
            await self._log_refusal(request, presented, model_of(raw), error)
            raise
        opened = opening(
            presented,
            address=request.address,
            offer=offer,
            body_bytes=len(raw),
            seconds=ask.seconds,
            images=ask.images,
        )
        try:
            task, hold = await self.teller.ask(opened)
        except QuotaError as error:
            await self._log_refusal(request, presented, ask.model, errors.refused(error))
            raise
        try:
            target, report = await self._send(ask, offer.targets)
        except UpstreamError as failure:
            await self._tell_failure(request, task, failure)
            return
        task = await _accepted(task, target, report)
        await _tell(request, task, {"x-space-held-usd": format_exact(hold.amount)})

    async def _log_refusal(self, request: Request, presented: Presented, model: str, error: ApiError) -> None:
        """Raises KeyRefused where it is the key that is wrong."""
        await self.teller.ask(refusal(presented, request.address, model=model, status=error.status, code=error.code))

    async def _send(self, ask: VideoAsk, targets: list[Target]) -> tuple[Target, Report]:
        """The upstream that took it, and what it said. Raises UpstreamError when none did."""
        failure = UpstreamError("no upstream serves this model")
        try:
            async with asyncio.timeout(SUBMIT_TIMEOUT_S):
                for target in self.upstreams.in_order(targets):
                    try:
                        return target, await self._send_to(target, ask)
                    except UpstreamError as error:
                        failure = error
                        if error.status in PASSED_ON:
                            break
        except TimeoutError:
            failure = UpstreamError("took too long to take a task", status=504)
        raise failure

    async def _send_to(self, target: Target, ask: VideoAsk) -> Report:
        answer = await self.upstreams.request("POST", target, PATH, ask.body, ask.content_type, is_fresh=True)
        try:
            with answer:
                report = read_report(await answer.read(ANSWER_MOST))
        except HttpError as error:
            raise UpstreamError(f"{target.name} broke off: {error}") from error
        if report is None or not report.upstream_task_id:
            raise UpstreamError(f"{target.name} answered no task")
        return report

    async def _tell_failure(self, request: Request, task: Task, failure: UpstreamError) -> None:
        report = Report(Task.Status.FAILED, code="upstream_error", http_status=failure.status)
        await in_database(record, task, report)
        headers = _headers(task)
        if failure.status in PASSED_ON and failure.body:
            await request.answer(failure.status, failure.body, headers, failure.content_type)
            return
        log.warning("upstream_failed", reason=str(failure), request=str(task.pk))
        await request.refuse(errors.upstream_failed(_("The model's provider failed. Nothing was charged.")), headers)

    async def _find(self, request: Request, presented: Presented, name: str) -> Task:
        return await in_database(_find, presented, request.address, name)

    async def _show(self, request: Request, task: Task) -> None:
        await _tell(request, await self._fresh(task))

    async def _content(self, request: Request, task: Task) -> None:
        """The video itself, passed on as it comes. Only of a task that has succeeded: what failed was not paid for."""
        task = await self._fresh(task)
        if task.status != Task.Status.SUCCESS:
            words = _("This video cannot be fetched; its status is: %(status)s.")
            raise invalid(words % {"status": task.get_status_display()})
        target = await in_database(upstream_of, task)
        if target is None:
            raise errors.upstream_failed(_("The provider that made this video is not served any more."))
        query = urlencode(parse_qsl(request.scope["query_string"].decode("latin-1")))
        path = f"{PATH}/{quote(task.upstream_task_id, safe='')}/content" + (f"?{query}" if query else "")
        try:
            answer = await self.upstreams.request("GET", target, path)
        except UpstreamError as failure:
            if failure.status in PASSED_ON and failure.body:
                await request.answer(failure.status, failure.body, _headers(task), failure.content_type)
                return
            raise errors.upstream_failed(_("The model's provider failed. Nothing was charged.")) from failure
        with answer:
            await _pass_on(request, task, answer)

    async def _fresh(self, task: Task) -> Task:
        """As its upstream tells it now, or told it a moment ago."""
        if task.is_finished:
            return task
        claim = await in_database(claim_for_client, task)
        return await refresh(claim, self.upstreams) if claim else task

    def _offer(self, name: str) -> Offer:
        offer = self.catalogue.offers.get(name)
        if offer is None or not offer.targets:
            raise errors.unknown_model(name)
        return offer


def told(task: Task) -> dict[str, Any]:
    """The task as a client reads it: what the upstream said, under our id and with our last word."""
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
    if task.code in (words := _words_of_ours()):
        body |= {"status": "failed", "error": {"code": task.code, "message": words[task.code]}}
    return body | {"id": task.public_id}


def _words_of_ours() -> dict[str, str]:
    """Failures that the upstream did not tell."""
    return {
        NOT_SUBMITTED: _("The model's provider did not take this task. Nothing was charged."),
        GONE_UPSTREAM: _("The model's provider does not know this task any more. Nothing was charged."),
        TIMED_OUT: _("This task was not finished in time. Nothing was charged."),
        "upstream_error": _("The model's provider failed. Nothing was charged."),
    }


async def _tell(request: Request, task: Task, headers: dict[str, str] | None = None) -> None:
    await request.answer(200, json.dumps(told(task)).encode(), _headers(task) | (headers or {}))


def _headers(task: Task) -> dict[str, str]:
    headers = {"x-space-request-id": str(task.pk)}
    return headers if task.cost is None else headers | {"x-space-cost-usd": format_exact(task.cost)}


async def _accepted(task: Task, target: Target, report: Report) -> Task:
    """The upstream works already, so the books are written however long the database is away."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await in_database(accept, task, target, report)
        except DATABASE_AWAY:
            if time.monotonic() > give_up_at:
                log.exception("task_not_written", task=str(task.pk), upstream_task=report.upstream_task_id)
                raise
            await asyncio.sleep(PAUSE_S)


async def _pass_on(request: Request, task: Task, answer: Answer) -> None:
    kept = ("content-type", "content-length", "content-disposition")
    headers = {name: answer.headers[name] for name in kept if name in answer.headers}
    await request.start(200, headers | _headers(task))
    try:
        with request.while_there():
            async for chunk in answer.chunks():
                await request.write(chunk, more=True)
    except HttpError as error:
        # The client sees fewer bytes than it was promised.
        log.warning("content_broke_off", task=str(task.pk), error=str(error))
        return
    await request.write(b"", more=False)


def _authorize(presented: Presented, address: str | None) -> tuple[int, int]:
    """(space, user) of a key that may be used. Raises KeyRefused."""
    key = usable_key(presented, address=address)
    return key.space_id, key.user_id


def _find(presented: Presented, address: str | None, name: str) -> Task:
    """The user's own task. Raises ApiError 404 for any other, as for one that never was."""
    space_id, user_id = _authorize(presented, address)
    match = _PUBLIC_ID.fullmatch(name)
    task = match and Task.objects.filter(space=space_id, user_id=user_id, pk=UUID(match[1])).first()
    if not task:
        raise errors.unknown_task()
    return task


# -- Reading ------------------------------------------------------------------------------------------------------


class _NamesOnly(FileUploadHandler):
    """Keeps nothing of a file but the field that it came in."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def new_file(self, field_name: str, *args: Any, **kwargs: Any) -> None:
        self.names.append(field_name)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        return None

    def file_complete(self, file_size: int) -> None:
        return None


def _form(raw: bytes, content_type: str) -> dict[str, Any]:
    files = _NamesOnly()
    meta = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": len(raw)}
    try:
        fields, _files = MultiPartParser(meta, BytesIO(raw), [files], "utf-8").parse()
    except (MultiPartParserError, SuspiciousOperation):
        raise invalid("The body is not a form that can be read.") from None
    named = Counter(files.names) + Counter(name for name, values in fields.lists() for _value in values)
    for name in _WEIGHED:
        if named[name] > 1 or name in files.names:
            raise invalid(f"{name} is given once, as text.", name)
    return dict(fields.items())


def _figure(fields: dict[str, Any], name: str, *, usual: int, most: int) -> int:
    """A whole number, or the digits of one: OpenAI's seconds are a string."""
    value = fields.get(name)
    if value is None:
        return usual
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        value = int(value)
    if type(value) is not int or not 1 <= value <= most:
        raise invalid(f"{name} is a whole number from 1 to {most}.", name)
    return value
