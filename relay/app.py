"""The OpenAI-compatible endpoint under /v1: an ASGI application beside Django, in the same process.

Hold, forward, settle. Nothing is forwarded before its hold is durable, nothing but a stream is answered before it is
settled, and a settlement is shielded from a client that leaves.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError

from accounts.keys import Presented, parse_key
from core.errors import KeyRefused, QuotaError
from core.money import format_exact
from relay import errors, quick_json
from relay.asks import KINDS, Ask, Kind, model_of, read_ask
from relay.catalogue import Catalogue, Offer
from relay.charges import Charge, authorize, know, open_charge, refusal
from relay.errors import PASSED_ON
from relay.exchange import ClientGoneError, Receive, Request, Scope, Send
from relay.http import Answer, HttpError
from relay.pricing import parse_usage
from relay.stream import Events
from relay.teller import Teller
from relay.upstreams import UpstreamError, Upstreams
from relay.videos import Videos

log = structlog.get_logger(__name__)

ANSWER_MOST = 64 * 1024 * 1024
# How long an answer may take before it is watched whether its client is still there.
LOOK_AFTER_S = 0.5


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


def _presented(request: Request) -> Presented:
    scheme, _, text = request.header(b"authorization").partition(" ")
    presented = parse_key(text.strip()) if scheme.lower() == "bearer" else None
    if presented is None:
        raise KeyRefused("invalid_api_key")
    return presented


def _model_row(offer: Offer) -> dict[str, Any]:
    return {"id": offer.name, "object": "model", "created": offer.created, "owned_by": "space-manage"}
