"""The OpenAI-compatible API under /v1: an ASGI application beside Django, in the same process.

Each request is held, forwarded and settled. The hold is committed before the request is forwarded. The charge is
settled before the response is sent, except for a stream. A client that disconnects does not cancel the settlement.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from accounts.keys import Presented, find_key, parse_key, usable_key
from core.errors import KeyRefused, QuotaError
from relay import errors
from relay.account import SHAPES, account_of
from relay.admission import Admission, check_order, refusal_order, verify_key
from relay.catalogue import Catalogue, Offer
from relay.conversations import conversation_of
from relay.dialects import DIALECTS, check, check_unknown
from relay.dialects.ask import Ask
from relay.dialects.bodies import json_object, model_for_log
from relay.dialects.dialect import Dialect
from relay.exchange import MAX_BODY_BYTES_IN_LOOP, ClientGoneError, Receive, Request, Scope, Send
from relay.forward import Forwarder, Forwarding
from relay.listing import model_row
from relay.reader import ReaderProcess
from relay.stored import find, remember
from relay.tasks import in_database
from relay.teller import Teller
from relay.upstreams import Target, Upstreams
from relay.videos import Videos

log = structlog.get_logger(__name__)

PSEUDONYMS = frozenset({"user", "safety_identifier", "user_id"})
MAX_PSEUDONYMS = 20_000
WriteElsewhere = Callable[[dict[str, Any]], Awaitable[bytes]]
KEY_HEADERS = (b"x-api-key", b"api-key")
# Where a client calls whose base URL lacks /v1: these paths, and what begins with the second ones.
PATHS_WITHOUT_VERSION = frozenset({*DIALECTS, *SHAPES, "/videos", "/models"})
_ABOVE_WITHOUT_VERSION = ("/videos/", "/models/", "/dashboard/billing/")


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
        self.reader = ReaderProcess()
        self.forwarder = Forwarder(self.upstreams)
        self.admission = Admission(self.teller, self.catalogue, self.forwarder.breakers)
        self.videos = Videos(self.teller, self.catalogue, self.upstreams, self.reader)
        # A key never changes its owner, so this needs no refresh.
        self._pseudonyms: dict[Presented, str] = {}

    async def start(self) -> None:
        self.teller.start()
        await asyncio.to_thread(self.catalogue.start)

    async def close(self) -> None:
        self.upstreams.close()
        await self.reader.close()
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
        method = request.scope["method"]
        if method == "OPTIONS":
            await request.answer_preflight()
            return
        path = request.scope["path"].removeprefix("/v1").rstrip("/")
        if method == "HEAD" and not path:
            await request.answer(200, b"", {})
            return
        dialect = DIALECTS.get(path)
        if dialect is not None:
            _require_method(request, "POST")
            await self._spend(request, _required_key(request), dialect)
        elif path == "/videos" or path.startswith("/videos/"):
            await self.videos.serve(request, _required_key(request), path.removeprefix("/videos").lstrip("/"))
        else:
            await self._tell(request, path)

    # -- Addresses that cost nothing

    async def _tell(self, request: Request, path: str) -> None:
        is_model = path == "/models" or path.startswith("/models/")
        if not is_model and path not in SHAPES:
            raise errors.unknown_endpoint()
        _require_method(request, "GET")
        presented = _required_key(request)
        if is_model:
            # Names such as /data/models/x begin with a slash of their own.
            told = await self._models(request, presented, path.removeprefix("/models").removeprefix("/"))
        else:
            told = SHAPES[path](await in_database(account_of, presented, request.address))
        await request.answer(200, json.dumps(told).encode(), {"cache-control": "no-store"})

    async def _models(self, request: Request, presented: Presented, name: str) -> dict[str, Any]:
        allowed = await self.teller.ask(check_order(presented, request.address))
        offers = [offer for offer in self.catalogue.offers.values() if not allowed or offer.name in allowed]
        rows = [
            model_row(offer, offer.prices_for(presented.space_id))
            for offer in sorted(offers, key=lambda offer: offer.name)
        ]
        if not name:
            return {"object": "list", "data": rows}
        row = next((row for row in rows if row["id"] == name), None)
        if row is None:
            raise errors.unknown_model(name)
        return row

    # -- Requests that spend

    async def _spend(self, request: Request, presented: Presented, dialect: Dialect) -> None:
        raw = await request.body(lambda: verify_key(self.teller, presented, request.address))
        try:
            ask = await self._read(request, presented, dialect, raw)
            offer, targets = self._offer(ask, presented, dialect)
            targets = await self._holders(request, presented, ask, targets)
        except errors.ApiError as error:
            # The key is verified before the body's error is returned, so that a client without a valid key cannot find
            # out which models are on sale. Raises KeyRefused instead.
            is_large = len(raw) > MAX_BODY_BYTES_IN_LOOP
            model = await self.reader.call(presented, "model", raw) if is_large else model_for_log(raw)
            await self.teller.ask(
                refusal_order(
                    request, presented, model=model, status=error.status, code=error.code, message=error.message
                )
            )
            raise
        charge = await self.admission.open(request, presented, ask, dialect, targets)
        conversation = conversation_of(request, ask)
        is_large = len(raw) > MAX_BODY_BYTES_IN_LOOP
        forwarding = Forwarding(
            request=request,
            dialect=dialect,
            ask=ask,
            charge=charge,
            write_elsewhere=self._writer(request, presented, dialect, raw)
            if len(raw) > MAX_BODY_BYTES_IN_LOOP
            else None,
            user=await self._pseudonym_of(presented) if PSEUDONYMS & set(ask.written) else "",
            cache_scope=_pseudonym(f"space:{presented.space_id}") if "prompt_cache_key" in ask.written else "",
            on_stored=self._remember(presented) if dialect.stores else None,
        )
        in_order = self.upstreams.in_order(targets, f"{presented.hash}:{conversation}", model=offer.name)
        await self.forwarder.forward(forwarding, in_order)

    async def _read(self, request: Request, presented: Presented, dialect: Dialect, raw: bytes) -> Ask:
        if len(raw) <= MAX_BODY_BYTES_IN_LOOP:
            return _parse(dialect, raw)
        ask: Ask = await self.reader.call(presented, "read", raw, dialect.path, str(request.request_id))
        return ask

    def _writer(self, request: Request, presented: Presented, dialect: Dialect, raw: bytes) -> WriteElsewhere:
        async def write(named: dict[str, Any]) -> bytes:
            body: bytes = await self.reader.call(presented, "write", raw, dialect.path, str(request.request_id), named)
            return body

        return write

    def _offer(self, ask: Ask, presented: Presented, dialect: Dialect) -> tuple[Offer, Sequence[Target]]:
        offer = self.catalogue.offers.get(ask.model)
        if offer is None or not offer.targets:
            raise errors.unknown_model(ask.model)
        targets = [target for target in offer.targets if target.speaks(dialect.path)]
        if not targets:
            raise errors.ApiError(
                404, "model_not_found", f"The model {ask.model[:100]} is not served at /v1{dialect.path}.", "model"
            )
        check(ask, offer.prices_for(presented.space_id))
        if ask.unknown:
            willing = [target for target in targets if target.profile.unknown_fields == "pass"]
            if not willing:
                check_unknown(ask, targets[0].profile)
            targets = willing
        return offer, targets

    async def _holders(
        self, request: Request, presented: Presented, ask: Ask, targets: Sequence[Target]
    ) -> Sequence[Target]:
        """Of the targets, the one that keeps all that the request points at. Raises ApiError 404."""
        if not ask.pointers:
            return targets
        object_ids = {pointer.id for pointer in ask.pointers}
        holders = await in_database(_holders, presented, request.address, object_ids)
        for pointer in ask.pointers:
            if pointer.id not in holders:
                raise errors.unknown_content(pointer.param, pointer.id)
            targets = [target for target in targets if target.id == holders[pointer.id]]
            if not targets:
                raise errors.content_elsewhere(pointer.param, pointer.id)
        return targets

    async def _pseudonym_of(self, presented: Presented) -> str:
        """What stands for the member at providers, the same for all of their keys."""
        known = self._pseudonyms.get(presented)
        if known is None:
            if len(self._pseudonyms) >= MAX_PSEUDONYMS:
                self._pseudonyms.clear()
            user_id = await in_database(_user_of, presented)
            known = self._pseudonyms[presented] = _pseudonym(f"member:{presented.space_id}:{user_id}")
        return known

    def _remember(self, presented: Presented) -> Any:
        async def keep(stored_ids: tuple[str, ...], target: Target) -> None:
            # Not all upstreams say in their answers that they were told to store nothing.
            if target.profile.keeps_state:
                await in_database(_remember, presented, stored_ids, target.id)

        return keep


def lacks_version(path: str) -> bool:
    return path.rstrip("/") in PATHS_WITHOUT_VERSION or path.startswith(_ABOVE_WITHOUT_VERSION)


async def answer_without_version(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell a client that calls /chat/completions what its base URL should be."""
    request = Request(scope, receive, send)
    if scope["method"] == "OPTIONS":
        await request.answer_preflight()
        return
    base_url = f"{scope['scheme']}://{request.header(b'host')[:200]}/v1"
    await request.refuse(errors.base_url_without_version(base_url))


def _parse(dialect: Dialect, raw: bytes) -> Ask:
    return dialect.read(json_object(raw), body_bytes=len(raw))


def _holders(presented: Presented, address: str | None, object_ids: set[str]) -> dict[str, int]:
    """Raises KeyRefused, so that a client without a valid key learns nothing about ids."""
    key = usable_key(presented, address=address)
    return find(space_id=key.space_id, user_id=key.user_id, object_ids=object_ids)


def _user_of(presented: Presented) -> int | None:
    key = find_key(presented)
    return key.user_id if key else None


def _remember(presented: Presented, object_ids: Sequence[str], upstream_id: int) -> None:
    # The key may have been disabled since: the answer is its user's all the same.
    if key := find_key(presented):
        remember(space_id=key.space_id, user_id=key.user_id, upstream_id=upstream_id, object_ids=object_ids)


def _require_method(request: Request, right: str) -> None:
    method = request.scope["method"]
    if method != right and not (method == "HEAD" and right == "GET"):
        raise errors.wrong_method(right)


def _required_key(request: Request) -> Presented:
    """The key in whichever header the client's dialect uses. Raises KeyRefused."""
    scheme, _, text = request.header(b"authorization").partition(" ")
    if scheme.lower() == "bearer" and (presented := parse_key(text.strip())):
        return presented
    for name in KEY_HEADERS:
        if presented := parse_key(request.header(name).strip()):
            return presented
    raise KeyRefused("invalid_api_key")


def _pseudonym(name: str) -> str:
    # Stable, and without the secret key nobody can tell whom it stands for.
    return hmac.new(settings.SECRET_KEY.encode(), name.encode(), hashlib.sha256).hexdigest()[:32]
