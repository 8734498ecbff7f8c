from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone, translation
from django.utils.http import urlencode
from django_htmx.http import HttpResponseClientRedirect

from accounts.second_factor import has_second_factor, is_required_of
from accounts.sessions import SignedOutError, note_seen
from core.locales import zone_of

Handler = Callable[[HttpRequest], HttpResponseBase]


def browser_locale(get_response: Handler) -> Handler:
    """Activate the cookie's or the browser's language, and UTC; reset both after the request, also when it raises.

    A streamed body is rendered after the request: each of its pieces is rendered in the language and time zone that
    were active when the view returned.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        with translation.override(translation.get_language_from_request(request)), timezone.override(None):
            response = get_response(request)
            # A FileResponse renders nothing, and the server may send its file without reading it.
            if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
                _keep_locale(response)
            return response

    return middleware


def _keep_locale(response: StreamingHttpResponse) -> None:
    pieces = iter(response)
    language, zone = translation.get_language(), timezone.get_current_timezone()

    def rendered() -> Iterator[bytes]:
        while True:
            with translation.override(language), timezone.override(zone):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    response.streaming_content = rendered()


def own_locale(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        user = request.user
        if user.is_authenticated:
            # browser_locale, which runs around this middleware, resets both.
            if user.time_zone:
                timezone.activate(zone_of(user.time_zone))
            if user.language in dict(settings.LANGUAGES):
                translation.activate(user.language)
        return get_response(request)

    return middleware


class SignInRequiredMiddleware(LoginRequiredMiddleware):
    """Require sign-in on every page that is not marked with `login_not_required`.

    An htmx request is redirected by HX-Redirect, so that the browser loads the sign-in page instead of swapping it in.
    """

    def handle_no_permission(self, request: HttpRequest, view_func: Any) -> HttpResponseBase:  # type: ignore[override]  # htmx redirects on a 200 with HX-Redirect
        htmx = getattr(request, "htmx", None)
        if not htmx:
            return super().handle_no_permission(request, view_func)
        try:
            came_from = htmx.current_url_abs_path or "/"
        except ValueError:  # the client's HX-Current-URL header is not a valid URL
            came_from = "/"
        return HttpResponseClientRedirect(f"{settings.LOGIN_URL}?{urlencode({'next': came_from})}")

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        if not isinstance(error, SignedOutError):
            return None
        match = request.resolver_match
        return self.handle_no_permission(request, match.func if match else None)


SECOND_FACTOR_SETUP_PATH = "/me/two-factor/"
# Users who must set up a second factor can only set it up, confirm their password and sign out.
PATHS_ALLOWED_BEFORE_SETUP = (SECOND_FACTOR_SETUP_PATH, "/me/confirm/", "/login/", "/logout/", "/healthz", "/readyz")


def second_factor_required(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path.startswith(PATHS_ALLOWED_BEFORE_SETUP) or not _must_set_up_second_factor(request):
            return get_response(request)
        if getattr(request, "htmx", None):
            return HttpResponseClientRedirect(SECOND_FACTOR_SETUP_PATH)
        return HttpResponse(
            status=302 if request.method in ("GET", "HEAD") else 303, headers={"Location": SECOND_FACTOR_SETUP_PATH}
        )

    return middleware


def session_seen(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.user.is_authenticated:
            note_seen(request, request.user)
        return get_response(request)

    return middleware


def _must_set_up_second_factor(request: HttpRequest) -> bool:
    user = request.user
    return user.is_authenticated and is_required_of(user) and not has_second_factor(user)
