"""Figures of a log row."""

from __future__ import annotations

from django import template

register = template.Library()


@register.filter
def grouped(number: int) -> str:
    """`1,234,567`"""
    return f"{number:,}"


@register.filter
def duration(milliseconds: int) -> str:
    """`420 ms` or `8.4 s`"""
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.1f} s"
