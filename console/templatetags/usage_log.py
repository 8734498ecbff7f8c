"""Template filters for numbers and durations in log rows."""

from __future__ import annotations

from datetime import timedelta

from django import template

register = template.Library()


@register.filter
def grouped(number: int) -> str:
    return f"{number:,}"


@register.filter
def duration(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.1f} s"


@register.filter
def lasting(span: timedelta) -> str:
    """`48 s`, `2 m 05 s` or `1 h 04 m`"""
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} m"
    return f"{minutes} m {seconds:02} s" if minutes else f"{seconds} s"
