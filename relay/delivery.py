"""Deliver a stream to a client: its head, its events, comments while it is silent, and its cost at the end."""

from __future__ import annotations

import json
import time

from core.money import format_exact
from quotas.sets import Settled
from relay.charges import Charge
from relay.errors import ApiError
from relay.exchange import Request

# A proxy cuts a connection on which nothing was sent for a while: nginx after 60 s.
MAX_SILENCE_S = 15.0
_COMMENT = b": waiting for the model\n\n"


class Delivery:
    """The client's side of a stream. Nothing is sent to a client that has left.

    Until the head was sent, another upstream may still be tried and an error answered with its own status. Comments
    begin after MAX_SILENCE_S, also before the first event; from then on an error is an event.
    """

    def __init__(self, request: Request, charge: Charge) -> None:
        self._request = request
        self._charge = charge
        self._sent_at = time.monotonic()
        # A comment must not be written between two parts of an event, nor while a slow client blocks a write.
        self._is_writing = False

    async def write(self, chunk: bytes) -> None:
        if self._request.is_gone:
            return
        self._is_writing = True
        try:
            if not self._request.has_started:
                await self._start()
            await self._request.write(chunk, more=True)
        finally:
            self._is_writing = False
            self._sent_at = time.monotonic()

    def beat(self) -> bool:
        """Whether a comment is due now."""
        is_silent = time.monotonic() - self._sent_at >= MAX_SILENCE_S
        return is_silent and not self._is_writing and not self._request.is_gone

    async def comment(self) -> None:
        if self.beat():
            await self.write(_COMMENT)

    async def finish(self, settled: Settled, error: ApiError | None = None) -> None:
        if self._request.is_gone:
            return
        if not self._request.has_started:
            await self._start()
        told = f"data: {json.dumps(error.body())}\n\n" if error is not None else ""
        cost = f": cost_usd={format_exact(settled.cost_nanos)} remaining_usd={format_exact(settled.available_nanos)}"
        await self._request.write(f"{told}{cost}\n\n".encode(), more=False)

    async def _start(self) -> None:
        headers = {
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            # nginx passes events on at once instead of buffering them.
            "x-accel-buffering": "no",
            "x-space-held-usd": format_exact(self._charge.held_nanos),
        }
        await self._request.start(200, headers | self._charge.headers())
