from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views.decorators.http import require_POST
from django.views.i18n import set_language

from accounts import session_views, token_views, two_factor_views, views

urlpatterns = [
    path("", views.home),
    path("login/", views.SignInView.as_view()),
    path("login/2fa/", two_factor_views.second_step),
    path("logout/", LogoutView.as_view()),
    path("language/", login_not_required(require_POST(set_language))),
    path("me/settings/", views.settings),
    path("me/confirm/", two_factor_views.confirm_password),
    path("me/two-factor/", two_factor_views.overview),
    path("me/two-factor/app/", two_factor_views.app_add),
    path("me/two-factor/app/remove/", two_factor_views.app_remove),
    path("me/two-factor/codes/", two_factor_views.codes_renew),
    path("me/two-factor/passkeys/add/", two_factor_views.passkey_add),
    path("me/two-factor/passkeys/<int:key_number>/remove/", two_factor_views.passkey_remove),
    path("me/sessions/<int:key_number>/end/", session_views.session_end),
    path("me/sessions/end-others/", session_views.sessions_end_others),
    path("console/tokens/", token_views.token_list),
    path("console/tokens/add/", token_views.token_add),
    path("console/tokens/<int:key_number>/edit/", token_views.token_edit),
    path("console/tokens/<int:key_number>/status/", token_views.token_status),
    path("console/tokens/<int:key_number>/rotate/", token_views.token_rotate),
    path("console/tokens/<int:key_number>/delete/", token_views.token_delete),
]
