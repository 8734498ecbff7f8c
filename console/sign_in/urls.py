from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views.decorators.http import require_POST
from django.views.i18n import set_language

from console.sign_in import second_step, views

urlpatterns = [
    path("", views.home),
    path("login/", views.SignInView.as_view()),
    path("login/2fa/", second_step.second_step),
    path("logout/", LogoutView.as_view()),
    path("language/", login_not_required(require_POST(set_language))),
]
