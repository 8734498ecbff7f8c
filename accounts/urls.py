from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views.decorators.http import require_POST
from django.views.i18n import set_language

from accounts import token_views, views

urlpatterns = [
    path("", views.home),
    path("login/", views.SignInView.as_view()),
    path("logout/", LogoutView.as_view()),
    path("language/", login_not_required(require_POST(set_language))),
    path("me/settings/", views.settings),
    path("console/tokens/", token_views.token_list),
    path("console/tokens/add/", token_views.token_add),
    path("console/tokens/<int:key_number>/edit/", token_views.token_edit),
    path("console/tokens/<int:key_number>/status/", token_views.token_status),
    path("console/tokens/<int:key_number>/rotate/", token_views.token_rotate),
    path("console/tokens/<int:key_number>/delete/", token_views.token_delete),
]
