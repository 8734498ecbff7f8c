"""Forward a held request to its upstreams in turn, deliver the answer, and settle what it told.

An answer is read on after its client left, for a while. An upstream that fails before anything was delivered is
followed by the next; what a failure inside an answer used is charged.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from django.conf import settings

from core.money import format_exact
from quotas.sets import Settled
from relay import errors
from relay.answers import Answer, read_answer
from relay.charges import CLIENT_GONE, Charge, Progress
from relay.delivery import Delivery
from relay.dialects.ask import Ask
from relay.dialects.dialect import Dialect
from relay.exchange import MAX_BODY_BYTES_IN_LOOP, ClientGoneError, Linger, Request
from relay.faults import Fault
from relay.http import HttpError, UpstreamResponse
from relay.renaming import masked_event, renamer
from relay.stream import Events
from relay.upstreams import MIN_BACKOFF_S, Target, UpstreamError, Upstreams, final_failure

log = structlog.get_logger(__name__)

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
# Watching for a disconnect costs an asyncio task, so requests that are answered sooner than this do without one.
DISCONNECT_CHECK_DELAY_S = 0.5
MAX_LEFT_ANSWERS = 500
# Of a stream that has made nothing yet.
MAX_HELD_BACK_BYTES = 64 * 1024
_LIFETIMES = ("cache_write_5m", "cache_write_1h", "cache_write_12h")
_FAILED = "upstream_error"

OnStored = Callable[[tuple[str, ...], Target], Awaitable[None]]


@dataclass(frozen=True)
class Forwarding:
    """One request on its way: what it asks, what it holds, and who waits for it."""

    request: Request
    dialect: Dialect
    ask: Ask
    charge: Charge
    # Writes the body in the reader's process, where the event loop would wait too long for it; None for a small one.
    write_elsewhere: Callable[[dict[str, Any]], Awaitable[bytes]] | None
    # Pseudonym of the member, and of the space, for fields that name an end user or a cache.
    user: str
    cache_scope: str
    on_stored: OnStored | None

    @property
    def facts(self) -> Mapping[str, str]:
        """What was asked, for the reader of the answer: also how long cache writes live that are told without it."""
        lifetimes = self.ask.extent.cache_writes
        return {**self.ask.facts, "cache_write": max(lifetimes, key=_LIFETIMES.index)} if lifetimes else self.ask.facts

    async def body_for(self, target: Target) -> bytes:
        named: dict[str, Any] = {
            "profile": target.profile,
            "model": target.model_name(self.ask.model),
            "limit": self.charge.output_limit,
            "user": self.user,
            "cache_scope": self.cache_scope,
            "tier": self.charge.tier_for(target),
        }
        if self.write_elsewhere is not None:
            return await self.write_elsewhere(named)
        return self.dialect.body_for(self.ask, **named)


class Forwarder:
    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        # Upstreams, each with a model, that told more output than the limit which they were sent.
        self.breakers: set[tuple[int, str]] = set()
        self._whole = Linger(settings.LEFT_ANSWER_S, max_answers=MAX_LEFT_ANSWERS)
        self._stream = Linger(settings.LEFT_STREAM_S, max_answers=MAX_LEFT_ANSWERS)

    async def forward(self, forwarding: Forwarding, targets: Sequence[Target]) -> None:
        """Try the targets in turn until one answers. However it ends, the charge is ended."""
        linger = self._stream if forwarding.ask.is_stream else self._whole
        exchange = _Exchange(forwarding, self._upstreams, linger, self.breakers)
        charge = forwarding.charge
        try:
            await exchange.run(targets)
        except (ClientGoneError, asyncio.CancelledError) as error:
            # Nobody waits any longer, or the server stops: what the upstream has begun is charged as an estimate.
            if charge.sent_at is None:
                await charge.fail(499, CLIENT_GONE)
            elif not charge.is_ended:
                await charge.settle_cut(exchange.progress(), code=CLIENT_GONE)
            if isinstance(error, asyncio.CancelledError):
                raise
        except BaseException:
            # Release the hold after any other exception; otherwise it blocks money until it is swept.
            await charge.fail(500, "relay_error")
            raise


class _Exchange:
    """The exchange of one request with its upstreams, one after the other."""

    def __init__(
        self, forwarding: Forwarding, upstreams: Upstreams, linger: Linger, breakers: set[tuple[int, str]]
    ) -> None:
        self._breakers = breakers
        self._to = forwarding
        self._upstreams = upstreams
        self._linger = linger
        self._events: Events | None = None
        self._delivery = Delivery(forwarding.request, forwarding.charge)
        self._comment: asyncio.Task[None] | None = None

    def progress(self) -> Progress:
        events = self._events
        return Progress() if events is None else Progress(events.answer, events.text_bytes, events.is_ended)

    async def run(self, targets: Sequence[Target]) -> None:
        request, charge = self._to.request, self._to.charge
        if self._to.ask.is_stream:
            charge.on_renew = self._beat
        failures: list[UpstreamError] = []
        with request.present(self._linger, delay_s=DISCONNECT_CHECK_DELAY_S):
            for target in targets:
                try:
                    await self._try(target)
                    return
                except UpstreamError as error:
                    charge.sent_at = None
                    failures.append(error)
                    if not error.tries_next or request.is_gone:
                        break
        await self._fail(failures)

    def _beat(self) -> None:
        if self._delivery.beat():
            self._comment = asyncio.ensure_future(self._delivery.comment())

    async def _try(self, target: Target) -> None:
        """Raises UpstreamError if nothing was delivered, so that the next one may be tried."""
        body = await self._to.body_for(target)
        self._to.charge.record_sent(target)
        self._events = None
        response = await self._upstreams.request("POST", target, self._to.dialect.path, body, model=self._to.ask.model)
        self._to.charge.upstream_request_id = response.request_id
        with response:
            await self._receive(target, response)

    async def _receive(self, target: Target, response: UpstreamResponse) -> None:
        chunks = response.chunks()
        try:
            first = await _first_bytes(chunks)
        except HttpError as error:
            raise self._broke_off(target, error) from error
        if Events.looks_like(first):
            await self._receive_stream(target, first, chunks)
        else:
            await self._receive_whole(target, first, chunks, response)

    # -- Whole answers

    async def _receive_whole(
        self, target: Target, first: bytes, chunks: AsyncIterator[bytes], response: UpstreamResponse
    ) -> None:
        charge, request = self._to.charge, self._to.request
        try:
            body = await _rest(first, chunks)
        except HttpError as error:
            raise self._broke_off(target, error) from error
        answer = await self._read(body)
        if answer.error is not None and answer.usage is None:
            raise self._inside_answer(target, answer)
        if self._to.on_stored is not None and answer.stored_ids:
            await self._to.on_stored(answer.stored_ids, target)
        status, code, message = _end_of(target, self._to.ask.model, answer)
        delivered = answer.text_bytes or (0 if answer.usage else len(body))
        if request.is_gone:
            await charge.settle(answer, delivered_bytes=delivered, status=499, code=CLIENT_GONE)
            return
        # Settled before it is sent, because the headers report the cost and what remains.
        settled = await charge.settle(answer, delivered_bytes=delivered, status=status, code=code, message=message)
        self._note_limit(target)
        if answer.error is not None:
            await self._refuse(errors.ApiError(status, code, message), settled)
        elif request.has_started:
            # Comments of a stream were sent while the upstream, which answers whole, was silent.
            await self._delivery.write(b"data: " + body.replace(b"\n", b" ") + b"\n\ndata: [DONE]\n\n")
            await self._delivery.finish(settled)
        else:
            content_type = response.headers.get("content-type", "")
            rename = renamer(target, self._to.ask.model) or _same
            await request.answer(200, rename(body), charge.headers() | _cost_headers(settled), content_type)

    async def _read(self, body: bytes) -> Answer:
        path, facts = self._to.dialect.path, self._to.facts
        if len(body) > MAX_BODY_BYTES_IN_LOOP * 8:
            return await asyncio.to_thread(read_answer, body, path=path, ask_facts=facts)
        return read_answer(body, path=path, ask_facts=facts)

    # -- Streams

    async def _receive_stream(self, target: Target, first: bytes, chunks: AsyncIterator[bytes]) -> None:
        ask, charge = self._to.ask, self._to.charge
        model, mask = ask.model, partial(masked_event, target, ask.model)
        self._events = events = Events(
            path=self._to.dialect.path,
            shows_usage=ask.shows_usage,
            ask_facts=self._to.facts,
            echo_bytes=ask.echo_bytes,
            mask_error=mask,
            cost_usd=charge.cost_usd,
        )
        charge.progress = self.progress
        rename = renamer(target, model) or _same
        waiting, is_broken, is_delivering = [events.feed(first)], False, False
        try:
            is_over = False
            while not is_over and _may_still_fail(events, waiting):
                chunk = await anext(chunks, b"")
                is_over = not chunk
                waiting.append(events.feed(chunk) if chunk else events.finish())
            self._refuse_useless(target, events, is_over=is_over)
            charge.record_first_token()
            is_delivering = True
            await self._deliver(rename(b"".join(waiting)))
            async for chunk in chunks:
                if out := events.feed(chunk):
                    await self._delivery.write(rename(out))
        except HttpError as error:
            if not is_delivering:
                raise self._broke_off(target, error) from error
            is_broken = True
        await self._deliver(rename(events.finish()))
        await self._end_stream(target, events, is_broken=is_broken)

    def _refuse_useless(self, target: Target, events: Events, *, is_over: bool) -> None:
        """Raise UpstreamError for a stream that failed before it made anything: another upstream may do better."""
        answer = events.answer
        if _is_used(answer):
            return
        if answer.error is not None:
            raise self._inside_answer(target, answer)
        if is_over and not events.is_ended:
            raise self._broke_off(target, HttpError("the stream ended before it made anything"))

    async def _deliver(self, out: bytes) -> None:
        if out:
            await self._delivery.write(out)

    async def _end_stream(self, target: Target, events: Events, *, is_broken: bool) -> None:
        answer = events.answer
        status, code, message = _end_of(target, self._to.ask.model, answer)
        error = None
        if answer.error is None and (is_broken or not events.is_ended):
            error = errors.broke_off()
            status, code, message = error.status, error.code, error.message
        if self._to.on_stored is not None and answer.stored_ids:
            await self._to.on_stored(answer.stored_ids, target)
        if self._to.request.is_gone:
            status, code, message = 499, CLIENT_GONE, ""
        settled = await self._to.charge.settle(
            answer,
            delivered_bytes=events.text_bytes,
            is_whole=events.is_ended,
            status=status,
            code=code,
            message=message,
        )
        self._note_limit(target)
        await self._delivery.finish(settled, error)

    def _note_limit(self, target: Target) -> None:
        """Remember an upstream that generates more than its limit: what its next request can cost is not the limit."""
        if self._to.charge.keeps_limit:
            return
        self._breakers.add((target.id, self._to.ask.model))
        log.warning("upstream_ignores_limit", upstream=target.name, model=self._to.ask.model)

    # -- Failures

    def _broke_off(self, target: Target, error: HttpError) -> UpstreamError:
        return self._upstreams.broke_off(target, self._to.ask.model, error)

    def _inside_answer(self, target: Target, answer: Answer) -> UpstreamError:
        assert answer.error is not None
        status, code, message = answer.error
        return self._upstreams.fault_in_answer(
            target, self._to.ask.model, Fault(message=message, code=code, status=status)
        )

    async def _fail(self, failures: list[UpstreamError]) -> None:
        """Release the hold and answer the failure: the client's own error as it is, else what concerns the client."""
        charge = self._to.charge
        failure = final_failure(failures)
        error = _answer_to(failures, failure)
        is_left = self._to.request.is_gone
        status, code = (499, CLIENT_GONE) if is_left else (error.status, error.code)
        await charge.fail(status, code, error.message, reason="; ".join(map(str, failures))[:500])
        if not failure.is_client_error:
            log.warning("upstream_failed", reason=str(failure), tried=len(failures), request=str(charge.request_id))
        await self._refuse(error, None, failure.body if failure.is_client_error else b"")

    async def _refuse(self, error: errors.ApiError, settled: Settled | None, body: bytes = b"") -> None:
        request, charge = self._to.request, self._to.charge
        if request.is_gone:
            return
        content = body or json.dumps(error.body()).encode()
        if request.has_started:
            await request.write(b"data: " + content.replace(b"\n", b" ") + b"\n\n", more=False)
            return
        headers = charge.headers() | error.headers() | (_cost_headers(settled) if settled else {})
        await request.answer(error.status, content, headers)


def _is_used(answer: Answer) -> bool:
    return answer.has_output or (answer.usage is not None and answer.usage.output_tokens > 0)


def _may_still_fail(events: Events, waiting: Sequence[bytes]) -> bool:
    """Whether a stream has made nothing yet. Its first events are held back, so that another upstream may follow."""
    if events.is_ended or sum(map(len, waiting)) > MAX_HELD_BACK_BYTES:
        return False
    return events.answer.error is None and not _is_used(events.answer)


async def _first_bytes(chunks: AsyncIterator[bytes]) -> bytes:
    # Some providers send blank lines or comments while they think, before the JSON or the first event.
    first = b""
    async for chunk in chunks:
        first += chunk
        if first.strip():
            break
    return first


async def _rest(first: bytes, chunks: AsyncIterator[bytes]) -> bytes:
    parts, size = [first], len(first)
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise HttpError(f"the answer is longer than {MAX_RESPONSE_BYTES} bytes")
        parts.append(chunk)
    return b"".join(parts) if len(parts) > 1 else first


def _end_of(target: Target, public_name: str, answer: Answer) -> tuple[int, str, str]:
    """(status, code, sentence) for the log, without what the sentence says about the operator's account."""
    if answer.error is None:
        return 200, "", ""
    status, _code, message = answer.error
    return max(status, 400), _FAILED, target.mask(public_name).apply(message)


def _same(out: bytes) -> bytes:
    return out


def _answer_to(failures: Sequence[UpstreamError], failure: UpstreamError) -> errors.ApiError:
    if failure.is_client_error:
        return errors.ApiError(failure.status, _FAILED, _told(failure))
    if failure.is_rate_limited:
        return errors.rate_limited(MIN_BACKOFF_S if failure.retry_after_s is None else failure.retry_after_s)
    return errors.upstream_failed()


def _told(failure: UpstreamError) -> str:
    # The body is what the client gets: the provider's sentence, masked.
    return str(json.loads(failure.body)["error"]["message"]) if failure.body else str(failure)


def _cost_headers(settled: Settled) -> dict[str, str]:
    return {
        "x-space-cost-usd": format_exact(settled.cost_nanos),
        "x-space-remaining-usd": format_exact(settled.available_nanos),
    }
