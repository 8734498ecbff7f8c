"""Secrets that must be read again (upstreams' credentials, authenticator apps' secrets), encrypted at rest under
CREDENTIAL_KEYS: Fernet keys, the newest first.

The first key encrypts, any of them decrypts: to change keys, put a new one in front and drop the old one when every
secret was given again or passed through `rotate`.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


def encrypt(clear: str) -> str:
    return _fernet().encrypt(clear.encode()).decode("ascii")


def decrypt(sealed: str) -> str:
    """Raises ImproperlyConfigured when none of the keys fits."""
    try:
        return _fernet().decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise ImproperlyConfigured(_NO_KEY_FITS) from None


def rotate(sealed: str) -> str:
    """The same credential under the newest key."""
    try:
        return _fernet().rotate(sealed.encode()).decode("ascii")
    except InvalidToken:
        raise ImproperlyConfigured(_NO_KEY_FITS) from None


_HOW = (
    "Give one or more, newest first, split by commas; make one with: "
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)
_NO_KEY_FITS = (
    "CREDENTIAL_KEYS: none of them opens this credential. Add the key it was encrypted with, or give it again."
)


def _fernet() -> MultiFernet:
    keys: list[str] = settings.CREDENTIAL_KEYS
    if not keys:
        raise ImproperlyConfigured(f"CREDENTIAL_KEYS is not set. {_HOW}")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        # The error itself would quote nothing, and the key must not be quoted either.
        raise ImproperlyConfigured(f"CREDENTIAL_KEYS: a key is not 32 bytes in url-safe base64. {_HOW}") from None
