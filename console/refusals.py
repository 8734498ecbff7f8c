"""Records refused deeds (a POST answered with 403) in the audit trail. Refused page views are not recorded."""

from __future__ import annotations

from django.http import HttpRequest

from accounts.models import User
from audit.services import NOT_ALLOWED, record_refusal

_MEMBER = "space/users/<int:number>/"
KINDS = {
    "space/users/add/": "member.created",
    f"{_MEMBER}edit/": "member.edited",
    f"{_MEMBER}status/": "member.status_set",
    f"{_MEMBER}delete/": "member.deleted",
    f"{_MEMBER}keys/<int:key_number>/revoke/": "key.deleted",
    f"{_MEMBER}two-factor/reset/": "member.two_factor_reset",
    "space/security/": "space.two_factor_required",
}
# A POST that only computes a preview is no deed.
_READ_ONLY_POSTS = {f"{_MEMBER}preview/"}
# The kind of a refusal on any other page, whose path is stored in `after`.
OTHER_PAGE = "page.posted"


def record_refused_request(request: HttpRequest) -> None:
    """Record a refused attempt in the trail of the actor's space; an operator's belongs to no space."""
    user = getattr(request, "user", None)
    match = request.resolver_match
    if not isinstance(user, User) or match is None or request.method in ("GET", "HEAD", "OPTIONS"):
        return
    if match.route in _READ_ONLY_POSTS:
        return
    kind = KINDS.get(match.route, OTHER_PAGE)
    after = {"page": request.path[:200]} if kind == OTHER_PAGE else None
    target = _target(user, match.kwargs.get("number"))
    record_refusal(kind, why=NOT_ALLOWED, space=user.space, actor=user, target=target, after=after)


def _target(user: User, number: object) -> User | None:
    # Search the actor's own space only, so that a member of another space is never named.
    if user.space_id is None or not isinstance(number, int):
        return None
    return User.objects.filter(space=user.space_id, number=number).first()
