from __future__ import annotations

from django.urls import path

from quotas import views

urlpatterns = [path("me/credits/", views.credits_page)]
