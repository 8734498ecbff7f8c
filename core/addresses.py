"""The client address of a request. X-Forwarded-For counts only if it was added by one of TRUSTED_PROXIES."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from django.conf import settings


def resolve_client_address(peer: str, forwarded_for: str) -> str | None:
    """Return the peer's address or, behind trusted proxies, the last hop of X-Forwarded-For that is not one of them.

    None when the peer is not an IP address, as on a Unix socket.
    """
    if not forwarded_for:
        return _normalised(peer)
    hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
    address = _parsed(peer)
    while address is not None and hops and _is_trusted(address):
        address = _parsed(hops.pop()) or address
    return str(address) if address else None


def is_trusted_proxy(peer: str) -> bool:
    address = _parsed(peer)
    return address is not None and _is_trusted(address)


def _is_trusted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in settings.TRUSTED_PROXIES)


@lru_cache(maxsize=4096)
def _normalised(peer: str) -> str | None:
    address = _parsed(peer)
    return str(address) if address else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A dual-stack socket reports IPv4 clients as IPv4-mapped IPv6 addresses (::ffff:192.0.2.7).
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
