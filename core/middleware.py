"""The first middleware: determines the client address (X-Forwarded-For of trusted proxies only) and a request id."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars

from core.addresses import is_trusted_proxy, resolve_client_address
from core.origin import acting


def origin(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        peer = request.META.get("REMOTE_ADDR", "")
        address = resolve_client_address(peer, request.META.get("HTTP_X_FORWARDED_FOR", ""))
        if not is_trusted_proxy(peer):
            # Only a trusted proxy may state that the client used HTTPS (SECURE_PROXY_SSL_HEADER).
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
        # Everything that reads REMOTE_ADDR from here on (the sign-in throttle, the sessions) sees the client address.
        request.META["REMOTE_ADDR"] = address or ""
        request_id = uuid4().hex
        with acting(address=address, request_id=request_id), bound_contextvars(request=request_id):
            response = get_response(request)
        response["X-Request-ID"] = request_id
        return response

    return middleware
