"""Responses of the console: pieces for htmx; whole pages and 303 redirects for browsers without JavaScript."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.template.loader import render_to_string

from console.guards import SpaceRequest

Context = dict[str, Any]


@dataclass(frozen=True)
class Toast:
    text: str
    undo_url: str = ""
    undo_value: str = ""


def is_htmx(request: SpaceRequest) -> bool:
    # A history restore request needs the whole page.
    return bool(request.htmx) and not request.htmx.history_restore_request


def page_or_piece(
    request: SpaceRequest,
    page: str,
    context: Context,
    *,
    piece: str,
    target: str,
    shown_url: str = "",
    rest: Callable[[], Context] = dict,
) -> HttpResponse:
    """Render the template `piece` when htmx swaps `target`, else the whole `page`.

    `shown_url` is pushed to the browser's history (HX-Push-Url) in place of the requested URL, which has the empty
    fields of the filter form. `rest` returns context that only the whole page needs.
    """
    if not (is_htmx(request) and request.htmx.target == target):
        return render(request, page, context | rest())
    response = render(request, piece, context)
    if shown_url:
        response["HX-Push-Url"] = shown_url
    return response


def dialog(
    request: SpaceRequest, form_template: str, title: str, context: Context, *, beside_template: str = ""
) -> HttpResponse:
    """Render a form in a dialog; after an invalid POST only the form, with 422; without htmx a whole page."""
    status = 422 if request.method == "POST" else 200
    context = context | {"form_template": form_template, "title": title, "beside_template": beside_template}
    if not is_htmx(request):
        return render(request, "console/form_page.html", context, status=status)
    template = form_template if request.method == "POST" else "console/_dialog.html"
    return render(request, template, context, status=status)


def deed_done(
    request: SpaceRequest, toast: Toast, *, back: str, pieces: str, context: Callable[[], Context], focus: str = ""
) -> HttpResponse:
    """Answer a finished deed: the template `pieces` swapped out of band, or without htmx 303 to the list at `back`.

    The dialog closes. Focus moves to the element with the id `focus`, or if empty back to the button that opened it.
    """
    if not is_htmx(request):
        messages.success(request, toast.text)
        return back_to_list(request, back)
    response = HttpResponse(render_to_string(pieces, {"toast": toast, "oob": True} | context(), request))
    response["HX-Reswap"] = "none"
    response["HX-Trigger-After-Settle"] = json.dumps({"dialog:close": {"focus": focus} if focus else {}})
    return response


def focus_after(numbers: Sequence[int | None], gone: int | None, *, otherwise: str) -> str:
    """Return the id to focus after a row is removed: the edit button of the next or previous row, else `otherwise`."""
    if gone not in numbers:
        return otherwise
    place = numbers.index(gone)
    neighbours = [*numbers[place + 1 : place + 2], *numbers[max(place - 1, 0) : place]]
    return f"edit-{neighbours[0]}" if neighbours else otherwise


def see_other(address: str) -> HttpResponse:
    response = HttpResponseRedirect(address)
    response.status_code = 303
    return response


def back_to_list(request: HttpRequest, address: str) -> HttpResponse:
    came_from = _split(request.headers.get("Referer", ""))
    query = f"?{came_from.query}" if came_from.path == address and came_from.query else ""
    return see_other(address + query)


def shown_query(request: SpaceRequest, address: str) -> QueryDict:
    """Return the query string of the list that the browser shows behind the dialog (HX-Current-URL)."""
    shown = _split(request.headers.get("HX-Current-URL", "") if request.htmx else "")
    return QueryDict(shown.query if shown.path == address else "")


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
