"""The sign-in page, the 429 response while locked out, and the redirect of `/`."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.models import User
from accounts.second_factor import has_second_factor
from accounts.sign_in import begin_second_step, sign_in
from accounts.throttle import minutes_left
from console.sign_in.forms import SignInForm


class SignInView(LoginView):
    """Sign-in of members and operators. Redirects to `next` if that is a URL of this site."""

    form_class = SignInForm
    template_name = "console/sign_in/login.html"
    redirect_authenticated_user = True

    def form_valid(self, form: SignInForm) -> HttpResponse:  # type: ignore[override]  # our form, not its base
        user = form.get_user()
        assert isinstance(user, User)
        if has_second_factor(user):
            begin_second_step(self.request, user, next_page=self.get_success_url())
            return HttpResponseRedirect("/login/2fa/")
        sign_in(self.request, user)
        return HttpResponseRedirect(self.get_success_url())

    def form_invalid(self, form: SignInForm) -> HttpResponse:  # type: ignore[override]  # our form, not its base
        return self.render_to_response(self.get_context_data(form=form), status=422)


def refuse(request: HttpRequest, response: HttpResponse | None = None, credentials: Any = None) -> HttpResponse:
    """Answer 429 while a name or an address is locked out. axes calls it (AXES_LOCKOUT_CALLABLE)."""
    minutes = minutes_left(request, credentials)
    template = "console/sign_in/login.html" if request.path == "/login/" else "429.html"
    context = {"form": SignInForm(request), "locked_minutes": minutes, "next": request.POST.get("next", "")}
    response = render(request, template, context, status=429)
    response["Retry-After"] = str(minutes * 60)
    return response


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    user = request.user
    assert user.is_authenticated
    return HttpResponseRedirect("/admin/" if user.is_operator else "/console/")
