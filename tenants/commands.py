"""Helpers for management commands with a --space option."""

from __future__ import annotations

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from tenants.models import Space


def space_called(name: str) -> Space:
    space = Space.objects.filter(name__iexact=name).first()
    if space is None:
        raise CommandError(_("--space: there is no space “%(name)s”") % {"name": name})
    return space
