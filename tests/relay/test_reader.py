"""Large bodies are read in a process of its own: the same answers, while others are served."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from relay.dialects import DIALECTS
from relay.errors import ApiError
from relay.profiles import OPENAI
from relay.reader import ReaderProcess
from tests.relay.conftest import run_async

CHAT = DIALECTS["/chat/completions"]
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x" * 200_000}], "user": "ann"}
RAW = json.dumps(BODY).encode()
NAMED: dict[str, Any] = {"profile": OPENAI, "model": "there", "limit": 7, "user": "p", "cache_scope": "s"}


def test_a_body_is_read_and_written_as_in_the_relays_own_process() -> None:
    here = CHAT.read(json.loads(RAW), body_bytes=len(RAW))

    async def scene() -> None:
        reader = ReaderProcess()
        ask = await reader.call("key", "read", RAW, CHAT.path, "request")
        written = await reader.call("key", "write", RAW, CHAT.path, "request", NAMED)
        again = await reader.call("key", "write", RAW, CHAT.path, "forgotten", NAMED)
        await reader.close()
        assert (ask.extent, ask.model, ask.said, ask.written) == (here.extent, "m", here.said, here.written)
        assert ask.fields == {}
        assert written == again == CHAT.body_for(here, **NAMED)

    run_async(scene())


def test_a_refusal_is_the_same_refusal() -> None:
    raw = json.dumps(BODY | {"fallbacks": ["dear"]}).encode()

    async def scene() -> None:
        reader = ReaderProcess()
        with pytest.raises(ApiError) as refusal:
            await reader.call("key", "read", raw, CHAT.path, "request")
        assert (refusal.value.status, refusal.value.param) == (400, "fallbacks")
        assert await reader.call("key", "model", raw) == "m"
        await reader.close()

    run_async(scene())


def test_the_loop_goes_on_while_a_hostile_body_is_parsed() -> None:
    hostile = b'{"model": "m", "messages": [' + b"[1,2,3]," * 1_500_000 + b"0]}"

    async def scene() -> None:
        reader, pauses = ReaderProcess(), []
        await reader.call("key", "model", b"{}")
        reading = asyncio.create_task(reader.call("key", "read", hostile, CHAT.path, "request"))
        loop = asyncio.get_running_loop()
        while not reading.done():
            before = loop.time()
            await asyncio.sleep(0.005)
            pauses.append(loop.time() - before)
        with pytest.raises(ApiError):
            await reading
        await reader.close()
        assert len(pauses) > 5
        # In the loop's own process, the parser alone would take most of a second.
        assert sorted(pauses)[-2] < 0.25

    run_async(scene())


def test_a_process_that_died_is_replaced() -> None:
    async def scene() -> None:
        reader = ReaderProcess()
        await reader.call("key", "model", RAW)
        assert reader._process is not None
        os.kill(reader._process.pid, signal.SIGKILL)
        with pytest.raises(ApiError) as refusal:
            await reader.call("key", "model", RAW)
        assert refusal.value.status == 503
        assert await reader.call("key", "model", RAW) == "m"
        await reader.close()

    run_async(scene())


def test_a_caller_that_is_cancelled_does_not_disturb_the_next() -> None:
    async def scene() -> None:
        reader = ReaderProcess()
        await reader.call("key", "model", RAW)
        cancelled = asyncio.create_task(reader.call("key", "read", RAW * 1, CHAT.path, "request"))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await reader.call("other", "model", RAW) == "m"
        await reader.close()

    run_async(scene())
