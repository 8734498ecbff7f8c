"""URLs of the console: one folder per page, each with its own urls.py."""

from __future__ import annotations

from django.urls import include, path

PAGES = ("sign_in", "dashboard", "tokens", "usage", "tasks", "users", "activity", "credits", "statements", "settings")

urlpatterns = [path("", include(f"console.{page}.urls")) for page in PAGES]
