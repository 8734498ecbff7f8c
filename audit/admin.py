from __future__ import annotations

from django.contrib import admin

from audit.models import AuditEvent
from spacemanage.browse import BrowseOnly


@admin.register(AuditEvent)
class AuditEventAdmin(BrowseOnly[AuditEvent]):
    list_display = ("at", "space", "actor_name", "kind", "target_name", "address")
    list_select_related = ("space",)
    search_fields = ("actor_name", "target_name", "kind")
