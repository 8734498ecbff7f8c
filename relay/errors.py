"""Error responses of /v1 in the format of OpenAI's API."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
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

# What /v1 serves, named in the answer to any other path.
ENDPOINTS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/videos"),
    *("/v1/models", "/v1/key"),
)
_TYPE_OF_STATUS = {401: "authentication_error", 403: "permission_error", 429: "insufficient_quota"}
_TYPE_OF_CODE = {"rate_limited": "rate_limit_error"}


@dataclass
class ApiError(Exception):
    status: int
    code: str
    message: str
    param: str | None = None
    may_retry: bool | None = None
    retry_after_s: float | None = None
    allow: str | None = None

    def body(self) -> dict[str, Any]:
        by_status = _TYPE_OF_STATUS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        kind = _TYPE_OF_CODE.get(self.code, by_status)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        headers = {} if self.may_retry is None else {"x-should-retry": str(self.may_retry).lower()}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, ceil(self.retry_after_s)))
        if self.allow is not None:
            headers["allow"] = self.allow
        return headers


def invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "invalid_request", message, param)


def unknown_model(name: str) -> ApiError:
    return ApiError(404, "model_not_found", _("The model %(name)s does not exist.") % {"name": name[:100]}, "model")


def unsupported(message: str, param: str) -> ApiError:
    return ApiError(400, "unsupported_parameter", message, param)


def unknown_endpoint() -> ApiError:
    return ApiError(404, "invalid_request", f"This endpoint does not exist. There is {', '.join(ENDPOINTS)}.")


def base_url_without_version(base_url: str) -> ApiError:
    return ApiError(404, "invalid_request", f"The base URL of this API is {base_url}; yours lacks /v1 at its end.")


def too_large(max_bytes: int) -> ApiError:
    return ApiError(413, "invalid_request", f"The body is larger than {max_bytes} bytes.")


def unknown_content(param: str, identifier: str) -> ApiError:
    """The same answer for another user's content as for content that never existed, so that ids cannot be probed."""
    message = _(
        "%(param)s: nothing with the id %(id)s is kept for you. Set `store: false` in your client, so that it sends "
        "the content instead of its id, or ask the platform's operators to keep state at this upstream (keeps_state)."
    )
    return ApiError(404, "invalid_request", message % {"param": param, "id": identifier[:100]}, param)


def content_elsewhere(param: str, identifier: str) -> ApiError:
    message = _(
        "%(param)s: %(id)s is kept at an upstream that lacks this model, or other content that the request names. Set "
        "`store: false` in your client, so that it sends the content instead of its id."
    )
    return ApiError(404, "invalid_request", message % {"param": param, "id": identifier[:100]}, param)


def rate_limited(retry_after_s: float) -> ApiError:
    return ApiError(
        429,
        "rate_limited",
        _("The model's providers are at their rate limit. Nothing was charged. Try again later."),
        may_retry=True,
        retry_after_s=retry_after_s,
    )


def wrong_method(right: str) -> ApiError:
    return ApiError(405, "invalid_request", f"This endpoint accepts only {right}.", allow=f"{right}, OPTIONS")


def unknown_task() -> ApiError:
    """The same answer for another user's task as for one that never existed, so that ids cannot be probed."""
    return ApiError(404, "task_not_found", _("This task does not exist."))


def unavailable() -> ApiError:
    return ApiError(
        503, "unavailable", _("Charges cannot be recorded at the moment. Try again shortly."), may_retry=True
    )


def upstream_failed(message: str = "The model's provider failed. Nothing was charged.") -> ApiError:
    return ApiError(502, "upstream_error", message)


def broke_off() -> ApiError:
    return ApiError(502, "upstream_broke_off", "The model's provider broke off in the middle of its answer.")


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
