"""Template tags for money: amounts, bars and the state of a wallet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from core.money import format_alike, format_balance, format_cost, format_exact

if TYPE_CHECKING:
    from quotas.models import Wallet

register = template.Library()

LOW_PERCENT = 20

register.filter("usd", format_balance)
register.filter("cost", format_cost)
register.filter("exact", format_exact)


@register.filter
def signed(nanos: int) -> str:
    """`+$15.00` or `−$15.00`: what a movement did to a balance."""
    return f"{'+' if nanos > 0 else ''}{format_balance(nanos)}"


@register.filter
def signed_exact(nanos: int) -> str:
    return f"{'+' if nanos > 0 else ''}{format_alike(nanos)[0]}"


@register.inclusion_tag("console/credits/_quota.html")
def quota(wallet: Wallet) -> dict[str, Any]:
    """`$2.00 / $5.00`, its bar, and Low, Used up or Not assigned."""
    remaining, total = wallet.remaining, wallet.total
    state = quota_state(remaining, total)
    return {"remaining": remaining, "total": total, "state": state, "meter": meter(remaining, total)}


def quota_state(remaining: int, total: int) -> str:
    if total == 0:
        return "unassigned"
    if remaining <= 0:
        return "used_up"
    return "low" if remaining * 100 < total * LOW_PERCENT else ""


def meter(remaining: int, total: int) -> SafeString:
    # The CSP allows no style attribute, so the width is an SVG one.
    return format_html(
        '<svg class="meter{}" aria-hidden="true" focusable="false">'
        '<rect class="meter__fill" width="{}%" height="100%" rx="2.5"/></svg>',
        " is-low" if quota_state(remaining, total) == "low" else "",
        _clamped_percent(remaining, total),
    )


@register.simple_tag
def segments(total: int, *parts: int | str) -> SafeString:
    """Return an SVG bar of several parts: `{% segments total spent "own" held "flight" %}`."""
    rects = []
    start = 0
    for nanos, look in zip(parts[::2], parts[1::2], strict=True):
        rects.append((look, _clamped_percent(start, total), _clamped_percent(int(nanos), total)))
        start += int(nanos)
    return format_html(
        '<svg class="segbar" aria-hidden="true" focusable="false">{}</svg>',
        format_html_join("", '<rect class="seg-{}" x="{}%" width="{}%" height="100%"/>', rects),
    )


def _clamped_percent(part: int, whole: int) -> str:
    share = min(max(part / whole, 0), 1) if whole else 0
    return f"{share * 100:.3f}"
