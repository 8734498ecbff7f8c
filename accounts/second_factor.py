"""Two-factor authentication: an authenticator app (TOTP), passkeys (WebAuthn), and recovery codes.

The models and algorithms are allauth's. Its views track used codes in a cache, which leaves a race; here the rows are
locked, so that concurrent requests cannot use the code of an app, or a recovery code, twice.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from allauth.core.context import request_context
from allauth.mfa import app_settings
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal import auth as totp
from allauth.mfa.utils import decrypt, encrypt
from allauth.mfa.webauthn.internal import auth as webauthn
from cryptography.exceptions import InvalidSignature
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from accounts.models import User
from accounts.sessions import lock_user
from audit.services import record
from tenants.policies import can_reset_second_factor

AuthenticatorType = Authenticator.Type
MAX_PASSKEYS = 10
MAX_PASSKEY_ANSWER_LENGTH = 16_384
_DIGITS = re.compile(r"[0-9]{6,10}")


class WrongCodeError(Exception):
    """The code does not belong to this app and moment, or it was used before."""


class PasskeyRefusedError(Exception):
    """The browser's answer is not a passkey, or does not belong to this challenge."""


class PasskeyUnusableError(PasskeyRefusedError):
    """The passkey's signatures cannot be verified here, so it could never be used to sign in."""


@dataclass(frozen=True)
class SecondFactorMethods:
    app: Any
    passkeys: list[Any]
    codes_left: int

    @property
    def is_on(self) -> bool:
        return bool(self.app or self.passkeys)


def is_possible() -> bool:
    # Secrets of authenticator apps are stored encrypted with these.
    return bool(settings.CREDENTIAL_KEYS)


def has_second_factor(user: User) -> bool:
    return bool(
        Authenticator.objects.filter(user=user, type__in=[AuthenticatorType.TOTP, AuthenticatorType.WEBAUTHN]).exists()
    )


def is_required_of(user: User) -> bool:
    if user.is_operator:
        return bool(settings.OPERATORS_NEED_2FA)
    return bool(user.is_admin and user.space and user.space.requires_second_factor)


def methods_of(user: User) -> SecondFactorMethods:
    rows = list(Authenticator.objects.filter(user=user).order_by("pk"))
    codes = next((row for row in rows if row.type == AuthenticatorType.RECOVERY_CODES), None)
    return SecondFactorMethods(
        app=next((row for row in rows if row.type == AuthenticatorType.TOTP), None),
        passkeys=[row for row in rows if row.type == AuthenticatorType.WEBAUTHN],
        # Counted from the bit mask without decrypting: the page must render even when the encryption key is missing.
        codes_left=app_settings.RECOVERY_CODE_COUNT - codes.data["used_mask"].bit_count() if codes else 0,
    )


# -- Set up and remove -------------------------------------------------------------------------------------------------


def new_app_secret() -> str:
    """Return an encrypted TOTP secret, which the session keeps until a first code proves that the app has it."""
    return str(encrypt(totp.generate_totp_secret()))


def open_app_secret(sealed: str) -> str:
    return str(decrypt(sealed))


@transaction.atomic
def enable_app(*, user: User, sealed_secret: str, code: str) -> list[str]:
    """Return recovery codes if this is the user's first factor, else an empty list. Raises WrongCodeError."""
    lock_user(user)
    counter = _counter_of(open_app_secret(sealed_secret), code)
    if counter is None or _authenticators(user, AuthenticatorType.TOTP).exists():
        raise WrongCodeError
    codes = _codes_with_first_factor(user)
    data = {"secret": sealed_secret, "last_counter": counter}
    Authenticator.objects.create(user=user, type=AuthenticatorType.TOTP, data=data)
    record("self.two_factor_enabled", space=user.space, actor=user, target=user, after={"method": "app"})
    return codes


def begin_passkey(request: HttpRequest, user: User) -> str:
    # Only the session that asked can answer the challenge.
    with request_context(request):
        return json.dumps(webauthn.begin_registration(user, passwordless=False))


def add_passkey(request: HttpRequest, *, user: User, name: str, answer: str) -> list[str]:
    """Return recovery codes as enable_app does. Raises PasskeyRefusedError and PasskeyUnusableError."""
    credential = _parse_answer(answer)
    try:
        with request_context(request):
            webauthn.parse_registration_response(credential)
            made = webauthn.complete_registration(credential)
    except Exception as error:  # the parsers raise many kinds of errors for malformed input
        raise PasskeyRefusedError from error
    if not _can_verify(made.credential_data.public_key):
        raise PasskeyUnusableError
    with transaction.atomic():
        lock_user(user)
        if _authenticators(user, AuthenticatorType.WEBAUTHN).count() >= MAX_PASSKEYS:
            raise PasskeyRefusedError
        codes = _codes_with_first_factor(user)
        webauthn.WebAuthn.add(user, name, credential)
        after = {"method": "passkey", "name": name}
        record("self.two_factor_enabled", space=user.space, actor=user, target=user, after=after)
    return codes


@transaction.atomic
def remove_app(*, user: User) -> None:
    lock_user(user)
    if _authenticators(user, AuthenticatorType.TOTP).delete()[0]:
        _record_removal(user, {"method": "app"})


@transaction.atomic
def remove_passkey(*, user: User, passkey: Any) -> None:
    lock_user(user)
    if _authenticators(user, AuthenticatorType.WEBAUTHN).filter(pk=passkey.pk).delete()[0]:
        _record_removal(user, {"method": "passkey", "name": str(passkey)})


@transaction.atomic
def renew_codes(*, user: User) -> list[str]:
    lock_user(user)
    if not has_second_factor(user):
        return []
    _authenticators(user, AuthenticatorType.RECOVERY_CODES).delete()
    record("self.recovery_codes_renewed", space=user.space, actor=user, target=user)
    return _formatted(RecoveryCodes.activate(user).generate_codes())


@transaction.atomic
def reset_second_factor(*, target: User, actor: User | None) -> bool:
    """Delete the second factor of a user who lost app, passkeys and codes. Return False when there was none.

    All sessions of the user end, because whoever has the lost device may be signed in. `actor` is None for a
    management command. Raises PermissionDenied.
    """
    if actor is not None and not can_reset_second_factor(actor, target):
        raise PermissionDenied
    stored = lock_user(target)
    if not forget_second_factor(target):
        return False
    _end_sessions(target, stored)
    record("member.two_factor_reset", space=target.space, actor=actor, target=target)
    return True


def forget_second_factor(user: User) -> bool:
    return bool(Authenticator.objects.filter(user=user).delete()[0])


# -- Sign in -----------------------------------------------------------------------------------------------------------


@transaction.atomic
def use_code(*, user: User, code: str) -> bool:
    code = re.sub(r"[\s-]", "", code)
    if not _DIGITS.fullmatch(code):
        return False
    found = Authenticator.objects.select_for_update().filter(
        user=user, type__in=[AuthenticatorType.TOTP, AuthenticatorType.RECOVERY_CODES]
    )
    rows = {row.type: row for row in found.order_by("pk")}
    if AuthenticatorType.TOTP in rows and _use_app_code(rows[AuthenticatorType.TOTP], code):
        return True
    return AuthenticatorType.RECOVERY_CODES in rows and _use_recovery_code(rows[AuthenticatorType.RECOVERY_CODES], code)


def ask_for_passkey(request: HttpRequest, user: User) -> str:
    # Only the session that asked can answer the challenge, and only once.
    with request_context(request):
        return json.dumps(webauthn.begin_authentication(user))


def use_passkey(request: HttpRequest, *, user: User, answer: str) -> bool:
    try:
        credential = _parse_answer(answer)
        with request_context(request):
            webauthn.parse_authentication_response(credential)
            passkey = webauthn.complete_authentication(user, credential)
    except Exception:  # noqa: BLE001  # as in add_passkey: a malformed answer is a wrong answer
        return False
    passkey.record_usage()
    return True


def _can_verify(key: Any) -> bool:
    # Verifies an empty signature: InvalidSignature means that the key can be used. Any other error means an unsupported
    # algorithm or curve, or a malformed key.
    try:
        key.verify(b"", b"")
    except InvalidSignature:
        return True
    except Exception:  # noqa: BLE001  # as in add_passkey
        return False
    return False


def _use_app_code(app: Any, code: str) -> bool:
    counter = _counter_of(decrypt(app.data["secret"]), code)
    # Replay protection: neither the last accepted code nor any code of an earlier time step is accepted.
    if counter is None or counter <= app.data["last_counter"]:
        return False
    app.data["last_counter"] = counter
    app.last_used_at = timezone.now()
    app.save(update_fields=["data", "last_used_at"])
    return True


def _use_recovery_code(codes: Any, code: str) -> bool:
    wrapped = RecoveryCodes(codes)
    if not wrapped.validate_code(code):
        return False
    wrapped.instance.record_usage()
    user = codes.user
    record("self.recovery_code_used", space=user.space, actor=user, target=user)
    return True


def _counter_of(secret: str, code: str) -> int | None:
    code = re.sub(r"[\s-]", "", code)
    # Time steps of 30 s: the current one and its neighbours, which tolerates clock drift.
    fits = [step for step in totp.yield_hotp_counters_from_time() if _code_at(secret, step) == code]
    return max(fits, default=None)


def _code_at(secret: str, counter: int) -> str:
    return str(totp.format_hotp_value(totp.hotp_value(secret, counter)))


def _parse_answer(answer: str) -> dict[str, Any]:
    if len(answer) > MAX_PASSKEY_ANSWER_LENGTH:
        raise PasskeyRefusedError
    try:
        credential = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise PasskeyRefusedError from error
    if not isinstance(credential, dict):
        raise PasskeyRefusedError
    return credential


def _authenticators(user: User, kind: str) -> QuerySet[Any]:
    return Authenticator.objects.filter(user=user, type=kind)  # type: ignore[no-any-return]  # allauth ships no types


def _codes_with_first_factor(user: User) -> list[str]:
    if has_second_factor(user):
        return []
    _authenticators(user, AuthenticatorType.RECOVERY_CODES).delete()
    # These sessions were signed in with the password alone.
    _end_sessions(user, lock_user(user))
    return _formatted(RecoveryCodes.activate(user).generate_codes())


def _record_removal(user: User, before: dict[str, str]) -> None:
    record("self.two_factor_removed", space=user.space, actor=user, target=user, before=before)
    if not has_second_factor(user):
        forget_second_factor(user)


def _end_sessions(user: User, locked: User) -> None:
    locked.session_epoch += 1
    locked.save(update_fields=["session_epoch"])
    # The caller can keep its own session with update_session_auth_hash.
    user.session_epoch = locked.session_epoch


def _formatted(codes: list[str]) -> list[str]:
    return [f"{code[:5]}-{code[5:]}" for code in codes]
