"""What an upstream's status or error code means for the relay: whose fault it is, who is asked next, who is left alone.

Tables only; `relay/upstreams.py` acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    # The client's request is at fault: its error is passed on and nobody else is asked.
    CLIENT = "client"
    # This upstream does not serve the model under that name.
    UNKNOWN_MODEL = "unknown_model"
    # The request is larger than this upstream takes; another may take it.
    TOO_LARGE = "too_large"
    # The request holds what only another account can read, such as encrypted reasoning.
    OTHER_ACCOUNT = "other_account"
    # The operator's credential, permission or balance with the provider.
    CREDENTIAL = "credential"
    RATE_LIMITED = "rate_limited"
    # Overloaded, or failed in itself.
    UNAVAILABLE = "unavailable"
    # No connection, so that nothing was sent.
    UNREACHABLE = "unreachable"
    # The connection broke after the request was sent, before the answer was whole.
    BROKEN = "broken"
    TIMEOUT = "timeout"
    # Not an answer of this API: HTML, nothing, a redirect, an unknown address.
    UNUSABLE = "unusable"


class Scope(Enum):
    """What is left alone for a while after a failure."""

    NOTHING = "nothing"
    MODEL = "model"
    UPSTREAM = "upstream"


class Verdict(NamedTuple):
    kind: Kind
    scope: Scope
    # Whether it stays until somebody acts, so that the upstream is left alone for longer.
    is_permanent: bool = False


_CLIENT = Verdict(Kind.CLIENT, Scope.NOTHING)
_CREDENTIAL = Verdict(Kind.CREDENTIAL, Scope.UPSTREAM, is_permanent=True)
_FORBIDDEN = Verdict(Kind.CREDENTIAL, Scope.MODEL)
_UNKNOWN_MODEL = Verdict(Kind.UNKNOWN_MODEL, Scope.MODEL)
_RATE_LIMITED = Verdict(Kind.RATE_LIMITED, Scope.MODEL)
_BUSY = Verdict(Kind.UNAVAILABLE, Scope.MODEL)
_FAILED = Verdict(Kind.UNAVAILABLE, Scope.UPSTREAM)
GONE = _CLIENT
UNUSABLE = Verdict(Kind.UNUSABLE, Scope.UPSTREAM)
UNREACHABLE = Verdict(Kind.UNREACHABLE, Scope.UPSTREAM)
BROKEN = Verdict(Kind.BROKEN, Scope.UPSTREAM)
TIMEOUT = Verdict(Kind.TIMEOUT, Scope.MODEL)

# docs/upstreams.md has this table in words. Every other 4xx is the client's, every other status unusable.
STATUSES: Mapping[int, Verdict] = {
    401: _CREDENTIAL,
    402: _CREDENTIAL,
    403: _FORBIDDEN,
    404: _UNKNOWN_MODEL,
    405: UNUSABLE,
    408: _BUSY,
    409: _BUSY,
    413: Verdict(Kind.TOO_LARGE, Scope.NOTHING),
    425: _BUSY,
    426: UNUSABLE,
    429: _RATE_LIMITED,
    498: _BUSY,
    529: _BUSY,
}

# Codes and types in error bodies, where they say more than the status, or where the status is 200.
CODES: Mapping[str, Verdict] = {
    "insufficient_quota": _CREDENTIAL,
    "billing_hard_limit_reached": _CREDENTIAL,
    "billing_not_active": _CREDENTIAL,
    "billing_error": _CREDENTIAL,
    "invalid_api_key": _CREDENTIAL,
    "invalid_authentication": _CREDENTIAL,
    "account_deactivated": _CREDENTIAL,
    "authentication_error": _CREDENTIAL,
    "unauthenticated": _CREDENTIAL,
    "permission_error": _FORBIDDEN,
    "permission_denied": _FORBIDDEN,
    "model_not_found": _UNKNOWN_MODEL,
    "model_not_available": _UNKNOWN_MODEL,
    "deploymentnotfound": _UNKNOWN_MODEL,
    "not_found_error": _UNKNOWN_MODEL,
    "rate_limit_error": _RATE_LIMITED,
    "rate_limit_exceeded": _RATE_LIMITED,
    "rate_limit_reached_error": _RATE_LIMITED,
    "resource_exhausted": _RATE_LIMITED,
    "too_many_requests": _RATE_LIMITED,
    "overloaded_error": _BUSY,
    "engine_overloaded_error": _BUSY,
    "capacity_exceeded": _BUSY,
    "timeout_error": _BUSY,
    "api_error": _FAILED,
    "server_error": _FAILED,
    "internal_server_error": _FAILED,
    "service_unavailable": _FAILED,
    "unavailable": _FAILED,
    "request_too_large": Verdict(Kind.TOO_LARGE, Scope.NOTHING),
    "invalid_encrypted_content": Verdict(Kind.OTHER_ACCOUNT, Scope.NOTHING),
    "invalid_request_error": _CLIENT,
    "invalid_request": _CLIENT,
    "invalid_argument": _CLIENT,
    "invalid_prompt": _CLIENT,
    "content_filter": _CLIENT,
    "content_policy_violation": _CLIENT,
    "context_length_exceeded": _CLIENT,
}
_DECISIVE = frozenset({"model_not_found", "deploymentnotfound", "invalid_encrypted_content"})
# Codes that are believed whatever the status: a 429 may mean an empty account, a 400 an invalid key.
DECISIVE_CODES = frozenset(code for code, verdict in CODES.items() if verdict.is_permanent or code in _DECISIVE)


def verdict_of_status(status: int) -> Verdict:
    if status in STATUSES:
        return STATUSES[status]
    if status >= 500:
        return _FAILED
    return _CLIENT if 400 <= status < 500 else UNUSABLE
