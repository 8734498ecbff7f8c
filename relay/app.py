"""The OpenAI-compatible endpoint under /v1: an ASGI application beside Django, in the same process.

Hold, forward, settle. Nothing is forwarded before its hold is durable, nothing but a stream is answered before it is
settled, and a settlement is shielded from a client that leaves.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError

from accounts.keys import Presented, present
from core.addresses import believed_address
from core.errors import KeyRefused, QuotaError
from core.money import format_exact
from relay import errors, quick_json
from relay.asks import BODY_MOST, KINDS, Ask, Kind, model_of, read_ask
from relay.catalogue import Catalogue, Offer
from relay.charges import Charge, authorize, know, open_charge, refusal
from relay.errors import PASSED_ON
from relay.http import Answer, HttpError
from relay.pricing import parse_usage
from relay.stream import Events
from relay.teller import Teller
from relay.upstreams import UpstreamError, Upstreams
from relay.videos import Videos

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = structlog.get_logger(__name__)

ANSWER_MOST = 64 * 1024 * 1024
# Of a body, before the key is looked at.
STRANGERS_MOST = 256 * 1024
# How long an answer may take before it is watched whether its client is still there.
LOOK_AFTER_S = 0.5


class Request:
    """One HTTP exchange: what was sent, and the way to answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self._there: WhileThere | None = None

    def header(self, name: bytes) -> str:
        """All its lines in one, since a proxy may have added one below those it was sent; empty where there is none."""
        return b",".join([value for key, value in self.scope["headers"] if key == name]).decode("latin-1")

    @property
    def address(self) -> str | None:
        client = self.scope.get("client") or ("",)
        return believed_address(client[0], self.header(b"x-forwarded-for"))

    async def body(self, known: Callable[[], Awaitable[None]]) -> bytes:
        """Raises ApiError 413 beyond BODY_MOST, before it is all in memory; and what `known` raises of a long one.

        Else strangers would have us keep as much as they like to send.
        """
        parts, size, is_known = [], 0, False
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            size += len(part)
            if size > BODY_MOST:
                raise errors.ApiError(413, "invalid_request", f"The body is larger than {BODY_MOST} bytes.")
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)
            if size > STRANGERS_MOST and not is_known:
                await known()
                is_known = True

    def while_there(self, *, look_after_s: float = 0.0) -> WhileThere:
        """Cancels what is done inside when the client leaves: ClientGoneError. Only after the body was read."""
        if self._there is None:
            self._there = WhileThere(self.receive)
        self._there.look_after(look_after_s)
        return self._there

    def end(self) -> None:
        if self._there is not None:
            self._there.end()

    async def start(self, status: int, headers: dict[str, str]) -> None:
        listed = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": listed})

    async def write(self, chunk: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def answer(self, status: int, body: bytes, headers: dict[str, str], content_type: str = "") -> None:
        sized = {"content-type": content_type or "application/json", "content-length": str(len(body))}
        await self.start(status, sized | headers)
        await self.write(body, more=False)

    async def refuse(self, error: errors.ApiError, headers: dict[str, str] | None = None) -> None:
        await self.answer(error.status, json.dumps(error.body()).encode(), error.headers() | (headers or {}))


class WhileThere:
    """What Request.while_there gives: one timer and one task for a whole exchange, which may enter it again and again.

    Servers tell that a client has left by `receive` alone, which costs a task: short work looks only when it turned out
    long.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[None] | None = None
        # The task that is inside; None while none is.
        self._task: asyncio.Task[Any] | None = None
        self._cancelled_before = 0
        self._has_left = False

    def look_after(self, seconds: float) -> None:
        if not seconds:
            self._look()
        elif self._looking is None:
            self._looking = self._loop.call_later(seconds, self._look)

    def end(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._leaving is not None:
            self._leaving.cancel()

    def __enter__(self) -> None:
        if self._leaving is not None and self._leaving.done():
            raise ClientGoneError
        self._task = asyncio.current_task(self._loop)
        assert self._task is not None
        self._cancelled_before = self._task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As asyncio.timeout does it: our own cancellation is told from another's by their number."""
        task, self._task = self._task, None
        if not self._has_left or task is None:
            return
        is_ours_alone = task.uncancel() <= self._cancelled_before
        if is_ours_alone and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise ClientGoneError from None

    def _look(self) -> None:
        # Never cancelled before the end: some servers lose what a cancelled one heard.
        if self._leaving is None:
            self._leaving = self._loop.create_task(_disconnected(self._receive))
            self._leaving.add_done_callback(self._leave)

    def _leave(self, _: object) -> None:
        if self._task is not None:
            self._has_left = True
            self._task.cancel()


class ClientGoneError(Exception):
    """Nobody is there to answer any more."""


class Strangers:
    """Counts requests whose key is nobody's and says so now and then: rows of the log would be theirs to fill."""

    EVERY_S = 60.0

    def __init__(self) -> None:
        self.count = 0
        self._told_at = -self.EVERY_S

    def note(self) -> None:
        self.count += 1
        now = time.monotonic()
        if now - self._told_at >= self.EVERY_S:
            log.info("unknown_keys_refused", count=self.count)
            self._told_at, self.count = now, 0


class Relay:
    """`start` before the first request, `close` after the last; callable as an ASGI application in between."""

    def __init__(self) -> None:
        self.strangers = Strangers()
        self.teller = Teller()
        self.catalogue = Catalogue()
        self.upstreams = Upstreams()
        self.videos = Videos(self.teller, self.catalogue, self.upstreams)

    async def start(self) -> None:
        self.teller.start()
        await asyncio.to_thread(self.catalogue.start)

    async def close(self) -> None:
        self.upstreams.close()
        await asyncio.to_thread(self.catalogue.close)
        await self.teller.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            await self._serve(request)
        except errors.ApiError as error:
            await request.refuse(error)
        except QuotaError as error:
            if error.code == "invalid_api_key":
                self.strangers.note()
            await request.refuse(errors.refused(error))
        except (DatabaseError, InterfaceError):
            await request.refuse(errors.unavailable())
        except ClientGoneError:
            pass
        finally:
            request.end()

    async def _serve(self, request: Request) -> None:
        path = request.scope["path"].removeprefix("/v1").rstrip("/")
        presented = _presented(request)
        if path == "/models" or path.startswith("/models/"):
            await self._models(request, presented, path.removeprefix("/models").lstrip("/"))
            return
        if path == "/videos" or path.startswith("/videos/"):
            await self.videos.serve(request, presented, path.removeprefix("/videos").lstrip("/"))
            return
        kind = KINDS.get(path)
        if kind is None:
            raise errors.ApiError(404, "invalid_request", "There is no such endpoint here.")
        if request.scope["method"] != "POST":
            raise errors.ApiError(405, "invalid_request", "This endpoint takes POST.")
        await self._spend(request, presented, kind)

    async def _models(self, request: Request, presented: Presented, name: str) -> None:
        if request.scope["method"] != "GET":
            raise errors.ApiError(405, "invalid_request", "This endpoint takes GET.")
        allowed = await self.teller.ask(authorize(presented, request.address))
        offers = [offer for offer in self.catalogue.offers.values() if not allowed or offer.name in allowed]
        rows = [_model_row(offer) for offer in sorted(offers, key=lambda offer: offer.name)]
        if not name:
            await request.answer(200, json.dumps({"object": "list", "data": rows}).encode(), {})
            return
        row = next((row for row in rows if row["id"] == name), None)
        if row is None:
            raise errors.unknown_model(name)
        await request.answer(200, json.dumps(row).encode(), {})

    async def _spend(self, request: Request, presented: Presented, kind: Kind) -> None:
        raw = await request.body(lambda: know(self.teller, presented, request.address))
        try:
            ask = read_ask(kind, raw)
            offer = self._offer(ask.model)
        except errors.ApiError as error:
            # A wrong key is told before a wrong body: a stranger learns nothing of what is offered.
            asked = model_of(raw)
            await self.teller.ask(
                refusal(presented, request.address, model=asked, status=error.status, code=error.code)
            )
            raise
        charge = await open_charge(self.teller, presented, request.address, ask, offer)
        try:
            await self._forward(request, ask, offer, charge)
        except BaseException as error:
            # Whatever went wrong, the hold does not outlive the request.
            has_left = isinstance(error, asyncio.CancelledError | ClientGoneError)
            await charge.fail(499 if has_left else 500, "client_gone" if has_left else "relay_error")
            raise

    def _offer(self, name: str) -> Offer:
        offer = self.catalogue.offers.get(name)
        if offer is None or not offer.targets:
            raise errors.unknown_model(name)
        return offer

    async def _forward(self, request: Request, ask: Ask, offer: Offer, charge: Charge) -> None:
        body = ask.for_upstream(charge.output_limit)
        failure = UpstreamError("no upstream serves this model")
        for target in self.upstreams.in_order(offer.targets):
            try:
                with request.while_there(look_after_s=LOOK_AFTER_S):
                    answer = await self.upstreams.request("POST", target, ask.kind.path, body)
            except UpstreamError as error:
                failure = error
                if error.status in PASSED_ON:
                    break
                continue
            with answer:
                if ask.is_stream and answer.content_type == "text/event-stream":
                    await self._stream(request, ask, charge, answer)
                else:
                    await self._whole(request, charge, answer)
            return
        await _tell_failure(request, charge, failure)

    async def _whole(self, request: Request, charge: Charge, answer: Answer) -> None:
        """An answer in one piece: settled first, then sent."""
        try:
            with request.while_there(look_after_s=LOOK_AFTER_S):
                body = await answer.read(ANSWER_MOST)
        except HttpError as error:
            await _tell_failure(request, charge, UpstreamError(f"broke off: {error}"))
            return
        usage = parse_usage(quick_json.read_usage(body))
        settled = await charge.settle(usage or charge.estimate(len(body)), is_estimated=usage is None)
        headers = charge.headers() | {
            "x-space-cost-usd": format_exact(settled.cost_nanos),
            "x-space-remaining-usd": format_exact(settled.available_nanos),
        }
        await request.answer(200, body, headers, answer.headers.get("content-type", ""))

    async def _stream(self, request: Request, ask: Ask, charge: Charge, answer: Answer) -> None:
        """Bytes pass as they come. However it ends, what was delivered is charged and the rest released."""
        charge.events = events = Events(shows_usage=ask.shows_usage)
        held = {"x-space-held-usd": format_exact(charge.held_nanos), "cache-control": "no-cache"}
        await request.start(200, {"content-type": "text/event-stream"} | charge.headers() | held)
        status, code = 499, "client_gone"
        try:
            with request.while_there():
                status, code = await _pass_on(request, answer, events, charge)
        except ClientGoneError:
            pass
        finally:
            usage = events.usage
            used = usage or charge.estimate(events.text_bytes)
            await charge.settle(used, is_estimated=usage is None, status=status, code=code)
        if code != "client_gone":
            await request.write(b"", more=False)


async def _pass_on(request: Request, answer: Answer, events: Events, charge: Charge) -> tuple[int, str]:
    """(status, code) of how the stream ended."""
    status, code = 200, ""
    try:
        async for chunk in answer.chunks():
            charge.note_first()
            if out := events.feed(chunk):
                await request.write(out, more=True)
    except HttpError:
        status, code = 502, "upstream_broke_off"
    if out := events.finish():
        await request.write(out, more=True)
    return status, code


async def _tell_failure(request: Request, charge: Charge, failure: UpstreamError) -> None:
    """Costs nothing, is logged as an error; the client's own mistakes come back as the upstream told them."""
    await charge.fail(failure.status, "upstream_error")
    if failure.status in PASSED_ON and failure.body:
        await request.answer(failure.status, failure.body, charge.headers(), failure.content_type)
        return
    log.warning("upstream_failed", reason=str(failure), request=str(charge.request_id))
    await request.refuse(errors.upstream_failed("The model's provider failed. Nothing was charged."), charge.headers())


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _presented(request: Request) -> Presented:
    scheme, _, text = request.header(b"authorization").partition(" ")
    presented = present(text.strip()) if scheme.lower() == "bearer" else None
    if presented is None:
        raise KeyRefused("invalid_api_key")
    return presented


def _model_row(offer: Offer) -> dict[str, Any]:
    return {"id": offer.name, "object": "model", "created": offer.created, "owned_by": "space-manage"}
