"""Template context of the page frame: sidebar, quota pill, theme and sidebar width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

from accounts.models import User
from quotas.models import Wallet
from quotas.pool import pool_of
from tenants.policies import can_manage_users
from tenants.roles import Role

# Pages below Personal Settings, which stays the current item of the sidebar on them.
SETTINGS_SUBPAGES = ("/me/activity/", "/me/two-factor/", "/me/confirm/")


@dataclass(frozen=True)
class Item:
    url: str
    label: str
    icon: str
    is_current: bool


@dataclass(frozen=True)
class Pill:
    label: str
    nanos: int
    total_nanos: int
    url: str


class Shell:
    """Sidebar and quota pill, computed on first use: an htmx piece does not show them and needs no query."""

    def __init__(self, request: HttpRequest) -> None:
        assert isinstance(request.user, User)
        self._request = request
        self._user = request.user

    @cached_property
    def sections(self) -> list[tuple[str, list[Item]]]:
        return _sections(self._user, self._request.path)

    @cached_property
    def pill(self) -> Pill:
        return _pill(self._request, self._user)


def shell(request: HttpRequest) -> dict[str, Any]:
    """Context processor. `shell` is None for anonymous users and operators."""
    is_member = getattr(request, "space", None) is not None
    return {
        "shell": Shell(request) if is_member else None,
        # The cookie of this browser takes precedence over the theme of the account.
        "shell_theme": _chosen(request, "theme", ("light", "dark")) or _own_theme(request),
        "shell_sidebar": _chosen(request, "sidebar", ("full", "rail")),
    }


def _sections(user: User, path: str) -> list[tuple[str, list[Item]]]:
    def item(url: str, label: str, icon: str, *reached_from_it: str) -> Item:
        return Item(url, label, icon, path.startswith((url, *reached_from_it)))

    console = (
        _("Console"),
        [
            # Compared exactly: its URL is a prefix of every other console page.
            Item("/console/", _("Dashboard"), "layout-dashboard", path == "/console/"),
            item("/console/tokens/", _("Token Management"), "key-round"),
            item("/console/usage/", _("Usage Logs"), "scroll-text"),
            item("/console/tasks/", _("Task Logs"), "list-checks"),
        ],
    )
    manage = (
        _("Space Manage"),
        [
            item("/space/users/", _("User Management"), "users"),
            item("/space/audit/", _("Activity"), "history"),
        ],
    )
    personal = (
        _("Personal Center"),
        [
            item("/me/credits/", _("Credits Management"), "wallet", "/me/statement/"),
            item("/me/settings/", _("Personal Settings"), "settings", *SETTINGS_SUBPAGES),
        ],
    )
    return [console, manage, personal] if can_manage_users(user) else [console, personal]


def pool_of_request(request: Any) -> Wallet:
    """Return the pool of the request's space, queried at most once; a view that moved money sets `request.pool`."""
    if getattr(request, "pool", None) is None:
        request.pool = pool_of(request.space)
    pool: Wallet = request.pool
    return pool


def _pill(request: HttpRequest, user: User) -> Pill:
    if can_manage_users(user):
        pool = pool_of_request(request)
        # Credits Management shows the pool to the manager only; an admin finds its figures in User Management.
        url = "/me/credits/" if user.role == Role.MANAGER else "/space/users/"
        return Pill(_("Available"), pool.available, pool.total, url)
    wallet = Wallet.objects.get(space=user.space_id, user=user)
    return Pill(_("Remaining"), wallet.remaining, wallet.total, "/me/credits/")


def _own_theme(request: HttpRequest) -> str:
    return getattr(getattr(request, "user", None), "theme", "")


def _chosen(request: HttpRequest, name: str, allowed: tuple[str, ...]) -> str:
    value = request.COOKIES.get(name, "")
    return value if value in allowed else ""
