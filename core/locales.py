"""Languages and time zones that a user can choose."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

REGIONS = {
    "Africa": _("Africa"),
    "America": _("America"),
    "Antarctica": _("Antarctica"),
    "Arctic": _("Arctic"),
    "Asia": _("Asia"),
    "Atlantic": _("Atlantic"),
    "Australia": _("Australia"),
    "Europe": _("Europe"),
    "Indian": _("Indian Ocean"),
    "Pacific": _("Pacific"),
}


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    # Leaves out abbreviations (EST) and old country names (Cuba, US/Pacific).
    places = {name for name in available_timezones() if name.partition("/")[0] in REGIONS and "/" in name}
    return frozenset(places | {"UTC"})


def validate_zone(name: str) -> None:
    if name not in zone_names():
        raise ValidationError(_("Choose a time zone from the list."), "unknown")


def validate_language(code: str) -> None:
    if code not in dict(settings.LANGUAGES):
        raise ValidationError(_("Choose a language from the list."), "unknown")


def zone_of(name: str) -> tzinfo:
    """Return the time zone; UTC for an empty name and for a zone that this machine's database does not know."""
    return ZoneInfo(name) if name in zone_names() else UTC


def offset_of(name: str, at: datetime) -> str:
    minutes = round((at.astimezone(zone_of(name)).utcoffset() or at - at).total_seconds() / 60)
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'-' if minutes < 0 else '+'}{hours:02}:{rest:02}"
