"""Error responses of /v1 in the format of OpenAI's API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from accounts.spending import REFUSAL_STATUS
from core.errors import (
    HoldUnknown,
    InsufficientQuota,
    KeyLimitReached,
    KeyRefused,
    NotSpending,
    QuotaError,
)
from core.money import format_exact

# Upstream statuses caused by the client's own request: passed on, and no other upstream is tried.
# All others (401, 403, 429, 5xx) concern the operator's account with the upstream.
CLIENT_ERROR_STATUSES = frozenset({400, 404, 405, 409, 413, 415, 422})


@dataclass
class ApiError(Exception):
    status: int
    code: str
    message: str
    param: str | None = None
    may_retry: bool | None = None

    def body(self) -> dict[str, Any]:
        kind = {401: "authentication_error", 403: "permission_error", 429: "insufficient_quota"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        return {} if self.may_retry is None else {"x-should-retry": str(self.may_retry).lower()}


def invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "invalid_request", message, param)


def unknown_model(name: str) -> ApiError:
    return ApiError(404, "model_not_found", _("The model %(name)s does not exist.") % {"name": name[:100]}, "model")


def unknown_endpoint() -> ApiError:
    return ApiError(404, "invalid_request", "This endpoint does not exist.")


def wrong_method(right: str) -> ApiError:
    return ApiError(405, "invalid_request", f"This endpoint accepts only {right}.")


def unknown_task() -> ApiError:
    """The same answer for another user's task as for one that never existed, so that ids cannot be probed."""
    return ApiError(404, "task_not_found", _("This task does not exist."))


def unavailable() -> ApiError:
    return ApiError(
        503, "unavailable", _("Charges cannot be recorded at the moment. Try again shortly."), may_retry=True
    )


def upstream_failed(message: str) -> ApiError:
    return ApiError(502, "upstream_error", message)


def refused(error: QuotaError) -> ApiError:
    match error:
        case KeyRefused() | NotSpending():
            return ApiError(REFUSAL_STATUS[error.code], error.code, _key_message(error.code))
        case KeyLimitReached():
            text = _(
                "This key's spending limit is %(limit)s: %(spent)s is spent, %(left)s is left, and the request may "
                "cost %(cost)s. Its owner can raise the limit under Token Management."
            )
            return _insufficient(error, text)
        case InsufficientQuota():
            text = _(
                "Your quota is %(limit)s: %(spent)s is spent, %(left)s is available after the holds of "
                "requests in flight, and this one may cost %(cost)s. A space manager or admin can raise it."
            )
            return _insufficient(error, text)
        case HoldUnknown():
            return invalid(_("This request was settled before."))
    return invalid(str(error))


def _insufficient(error: InsufficientQuota | KeyLimitReached, text: str) -> ApiError:
    figures = {"limit": error.limit, "spent": error.spent, "left": max(error.available, 0), "cost": error.amount}
    formatted = {name: f"${format_exact(nanos)}" for name, nanos in figures.items()}
    return ApiError(REFUSAL_STATUS[error.code], error.code, text % formatted, may_retry=False)


def _key_message(code: str) -> str:
    return {
        "invalid_api_key": _("This API key is not valid. Check it, or create one under Token Management."),
        "key_expired": _("This API key has expired. Its owner can extend it under Token Management."),
        "key_disabled": _("This API key is disabled. Its owner can enable it under Token Management."),
        "account_disabled": _("This account is disabled. A space manager or admin can enable it."),
        "space_suspended": _("This space is suspended. Ask the platform's operators."),
        "model_not_allowed": _("This API key may not use this model. Its owner can allow it under Token Management."),
        "ip_not_allowed": _("This API key may not be used from this address. Its owner can allow it."),
    }[code]
