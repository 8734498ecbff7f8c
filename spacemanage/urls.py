from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from spacemanage import health

handler403 = "spacemanage.errors.forbidden"
handler500 = "spacemanage.errors.failed"

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("", include("accounts.urls")),
    path("", include("tenants.urls")),
    path("", include("quotas.urls")),
    path("", include("usage.urls")),
    path("", include("audit.urls")),
    path("admin/", admin.site.urls),
]
