from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend

from accounts.models import User


class LivingUserBackend(ModelBackend):
    """Django's own sign-in by name and password; the disabled, the deleted and a suspended space's people stay out.

    Django hashes a password for an unknown name too, so that all refusals take the same time.
    """

    def user_can_authenticate(self, user: Any) -> bool:
        return isinstance(user, User) and user.may_sign_in

    def get_user(self, user_id: Any) -> User | None:
        """Asked at every request with its session: one query brings the space along."""
        user = User.objects.select_related("space").filter(pk=user_id).first()
        return user if user and user.may_sign_in else None
