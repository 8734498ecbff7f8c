"""Errors that upstreams tell, read from the bodies of every dialect and rebuilt for clients without account details."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from relay.statuses import CODES, DECISIVE_CODES, UNUSABLE, Kind, Verdict, verdict_of_status

MAX_MESSAGE_LENGTH = 4000
HIDDEN = "…"
# In a 200, these keys show that something was delivered, so that it is not an error alone.
_RESULTS = ("choices", "output", "data", "content", "usage", "results", "embeddings")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_PARAM = re.compile(r"[\w.\[\]/-]{1,200}", re.ASCII)
# xAI and Gemini answer 400 to a wrong credential.
_BAD_KEY = re.compile(r"(incorrect|invalid) api[ _-]?key|api[ _-]?key (is )?(not valid|invalid|incorrect)", re.I)

_OTHER_ACCOUNT = re.compile(r"encrypted[ _]content .*(verif|decrypt)", re.I)


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as an upstream told it. `status` is a number from 400 on if the body has one, else 0."""

    message: str = ""
    code: str = ""
    type: str = ""
    param: str | None = None
    status: int = 0

    def verdict(self, status: int) -> Verdict:
        """What the error means, told with this HTTP status; 200 stands for an error inside a success."""
        words = [word.lower() for word in (self.code, self.type)]
        decisive = [CODES[word] for word in words if word in DECISIVE_CODES]
        if decisive:
            return decisive[0]
        if status == 400 and _BAD_KEY.search(self.message):
            return CODES["invalid_api_key"]
        if status == 400 and _OTHER_ACCOUNT.search(self.message):
            return CODES["invalid_encrypted_content"]
        if status >= 300:
            return self._by_status(status)
        known = [CODES[word] for word in words if word in CODES]
        return known[0] if known else verdict_of_status(self.status or 502)

    def _by_status(self, status: int) -> Verdict:
        verdict = verdict_of_status(status)
        if verdict.kind is not Kind.UNKNOWN_MODEL or self._speaks_of_model():
            return verdict
        # A 404 that tells nothing is a wrong address; one that tells something else is about the client's request.
        return CODES["invalid_request_error"] if self.message else UNUSABLE

    def _speaks_of_model(self) -> bool:
        return self.param == "model" or bool(re.search(r"model|deployment", f"{self.code} {self.message}", re.I))


def read_fault(body: bytes) -> Fault:
    """The error in the body of a response that failed; without a message if it is not JSON or tells none."""
    document = parsed(body)
    return _fault(document) if document is not None else Fault()


def fault_in_success(document: object) -> Fault | None:
    """The error that stands in place of an answer in a 200 or in the first event of a stream; None if there is none."""
    document = _first(document)
    if not isinstance(document, dict) or any(document.get(name) for name in _RESULTS):
        return None
    inner = document.get("response")
    if isinstance(inner, dict) and document.get("type") == "response.failed":
        return None if inner.get("usage") or inner.get("output") else _fault(inner)
    is_error = document.get("error") or document.get("type") == "error" or document.get("object") == "error"
    return _fault(document) if is_error else None


def first_event(text: bytes) -> object:
    """The parsed data of the first event in these bytes that has any; None if it is not JSON."""
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data: list[bytes] = []
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif not line and data:
            break
    return parsed(b"\n".join(data))


def parsed(body: bytes) -> Any:
    """None if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _first(document: Any) -> Any:
    # Gemini puts its error into a list.
    return document[0] if isinstance(document, list) and document else document


def _fault(document: Any) -> Fault:
    outer = _first(document)
    if not isinstance(outer, dict):
        return Fault()
    error = outer.get("error")
    told = error if isinstance(error, dict) else outer
    code = next(_words(told.get("code"), told.get("status"), outer.get("code"), *_reasons(told)), "")
    return Fault(
        message=next(_messages(error, told, outer), "")[:MAX_MESSAGE_LENGTH],
        code=code,
        type=next(_words(told.get("type"), outer.get("type")), ""),
        param=_param(told.get("param")),
        status=next(_statuses(told.get("code"), outer.get("code"), outer.get("status_code")), 0),
    )


def _messages(error: Any, told: dict[str, Any], outer: dict[str, Any]) -> Iterator[str]:
    # `error` is a plain string at xAI and Fireworks, `detail` a string or a list of fields in FastAPI.
    inner = told.get("error")
    candidates = (told.get("message"), error, inner, outer.get("message"), _detail(outer.get("detail")))
    for value in (*candidates, _detail(told.get("detail"))):
        if isinstance(value, str) and value.strip():
            yield value.strip()


def _detail(detail: Any) -> Any:
    if not isinstance(detail, list):
        return detail
    rows = [row for row in detail if isinstance(row, dict) and isinstance(row.get("msg"), str)]
    return "; ".join(f"{'.'.join(map(str, row.get('loc') or ['body']))}: {row['msg']}" for row in rows)


def _reasons(told: dict[str, Any]) -> list[Any]:
    details = told.get("details")
    return [row.get("reason") for row in details if isinstance(row, dict)] if isinstance(details, list) else []


def _words(*values: Any) -> Iterator[str]:
    return (value for value in values if isinstance(value, str) and _WORD.fullmatch(value))


def _statuses(*values: Any) -> Iterator[int]:
    for value in values:
        number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{3}", value) else value
        if type(number) is int and 400 <= number < 600:
            yield number


def _param(value: Any) -> str | None:
    return value if isinstance(value, str) and _PARAM.fullmatch(value) else None


# -- Masking ------------------------------------------------------------------------------------------------------

_URL = re.compile(r"https?://[^\s\"'<>)\]]+", re.I)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
_ACCOUNT_WORDS = r"organi[sz]ation|project|account|workspace|team|tenant|subscription|resource|deployment|customer"
_MASKS = (
    _EMAIL,
    re.compile(r"\b(org|organization|proj|project|acct|account|wrkspc|workspace|team|tenant|sub)[-_][\w-]{4,}", re.I),
    re.compile(r"\b(sk|pk|rk|gsk|xai|pplx|hf|r8|fw|nvapi|sess|eyJ|AIza)[-_.*\w]{6,}"),
    re.compile(r"(?<=bearer )\S+", re.I),
    # UUIDs: Azure's subscriptions, tenants and resources.
    re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I),
    # Long random words, except the ids of objects that clients know.
    re.compile(
        r"(?<![\w-])(?!(?:resp|msg|call|toolu|rs|fc|conv|file|video|batch|chatcmpl|cmpl|item|srvtoolu)[-_])"
        r"(?=[\w-]*[0-9])(?=[\w-]*[A-Za-z])[A-Za-z0-9_]{32,}(?![\w-])"
    ),
)
# The name after "in organization", "of project", "for account 'x'"; the word before it stays.
_NAMED_ACCOUNT = re.compile(
    rf"(\b(?:in|for|of|under|by|your)\s+(?:the\s+)?(?:{_ACCOUNT_WORDS})(?:\s+(?:id|number|name))?[\s:=]+)"
    r"(?:\"[^\"]+\"|'[^']+'|`[^`]+`|[\w.-]*[\w])",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Mask:
    """Hides what a message tells about the operator's account: names, ids, keys, addresses, the upstream's host.

    `secrets` are hidden wherever they stand. `renames` puts the public name of a model for the upstream's.
    """

    base_url: str
    secrets: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()

    def apply(self, text: str) -> str:
        for secret in sorted((secret for secret in self.secrets if len(secret) > 3), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        for there, public in self.renames:
            text = re.sub(rf"(?<![\w.-]){re.escape(there)}(?![\w-])", public.replace("\\", r"\\"), text)
        text = _URL.sub(self._hide_url, text)
        for pattern in _MASKS:
            text = pattern.sub(HIDDEN, text)
        text = _NAMED_ACCOUNT.sub(rf"\1{HIDDEN}", text)
        return text.replace(self._host, HIDDEN) if self._host else text

    @property
    def _host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    def _hide_url(self, found: re.Match[str]) -> str:
        # Other addresses stay: they may be the client's own, such as that of a picture which could not be fetched.
        try:
            host = urlsplit(found[0]).hostname or ""
        except ValueError:
            return HIDDEN
        return HIDDEN if _owner(host) == _owner(self._host) else found[0]


def _owner(host: str) -> str:
    return host if re.fullmatch(r"[0-9.]+|.*:.*", host) else ".".join(host.lower().split(".")[-2:])


def client_body(fault: Fault, mask: Mask, *, otherwise: str) -> bytes:
    """The error in OpenAI's shape with the provider's message, masked; `otherwise` where it told none."""
    error = {
        "message": mask.apply(fault.message) or otherwise,
        "type": fault.type or "invalid_request_error",
        "param": fault.param,
        "code": fault.code or None,
    }
    return json.dumps({"error": error}, ensure_ascii=False).encode()


def hidden_values(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(value for value in values if len(value) > 3)
