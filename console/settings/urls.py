from __future__ import annotations

from django.urls import path

from console.settings import sessions, two_factor, views

urlpatterns = [
    path("me/settings/", views.settings),
    path("me/confirm/", two_factor.confirm_password),
    path("me/two-factor/", two_factor.overview),
    path("me/two-factor/app/", two_factor.app_add),
    path("me/two-factor/app/remove/", two_factor.app_remove),
    path("me/two-factor/codes/", two_factor.codes_renew),
    path("me/two-factor/passkeys/add/", two_factor.passkey_add),
    path("me/two-factor/passkeys/<int:key_number>/remove/", two_factor.passkey_remove),
    path("me/sessions/<int:key_number>/end/", sessions.session_end),
    path("me/sessions/end-others/", sessions.sessions_end_others),
]
