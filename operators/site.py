"""Django admin's site for operators, who sign in at /login/ like everybody else."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import PasswordChangeView, redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _

from operators.forms import OperatorPasswordForm


class OperatorsSite(AdminSite):
    site_title = _("Space Manage operators")
    site_header = _("Space Manage operators")
    index_title = _("Operations")

    def has_permission(self, request: HttpRequest) -> bool:
        """Admit operators only. A space's members get 403 instead of a sign-in form, as they are signed in already."""
        if request.user.is_authenticated and not request.user.is_operator:
            raise PermissionDenied
        return super().has_permission(request)

    def password_change(  # type: ignore[override]  # a POST returns a redirect, not a TemplateResponse
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        """Django's page with OperatorPasswordForm, which throttles guesses and records the change in the trail."""
        page = PasswordChangeView.as_view(
            form_class=partial(OperatorPasswordForm, request=request),
            success_url="/admin/password_change/done/",
            template_name="registration/password_change_form.html",
            extra_context={**self.each_context(request), **(extra_context or {})},
        )
        return page(request)

    @method_decorator(login_not_required)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Redirect to /login/, the only sign-in page, where the throttle applies. A space's members get 403."""
        if request.user.is_authenticated:
            raise PermissionDenied
        return redirect_to_login(request.GET.get("next", "/admin/"))
