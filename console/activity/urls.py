from __future__ import annotations

from django.urls import path

from console.activity import views

urlpatterns = [
    path("space/audit/", views.activity),
    path("space/audit.csv", views.activity_csv),
    path("me/activity/", views.own_activity),
]
