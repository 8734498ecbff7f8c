"""Encryption at rest for secrets that must be readable: upstreams' credentials and secrets of authenticator apps.

CREDENTIAL_KEYS holds Fernet keys, the newest first. The first key encrypts, any of them decrypts. To change keys, add
a new one in front, pass every secret through `rotate` (or enter it again), and then remove the old key.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


def encrypt(clear: str) -> str:
    return _fernet().encrypt(clear.encode()).decode("ascii")


def decrypt(sealed: str) -> str:
    """Raises ImproperlyConfigured when none of the keys can decrypt the secret."""
    try:
        return _fernet().decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise ImproperlyConfigured(_NO_KEY_FITS) from None


def rotate(sealed: str) -> str:
    # Decrypts with any of the keys and encrypts with the newest.
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
        # The message must not quote the invalid key, because it is a secret.
        raise ImproperlyConfigured(f"CREDENTIAL_KEYS: a key is not 32 bytes in url-safe base64. {_HOW}") from None
