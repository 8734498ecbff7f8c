"""What the console's pages and dialogs answer: pieces to htmx, whole pages and 303 to everybody else."""

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
    """Whether htmx asks for a piece. When it restores history it asks for the whole page."""
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
    """Render the template `piece` for htmx when it swaps `target`, else the whole `page`.

    `shown_url` replaces the browser's address, so that it carries no empty fields of a filter's form. `rest` is what
    only the page shows; it is called for the page alone.
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
    """A form in a dialog, the form alone (422) when it was posted and is invalid, or either as a page of its own."""
    status = 422 if request.method == "POST" else 200
    context = context | {"form_template": form_template, "title": title, "beside_template": beside_template}
    if not is_htmx(request):
        return render(request, "console/form_page.html", context, status=status)
    template = form_template if request.method == "POST" else "console/_dialog.html"
    return render(request, template, context, status=status)


def deed_done(
    request: SpaceRequest, toast: Toast, *, back: str, pieces: str, context: Callable[[], Context], focus: str = ""
) -> HttpResponse:
    """Answer a finished deed: the template `pieces` swapped out of band, or 303 to the list at `back`.

    The dialog closes, and focus goes to the element with the id `focus`; empty is where the dialog was opened.
    """
    if not is_htmx(request):
        messages.success(request, toast.text)
        return back_to_list(request, back)
    response = HttpResponse(render_to_string(pieces, {"toast": toast, "oob": True} | context(), request))
    response["HX-Reswap"] = "none"
    response["HX-Trigger-After-Settle"] = json.dumps({"dialog:close": {"focus": focus} if focus else {}})
    return response


def focus_after(numbers: Sequence[int | None], gone: int | None, *, otherwise: str) -> str:
    """The id to focus when a row goes: the next row's pencil, else the previous one's, else `otherwise`."""
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
    """303 to the list at that address, with the query that the referring list had."""
    came_from = _split(request.headers.get("Referer", ""))
    query = f"?{came_from.query}" if came_from.path == address and came_from.query else ""
    return see_other(address + query)


def shown_query(request: SpaceRequest, address: str) -> QueryDict:
    """The query of the list at that address, as the browser shows it behind the dialog."""
    shown = _split(request.headers.get("HX-Current-URL", "") if request.htmx else "")
    return QueryDict(shown.query if shown.path == address else "")


def _split(address: str) -> SplitResult:
    """A client can put any text into a header; one that is no address counts as empty."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
