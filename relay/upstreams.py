"""Send requests to upstreams: choose their order, classify their failures, and leave those that fail alone for a while.

`relay/statuses.py` says what each status means.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import random
from typing import NamedTuple

import structlog

from relay.faults import Fault, client_body, fault_in_success, first_event, parsed, read_fault
from relay.http import ConnectError, HttpClient, HttpError, HttpTimeoutError, UpstreamResponse
from relay.routes import Headers
from relay.statuses import BROKEN, GONE, TIMEOUT, UNREACHABLE, UNUSABLE, Kind, Scope, Verdict
from relay.targets import Target, rank

__all__ = ["Target", "UpstreamError", "Upstreams", "final_failure"]

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 10
MAX_ERROR_BYTES = 64 * 1024
# Of an answer, read before it is accepted: an error in place of an answer is no longer.
MAX_JUDGED_BYTES = 64 * 1024
MIN_BACKOFF_S = 5.0
MAX_BACKOFF_S = 60.0
# Somebody has to act first, but the operator may do so at any moment.
PERMANENT_BACKOFF_S = 600.0
# An upstream that asks for more is asked again all the same.
MAX_RETRY_AFTER_S = 3600.0
# The same upstream is asked again at once only if it does not ask to wait longer.
MAX_RETRY_PAUSE_S = 2.0
_PASSES_BY_ITSELF = {Kind.UNAVAILABLE, Kind.UNREACHABLE, Kind.RATE_LIMITED}
_FAULT_OF_REQUEST = {Kind.CLIENT, Kind.UNKNOWN_MODEL, Kind.TOO_LARGE, Kind.OTHER_ACCOUNT}
_NOTHING_BUT_BLANKS = re.compile(rb"[\s\xef\xbb\xbf]*")
_ERROR_INSIDE = re.compile(rb'"error"\s*:\s*["{]|"type"\s*:\s*"(error|response\.failed)"|"object"\s*:\s*"error"')
_STREAM_STARTS = (b"data", b"event", b"id", b"retry", b":")


class UpstreamError(Exception):
    """An upstream could not be reached, or answered with an error. Nothing was delivered to the client.

    The message is for the operator's log. `body` is for the client: the provider's error in OpenAI's shape, without
    anything about the operator's account.
    """

    content_type = "application/json"

    def __init__(
        self,
        message: str,
        *,
        kind: Kind = Kind.UNREACHABLE,
        status: int = 502,
        fault: Fault | None = None,
        body: bytes = b"",
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.fault = fault or Fault()
        self.body = body
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    @property
    def is_client_error(self) -> bool:
        """Whether the client can do something about it, so that status and body are passed on in the end."""
        return self.kind in _FAULT_OF_REQUEST

    @property
    def tries_next(self) -> bool:
        """Whether another upstream may be asked: always, unless the request itself is at fault."""
        return self.kind is not Kind.CLIENT

    @property
    def is_rate_limited(self) -> bool:
        return self.kind is Kind.RATE_LIMITED


def final_failure(failures: Sequence[UpstreamError]) -> UpstreamError:
    """The failure to answer with after all upstreams failed.

    One that only this request causes, if all are such. Otherwise a rate limit with the shortest time to wait if all the
    others are rate limits, and the last of the others if not: a later try may succeed.
    """
    if not failures:
        return UpstreamError("no upstream serves this model here", kind=Kind.UNUSABLE)
    last = failures[-1]
    others = [failure for failure in failures if not failure.is_client_error]
    if not last.tries_next or not others:
        return last
    if not all(failure.is_rate_limited for failure in others):
        return next(failure for failure in reversed(others) if not failure.is_rate_limited)
    return min(others, key=lambda failure: failure.retry_after_s or MIN_BACKOFF_S)


class _Sent(NamedTuple):
    method: str
    path: str
    body: bytes
    content_type: str
    model: str
    headers: Headers
    is_fresh: bool


@dataclass
class _Backoff:
    until: float = 0.0
    length_s: float = 0.0


class Upstreams:
    def __init__(self) -> None:
        self._client = HttpClient()
        # By upstream, and by upstream and public name of a model. Both are few.
        self._backoffs: dict[tuple[int, str], _Backoff] = {}

    def close(self) -> None:
        self._client.close()

    def in_order(
        self, targets: Sequence[Target], conversation_key: str = "", *, path: str = "", model: str = ""
    ) -> list[Target]:
        """The targets that speak the endpoint at `path`, in the order in which to ask them.

        Those that failed lately come last; then priority decides, then rendezvous hashing by weight, so that one
        conversation stays where its prompt cache and stored state are. Without a key the order is random.
        """
        speaking = [target for target in targets if not path or target.speaks(path)]
        if len(speaking) < 2:
            return speaking
        key = conversation_key or str(random())  # noqa: S311  not for cryptography
        now = time.monotonic()
        return sorted(
            speaking,
            key=lambda target: (self._is_backing_off(target, model, now), target.priority, -rank(target, key)),
        )

    async def request(
        self,
        method: str,
        target: Target,
        path: str,
        body: bytes = b"",
        content_type: str = "application/json",
        *,
        model: str = "",
        headers: Headers = (),
        is_fresh: bool = False,
    ) -> UpstreamResponse:
        """Send a request; the response's body is still to be read. Raises UpstreamError for every failure before that.

        Failures are: no connection, silence, every status but 2xx, and of a POST an answer that is empty or HTML, or an
        error in place of an answer or as the first event of a stream. `model` is the public name. `headers` are those
        of the client to pass on. Callers that must not send a request twice set `is_fresh`.
        """
        sent = _Sent(method, path, body, content_type if body else "", model, headers, is_fresh)
        attempts = 1 if is_fresh else 1 + target.profile.retries
        while True:
            try:
                return await self._attempt(target, sent)
            except UpstreamError as error:
                attempts -= 1
                pause_s = error.retry_after_s if error.retry_after_s is not None else 0.25
                if not attempts or error.kind not in _PASSES_BY_ITSELF or pause_s > MAX_RETRY_PAUSE_S:
                    raise
            await asyncio.sleep(pause_s)

    async def _attempt(self, target: Target, sent: _Sent) -> UpstreamResponse:
        try:
            response = await self._client.request(
                sent.method,
                target.url(sent.path, sent.model),
                headers=target.request_headers(sent.content_type, sent.headers),
                body=sent.body,
                connect_timeout_s=CONNECT_TIMEOUT_S,
                timeout_s=target.timeout_s,
                is_fresh=sent.is_fresh,
                proxy=target.proxy,
            )
        except HttpError as error:
            raise self.broke_off(target, sent.model, error) from error
        try:
            failure = await self._judge(target, sent, response)
        except BaseException:
            response.close()
            raise
        if failure is not None:
            response.close()
            raise failure
        self._backoffs.pop((target.id, ""), None)
        self._backoffs.pop((target.id, sent.model), None)
        return response

    async def _judge(self, target: Target, sent: _Sent, response: UpstreamResponse) -> UpstreamError | None:
        if not 200 <= response.status < 300:
            return await self._failed_status(target, sent, response)
        if sent.method != "POST":
            return None
        try:
            start = await response.peek(_is_enough, MAX_JUDGED_BYTES)
        except HttpError as error:
            return self.broke_off(target, sent.model, error)
        text = _after_blanks(start)
        if text.startswith(b"<") or not _has_content(text):
            what = "answered HTML" if text.startswith(b"<") else "answered nothing"
            return self._failure(target, sent.model, UNUSABLE, what, response)
        # The search is cheap; most answers are not parsed here.
        if not _ERROR_INSIDE.search(text):
            return None
        fault = fault_in_success(parsed(text) if text[:1] in (b"{", b"[") else first_event(text))
        return self.fault_in_answer(target, sent.model, fault, response) if fault else None

    async def _failed_status(self, target: Target, sent: _Sent, response: UpstreamResponse) -> UpstreamError:
        try:
            body = await response.read(MAX_ERROR_BYTES)
        except HttpError:
            body = b""
        fault = read_fault(body)
        # A GET names a task, which may be gone; the upstream is well.
        is_gone = sent.method == "GET" and response.status == 404
        verdict = GONE if is_gone else fault.verdict(response.status)
        return self._failure(target, sent.model, verdict, f"answered {response.status}", response, fault)

    def broke_off(self, target: Target, model: str, error: HttpError) -> UpstreamError:
        """The failure to raise for an exchange that ended early. The upstream is left alone for a while."""
        is_timeout = isinstance(error, HttpTimeoutError)
        is_unsent = isinstance(error, ConnectError)
        verdict = TIMEOUT if is_timeout else UNREACHABLE if is_unsent else BROKEN
        what = "could not be reached" if is_unsent else "broke off"
        self._back_off(target, model, verdict, None)
        return UpstreamError(f"{target.name} {what}: {error}", kind=verdict.kind, status=504 if is_timeout else 502)

    def fault_in_answer(
        self, target: Target, model: str, fault: Fault, response: UpstreamResponse | None = None
    ) -> UpstreamError:
        """The failure to raise for an error that stood in a 200. The upstream is left alone for a while."""
        return self._failure(target, model, fault.verdict(200), "answered with an error in a 200", response, fault)

    def _failure(
        self,
        target: Target,
        model: str,
        verdict: Verdict,
        what: str,
        response: UpstreamResponse | None,
        fault: Fault | None = None,
    ) -> UpstreamError:
        fault = fault or Fault()
        retry_after_s = retry_after(response.headers) if response else None
        self._back_off(target, model, verdict, retry_after_s)
        mask = target.mask(model)
        detail = f": {fault.code or fault.type} {mask.apply(fault.message)[:300]}".rstrip() if fault != Fault() else ""
        if verdict.kind is Kind.CREDENTIAL:
            log.error("upstream_refuses_credential", upstream=target.name, what=what, code=fault.code or fault.type)
        return UpstreamError(
            f"{target.name} {what}{detail}",
            kind=verdict.kind,
            status=_client_status(verdict.kind, response.status if response else 200, fault),
            fault=fault,
            body=client_body(fault, mask, otherwise="The model's provider refused the request."),
            retry_after_s=retry_after_s,
            request_id=response.request_id if response else "",
        )

    def _is_backing_off(self, target: Target, model: str, now: float) -> bool:
        backoffs = (self._backoffs.get((target.id, name)) for name in {"", model})
        return any(backoff is not None and backoff.until > now for backoff in backoffs)

    def _back_off(self, target: Target, model: str, verdict: Verdict, retry_after_s: float | None) -> None:
        if verdict.scope is Scope.NOTHING:
            return
        name = model if verdict.scope is Scope.MODEL else ""
        backoff = self._backoffs.setdefault((target.id, name), _Backoff())
        now = time.monotonic()
        # Requests that were in flight together fail together; only the first of them makes the time longer.
        if backoff.until <= now:
            backoff.length_s = min(backoff.length_s * 2 or MIN_BACKOFF_S, MAX_BACKOFF_S)
        least_s = PERMANENT_BACKOFF_S if verdict.is_permanent else backoff.length_s
        wait_s = least_s if retry_after_s is None else max(retry_after_s, least_s if verdict.is_permanent else 0.0)
        backoff.until = max(backoff.until, now + wait_s)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from retry-after-ms or Retry-After (seconds or a date); None if neither says so."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1000, MAX_RETRY_AFTER_S)
    text = headers.get("retry-after", "").strip()
    seconds = _number(text)
    if seconds is None and text:
        seconds = _seconds_until(text)
    return None if seconds is None else min(seconds, MAX_RETRY_AFTER_S)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{0,9})?", text.strip()) else None


def _seconds_until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)


def _client_status(kind: Kind, status: int, fault: Fault) -> int:
    if kind in _FAULT_OF_REQUEST and not 400 <= status < 500:
        told = {Kind.UNKNOWN_MODEL: 404, Kind.TOO_LARGE: 413}.get(kind, 400)
        return fault.status if 400 <= fault.status < 500 else told
    return status if status >= 400 else 502


def _after_blanks(start: bytes) -> bytes:
    # DeepSeek sends empty lines before an answer, for as long as it waits.
    return start[_NOTHING_BUT_BLANKS.match(start).end() :]  # type: ignore[union-attr]  # it matches nothing, too


def _is_enough(start: bytes) -> bool:
    """Whether an answer can be judged by its first bytes: the first event of a stream, one byte of anything binary.

    JSON is judged as a whole, up to MAX_JUDGED_BYTES: an error may come in several pieces, and its reader waits for the
    rest of it anyway.
    """
    text = _after_blanks(start)
    if not text or text[:1] in (b"{", b"["):
        return False
    if not text.startswith(_STREAM_STARTS):
        return True
    lines = _lines(text)
    first_data = next((number for number, line in enumerate(lines) if line.startswith(b"data")), len(lines))
    return b"" in lines[first_data:-1]


def _has_content(text: bytes) -> bool:
    # A stream of comments alone is empty.
    return bool(text) and (not text.startswith(b":") or any(line[:4] in (b"data", b"even") for line in _lines(text)))


def _lines(text: bytes) -> list[bytes]:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
