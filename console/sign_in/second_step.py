"""The second step of sign-in, after the password: an app's code, a recovery code or a passkey."""

from __future__ import annotations

from functools import partial

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from accounts import second_factor
from accounts.models import User
from accounts.sign_in import finish_second_step, pending_user
from accounts.throttle import check_secret
from console.guards import get_or_post
from console.sign_in.forms import CodeForm


@get_or_post
@login_not_required
@never_cache
@sensitive_post_parameters()
def second_step(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return HttpResponseRedirect("/")
    user = pending_user(request)
    if user is None:
        return HttpResponseRedirect("/login/")
    form = CodeForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and _gave_second_factor(request, user, form):
        return HttpResponseRedirect(finish_second_step(request, user))
    methods = second_factor.methods_of(user)
    question = second_factor.ask_for_passkey(request, user) if methods.passkeys else ""
    context = {"form": form, "methods": methods, "question": question, "pending": user}
    return render(request, "console/sign_in/second_step.html", context, status=422 if form.is_bound else 200)


def _gave_second_factor(request: HttpRequest, user: User, form: CodeForm) -> bool:
    passkey = request.POST.get("passkey", "")
    if passkey:
        form.fields["code"].required = False
    if not form.is_valid():
        return False
    code = form.cleaned_data["code"]
    check = partial(_check, request, user, code, passkey)
    if check_secret(request, user, check, attempt="session.signed_in", why="wrong_code"):
        return True
    if passkey:
        form.add_error(None, _("That passkey was not accepted. Try again, or enter a code."))
    else:
        form.wrong()
    return False


def _check(request: HttpRequest, user: User, code: str, passkey: str) -> bool:
    if passkey:
        return second_factor.use_passkey(request, user=user, answer=passkey)
    return second_factor.use_code(user=user, code=code)
