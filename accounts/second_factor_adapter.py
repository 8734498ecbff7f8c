from __future__ import annotations

from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter

from accounts.models import User
from core import vault

NAME = "Space Manage"


class SecondFactorAdapter(DefaultMFAAdapter):
    """Allauth's hooks: how secrets are encrypted, and the names that apps and passkeys show for this site and user."""

    def encrypt(self, text: str) -> str:
        return vault.encrypt(text)

    def decrypt(self, encrypted_text: str) -> str:
        return vault.decrypt(encrypted_text)

    def get_totp_label(self, user: User) -> str:
        return user.get_username()

    def get_totp_issuer(self) -> str:
        return NAME

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        # The relying party is the host of the request: a passkey works only at the host where it was made.
        return {"id": context.request.get_host().partition(":")[0], "name": NAME}

    def get_public_key_credential_user_entity(self, user: User) -> dict[str, str | bytes]:
        return {"id": str(user.pk).encode(), "name": user.get_username(), "display_name": user.name}
