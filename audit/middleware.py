"""First in line: who is calling, believed from a proxy only where settings say so, and a number for the request."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from uuid import uuid4

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars

from audit.origin import acting


def origin(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        address = believed_address(request)
        peer = _parsed(request.META.get("REMOTE_ADDR", ""))
        if peer is None or not _is_trusted(peer):
            # Nobody but a trusted proxy says that a request came by HTTPS.
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
        # Whatever reads REMOTE_ADDR after this (the sign-in throttle, the audit trail) sees the same client.
        request.META["REMOTE_ADDR"] = address or ""
        request_id = uuid4().hex
        with acting(address=address, request_id=request_id), bound_contextvars(request=request_id):
            response = get_response(request)
        response["X-Request-ID"] = request_id
        return response

    return middleware


def believed_address(request: HttpRequest) -> str | None:
    """The client's address: the peer's, or, behind trusted proxies, the last one that none of them added."""
    hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
    address = _parsed(request.META.get("REMOTE_ADDR", ""))
    while address is not None and hops and _is_trusted(address):
        address = _parsed(hops.pop()) or address
    return str(address) if address else None


def _is_trusted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in settings.TRUSTED_PROXIES)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
