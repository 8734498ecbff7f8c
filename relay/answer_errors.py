"""Errors told inside an answer of status 200: as a body, as an event, or as a page that is no answer at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AnswerError = tuple[int, str, str]
EMPTY: AnswerError = (502, "empty_answer", "The answer has neither output nor usage.")
_MAX_CODE_LENGTH = 64
_MAX_MESSAGE_LENGTH = 2000
_DEFAULT_STATUS = 502
# By a part of the error's code or type. The first that fits decides.
_STATUS_OF_WORD = {
    "rate_limit": 429,
    "insufficient_quota": 429,
    "resource_exhausted": 429,
    "overloaded": 529,
    "authentication": 401,
    "invalid_api_key": 401,
    "billing": 402,
    "permission": 403,
    "not_found": 404,
    "context_length_exceeded": 400,
    "invalid_request": 400,
    "invalid_argument": 400,
    "content_filter": 400,
    "timeout": 504,
}
# What else is in a body of which `message` or `detail` is the error.
_ENVELOPE = frozenset({"id", "code", "type", "message", "detail", "request_id", "status", "error", "object", "param"})
_EVENTS_OF_ERRORS = frozenset({"error", "response.failed"})


def error_of(body: Mapping[str, Any], event: str = "") -> AnswerError | None:
    """The error that an answer or an event tells, as (status, code, message)."""
    if _is_told(error := body.get("error")):
        return _read(error, body)
    inner = body.get("response")
    if isinstance(inner, dict) and _is_told(error := inner.get("error")):
        return _read(error, inner)
    if _says_error(body, inner) or event in _EVENTS_OF_ERRORS:
        return _read(body, body)
    if (error := _choice_error(body)) is not None:
        return _read(error, body)
    return _bare_error(body)


def not_json(raw: bytes) -> AnswerError:
    text = raw[:1000].strip()
    if not text:
        return EMPTY
    kind = "HTML" if text.startswith(b"<") else "not JSON"
    return _DEFAULT_STATUS, "invalid_answer", f"The answer is {kind}."


def _is_told(error: object) -> bool:
    # Some gateways send an error of nulls with every answer.
    return any(error.values()) if isinstance(error, dict) else bool(error)


def _says_error(body: Mapping[str, Any], inner: object) -> bool:
    is_failed = isinstance(inner, dict) and inner.get("status") == "failed"
    is_failed = is_failed or (body.get("object") == "response" and body.get("status") == "failed")
    return is_failed or body.get("object") == "error" or body.get("type") in _EVENTS_OF_ERRORS


def _choice_error(body: Mapping[str, Any]) -> object:
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (choice.get("error") or choice.get("finish_reason") == "error"):
            return choice.get("error") or "The upstream stopped with an error."
    return None


def _bare_error(body: Mapping[str, Any]) -> AnswerError | None:
    if body.get("choices"):
        return None
    base = body.get("base_resp")
    # MiniMax tells errors here, and success as 0.
    if isinstance(base, dict) and base.get("status_code"):
        return _DEFAULT_STATUS, _code(base.get("status_code")), _text(base.get("status_msg"))
    names = {name for name, value in body.items() if value not in (None, False, "")}
    if not names <= _ENVELOPE:
        return None
    if detail := body.get("detail"):
        status = _DEFAULT_STATUS if isinstance(detail, str) else 422
        return status, "upstream_error", _text(detail)
    return _read(body, body) if isinstance(body.get("message"), str) and body["message"] else None


def _read(error: object, around: Mapping[str, Any]) -> AnswerError:
    if isinstance(error, list) and error:
        error = error[0]
    if not isinstance(error, dict):
        return _status(around.get("code"), around.get("type")), _code(around.get("code")), _text(error)
    code = error.get("code") if error.get("code") is not None else error.get("type")
    status = _status(code, error.get("status"), error.get("http_code"), error.get("type"))
    return status, _code(code), _text(error.get("message") or error.get("msg") or error.get("detail") or "")


def _status(*told: object) -> int:
    """The status by the first code that is one, else by the first word that is known."""
    numbers = [int(each) for each in map(str, told) if len(each) == 3 and each.isdecimal()]
    words = [each.lower() for each in told if isinstance(each, str)]
    known = [status for word in words for part, status in _STATUS_OF_WORD.items() if part in word]
    return next((number for number in numbers if 400 <= number <= 599), known[0] if known else _DEFAULT_STATUS)


def _code(value: object) -> str:
    return str(value)[:_MAX_CODE_LENGTH] if isinstance(value, str | int) and value != "" else "upstream_error"


def _text(value: object) -> str:
    try:
        return str(value)[:_MAX_MESSAGE_LENGTH]
    except RecursionError:
        return ""
