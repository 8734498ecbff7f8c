"""Pages to set up one's own second factor: authenticator app, passkeys and recovery codes.

Every signed-in user may open them, operators included. They are never cached, because some show secrets. A user who
must set up a second factor first can reach no other page.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from allauth.mfa.adapter import get_adapter
from allauth.mfa.models import Authenticator
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_safe

from accounts import second_factor
from accounts.models import User
from accounts.sign_in import confirm, is_confirmed
from console.answers import see_other
from console.guards import Refusal, SpaceRequest, get_or_post
from console.settings.forms import PasskeyForm
from console.settings.qr import drawing_of
from console.sign_in.forms import CodeForm, CurrentPasswordForm

View = Callable[..., HttpResponse]
OVERVIEW = "/me/two-factor/"
_NEW_SECRET = "new_app_secret"  # noqa: S105  # a session key, not a secret


def confirmed_view(view: View) -> View:
    """Require that the current password was entered recently; else redirect to the page that asks for it."""

    @wraps(view)
    def guarded(request: SpaceRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if is_confirmed(request):
            return view(request, *args, **kwargs)
        return see_other(f"/me/confirm/?{urlencode({'next': request.path})}")

    return never_cache(guarded)


@get_or_post
@never_cache
@sensitive_post_parameters()
def confirm_password(request: SpaceRequest) -> HttpResponse:
    form = CurrentPasswordForm(request.POST if request.method == "POST" else None, request=request)
    next_page = _next_url(request)
    if form.is_valid():
        confirm(request)
        return see_other(next_page)
    context = {"form": form, "next": next_page, "back": _home_url(request), **_frame_context(request)}
    return render(request, "console/settings/confirm.html", context, status=422 if form.is_bound else 200)


@require_safe
@never_cache
def overview(request: SpaceRequest) -> HttpResponse:
    # For operators and users who must set it up first; the others have it in Personal Settings.
    return render(request, "console/settings/two_factor.html", _frame_context(request))


@get_or_post
@confirmed_view
@sensitive_post_parameters()
def app_add(request: SpaceRequest) -> HttpResponse:
    _require_credential_keys()
    if second_factor.methods_of(request.user).app:
        return see_other(_home_url(request))
    sealed = request.session.setdefault(_NEW_SECRET, second_factor.new_app_secret())
    form = CodeForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            codes = second_factor.enable_app(user=request.user, sealed_secret=sealed, code=form.cleaned_data["code"])
        except second_factor.WrongCodeError:
            form.wrong()
        else:
            del request.session[_NEW_SECRET]
            return _after_adding(request, codes, _("The authenticator app is set up."))
    context = {"form": form, **_app_facts(request.user, sealed), "back": _home_url(request), **_frame_context(request)}
    return render(request, "console/settings/two_factor_app.html", context, status=422 if form.is_bound else 200)


@get_or_post
@confirmed_view
def app_remove(request: SpaceRequest) -> HttpResponse:
    if request.method == "POST":
        second_factor.remove_app(user=request.user)
        return _home_with_message(request, _("The authenticator app is removed."))
    return _confirmation(
        request, title=_("Remove the authenticator app"), verb=_("Remove"), last=_is_last(request.user)
    )


@get_or_post
@confirmed_view
def passkey_add(request: SpaceRequest) -> HttpResponse:
    _require_credential_keys()
    form = PasskeyForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        name, answer = form.cleaned_data["name"], form.cleaned_data["passkey"]
        try:
            codes = second_factor.add_passkey(request, user=request.user, name=name, answer=answer)
        except second_factor.PasskeyUnusableError:
            form.add_error("passkey", _("This passkey’s signatures cannot be verified here. Use another device."))
        except second_factor.PasskeyRefusedError:
            form.add_error("passkey", _("That passkey was not accepted. Try again."))
        else:
            return _after_adding(request, codes, _("The passkey is added."))
    question = second_factor.begin_passkey(request, request.user)
    context = {"form": form, "question": question, "back": _home_url(request), **_frame_context(request)}
    return render(request, "console/settings/two_factor_passkey.html", context, status=422 if form.is_bound else 200)


@get_or_post
@confirmed_view
def passkey_remove(request: SpaceRequest, key_number: int) -> HttpResponse:
    mine = Authenticator.objects.filter(user=request.user, type=Authenticator.Type.WEBAUTHN)
    passkey = get_object_or_404(mine, pk=key_number)
    if request.method == "POST":
        second_factor.remove_passkey(user=request.user, passkey=passkey)
        return _home_with_message(request, _("The passkey is removed."))
    title = _("Remove the passkey %(name)s") % {"name": passkey}
    return _confirmation(request, title=title, verb=_("Remove"), last=_is_last(request.user))


@get_or_post
@confirmed_view
def codes_renew(request: SpaceRequest) -> HttpResponse:
    if request.method == "POST":
        # The new codes are shown in this response only.
        codes = second_factor.renew_codes(user=request.user)
        return _codes_page(request, codes) if codes else see_other(_home_url(request))
    return _confirmation(request, title=_("Make new recovery codes"), verb=_("Make new codes"), renews=True)


def _after_adding(request: SpaceRequest, codes: list[str], text: str) -> HttpResponse:
    if not codes:
        return _home_with_message(request, text)
    # Setting up the first factor ended the user's other sessions; this one goes on.
    update_session_auth_hash(request, request.user)
    return _codes_page(request, codes)


def _codes_page(request: SpaceRequest, codes: list[str]) -> HttpResponse:
    context = {
        "codes": codes,
        "as_text": "\n".join(codes) + "\n",
        "back": _home_url(request),
        **_frame_context(request),
    }
    return render(request, "console/settings/two_factor_codes.html", context)


def _home_with_message(request: SpaceRequest, text: str) -> HttpResponse:
    messages.success(request, text)
    return see_other(_home_url(request))


def _confirmation(request: SpaceRequest, **details: Any) -> HttpResponse:
    context = {**details, "back": _home_url(request), **_frame_context(request)}
    return render(request, "console/settings/two_factor_ask.html", context)


def _app_facts(user: User, sealed: str) -> dict[str, Any]:
    secret = second_factor.open_app_secret(sealed)
    address = get_adapter().build_totp_url(user, secret)
    grouped = " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))
    return {"secret": grouped, "qr": drawing_of(address), "address": address}


def _is_last(user: User) -> bool:
    methods = second_factor.methods_of(user)
    return len(methods.passkeys) + bool(methods.app) == 1


def _frame_context(request: SpaceRequest) -> dict[str, Any]:
    user = request.user
    must = second_factor.is_required_of(user) and not second_factor.has_second_factor(user)
    return {"must_set_up": must, "frame": "base.html" if user.space_id and not must else "bare.html"}


def _home_url(request: SpaceRequest) -> str:
    return OVERVIEW if _frame_context(request)["frame"] == "bare.html" else "/me/settings/"


def _next_url(request: SpaceRequest) -> str:
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    if url_has_allowed_host_and_scheme(wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()):
        return wanted
    return _home_url(request)


def _require_credential_keys() -> None:
    if not second_factor.is_possible():
        raise Refusal(
            title=_("Two-factor sign-in is not set up here"),
            text=_("The operators of this site have to set CREDENTIAL_KEYS first."),
        )
