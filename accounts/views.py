from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from accounts.forms import OwnPasswordForm, ProfileForm, SignInForm
from accounts.services import change_own_password, rename_self
from tenants.guards import space_view
from tenants.middleware import SpaceRequest


class SignInView(LoginView):
    """The one door, for members and operators alike. The next page is kept when it is ours."""

    form_class = SignInForm
    template_name = "accounts/login.html"
    redirect_authenticated_user = True

    def form_invalid(self, form: SignInForm) -> HttpResponse:  # type: ignore[override]  # our form, not its base
        return self.render_to_response(self.get_context_data(form=form), status=422)


def locked_out(request: HttpRequest, *, minutes: int) -> HttpResponse:
    """429: too many wrong passwords for this name or from this address."""
    context = {"form": SignInForm(request), "locked_minutes": minutes, "next": request.POST.get("next", "")}
    response = render(request, "accounts/login.html", context, status=429)
    response["Retry-After"] = str(minutes * 60)
    return response


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    user = request.user
    assert user.is_authenticated
    return HttpResponseRedirect("/admin/" if user.is_operator else "/console/")


@require_http_methods(["GET", "HEAD", "POST"])
@space_view
def settings(request: SpaceRequest) -> HttpResponse:
    profile = ProfileForm(initial={"display_name": request.user.display_name})
    password = OwnPasswordForm(user=request.user)
    if request.method == "POST" and request.POST.get("form") == "password":
        password = OwnPasswordForm(request.POST, user=request.user)
        if password.is_valid():
            change_own_password(user=request.user, password=password.cleaned_data["new_password"])
            update_session_auth_hash(request, request.user)
            return _saved(request, _("Password changed. Other sessions are signed out."))
    elif request.method == "POST":
        profile = ProfileForm(request.POST)
        if profile.is_valid():
            rename_self(user=request.user, display_name=profile.cleaned_data["display_name"])
            return _saved(request, _("Profile saved."))
    context = {"profile_form": profile, "password_form": password}
    return render(request, "accounts/settings.html", context, status=422 if request.method == "POST" else 200)


def _saved(request: HttpRequest, text: str) -> HttpResponse:
    messages.success(request, text)
    response = HttpResponseRedirect("/me/settings/")
    response.status_code = 303
    return response
