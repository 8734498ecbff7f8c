"""Pages while the database is unreachable: 503, and one line in the log."""

from __future__ import annotations

import logging

import pytest
from django.contrib.auth.decorators import login_not_required
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from spacemanage.logs import DatabaseAway


@login_not_required
def away(request: HttpRequest) -> HttpResponse:
    raise OperationalError("connection refused\nIs the server running?")


@login_not_required
def broken(request: HttpRequest) -> HttpResponse:
    raise ValueError("ours")


urlpatterns = [path("away/", away), path("broken/", broken)]
handler500 = "spacemanage.errors.failed"


@pytest.mark.parametrize(
    ("address", "status", "words", "retry"),
    [("/away/", 503, "cannot be reached", "5"), ("/broken/", 500, "went wrong on our side", None)],
)
def test_an_unreachable_database_is_answered_503_and_other_errors_500(
    address: str, status: int, words: str, retry: str | None
) -> None:
    with override_settings(ROOT_URLCONF=__name__):
        answer = Client(raise_request_exception=False).get(address)

    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, retry)
    assert words in answer.content.decode()


def test_an_unreachable_database_is_logged_without_a_traceback() -> None:
    try:
        away(HttpRequest())
    except OperationalError as error:
        record = logging.LogRecord("django.request", logging.ERROR, "", 0, "%s", ("x",), (type(error), error, None))

    assert DatabaseAway().filter(record)
    assert (record.getMessage(), record.exc_info) == ("Database away: connection refused", None)
