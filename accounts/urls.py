from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path

from accounts import views

urlpatterns = [
    path("", views.home),
    path("login/", views.SignInView.as_view()),
    path("logout/", LogoutView.as_view()),
    path("me/settings/", views.settings),
]
