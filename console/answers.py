"""What a page's dialogs and deeds answer: pieces to htmx, whole pages and 303 to everybody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render

from console.guards import SpaceRequest


@dataclass(frozen=True)
class Toast:
    text: str
    undo_url: str = ""
    undo_value: str = ""


def is_htmx(request: SpaceRequest) -> bool:
    """Whether a piece is asked for; going back in history asks for the whole page."""
    return bool(request.htmx) and not request.htmx.history_restore_request


def dialog(request: SpaceRequest, stem: str, page: str, context: dict[str, Any]) -> HttpResponse:
    """A dialog to open, its form again with what is wrong (422), or either as a page of its own."""
    status = 422 if request.method == "POST" else 200
    if not is_htmx(request):
        return render(request, page, context, status=status)
    template = f"{stem}_form.html" if request.method == "POST" else f"{stem}_dialog.html"
    return render(request, template, context, status=status)


def see_other(address: str) -> HttpResponse:
    response = HttpResponseRedirect(address)
    response.status_code = 303
    return response


def back_to_list(request: HttpRequest, address: str) -> HttpResponse:
    """303 to the list at that address, in the state that it was left in."""
    came_from = _split(request.headers.get("Referer", ""))
    query = f"?{came_from.query}" if came_from.path == address and came_from.query else ""
    return see_other(address + query)


def shown_query(request: SpaceRequest, address: str) -> QueryDict:
    """What the address of the list says that the browser shows behind the dialog."""
    shown = _split(request.headers.get("HX-Current-URL", "") if request.htmx else "")
    return QueryDict(shown.query if shown.path == address else "")


def _split(address: str) -> SplitResult:
    """A header can say anything; what is no address is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
