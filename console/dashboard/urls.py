from __future__ import annotations

from django.urls import path

from console.dashboard import views

urlpatterns = [
    path("console/", views.dashboard),
    path("console/members/", views.dashboard_members),
]
