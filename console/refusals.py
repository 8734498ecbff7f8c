"""What a page refused with 403: written down where an act was tried, not where somebody only looked."""

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
# They change nothing.
_READ_ONLY_POSTS = {f"{_MEMBER}preview/"}
# Any other page, named in `after`.
OTHER_PAGE = "page.posted"


def record_refused_request(request: HttpRequest) -> None:
    """The attempt of a signed-in person, in their own space's trail; an operator's in the operators' alone."""
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
    """Numbers count within the actor's own space, so nobody else's member can be named."""
    if user.space_id is None or not isinstance(number, int):
        return None
    return User.objects.filter(space=user.space_id, number=number).first()
