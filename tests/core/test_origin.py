from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from accounts.models import User
from audit.models import AuditEvent
from core.addresses import resolve_client_address
from core.errors import InsufficientPool
from core.middleware import origin
from core.money import NANOS_PER_USD
from quotas.members import MemberChanges, edit_member
from relay.exchange import Request


def seen(settings: Any, peer: str, forwarded: str, trusted: list[str]) -> str | None:
    settings.TRUSTED_PROXIES = [ip_network(network) for network in trusted]
    return resolve_client_address(peer, forwarded)


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("198.51.100.7", "1.1.1.1", [], "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1", ["10.0.0.0/8"], "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6, 1.1.1.1", ["10.0.0.0/8"], "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", ["10.0.0.0/8"], "1.1.1.1"),
        ("198.51.100.7", "1.1.1.1", ["10.0.0.0/8"], "198.51.100.7"),
        ("10.0.0.1", "", ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", "nonsense", ["10.0.0.0/8"], "10.0.0.1"),
        ("::1", "2001:db8::7", ["::1/128"], "2001:db8::7"),
        ("", "1.1.1.1", [], None),
        ("::ffff:198.51.100.7", "", [], "198.51.100.7"),
    ],
)
def test_x_forwarded_for_counts_only_from_trusted_proxies(
    settings: Any, peer: str, forwarded: str, trusted: list[str], address: str | None
) -> None:
    assert seen(settings, peer, forwarded, trusted) == address


def test_the_relay_reads_the_header_that_its_proxy_added_not_the_one_that_the_client_sent(settings: Any) -> None:
    settings.TRUSTED_PROXIES = [ip_network("10.0.0.0/8")]
    lines = [(b"x-forwarded-for", b"6.6.6.6"), (b"host", b"h"), (b"x-forwarded-for", b"1.1.1.1")]
    request = Request({"method": "GET", "client": ("10.0.0.1", 5), "headers": lines}, receive=nobody, send=nobody)
    assert request.address == "1.1.1.1"


async def nobody(*_: Any) -> Any:
    raise AssertionError("the address must be read from the headers alone")


@pytest.mark.parametrize(("peer", "is_secure"), [("10.0.0.1", True), ("198.51.100.7", False)])
def test_only_a_trusted_proxy_may_state_that_the_client_used_https(settings: Any, peer: str, is_secure: bool) -> None:
    settings.TRUSTED_PROXIES = [ip_network("10.0.0.0/8")]
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    seen_secure = []

    def answer(request: HttpRequest) -> HttpResponse:
        seen_secure.append(request.is_secure())
        return HttpResponse()

    origin(answer)(RequestFactory().get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_PROTO="https"))

    assert seen_secure == [is_secure]


@pytest.mark.django_db
def test_a_refused_deed_leaves_no_event(member: User, manager: User) -> None:
    before = AuditEvent.objects.count()
    changes = MemberChanges(display_name="Changed", remaining_nanos=501 * NANOS_PER_USD)

    with pytest.raises(InsufficientPool):
        edit_member(member=member, changes=changes, actor=manager)

    assert AuditEvent.objects.count() == before
    assert User.objects.get(pk=member.pk).display_name == "Jun Sato"
