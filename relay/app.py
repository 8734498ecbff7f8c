"""The OpenAI-compatible API under /v1: an ASGI application beside Django, in the same process.

Each request is held, forwarded and settled. The hold is committed before the request is forwarded. The charge is
settled before the response is sent, except for a stream. A client that disconnects does not cancel the settlement.
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
from relay.catalogue import Catalogue, Offer
from relay.charges import Charge, check_order, open_charge, refusal_order, verify_key
from relay.errors import CLIENT_ERROR_STATUSES
from relay.exchange import ClientGoneError, Receive, Request, Scope, Send
from relay.http import HttpError, UpstreamResponse
from relay.model_requests import ENDPOINTS, Endpoint, ModelRequest, model_for_log, read_model_request
from relay.pricing import parse_usage
from relay.stream import EventStream
from relay.teller import Teller
from relay.upstreams import UpstreamError, Upstreams
from relay.videos import Videos

log = structlog.get_logger(__name__)

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
# Watching for a disconnect costs an asyncio task, so requests that are answered sooner than this do without one.
DISCONNECT_CHECK_DELAY_S = 0.5


class UnknownKeyCounter:
    """Counts requests with an unknown API key and logs the count at most once a minute.

    They get no usage record: anybody could fill the table with them.
    """

    LOG_INTERVAL_S = 60.0

    def __init__(self) -> None:
        self.count = 0
        self._logged_at = -self.LOG_INTERVAL_S

    def increment(self) -> None:
        self.count += 1
        now = time.monotonic()
        if now - self._logged_at >= self.LOG_INTERVAL_S:
            log.info("unknown_keys_refused", count=self.count)
            self._logged_at, self.count = now, 0


class Relay:
    """The ASGI application. Call `start` before the first request and `close` after the last."""

    def __init__(self) -> None:
        self.unknown_keys = UnknownKeyCounter()
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
                self.unknown_keys.increment()
            await request.refuse(errors.refused(error))
        except (DatabaseError, InterfaceError):
            await request.refuse(errors.unavailable())
        except ClientGoneError:
            pass
        finally:
            request.end()

    async def _serve(self, request: Request) -> None:
        path = request.scope["path"].removeprefix("/v1").rstrip("/")
        presented = _required_key(request)
        if path == "/models" or path.startswith("/models/"):
            await self._models(request, presented, path.removeprefix("/models").lstrip("/"))
            return
        if path == "/videos" or path.startswith("/videos/"):
            await self.videos.serve(request, presented, path.removeprefix("/videos").lstrip("/"))
            return
        endpoint = ENDPOINTS.get(path)
        if endpoint is None:
            raise errors.ApiError(404, "invalid_request", "This endpoint does not exist.")
        if request.scope["method"] != "POST":
            raise errors.ApiError(405, "invalid_request", "This endpoint accepts only POST.")
        await self._spend(request, presented, endpoint)

    async def _models(self, request: Request, presented: Presented, name: str) -> None:
        if request.scope["method"] != "GET":
            raise errors.ApiError(405, "invalid_request", "This endpoint accepts only GET.")
        allowed = await self.teller.ask(check_order(presented, request.address))
        offers = [offer for offer in self.catalogue.offers.values() if not allowed or offer.name in allowed]
        rows = [_model_row(offer) for offer in sorted(offers, key=lambda offer: offer.name)]
        if not name:
            await request.answer(200, json.dumps({"object": "list", "data": rows}).encode(), {})
            return
        row = next((row for row in rows if row["id"] == name), None)
        if row is None:
            raise errors.unknown_model(name)
        await request.answer(200, json.dumps(row).encode(), {})

    async def _spend(self, request: Request, presented: Presented, endpoint: Endpoint) -> None:
        raw = await request.body(lambda: verify_key(self.teller, presented, request.address))
        try:
            model_request = read_model_request(endpoint, raw)
            offer = self._offer(model_request.model)
        except errors.ApiError as error:
            # The key is verified before the body's error is returned, so that a client without a valid key cannot find
            # out which models are on sale. Raises KeyRefused instead.
            model = model_for_log(raw)
            await self.teller.ask(
                refusal_order(presented, request.address, model=model, status=error.status, code=error.code)
            )
            raise
        charge = await open_charge(self.teller, presented, request.address, model_request, offer)
        try:
            await self._forward(request, model_request, offer, charge)
        except BaseException as error:
            # Release the hold after any exception, cancellation included; otherwise it blocks money until it is swept.
            is_client_gone = isinstance(error, asyncio.CancelledError | ClientGoneError)
            await charge.fail(499 if is_client_gone else 500, "client_gone" if is_client_gone else "relay_error")
            raise

    def _offer(self, name: str) -> Offer:
        offer = self.catalogue.offers.get(name)
        if offer is None or not offer.targets:
            raise errors.unknown_model(name)
        return offer

    async def _forward(self, request: Request, model_request: ModelRequest, offer: Offer, charge: Charge) -> None:
        body = model_request.for_upstream(charge.output_limit)
        failure = UpstreamError("no upstream serves this model")
        for target in self.upstreams.in_order(offer.targets):
            try:
                with request.cancel_on_disconnect(delay_s=DISCONNECT_CHECK_DELAY_S):
                    response = await self.upstreams.request("POST", target, model_request.endpoint.path, body)
            except UpstreamError as error:
                failure = error
                if error.status in CLIENT_ERROR_STATUSES:
                    break
                continue
            with response:
                if model_request.is_stream and response.content_type == "text/event-stream":
                    await self._send_stream(request, model_request, charge, response)
                else:
                    await self._send_complete(request, charge, response)
            return
        await _answer_failure(request, charge, failure)

    async def _send_complete(self, request: Request, charge: Charge, response: UpstreamResponse) -> None:
        try:
            with request.cancel_on_disconnect(delay_s=DISCONNECT_CHECK_DELAY_S):
                body = await response.read(MAX_RESPONSE_BYTES)
        except HttpError as error:
            await _answer_failure(request, charge, UpstreamError(f"broke off: {error}"))
            return
        usage = parse_usage(quick_json.read_usage(body))
        # Settled before it is sent, because the headers report the cost and what remains.
        settled = await charge.settle(usage or charge.estimate(len(body)), is_estimated=usage is None)
        headers = charge.headers() | {
            "x-space-cost-usd": format_exact(settled.cost_nanos),
            "x-space-remaining-usd": format_exact(settled.available_nanos),
        }
        await request.answer(200, body, headers, response.headers.get("content-type", ""))

    async def _send_stream(
        self, request: Request, model_request: ModelRequest, charge: Charge, response: UpstreamResponse
    ) -> None:
        charge.events = events = EventStream(shows_usage=model_request.shows_usage)
        held = {"x-space-held-usd": format_exact(charge.held_nanos), "cache-control": "no-cache"}
        await request.start(200, {"content-type": "text/event-stream"} | charge.headers() | held)
        status, code = 499, "client_gone"
        try:
            with request.cancel_on_disconnect():
                status, code = await _relay_events(request, response, events, charge)
        except ClientGoneError:
            pass
        finally:
            # However the stream ended, charge what was delivered and release the rest.
            usage = events.usage
            used = usage or charge.estimate(events.text_bytes)
            await charge.settle(used, is_estimated=usage is None, status=status, code=code)
        if code != "client_gone":
            await request.write(b"", more=False)


async def _relay_events(
    request: Request, response: UpstreamResponse, events: EventStream, charge: Charge
) -> tuple[int, str]:
    status, code = 200, ""
    try:
        async for chunk in response.chunks():
            charge.record_first_token()
            if out := events.feed(chunk):
                await request.write(out, more=True)
    except HttpError:
        status, code = 502, "upstream_broke_off"
    if out := events.finish():
        await request.write(out, more=True)
    return status, code


async def _answer_failure(request: Request, charge: Charge, failure: UpstreamError) -> None:
    await charge.fail(failure.status, "upstream_error")
    if failure.status in CLIENT_ERROR_STATUSES and failure.body:
        await request.answer(failure.status, failure.body, charge.headers(), failure.content_type)
        return
    log.warning("upstream_failed", reason=str(failure), request=str(charge.request_id))
    await request.refuse(errors.upstream_failed("The model's provider failed. Nothing was charged."), charge.headers())


def _required_key(request: Request) -> Presented:
    scheme, _, text = request.header(b"authorization").partition(" ")
    presented = parse_key(text.strip()) if scheme.lower() == "bearer" else None
    if presented is None:
        raise KeyRefused("invalid_api_key")
    return presented


def _model_row(offer: Offer) -> dict[str, Any]:
    return {"id": offer.name, "object": "model", "created": offer.created, "owned_by": "space-manage"}
