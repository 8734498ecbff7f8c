from __future__ import annotations

from django.urls import path

from usage import views

urlpatterns = [
    path("console/", views.dashboard),
    path("console/usage/", views.usage_log),
]
