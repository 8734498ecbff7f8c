from __future__ import annotations

from django.urls import path

from console.tasks import views

urlpatterns = [
    path("console/tasks/", views.task_log),
    path("console/tasks/running/", views.tasks_running),
    path("console/tasks.csv", views.tasks_csv),
]
