"""HTTP out: which upstream to ask, in which order, and leaving alone for a while the one that fails."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from relay.http import Answer, Client, HttpError

CONNECT_S = 10
ERROR_MOST = 64 * 1024
REST_FIRST_S = 5.0
REST_MOST_S = 60.0
_HEADERS: tuple[tuple[str, str], ...] = (("accept-encoding", "identity"), ("user-agent", "space-manage"))


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
    """One client for all upstreams: connections are reused, redirects are not followed."""

    def __init__(self) -> None:
        self._client = Client()
        self._resting: dict[int, _Rest] = {}

    def close(self) -> None:
        self._client.close()

    def in_order(self, targets: list[Target]) -> list[Target]:
        """By priority, by chance within it (weights), those that failed lately at the end."""
        if len(targets) < 2:
            return targets
        now = time.monotonic()
        shuffled = sorted(targets, key=lambda target: random.random() ** (1 / target.weight), reverse=True)  # noqa: S311
        return sorted(shuffled, key=lambda target: (self._is_resting(target, now), target.priority))

    async def request(
        self,
        method: str,
        target: Target,
        path: str,
        body: bytes = b"",
        content_type: str = "application/json",
        *,
        is_fresh: bool = False,
    ) -> Answer:
        """The answer's head, its body still to be read. Raises UpstreamError before the first byte of it.

        A kept connection that turns out to be closed is replaced once, and the request sent again. What must not be
        sent twice asks for a fresh one.
        """
        headers = _HEADERS
        if body:
            headers += (("content-type", content_type),)
        if target.credential:
            headers += (("authorization", f"Bearer {target.credential}"),)
        try:
            answer = await self._client.request(
                method,
                target.base_url.rstrip("/") + path,
                headers=headers,
                body=body,
                connect_timeout_s=CONNECT_S,
                timeout_s=target.timeout_s,
                is_fresh=is_fresh,
            )
        except HttpError as error:
            self._let_rest(target)
            raise UpstreamError(f"{target.name} could not be reached: {error}") from error
        if 200 <= answer.status < 300:
            self._resting.pop(target.id, None)
            return answer
        raise await self._failure(target, answer)

    async def _failure(self, target: Target, answer: Answer) -> UpstreamError:
        with answer:
            try:
                body = await answer.read(ERROR_MOST)
            except HttpError:
                body = b""
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
