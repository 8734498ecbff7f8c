from __future__ import annotations

from collections.abc import Callable

from django.conf import settings as config
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.forms import Form
from django.http import HttpResponse, QueryDict
from django.shortcuts import render
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from accounts.services import change_own_password, edit_self
from console.answers import is_htmx, see_other
from console.guards import SpaceRequest, space_view
from console.settings.forms import LocaleForm, OwnPasswordForm, ProfileForm, ThemeForm

A_YEAR_S = 31_536_000


@require_http_methods(["GET", "HEAD", "POST"])
@space_view
def settings(request: SpaceRequest) -> HttpResponse:
    """Show or save Personal Settings. The field `form` names the form that was sent."""
    forms = _own_forms(request)
    sent = request.POST.get("form", "profile")
    if request.method == "POST" and sent in forms:
        forms[sent] = _own_forms(request, request.POST)[sent]
        if forms[sent].is_valid():
            return _SAVES[sent](request, forms[sent].cleaned_data)
    context = {f"{name}_form": form for name, form in forms.items()}
    return render(request, "console/settings/settings.html", context, status=422 if request.method == "POST" else 200)


def _own_forms(request: SpaceRequest, data: QueryDict | None = None) -> dict[str, Form]:
    user = request.user
    return {
        "profile": ProfileForm(data, initial={"display_name": user.display_name}),
        "password": OwnPasswordForm(data, request=request),
        "theme": ThemeForm(data, initial={"theme": user.theme}),
        "locale": LocaleForm(data, initial={"language": user.language, "time_zone": user.time_zone}),
    }


def _save_profile(request: SpaceRequest, given: dict[str, str]) -> HttpResponse:
    edit_self(user=request.user, display_name=given["display_name"])
    return _saved(request, _("Profile saved."))


def _save_password(request: SpaceRequest, given: dict[str, str]) -> HttpResponse:
    change_own_password(user=request.user, password=given["new_password"])
    update_session_auth_hash(request, request.user)
    return _saved(request, _("Password changed. Other sessions are signed out."))


def _save_theme(request: SpaceRequest, given: dict[str, str]) -> HttpResponse:
    edit_self(user=request.user, theme=given["theme"])
    response = _saved(request, _("Theme saved."))
    # Without HttpOnly, because the script of the top bar's theme button writes this cookie as well.
    _keep_cookie(response, "theme", given["theme"])
    return response


def _save_locale(request: SpaceRequest, given: dict[str, str]) -> HttpResponse:
    edit_self(user=request.user, language=given["language"], time_zone=given["time_zone"])
    request.COOKIES.pop(config.LANGUAGE_COOKIE_NAME, None)
    translation.activate(given["language"] or translation.get_language_from_request(request))
    response = _saved(request, _("Language and time zone saved."))
    # A cookie, so that the sign-in page uses this language before the user is known.
    _keep_cookie(response, config.LANGUAGE_COOKIE_NAME, given["language"], httponly=True)
    return response


_SAVES: dict[str, Callable[[SpaceRequest, dict[str, str]], HttpResponse]] = {
    "profile": _save_profile,
    "password": _save_password,
    "theme": _save_theme,
    "locale": _save_locale,
}


def _keep_cookie(response: HttpResponse, name: str, value: str, *, httponly: bool = False) -> None:
    if not value:
        response.delete_cookie(name, samesite="Lax")
        return
    response.set_cookie(name, value, max_age=A_YEAR_S, secure=config.HTTPS, httponly=httponly, samesite="Lax")


def _saved(request: SpaceRequest, text: str) -> HttpResponse:
    if is_htmx(request):
        return render(request, "console/settings/_settings_saved.html", {"text": text})
    messages.success(request, text)
    return see_other("/me/settings/")
