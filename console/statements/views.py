from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_safe

from accounts.models import User
from console.export import csv_answer, file_name, wants_bom
from console.guards import SpaceRequest, member_view, space_view
from console.statements.sheet import MemberSheet, SpaceSheet, member_csv, space_csv
from quotas.statement import member_statement as statement_of
from quotas.statement import space_statement as statement_of_space
from quotas.statement_reader import StatementMonth
from tenants.policies import can_read_statement

MAX_MEMBER_NUMBER = 2**31 - 1


@require_safe
@space_view
def own_statement(request: SpaceRequest) -> HttpResponse:
    if not request.user.is_manager:
        return _member_page(request, request.user, "/me/statement")
    month = _month(request)
    shown = SpaceSheet(statement_of_space(request.space, month, after=_number(request.GET.get("after", ""))))
    return _page(request, month, "/me/statement", {"of_space": shown})


@require_GET
@space_view
def own_statement_csv(request: SpaceRequest) -> HttpResponseBase:
    if not request.user.is_manager:
        return _member_file(request, request.user)
    month = _month(request)
    statement = statement_of_space(request.space, month, max_members=None)
    name = file_name(request.space, "statement", month.first_day, month.last_day)
    return csv_answer(space_csv(statement, has_bom=wants_bom(request)), name)


@require_safe
@member_view(can_read_statement)
def member_statement(request: SpaceRequest, member: User) -> HttpResponse:
    return _member_page(request, member, f"/space/users/{member.number}/statement")


@require_GET
@member_view(can_read_statement)
def member_statement_csv(request: SpaceRequest, member: User) -> HttpResponseBase:
    return _member_file(request, member)


def _member_page(request: SpaceRequest, member: User, address: str) -> HttpResponse:
    month = _month(request)
    return _page(request, month, address, {"of_member": MemberSheet(statement_of(member, month))})


def _member_file(request: SpaceRequest, member: User) -> HttpResponseBase:
    month = _month(request)
    pieces = member_csv(statement_of(member, month, max_transfers=None), has_bom=wants_bom(request))
    what = f"statement-{member.username}"
    return csv_answer(pieces, file_name(request.space, what, month.first_day, month.last_day))


def _page(request: SpaceRequest, month: StatementMonth, address: str, context: dict[str, Any]) -> HttpResponse:
    return render(request, "console/statements/statement.html", {"month": month, "address": address} | context)


def _month(request: SpaceRequest) -> StatementMonth:
    return StatementMonth.of(request.GET.get("month", ""))


def _number(text: str) -> int:
    # Members are numbered from 2, so 1 means the start.
    return min(int(text), MAX_MEMBER_NUMBER) if text.isascii() and text.isdigit() and len(text) < 20 else 1
