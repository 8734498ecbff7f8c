from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from spacemanage import health

handler403 = "spacemanage.errors.forbidden"
handler500 = "spacemanage.errors.failed"

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("", include("console.urls")),
    path("admin/", admin.site.urls),
]
