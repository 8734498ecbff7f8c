"""The provider as an HTTP server in a thread of the test's process, with its ledger."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.relay.provider import telling
from tests.relay.provider.billing import Mood, bill_of, bill_of_video, seconds_of
from tests.relay.provider.bodies import Refused, read_forms, read_json
from tests.relay.provider.faults import FAILED_RESPONSE, FAULTS, Fault, with_quirk, zipped
from tests.relay.provider.kinds import KINDS, Kind
from tests.relay.provider.prices import Bill, Offer, Prices

FLAPPING = "flapping"
_AZURE = re.compile(r"\Aopenai/(deployments/[^/]+/|v1/)?")
MAX_BODY_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One request in the ledger, and what it costs."""

    path: str
    kind: str
    body: Any
    bill: Bill = field(default_factory=Bill)
    nanos: int = 0
    # The status of a refusal, which is free; 0 for an answer.
    refused: int = 0


class Provider:
    """Serves every kind of provider below its name: `url_of("groq")` is the base URL of one like Groq, and
    `url_of("groq", "html")` that of one that has this fault.

    `offers` are the models on sale, `mood` says how the next requests turn out, `ledger` has the requests received.
    """

    def __init__(self, offers: dict[str, Offer]) -> None:
        self.offers = offers
        self.mood = Mood()
        self.ledger: list[Entry] = []
        # The fault that an upstream named "flapping" has at the moment; none if it is empty.
        self.fault = ""
        self.port = 0
        self._videos: dict[str, telling.Json] = {}

    def url_of(self, kind: str, fault: str = "") -> str:
        name = f"{kind}~{fault.replace(' ', '-')}" if fault else kind
        return f"http://127.0.0.1:{self.port}/{name}/v1"

    @contextmanager
    def serving(self) -> Iterator[Provider]:
        loop = asyncio.new_event_loop()
        # In a thread of its own from the start: Playwright's loop may run in the tests' thread.
        thread = threading.Thread(target=loop.run_forever, name="provider", daemon=True)
        thread.start()
        runner = asyncio.run_coroutine_threadsafe(self._start(), loop).result(10)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_close(runner), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _start(self) -> web.AppRunner:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/{kind}/v1/videos", self._submit),
                web.get("/{kind}/v1/videos/{id}", self._poll),
                web.post("/{kind}/v1/{path:.+}", self._answer),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    # -- Text ---------------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name, _, fault = request.match_info["kind"].partition("~")
        # Azure names the deployment in the path.
        kind, path = KINDS[name], _AZURE.sub("", request.match_info["path"])
        body: Any = None
        raw = await request.read()
        fault = self.fault if fault == FLAPPING else fault.replace("-", " ")
        if fault:
            return self._fail(request, kind, path, fault)
        await asyncio.sleep(self.mood.delay_s)
        try:
            body = read_json(raw, kind)
            offer = self._offer(body)
            bill = bill_of(path, body, kind, offer, self.mood)
        except Refused as refusal:
            return self._refuse(path, kind, body, refusal)
        self.ledger.append(Entry(path, kind.name, body, bill, bill.nanos(offer.prices)))
        head = {"id": "answer-1", "object": path, "created": 1_700_000_000, "model": body["model"]}
        if body.get("stream") and path != "embeddings":
            return await self._stream(request, self._events(path, kind, head, body, bill, offer.prices))
        return web.json_response(self._json(path, kind, head, bill, offer.prices))

    def _fail(self, request: web.Request, kind: Kind, path: str, name: str) -> web.Response:
        fault: Fault = FAULTS.get(name, FAILED_RESPONSE)
        self.ledger.append(Entry(path, kind.name, None, refused=fault.status or 502))
        if not fault.status and request.transport is not None:
            request.transport.close()
        headers = {"Content-Type": fault.content_type}
        if fault.retry_after:
            headers["Retry-After"] = fault.retry_after
        return web.Response(status=fault.status or 502, body=fault.body, headers=headers)

    def _offer(self, body: dict[str, Any]) -> Offer:
        offer = self.offers.get(str(body.get("model")))
        if offer is None:
            raise Refused(404, "model")
        return offer

    def _refuse(self, path: str, kind: Kind, body: Any, refusal: Refused) -> web.Response:
        self.ledger.append(Entry(path, kind.name, body, refused=refusal.status))
        error = {"message": str(refusal), "type": "invalid_request_error", "param": None, "code": None}
        return web.json_response({"error": error}, status=refusal.status)

    def _json(self, path: str, kind: Kind, head: telling.Json, bill: Bill, prices: Prices) -> telling.Json:
        if path == "embeddings":
            return telling.embeddings_json(head, bill)
        if path == "responses":
            usage = telling.responses_usage(bill, self.mood.numbers) if bill.is_told else None
            return telling.response_json(head, bill, usage)
        usage = telling.chat_usage(kind, bill, prices, self.mood.numbers) if bill.is_told else None
        return telling.chat_json(head, bill, usage)

    def _events(
        self, path: str, kind: Kind, head: telling.Json, body: telling.Json, bill: Bill, prices: Prices
    ) -> Iterator[bytes]:
        if path == "responses":
            return telling.response_events(head, bill, telling.responses_usage(bill, self.mood.numbers))
        usage = telling.chat_usage(kind, bill, prices, self.mood.numbers)
        options = body.get("stream_options")
        return telling.chat_events(kind, head, bill, usage, options if isinstance(options, dict) else {})

    async def _stream(self, request: web.Request, events: Iterator[bytes]) -> web.StreamResponse:
        mood = self.mood
        if mood.quirk == "gzip":
            headers = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
            return web.Response(body=zipped(events), headers=headers)
        label = "text/plain" if mood.quirk == "label" else "text/event-stream"
        response = web.StreamResponse(headers={"Content-Type": label})
        await response.prepare(request)
        # A client that left is billed all the same.
        with suppress(ConnectionResetError):
            for event in with_quirk(mood.quirk, events):
                await response.write(event)
                await asyncio.sleep(mood.pace_s)
            await response.write_eof()
        return response

    # -- Videos -------------------------------------------------------------------------------------------------------

    async def _submit(self, request: web.Request) -> web.Response:
        kind, raw = KINDS[request.match_info["kind"]], await request.read()
        body: Any = None
        try:
            readings: list[Any] = [read_json(raw, kind)] if request.content_type == "application/json" else []
            readings = readings or read_forms(raw, request.headers.get("Content-Type", ""))
            bills = [(bill_of_video(body, self._offer(body)), body) for body in readings]
        except Refused as refusal:
            return self._refuse("videos", kind, body, refusal)
        # Whichever way the form is read: the dearest.
        bill, body = max(bills, key=lambda each: each[0].nanos(self._offer(each[1]).prices))
        self.ledger.append(Entry("videos", kind.name, body, bill, bill.nanos(self._offer(body).prices)))
        name = f"video_{len(self.ledger)}"
        self._videos[name] = {
            "id": name,
            "object": "video",
            "model": body["model"],
            "status": "queued",
            "progress": 0,
            "created_at": 1_700_000_000,
            "seconds": str(seconds_of(body)),
            "size": bill.facts["size"],
            "error": None,
        }
        return web.json_response(self._videos[name])

    async def _poll(self, request: web.Request) -> web.Response:
        video = self._videos[request.match_info["id"]]
        return web.json_response(video | {"status": "completed", "progress": 100})


async def _close(runner: web.AppRunner) -> None:
    await runner.cleanup()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
