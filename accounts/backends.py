from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from accounts.models import User
from accounts.throttle import uncount_failure


class LivingUserBackend(ModelBackend):
    """Authenticate by username and password; refuse disabled and deleted users, and users of a suspended space.

    ModelBackend hashes the password of an unknown username too, so the response time does not reveal which names exist.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        user = super().authenticate(request, username, password, **kwargs)
        if user is not None and request is not None:
            uncount_failure(request, {"username": username})
        return user

    def user_can_authenticate(self, user: Any) -> bool:
        return isinstance(user, User) and user.may_sign_in

    def get_user(self, user_id: Any) -> User | None:
        # Called at every request, so the space is loaded in the same query.
        user = User.objects.select_related("space").filter(pk=user_id).first()
        return user if user and user.may_sign_in else None
