from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from accounts.forms import OwnPasswordForm, ProfileForm, SignInForm
from accounts.models import User
from accounts.second_factor import has_second_factor
from accounts.services import change_own_password, rename_self
from accounts.sign_in import begin_second_step, sign_in
from tenants.guards import space_view
from tenants.middleware import SpaceRequest


class SignInView(LoginView):
    """The one door, for members and operators alike. The next page is kept when it is ours."""

    form_class = SignInForm
    template_name = "accounts/login.html"
    redirect_authenticated_user = True

    def form_valid(self, form: SignInForm) -> HttpResponse:  # type: ignore[override]  # our form, not its base
        """The password is right; who has a second factor is asked for it before anything else."""
        user = form.get_user()
        assert isinstance(user, User)
        if has_second_factor(user):
            begin_second_step(self.request, user, next_page=self.get_success_url())
            return HttpResponseRedirect("/login/2fa/")
        sign_in(self.request, user)
        return HttpResponseRedirect(self.get_success_url())

    def form_invalid(self, form: SignInForm) -> HttpResponse:  # type: ignore[override]  # our form, not its base
        return self.render_to_response(self.get_context_data(form=form), status=422)


def locked_out(request: HttpRequest, *, minutes: int) -> HttpResponse:
    """429: too many wrong passwords or codes for this name or from this address."""
    template = "accounts/login.html" if request.path == "/login/" else "429.html"
    context = {"form": SignInForm(request), "locked_minutes": minutes, "next": request.POST.get("next", "")}
    response = render(request, template, context, status=429)
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
    password = OwnPasswordForm(request=request)
    if request.method == "POST" and request.POST.get("form") == "password":
        password = OwnPasswordForm(request.POST, request=request)
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
