"""HTTP out: which upstream to ask, in which order, and leaving alone for a while the one that fails."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from types import TracebackType

import aiohttp

CONNECT_S = 10
REST_FIRST_S = 5.0
REST_MOST_S = 60.0


@dataclass(frozen=True)
class Target:
    """An upstream as the relay asks it; the credential is in clear here and nowhere else."""

    id: int
    name: str
    base_url: str
    credential: str
    priority: int
    weight: int
    timeout_s: int


@dataclass
class _Rest:
    until: float = 0.0
    length_s: float = 0.0


class UpstreamError(Exception):
    """Nothing was delivered: it could not be reached, or answered what another upstream may do better."""

    def __init__(self, message: str, *, status: int = 502, body: bytes = b"", content_type: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.content_type = content_type


class Upstreams:
    """One client session for all upstreams; connections are reused, redirects are not followed."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._resting: dict[int, _Rest] = {}

    async def __aenter__(self) -> Upstreams:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    def in_order(self, targets: list[Target]) -> list[Target]:
        """By priority, by chance within it (weights), those that failed lately at the end."""
        now = time.monotonic()
        shuffled = sorted(targets, key=lambda target: random.random() ** (1 / target.weight), reverse=True)  # noqa: S311
        return sorted(shuffled, key=lambda target: (self._is_resting(target, now), target.priority))

    async def post(self, target: Target, path: str, body: bytes) -> aiohttp.ClientResponse:
        """The answer's head, its body still to be read. Raises UpstreamError before the first byte of it."""
        return await self.request("POST", target, path, body)

    async def request(
        self, method: str, target: Target, path: str, body: bytes = b"", content_type: str = "application/json"
    ) -> aiohttp.ClientResponse:
        """As `post`, with another method or another kind of body."""
        assert self._session is not None
        headers = {"Accept-Encoding": "identity"}
        if body:
            headers["Content-Type"] = content_type
        if target.credential:
            headers["Authorization"] = f"Bearer {target.credential}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=target.timeout_s)
        url = target.base_url.rstrip("/") + path
        try:
            answer = await self._session.request(
                method, url, data=body or None, headers=headers, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            self._let_rest(target)
            raise UpstreamError(f"{target.name} could not be reached: {type(error).__name__}") from error
        if 200 <= answer.status < 300:
            self._resting.pop(target.id, None)
            return answer
        raise await self._failure(target, answer)

    async def _failure(self, target: Target, answer: aiohttp.ClientResponse) -> UpstreamError:
        try:
            body = await answer.content.read(64 * 1024)
        except (aiohttp.ClientError, TimeoutError):
            body = b""
        answer.close()
        if answer.status >= 500 or answer.status == 429:
            self._let_rest(target)
        return UpstreamError(
            f"{target.name} answered {answer.status}",
            status=answer.status,
            body=body,
            content_type=answer.content_type,
        )

    def _is_resting(self, target: Target, now: float) -> bool:
        rest = self._resting.get(target.id)
        return rest is not None and rest.until > now

    def _let_rest(self, target: Target) -> None:
        """Five seconds, then twice as long each time it fails again, a minute at most."""
        rest = self._resting.setdefault(target.id, _Rest())
        rest.length_s = min(rest.length_s * 2 or REST_FIRST_S, REST_MOST_S)
        rest.until = time.monotonic() + rest.length_s
