from __future__ import annotations

from django.urls import path

from console.credits import views

urlpatterns = [
    path("me/credits/", views.credits_page),
    path("me/credits.csv", views.credits_csv),
]
