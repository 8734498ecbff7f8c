"""Shared by the operators' pages: the acting operator, and the answer to a name that was taken in a race."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponseRedirect
from django.utils.translation import gettext as _

from accounts.models import User
from audit.services import record_refused_deed
from core.errors import NameTakenError
from tenants.models import Space


def acting_operator(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def name_taken(
    request: HttpRequest, error: NameTakenError, *, deed: str, target: User | Space | None, fields: tuple[str, ...]
) -> HttpResponseRedirect:
    """Record the refusal and show the form again: the name was taken between the form's check and the save."""
    asked = {name: request.POST.get(name) for name in fields}
    record_refused_deed(deed, error, actor=acting_operator(request), target=target, asked=asked)
    messages.error(request, _("This name was taken meanwhile. Choose another one."))
    return HttpResponseRedirect(request.get_full_path())
