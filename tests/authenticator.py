"""An authenticator app for tests: it stores a TOTP secret and shows the code for the current 30 seconds."""

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
    """The code that is valid `steps` × 30 seconds from now."""
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // 30 + steps)))


class App:
    """A user's authenticator app, already enabled. A code cannot be used twice, so later ones need `steps`."""

    def __init__(self, user: User) -> None:
        sealed = second_factor.new_app_secret()
        self.secret = second_factor.open_app_secret(sealed)
        # Enabled with the previous code, so that the current one is still unused.
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
