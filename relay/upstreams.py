"""Send requests to upstreams: order them by priority and weight, and back off from those that fail."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from relay.http import HttpClient, HttpError, UpstreamResponse

CONNECT_TIMEOUT_S = 10
MAX_ERROR_BYTES = 64 * 1024
MIN_BACKOFF_S = 5.0
MAX_BACKOFF_S = 60.0
_HEADERS: tuple[tuple[str, str], ...] = (("accept-encoding", "identity"), ("user-agent", "space-manage"))


@dataclass(frozen=True)
class Target:
    """An upstream with its credential decrypted. The credential is in clear nowhere else."""

    id: int
    name: str
    base_url: str
    credential: str
    priority: int
    weight: int
    timeout_s: int


def _random_key(target: Target) -> float:
    key: float = random.random() ** (1 / target.weight)  # noqa: S311  not for cryptography
    return key


@dataclass
class _Backoff:
    until: float = 0.0
    length_s: float = 0.0


class UpstreamError(Exception):
    """The upstream could not be reached or answered with an error. Nothing was delivered to the client."""

    def __init__(self, message: str, *, status: int = 502, body: bytes = b"", content_type: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.content_type = content_type


class Upstreams:
    def __init__(self) -> None:
        self._client = HttpClient()
        self._backoffs: dict[int, _Backoff] = {}

    def close(self) -> None:
        self._client.close()

    def in_order(self, targets: list[Target]) -> list[Target]:
        if len(targets) < 2:
            return targets
        now = time.monotonic()
        # Sorting by random() ** (1 / weight) is a weighted random permutation (Efraimidis and Spirakis).
        shuffled = sorted(targets, key=_random_key, reverse=True)
        return sorted(shuffled, key=lambda target: (self._is_backing_off(target, now), target.priority))

    async def request(
        self,
        method: str,
        target: Target,
        path: str,
        body: bytes = b"",
        content_type: str = "application/json",
        *,
        is_fresh: bool = False,
    ) -> UpstreamResponse:
        """Send a request; the response's body is still to be read. Raises UpstreamError for every status but 2xx.

        On a stale kept-alive connection the request is sent once more. Callers that must not send it twice set
        `is_fresh`.
        """
        headers = _HEADERS
        if body:
            headers += (("content-type", content_type),)
        if target.credential:
            headers += (("authorization", f"Bearer {target.credential}"),)
        try:
            response = await self._client.request(
                method,
                target.base_url.rstrip("/") + path,
                headers=headers,
                body=body,
                connect_timeout_s=CONNECT_TIMEOUT_S,
                timeout_s=target.timeout_s,
                is_fresh=is_fresh,
            )
        except HttpError as error:
            self._back_off(target)
            raise UpstreamError(f"{target.name} could not be reached: {error}") from error
        if 200 <= response.status < 300:
            self._backoffs.pop(target.id, None)
            return response
        raise await self._failure(target, response)

    async def _failure(self, target: Target, response: UpstreamResponse) -> UpstreamError:
        with response:
            try:
                body = await response.read(MAX_ERROR_BYTES)
            except HttpError:
                body = b""
        if response.status >= 500 or response.status == 429:
            self._back_off(target)
        return UpstreamError(
            f"{target.name} answered {response.status}",
            status=response.status,
            body=body,
            content_type=response.content_type,
        )

    def _is_backing_off(self, target: Target, now: float) -> bool:
        backoff = self._backoffs.get(target.id)
        return backoff is not None and backoff.until > now

    def _back_off(self, target: Target) -> None:
        backoff = self._backoffs.setdefault(target.id, _Backoff())
        backoff.length_s = min(backoff.length_s * 2 or MIN_BACKOFF_S, MAX_BACKOFF_S)
        backoff.until = time.monotonic() + backoff.length_s
