from __future__ import annotations

from django.urls import path

from usage import views

urlpatterns = [
    path("console/", views.dashboard),
    path("console/members/", views.dashboard_members),
    path("console/usage/", views.usage_log),
    path("console/usage.csv", views.usage_csv),
    path("console/tasks.csv", views.tasks_csv),
    path("console/tasks/", views.task_log),
    path("console/tasks/running/", views.tasks_running),
]
