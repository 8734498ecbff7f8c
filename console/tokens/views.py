"""Token Management: one's own API keys and their dialogs, which are whole pages without JavaScript.

A key is shown in clear only in the response that creates or rotates it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.keys import create_key, delete_key, edit_key, rotate_key, set_key_enabled
from accounts.models import ApiKey, User
from console.answers import Context, Toast, deed_done, dialog, focus_after, is_htmx, page_or_piece, shown_query
from console.forms import StatusForm
from console.guards import SpaceRequest, View, get_or_post, space_view
from console.tokens.first_call import first_call
from console.tokens.forms import RotateForm, TokenForm

TOKENS_URL = "/console/tokens/"
PAGE_SIZE = 20

KeyView = Callable[[SpaceRequest, ApiKey], HttpResponse]


def key_view(view: KeyView) -> View:
    """Load the user's own key by its number; 404 for a deleted key or one of another user."""

    @wraps(view)
    def guarded(request: SpaceRequest, key_number: int) -> HttpResponse:
        key = get_object_or_404(keys_of(request.user), number=key_number)
        try:
            return view(request, key)
        except ApiKey.DoesNotExist:
            raise Http404 from None

    return space_view(guarded)


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def token_list(request: SpaceRequest) -> HttpResponse:
    return page_or_piece(
        request,
        "console/tokens/token_list.html",
        {"page": _page(request.user, request.GET)},
        piece="console/tokens/token_list.html#table",
        target="token-table",
    )


@get_or_post
@space_view
def token_add(request: SpaceRequest) -> HttpResponse:
    form = TokenForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        key, text = create_key(owner=request.user, terms=form.terms())
        return _key_shown(request, key, text, _("%(name)s added.") % {"name": key.name})
    return dialog(request, "console/tokens/_token_add_form.html", _("Add Token"), {"form": form})


@get_or_post
@key_view
def token_edit(request: SpaceRequest, key: ApiKey) -> HttpResponse:
    form = TokenForm(request.POST if request.method == "POST" else None, key=key)
    if form.is_valid():
        key = edit_key(key=key, terms=form.terms(), actor=request.user)
        return _done(request, Toast(_("%(name)s saved.") % {"name": key.name}), row=key)
    return dialog(request, "console/tokens/_token_edit_form.html", _("Edit Token"), {"form": form, "key": key})


@require_POST
@key_view
def token_status(request: SpaceRequest, key: ApiKey) -> HttpResponse:
    form = StatusForm(request.POST)
    if not form.is_valid():
        return HttpResponse(form.errors["enabled"][0], status=422, content_type="text/plain; charset=utf-8")
    key = set_key_enabled(key=key, is_enabled=form.is_enabled(), actor=request.user)
    text = _("%(name)s is enabled.") if key.is_enabled else _("%(name)s is disabled. Calls with it are refused.")
    undo = "false" if key.is_enabled else "true"
    return _done(request, Toast(text % {"name": key.name}, undo_url=request.path, undo_value=undo), row=key)


@get_or_post
@key_view
def token_rotate(request: SpaceRequest, key: ApiKey) -> HttpResponse:
    form = RotateForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        key, text = rotate_key(key=key, grace=form.grace_time(), actor=request.user)
        return _key_shown(request, key, text, _("%(name)s has a new key.") % {"name": key.name})
    in_grace = key.old_until is not None and key.old_until > timezone.now()
    context = {"form": form, "key": key, "in_grace": in_grace}
    return dialog(request, "console/tokens/_token_rotate_form.html", _("Rotate Token"), context)


@get_or_post
@key_view
def token_delete(request: SpaceRequest, key: ApiKey) -> HttpResponse:
    if request.method == "POST":
        shown = [one.number for one in _page(request.user, shown_query(request, TOKENS_URL))]
        focus = focus_after(shown, key.number, otherwise="add-token")
        delete_key(key=key, actor=request.user)
        return _done(request, Toast(_("%(name)s deleted.") % {"name": key.name}), focus=focus)
    return dialog(request, "console/tokens/_token_delete_form.html", _("Delete Token"), {"key": key})


def keys_of(owner: User) -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(space=owner.space_id, user=owner).order_by("-number")


def _page(owner: User, query: QueryDict) -> Page[ApiKey]:
    return Paginator(keys_of(owner), PAGE_SIZE).get_page(query.get("page"))


def _key_shown(request: SpaceRequest, key: ApiKey, text: str, said: str) -> HttpResponse:
    base_url = request.build_absolute_uri("/v1")
    curl = first_call(key, text=text, base_url=base_url)
    context = {"key": key, "text": text, "base_url": base_url, "curl": curl}
    context |= {"form_template": "console/tokens/_token_key.html", "title": _("Copy your new key")}
    if not is_htmx(request):
        return render(request, "console/form_page.html", context)
    context |= {"closedby": "none", "look": "dialog--wide"}
    changed = _done_context(request) | {"toast": Toast(said), "oob": True}
    shown = render_to_string("console/_dialog.html", context, request)
    response = HttpResponse(shown + render_to_string("console/tokens/_tokens_done.html", changed, request))
    # Replace the form's dialog with one that Escape does not close (closedby="none"): the key is not shown again.
    response["HX-Retarget"] = "#dialogs"
    response["HX-Reswap"] = "innerHTML"
    return response


def _done(request: SpaceRequest, toast: Toast, *, row: ApiKey | None = None, focus: str = "") -> HttpResponse:
    def context() -> Context:
        return _done_context(request, row=row)

    return deed_done(
        request, toast, back=TOKENS_URL, pieces="console/tokens/_tokens_done.html", context=context, focus=focus
    )


def _done_context(request: SpaceRequest, *, row: ApiKey | None = None) -> Context:
    return {"row": row} if row else {"row": None, "page": _page(request.user, shown_query(request, TOKENS_URL))}
