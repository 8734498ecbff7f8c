from __future__ import annotations

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET, require_safe
from django.views.decorators.vary import vary_on_headers

from console.answers import page_or_piece
from console.export import log_csv
from console.guards import SpaceRequest, space_view
from console.usage.log import UsageLog
from console.usage.receipt import receipt_of
from console.usage.sheet import usage_sheet


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def usage_log(request: SpaceRequest) -> HttpResponse:
    log = UsageLog(request.user, request.GET)
    context = {"log": log, "receipts": [receipt_of(record) for record in log.page.records]}
    return page_or_piece(
        request,
        "console/usage/usage_log.html",
        context,
        piece="console/usage/usage_log.html#log",
        target="usage-log",
        shown_url=log.shown_url,
    )


@require_GET
@space_view
def usage_csv(request: SpaceRequest) -> HttpResponseBase:
    return log_csv(request, UsageLog(request.user, request.GET), usage_sheet, "usage")
