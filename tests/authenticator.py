"""What an authenticator app does: it keeps a secret and shows a code for this half minute."""

from __future__ import annotations

import re
import time
from typing import Any

from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.test import Client

from accounts import second_factor
from accounts.models import User
from tests.factories import PASSWORD


def code_of(secret: str, *, steps: int = 0) -> str:
    """`steps` half minutes from now."""
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // 30 + steps)))


class App:
    """Somebody's app, set up. Its next codes are ahead of the clock, as one that was used is not shown again."""

    def __init__(self, user: User) -> None:
        sealed = second_factor.new_app_secret()
        self.secret = second_factor.open_app_secret(sealed)
        # Set up half a minute ago, so that the code of now is a fresh one.
        self.recovery_codes = second_factor.enable_app(user=user, sealed_secret=sealed, code=self.code(steps=-1))

    def code(self, *, steps: int = 0) -> str:
        return code_of(self.secret, steps=steps)


def give_password(client: Client, username: str, password: str = PASSWORD, **extra: Any) -> Any:
    data = {"username": username, "password": password, "next": extra.pop("next", "")}
    return client.post("/login/", data, **extra)


def secret_on(page: str) -> str:
    found = re.search(r"<code[^>]*data-line>([A-Z2-7 ]+)</code>", page)
    assert found
    return found[1].replace(" ", "")
