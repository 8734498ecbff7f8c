"""Checks before the first request is served."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

from tenants.models import Space


def refuse_published_passwords() -> None:
    """Raise ImproperlyConfigured when production would serve a database whose passwords are public."""
    if settings.DEMO:
        return
    try:
        has_demo = Space.objects.filter(is_demo=True).exists()
    except DatabaseError:
        return  # The database is unreachable or not migrated, which /readyz reports.
    if has_demo:
        raise ImproperlyConfigured(
            "This database holds the demo space, whose passwords are published. Point DATABASE_URL at another "
            "database, or set DEMO=true to serve the demo."
        )
