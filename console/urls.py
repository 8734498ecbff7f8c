"""Every page of the console: one folder a page, each with its own addresses."""

from __future__ import annotations

from django.urls import include, path

PAGES = ("sign_in", "dashboard", "tokens", "usage", "tasks", "users", "activity", "credits", "statements", "settings")

urlpatterns = [path("", include(f"console.{page}.urls")) for page in PAGES]
