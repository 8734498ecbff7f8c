from __future__ import annotations

from django.urls import path

from console.usage import views

urlpatterns = [
    path("console/usage/", views.usage_log),
    path("console/usage.csv", views.usage_csv),
]
