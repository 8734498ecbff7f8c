"""Read and write large bodies in a process of its own, so that no other request waits while JSON is parsed.

A parser holds the interpreter's lock as long as it runs, so a thread would not help. `python -m relay.reader` is that
process: it answers one call after the other over its standard input and output, and ends when its input does.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

import msgspec

from relay import errors
from relay.dialects import DIALECTS
from relay.dialects.ask import Ask
from relay.dialects.bodies import json_object, model_for_log
from relay.dialects.videos import VideoRequest, read_video_request

CALL_TIMEOUT_S = 30.0
# A call or an answer: the length of a pickle, the length of the raw body behind it.
_HEADER = struct.Struct("!QQ")


class ReaderProcess:
    """The relay's side. Calls wait for each other; of one key, only one call waits at a time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._free = asyncio.Lock()
        self._free_of_key: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def call(self, key: Hashable, work: str, raw: bytes, *args: Any) -> Any:
        """What the function `work` of this module returns for the body. Raises ApiError, also if the process fails."""
        lock = self._free_of_key.setdefault(key, asyncio.Lock())
        async with lock, self._free:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    answer = await self._exchange(pickle.dumps((work, args)), raw)
            except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
                await self.close()
                raise errors.unavailable() from error
            except asyncio.CancelledError:
                # The answer to this call would be taken for the answer to the next one.
                await self.close()
                raise
        if isinstance(answer, dict):
            raise errors.ApiError(**answer)
        return answer

    async def _exchange(self, call: bytes, raw: bytes) -> Any:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "relay.reader"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_HEADER.pack(len(call), len(raw)) + call)
        process.stdin.write(raw)
        await process.stdin.drain()
        pickled, body = _HEADER.unpack(await process.stdout.readexactly(_HEADER.size))
        answer = pickle.loads(await process.stdout.readexactly(pickled))  # noqa: S301  our own process wrote it
        return await process.stdout.readexactly(body) if body else answer

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


# -- In the process itself --------------------------------------------------------------------------------------------

# Asks by request id, so that a body is parsed once although it is written after it was read.
_asks: OrderedDict[str, Ask] = OrderedDict()
MAX_KEPT_ASKS = 4


def read(raw: bytes, path: str, request_id: str) -> Ask:
    """The Ask of a body, without the fields, which stay here for `write`."""
    ask = _read(raw, path)
    _asks[request_id] = ask
    while len(_asks) > MAX_KEPT_ASKS:
        _asks.popitem(last=False)
    return msgspec.structs.replace(ask, fields={})


def write(raw: bytes, path: str, request_id: str, named: dict[str, Any]) -> bytes:
    """The body for an upstream; `named` are the arguments of Dialect.body_for."""
    ask = _asks.get(request_id) or _read(raw, path)
    return DIALECTS[path].body_for(ask, **named)


def model(raw: bytes) -> str:
    return model_for_log(raw)


def _read(raw: bytes, path: str) -> Ask:
    return DIALECTS[path].read(json_object(raw), body_bytes=len(raw))


def read_video(raw: bytes, content_type: str) -> VideoRequest:
    """The request without its fields and files, which `write_video` reads again."""
    return replace(read_video_request(raw, content_type), fields={}, files=())


def write_video(raw: bytes, content_type: str, model_name: str) -> tuple[str, bytes]:
    """Content type and body for an upstream."""
    video = read_video_request(raw, content_type)
    return video.content_type, video.body_for(model=model_name)


_WORK: dict[str, Callable[..., Any]] = {
    "read": read,
    "write": write,
    "model": model,
    "read_video": read_video,
    "write_video": write_video,
}


def serve(calls: BinaryIO, answers: BinaryIO) -> None:
    while header := calls.read(_HEADER.size):
        pickled, body = _HEADER.unpack(header)
        work, args = pickle.loads(calls.read(pickled))  # noqa: S301  the relay wrote it
        raw = calls.read(body)
        try:
            answer = _WORK[work](raw, *args)
        except errors.ApiError as error:
            answer = vars(error)
        out = answer if isinstance(answer, bytes) else b""
        told = pickle.dumps(None if out else answer)
        answers.write(_HEADER.pack(len(told), len(out)) + told)
        answers.write(out)
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
